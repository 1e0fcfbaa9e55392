"""Sizes and training of the networks for each kind of data: one table, found by experiment.

What was tried and what it gave is in docs/results.md.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import torch

from throughtime import bptt
from throughtime.data.sequences import Sequences
from throughtime.emissions import Emission
from throughtime.errors import SettingError
from throughtime.models.latent import Dropout
from throughtime.training.config import RunSettings, TrainSettings

_BYTES_PER_UNIT = 64  # kept by a recurrent layer for its backward pass, per step and unit
_MOST_GB = 8.0
_FEW_OBSERVED = 0.1  # of the steps: a few answers to long covariates, not a series with gaps
_SPARSE = 0.5  # of the steps one and the same symbol: events in a silence, not a text
_MANY, _WHOLE = 100, 4000  # sequences, and steps of the longest, from and to which they stay whole
_SEGMENT = 4  # truncations k2 in a piece that is run without a restart, where memory is long
CONTINUED = 0.6  # of the updates, where training goes on with the validation data
_LONGEST = 10**9  # as k2: the longest sequence


@dataclass(frozen=True)
class Recipe:
    """Sizes and training of the networks for one kind of data."""

    hidden: int
    train: TrainSettings
    layers: int = 1
    members: int = 1
    dropout: Dropout = field(default_factory=Dropout)
    embedding: int | None = None
    time_scale: float | None = None


@dataclass(frozen=True)
class Row:
    """A row of the table: a recipe, and how it depends on the amount of data.

    Attributes:
        recipe: `train.bptt` is k2. A time scale that is infinite is the longest sequence.
        wide_from: training steps from which on `wide` units are used.
        passes: through the training data, in place of a fixed number of updates.
        most_updates: at most so many.
        passes_limited, most_limited: the same where a time limit says when to stop.
        within_longest: no segment or k2 is longer than the longest sequence.
    """

    recipe: Recipe
    wide_from: float = math.inf
    wide: int = 0
    passes: float | None = None
    most_updates: int = 3000
    passes_limited: float | None = None
    most_limited: int = 3000
    within_longest: bool = False

    def __call__(self, train: Sequences, limited: bool) -> Recipe:
        """The recipe for these training data."""
        recipe, changes = self.recipe, dict[str, Any]()
        longest = max(2, int(train.lengths.max()))
        if self.passes is not None:
            passes, most = self.passes, self.most_updates
            if limited and self.passes_limited is not None:
                passes, most = self.passes_limited, self.most_limited
            size = recipe.train.lanes * int(recipe.train.bptt)
            changes["steps"] = max(200, min(most, round(passes * train.steps / size)))
        if self.within_longest:
            changes["bptt"] = str(min(longest, int(recipe.train.bptt)))
            if recipe.train.segment is not None:
                changes["segment"] = min(longest, recipe.train.segment)
        scale = float(longest) if recipe.time_scale == math.inf else recipe.time_scale
        hidden = self.wide if train.steps >= self.wide_from else recipe.hidden
        return replace(
            recipe, hidden=hidden, time_scale=scale, train=recipe.train.model_copy(update=changes)
        )


TABLE: dict[str, Row] = {
    # One wide layer, many small updates, dropout on the recurrent weights. States begin from
    # scratch now and then, as they do when the model is used.
    "text": Row(
        Recipe(
            hidden=128, dropout=Dropout(0.3, 0.1, 0.2), embedding=64,
            train=TrainSettings(
                lanes=32, segment=4000, bptt="80", learning_rate=4e-3, weight_decay=0.01,
                warmup=0.03, average=0.99, valid_every=100, refit="continue", precision="bfloat16",
            ),
        ),
        wide_from=300_001, wide=512, passes=8, passes_limited=60, most_limited=60_000,
    ),
    # Symbols among silence: what matters may be anywhere before. The gradient is taken through
    # whole sequences, and the gates begin with memories of up to their length (Tallec & Ollivier
    # 2018). Few steps carry anything to train on, and a long plateau comes before a network finds
    # what to keep: a wide layer and a high rate get over it soonest. No dropout, because a symbol
    # that has been dropped cannot be guessed.
    "events": Row(
        Recipe(
            hidden=128, embedding=16, time_scale=math.inf,
            train=TrainSettings(
                steps=2000, lanes=16, bptt=str(_LONGEST), learning_rate=2e-2, betas=(0.9, 0.999),
                weight_decay=0.0, warmup=0.05, average=0.99, valid_every=50, threads=1,
            ),
        ),
        within_longest=True,
    ),
    "sound": Row(
        Recipe(
            hidden=256, embedding=64,
            train=TrainSettings(
                lanes=64, bptt="256", learning_rate=4e-3, weight_decay=0.01, warmup=0.03,
                average=0.99, valid_every=100, precision="bfloat16",
            ),
        ),
        passes=4,
    ),
    # Series of whole numbers: as for other series, with more room for sharp distributions.
    "quantised": Row(
        Recipe(
            hidden=32, members=8, embedding=32,
            train=TrainSettings(
                steps=2000, lanes=32, segment=100, bptt="100", learning_rate=5e-3,
                weight_decay=0.03, warmup=0.05, clip=3.0, average=0.99, valid_every=100,
                valid_past=1000, refit="from_scratch", precision="bfloat16",
            ),
        ),
        within_longest=True,
    ),
    # Piano rolls: few pieces, so much dropout, small batches and two networks averaged.
    "rolls": Row(
        Recipe(
            hidden=256, members=2, dropout=Dropout(0.5, 0.2, 0.3),
            train=TrainSettings(
                lanes=8, bptt="100", learning_rate=1e-2, weight_decay=0.01, warmup=0.03,
                average=0.98, valid_every=50, precision="bfloat16",
            ),
        ),
        passes=50, most_updates=4000,
    ),
    # Series: many small networks averaged, gates spread over 100 steps.
    "values": Row(
        Recipe(
            hidden=8, members=8, dropout=Dropout(0.1), time_scale=100.0,
            train=TrainSettings(
                steps=250, lanes=32, segment=200, bptt="200", learning_rate=1e-2,
                betas=(0.9, 0.999), weight_decay=0.0, warmup=0.2, clip=3.0, average=0.98,
                valid_every=25, valid_past=1000, refit="from_scratch", threads=1,
            ),
        ),
        wide_from=50_000, wide=32, within_longest=True,
    ),
    # A value here and there after long covariates: one network whose memory spans a sequence.
    "answers": Row(
        Recipe(
            hidden=64, time_scale=math.inf,
            train=TrainSettings(
                steps=2000, lanes=50, bptt=str(_LONGEST), learning_rate=2e-2, betas=(0.9, 0.999),
                weight_decay=0.0, warmup=0.02, average=0.99, valid_every=50, patience=20,
                threads=1,
            ),
        ),
        within_longest=True,
    ),
}  # fmt: skip

# A network that sees some lags: cheap small updates, stopped by validation.
_LAG_NETWORK = TrainSettings(
    steps=5000, lanes=8, bptt="100", learning_rate=3e-3, weight_decay=0.1, warmup=0.02,
    average=0.99, valid_every=100, valid_past=1000, patience=10, refit="from_scratch", threads=1,
)  # fmt: skip


def kind_of(train: Sequences, emission: Emission) -> str:
    """The row of the table that data belong to."""
    kind = train.domain.kind
    if emission.kind == "bernoulli":
        return "rolls"
    if emission.symbols:
        if kind == "symbols" and _sparse(train):
            return "events"
        return {"sound": "sound", "text": "text", "symbols": "text"}.get(kind, "quantised")
    observed = 1.0 - float(train.missing.double().mean())
    return "answers" if observed < _FEW_OBSERVED else "values"


def _sparse(train: Sequences) -> bool:
    """Whether one symbol fills most of many sequences that are short enough to be taken whole."""
    most = int(torch.bincount(train.values.flatten()).max())
    whole = len(train) >= _MANY and int(train.lengths.max()) <= _WHOLE
    return whole and most > _SPARSE * len(train.values)


class Recommended(Protocol):
    """What is read of a recommendation of the history certificate, in steps."""

    @property
    def dense(self) -> int: ...
    @property
    def k1(self) -> int: ...
    @property
    def k2(self) -> int: ...
    @property
    def time_scale(self) -> float: ...


def recipe(
    train: Sequences,
    emission: Emission,
    settings: RunSettings,
    recommended: Recommended | None = None,
) -> Recipe:
    """The row of the table for the data, with what was asked for in place of it.

    Args:
        train: raw training data.
        emission: of a step.
        settings: what was asked for.
        recommended: where the data are known to remember more than the row's k2, the gradient and
            the gates go further back.

    Raises:
        SettingError: for full BPTT over more steps than memory can hold.
    """
    found = TABLE[kind_of(train, emission)](train, settings.time_limit is not None)
    if recommended is not None:
        found = _with_memory(found, recommended)
    hidden, layers = settings.hidden or found.hidden, settings.layers or found.layers
    training = overridden(found.train, settings)
    found = replace(found, hidden=hidden, layers=layers, train=training)
    check_memory(found, train)
    return found


def overridden(training: TrainSettings, settings: RunSettings) -> TrainSettings:
    """A training with what was asked for in place of what it has."""
    changes: dict[str, Any] = _updates(settings, training.valid_every)
    if settings.bptt != "auto":
        changes |= {"bptt": settings.bptt, "segment": None}
    return training.model_copy(update=changes)


def _with_memory(found: Recipe, recommended: Recommended) -> Recipe:
    method = bptt.parse(found.train.bptt)
    if not isinstance(method, bptt.Truncated) or recommended.k2 <= method.k2:
        return found
    changes: dict[str, Any] = {"bptt": f"{recommended.k1},{recommended.k2}"}
    if found.train.segment is not None:  # a restart in the middle of what matters would hide it
        changes["segment"] = max(found.train.segment, _SEGMENT * recommended.k2)
    return replace(
        found,
        time_scale=max(found.time_scale or 0.0, recommended.time_scale),
        train=found.train.model_copy(update=changes),
    )


def lag_network_training(
    train: Sequences, emission: Emission, settings: RunSettings
) -> TrainSettings:
    """How a network that sees some lags is trained."""
    found = _LAG_NETWORK
    if train.domain.kind == "sound":
        sound = TABLE["sound"](train, False).train
        found = sound.model_copy(update={"learning_rate": 3e-3})
    elif emission.kind == "bernoulli":
        found = found.model_copy(update={"refit": "no"})
    return found.model_copy(update=_updates(settings, 50))


def _updates(settings: RunSettings, valid_every: int) -> dict[str, Any]:
    """The seed, and the number of updates that was asked for."""
    if settings.steps is None:
        return {"seed": settings.seed}
    every = max(1, min(valid_every, settings.steps // 4))
    return {"seed": settings.seed, "steps": settings.steps, "valid_every": every}


def check_memory(chosen: Recipe, train: Sequences) -> None:
    """Refuses full BPTT over more steps than memory can hold.

    Raises:
        SettingError: with what would do instead.
    """
    if chosen.train.bptt != "full":
        return
    units = chosen.hidden * chosen.members * chosen.layers
    needed = train.steps * units * _BYTES_PER_UNIT / 1e9
    if needed > _MOST_GB:
        raise SettingError(
            f"full BPTT over {train.steps:,} steps needs about {needed:.0f} GB; "
            "give a truncation, such as --bptt 200, or keep the gradient exact inside a budget, "
            "such as --bptt memory=2GB"
        )


def continued(settings: TrainSettings, updates: int) -> TrainSettings:
    """How training goes on with the validation data: a second, shorter and lower cosine."""
    changes = {
        "steps": max(1, round(CONTINUED * updates)),
        "learning_rate": 0.5 * settings.learning_rate,
    }
    return settings.model_copy(update=changes)
