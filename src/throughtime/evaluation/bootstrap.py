"""Intervals for the mean difference of two models on dependent data."""

from __future__ import annotations

import math

import numpy as np
import torch

from throughtime import rng

MANY = 50  # sequences from which whole sequences are resampled
LEVEL = 0.95
_RESAMPLES = 2000
_MOST_UNITS = 2000  # blocks or groups drawn per resample: bounds the work on long data
_FEWEST_UNITS = 4  # with fewer there is nothing to estimate a spread from


def block_length(x: np.ndarray) -> float:
    """The block length that estimates the variance of the mean of a series [n] best, in steps.

    The automatic rule for the circular block bootstrap: Politis & White (2004), Econometric
    Reviews 23, with the correction of Patton, Politis & White (2009), Econometric Reviews 28.
    """
    n = len(x)
    if n < 8 or not np.ptp(x) > 0:
        return 1.0
    negligible_run = max(5, math.ceil(math.sqrt(math.log10(n))))
    furthest = min(n - 1, math.ceil(math.sqrt(n)) + negligible_run)
    covariance = _autocovariance(x, furthest)
    correlation = np.abs(covariance[1:] / covariance[0])
    negligible = correlation < 2.0 * math.sqrt(math.log10(n) / n)
    # The first lag after which `negligible_run` correlations in a row are negligible.
    runs = np.convolve(negligible, np.ones(negligible_run), mode="valid") == negligible_run
    lag = int(runs.argmax()) if runs.any() else int(np.flatnonzero(~negligible)[-1]) + 1
    reach = min(2 * max(lag, 1), furthest)
    lags = np.arange(1, reach + 1)
    flat_top = np.minimum(1.0, 2.0 * (1.0 - lags / reach))
    spectrum = covariance[0] + 2.0 * np.sum(flat_top * covariance[1 : reach + 1])
    slope = 2.0 * np.sum(flat_top * lags * covariance[1 : reach + 1])
    if not spectrum > 0:
        return 1.0
    length = (1.5 * (slope / spectrum) ** 2 * n) ** (1.0 / 3.0)
    return float(min(max(length, 1.0), math.ceil(min(3.0 * math.sqrt(n), n / 3.0))))


def mean_interval(
    values: np.ndarray, offsets: np.ndarray, seed: int = 0
) -> tuple[float, tuple[float, float] | None]:
    """The mean of values [n] and its 95 % bootstrap interval, sequence after sequence.

    offsets [N+1]: where each sequence begins among the values. With `MANY` sequences or more,
    whole sequences are resampled (neighbours together where there are very many); with fewer,
    circular blocks of the values in order, of the length that `block_length` finds. The
    percentiles are widened as Student's t is for the number of sequences or blocks. The interval
    is None where there are too few of them, or a value is not finite.
    """
    n = len(values)
    if n == 0:
        return math.nan, None
    mean = float(values.mean())
    if not math.isfinite(mean):
        return mean, None
    lengths = np.diff(offsets)
    if np.count_nonzero(lengths) >= MANY:
        means, units = _resampled_sequences(values, offsets, seed)
    else:
        means, units = _resampled_blocks(values, seed)
    if units < _FEWEST_UNITS:
        return mean, None
    tail = (1.0 - LEVEL) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    widen = _few_units(units, 1.0 - tail)
    return mean, (mean + widen * (float(low) - mean), mean + widen * (float(high) - mean))


def _resampled_sequences(
    values: np.ndarray, offsets: np.ndarray, seed: int
) -> tuple[np.ndarray, int]:
    running = np.concatenate([[0.0], np.cumsum(values)])
    lengths = np.diff(offsets)
    ends = offsets[1:][lengths > 0]
    groups = min(len(ends), _MOST_UNITS)
    ends = ends[np.linspace(0, len(ends), groups + 1).astype(int)[1:] - 1]
    counts = np.diff(ends, prepend=0)
    sums = np.diff(running[ends], prepend=0.0)
    drawn = _draws(groups, groups, seed)
    return sums[drawn].sum(1) / counts[drawn].sum(1), groups


def _resampled_blocks(values: np.ndarray, seed: int) -> tuple[np.ndarray, int]:
    n = len(values)
    length = max(math.ceil(block_length(values)), math.ceil(n / _MOST_UNITS))
    blocks = -(-n // length)
    rest = n - (blocks - 1) * length  # the last block is cut, so that n values are drawn
    running = np.concatenate([[0.0], np.cumsum(np.concatenate([values, values[:length]]))])
    starts = _draws(n, blocks, seed)
    sums = (running[starts[:, :-1] + length] - running[starts[:, :-1]]).sum(1)
    sums += running[starts[:, -1] + rest] - running[starts[:, -1]]
    return sums / n, n // length


def _draws(below: int, count: int, seed: int) -> np.ndarray:
    source = rng.generator(seed, "bootstrap")
    drawn: np.ndarray = torch.randint(below, (_RESAMPLES, count), generator=source).numpy()
    return drawn


def _few_units(units: int, quantile: float) -> float:
    """How much wider an interval is whose spread was estimated from so few units."""
    from scipy import stats

    student = float(stats.t.ppf(quantile, units - 1) / stats.norm.ppf(quantile))
    return student * math.sqrt(units / (units - 1))


def _autocovariance(x: np.ndarray, furthest: int) -> np.ndarray:
    """Autocovariances of lags 0 to `furthest`, divided by n, by the fast Fourier transform."""
    n = len(x)
    size = 1 << (n + furthest).bit_length()
    transformed = np.fft.rfft(x - x.mean(), size)
    covariances: np.ndarray = np.fft.irfft(np.abs(transformed) ** 2, size)[: furthest + 1] / n
    return covariances
