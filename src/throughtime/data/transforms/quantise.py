"""Sound amplitudes in [-1, 1] as symbols.

The likelihood is that of the quantised signal, so log_det is 0 and nats are per sample.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from throughtime.data.compact import by_block, integer_type
from throughtime.data.domain import Domain
from throughtime.data.transforms.base import Flat, Transform
from throughtime.errors import DataError, SettingError


@dataclass(frozen=True)
class _Quantise(Transform):
    """2**bits levels over [-1, 1]; values beyond are clipped, and a note counts them."""

    bits: int = 8

    def __post_init__(self) -> None:
        if not 1 <= self.bits <= 16:
            raise SettingError(f"{self.kind} with {self.bits} bits: 1 to 16 are possible")

    @property
    def levels(self) -> int:
        """How many symbols there are."""
        return 1 << self.bits

    @abstractmethod
    def encode(self, x: Tensor) -> Tensor:
        """Symbols int64 of amplitudes in [-1, 1], same shape."""

    @abstractmethod
    def decode(self, symbols: Tensor) -> Tensor:
        """The amplitude float64 that each symbol stands for, same shape."""

    def output(self, domain: Domain) -> Domain:
        self._need(domain, ("sound", "real"))
        if len(domain.columns) > 1:
            raise SettingError(
                f"{self.kind} needs one column, this has {len(domain.columns)}: choose a channel"
            )
        return replace(domain, kind="symbols", num_symbols=self.levels)

    def forward(self, flat: Flat) -> Flat:
        domain = self.output(flat.domain)
        x = flat.values[:, 0]
        if bool(x.isnan().any()):
            bad = int(x.isnan().nonzero()[0])
            raise DataError(f"{flat.where(bad)}: a missing sample cannot become a symbol")
        beyond = int((x.abs() > 1).sum())
        if beyond:
            samples = "1 value" if beyond == 1 else f"{beyond:,} values"
            flat = flat.with_note(f"Clipped to [-1, 1] before {self.kind}: {samples}.")
        symbols = by_block(
            x, lambda part: self.encode(part.clamp(-1, 1)), integer_type(self.levels - 1)
        )
        return replace(flat, values=symbols, domain=domain)

    def inverse(self, values: Tensor, past: Tensor, differencing: Tensor) -> Tensor:
        return self.decode(values)[..., None]


@dataclass(frozen=True)
class MuLaw(_Quantise):
    """The companding of telephony: fine near silence, coarse where it is loud.

    Source: ITU-T G.711 in the continuous form with mu = 2**bits - 1; the symbols are those of
    ``torchaudio.functional.mu_law_encoding``.
    """

    kind: ClassVar[str] = "mulaw"

    def encode(self, x: Tensor) -> Tensor:
        mu = self.levels - 1
        companded = x.sign() * (mu * x.abs()).log1p() / math.log1p(mu)
        return ((companded + 1) / 2 * mu + 0.5).long()

    def decode(self, symbols: Tensor) -> Tensor:
        mu = self.levels - 1
        companded = symbols.double() / mu * 2 - 1
        return companded.sign() * torch.expm1(companded.abs() * math.log1p(mu)) / mu


@dataclass(frozen=True)
class LinearQuantise(_Quantise):
    """Equal steps over [-1, 1], decoded to the middle of each."""

    kind: ClassVar[str] = "linear"

    def encode(self, x: Tensor) -> Tensor:
        return ((x + 1) / 2 * self.levels).long().clamp(max=self.levels - 1)

    def decode(self, symbols: Tensor) -> Tensor:
        return (symbols.double() + 0.5) / self.levels * 2 - 1
