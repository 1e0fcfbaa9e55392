"""How many updates there is time for: measured before training begins, and decided once."""

from __future__ import annotations

import copy
import math
import time

import torch

from throughtime import bptt
from throughtime.bptt import Truncated
from throughtime.data.sequences import Sequences
from throughtime.models.base import SequenceModel
from throughtime.training.config import TrainSettings
from throughtime.training.trainer import Trainer, validation_nats

_PROBE_UPDATES = 3
_PROBE_STEPS = (4, 24)  # of the first, short updates: what a step costs, and what an update
_FEWEST_UPDATES = 12  # fewer are worth nothing
_VALIDATION = 0.4  # what a step of validation costs beside one of an update
_LEAST_SEGMENT = 16
_SURELY = 1.5  # times too long, by what short updates show


def affordable_steps(
    model: SequenceModel,
    train: Sequences,
    valid: Sequences,
    settings: TrainSettings,
    seconds: float,
    least: int = 10,
    after: int = 0,
) -> TrainSettings:
    """The settings with as many updates as fit into `seconds`, measured on a copy of the model.

    Where hardly one would fit, a short update shows it, and nothing longer is tried.

    Args:
        model: what is to be trained.
        train: its data.
        valid: the data that it is validated on.
        settings: with as many updates as are wanted at most.
        seconds: in all.
        least: updates, however little time there is.
        after: validations that are to follow, in the same time.
    """
    torch.manual_seed(settings.seed)
    update, validation = estimated(model, train, valid, settings)
    too_few = settings.model_copy(update={"steps": least, "valid_every": least})
    if max(_FEWEST_UPDATES * update, (1 + after) * validation) > _SURELY * seconds:
        return too_few
    trial = _trial(model, train, settings)
    begun = time.monotonic()
    trial.update()
    if (time.monotonic() - begun) * _FEWEST_UPDATES > seconds:  # not worth a closer look
        return too_few
    begun = time.monotonic()
    validation_nats(trial.model, valid, settings.valid_past)
    validating = time.monotonic() - begun
    begun = time.monotonic()
    for _ in range(_PROBE_UPDATES):
        assert trial.lanes is not None
        if trial.at.target >= len(trial.lanes):
            trial.epoch(trial.progress.epoch + 1)
        trial.update()
    updating = (time.monotonic() - begun) / _PROBE_UPDATES
    spent = _PROBE_UPDATES * updating + (1 + after) * validating
    # Validation may take a tenth of the time; up to half of it where there would be fewer than
    # twenty validations in a run.
    steps = min(settings.steps, max(least, int((seconds - spent) / (1.1 * updating))))
    cost = validating / updating
    every = max(settings.valid_every, math.ceil(max(cost, min(10 * cost, steps / 20))))
    steps = min(steps, max(least, int((seconds - spent) / (updating * (1 + cost / every)))))
    return settings.model_copy(update={"steps": steps, "valid_every": min(every, steps)})


def estimated(
    model: SequenceModel, train: Sequences, valid: Sequences, settings: TrainSettings
) -> tuple[float, float]:
    """Seconds of an update and of a validation, from updates through a few steps."""
    took = {}
    for steps in _PROBE_STEPS:
        trial = _trial(model, train, settings.model_copy(update={"bptt": str(steps)}))
        assert trial.lanes is not None
        length, took[steps] = len(trial.lanes), math.inf
        for _ in range(2):  # the first makes room in memory
            if trial.at.target >= length:
                trial.epoch(trial.progress.epoch + 1)
            begun = time.monotonic()
            trial.update()
            took[steps] = min(took[steps], time.monotonic() - begun)
    few, some = (min(steps, length) for steps in _PROBE_STEPS)
    alone = took[_PROBE_STEPS[1]]
    step = max(alone - took[_PROBE_STEPS[0]], 0.1 * alone) / max(1, some - few)
    method = bptt.parse(settings.bptt)
    longest = method.k2 if isinstance(method, Truncated) else length
    read = len(valid.values) / max(1, min(len(valid), settings.lanes))
    return alone + step * max(0, min(longest, length) - some), _VALIDATION * step * read


def within(
    settings: TrainSettings, train: Sequences, update: float, seconds: float
) -> TrainSettings:
    """The settings with updates small enough that a few fit: fewer lanes, then shorter segments.

    Args:
        settings: as they were wanted.
        train: the data.
        update: seconds that one takes so.
        seconds: in all.
    """
    share = seconds / (_FEWEST_UPDATES * update)
    if share >= 1:
        return settings
    lanes = max(1, int(settings.lanes * share))
    changes: dict[str, int] = {"lanes": lanes}
    share *= settings.lanes / lanes
    if share < 1:
        whole = settings.segment or int(train.lengths.max())
        changes["segment"] = max(_LEAST_SEGMENT, int(share * whole))
    return settings.model_copy(update=changes)


def _trial(model: SequenceModel, train: Sequences, settings: TrainSettings) -> Trainer:
    """A copy at its first update."""
    endless = settings.model_copy(update={"steps": 10**9})
    trial = Trainer(copy.deepcopy(model), train, None, endless)
    trial.epoch(0)
    return trial
