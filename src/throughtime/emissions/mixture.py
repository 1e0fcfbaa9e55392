"""Mixtures: of components within a column, of the members of an ensemble, of several families."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from throughtime.emissions import numeric
from throughtime.emissions.base import (
    Columns,
    Distribution,
    Emission,
    check_positive,
    check_size,
    standardise,
)
from throughtime.emissions.categorical import CategoricalDistribution, SymbolDistribution
from throughtime.emissions.normal import NormalDistribution, absolute_moment
from throughtime.emissions.student_t import StudentTDistribution, degrees_of_freedom
from throughtime.errors import SettingError


@dataclass(frozen=True)
class Mixture(Emission):
    """Real columns, each a mixture of normal or Student t components of its own.

    Raw parameters, each [num_components, D]: weight logits, locations, scales through softplus
    above `min_scale`, and for "student_t" degrees of freedom as 1 + e^raw.

    Args:
        component: "student_t" or "normal".
        num_components: of each column.
        columns: D.
        min_scale: least scale, in units of the values, which should be near one.

    Raises:
        SettingError: for options that make no sense.
    """

    kind: ClassVar[str] = "mixture"
    component: str = "student_t"
    num_components: int = 3
    columns: int = 1
    min_scale: float = field(default=1e-4, kw_only=True)

    def __post_init__(self) -> None:
        if self.component not in ("normal", "student_t"):
            raise SettingError(f"component must be 'normal' or 'student_t', not {self.component!r}")
        check_size("num_components", self.num_components)
        check_size("columns", self.columns)
        check_positive("min_scale", self.min_scale)

    @property
    def num_parameters(self) -> int:
        return (3 if self.component == "normal" else 4) * self.num_components * self.columns

    def distribution(self, raw: Tensor) -> MixtureDistribution:
        logits, location, scale, *df = self._parts(raw)
        location, scale = numeric.limited(location), numeric.positive(scale, self.min_scale)
        components: Columns = NormalDistribution(location, scale)
        if df:
            components = StudentTDistribution(location, scale, degrees_of_freedom(df[0]))
        return MixtureDistribution(components, torch.log_softmax(numeric.limited(logits), -2))

    def initial(self, values: Tensor) -> Tensor:
        values, centre, spread = standardise(self._observed(values))
        K, D = self.num_components, self.columns
        places = [numeric.nanquantile(values, (k + 0.5) / K) for k in range(K)]
        even = torch.zeros(K, D, dtype=torch.float64)
        start = [even, torch.stack(places), even]
        if self.component == "student_t":
            start.append(even + math.log(4.0))
        raw = numeric.maximise(self.distribution, values, torch.stack(start).flatten())
        logits, location, scale, *df = self._parts(raw)
        scale = spread * numeric.positive(scale, self.min_scale)
        scale = numeric.positive_raw(scale, self.min_scale)
        return torch.stack([logits, centre + spread * location, scale, *df]).flatten()

    def _parts(self, raw: Tensor) -> tuple[Tensor, ...]:
        """The kinds of parameters, each [..., K, D]."""
        return raw.unflatten(-1, (-1, self.num_components, self.columns)).unbind(-3)


@dataclass(frozen=True, eq=False)
class MixtureDistribution(Distribution):
    """A mixture over the last batch dimension, of size K, of `components`.

    log_weights [..., K, D]: each column chooses its component by itself; [..., K, 1] and `joint`:
    one choice holds for the whole row.
    """

    components: Distribution
    log_weights: Tensor
    joint: bool = False

    @property
    def discrete(self) -> bool:
        return self.components.discrete

    @property
    def batch_shape(self) -> torch.Size:
        return self.components.batch_shape[:-1]

    def log_prob(self, x: Tensor) -> Tensor:
        if self.joint:
            nats = self.components.log_prob(x.unsqueeze(-2))
            return torch.logsumexp(self.log_weights[..., 0] + nats, -1)
        assert isinstance(self.components, Columns)
        nats = self.log_weights + self.components.column_log_prob(x.unsqueeze(-2))
        return torch.where(torch.isnan(x), 0, torch.logsumexp(nats, -2)).sum(-1)

    @property
    def mean(self) -> Tensor:
        return (self.log_weights.exp() * self.components.mean).sum(-2)

    @property
    def variance(self) -> Tensor:
        spread = self.components.variance + (self.components.mean - self.mean.unsqueeze(-2)) ** 2
        return (self.log_weights.exp() * spread).sum(-2)

    @property
    def num_uniforms(self) -> int:
        return self.log_weights.shape[-1] + self.components.num_uniforms

    def _sample(self, u: Tensor) -> Tensor:
        choosers = self.log_weights.shape[-1]
        drawn = self.components._sample(u[..., None, choosers:])  # of every component
        cumulative = self.log_weights.double().exp().cumsum(-2)
        threshold = u[..., None, :choosers] * cumulative[..., -1:, :]
        choice = (cumulative < threshold).sum(-2, keepdim=True)
        choice = choice.expand(*drawn.shape[:-2], 1, drawn.shape[-1])
        return drawn.gather(-2, choice)[..., 0, :]

    def marginals(self) -> Distribution:
        return MixtureDistribution(self.components.marginals(), self.log_weights)

    def _cdf(self, x: Tensor) -> Tensor:
        return (self.log_weights.exp() * self.components._cdf(_across(x))).sum(-2)

    def _icdf(self, q: Tensor) -> Tensor:
        each = self.components._icdf(_across(q))  # the mixture's lies between these
        low, high = each.amin(-2), each.amax(-2)
        solve = numeric.bisect_integer if self.discrete else numeric.bisect
        return solve(self._cdf, q, low, high)

    def _crps(self, x: Tensor) -> Tensor:
        if self.discrete:
            return numeric.crps_count(self._cdf, self._icdf, x)
        components = self.components.marginals()
        if isinstance(components, NormalDistribution):
            return _normal_mixture_crps(components, self.log_weights.exp(), x)
        return numeric.crps_continuous(self._cdf, self._icdf, x)


def _across(x: Tensor) -> Tensor:
    """x [..., D] against components [..., K, D]."""
    return x.unsqueeze(-2) if x.dim() else x


def _normal_mixture_crps(components: NormalDistribution, weights: Tensor, x: Tensor) -> Tensor:
    """E|X - x| - E|X - X'| / 2 (Grimit et al. 2006, Q. J. R. Meteorol. Soc. 132)."""
    location, scale = components.location, components.scale
    to_x = (weights * absolute_moment(_across(x) - location, scale)).sum(-2)
    distance = location.unsqueeze(-2) - location.unsqueeze(-3)  # [..., K, K, D]
    joint_scale = torch.hypot(scale.unsqueeze(-2), scale.unsqueeze(-3))
    pairs = weights.unsqueeze(-2) * weights.unsqueeze(-3)
    return to_x - 0.5 * (pairs * absolute_moment(distance, joint_scale)).sum((-3, -2))


