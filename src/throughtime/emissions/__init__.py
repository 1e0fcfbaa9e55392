"""Emissions: how one step is distributed given the state of the network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from throughtime.emissions.base import Distribution, Emission
from throughtime.emissions.bernoulli import Bernoulli
from throughtime.emissions.categorical import Categorical
from throughtime.emissions.count import NegativeBinomial, Poisson
from throughtime.emissions.discretised import DiscretisedLogistic
from throughtime.emissions.laplace import Laplace
from throughtime.emissions.mixture import Mixture, MixtureOf, weighted_mixture
from throughtime.emissions.normal import Normal
from throughtime.emissions.skew_student_t import SkewStudentT
from throughtime.emissions.student_t import StudentT
from throughtime.errors import SettingError, nearest

__all__ = [
    "KINDS",
    "Bernoulli",
    "Categorical",
    "DiscretisedLogistic",
    "Distribution",
    "Emission",
    "Laplace",
    "Mixture",
    "MixtureOf",
    "NegativeBinomial",
    "Normal",
    "Poisson",
    "SkewStudentT",
    "StudentT",
    "from_json",
    "parse",
    "weighted_mixture",
]

_FAMILIES: tuple[type[Emission], ...] = (
    Categorical,
    Bernoulli,
    Normal,
    StudentT,
    SkewStudentT,
    Laplace,
    NegativeBinomial,
    Poisson,
    Mixture,
    DiscretisedLogistic,
)  # the table: an emission is its file and its row here
KINDS: dict[str, type[Emission]] = {family.kind: family for family in _FAMILIES}
_TYPES: dict[object, Callable[[str], object]] = {"int": int, "float": float, "str": str}


def from_json(description: Mapping[str, Any]) -> Emission:
    """The emission that `Emission.to_json` described.

    Raises:
        SettingError: if there is no such emission, or not with these options.
    """
    options = dict(description)
    family = _family(options.pop("kind", None))
    known = [field.name for field in dataclasses.fields(family)]  # type: ignore[arg-type]
    for name in options:
        if name not in known:
            near = nearest(name, known) or f"; its options: {', '.join(known)}"
            raise SettingError(f"emission '{family.kind}' has no option '{name}'{near}")
    try:
        return family(**options)
    except TypeError as error:
        raise SettingError(f"emission '{family.kind}' cannot be made: {error}") from error


def parse(
    emission: Emission | str, *, columns: int | None = None, num_symbols: int | None = None
) -> Emission:
    """An emission from its string form, or one as it is, for data of a given size.

    Args:
        emission: a kind, such as ``"student_t"``, options of its constructor behind a colon:
            ``"student_t:rank=2,min_scale=0.01"``; or an emission, whose single column becomes as
            many as the data have.
        columns: of the data, if they are values.
        num_symbols: of the data, if they are symbols.

    Raises:
        SettingError: for a kind or option that does not exist, or an emission for other data.
    """
    kind, _, rest = emission.partition(":") if isinstance(emission, str) else ("", "", "")
    family = _family(kind.strip()) if isinstance(emission, str) else type(emission)
    if family.symbols and columns is not None:
        raise SettingError(f"emission '{family.kind}' is for symbols; these data are values")
    if not family.symbols and num_symbols is not None:
        raise SettingError(f"emission '{family.kind}' is for values; these data are symbols")
    if isinstance(emission, str):
        size = {"num_symbols": num_symbols, "columns": columns}
        given = {name: count for name, count in size.items() if count is not None}
        emission = from_json({"kind": family.kind, **given, **_options(family, rest)})
    if num_symbols is not None and (had := getattr(emission, "num_symbols", 0)) < num_symbols:
        raise SettingError(
            f"emission '{family.kind}' has {had} symbols, but these data have {num_symbols}"
        )
    if columns is None or emission.columns == columns:
        return emission
    if emission.columns != 1:
        raise SettingError(
            f"emission '{family.kind}' has {emission.columns} columns, these data have {columns}"
        )
    return dataclasses.replace(emission, columns=columns)  # type: ignore[type-var]


def _family(kind: object) -> type[Emission]:
    family = KINDS.get(str(kind))
    if family is None:
        near = nearest(str(kind), KINDS) or f"; it is one of {', '.join(KINDS)}"
        raise SettingError(f"emission '{kind}' is unknown{near}")
    return family


def _options(family: type[Emission], text: str) -> dict[str, Any]:
    """Of "name=value,name=value"; values have the types of the constructor's arguments."""
    types = {field.name: field.type for field in dataclasses.fields(family)}  # type: ignore[arg-type]
    options: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, _, value = (piece.strip() for piece in part.partition("="))
        try:
            options[name] = _TYPES[types.get(name, "str")](value)
        except ValueError:
            wanted = f"{name}=<{types[name]}>"
            raise SettingError(f"emission '{family.kind}': write {wanted}, not '{part}'") from None
    return options
