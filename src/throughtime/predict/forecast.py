"""What comes after the data that a model was fitted on: simulated paths and their quantiles."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from throughtime.data.frequency import future_stamps
from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Transforms
from throughtime.errors import SettingError, nearest
from throughtime.evaluation import enough_paths
from throughtime.evaluation.comparison import shown
from throughtime.evaluation.forecasts import quantile_error
from throughtime.models.base import SequenceModel
from throughtime.predict.context import Future
from throughtime.types import Progress

QUANTILES = (0.01, 0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975, 0.99)
_MOST_PATHS = 51_200
_MOST_VALUES = 10_000_000  # in all the paths of one series, unless a number of paths is asked for
Tell = Callable[[int, str], None]


@dataclass(frozen=True)
class Question:
    """What a forecast is asked for. num_paths None: as many as the tolerance takes.

    tolerance: the standard error of a quantile, as a share of the width from the 10 % to the 90 %
    quantile. Raises SettingError where that makes no sense.
    """

    horizon: int
    quantiles: tuple[float, ...] = QUANTILES
    num_paths: int | None = None
    tolerance: float = 0.05
    seed: int = 0
    paths: bool = False

    def __post_init__(self) -> None:
        if self.horizon < 1:
            raise SettingError(f"horizon={self.horizon}: at least 1 step")
        wrong = [f"{q:g}" for q in self.quantiles if not 0 < q < 1]
        if wrong or not self.quantiles:
            raise SettingError(
                f"quantiles={', '.join(wrong)}: they lie between 0 and 1, for example 0.1,0.5,0.9"
            )
        if self.num_paths is not None and self.num_paths < 1:
            raise SettingError(f"paths={self.num_paths}: at least 1")
        if not self.tolerance > 0:
            raise SettingError(f"tolerance={self.tolerance:g}: above 0")


def forecast(
    model: SequenceModel,
    chain: Transforms,
    context: Sequences,
    chosen: list[int],
    question: Question,
    known: dict[str, Future],
    on_progress: Progress,
) -> dict[str, Any]:
    """Quantiles, means and (if asked for) paths of the steps after each chosen series."""
    horizon = question.horizon
    found, used, error = [], 0, 0.0
    for done, i in enumerate(chosen):

        def tell(step: int, about: str, done: int = done) -> None:
            on_progress(done * horizon + step, len(chosen) * horizon, about)

        one = context[i]
        future = known.get(one.names[0])
        drawn = _paths(model, chain, one, question, future, tell)
        used = max(used, len(drawn))
        error = max(error, quantile_error(drawn, question.quantiles))
        found.append(_summary(one, drawn, question, future))
    certain = error if math.isfinite(error) else None
    return {"horizon": horizon, "num_paths": used, "quantile_error": certain, "series": found}


def places(names: tuple[str, ...], asked: list[str] | None) -> list[int]:
    """Where the series asked for stand among all; None: all. Raises SettingError for others."""
    for name in asked or ():
        if name not in names:
            near = nearest(name, names) or ";"
            raise SettingError(f"no series '{name}' in this run{near} it has {_few(names)}")
    return [names.index(name) for name in asked or names]


def _paths(
    model: SequenceModel,
    chain: Transforms,
    one: Sequences,
    question: Question,
    future: Future | None,
    tell: Tell,
) -> Tensor:
    """Raw paths ``[num_paths, horizon, D]`` that continue one series."""
    name = one.names[0]
    tell(0, f"reading the past of {name}")
    seen = shown(model, chain, one)
    previous, state = model.condition(seen)

    def draw(count: int) -> Tensor:
        stream = model.stream(
            state, count, question.seed, previous=previous, name=name,
            series=seen.identity if bool((seen.identity >= 0).any()) else None,
            covariates=None if future is None else future.covariates,
        )  # fmt: skip
        steps = []
        for step in range(question.horizon):
            steps.append(next(stream))
            tell(step + 1, f"{name}: {count:,} paths")
        values = torch.stack(steps, 1)
        raw = chain.inverse(values.double() if values.is_floating_point() else values, one.values)
        return raw if raw.dim() == 3 else raw.unsqueeze(-1)

    if question.num_paths is not None:
        return draw(question.num_paths)
    size = question.horizon * max(1, len(one.domain.columns))
    most = max(200, min(_MOST_PATHS, _MOST_VALUES // size))
    return enough_paths(draw, question.quantiles, question.tolerance, limit=most)


def _summary(
    one: Sequences, drawn: Tensor, question: Question, future: Future | None
) -> dict[str, Any]:
    values = drawn.double().numpy()
    levels = np.quantile(values, question.quantiles, axis=0)
    names = one.domain.columns or tuple(f"value_{i}" for i in range(values.shape[-1]))
    columns = []
    for d, name in enumerate(names):
        entry: dict[str, Any] = {
            "name": name,
            "mean": values[..., d].mean(0).tolist(),
            "quantiles": {
                str(q): levels[i, :, d].tolist() for i, q in enumerate(question.quantiles)
            },
        }
        if question.paths:
            entry["paths"] = values[..., d].tolist()
        columns.append(entry)
    stamps = None if future is None else future.times
    if stamps is None and one.times is not None:
        stamps = future_stamps(one.times, question.horizon)
    times = None if stamps is None else [_stamp(stamp) for stamp in stamps]
    return {"name": one.names[0], "times": times, "columns": columns}


def _stamp(value: Any) -> str:
    """A time stamp as text, without a clock time of zero."""
    return str(value).removesuffix(".000000").removesuffix("T00:00:00").replace("T", " ")


def _few(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more
