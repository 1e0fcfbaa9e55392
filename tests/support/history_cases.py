"""Targets of data of known memory, and the lags that are tried on them."""

from __future__ import annotations

import throughtime as tt
from throughtime.history.families import Family, SymbolFamily, ValueFamily
from throughtime.history.lag_selection import Trials, explore
from throughtime.history.targets import Targets


def targets(data: tt.Sequences) -> tuple[Targets, Targets, Targets]:
    """Three fifths to train on, a fifth each for validation and test."""
    if not data.domain.integer:
        data = data.transform(["standardise"])
    train, valid, test = data.split(valid=0.2, test=0.2)
    return Targets.of(train), Targets.of(valid), Targets.of(test)


def trials_of(data: tt.Sequences) -> Trials:
    """The lags tried on some data, with the kind of model that does best."""
    train, valid, test = targets(data)
    kinds: list[Family]
    if data.domain.integer:
        kinds = [SymbolFamily(train, int(data.domain.num_symbols or 0), 6)]
    else:
        kinds = [ValueFamily(train, "linear"), ValueFamily(train, "additive")]
    trials = [explore(family, valid, test, lambda about: None) for family in kinds]
    return min(trials, key=lambda one: one.score)
