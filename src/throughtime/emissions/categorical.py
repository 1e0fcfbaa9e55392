"""Symbols: one of V, by its own logit each. Also what every distribution of symbols can do."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from throughtime.emissions.base import Distribution, Emission, check_positive, check_size
from throughtime.errors import DataError, SettingError, VocabularyError

_NO_SYMBOL = -(2**63)


@dataclass(frozen=True)
class Categorical(Emission):
    """Symbols 0 … num_symbols - 1, each with its own probability. Raw: logits [V].

    Args:
        num_symbols: V.

    Raises:
        SettingError: for options that make no sense.
    """

    kind: ClassVar[str] = "categorical"
    discrete: ClassVar[bool] = True
    symbols: ClassVar[bool] = True
    num_symbols: int

    def __post_init__(self) -> None:
        check_size("num_symbols", self.num_symbols)

    @property
    def num_parameters(self) -> int:
        return self.num_symbols

    def distribution(self, raw: Tensor) -> CategoricalDistribution:
        return CategoricalDistribution(raw)

    def initial(self, values: Tensor) -> Tensor:
        # one more observation, spread over all symbols, keeps the unseen ones possible
        return torch.log(frequencies(values, self.num_symbols) + 1 / self.num_symbols)


def frequencies(values: Tensor, num_symbols: int) -> Tensor:
    """How often each symbol occurs, float64 [V]."""
    values = torch.as_tensor(values).detach().cpu().flatten()
    if values.is_floating_point():
        values = values[~torch.isnan(values)].long()
    if len(values) == 0:
        raise DataError("there are no symbols to train on: give a sequence that is not empty")
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= num_symbols:
        raise VocabularyError(
            f"symbols run from {low} to {high}, but num_symbols={num_symbols} allows "
            f"0 to {num_symbols - 1}: give a larger num_symbols"
        )
    return torch.bincount(values, minlength=num_symbols).double()


class SymbolDistribution(Distribution):
    """A distribution of symbols, which count as the numbers 0 … V - 1 wherever order matters."""

    @abstractmethod
    def log_table(self) -> Tensor:
        """Log-probabilities up to a constant of all symbols, [..., V]."""

    def tempered(self, temperature: float) -> CategoricalDistribution:
        """Probabilities to the power 1 / temperature.

        Args:
            temperature: above 1 makes them flatter, below 1 sharper.

        Raises:
            SettingError: if it is not a finite number above zero.
        """
        check_positive("temperature", temperature)
        return CategoricalDistribution(self.log_table() / temperature)

    def nucleus(self, top_p: float) -> CategoricalDistribution:
        """Only the likeliest symbols, no more than it takes for a share of the mass.

        Args:
            top_p: the share, above 0 and at most 1 (Holtzman et al. 2020, nucleus sampling).

        Raises:
            SettingError: if it lies outside.
        """
        if not 0 < top_p <= 1:
            raise SettingError(f"top_p must lie above 0 and at most at 1, not {top_p!r}")
        table = self.log_table()
        ordered, order = table.sort(dim=-1, descending=True, stable=True)
        mass = torch.softmax(ordered.double(), -1)
        dropped = mass.cumsum(-1) - mass >= top_p  # the mass of the likelier ones suffices
        dropped = torch.zeros_like(dropped).scatter(-1, order, dropped)
        return CategoricalDistribution(table.masked_fill(dropped, -torch.inf))

    @property
    def discrete(self) -> bool:
        return True

    @property
    def mean(self) -> Tensor:
        table = self.log_table()
        return torch.softmax(table, -1) @ _numbers(table)

    @property
    def variance(self) -> Tensor:
        table = self.log_table()
        squares = (_numbers(table) - self.mean[..., None]) ** 2
        return (torch.softmax(table, -1) * squares).sum(-1)

    @property
    def num_uniforms(self) -> int:
        return 1

    def _sample(self, u: Tensor) -> Tensor:
        return self._exact()._icdf(u[..., 0]).long()

    def _cumulative(self) -> Tensor:
        """P(X <= k) for all k, [..., V]."""
        return torch.softmax(self.log_table(), -1).cumsum(-1)

    def _cdf(self, x: Tensor) -> Tensor:
        cumulative = self._cumulative()
        top = cumulative.shape[-1] - 1
        inside = take(cumulative, x.nan_to_num().floor().clamp(0, top).long())
        outside = torch.where(x.isnan(), torch.nan, (x >= top).double())
        return torch.where((x >= 0) & (x < top), inside, outside)

    def _icdf(self, q: Tensor) -> Tensor:
        cumulative = self._cumulative()
        target = q[..., None] * cumulative[..., -1:]  # whose rounding must not matter
        return (cumulative < target).sum(-1).double()

    def _crps(self, x: Tensor) -> Tensor:
        cumulative = self._cumulative()
        step = (x[..., None] <= _numbers(cumulative)).double()
        score = ((cumulative - step) ** 2).sum(-1)
        return torch.where(x.isnan(), torch.nan, score)


@dataclass(frozen=True, eq=False)
class CategoricalDistribution(SymbolDistribution):
    """Symbols with probabilities softmax(logits), logits [..., V]."""

    logits: Tensor

    @property
    def batch_shape(self) -> torch.Size:
        return self.logits.shape[:-1]

    def log_table(self) -> Tensor:
        return self.logits

    def log_prob(self, x: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(x.shape, self.batch_shape)
        if shape != self.batch_shape:
            return take(torch.log_softmax(self.logits, -1), x.long())
        # the same, fused: training takes this way; no symbol is to be ignored
        rows = self.logits.reshape(-1, self.logits.shape[-1]), x.long().expand(shape).reshape(-1)
        nats = functional.cross_entropy(*rows, ignore_index=_NO_SYMBOL, reduction="none")
        return -nats.reshape(shape)


def _numbers(table: Tensor) -> Tensor:
    """The symbols 0 … V - 1 as numbers, [V]."""
    return torch.arange(table.shape[-1], dtype=table.dtype, device=table.device)


def take(table: Tensor, index: Tensor) -> Tensor:
    """The entry of table [..., V] that index [...] names, the two broadcast together."""
    shape = torch.broadcast_shapes(table.shape[:-1], index.shape)
    table, index = table.expand(*shape, table.shape[-1]), index.expand(shape)
    return table.gather(-1, index[..., None])[..., 0]