def MixtureOf(distribution: Distribution, dim: int = -1) -> Distribution:
    """The equal-weight mixture over one batch dimension, such as the members of an ensemble.

    Args:
        distribution: of any family, with M members along a dimension of its batch.
        dim: that dimension.

    Returns:
        A distribution without it, whose `log_prob` is logsumexp over the members minus log M,
        jointly over the columns of a row.
    """
    dims, size = len(distribution.batch_shape), distribution.batch_shape[dim]
    dim = dim % dims
    components = distribution._map(lambda part: part.movedim(dim, dims - 1))
    if isinstance(components, SymbolDistribution):
        return SymbolMixture(components)
    log_weights = components.mean.new_full((*components.batch_shape, 1), -math.log(size))
    return MixtureDistribution(components, log_weights, joint=True)


@dataclass(frozen=True, eq=False)
class SymbolMixture(SymbolDistribution):
    """The equal-weight mixture, over the last batch dimension, of distributions of symbols."""

    components: SymbolDistribution

    @property
    def batch_shape(self) -> torch.Size:
        return self.components.batch_shape[:-1]

    def log_prob(self, x: Tensor) -> Tensor:
        nats = self.components.log_prob(x.unsqueeze(-1))
        return torch.logsumexp(nats, -1) - math.log(nats.shape[-1])

    def log_table(self) -> Tensor:
        table = torch.log_softmax(self.components.log_table(), -1)
        return torch.logsumexp(table, -2)

    def _cumulative(self) -> Tensor:
        return self.components._cumulative().mean(-2)


