"""Binary columns, such as the notes of a piano roll."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from throughtime.emissions import numeric
from throughtime.emissions.base import Columns, Emission, check_size


@dataclass(frozen=True)
class Bernoulli(Emission):
    """Columns that are 0 or 1, independent given the state. Raw: logits [D].

    Args:
        columns: D.

    Raises:
        SettingError: for options that make no sense.
    """

    kind: ClassVar[str] = "bernoulli"
    discrete: ClassVar[bool] = True
    columns: int = 1

    def __post_init__(self) -> None:
        check_size("columns", self.columns)

    @property
    def num_parameters(self) -> int:
        return self.columns

    def distribution(self, raw: Tensor) -> BernoulliDistribution:
        return BernoulliDistribution(numeric.limited(raw))

    def initial(self, values: Tensor) -> Tensor:
        values = self._observed(values)
        count = (~values.isnan()).sum(0)
        # half an observation of each kind keeps a column that never changes finite
        return torch.logit((values.nansum(0) + 0.5) / (count + 1))


@dataclass(frozen=True, eq=False)
class BernoulliDistribution(Columns):
    """Independent columns that are 1 with probability sigmoid(logits), logits [..., D]."""

    logits: Tensor

    @property
    def discrete(self) -> bool:
        return True

    @property
    def batch_shape(self) -> torch.Size:
        return self.logits.shape[:-1]

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(self.logits)

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 - self.mean)

    def _log_density(self, x: Tensor) -> Tensor:
        nats = x * self.logits - functional.softplus(self.logits)
        return torch.where((x == 0) | (x == 1), nats, -torch.inf)

    def _cdf(self, x: Tensor) -> Tensor:
        inside = torch.where(x < 1, torch.sigmoid(-self.logits), 1.0)
        return torch.where(x.isnan(), x, torch.where(x < 0, 0.0, inside))

    def _icdf(self, q: Tensor) -> Tensor:
        return (q > torch.sigmoid(-self.logits)).double()

    def _crps(self, x: Tensor) -> Tensor:
        return (self.mean - x) ** 2
