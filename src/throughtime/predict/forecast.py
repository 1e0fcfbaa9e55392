"""Forecasts: joint paths of the next steps, drawn from the exact conditional distribution."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from throughtime.data.frames import frame_of
from throughtime.data.frequency import future_stamps
from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Transforms
from throughtime.errors import SettingError, nearest
from throughtime.models.base import SequenceModel
from throughtime.predict.end import End
from throughtime.predict.future import Future
from throughtime.types import Progress
from throughtime.wording import stamp

QUANTILES = (0.01, 0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975, 0.99)
_MOST_PATHS = 51_200
_MOST_VALUES = 10_000_000  # in all the paths of one series, unless a number of paths is asked for
Tell = Callable[[int, str], None]


@dataclass(frozen=True)
class Question:
    """What a forecast is asked for.

    Attributes:
        horizon: steps ahead.
        quantiles: levels between 0 and 1.
        num_paths: how many; None: until the standard error of every quantile is below `tolerance`
            times the width from the 10 % to the 90 % quantile (at most 51,200).
        tolerance: see there.
        seed: of the paths.

    Raises:
        SettingError: where that makes no sense.
    """

    horizon: int
    quantiles: tuple[float, ...] = QUANTILES
    num_paths: int | None = None
    tolerance: float = 0.05
    seed: int = 0

    def __post_init__(self) -> None:
        try:
            operator.index(self.horizon)
        except TypeError:
            raise SettingError(f"horizon={self.horizon}: a whole number of steps") from None
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


@dataclass(frozen=True)
class Forecast:
    """Paths of the next steps of some series, in the data's own units.

    Attributes:
        names: of the series ``[S]``.
        columns: of the values ``[D]``.
        draws: for each series its paths, float64 ``[P_i, horizon, D]``.
        times: for each series the stamps of its next steps ``[horizon]``, or their numbers, counted
            from 0 at its start.
        stamped: whether these are stamps.
        question: what was asked for.
        model: the name of the model.
        notes: what people should know about it.
    """

    names: tuple[str, ...]
    columns: tuple[str, ...]
    draws: tuple[np.ndarray, ...] = field(repr=False)
    times: tuple[np.ndarray, ...] = field(repr=False)
    stamped: bool
    question: Question
    model: str = "model"
    notes: tuple[str, ...] = ()
    library: str = "polars"  # that frames are made in

    def __len__(self) -> int:
        return len(self.names)

    @property
    def horizon(self) -> int:
        """Steps ahead."""
        return self.question.horizon

    @property
    def num_paths(self) -> int:
        """The most paths drawn of any series."""
        return max(len(paths) for paths in self.draws)

    @property
    def paths(self) -> np.ndarray:
        """float64 ``[S, P, horizon, D]``: as many paths as there are of every series."""
        least = min(len(paths) for paths in self.draws)
        return np.stack([paths[:least] for paths in self.draws])

    @property
    def mean(self) -> np.ndarray:
        """float64 ``[S, horizon, D]``."""
        return np.stack([paths.mean(0) for paths in self.draws])

    def quantile(self, level: float | Sequence[float]) -> np.ndarray:
        """Quantiles over paths, float64 ``[S, horizon, D]``, or ``[L, S, horizon, D]`` of L levels.

        Raises:
            SettingError: for a level that is not between 0 and 1.
        """
        levels = np.asarray(level, dtype=np.float64)
        if not ((levels >= 0) & (levels <= 1)).all():
            raise SettingError(f"quantile {level}: levels lie between 0 and 1")
        return np.stack([np.quantile(paths, levels, axis=0) for paths in self.draws], -3)

    def probability(self, event: Callable[[np.ndarray], Any]) -> np.ndarray:
        """How likely an event of whole paths is, ``[S]``: the share of paths on which it happens.

        Args:
            event: paths ``[P, horizon, D]`` to a truth value for each, ``[P]``.
        """
        shares = []
        for paths in self.draws:
            happens = np.asarray(event(paths))
            if happens.shape != (len(paths),):
                raise SettingError(
                    f"an event gives one truth value for each of {len(paths)} paths; this one "
                    f"gave the shape {list(happens.shape)}"
                )
            shares.append(happens.astype(bool).mean())
        return np.array(shares)

    @property
    def quantile_error(self) -> float | None:
        """The greatest standard error of a quantile asked for, in units of the 80 % width."""
        errors = [quantile_error(torch.from_numpy(p), self.question.quantiles) for p in self.draws]
        worst = max(errors)
        return worst if math.isfinite(worst) else None

    def frame(self, level: Sequence[float] | None = None) -> Any:
        """A row for each series and step (and column, where there are several).

        Args:
            level: interval levels in per cent, such as ``[80, 95]``: columns ``MODEL``,
                ``MODEL-lo-80``, ``MODEL-hi-80`` … instead of ``mean``, ``q0.1`` ….

        Returns:
            Columns unique_id, ds (a stamp, or the number of the step), column (of several), and the
            mean and quantiles: a polars frame, or one of the library that the data came in.
        """
        if level is None:
            named = {f"q{q:g}": q for q in self.question.quantiles}
            mean = "mean"
        else:
            tails = {part: (1 - part / 100) / 2 for part in level}
            named = {f"{self.model}-lo-{part:g}": tail for part, tail in tails.items()}
            named |= {f"{self.model}-hi-{part:g}": 1 - tail for part, tail in tails.items()}
            mean = self.model
        ends = self.quantile(list(named.values()))
        table = self._index(1)
        table[mean] = self.mean.swapaxes(1, 2).ravel()
        table |= {name: ends[i].swapaxes(1, 2).ravel() for i, name in enumerate(named)}
        return frame_of(table, self.library)

    def path_frame(self) -> Any:
        """A row for each series, column, path and step: unique_id, ds, column, path, value."""
        parts = []
        for i, paths in enumerate(self.draws):
            one = self._index(len(paths), [i])
            count = len(paths) * self.horizon
            number = np.repeat(np.arange(1, len(paths) + 1), self.horizon)
            one["path"] = np.tile(number, len(self.columns))
            one["value"] = paths.transpose(2, 0, 1).ravel()
            assert len(one["value"]) == count * len(self.columns)
            parts.append(one)
        return frame_of(
            {key: np.concatenate([one[key] for one in parts]) for key in parts[0]}, self.library
        )

    def _index(self, repeats: int, series: Sequence[int] | None = None) -> dict[str, np.ndarray]:
        """unique_id, ds and column, a row for each (series, column, repeat, step)."""
        chosen = range(len(self)) if series is None else series
        each = len(self.columns) * repeats
        index = {
            "unique_id": np.repeat([self.names[i] for i in chosen], each * self.horizon),
            "ds": np.concatenate([np.tile(self.times[i], each) for i in chosen]),
        }
        if len(self.columns) > 1:
            column = np.repeat(np.asarray(self.columns), repeats * self.horizon)
            index["column"] = np.tile(column, len(chosen))
        return index

    def to_json(self, paths: bool = False) -> dict[str, Any]:
        """Plain JSON values, as docs/commands.md lists them."""
        levels = self.question.quantiles
        series = []
        for name, drawn, times in zip(self.names, self.draws, self.times, strict=True):
            ends = np.quantile(drawn, levels, axis=0)
            columns = []
            for d, column in enumerate(self.columns):
                entry: dict[str, Any] = {
                    "name": column,
                    "mean": drawn[..., d].mean(0).tolist(),
                    "quantiles": {str(q): ends[i, :, d].tolist() for i, q in enumerate(levels)},
                }
                if paths:
                    entry["paths"] = drawn[..., d].tolist()
                columns.append(entry)
            stamps = [stamp(moment) for moment in times] if self.stamped else None
            series.append({"name": name, "times": stamps, "columns": columns})
        return {
            "horizon": self.horizon,
            "num_paths": self.num_paths,
            "quantile_error": self.quantile_error,
            "series": series,
        }


def draw(
    model: SequenceModel,
    transforms: Transforms,
    end: End,
    question: Question,
    known: dict[str, Future],
    on_progress: Progress,
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...]]:
    """Raw paths ``[P, horizon, D]`` of what comes after each series, and stamps or step numbers."""
    draws, stamps = [], []
    ahead = np.arange(question.horizon)
    for i in range(len(end.history)):

        def tell(step: int, about: str, done: int = i) -> None:
            total = len(end.history) * question.horizon
            on_progress(done * question.horizon + step, total, about)

        one, future = end[[i]], known.get(end.history.names[i])
        draws.append(_paths(model, transforms, one, question, future, tell).double().numpy())
        past = one.history.times
        times = None if future is None or past is None else future.times
        if times is None:
            times = int(one.steps) + ahead if past is None else future_stamps(past, len(ahead))
        stamps.append(times)
    return tuple(draws), tuple(stamps)


def _paths(
    model: SequenceModel,
    transforms: Transforms,
    one: End,
    question: Question,
    future: Future | None,
    tell: Tell,
) -> Tensor:
    """Raw paths ``[num_paths, horizon, D]`` that continue one series."""
    name = one.history.names[0]
    covariates = future.covariates if future is not None and model.covariates else None

    def drawn(count: int) -> Tensor:
        stream = model.stream(one.context, count, question.seed, name=name, covariates=covariates)
        steps = []
        for step in range(question.horizon):
            steps.append(next(stream))
            tell(step + 1, f"{name}: {count:,} paths")
        values = torch.stack(steps, 1)
        values = values.double() if values.is_floating_point() else values
        raw = transforms.inverse(values, one.history.values)
        return raw if raw.dim() == 3 else raw.unsqueeze(-1)

    if question.num_paths is not None:
        return drawn(question.num_paths)
    size = question.horizon * max(1, len(one.history.domain.columns))
    most = max(200, min(_MOST_PATHS, _MOST_VALUES // size))
    return enough_paths(drawn, question.quantiles, question.tolerance, limit=most)


def enough_paths(
    draw: Callable[[int], Tensor],
    quantiles: Sequence[float],
    tolerance: float = 0.05,
    start: int = 200,
    limit: int = _MOST_PATHS,
) -> Tensor:
    """Paths [P, ...] from `draw`, twice as many each time until the quantiles are certain.

    draw: count to paths [count, ...], where more paths begin with the same ones. Certain: the
    standard error of each quantile, everywhere, is at most `tolerance` times the distance from
    the 10 % to the 90 % quantile there. The error is half the distance between the samples one
    standard deviation of the binomial below and above. Stops at `limit` at the latest.
    """
    if not all(0 < level < 1 for level in quantiles) or not tolerance > 0:
        raise SettingError("quantiles lie between 0 and 1, and the tolerance is above 0")
    count = min(start, limit)
    while True:
        paths = draw(count)
        if count >= limit or quantile_error(paths, quantiles) <= tolerance:
            return paths
        count = min(2 * count, limit)


def quantile_error(paths: Tensor, quantiles: Sequence[float]) -> float:
    """The greatest standard error of a quantile in units of the 80 % width at its place.

    Infinite while a quantile has fewer than five samples beyond it.
    """
    count = len(paths)
    ordered = paths.double().reshape(count, -1).sort(0).values
    if count * min(min(q, 1 - q) for q in quantiles) < 5:
        return float("inf")
    width = ordered[round(0.9 * (count - 1))] - ordered[round(0.1 * (count - 1))]
    worst = torch.zeros(())
    for q in quantiles:
        spread = (count * q * (1 - q)) ** 0.5
        low = max(0, int(count * q - spread))
        high = min(count - 1, int(count * q + spread))
        error = (ordered[high] - ordered[low]) / 2
        # Where all paths agree there is no error; where most do, it is in units of itself.
        unit = torch.where(width > 0, width, torch.where(error > 0, error, 1.0))
        worst = torch.maximum(worst, (error / unit).max())
    return float(worst)


def places(names: tuple[str, ...], asked: Sequence[str] | None) -> list[int]:
    """Where the series asked for stand among all; None: all. Raises SettingError for others."""
    for name in asked or ():
        if name not in names:
            near = nearest(name, names) or ";"
            raise SettingError(f"no series '{name}' in this run{near} it has {_few(names)}")
    return [names.index(name) for name in asked or names]


def _few(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more


def column_names(sequences: Sequences, width: int) -> tuple[str, ...]:
    """The columns of values, by their names or numbers."""
    return sequences.domain.columns or tuple(f"value_{i}" for i in range(width))
