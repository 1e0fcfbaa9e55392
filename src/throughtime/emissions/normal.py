"""Normal columns, independent or correlated through a few factors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from throughtime.emissions import factors, numeric
from throughtime.emissions.base import Distribution, LocationScale, scale_or_one

HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


@dataclass(frozen=True)
class Normal(factors.FactorEmission):
    """Real columns, each normal; with `rank` > 0 jointly normal.

    Raw parameters: location [D], scale [D] through softplus, and for rank > 0 loadings [rank, D]
    in units of the scale: the covariance is scale_i scale_j (δ_ij + Σ_k loading_ki loading_kj).

    Args:
        columns: D.
        rank: factors that correlate the columns, fewer than D; 0 for independent ones.
        min_scale: least scale, which bounds the density; in units of the values, which should be
            near one.

    Raises:
        SettingError: for options that make no sense.
    """

    kind: ClassVar[str] = "normal"
    columns: int = 1
    rank: int = 0
    min_scale: float = field(default=1e-4, kw_only=True)

    @property
    def num_parameters(self) -> int:
        return self.columns * (2 + self.rank)

    def distribution(self, raw: Tensor) -> Distribution:
        location, scale, *loadings = raw.unflatten(-1, (-1, self.columns)).unbind(-2)
        location, scale = numeric.limited(location), numeric.positive(scale, self.min_scale)
        if not loadings:
            return NormalDistribution(location, scale)
        return FactorNormal(location, scale, factors.bounded(torch.stack(loadings, -1)))

    def initial(self, values: Tensor) -> Tensor:
        values = self._observed(values)
        if self.rank:
            return self._initial_factors(values)
        scale = scale_or_one(numeric.nanstd(values), values)
        return torch.cat([values.nanmean(0), numeric.positive_raw(scale, self.min_scale)])


@dataclass(frozen=True, eq=False)
class NormalDistribution(LocationScale):
    """Independent normal columns: location and scale [..., D]."""

    location: Tensor
    scale: Tensor

    @property
    def variance(self) -> Tensor:
        return self.scale**2

    def _log_density(self, x: Tensor) -> Tensor:
        return -0.5 * self._standardised(x) ** 2 - torch.log(self.scale) - HALF_LOG_2PI

    def _cdf(self, x: Tensor) -> Tensor:
        return torch.special.ndtr(self._standardised(x))

    def _icdf(self, q: Tensor) -> Tensor:
        return self.location + self.scale * torch.special.ndtri(q)

    def _crps(self, x: Tensor) -> Tensor:
        # E|X - x| - E|X - X'| / 2
        return absolute_moment(x - self.location, self.scale) - self.scale / math.sqrt(math.pi)


def absolute_moment(distance: Tensor, scale: Tensor) -> Tensor:
    """E|distance + scale Z| for standard normal Z."""
    z = distance / scale
    density = torch.exp(-0.5 * z**2 - HALF_LOG_2PI)
    return distance * (2 * torch.special.ndtr(z) - 1) + 2 * scale * density


@dataclass(frozen=True, eq=False)
class FactorNormal(factors.FactorDistribution):
    """Jointly normal columns: location, scale [..., D] and loadings [..., D, rank]."""

    location: Tensor
    scale: Tensor
    loadings: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        distance, log_volume, count = self._quadratic(x)
        return -0.5 * distance - log_volume - HALF_LOG_2PI * count

    @property
    def variance(self) -> Tensor:
        return self.marginal_scale**2

    def marginals(self) -> NormalDistribution:
        return NormalDistribution(self.location, self.marginal_scale)

    @property
    def num_uniforms(self) -> int:
        return self.loadings.shape[-2] + self.loadings.shape[-1]

    def _sample(self, u: Tensor) -> Tensor:
        return self._correlate(torch.special.ndtri(u), 1.0)
