"""Fitting linear autoregressions: one QR factor for all orders, and Student-t noise.

What `linear_ar.py` needs to estimate its distributions, on standardised arrays; nothing here is
public.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray
from scipy.special import digamma, gammaln
from torch import Tensor

from throughtime.errors import DataError, SettingError
from throughtime.models.minimise import lbfgs

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

DF_RANGE = (2.05, 200.0)
SMALLEST_SCALE = 1e-6  # of a column's standard deviation: a perfect fit still has a density
BLOCK = 65_536  # rows of the design matrix held at once


@dataclass
class Solution:
    """Least squares of one order, in standardised units."""

    weights: Floats  # [P, D]
    noise: Floats  # [D, D], maximum-likelihood covariance
    root: Floats  # [P, P], the design's triangular factor

    @property
    def scale(self) -> Floats:
        return np.sqrt(np.maximum(np.diagonal(self.noise), SMALLEST_SCALE**2))


@dataclass
class Problem:
    """The data of a fit, standardised: centred and divided by the columns' standard deviations."""

    z: Floats  # [total, D]
    u: Floats  # [total, C]
    centre: Floats  # [D]
    spread: Floats  # [D]
    u_centre: Floats  # [C]
    u_spread: Floats  # [C]
    lags: Ints  # [total], observed predecessors; -1 where the step itself cannot be used

    @classmethod
    def of(
        cls, series: Sequence[Tensor], covariates: Sequence[Tensor] | None, order: int
    ) -> Problem:
        """Checks, joins and standardises. Raises DataError, SettingError."""
        if order < 0:
            raise SettingError(f"order {order}: the order must be 0 or more")
        if not series or any(s.dim() != 2 or s.shape[1] != series[0].shape[1] for s in series):
            raise SettingError("z must be one or more series [T, D] with the same D columns")
        known = [s[:, :0] for s in series] if covariates is None else covariates
        if [len(s) for s in series] != [len(s) for s in known]:
            raise SettingError("each series needs covariates [T, C] of its own length")
        z = torch.cat(list(series)).double().numpy()
        u = torch.cat(list(known)).double().numpy()
        if np.isinf(z).any() or np.isinf(u).any():
            raise DataError("an infinite value among the series or covariates: remove or mend it")
        usable = ~(np.isnan(z).any(1) | np.isnan(u).any(1))
        bounds = np.cumsum([0, *[len(s) for s in series]])
        lags = np.where(usable, run_lengths(z, bounds), -1)
        needed = 1 + u.shape[1] + order * z.shape[1]
        available = int((lags >= order).sum())
        if available < needed + 2:
            raise DataError(
                f"AR({order}) has {needed} coefficients per column but only {available} steps with "
                f"{order} observed predecessors: give longer series or a lower order"
            )
        centre, spread = z[usable].mean(0), z[usable].std(0)
        if not (spread > 1e-12 * np.abs(centre)).all():
            column = int(np.flatnonzero(~(spread > 1e-12 * np.abs(centre)))[0])
            raise DataError(f"column {column} is constant: leave it out")
        u_centre, u_spread = u[usable].mean(0), u[usable].std(0)
        u_spread[~(u_spread > 1e-12 * np.abs(u_centre))] = np.inf  # says no more than the intercept
        return cls(
            (z - centre) / spread,
            (u - u_centre) / u_spread,
            centre,
            spread,
            u_centre,
            u_spread,
            lags,
        )

    def usable(self, order: int) -> Ints:
        """The steps that an AR(`order`) can be fitted to."""
        return np.flatnonzero(self.lags >= order)

    def factor(self, rows: Ints, order: int, start: Floats | None = None) -> Floats:
        """The triangular QR factor of the design and the targets of `rows`, added to `start`."""
        width = 1 + self.u.shape[1] + (order + 1) * self.z.shape[1]
        result = np.empty((0, width)) if start is None else start
        for block in blocks(rows):
            new = np.concatenate([design_matrix(self.z, self.u, block, order), self.z[block]], 1)
            result = triangular(np.concatenate([result, new]))
        return result

    def prefix(self, factor: Floats, order: int, lower: int) -> Floats:
        """The factor of the `lower` order's design on the same steps."""
        width = factor.shape[1] - order * self.z.shape[1] - self.z.shape[1]
        kept = width + lower * self.z.shape[1]
        columns = np.r_[0:kept, factor.shape[1] - self.z.shape[1] : factor.shape[1]]
        return triangular(factor[:, columns])

    def solve(self, factor: Floats, steps: int, order: int, ridge: float) -> Solution:
        """Coefficients and noise from the factor; the smallest coefficients if it is singular."""
        width = factor.shape[1] - self.z.shape[1]
        root, target = factor[:width, :width], factor[:width, width:]
        penalty = math.sqrt(ridge) * np.eye(width)[1:]
        weights = np.linalg.lstsq(
            np.concatenate([root, penalty]),
            np.concatenate([target, np.zeros((width - 1, target.shape[1]))]),
            rcond=None,
        )[0]
        left = np.concatenate([target - root @ weights, factor[width:, width:]])
        return Solution(weights, left.T @ left / steps, root)

    def least_squares(self, order: int, ridge: float) -> list[Solution]:
        """The solutions of the orders 0 … `order`, each on all the steps that it can use."""
        if not ridge >= 0:
            raise SettingError(f"ridge={ridge}: the penalty must be 0 or more")
        factor = self.factor(self.usable(order), order)
        solutions = [self.solve(factor, len(self.usable(order)), order, ridge)]
        for k in range(order - 1, -1, -1):
            factor = self.prefix(factor, k + 1, k)
            factor = self.factor(np.flatnonzero(self.lags == k), k, factor)
            solutions.append(self.solve(factor, len(self.usable(k)), k, ridge))
        return solutions[::-1]

    def residuals(self, rows: Ints, order: int, weights: Floats) -> Floats:
        """What the coefficients leave of `rows`, ``[n, D]``."""
        parts = [
            self.z[b] - design_matrix(self.z, self.u, b, order) @ weights for b in blocks(rows)
        ]
        return np.concatenate(parts)

    def student_t(
        self, rows: Ints, order: int, start: Solution
    ) -> tuple[Floats, Floats, Floats, float]:
        """Most likely coefficients ``[P, D]``, scale and df ``[D]``; and the nats per step.

        The search runs in coordinates in which least squares has the identity as its Hessian.
        """
        n, size = len(rows), start.weights.size
        unit = math.sqrt(n) * np.linalg.pinv(start.root, rcond=1e-12)
        sigma = start.scale

        def coefficients(point: Floats) -> Floats:
            return start.weights + unit @ point[:size].reshape(start.weights.shape) * sigma

        def objective(point: Floats) -> tuple[float, Floats]:
            weights = coefficients(point)
            total, slope, noise_slope = 0.0, np.zeros_like(weights), np.zeros(2 * len(sigma))
            for block in blocks(rows):
                design = design_matrix(self.z, self.u, block, order)
                residual = (self.z[block] - design @ weights) / sigma
                nats, by_residual, by_noise = student_nats(residual, point[size:])
                total += nats
                slope -= design.T @ by_residual
                noise_slope = noise_slope + by_noise
            return total / n, np.concatenate([(unit.T @ slope).ravel(), noise_slope]) / n

        free = [(-np.inf, np.inf)] * size
        scale, df = student_noise(self.residuals(rows, order, start.weights), sigma)
        first = np.concatenate([np.zeros(size), np.log(scale / sigma), np.log(df)])
        best = _lbfgs(objective, first, free + _noise_bounds(len(sigma)))
        scale, df = np.exp(best.x[size:].reshape(2, -1))
        nats = float(best.fun) + float(np.log(sigma).sum())
        return coefficients(best.x), scale * sigma, df, nats

    def in_own_units(self, weights: Sequence[Floats]) -> Floats:
        """``[orders, P, D]`` from the standardised coefficients of the orders 0, 1, …"""
        d, c = len(self.spread), len(self.u_spread)
        result = np.zeros((len(weights), 1 + c + (len(weights) - 1) * d, d))
        for k, w in enumerate(weights):
            spread = np.concatenate([[1.0], self.u_spread, np.tile(self.spread, k)])
            centre = np.concatenate([[0.0], self.u_centre, np.tile(self.centre, k)])
            scaled = w * self.spread / spread[:, None]
            scaled[0] += self.centre - centre @ scaled
            result[k, : len(w)] = scaled
        return result


