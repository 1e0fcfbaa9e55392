"""What every transform is: a fitted value that maps sequences forward and forecasts back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import Tensor

from throughtime.data.compact import constant
from throughtime.data.domain import Domain
from throughtime.errors import DataError, SettingError

Self = TypeVar("Self", bound="Transform")


class Ragged(Protocol):
    """What a transform reads of a set of sequences; `Sequences` and `Flat` both have it."""

    @property
    def values(self) -> Tensor: ...
    @property
    def offsets(self) -> Tensor: ...
    @property
    def starts(self) -> Tensor: ...
    @property
    def domain(self) -> Domain: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def differencing(self) -> Tensor: ...
    @property
    def log_det(self) -> Tensor: ...
    @property
    def notes(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class Flat:
    """Ragged sequences between two transforms.

    Attributes:
        values: whole numbers ``[total]``, as in `Sequences`, or float64 ``[total, D]``.
        offsets: int64 ``[N + 1]``.
        starts: int64 ``[N]``, the first scored step of each.
        domain: what the values are.
        names: of the sequences.
        differencing: uint8 ``[total]``: 0, or k where the k-th differencing kept the value.
        log_det: float64 ``[total]``, nats.
        notes: what was noticed, a sentence each.
    """

    values: Tensor
    offsets: Tensor
    starts: Tensor
    domain: Domain
    names: tuple[str, ...]
    differencing: Tensor
    log_det: Tensor
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, ragged: Ragged) -> Flat:
        """The same sequences without everything a transform does not touch."""
        return cls(
            ragged.values,
            ragged.offsets,
            ragged.starts,
            ragged.domain,
            ragged.names,
            ragged.differencing,
            ragged.log_det,
            ragged.notes,
        )

    @classmethod
    def single(cls, values: Tensor, domain: Domain, name: str = "the given past") -> Flat:
        """One sequence from its values [T] or [T, D]."""
        length = values.shape[0]
        return cls(
            values,
            torch.tensor([0, length]),
            torch.tensor([0]),
            domain,
            (name,),
            constant(0, length, torch.uint8),
            constant(0.0, length, torch.float64),
        )

    def with_note(self, note: str) -> Flat:
        """The same with one more note, unless it is there already."""
        return self if note in self.notes else replace(self, notes=(*self.notes, note))

    def where(self, position: int) -> str:
        """The place of a step for messages: the series' name and the step inside it from 0."""
        row = int(torch.searchsorted(self.offsets, position, right=True)) - 1
        return f"series '{self.names[row]}', step {position - int(self.offsets[row])}"


@dataclass(frozen=True)
class Transform(ABC):
    """One invertible map of sequences; a frozen value, compared by its fitted numbers.

    `fit` sees the training set only. `forward` maps sequences, pasts included, and adds to
    `log_det` so that ``log p(raw) = log p(transformed) + log_det``, in nats, summed over columns.
    Missing values (NaN) stay missing. `inverse` continues a past.
    """

    kind: ClassVar[str]
    total: ClassVar[bool] = False  # whether it takes all data that it can be fitted to

    @property
    def fitted(self) -> bool:
        """True once nothing is left to be fitted on training data."""
        return True

    def fit(self: Self, train: Ragged) -> Self:
        """The transform with its numbers fitted on every step of the training set."""
        self.output(train.domain)
        return self

    @abstractmethod
    def output(self, domain: Domain) -> Domain:
        """What the values are after this transform.

        Raises:
            SettingError: where it does not apply.
        """

    @abstractmethod
    def forward(self, flat: Flat) -> Flat:
        """The transformed sequences, pasts included, with their `log_det`.

        Raises:
            DataError: naming the first step that it cannot take.
        """

    @abstractmethod
    def inverse(self, values: Tensor, past: Tensor, differencing: Tensor) -> Tensor:
        """The values before this transform.

        Args:
            values: ``[..., T, D]``, or symbols ``[..., T]``.
            past: what came before, not transformed either, ``[T0, D]`` or ``[T0]``.
            differencing: ``[T0 + T]``, of the input.

        Returns:
            ``[..., T, D]``, or symbols ``[..., T]``.
        """

    def differencing_after(self, differencing: Tensor) -> Tensor:
        """`differencing` [T] of one whole sequence after this transform, from that before."""
        return differencing

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `transform_from_json` reads back to an equal value."""
        values = {field.name: _plain(getattr(self, field.name)) for field in fields(self)}
        return {"kind": self.kind, **values}

    @classmethod
    def from_fields(cls: type[Self], values: dict[str, Any]) -> Self:
        """The transform with these fields (lists become tuples)."""
        try:
            return cls(**{name: _frozen(value) for name, value in values.items()})
        except TypeError as error:
            raise DataError(f"not a description of the transform {cls.kind}: {error}") from error

    def _need(self, domain: Domain, kinds: tuple[str, ...]) -> None:
        if domain.kind not in kinds:
            raise SettingError(
                f"the transform {self.kind} needs {' or '.join(kinds)} data, not {domain.kind}"
            )

    def _need_fitted(self) -> None:
        if not self.fitted:
            raise SettingError(f"the transform {self.kind} has not been fitted: fit it on training")


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return [_plain(part) for part in value]
    return value


def _frozen(value: Any) -> Any:
    if isinstance(value, list):
        return tuple(_frozen(part) for part in value)
    return value


def rows_of(offsets: Tensor) -> Tensor:
    """The number of the sequence that each step belongs to, int64 [total]."""
    lengths = offsets[1:] - offsets[:-1]
    return torch.repeat_interleave(torch.arange(len(lengths)), lengths)
