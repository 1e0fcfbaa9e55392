"""Symbols that are bins of a quantity, such as quantised sound: far fewer parameters than V."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from throughtime.emissions import numeric
from throughtime.emissions.base import Emission, check_size
from throughtime.emissions.categorical import SymbolDistribution, frequencies


@dataclass(frozen=True)
class DiscretisedLogistic(Emission):
    """Symbols 0 … num_symbols - 1 as bins of a mixture of logistics on [-1, 1].

    Raw parameters, each [num_components]: weight logits, locations, scales through softplus. The
    first and the last bin are open, so the probabilities sum to 1. After PixelCNN++ (Salimans et
    al. 2017), but with the probability of a bin in a form that cannot cancel.

    Args:
        num_symbols: bins.
        num_components: logistics.

    Raises:
        SettingError: for options that make no sense.
    """

    kind: ClassVar[str] = "discretised_logistic"
    discrete: ClassVar[bool] = True
    symbols: ClassVar[bool] = True
    num_symbols: int = 256
    num_components: int = 10

    def __post_init__(self) -> None:
        check_size("num_symbols", self.num_symbols, at_least=2)
        check_size("num_components", self.num_components)

    @property
    def num_parameters(self) -> int:
        return 3 * self.num_components

    @property
    def min_scale(self) -> float:
        """A tenth of half a bin: one bin can hold 0.9999 of a component."""
        return 0.1 / (self.num_symbols - 1)

    def distribution(self, raw: Tensor) -> DiscretisedLogisticDistribution:
        logits, location, scale = numeric.limited(raw).chunk(3, -1)
        return DiscretisedLogisticDistribution(
            torch.log_softmax(logits, -1),
            location,
            numeric.positive(scale, self.min_scale),
            self.num_symbols,
        )

    def initial(self, values: Tensor) -> Tensor:
        share = frequencies(values, self.num_symbols)
        share = share / share.sum()
        centres = torch.linspace(-1, 1, self.num_symbols, dtype=torch.float64)
        middles = (torch.arange(self.num_components).double() + 0.5) / self.num_components
        location = centres[torch.searchsorted(share.cumsum(0), middles)]
        spread = torch.sqrt(share @ centres**2 - (share @ centres) ** 2)
        scale = (spread / 2).clamp_min(2 * self.min_scale).expand_as(location)
        start = [torch.zeros_like(location), location, numeric.positive_raw(scale, self.min_scale)]
        present = share.nonzero()[:, 0]
        present = present[:: len(present) // numeric.FIT_ROWS + 1]
        return numeric.climb(
            lambda raw: share[present] @ self.distribution(raw).log_prob(present),
            torch.cat(start),
        )


@dataclass(frozen=True, eq=False)
class DiscretisedLogisticDistribution(SymbolDistribution):
    """A mixture of logistics cut into num_symbols bins; parameters [..., K] on [-1, 1]."""

    log_weights: Tensor
    location: Tensor
    scale: Tensor
    num_symbols: int

    @property
    def batch_shape(self) -> torch.Size:
        return self.location.shape[:-1]

    def log_prob(self, x: Tensor) -> Tensor:
        half = 1 / (self.num_symbols - 1)  # of a bin
        x = x[..., None].to(self.scale.dtype)
        offset = 2 * half * x - 1 - self.location
        # with a and b the standardised edges, σ(a) - σ(b) = σ(a) σ(-b) (1 - e^(b-a))
        below_upper = functional.logsigmoid((offset + half) / self.scale)
        above_lower = functional.logsigmoid(-(offset - half) / self.scale)
        width = torch.log(-torch.expm1(-2 * half / self.scale))
        first, last = x == 0, x == self.num_symbols - 1
        nats = torch.where(last, 0, below_upper) + torch.where(first, 0, above_lower)
        nats = nats + torch.where(first | last, 0, width)
        return torch.logsumexp(self.log_weights + nats, -1)

    def _cumulative(self) -> Tensor:
        edge = torch.arange(self.num_symbols, device=self.scale.device).to(self.scale) + 0.5
        upper = 2 * edge / (self.num_symbols - 1) - 1
        upper[-1] = torch.inf
        z = (upper[:, None] - self.location[..., None, :]) / self.scale[..., None, :]
        return (torch.sigmoid(z) @ self.log_weights.exp()[..., None])[..., 0]

    def log_table(self) -> Tensor:
        centres = torch.arange(self.num_symbols, device=self.scale.device)
        centres = centres.reshape(-1, *[1] * len(self.batch_shape))
        return self.log_prob(centres).movedim(0, -1)