def weighted_mixture(distributions: Sequence[Distribution], weights: Tensor) -> Distribution:
    """Of any families: the distribution that is ``distributions[i]`` with ``weights[i]``.

    Args:
        distributions: K of one batch shape, all of symbols or all of columns.
        weights: ``[K]``, positive, sum 1.

    Returns:
        Of symbols again one table of probabilities; of columns a mixture whose `log_prob` is that
        of whole rows, as in `MixtureOf`.
    """
    if all(isinstance(distribution, SymbolDistribution) for distribution in distributions):
        tables = [torch.log_softmax(d.log_table().double(), -1) for d in distributions]  # type: ignore[attr-defined]
        stacked = torch.stack(tables) + weights.double().log().view(-1, *(1,) * tables[0].dim())
        return CategoricalDistribution(torch.logsumexp(stacked, 0))
    return WeightedMixture(tuple(distributions), weights)


@dataclass(frozen=True, eq=False)
class WeightedMixture(Distribution):
    """Weighted distributions of real or count columns (see `weighted_mixture`)."""

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
    def variance(self) -> Tensor:
        means = torch.stack([distribution.mean.double() for distribution in self.distributions])
        each = torch.stack([distribution.variance.double() for distribution in self.distributions])
        total = each + (means - self.mean) ** 2
        return (total * self._along(self.weights, total)).sum(0)

    @property
    def num_uniforms(self) -> int:
        return 1 + max(distribution.num_uniforms for distribution in self.distributions)

    def _sample(self, u: Tensor) -> Tensor:
        drawn = torch.stack(
            [
                distribution.sample_from_uniforms(u[..., 1 : 1 + distribution.num_uniforms])
                for distribution in self.distributions
            ]
        )
        choice = (self.weights.double().cumsum(0)[:-1] < u[..., :1]).sum(-1)
        where = choice.expand(drawn.shape[1:-1])[None, ..., None].expand(1, *drawn.shape[1:])
        return drawn.gather(0, where)[0]

    def marginals(self) -> Distribution:
        return WeightedMixture(
            tuple(distribution.marginals() for distribution in self.distributions), self.weights
        )

    def _map(self, function: Callable[[Tensor], Tensor]) -> WeightedMixture:
        return WeightedMixture(
            tuple(distribution._map(function) for distribution in self.distributions), self.weights
        )

    def _cdf(self, x: Tensor) -> Tensor:
        each = torch.stack([distribution.cdf(x) for distribution in self.distributions])
        return (each * self._along(self.weights, each)).sum(0)

    def _icdf(self, q: Tensor) -> Tensor:
        each = torch.stack(
            [distribution.icdf(q) for distribution in self.distributions]
        )  # the mixture's lies between these
        solve = numeric.bisect_integer if self.discrete else numeric.bisect
        return solve(self._cdf, q, each.amin(0), each.amax(0))

    def _crps(self, x: Tensor) -> Tensor:
        score = numeric.crps_count if self.discrete else numeric.crps_continuous
        return score(self._cdf, self._icdf, x)

    @staticmethod
    def _along(weights: Tensor, stacked: Tensor) -> Tensor:
        return weights.double().view(-1, *(1,) * (stacked.dim() - 1))
