"""Which lag does the distribution of the next step miss? A score test at up to a thousand lags.

If a distribution is right, what is left of each step (its scores: residuals) is unrelated to
anything before it. For each lag j the cross-products of the past features at t - j with the scores
at t, both whitened, give n ‖C_j‖² ~ χ² with as many degrees of freedom as C_j has entries; a lag is
taken up where that is too large to be chance at any of the lags (Bonferroni). For symbols and the
i.i.d. baseline this is Pearson's χ² of independence; for values, of correlations. The products of
all lags come from one Fourier transform of each column.
"""

from __future__ import annotations

import numpy as np
from scipy import fft, stats

from throughtime.history.targets import Floats, Targets

CHANCE = 0.01  # of taking up any lag where there is nothing to find


def strongest(
    features: Floats, scores: Floats, targets: Targets, most: int
) -> tuple[int, float] | None:
    """The lag that the scores depend on most.

    Args:
        features: of every step, ``[total, F]``, 0 where unknown.
        scores: of the targets, ``[n, G]``.
        targets: the steps.
        most: the longest lag looked at.

    Returns:
        The lag and its p-value; None where none is significant.
    """
    rows = targets.rows.numpy()
    if most < 1 or len(rows) < 20:
        return None
    past, now = whitened(features, rows), whitened(scores, None)
    freedom = past.shape[1] * now.shape[1]
    if freedom == 0:
        return None
    age = np.sort(targets.age.numpy())
    count = len(age) - np.searchsorted(age, np.arange(1, most + 1))  # targets that have the lag
    enough = count >= 10 * freedom**0.5 + 10
    last = int(enough.argmin()) if not enough.all() else most
    if last == 0:
        return None
    size = cross_products(past, now, targets, last) / count[:last]
    best = int(size.argmax())
    chance = float(stats.chi2.sf(size[best], freedom)) * most
    return (best + 1, chance) if chance < CHANCE else None


def cross_products(past: Floats, now: Floats, targets: Targets, most: int) -> Floats:
    """``‖Σ_t past[t - j] now[t]ᵀ‖²`` over the targets that have a lag j, for j = 1 … most.

    The sequences are laid out one after the other with `most` zeros between them.
    """
    offsets, rows = targets.data.offsets.numpy(), targets.rows.numpy()
    begin = max(0, int(rows[0]) - most)
    place = np.arange(len(past)) + most * np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    shift = place[begin]
    length = int(place[-1]) - shift + 1 + most
    size = fft.next_fast_len(length, real=True)
    then, since = np.zeros((past.shape[1], size)), np.zeros((now.shape[1], size))
    then[:, place[begin:] - shift] = past[begin:].T
    since[:, place[rows] - shift] = now.T
    earlier, later = np.conj(fft.rfft(then)), fft.rfft(since)
    total = np.zeros(most)
    for column in earlier:
        total += (fft.irfft(column * later, size)[:, 1 : most + 1] ** 2).sum(0)
    return total


def whitened(columns: Floats, rows: np.ndarray | None) -> Floats:
    """Columns of mean 0 and the identity as covariance (over the rows), as many as their rank."""
    seen = columns if rows is None else columns[rows]
    centred = seen - seen.mean(0)
    size, axes = np.linalg.eigh(centred.T @ centred / max(1, len(seen)))
    kept = size > 1e-9 * max(float(size[-1]), 1e-300)
    white: Floats = (columns - seen.mean(0)) @ (axes[:, kept] / np.sqrt(size[kept]))
    return white
