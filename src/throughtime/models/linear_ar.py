"""AR(τ) for real values: a linear distribution with Normal or Student-t noise, float64 throughout.

    z_t = c + G u_t + A_1 z_{t-1} + … + A_τ z_{t-τ} + e_t

z has D columns, u are C covariates known at time t. A step whose last k < τ predecessors alone are
observed (near the start of its series, after a gap) has the distribution of the AR(k) fitted to the
same data, so every element of a series has a probability; k = 0 is the marginal distribution.

All orders come from one QR factor of ``[1, u, z_{t-1}, …, z_{t-τ}, z_t]``: the columns of a lower
order are a prefix, and the steps that only it can use are added by an update of the factor.
Student-t noise: maximum likelihood of the coefficients, scale and degrees of freedom of the highest
order (Lange, Little & Taylor 1989, by L-BFGS instead of EM); the lower ones keep their
least-squares coefficients and get the scale and degrees of freedom that are most likely with them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from throughtime.errors import DataError, RunError, SettingError
from throughtime.models.regression import (
    SMALLEST_SCALE,
    Problem,
    blocks,
    design_matrix,
    run_lengths,
    student_noise,
)


class Prediction(NamedTuple):
    """Distributions of several steps. For Normal noise `scale` is the standard deviation and `df`
    None.
    """

    location: Tensor  # [T, D]
    scale: Tensor  # [T, D], marginal where the noise is a full covariance
    df: Tensor | None  # [T, D]
    lags: Tensor  # int64 [T]: how many predecessors the distribution rests on


@dataclass(frozen=True)
class LinearAR:
    """The linear AR(τ) and all its nested orders (module docstring). Made by the `fit_` functions.

    weights: ``[τ + 1, 1 + C + τ D, D]``; entry k holds the AR(k): the intercept, the covariates'
    rows, then the D rows of each lag, newest lag first, zeros beyond lag k.
    scale: ``[τ + 1, D]``. df: ``[τ + 1, D]`` for Student-t noise. covariance: ``[τ + 1, D, D]`` for
    Normal noise that is correlated across columns. Maximum-likelihood values, all of them.
    """

    weights: Tensor
    scale: Tensor
    df: Tensor | None = None
    covariance: Tensor | None = None
    num_covariates: int = 0

    @property
    def order(self) -> int:
        return self.weights.shape[0] - 1

    @property
    def columns(self) -> int:
        return self.weights.shape[2]

    @property
    def num_parameters(self) -> int:
        """Free numbers of the AR(τ) itself, noise included (those of lower orders not counted)."""
        return _num_parameters(
            self.order,
            self.columns,
            self.num_covariates,
            self.df is not None,
            self.covariance is not None,
        )

    @property
    def intercept(self) -> Tensor:
        """c of the AR(τ), ``[D]``."""
        return self.weights[-1, 0]

    @property
    def lag_coefficients(self) -> Tensor:
        """A of the AR(τ), ``[τ, D, D]``: [j - 1, d, e] is the effect of z_{t-j,e} on z_{t,d}."""
        lags = self.weights[-1, 1 + self.num_covariates :]
        return lags.reshape(self.order, self.columns, self.columns).mT

    def mean(
        self, past: Tensor, count: int | Tensor, covariates: Tensor | None = None
    ) -> Prediction:
        """The distribution of one next step per row.

        past: ``[B, P, D]``, the newest value last. count: how many of the newest values of each row
        are observed (an int, or int64 ``[B]``); those before are ignored, whatever they hold.
        covariates: ``[B, C]`` of the step to predict.
        """
        rows, width = past.shape[:2]
        lags = torch.as_tensor(count).expand(rows).clamp(max=min(self.order, width))
        ones = torch.ones(rows, 1, dtype=torch.float64)
        now = torch.cat([ones, self._known(covariates, rows)], 1)
        location = torch.empty(rows, self.columns, dtype=torch.float64)
        for k in set(lags.tolist()):
            here = lags == k if rows > 1 else slice(None)
            recent = past[here, width - k :].double().flip(1).flatten(1)
            design = torch.cat([now[here], recent], 1)
            location[here] = design @ self.weights[k, : design.shape[1]]
        return self._prediction(location, lags)

    def predict(
        self, z: Tensor, covariates: Tensor | None = None, offsets: Tensor | None = None
    ) -> Prediction:
        """The distribution of every step of one or more series given the steps before it.

        z: ``[T, D]``, NaN where missing (a step after a gap rests on the steps since the gap).
        covariates: ``[T, C]``. offsets: int64 ``[N + 1]``, where the series begin and end; None for
        one series. Raises DataError, SettingError if z or the covariates do not fit the model.
        """
        if z.dim() != 2 or z.shape[1] != self.columns:
            raise SettingError(f"z has shape {tuple(z.shape)}; the model needs [T, {self.columns}]")
        values = z.double().numpy()
        u = self._known(covariates, len(values)).numpy()
        if np.isnan(u).any():
            step = int(np.flatnonzero(np.isnan(u).any(1))[0])
            raise DataError(f"a covariate is missing at step {step}: covariates must be known")
        bounds = np.array([0, len(values)]) if offsets is None else offsets.numpy()
        lags = np.minimum(run_lengths(values, bounds), self.order)
        location = np.empty_like(values)
        weights = self.weights.numpy()
        for k in np.unique(lags):
            for rows in blocks(np.flatnonzero(lags == k)):
                design = design_matrix(values, u, rows, int(k))
                location[rows] = design @ weights[k, : design.shape[1]]
        return self._prediction(torch.from_numpy(location), torch.from_numpy(lags))

    def log_prob(
        self, z: Tensor, covariates: Tensor | None = None, offsets: Tensor | None = None
    ) -> Tensor:
        """Log-density of every step in nats, ``[T]``; NaN where z is missing. As `predict`."""
        distribution = self.predict(z, covariates, offsets)
        if self.covariance is None:
            return _log_density(z.double(), distribution).sum(1)
        root = torch.linalg.cholesky(self.covariance)
        residual = (z.double() - distribution.location)[..., None]
        white = torch.linalg.solve_triangular(root[distribution.lags], residual, upper=False)[
            ..., 0
        ]
        volume = root.diagonal(dim1=1, dim2=2).log().sum(1)[distribution.lags]
        return -0.5 * (white**2).sum(1) - volume - 0.5 * self.columns * math.log(2 * math.pi)

    def tensors(self) -> dict[str, Tensor]:
        """Everything fitted, for a safetensors file; `from_tensors` reads it."""
        named = {
            "weights": self.weights,
            "scale": self.scale,
            "df": self.df,
            "covariance": self.covariance,
        }
        return {name: tensor for name, tensor in named.items() if tensor is not None}

    def settings(self) -> dict[str, int]:
        """What `from_tensors` needs besides the tensors; JSON-able."""
        return {"num_covariates": self.num_covariates}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], settings: dict[str, int]) -> LinearAR:
        """The model that `tensors` and `settings` came from. Raises RunError if they do not fit."""
        try:
            weights, scale = tensors["weights"], tensors["scale"]
            covariates = settings["num_covariates"]
        except KeyError as missing:
            raise RunError(f"the stored linear AR lacks {missing}: fit it again") from None
        df, covariance = tensors.get("df"), tensors.get("covariance")
        orders, rows, columns = weights.shape if weights.dim() == 3 else (0, 0, 0)
        fits = rows == 1 + covariates + (orders - 1) * columns and all(
            tensor is None or tuple(tensor.shape) == (orders, *[columns] * trailing)
            for tensor, trailing in ((scale, 1), (df, 1), (covariance, 2))
        )
        if not fits:
            raise RunError("the stored linear AR has tensors that do not fit: fit it again")
        return cls(weights, scale, df, covariance, covariates)

    def _prediction(self, location: Tensor, lags: Tensor) -> Prediction:
        df = None if self.df is None else self.df[lags]
        return Prediction(location, self.scale[lags], df, lags)

    def _known(self, covariates: Tensor | None, rows: int) -> Tensor:
        if covariates is None:
            covariates = torch.empty(rows, 0, dtype=torch.float64)
        if tuple(covariates.shape) != (rows, self.num_covariates):
            raise SettingError(
                f"covariates have shape {tuple(covariates.shape)}; "
                f"the model needs [{rows}, {self.num_covariates}]"
            )
        return covariates.double()


def fit_normal(
    z: Sequence[Tensor],
    order: int,
    ridge: float = 0.0,
    covariates: Sequence[Tensor] | None = None,
    full: bool = False,
) -> LinearAR:
    """Least squares, which is maximum likelihood under Normal noise, for the orders 0 … `order`.

    Args:
        z: series ``[T_i, D]`` that share one distribution; NaN where missing: the equations that
            would need a missing value are left out.
        order: τ.
        ridge: penalty on the squared coefficients of the standardised columns.
        covariates: ``[T_i, C]`` each.
        full: noise correlated across columns, else diagonal.

    Raises:
        DataError: for too few steps for the order, or a constant column.
        SettingError: for arguments that do not fit together.
    """
    problem = Problem.of(z, covariates, order)
    solutions = problem.least_squares(order, ridge)
    noise = np.stack([solution.noise for solution in solutions])
    scale = np.sqrt(np.maximum(np.diagonal(noise, axis1=1, axis2=2), SMALLEST_SCALE**2))
    covariance = None
    if full:
        spread = problem.spread
        steadied = noise + SMALLEST_SCALE**2 * np.eye(len(spread))
        covariance = torch.from_numpy(steadied * spread[:, None] * spread)
        scale = np.sqrt(np.diagonal(steadied, axis1=1, axis2=2))
    weights = problem.in_own_units([solution.weights for solution in solutions])
    return LinearAR(
        torch.from_numpy(weights),
        torch.from_numpy(scale * problem.spread),
        covariance=covariance,
        num_covariates=problem.u.shape[1],
    )


def fit_student_t(
    z: Sequence[Tensor], order: int, covariates: Sequence[Tensor] | None = None
) -> LinearAR:
    """Maximum likelihood under Student-t noise, independent across columns, df in (2.05, 200).

    Arguments and errors as `fit_normal`; the orders below `order` as the module docstring says.
    """
    problem = Problem.of(z, covariates, order)
    solutions = problem.least_squares(order, 0.0)
    w, s, nu, _ = problem.student_t(problem.usable(order), order, solutions[order])
    weights, scale, df = [w], [s], [nu]
    for k in range(order - 1, -1, -1):
        w = solutions[k].weights
        s, nu = student_noise(
            problem.residuals(problem.usable(k), k, w), solutions[k].scale, (s, nu)
        )
        weights.append(w)
        scale.append(s)
        df.append(nu)
    return LinearAR(
        torch.from_numpy(problem.in_own_units(weights[::-1])),
        torch.from_numpy(np.stack(scale[::-1]) * problem.spread),
        df=torch.from_numpy(np.stack(df[::-1])),
        num_covariates=problem.u.shape[1],
    )


def highest_order(z: Tensor, offsets: Tensor, num_covariates: int, most: int) -> int:
    """The longest order up to `most` for which enough steps have their predecessors observed.

    z ``[total, D]`` of series with these offsets. -1: too few values even for a constant.
    """
    values = z.double().numpy()
    observed = ~np.isnan(values).any(1)
    lags = np.where(observed, run_lengths(values, offsets.numpy()), -1)
    needed = 3 + num_covariates + np.arange(most + 1) * values.shape[1]
    enough = np.array([(lags >= order).sum() for order in range(most + 1)]) >= needed
    return most if enough.all() else int(enough.argmin()) - 1


def scan(
    z: Sequence[Tensor],
    orders: Sequence[int],
    covariates: Sequence[Tensor] | None = None,
    noise: str = "normal",
    full: bool = False,
) -> list[dict[str, Any]]:
    """AIC and BIC of several orders, all fitted to the same steps, so that they compare.

    Those are the steps that the highest order can use (Burnham & Anderson 2002, 2.11).

    Args:
        z: series ``[T_i, D]``, as `fit_normal` takes them.
        orders: to try.
        covariates: ``[T_i, C]`` each.
        noise: "normal" (diagonal or `full`) or "student_t".
        full: Normal noise correlated across columns.

    Returns:
        Of each order: ``order``, ``nats_in_sample`` (per step), ``aic = 2 p - 2 log L``,
        ``bic = p log n - 2 log L`` (Schwarz 1978), ``parameters`` p with the noise's own, ``steps``
        n.
    """
    if noise not in ("normal", "student_t"):
        raise SettingError(f"noise '{noise}' is unknown: 'normal' or 'student_t'")
    if not orders:
        raise SettingError("no orders to scan")
    highest = max(orders)
    problem = Problem.of(z, covariates, highest)
    rows = problem.usable(highest)
    factor = problem.factor(rows, highest)
    d, c, n = len(problem.spread), problem.u.shape[1], len(rows)
    table = []
    for order in orders:
        solution = problem.solve(problem.prefix(factor, highest, order), n, order, 0.0)
        if noise == "student_t":
            nats = problem.student_t(rows, order, solution)[3]
        elif full:
            steadied = solution.noise + SMALLEST_SCALE**2 * np.eye(d)
            nats = 0.5 * (d * (math.log(2 * math.pi) + 1) + np.linalg.slogdet(steadied)[1])
        else:
            nats = 0.5 * d * (math.log(2 * math.pi) + 1) + float(np.log(solution.scale).sum())
        nats += float(np.log(problem.spread).sum())
        p = _num_parameters(order, d, c, noise == "student_t", full)
        table.append(
            {
                "order": order,
                "nats_in_sample": float(nats),
                "aic": float(2 * p + 2 * n * nats),
                "bic": float(p * math.log(n) + 2 * n * nats),
                "parameters": p,
                "steps": n,
            }
        )
    return table


def _num_parameters(order: int, columns: int, covariates: int, student: bool, full: bool) -> int:
    noise = columns * (columns + 1) // 2 if full else columns * (2 if student else 1)
    return columns * (1 + covariates + order * columns) + noise


def _log_density(z: Tensor, distribution: Prediction) -> Tensor:
    residual = (z - distribution.location) / distribution.scale
    if distribution.df is None:
        return -0.5 * residual**2 - distribution.scale.log() - 0.5 * math.log(2 * math.pi)
    return torch.distributions.StudentT(distribution.df, validate_args=False).log_prob(residual) - (
        distribution.scale.log()
    )
