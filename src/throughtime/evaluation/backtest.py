"""Forecasts of held-out data: free-running from rolling origins, and one step at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from throughtime.data import split
from throughtime.data.sequences import Sequences
from throughtime.errors import SettingError
from throughtime.evaluation import metrics
from throughtime.evaluation.predictive import evenly, is_numeric, raw_quantiles
from throughtime.evaluation.results import (
    BacktestResult,
    Fan,
    HorizonAccuracy,
    OneStepAccuracy,
    Past,
    Times,
)
from throughtime.predict.fitted import FittedModel
from throughtime.runtime import out_of_time
from throughtime.wording import stamps

FAN_LEVELS = (0.025, 0.1, 0.5, 0.9, 0.975)
MOST_FANS = 3
MOST_ONE_STEP = 1000  # steps with a full distribution each; spread evenly over longer test data
_FAN_PAST = 4  # horizons of past before a fan
_GRID = 30  # equally likely quantiles that stand for a one-step distribution in CRPS and mean
_CHUNK = 512
Levels = Sequence[float]


@dataclass(frozen=True)
class _Continuation:
    """Sampled continuations of one series from one origin, in the data's own units.

    paths: float64 [P, horizon, D]; truth: [horizon, D], NaN where missing; scale: [D], of MASE.
    """

    series: int
    origin: int
    paths: np.ndarray
    truth: np.ndarray
    scale: np.ndarray


def backtest(
    fitted: FittedModel, raw_test: Sequences, horizon: int, origins: int = 10,
    num_paths: int = 200, seed: int = 0, levels: Levels = (0.8, 0.95), season: int = 1,
    max_series: int = 30, train: Sequences | None = None,
) -> BacktestResult | None:  # fmt: skip
    """Accuracy of forecasts from rolling origins over the test span, and of every next step.

    Free-running: sampled paths from each origin, conditioned on its true past; covariates of the
    future are taken from the data. Quantiles of P samples are those of Weibull's position, whose
    intervals have the right coverage for any P. One-step: the exact distribution of each test step
    given its true past, as quantiles taken back through the transforms. A missing truth is left
    out.

    Args:
        fitted: the model.
        raw_test: raw data, with their past.
        horizon: steps ahead; one that no series has room for is cut to the longest possible.
        origins: of each series, at most.
        num_paths, seed: of the paths from each origin.
        levels: of the central intervals.
        season: MASE is in units of the in-sample error of the naive forecast of this lag, on what
            comes before the test span; where that is nothing, on `train` if given, else on what
            comes before the first origin.
        max_series: spread evenly over more.
        train: training data, see `season`.

    Returns:
        None for text and symbols, columns of 0 and 1, and data without room for any forecast.

    Raises:
        SettingError: for a horizon or origins below 1, or fewer than 2 paths.
    """
    if horizon < 1 or origins < 1 or num_paths < 2:
        raise SettingError("a forecast needs a horizon and origins of 1 or more, and 2 paths")
    if not is_numeric(fitted.transforms, raw_test) or len(raw_test) == 0:
        return None
    room = int((raw_test.lengths - raw_test.starts.clamp(min=1)).max())
    horizon = min(horizon, room)
    if horizon < 1:
        return None
    transformed = fitted.transformed(raw_test)
    places = _places(raw_test, horizon, origins, max_series)
    scales = _scales(raw_test, season, train)
    continuations: list[_Continuation] = []
    for i, stops in list(places.items()):
        if continuations and out_of_time():
            del places[i]
            continue
        continuations += _continue(
            fitted, raw_test, transformed, i, stops, horizon, num_paths, seed, scales
        )
    return BacktestResult(
        horizon=horizon,
        origins=max(len(stops) for stops in places.values()),
        series=len(places),
        paths=num_paths,
        levels=tuple(levels),
        free_running=_by_horizon(continuations, levels),
        one_step=_one_step(fitted, raw_test, transformed, scales, levels),
        fans=_fans(continuations, raw_test),
    )


def _places(raw: Sequences, horizon: int, origins: int, max_series: int) -> dict[int, list[int]]:
    """The origins of each selected series, earliest first."""
    places: dict[int, list[int]] = {}
    for keep, stops in split.origins(raw, horizon, origins):
        for i in keep.tolist():
            places.setdefault(i, []).append(int(stops[i]))
    selected = sorted(places)
    if len(selected) > max_series:
        at = np.linspace(0, len(selected) - 1, max_series).round().astype(int)
        selected = [selected[k] for k in at]
    return {i: places[i] for i in selected}


def _scales(raw: Sequences, season: int, train: Sequences | None) -> np.ndarray:
    """The unit of MASE of each series and column, [N, D]."""
    ends = torch.where(raw.starts < 2, raw.lengths, raw.starts)
    before = raw._window(torch.arange(len(raw)), torch.zeros_like(ends), ends)
    scales = metrics.naive_scales(before.values.numpy(), before.offsets.numpy(), season)
    if train is not None and bool((raw.starts < 2).any()):
        each = metrics.naive_scales(train.values.numpy(), train.offsets.numpy(), season)
        count = np.isfinite(each).sum(0)
        shared = np.where(count > 0, np.nansum(each, axis=0) / np.maximum(count, 1), np.nan)
        scales[(raw.starts < 2).numpy()] = shared
    return scales


def _continue(
    fitted: FittedModel,
    raw: Sequences,
    transformed: Sequences,
    i: int,
    stops: list[int],
    horizon: int,
    num_paths: int,
    seed: int,
    scales: np.ndarray,
) -> list[_Continuation]:
    """The forecasts of series i from each of its origins, sampled all at once."""
    context = fitted.model.condition_at(transformed[i], stops)
    rows = torch.arange(len(stops)).repeat_interleave(num_paths)
    covariates = None
    if raw.covariates is not None and fitted.model.covariates:
        all_of_it = raw.covariates[int(raw.offsets[i]) : int(raw.offsets[i + 1])]
        covariates = torch.stack([all_of_it[stop : stop + horizon] for stop in stops])[rows]
    drawn = fitted.model.sample(
        horizon,
        context[rows],
        len(rows),
        seed,
        covariates=covariates,
        name=f"forecast/{raw.names[i]}",
    )
    values = raw.sequence(i)
    continuations = []
    for k, stop in enumerate(stops):
        paths = fitted.transforms.inverse(drawn[rows == k], values[:stop]).double().numpy()
        truth = values[stop : stop + horizon].numpy()
        continuations.append(_Continuation(i, stop, paths, truth, scales[i]))
    return continuations


def _by_horizon(continuations: list[_Continuation], levels: Levels) -> tuple[HorizonAccuracy, ...]:
    """Measures averaged over series, origins and columns, for each number of steps ahead."""
    wanted = metrics.needed_levels(levels)
    collected: dict[Any, list[np.ndarray]] = {}
    for item in continuations:
        ends = np.quantile(item.paths, wanted, axis=0, method="weibull")
        quantiles = dict(zip(wanted, ends, strict=True))
        measured = metrics.measures(
            item.paths, quantiles, item.truth, item.scale, levels, fair=True
        )
        for key, value in measured.items():
            collected.setdefault(key, []).append(value)
    stacked = {key: np.stack(values) for key, values in collected.items()}  # [items, horizon, D]

    def ahead(h: int) -> HorizonAccuracy:
        here = {key: values[:, h] for key, values in stacked.items()}
        return HorizonAccuracy(horizon=h + 1, **metrics.averages(here, levels))

    return tuple(ahead(h) for h in range(len(continuations[0].truth)))


def _one_step(
    fitted: FittedModel,
    raw: Sequences,
    transformed: Sequences,
    scales: np.ndarray,
    levels: Levels,
) -> OneStepAccuracy:
    """The same measures of exact one-step distributions."""
    grid = [(k + 0.5) / _GRID for k in range(_GRID)]
    wanted = metrics.needed_levels(levels)
    both = sorted({*grid, *wanted})
    selected = evenly(transformed.scored(), MOST_ONE_STEP)
    index, values = raw_quantiles(fitted, raw, transformed, selected, both)
    if not len(index):
        return OneStepAccuracy()
    measured = metrics.measures(
        values[[both.index(level) for level in grid]],
        {level: values[both.index(level)] for level in wanted},
        raw.values[index].numpy(),
        scales[raw.rows[index].numpy()],
        levels,
        fair=False,
    )
    return OneStepAccuracy(count=len(index), **metrics.averages(measured, levels))


def _fans(continuations: list[_Continuation], raw: Sequences) -> tuple[Fan, ...]:
    """Fan charts of the last origin of the first few series and columns."""
    last = {item.series: item for item in continuations}  # later origins replace earlier ones
    names = raw.domain.columns or tuple(f"value{d}" for d in range(raw.values.shape[1]))
    picked = [(item, d) for item in last.values() for d in range(len(names))]
    if len(last) > 1:  # of several series the first column each, rather than all of one
        picked.sort(key=lambda pair: pair[1])
    return tuple(_fan(item, d, names[d], raw) for item, d in picked[:MOST_FANS])


def _fan(item: _Continuation, d: int, column: str, raw: Sequences) -> Fan:
    horizon = len(item.truth)
    begin = int(raw.offsets[item.series])
    origin = begin + item.origin
    first = max(begin, origin - _FAN_PAST * horizon)
    ends = np.quantile(item.paths[..., d], FAN_LEVELS, axis=0, method="weibull")
    return Fan(
        series=raw.names[item.series],
        column=column,
        past=Past(times=_times(raw, first, origin), values=raw.values[first:origin, d].tolist()),
        times=_times(raw, origin, origin + horizon),
        truth=item.truth[:, d].tolist(),
        quantiles={level: row.tolist() for level, row in zip(FAN_LEVELS, ends, strict=True)},
    )


def _times(raw: Sequences, begin: int, end: int) -> Times | None:
    times = stamps(raw.times, slice(begin, end))
    return None if times is None else tuple(times)
