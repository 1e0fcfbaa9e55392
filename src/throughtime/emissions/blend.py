"""The weighted mixture of distributions of different families: of a network and an n-gram."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from throughtime.emissions import numeric
from throughtime.emissions.base import Distribution
from throughtime.emissions.categorical import CategoricalDistribution, SymbolDistribution


def BlendOf(distributions: Sequence[Distribution], weights: Tensor) -> Distribution:
    """The distribution that is `distributions[i]` with probability `weights[i]`; all have one batch
    shape.

    weights: ``[K]``, positive, sum 1. A blend of distributions of symbols is again one table of
    probabilities; of values, `log_prob` is that of whole rows, as in `MixtureOf`.
    """
    if all(isinstance(distribution, SymbolDistribution) for distribution in distributions):
        tables = [torch.log_softmax(d.log_table().double(), -1) for d in distributions]  # type: ignore[attr-defined]
        stacked = torch.stack(tables) + weights.double().log().view(-1, *(1,) * tables[0].dim())
        return CategoricalDistribution(torch.logsumexp(stacked, 0))
    return BlendDistribution(tuple(distributions), weights)


@dataclass(frozen=True, eq=False)
class BlendDistribution(Distribution):
    """Weighted distributions of real or count columns (see `BlendOf`)."""

    distributions: tuple[Distribution, ...]
    weights: Tensor

    @property
    def discrete(self) -> bool:
        return self.distributions[0].discrete

    @property
    def batch_shape(self) -> torch.Size:
        return self.distributions[0].batch_shape

    def log_prob(self, x: Tensor) -> Tensor:
        nats = torch.stack(
            [distribution.log_prob(x).double() for distribution in self.distributions]
        )
        return torch.logsumexp(nats + self._along(self.weights.double().log(), nats), 0)

    @property
    def mean(self) -> Tensor:
        means = torch.stack([distribution.mean.double() for distribution in self.distributions])
        return (means * self._along(self.weights, means)).sum(0)

    @property
    def num_uniforms(self) -> int:
        return 1 + max(distribution.num_uniforms for distribution in self.distributions)

    def _sample(self, u: Tensor) -> Tensor:
        drawn = torch.stack(
            [
                distribution.sample(u[..., 1 : 1 + distribution.num_uniforms])
                for distribution in self.distributions
            ]
        )
        choice = (self.weights.double().cumsum(0)[:-1] < u[..., :1]).sum(-1)
        where = choice.expand(drawn.shape[1:-1])[None, ..., None].expand(1, *drawn.shape[1:])
        return drawn.gather(0, where)[0]

    def select(self, index: object) -> BlendDistribution:
        return BlendDistribution(
            tuple(distribution.select(index) for distribution in self.distributions), self.weights
        )

    def marginals(self) -> Distribution:
        return BlendDistribution(
            tuple(distribution.marginals() for distribution in self.distributions), self.weights
        )

    def _map(self, function: Callable[[Tensor], Tensor]) -> BlendDistribution:
        return BlendDistribution(
            tuple(distribution._map(function) for distribution in self.distributions), self.weights
        )

    def _cdf(self, x: Tensor) -> Tensor:
        each = torch.stack([distribution.cdf(x) for distribution in self.distributions])
        return (each * self._along(self.weights, each)).sum(0)

    def _quantile(self, q: Tensor) -> Tensor:
        each = torch.stack(
            [distribution.quantile(q) for distribution in self.distributions]
        )  # the blend's lies between
        solve = numeric.bisect_integer if self.discrete else numeric.bisect
        return solve(self._cdf, q, each.amin(0), each.amax(0))

    def _crps(self, x: Tensor) -> Tensor:
        score = numeric.crps_count if self.discrete else numeric.crps_continuous
        return score(self._cdf, self._quantile, x)

    @staticmethod
    def _along(weights: Tensor, stacked: Tensor) -> Tensor:
        return weights.double().view(-1, *(1,) * (stacked.dim() - 1))
