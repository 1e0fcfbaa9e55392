"""Sizes and training of the networks for each kind of data, found by experiment.

What was tried and what it gave is in docs/results.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from throughtime import bptt
from throughtime.data.sequences import Sequences
from throughtime.emissions import Emission
from throughtime.errors import SettingError
from throughtime.training.config import RunSettings, TrainSettings

_BYTES_PER_UNIT = 64  # kept by a recurrent layer for its backward pass, per step and unit
_MOST_GB = 8.0
_FEW = 0.1  # of the steps observed: a few answers to long covariates, not a series with gaps
_QUIET = 0.5  # of the steps one and the same symbol: events in a silence, not a text
_MANY, _WHOLE = 100, 4000  # sequences, and steps of the longest, from and to which they stay whole
_WINDOWS = 4  # of the gradient in a piece that is run without a restart
CONTINUED = 0.6  # of the steps, where training goes on with the validation data


@dataclass(frozen=True)
class Recipe:
    """Sizes and training of the latent models for one kind of data."""

    hidden: int
    layers: int
    members: int
    train: TrainSettings
    dropout: float = 0.0
    input_dropout: float = 0.0
    recurrent_dropout: float = 0.0
    embedding: int | None = None
    time_scale: float | None = None


@dataclass(frozen=True)
class Advice:
    """What a history certificate recommends, in steps: see `history.Settings`."""

    order: int
    k1: int
    k2: int
    time_scale: float


def recipe(
    train: Sequences, emission: Emission, settings: RunSettings, advice: Advice | None = None
) -> Recipe:
    """The defaults for a kind of data, found by experiment (docs/results.md), as overridden.

    advice: where the data are known to remember more than the defaults reach, they reach further.
    """
    if emission.kind == "bernoulli":
        found = _rolls(train)
    elif emission.symbols and train.domain.kind == "sound":
        found = _sound(train)
    elif emission.symbols and train.domain.kind not in ("text", "symbols"):
        found = _quantised(train)
    elif train.domain.kind == "symbols" and _quiet(train):
        found = _events(train)
    elif emission.symbols:
        found = _symbols(train, settings.time_limit is not None)
    elif _observed(train) < _FEW:
        found = _answers(train)
    else:
        found = _values(train)
    if advice is not None:
        found = _reaching(found, advice)
    found = _overridden(found, settings)
    check_memory(found, train)
    return found


def _reaching(found: Recipe, advice: Advice) -> Recipe:
    """A recipe whose gradient and gates reach as far back as the data remember."""
    method = bptt.parse(found.train.bptt)
    if not isinstance(method, bptt.Truncated) or advice.k2 <= method.k2:
        return found
    changes: dict[str, Any] = {"bptt": f"{advice.k1},{advice.k2}"}
    if found.train.segment is not None:  # a restart in the middle of what matters would hide it
        changes["segment"] = max(found.train.segment, _WINDOWS * advice.k2)
    return replace(
        found,
        time_scale=max(found.time_scale or 0.0, advice.time_scale),
        train=found.train.model_copy(update=changes),
    )


def _updates(train: Sequences, lanes: int, steps: int, epochs: float, most: int) -> int:
    """How many updates some passes over the data take."""
    return max(200, min(most, round(epochs * train.steps / (lanes * steps))))


def _symbols(train: Sequences, limited: bool) -> Recipe:
    """Text: one wide layer, many small updates, thinned recurrent weights."""
    large = train.steps > 300_000
    return Recipe(
        hidden=512 if large else 128,
        layers=1,
        members=1,
        dropout=0.3,
        input_dropout=0.1,
        recurrent_dropout=0.2,
        embedding=64,
        train=TrainSettings(
            steps=_updates(train, 32, 80, 60 if limited else 8, 60_000 if limited else 3000),
            lanes=32,
            segment=4000,  # states begin afresh now and then, as they do when the model is used
            bptt="80",
            learning_rate=4e-3,
            weight_decay=0.01,
            warmup=0.03,
            average=0.99,
            valid_every=100,
            refit="continue",
            precision="bfloat16",
        ),
    )


def _quiet(train: Sequences) -> bool:
    """Whether one symbol fills most of many sequences that are short enough to be taken whole."""
    most = int(torch.bincount(train.values.flatten()).max())
    whole = len(train) >= _MANY and int(train.lengths.max()) <= _WHOLE
    return whole and most > _QUIET * len(train.values)


def _events(train: Sequences) -> Recipe:
    """Symbols among silence: what matters may be anywhere before, so memory spans a sequence.

    The gradient is taken through whole sequences, and the gates begin with memories of up to their
    length (Tallec & Ollivier 2018). Few steps carry anything to learn from, and a long plateau
    comes before a network finds what to keep: a wide layer and a high rate get over it soonest.
    Nothing is thinned out, because a symbol that has been dropped cannot be guessed.
    """
    longest = max(2, int(train.lengths.max()))
    return Recipe(
        hidden=128,
        layers=1,
        members=1,
        embedding=16,
        time_scale=float(longest),
        train=TrainSettings(
            steps=2000,
            lanes=16,
            bptt=str(longest),
            learning_rate=2e-2,
            betas=(0.9, 0.999),
            weight_decay=0.0,
            warmup=0.05,
            average=0.99,
            valid_every=50,
            threads=1,
        ),
    )


def _sound(train: Sequences) -> Recipe:
    return Recipe(
        hidden=256,
        layers=1,
        members=1,
        embedding=64,
        train=TrainSettings(
            steps=_updates(train, 64, 256, 4, 3000),
            lanes=64,
            bptt="256",
            learning_rate=4e-3,
            weight_decay=0.01,
            warmup=0.03,
            average=0.99,
            valid_every=100,
            precision="bfloat16",
        ),
    )


def _quantised(train: Sequences) -> Recipe:
    """Series of whole numbers: as for other series, with more room for sharp distributions."""
    window = min(100, max(2, int(train.lengths.max())))
    return Recipe(
        hidden=32,
        layers=1,
        members=8,
        embedding=32,
        train=TrainSettings(
            steps=2000,
            lanes=32,
            segment=window,
            bptt=str(window),
            learning_rate=5e-3,
            weight_decay=0.03,
            warmup=0.05,
            clip=3.0,
            average=0.99,
            valid_every=100,
            valid_past=1000,
            refit="afresh",
            precision="bfloat16",
        ),
    )


def _rolls(train: Sequences) -> Recipe:
    """Piano rolls: few pieces, so much dropout, small batches and two networks averaged."""
    return Recipe(
        hidden=256,
        layers=1,
        members=2,
        dropout=0.5,
        input_dropout=0.2,
        recurrent_dropout=0.3,
        train=TrainSettings(
            steps=_updates(train, 8, 100, 50, 4000),
            lanes=8,
            bptt="100",
            learning_rate=1e-2,
            weight_decay=0.01,
            warmup=0.03,
            average=0.98,
            valid_every=50,
            precision="bfloat16",
        ),
    )


def _values(train: Sequences) -> Recipe:
    """Series: many small networks averaged, windows of 200 steps, gates spread over 100 steps."""
    longest = int(train.lengths.max())
    return Recipe(
        hidden=8 if train.steps < 50_000 else 32,
        layers=1,
        members=8,
        dropout=0.1,
        time_scale=100.0,
        train=TrainSettings(
            steps=250,
            lanes=32,
            segment=min(200, max(2, longest)),
            bptt=str(min(200, max(2, longest))),
            learning_rate=1e-2,
            betas=(0.9, 0.999),
            weight_decay=0.0,
            warmup=0.2,
            clip=3.0,
            average=0.98,
            valid_every=25,
            valid_past=1000,
            refit="afresh",
            threads=1,
        ),
    )


def _observed(train: Sequences) -> float:
    return 1.0 - float(train.missing.double().mean())


def _answers(train: Sequences) -> Recipe:
    """A value here and there after long covariates: one network whose memory spans a sequence."""
    longest = max(2, int(train.lengths.max()))
    return Recipe(
        hidden=64,
        layers=1,
        members=1,
        time_scale=float(longest),
        train=TrainSettings(
            steps=2000,
            lanes=50,
            bptt=str(longest),
            learning_rate=2e-2,
            betas=(0.9, 0.999),
            weight_decay=0.0,
            warmup=0.02,
            average=0.99,
            valid_every=50,
            patience=20,
            threads=1,
        ),
    )


def window_training(train: Sequences, emission: Emission, settings: RunSettings) -> TrainSettings:
    """How a network over a window is trained: cheap small updates, stopped by validation."""
    if train.domain.kind == "sound":
        found = _sound(train).train.model_copy(update={"learning_rate": 3e-3})
    else:
        found = TrainSettings(
            steps=5000,
            lanes=8,
            bptt="100",
            learning_rate=3e-3,
            weight_decay=0.1,
            warmup=0.02,
            average=0.99,
            valid_every=100,
            valid_past=1000,
            patience=10,
            refit="no" if emission.kind == "bernoulli" else "afresh",
            threads=1,
        )
    changes: dict[str, Any] = {"seed": settings.seed}
    if settings.steps is not None:
        changes |= {"steps": settings.steps, "valid_every": max(1, min(50, settings.steps // 4))}
    return found.model_copy(update=changes)


def _overridden(found: Recipe, settings: RunSettings) -> Recipe:
    train: dict[str, Any] = {"seed": settings.seed}
    if settings.steps is not None:
        train |= {"steps": settings.steps}
        train |= {"valid_every": max(1, min(found.train.valid_every, settings.steps // 4))}
    if settings.bptt != "auto":
        train |= {"bptt": settings.bptt}
        train |= {"segment": None}
    return replace(
        found,
        hidden=settings.hidden or found.hidden,
        layers=settings.layers or found.layers,
        train=found.train.model_copy(update=train),
    )


def check_memory(chosen: Recipe, train: Sequences) -> None:
    """Refuses full BPTT over more steps than memory can hold. Raises SettingError."""
    if chosen.train.bptt != "full":
        return
    needed = train.steps * chosen.hidden * chosen.members * chosen.layers * _BYTES_PER_UNIT / 1e9
    if needed > _MOST_GB:
        raise SettingError(
            f"full BPTT over {train.steps:,} steps needs about {needed:.0f} GB; "
            "give a truncation, such as --bptt 200, or keep the gradient exact inside a budget, "
            "such as --bptt memory=2GB"
        )


def continued(settings: TrainSettings, steps: int) -> TrainSettings:
    """How training goes on with the validation data: a second, shorter and lower cosine."""
    changes = {
        "steps": max(1, round(CONTINUED * steps)),
        "learning_rate": 0.5 * settings.learning_rate,
    }
    return settings.model_copy(update=changes)
