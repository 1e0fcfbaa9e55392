"""Student t columns, for values with heavy tails such as returns."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from throughtime.emissions import factors, numeric
from throughtime.emissions.base import Distribution, LocationScale, standardise

DF_BOUND = 7.0  # df - 1 lies within e^±7


def degrees_of_freedom(raw: Tensor) -> Tensor:
    """1 + e^raw, within (1.001, 1098): the mean exists, and raw = 1 … 2 means 4 … 8."""
    return 1 + numeric.exponential(raw, DF_BOUND)


def degrees_of_freedom_raw(df: Tensor) -> Tensor:
    """The inverse of `degrees_of_freedom`."""
    return numeric.exponential_raw(df - 1, DF_BOUND)


def _variance(scale: Tensor, df: Tensor) -> Tensor:
    return torch.where(df > 2, scale**2 * df / (df - 2).clamp_min(1e-30), torch.inf)


@dataclass(frozen=True)
class StudentT(factors.FactorEmission):
    """Real columns, each Student t; with `rank` > 0 jointly (one multivariate t).

    Raw parameters: location [D], scale [D] through softplus, degrees of freedom [D] as 1 + e^raw;
    for rank > 0 location [D], scale [D], loadings [rank, D], and one number of degrees of freedom.
    Loadings are as in `Normal`; the scale matrix takes the place of the covariance.

    Args:
        columns: D.
        rank: factors that correlate the columns, fewer than D; 0 for independent ones.
        min_scale: least scale, in units of the values, which should be near one.

    Raises:
        SettingError: for options that make no sense.
    """

    kind: ClassVar[str] = "student_t"
    columns: int = 1
    rank: int = 0
    min_scale: float = field(default=1e-4, kw_only=True)

    @property
    def num_parameters(self) -> int:
        return self.columns * (2 + self.rank) + 1 if self.rank else 3 * self.columns

    def distribution(self, raw: Tensor) -> Distribution:
        D = self.columns
        location = numeric.limited(raw[..., :D])
        scale = numeric.positive(raw[..., D : 2 * D], self.min_scale)
        if not self.rank:
            return StudentTDistribution(location, scale, degrees_of_freedom(raw[..., 2 * D :]))
        loadings = raw[..., 2 * D : -1].unflatten(-1, (self.rank, D)).mT
        df = degrees_of_freedom(raw[..., -1])
        return FactorStudentT(location, scale, factors.bounded(loadings), df)

    def initial(self, values: Tensor) -> Tensor:
        values = self._observed(values)
        if self.rank:
            return self._initial_factors(values, math.log(4.0))
        values, centre, spread = standardise(values)
        start = torch.tensor([0.0, 0.3, math.log(4.0)], dtype=torch.float64)
        start = start.repeat_interleave(self.columns)
        raw = numeric.maximise(self.distribution, values, start)
        location, scale, df = raw.chunk(3)
        scale = spread * numeric.positive(scale, self.min_scale)
        scale = numeric.positive_raw(scale, self.min_scale)
        return torch.cat([centre + spread * location, scale, df])


@dataclass(frozen=True, eq=False)
class StudentTDistribution(LocationScale):
    """Independent Student t columns: location, scale and df [..., D]."""

    uniforms_per_column: ClassVar[int] = 2
    location: Tensor
    scale: Tensor
    df: Tensor

    @property
    def variance(self) -> Tensor:
        return _variance(self.scale, self.df)

    def _log_density(self, x: Tensor) -> Tensor:
        df = self.df
        tail = 0.5 * (df + 1) * torch.log1p(self._standardised(x) ** 2 / df)
        norm = numeric.log_gamma_ratio(df / 2, 0.5) - 0.5 * torch.log(math.pi * df)
        return norm - torch.log(self.scale) - tail

    def _cdf(self, x: Tensor) -> Tensor:
        return numeric.special("stdtr", self.df, self._standardised(x))

    def _icdf(self, q: Tensor) -> Tensor:
        return self.location + self.scale * numeric.special("stdtrit", self.df, q)

    def _crps(self, x: Tensor) -> Tensor:
        # Jordan, Krüger & Lerch (2019), J. Stat. Software 90(12), table of closed forms
        z, df = self._standardised(x), self.df
        cdf = numeric.special("stdtr", df, z)
        standard = StudentTDistribution(torch.zeros_like(df), torch.ones_like(df), df)
        density = torch.exp(standard._log_density(z))
        half = torch.full_like(df, 0.5)
        log_beta = numeric.special("betaln", half, df - 0.5)
        log_beta = log_beta - 2 * numeric.special("betaln", half, df / 2)
        spread = 2 * torch.sqrt(df) / (df - 1) * torch.exp(log_beta)
        return self.scale * (z * (2 * cdf - 1) + 2 * density * (df + z**2) / (df - 1) - spread)

    def _draw(self, *u: Tensor) -> Tensor:
        # the polar method of Bailey (1994), Math. Comp. 62: exact, one radius and one angle
        radius = torch.sqrt(self.df * torch.expm1(-2 / self.df * torch.log(u[0])))
        return self.location + self.scale * radius * torch.cos(2 * math.pi * u[1])


@dataclass(frozen=True, eq=False)
class FactorStudentT(factors.FactorDistribution):
    """Multivariate t: location, scale [..., D], loadings [..., D, rank] and df [...]."""

    location: Tensor
    scale: Tensor
    loadings: Tensor
    df: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        distance, log_volume, count = self._quadratic(x)
        tail = 0.5 * (self.df + count) * torch.log1p(distance / self.df)
        norm = numeric.log_gamma_ratio(self.df / 2, count / 2)
        return norm - 0.5 * count * torch.log(math.pi * self.df) - log_volume - tail

    @property
    def variance(self) -> Tensor:
        return _variance(self.marginal_scale, self.df[..., None])

    def marginals(self) -> StudentTDistribution:
        df = self.df[..., None].expand_as(self.location)
        return StudentTDistribution(self.location, self.marginal_scale, df)

    @property
    def num_uniforms(self) -> int:
        return self.loadings.shape[-2] + self.loadings.shape[-1] + 1

    def _sample(self, u: Tensor) -> Tensor:
        df = self.df.double()
        chi_squared = 2 * numeric.special("gammaincinv", df / 2, u[..., -1])
        stretch = torch.sqrt(df / chi_squared)[..., None]
        return self._correlate(torch.special.ndtri(u[..., :-1]), stretch)