def run_lengths(z: Floats, bounds: Ints) -> Ints:
    """How many observed steps of the same series lie directly before each step, int64 ``[T]``."""
    place = np.arange(len(z))
    since = np.zeros(len(z) + 1, dtype=np.int64)  # each step's series or last gap begins here
    since[bounds] = bounds
    missing = np.flatnonzero(np.isnan(z).any(1))
    since[missing + 1] = missing + 1
    return place - np.maximum.accumulate(since)[:-1]


def triangular(matrix: Floats) -> Floats:
    """R of its QR decomposition."""
    factor: Floats = scipy.linalg.qr(matrix, mode="r", check_finite=False)[0]
    return factor[: matrix.shape[1]]


def blocks(rows: Ints) -> Iterator[Ints]:
    for start in range(0, len(rows), BLOCK):
        yield rows[start : start + BLOCK]


def design_matrix(z: Floats, u: Floats, rows: Ints, order: int) -> Floats:
    """``[1, u_t, z_{t-1}, …, z_{t-order}]`` of the steps `rows`."""
    lagged = z[rows[:, None] - np.arange(1, order + 1)].reshape(len(rows), -1)
    return np.concatenate([np.ones((len(rows), 1)), u[rows], lagged], 1)


def student_nats(residual: Floats, noise: Floats) -> tuple[float, Floats, Floats]:
    """Summed nats of residuals ``[n, D]``, and the slopes by them and by `noise`.

    noise: ``[2 D]``, the logarithms of the scales and of the degrees of freedom.
    """
    scale, df = np.exp(noise.reshape(2, -1))
    q = (residual / scale) ** 2
    grown = np.log1p(q / df)
    constant = gammaln(df / 2) - gammaln((df + 1) / 2) + 0.5 * np.log(df * np.pi) + np.log(scale)
    weight = (df + 1) / (df + q)
    pulled = (weight * q).sum(0)
    n = len(residual)
    by_df = 0.5 * (
        n * (digamma(df / 2) - digamma((df + 1) / 2) + 1 / df) + grown.sum(0) - pulled / df
    )
    nats = float((n * constant + 0.5 * (df + 1) * grown.sum(0)).sum())
    return nats, weight * residual / scale**2, np.concatenate([n - pulled, df * by_df])


