"""Measures of forecasts against the truth, elementwise; the average is taken by whoever calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

DECILES = tuple(k / 10 for k in range(1, 10))


def ensemble_crps(ensemble: np.ndarray, truth: np.ndarray, fair: bool = True) -> np.ndarray:
    """Continuous ranked probability score of samples [P, ...] for truth [...], in its units.

    E|X - y| - E|X - X'| / 2 over the samples. Fair: unbiased for the distribution that they are
    drawn from (Ferro 2014, Q. J. R. Meteorol. Soc. 140); otherwise that of the samples as a
    distribution.
    """
    count = len(ensemble)
    ordered = np.sort(ensemble, axis=0)
    weight = 2.0 * np.arange(1, count + 1) - count - 1.0
    spread = np.tensordot(weight, ordered, axes=1)
    pairs = count * (count - 1) if fair else count * count
    score: np.ndarray = np.abs(ensemble - truth).mean(0) - spread / max(pairs, 1)
    return score


def pinball(quantile: np.ndarray, truth: np.ndarray, level: float) -> np.ndarray:
    """The loss whose expectation the true quantile minimises: level * under + (1 - level) * over.

    Without the factor 2 that some competitions put in front.
    """
    error = truth - quantile
    loss: np.ndarray = np.maximum(level * error, (level - 1.0) * error)
    return loss


def smape(point: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """200 |y - f| / (|y| + |f|), in per cent, as in the M4 competition; 0 where both are 0."""
    size = np.abs(truth) + np.abs(point)
    error = 200.0 * np.abs(truth - point)
    share: np.ndarray = np.divide(error, size, out=np.where(size == 0, 0.0, error), where=size > 0)
    return share


def naive_scale(values: np.ndarray, season: int = 1) -> np.ndarray:
    """Mean |x_t - x_{t-season}| of each column of [T, D]: the unit of MASE; missing left out.

    With no such pair the season is taken to be 1; NaN where there is none either or it is zero.
    """
    for lag in dict.fromkeys((season, 1)):
        if len(values) > lag:
            change = np.abs(values[lag:] - values[:-lag])
            count = np.isfinite(change).sum(0)
            if (count > 0).all():
                mean = np.nansum(change, axis=0) / count
                return np.where(mean > 0, mean, np.nan)
    return np.full(values.shape[1], np.nan)


def interval_ends(level: float) -> tuple[float, float]:
    """The quantile levels that enclose a central interval."""
    return round((1.0 - level) / 2.0, 10), round((1.0 + level) / 2.0, 10)


def needed_levels(levels: Sequence[float]) -> list[float]:
    """The quantile levels that `measures` wants for these intervals, in ascending order."""
    return sorted({*DECILES, *(end for level in levels for end in interval_ends(level))})


_diverging = np.errstate(over="ignore", invalid="ignore")  # paths that do have infinite errors


@_diverging
def measures(
    ensemble: np.ndarray,
    quantiles: dict[float, np.ndarray],
    truth: np.ndarray,
    scale: np.ndarray,
    levels: Sequence[float],
    fair: bool,
) -> dict[Any, np.ndarray]:
    """Every measure of each value: samples [P, ...], quantiles and truth [...], scale [...].

    The point forecast is the median for "mase" (an absolute error in units of `scale`) and
    "smape", the mean for "square" (whose root is taken after averaging). Keys of the others:
    "crps", ("pinball", level), ("coverage", level). NaN where the truth is missing.
    """
    median = quantiles[0.5]
    measured: dict[Any, np.ndarray] = {
        "crps": ensemble_crps(ensemble, truth, fair),
        "mase": np.abs(truth - median) / scale,
        "smape": smape(median, truth),
        "square": (truth - ensemble.mean(0)) ** 2,
    }
    for level in DECILES:
        measured["pinball", level] = pinball(quantiles[level], truth, level)
    for level in levels:
        low, high = interval_ends(level)
        inside = (quantiles[low] <= truth) & (truth <= quantiles[high])
        measured["coverage", level] = np.where(np.isnan(truth), np.nan, inside)
    return measured


@_diverging
def averages(measured: dict[Any, np.ndarray], levels: Sequence[float]) -> dict[str, Any]:
    """The fields of `results.Accuracy`: means over everything that is not NaN, else NaN."""
    square = _mean(measured["square"])
    return {
        "crps": _mean(measured["crps"]),
        "mase": _mean(measured["mase"]),
        "smape": _mean(measured["smape"]),
        "rmse": square**0.5,
        "pinball": {level: _mean(measured["pinball", level]) for level in DECILES},
        "coverage": {level: _mean(measured["coverage", level]) for level in levels},
    }


def _mean(values: np.ndarray) -> float:
    kept = values[~np.isnan(values)]
    return float(kept.mean()) if kept.size else np.nan
