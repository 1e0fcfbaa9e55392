"""Laplace columns: the distribution whose likelihood is the mean absolute error."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from throughtime.emissions import numeric
from throughtime.emissions.base import (
    Emission,
    LocationScale,
    check_positive,
    check_size,
    scale_or_one,
)


@dataclass(frozen=True)
class Laplace(Emission):
    """Real columns, each Laplace. Raw: location [D], scale [D] through softplus.

    Args:
        columns: D.
        min_scale: least scale, in units of the values, which should be near one.

    Raises:
        SettingError: for options that make no sense.
    """

    kind: ClassVar[str] = "laplace"
    columns: int = 1
    min_scale: float = field(default=1e-4, kw_only=True)

    def __post_init__(self) -> None:
        check_size("columns", self.columns)
        check_positive("min_scale", self.min_scale)

    @property
    def num_parameters(self) -> int:
        return 2 * self.columns

    def distribution(self, raw: Tensor) -> LaplaceDistribution:
        location, scale = raw.chunk(2, -1)
        return LaplaceDistribution(
            numeric.limited(location), numeric.positive(scale, self.min_scale)
        )

    def initial(self, values: Tensor) -> Tensor:
        values = self._observed(values)
        median = numeric.nanquantile(values, 0.5)
        scale = scale_or_one((values - median).abs().nanmean(0), values)
        return torch.cat([median, numeric.positive_raw(scale, self.min_scale)])


@dataclass(frozen=True, eq=False)
class LaplaceDistribution(LocationScale):
    """Independent Laplace columns: location and scale [..., D]."""

    location: Tensor
    scale: Tensor

    @property
    def variance(self) -> Tensor:
        return 2 * self.scale**2

    def _log_density(self, x: Tensor) -> Tensor:
        return -self._standardised(x).abs() - torch.log(2 * self.scale)

    def _cdf(self, x: Tensor) -> Tensor:
        z = self._standardised(x)
        tail = 0.5 * torch.exp(-z.abs())
        return torch.where(z < 0, tail, 1 - tail)

    def _icdf(self, q: Tensor) -> Tensor:
        z = torch.where(q < 0.5, torch.log(2 * q), -torch.log(2 * (1 - q)))
        return self.location + self.scale * z

    def _crps(self, x: Tensor) -> Tensor:
        z = self._standardised(x).abs()
        return self.scale * (z + torch.exp(-z) - 0.75)
