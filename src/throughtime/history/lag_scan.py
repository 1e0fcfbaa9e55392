"""Which lag does the distribution of the next step miss? A score test at every lag up to a
thousand.

If a distribution is right, what is left of each step (its scores: residuals) is unrelated to
anything before it. For each lag j the cross-products of the past features at t - j with the scores
at t, both whitened, give n ‖C_j‖² ~ χ² with as many degrees of freedom as C_j has entries; a lag is
taken up where that is too large to be chance at any of the lags (Bonferroni). For symbols and the
memoryless distribution this is Pearson's χ² of independence; for values, of correlations.
"""

from __future__ import annotations

import numpy as np
from scipy import stats

from throughtime.history.parts import Floats, Part

CHANCE = 0.01  # of taking up any lag where there is nothing to find
_WORK = 2e10  # multiplications of a scan of all lags


def strongest(
    features: Floats, scores: Floats, part: Part, lags: range
) -> tuple[int, float] | None:
    """The lag that the scores depend on most, and its p-value; None where none is significant.

    features ``[total, F]`` of every step, 0 where unknown; scores ``[n, G]`` of the targets.
    """
    if not lags:
        return None
    chosen, scores = _affordable(features, scores, part, len(lags))
    white_past = _whitened(features, chosen.rows)
    white_now = _whitened(scores, None)
    freedom = white_past.shape[1] * white_now.shape[1]
    if freedom == 0 or len(chosen) < 20:
        return None
    age = chosen.rows - chosen.first[chosen.rows]
    oldest = np.argsort(-age, kind="stable")  # the targets that have a step j before them lead
    reach, rows, white_now = np.sort(age)[::-1], chosen.rows[oldest], white_now[oldest]
    best, found = None, 0.0
    for lag in lags:
        count = int(np.searchsorted(-reach, -lag, side="right"))
        if count < 10 * freedom**0.5 + 10:
            break
        product = white_past[rows[:count] - lag].T @ white_now[:count]
        size = float((product**2).sum()) / count
        if size > found:
            best, found = lag, size
    if best is None:
        return None
    chance = float(stats.chi2.sf(found, freedom)) * len(lags)
    return (best, chance) if chance < CHANCE else None


def _affordable(features: Floats, scores: Floats, part: Part, lags: int) -> tuple[Part, Floats]:
    """The latest targets, as many as can be scanned in a moment."""
    most = int(_WORK / (lags * max(4, features.shape[1] * scores.shape[1]) * 16))
    return (part, scores) if len(part) <= most else (part.latest(most), scores[-most:])


def _whitened(columns: Floats, rows: np.ndarray | None) -> Floats:
    """Columns of mean 0 and the identity as covariance (over the rows), as many as their rank."""
    seen = columns if rows is None else columns[rows]
    centred = seen - seen.mean(0)
    size, axes = np.linalg.eigh(centred.T @ centred / max(1, len(seen)))
    kept = size > 1e-9 * max(float(size[-1]), 1e-300)
    white: Floats = (columns - seen.mean(0)) @ (axes[:, kept] / np.sqrt(size[kept]))
    return white