def student_noise(
    residual: Floats, sigma: Floats, guess: tuple[Floats, Floats] | None = None
) -> tuple[Floats, Floats]:
    """The most likely scale and df, ``[D]`` each, of residuals with standard deviations `sigma`.

    guess: scale and df to start the search from.
    """
    relative = residual / sigma

    def objective(noise: Floats) -> tuple[float, Floats]:
        nats, _, slope = student_nats(relative, noise)
        return nats / len(relative), slope / len(relative)

    if guess is None:
        df = np.full(len(sigma), 8.0)
        guess = np.sqrt((df - 2) / df) * sigma, df
    first = np.log(np.concatenate([guess[0] / sigma, guess[1]]))
    best = _lbfgs(objective, first, _noise_bounds(len(sigma)), tolerance=1e-6)
    scale, df = np.exp(best.x.reshape(2, -1))
    return scale * sigma, df


def _noise_bounds(columns: int) -> list[tuple[float, float]]:
    """Of the logarithms of scale (no spike on values that repeat exactly) and df."""
    low, high = DF_RANGE
    return [(math.log(1e-4), math.log(10.0))] * columns + [
        (math.log(low), math.log(high))
    ] * columns


def _lbfgs(
    objective: Callable[[Floats], tuple[float, Floats]],
    first: Floats,
    bounds: list[tuple[float, float]],
    tolerance: float = 1e-9,
) -> Any:
    """The minimum, where every slope is below `tolerance` (or rounding ends the search)."""
    low, high = np.array(bounds).T
    return lbfgs(
        objective, np.clip(first, low, high), bounds,
        maxiter=500, maxfun=2000, ftol=1e-15, gtol=tolerance, maxcor=20,
    )  # fmt: skip
