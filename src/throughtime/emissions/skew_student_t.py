"""Skewed Student t columns: two halves of different width, joined at the mode."""

from __future__ import annotations

import math
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
    standardise,
)
from throughtime.emissions.student_t import (
    StudentTDistribution,
    _variance,
    degrees_of_freedom,
)

SKEW_BOUND = 0.99


@dataclass(frozen=True)
class SkewStudentT(Emission):
    """Real columns, each a skewed Student t.

    Raw parameters: location [D] (of the mode), scale [D] through softplus, degrees of freedom [D]
    as 1 + e^raw, skew [D] through tanh.
    """

    kind: ClassVar[str] = "skew_student_t"
    columns: int = 1
    min_scale: float = field(default=1e-4, kw_only=True)

    def __post_init__(self) -> None:
        check_size("columns", self.columns)
        check_positive("min_scale", self.min_scale)

    @property
    def num_parameters(self) -> int:
        return 4 * self.columns

    def distribution(self, raw: Tensor) -> SkewStudentTDistribution:
        location, scale, df, skew = raw.chunk(4, -1)
        return SkewStudentTDistribution(
            numeric.limited(location),
            numeric.positive(scale, self.min_scale),
            degrees_of_freedom(df),
            SKEW_BOUND * torch.tanh(skew),
        )

    def initial(self, values: Tensor) -> Tensor:
        values, centre, spread = standardise(self._observed(values))
        start = torch.tensor([0.0, 0.3, math.log(4.0), 0.0], dtype=torch.float64)
        raw = numeric.maximise(self.distribution, values, start.repeat_interleave(self.columns))
        location, scale, df, skew = raw.chunk(4)
        scale = spread * numeric.positive(scale, self.min_scale)
        scale = numeric.positive_raw(scale, self.min_scale)
        return torch.cat([centre + spread * location, scale, df, skew])


@dataclass(frozen=True, eq=False)
class SkewStudentTDistribution(LocationScale):
    """Independent columns: mode `location`, `scale`, `df` and `skew` in (-1, 1), each [..., D].

    Left of the mode the density is that of a Student t of scale ``scale (1 - skew)``, right of it
    of ``scale (1 + skew)``. Hansen (1994), International Economic Review 35, equation 10, before
    it is standardised; see `standardised_skew_student_t`.
    """

    location: Tensor
    scale: Tensor
    df: Tensor
    skew: Tensor

    @property
    def mean(self) -> Tensor:
        return self.location + self.scale * _unit_mean(self.df, self.skew)

    @property
    def variance(self) -> Tensor:
        second = (1 + 3 * self.skew**2) * _variance(torch.ones_like(self.df), self.df)
        return self.scale**2 * (second - _unit_mean(self.df, self.skew) ** 2)

    def _log_density(self, x: Tensor) -> Tensor:
        y, width = self._halves(x)
        return self._unit(y)._log_density(y / width) - torch.log(self.scale)

    def _cdf(self, x: Tensor) -> Tensor:
        y, width = self._halves(x)
        below = numeric.special("stdtr", self.df.expand(y.shape), y / width)
        left = (1 - self.skew) / 2
        return torch.where(y < 0, width * below, left + width * (below - 0.5))

    def _icdf(self, q: Tensor) -> Tensor:
        left = (1 - self.skew) / 2
        first = q < left
        width = torch.where(first, 1 - self.skew, 1 + self.skew)
        level = torch.where(first, q / width, 0.5 + (q - left) / width)
        z = numeric.special("stdtrit", self.df.expand(level.shape), level)
        return self.location + self.scale * width * z

    def _crps(self, x: Tensor) -> Tensor:
        return numeric.crps_continuous(self._cdf, self._icdf, x)

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values in units of the scale, and the width of the half that each lies in."""
        y = (x - self.location) / self.scale
        return y, torch.where(y < 0, 1 - self.skew, 1 + self.skew)

    def _unit(self, like: Tensor) -> StudentTDistribution:
        return StudentTDistribution(torch.zeros_like(self.df), torch.ones_like(self.df), self.df)


def standardised_skew_student_t(
    mean: Tensor, variance: Tensor, df: Tensor, skew: Tensor
) -> SkewStudentTDistribution:
    """The skewed t with this mean and variance, ``df > 2``; all [..., D].

    Hansen (1994), equation 10: ``a`` and ``b`` are the mean and the standard deviation of the
    distribution whose mode is 0 and whose halves belong to a t of variance 1.
    """
    a = torch.sqrt((df - 2) / df) * _unit_mean(df, skew)
    b = torch.sqrt(1 + 3 * skew**2 - a**2)
    deviation = torch.sqrt(variance) / b
    return SkewStudentTDistribution(
        mean - deviation * a, deviation * torch.sqrt((df - 2) / df), df, skew
    )


def _unit_mean(df: Tensor, skew: Tensor) -> Tensor:
    """The mean where the mode is 0 and the scale 1: infinite unless df > 1."""
    density = torch.exp(numeric.log_gamma_ratio(df / 2, 0.5)) / torch.sqrt(math.pi * df)
    return 4 * skew * density * df / (df - 1)
