"""Counts 0, 1, 2, …: Poisson, and negative binomial where counts vary more than Poisson."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from throughtime.emissions import numeric
from throughtime.emissions.base import Columns, Emission, check_size

RATE_BOUND = 30.0  # rates lie within e^±30
SIZE_BOUND = 10.0  # sizes lie within e^±10; beyond it is Poisson to within sampling error


@dataclass(frozen=True)
class Poisson(Emission):
    """Columns of counts, each Poisson. Raw: log-rates [D], so effects multiply.

    Args:
        columns: D.

    Raises:
        SettingError: for options that make no sense.
    """

    kind: ClassVar[str] = "poisson"
    discrete: ClassVar[bool] = True
    columns: int = 1

    def __post_init__(self) -> None:
        check_size("columns", self.columns)

    @property
    def num_parameters(self) -> int:
        return self.columns

    def distribution(self, raw: Tensor) -> PoissonDistribution:
        return PoissonDistribution(numeric.exponential(raw, RATE_BOUND))

    def initial(self, values: Tensor) -> Tensor:
        return numeric.exponential_raw(_mean_count(self._observed(values)), RATE_BOUND)


@dataclass(frozen=True)
class NegativeBinomial(Emission):
    """Columns of counts with mean `rate` and variance rate + rate² / size.

    Raw parameters: log-rates [D], log-sizes [D].

    Args:
        columns: D.

    Raises:
        SettingError: for options that make no sense.
    """

    kind: ClassVar[str] = "negative_binomial"
    discrete: ClassVar[bool] = True
    columns: int = 1

    def __post_init__(self) -> None:
        check_size("columns", self.columns)

    @property
    def num_parameters(self) -> int:
        return 2 * self.columns

    def distribution(self, raw: Tensor) -> NegativeBinomialDistribution:
        rate, size = raw.chunk(2, -1)
        return NegativeBinomialDistribution(
            numeric.exponential(rate, RATE_BOUND), numeric.exponential(size, SIZE_BOUND)
        )

    def initial(self, values: Tensor) -> Tensor:
        values = self._observed(values)
        rate = _mean_count(values)
        excess = (numeric.nanstd(values) ** 2 - rate).clamp_min(1e-3 * rate)
        size = numeric.exponential_raw(rate**2 / excess, SIZE_BOUND)
        start = torch.cat([numeric.exponential_raw(rate, RATE_BOUND), size])
        some = numeric.some_rows(values)
        return numeric.climb(lambda raw: self.distribution(raw).log_prob(some).mean(), start)


def _mean_count(values: Tensor) -> Tensor:
    """Mean of each column; half an event stands in for a column of zeros."""
    count = (~values.isnan()).sum(0)
    return values.nansum(0).clamp_min(0.5) / count


class Count(Columns):
    """Independent columns of counts; log-probabilities are summed in float64."""

    rate: Tensor

    @property
    def discrete(self) -> bool:
        return True

    @property
    def mean(self) -> Tensor:
        return self.rate

    def _crps(self, x: Tensor) -> Tensor:
        return numeric.crps_count(self._cdf, self._icdf, x)

    def _bracketed(self, q: Tensor, spread: Tensor) -> Tensor:
        """The quantile, from a guess at its upper bound that doubles until it is one."""
        high = torch.ceil(self.rate + 10 * spread + 10).expand(
            torch.broadcast_shapes(q.shape, self.rate.shape)
        )
        while bool((short := self._cdf(high) < q).any()):
            high = torch.where(short, 2 * high, high)
        return numeric.bisect_integer(self._cdf, q, torch.zeros_like(high), high)


def _possible(x: Tensor, nats: Tensor) -> Tensor:
    """The nats, or minus infinity where x is no count."""
    return torch.where((x >= 0) & (x == torch.floor(x)), nats, -torch.inf)


@dataclass(frozen=True, eq=False)
class PoissonDistribution(Count):
    """Independent Poisson columns: rate [..., D]."""

    rate: Tensor

    @property
    def variance(self) -> Tensor:
        return self.rate

    def _log_density(self, x: Tensor) -> Tensor:
        x, rate = x.double(), self.rate.double()
        nats = x * torch.log(rate) - rate - torch.lgamma(x.clamp_min(0) + 1)
        return _possible(x, nats).to(self.rate.dtype)

    def _cdf(self, x: Tensor) -> Tensor:
        inside = numeric.special("pdtr", x.floor().clamp_min(0), self.rate)
        return torch.where(x < 0, 0.0, inside)

    def _icdf(self, q: Tensor) -> Tensor:
        return self._bracketed(q, self.rate.sqrt())


@dataclass(frozen=True, eq=False)
class NegativeBinomialDistribution(Count):
    """Independent negative binomial columns: rate and size [..., D]."""

    rate: Tensor
    size: Tensor

    @property
    def variance(self) -> Tensor:
        return self.rate + self.rate**2 / self.size

    def _log_density(self, x: Tensor) -> Tensor:
        x, rate, size = x.double(), self.rate.double(), self.size.double()
        total = torch.log(size + rate)
        nats = numeric.log_gamma_ratio(size, x.clamp_min(0)) - torch.lgamma(x.clamp_min(0) + 1)
        # log1p: for large sizes log(size) - total would cancel
        nats = nats - size * torch.log1p(rate / size) + x * (torch.log(rate) - total)
        return _possible(x, nats).to(self.rate.dtype)

    def _cdf(self, x: Tensor) -> Tensor:
        success = self.size / (self.size + self.rate)
        inside = numeric.special("betainc", self.size, x.floor().clamp_min(0) + 1, success)
        return torch.where(x < 0, 0.0, inside)

    def _icdf(self, q: Tensor) -> Tensor:
        return self._bracketed(q, torch.sqrt(self.rate + self.rate**2 / self.size))
