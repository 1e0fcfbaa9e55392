"""Emissions: how one step is distributed given the state of the network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from throughtime.emissions.base import Distribution, Emission
from throughtime.emissions.bernoulli import Bernoulli
from throughtime.emissions.categorical import Categorical
from throughtime.emissions.count import NegativeBinomial, Poisson
from throughtime.emissions.discretised import DiscretisedLogistic
from throughtime.emissions.laplace import Laplace
from throughtime.emissions.mixture import Mixture, MixtureOf, weighted_mixture
from throughtime.emissions.normal import Normal
from throughtime.emissions.student_t import StudentT
from throughtime.errors import SettingError

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
    "StudentT",
    "from_json",
    "weighted_mixture",
]

_FAMILIES: tuple[type[Emission], ...] = (
    Categorical,
    Bernoulli,
    Normal,
    StudentT,
    Laplace,
    NegativeBinomial,
    Poisson,
    Mixture,
    DiscretisedLogistic,
)
KINDS: dict[str, type[Emission]] = {family.kind: family for family in _FAMILIES}


def from_json(description: Mapping[str, Any]) -> Emission:
    """The emission that `Emission.to_json` described; SettingError if there is no such one."""
    options = dict(description)
    family = KINDS.get(str(options.pop("kind", None)))
    if family is None:
        raise SettingError(
            f"emission kind {description.get('kind')!r} is unknown: it is one of {', '.join(KINDS)}"
        )
    try:
        return family(**options)
    except TypeError as error:
        raise SettingError(f"emission {family.kind!r} cannot be made: {error}") from error
