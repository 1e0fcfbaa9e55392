"""Classical models by name, to stand beside the networks where they apply."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from throughtime.data.sequences import Sequences
from throughtime.emissions import Categorical, Emission, StudentT
from throughtime.errors import SettingError
from throughtime.models.closed_form import ClosedForm
from throughtime.models.exponential_smoothing import ExponentialSmoothing
from throughtime.models.garch import VOLATILITIES, Garch, arch_library, unsuitable
from throughtime.models.hmm import HiddenMarkov

_ALPHABET = 64  # symbols, beyond which a few hidden states tell too little
_STATES = 5

Make = Callable[[Emission, Sequences, int], dict[str, ClosedForm]]


@dataclass(frozen=True)
class Baseline:
    """One row of the table.

    about: what it is. suits: the data that it is for. possible: whether raw data may be such. make:
    its models, not fitted, by name, for an emission, transformed training data and how often these
    were differenced; {} where it does not apply.
    """

    about: str
    suits: str
    possible: Callable[[Sequences], bool]
    make: Make


def _few_symbols(raw: Sequences) -> bool:
    return raw.domain.integer and len(raw.values.unique()) <= _ALPHABET


def _hmm(emission: Emission, train: Sequences, num_differencing: int) -> dict[str, ClosedForm]:
    if not train.domain.integer or not 1 < emission.num_parameters <= _ALPHABET:
        return {}
    if not isinstance(emission, Categorical) or num_differencing:
        return {}
    return {f"hmm({_STATES})": HiddenMarkov(_STATES, emission=emission)}


def _smoothing(
    emission: Emission, train: Sequences, num_differencing: int
) -> dict[str, ClosedForm]:
    if train.domain.integer or emission.discrete:
        return {}
    noise = StudentT(train.values.shape[1])
    model = ExponentialSmoothing((1,), emission=noise, num_differencing=num_differencing)
    return {"exponential smoothing": model}


def _garch(emission: Emission, train: Sequences, num_differencing: int) -> dict[str, ClosedForm]:
    arch_library()
    if emission.discrete or unsuitable(train):
        return {}
    return {name: Garch(name, num_differencing=num_differencing) for name in VOLATILITIES}


BASELINES = {
    "hmm": Baseline(
        "hidden Markov model", f"at most {_ALPHABET} kinds of symbols", _few_symbols, _hmm
    ),
    "exponential_smoothing": Baseline(
        "exponential smoothing of level and variance", "real values",
        lambda raw: not raw.domain.integer, _smoothing,
    ),
    "garch": Baseline(
        "ARCH, GARCH, GJR-GARCH and EGARCH, fitted by the package arch",
        "one series of one column of real values without gaps",
        lambda raw: not unsuitable(raw), _garch,
    ),
}  # fmt: skip


def check(names: Iterable[str], raw: Sequences) -> None:
    """Refuses what raw data rule out, before any work is done.

    Raises:
        SettingError: for a baseline that they are not for.
        MissingExtra: for one whose package is not installed.
    """
    for name in names:
        if name == "garch":
            arch_library()
        if not BASELINES[name].possible(raw):
            raise unsuited(name)


def unsuited(name: str) -> SettingError:
    """What is said of a baseline that the data are not for."""
    return SettingError(f"baseline '{name}' is for {BASELINES[name].suits}")
