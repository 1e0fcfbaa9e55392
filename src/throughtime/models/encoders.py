"""What a network reads of the previous element X_{t-1}.

Real values are of order one after `Standardise`; beside the value itself the network sees its size
on a log scale and its negative part. The size is what drives the spread of the next value in data
of changing volatility, the sign what makes falls and rises differ; a tanh network finds neither
quickly in the value alone. A missing value and the start of a sequence have flags of their own.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from throughtime.emissions import (
    Bernoulli,
    Categorical,
    DiscretisedLogistic,
    Emission,
    NegativeBinomial,
    Poisson,
)
from throughtime.errors import SettingError

_SMALLEST = 0.05  # sizes below this look alike; keeps the logarithm of tiny values tame


class Encoder(nn.Module, ABC):
    """Maps X_{t-1} and the start flag to a vector of `size` numbers."""

    size: int

    @abstractmethod
    def forward(self, previous: Tensor, start: Tensor) -> Tensor:
        """``[..., size]`` from symbols ``[...]`` or values ``[..., D]``; start bool ``[...]``."""


class SymbolEncoder(Encoder):
    """A learned vector per symbol, one more for "before the first symbol"."""

    def __init__(self, num_symbols: int, size: int) -> None:
        super().__init__()
        self.size, self.num_symbols = size, num_symbols
        self.embedding = nn.Embedding(num_symbols + 1, size)
        nn.init.normal_(self.embedding.weight, std=size**-0.5)

    def forward(self, previous: Tensor, start: Tensor) -> Tensor:
        vector: Tensor = self.embedding(torch.where(start, self.num_symbols, previous))
        return vector


class LevelEncoder(Encoder):
    """The levels of a quantised signal as numbers in [-2, 2], bent both ways, and a start flag.

    Neighbouring levels look alike, which a learned vector per level would have to find out from
    data for each of them.
    """

    def __init__(self, num_symbols: int) -> None:
        super().__init__()
        self.size, self.num_symbols = 4, num_symbols
        self.register_buffer("quarter", torch.tensor(0.5 * math.pi))

    def forward(self, previous: Tensor, start: Tensor) -> Tensor:
        quarter: Tensor = self.quarter  # type: ignore[assignment]
        level = previous.to(quarter.dtype) * (2.0 / max(1, self.num_symbols - 1)) - 1.0
        angle = quarter * level
        features = torch.stack([2.0 * level, angle.sin(), angle.cos()], -1)
        flag = start.unsqueeze(-1)
        return torch.cat([torch.where(flag, 0.0, features), flag.to(features.dtype)], -1)


class RealEncoder(Encoder):
    """Value, log size, negative part and a missing flag per column, and a start flag."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.size = 4 * columns + 1

    def forward(self, previous: Tensor, start: Tensor) -> Tensor:
        missing = torch.isnan(previous) | start.unsqueeze(-1)
        z = torch.where(missing, 0.0, previous)
        size = torch.where(missing, 0.0, torch.log(z.abs() + _SMALLEST))
        parts = [z, size, z.clamp(max=0.0), missing.to(z.dtype), start.unsqueeze(-1).to(z.dtype)]
        return torch.cat(parts, -1)


class BinaryEncoder(Encoder):
    """The flags as numbers, and a start flag."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.size = 2 * columns + 1

    def forward(self, previous: Tensor, start: Tensor) -> Tensor:
        missing = torch.isnan(previous) | start.unsqueeze(-1)
        z = torch.where(missing, 0.0, previous)
        return torch.cat([z, missing.to(z.dtype), start.unsqueeze(-1).to(z.dtype)], -1)


class CountEncoder(Encoder):
    """Counts on a log scale and squashed, a missing flag, and a start flag."""

    def __init__(self, columns: int) -> None:
        super().__init__()
        self.size = 3 * columns + 1

    def forward(self, previous: Tensor, start: Tensor) -> Tensor:
        missing = torch.isnan(previous) | start.unsqueeze(-1)
        z = torch.where(missing, 0.0, previous)
        flags = [missing.to(z.dtype), start.unsqueeze(-1).to(z.dtype)]
        parts = [torch.log1p(z), z / (1.0 + z), *flags]
        return torch.cat(parts, -1)


def known_covariates(count: int, covariates: Tensor | None, like: Tensor) -> Tensor:
    """The `count` covariates of every step, in the dtype of `like`; SettingError without them."""
    if covariates is None or covariates.shape[-1] != count:
        raise SettingError(f"this model needs {count} covariate(s) at every step")
    return torch.nan_to_num(covariates).to(like.dtype)


def encoder(emission: Emission, embedding_size: int) -> Encoder:
    """The encoder that fits what an emission emits."""
    if isinstance(emission, Categorical):
        return SymbolEncoder(emission.num_symbols, embedding_size)
    if isinstance(emission, DiscretisedLogistic):
        return LevelEncoder(emission.num_symbols)
    if isinstance(emission, Bernoulli):
        return BinaryEncoder(emission.columns)
    if isinstance(emission, (Poisson, NegativeBinomial)):
        return CountEncoder(emission.columns)
    return RealEncoder(emission.columns)
