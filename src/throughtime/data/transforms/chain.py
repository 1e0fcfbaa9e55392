"""A fitted sequence of transforms."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from throughtime.data.domain import Domain
from throughtime.data.transforms.base import Flat, Ragged, Transform
from throughtime.data.transforms.casts import Binary, Counts, Symbols
from throughtime.data.transforms.quantise import LinearQuantise, MuLaw
from throughtime.data.transforms.real import Difference, Log, Scale, Standardise
from throughtime.data.transforms.text import Bytes, Characters, Tokens, decode_text
from throughtime.errors import DataError, SettingError, nearest

KNOWN: tuple[type[Transform], ...] = (
    Log,
    Difference,
    Standardise,
    Scale,
    MuLaw,
    LinearQuantise,
    Characters,
    Bytes,
    Tokens,
    Counts,
    Binary,
    Symbols,
)
TABLE: dict[str, type[Transform]] = {transform.kind: transform for transform in KNOWN}


def transform_from_json(description: dict[str, Any]) -> Transform:
    """The transform that `Transform.to_json` described.

    Raises:
        DataError: for an unknown kind.
    """
    values = dict(description)
    kind = values.pop("kind", None)
    if kind not in TABLE:
        raise DataError(f"unknown transform '{kind}': known are {', '.join(TABLE)}")
    return TABLE[kind].from_fields(values)


@dataclass(frozen=True)
class Transforms:
    """Fitted transforms, applied from first to last; none of them is the identity.

    Attributes:
        transforms: in the order in which they are applied.
        domain: of the raw data.
    """

    transforms: tuple[Transform, ...] = ()
    domain: Domain | None = None

    @classmethod
    def unfitted(cls, specs: Iterable[Transform | str]) -> Transforms:
        """A chain that `fit` is still to be called with; transforms or their kinds by name."""
        return cls(tuple(_named(spec) for spec in specs))

    @classmethod
    def fit(cls, specs: Iterable[Transform | str], train: Ragged) -> Transforms:
        """Each transform fitted on the training set as the ones before it leave it.

        Args:
            specs: transforms, or their kinds by name ("log", "difference", …).
            train: the training set, raw.

        Raises:
            SettingError: for an unknown name, or data that a transform does not apply to.
            DataError: naming the first step that a transform cannot take.
        """
        named = [_named(spec) for spec in specs]
        if len(named) == 1 and named[0].total:  # nothing follows that would look at the result
            return cls((named[0].fit(Flat.of(train)),), train.domain)
        return cls.fit_forward(named, train)[0]

    @classmethod
    def fit_forward(
        cls, specs: Iterable[Transform | str], train: Ragged
    ) -> tuple[Transforms, Flat]:
        """`fit`, and the training set after the whole chain."""
        flat = Flat.of(train)
        fitted = []
        for spec in specs:
            transform = _named(spec).fit(flat)
            flat = transform.forward(flat)
            fitted.append(transform)
        return cls(tuple(fitted), train.domain), flat

    def __len__(self) -> int:
        return len(self.transforms)

    def __iter__(self) -> Iterator[Transform]:
        return iter(self.transforms)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The names of the transforms, for people."""
        return tuple(transform.kind for transform in self.transforms)

    @property
    def output(self) -> Domain:
        """What the values are after the whole chain."""
        if self.domain is None:
            raise SettingError("an empty chain does not know its data")
        domain = self.domain
        for transform in self.transforms:
            domain = transform.output(domain)
        return domain

    def forward(self, flat: Flat) -> Flat:
        """The sequences after every transform."""
        for transform in self.transforms:
            flat = transform.forward(flat)
        return flat

    def inverse(self, values: Tensor, past_raw: Tensor | None = None) -> Tensor:
        """Raw values from transformed ones, on the CPU.

        A base that the differencing needs and that is missing in the past is taken to be the last
        one observed.

        Args:
            values: ``[..., T, D]``, or symbols ``[..., T]``.
            past_raw: what came before, raw, ``[T0, D]`` or ``[T0]``; None: the values start the
                sequence.

        Returns:
            float64 ``[..., T, D]``, or symbols ``[..., T]``.
        """
        if not self.transforms or self.domain is None:
            return values
        values = values.cpu()
        if values.is_floating_point():
            values = values.double()
        past_raw = _empty(self.domain) if past_raw is None else past_raw.cpu()
        flat = Flat.single(past_raw, self.domain)
        # Differencing depends on places alone: it is followed for past and future together.
        length = past_raw.shape[0] + (values.shape[-1] if self.output.integer else values.shape[-2])
        differencing = torch.zeros(length, dtype=torch.uint8)
        stages = []
        for transform in self.transforms:
            stages.append((transform, flat.values, differencing))
            flat = transform.forward(flat)
            differencing = transform.differencing_after(differencing)
        for transform, past, before in reversed(stages):
            values = transform.inverse(values, past, before)
        return values

    def text(self, values: Tensor) -> str:
        """The text that symbols ``[T]`` stand for; unknown characters become U+FFFD.

        Raises:
            SettingError: for transforms of other data than text.
        """
        if self.domain is None or self.domain.kind != "text":
            raise SettingError("only a chain that was fitted on text gives text back")
        return decode_text(self.inverse(values))

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back to an equal chain."""
        return {
            "domain": None if self.domain is None else self.domain.to_json(),
            "transforms": [transform.to_json() for transform in self.transforms],
        }

    @classmethod
    def from_json(cls, description: dict[str, Any]) -> Transforms:
        """The transforms that `to_json` described.

        Raises:
            DataError: for anything else.
        """
        if not isinstance(description, dict) or set(description) != {"domain", "transforms"}:
            raise DataError("not a description of transforms: fields 'domain' and 'transforms'")
        domain = description["domain"]
        return cls(
            tuple(transform_from_json(part) for part in description["transforms"]),
            None if domain is None else Domain.from_json(domain),
        )


def _named(spec: Transform | str) -> Transform:
    if isinstance(spec, Transform):
        return spec
    if spec not in TABLE:
        near = nearest(str(spec), TABLE) or f": known are {', '.join(TABLE)}"
        raise SettingError(f"unknown transform '{spec}'{near}")
    try:
        return TABLE[spec]()
    except TypeError as error:
        raise SettingError(f"the transform {spec} has settings that must be given") from error


def _empty(domain: Domain) -> Tensor:
    if domain.integer:
        return torch.zeros(0, dtype=torch.int64)
    return torch.zeros(0, len(domain.columns) or 1, dtype=torch.float64)
