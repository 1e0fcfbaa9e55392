"""Checked statements about what numbers are: counts, yes or no, or symbols."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from throughtime.data.domain import Domain
from throughtime.data.transforms.base import Flat, Ragged, Transform
from throughtime.errors import DataError, SettingError, VocabularyError


def _refuse(flat: Flat, bad: Tensor, need: str) -> None:
    """Raises DataError for the first step where `bad` [total, D] is true."""
    if bool(bad.any()):
        position, d = (int(i) for i in bad.nonzero()[0])
        value = float(flat.values[position, d])
        raise DataError(f"{flat.where(position)}: {need}, found {value:g}")


@dataclass(frozen=True)
class Counts(Transform):
    """Real columns that hold 0, 1, 2, ...: their likelihood is a probability, not a density."""

    kind: ClassVar[str] = "counts"

    def output(self, domain: Domain) -> Domain:
        self._need(domain, ("real", "count"))
        return replace(domain, kind="count")

    def forward(self, flat: Flat) -> Flat:
        domain = self.output(flat.domain)
        x = flat.values
        _refuse(flat, (x < 0) | (~x.isnan() & (x != x.round())), "counts are whole and >= 0")
        return replace(flat, domain=domain)

    def inverse(self, values: Tensor, past: Tensor, differencing: Tensor) -> Tensor:
        return values


@dataclass(frozen=True)
class Binary(Transform):
    """Real columns that hold 0 or 1."""

    kind: ClassVar[str] = "binary"

    def output(self, domain: Domain) -> Domain:
        self._need(domain, ("real", "count", "binary"))
        return replace(domain, kind="binary")

    def forward(self, flat: Flat) -> Flat:
        domain = self.output(flat.domain)
        x = flat.values
        _refuse(flat, ~x.isnan() & (x != 0) & (x != 1), "binary values are 0 or 1")
        return replace(flat, domain=domain)

    def inverse(self, values: Tensor, past: Tensor, differencing: Tensor) -> Tensor:
        return values


@dataclass(frozen=True)
class Symbols(Transform):
    """One column of whole numbers 0, 1, ... as symbols; as many as the training part has.

    Raises VocabularyError for a larger number than in training.
    """

    num_symbols: int | None = None
    kind: ClassVar[str] = "symbols"

    @property
    def fitted(self) -> bool:
        return self.num_symbols is not None

    def fit(self, train: Ragged) -> Symbols:
        self._need(train.domain, ("real", "count", "binary"))
        if self.num_symbols is not None:
            return self
        if train.values.numel() == 0 or bool(train.values.isnan().all()):
            raise DataError("symbols cannot be learnt from no values")
        largest = float(train.values.nan_to_num(nan=0.0).max())
        return Symbols(max(int(largest), 0) + 1)

    def output(self, domain: Domain) -> Domain:
        self._need(domain, ("real", "count", "binary"))
        self._need_fitted()
        if len(domain.columns) > 1:
            raise SettingError(f"symbols need one column, this has {len(domain.columns)}")
        return replace(domain, kind="symbols", num_symbols=self.num_symbols)

    def forward(self, flat: Flat) -> Flat:
        domain = self.output(flat.domain)
        x = flat.values
        _refuse(flat, ~(x >= 0) | (x != x.round()), "symbols are whole, >= 0 and never missing")
        unknown = x[:, 0] >= (self.num_symbols or 0)
        if bool(unknown.any()):
            bad = int(unknown.nonzero()[0])
            raise VocabularyError(
                f"{flat.where(bad)}: the symbol {int(x[bad, 0])} is not one of the "
                f"{self.num_symbols} in the training part"
            )
        return replace(flat, values=x[:, 0].long(), domain=domain)

    def inverse(self, values: Tensor, past: Tensor, differencing: Tensor) -> Tensor:
        return values.to(torch.float64)[..., None]
