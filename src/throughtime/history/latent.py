"""Does a latent state beat every window? Networks, their rivals, and the state restarted.

The rivals are the windows of every kind: the laws of `values` and `symbols`, a network over a
window, and the constant law with the emission of the networks. The best of them is chosen on data
that are then not used for judging, and so is the moment at which a network stops training.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from throughtime import plan, recipes
from throughtime.config import Candidate, DataSettings, RunSettings, TrainSettings
from throughtime.data.batch import Batch
from throughtime.data.sequences import Sequences
from throughtime.evaluate.bootstrap import mean_interval
from throughtime.evaluate.scores import shown as shown_to
from throughtime.history.parts import Floats, Ints
from throughtime.history.study import Study
from throughtime.history.windows import Point, Window, compared, sufficient
from throughtime.models.autoregressive import Autoregressive
from throughtime.models.base import SequenceModel
from throughtime.train import Trainer, affordable_steps, threads

CELL = "gru"
HIDDEN = 64  # units of the network, all members together: enough to tell, and quick
WORTH = 0.01  # of what the past is worth: a latent state that adds less is not worth its training
LEAST = 0.001  # nats per step: less than that is within what training networks anew varies by
LATENT_STEPS, WINDOW_STEPS = 300, 1500  # updates: no fewer, no more, where time allows
WINDOW_SHARE = 1 / 3  # of the time, for the network over a window
RESTARTS = (1, 2, 3, 5, 8, 13, 20, 32, 50, 80, 125, 200, 320, 500)
_TARGETS = 500  # before which the state is restarted
_CHUNK = 50  # steps run at once

Tick = Callable[[str], None]


@dataclass(frozen=True)
class LatentGain:
    """What a latent state adds to the best window: nats per step, with its 95 % interval.

    wins: the interval lies above what is worth having (`WORTH`, `LEAST`). model: the latent model;
    against: the best window. passes: how often training went through its data. tried: False where
    order does not matter, so that there is nothing for a state to hold.
    """

    wins: bool
    nats: float
    interval: tuple[float, float] | None
    model: str
    against: str
    passes: float = 0.0
    tried: bool = True


@dataclass(frozen=True)
class Rival:
    """A model in the comparison: its name, and nats of the targets to choose and to judge by."""

    name: str
    choose: float
    judge: Floats


def settings_of(seed: int, hidden: int | None = None) -> RunSettings:
    """The settings of a fit that asks for nothing special."""
    return RunSettings(data=DataSettings(source=""), model=CELL, seed=seed, hidden=hidden)


def compare(
    study: Study, window: Window, worth: float, seed: int, seconds: float, tick: Tick
) -> tuple[LatentGain, SequenceModel]:
    """The latent model against the best window. worth: nats that the past is worth in all."""
    begun = time.monotonic()
    rivals = [_constant(study)]
    if study.comparable:
        law = window.law()
        found = [law.nats(part) for part in window.held]
        rivals.append(Rival(named(window), float(found[0].mean()), found[1]))
    if study.raw[0].domain.kind != "text":
        tick("a network over a window")
        candidate, training = _over_window(study, window, seed)
        model, _ = _trained(study, candidate, training, WINDOW_SHARE * seconds)
        rivals.append(_rival(candidate.name, model, study))
    tick(f"a {CELL.upper()}")
    candidate, training = _recurrent(study, seed)
    left = max(1.0, seconds - (time.monotonic() - begun))
    model, passes = _trained(study, candidate, training, left)
    latent = _rival(CELL.upper(), model, study)
    best = min(rivals, key=lambda rival: rival.choose)
    nats, interval = mean_interval(best.judge - latent.judge, study.parts[2].bounds, seed)
    wins = interval is not None and interval[0] > 0 and nats > max(LEAST, WORTH * worth)
    gain = LatentGain(wins, nats, interval, latent.name, best.name, passes)
    return gain, model


def restarted(study: Study, model: SequenceModel, seed: int, tick: Tick) -> tuple[list[Point], int]:
    """Nats against the steps that the state has seen since it was restarted; those needed."""
    raw = shown_to(model, study.chain, study.raw[2])
    part = study.parts[2]
    age = part.rows - part.first[part.rows]
    longest = max(1, min(RESTARTS[-1], int(age.max())))
    old = np.flatnonzero(age >= min(longest, int(np.quantile(age, 0.5))))
    chosen = old[np.linspace(0, len(old) - 1, min(_TARGETS, len(old))).astype(np.int64)]
    rows = part.rows[chosen]
    bounds = np.searchsorted(rows, part.offsets)
    nats = {0: _rows_of(_memoryless(study), raw, rows)}

    def judge(steps: int) -> None:
        tick(f"the state restarted {steps} steps before")
        nats[steps] = _after_restart(model, raw, rows, steps)

    for steps in (k for k in RESTARTS if k <= longest):
        judge(steps)
    while True:
        points = compared(nats, bounds, seed)
        needed = sufficient(points)
        below = max((p.lags for p in points if p.lags < needed), default=needed)
        if needed - below <= max(1, needed // 8):
            return points, needed
        judge((below + needed) // 2)


@torch.no_grad()
def _after_restart(model: SequenceModel, data: Sequences, rows: Ints, steps: int) -> Floats:
    """Nats of some targets by a model whose state began `steps` steps before, ``[n]``."""
    model.eval()
    targets = torch.from_numpy(rows)
    first = data.offsets[:-1][torch.searchsorted(data.offsets, targets, right=True) - 1]
    state = model.initial_state(len(targets))
    begins = list(range(steps, 0, -_CHUNK))
    for back in begins:
        count = min(_CHUNK, back)
        batch = _stretch(data, targets - back + 1, count, first, back == steps)
        law, state = model(batch, state)
    last = law.log_prob(batch.x)[-1].double() + data.log_det[targets]
    return -np.asarray(last.numpy())


def _stretch(data: Sequences, begin: Tensor, count: int, first: Tensor, restart: bool) -> Batch:
    """`count` steps from `begin` on, a lane each; it begins afresh where its sequence does."""
    at = begin + torch.arange(count).unsqueeze(1)
    start = at == first
    reset = start.clone()
    if restart:
        reset[0] = True
    at = torch.maximum(at, first)  # steps before the sequence, which the reset forgets
    rows = torch.searchsorted(data.offsets, at, right=True) - 1

    def values(index: Tensor, nothing: Tensor) -> Tensor:
        found = data.values[index]
        if not found.is_floating_point():
            return found.masked_fill(nothing, 0)
        return found.nan_to_num().float().masked_fill(nothing.unsqueeze(-1), 0.0)

    nothing = torch.zeros_like(start)
    return Batch(
        x=values(at, nothing),
        previous=values((at - 1).clamp(min=0), at == first),
        start=start,
        reset=reset,
        weight=torch.ones(at.shape),
        covariates=None if data.covariates is None else data.covariates[at].nan_to_num().float(),
        series=data.identity[rows] if bool((data.identity >= 0).any()) else None,
        index=at,
        level=data.level[at] if bool(data.level.any()) else None,
    )


def _recurrent(study: Study, seed: int) -> tuple[Candidate, TrainSettings]:
    """The recurrent network of the recipe for such data, no wider than `HIDDEN`."""
    asked = settings_of(seed)
    usual = recipes.recipe(study.raw[0], study.view.emission, asked)
    hidden = max(1, min(usual.hidden, HIDDEN // usual.members))
    asked = settings_of(seed, hidden)
    candidate = plan.latent_candidates(study.view, study.raw[0], study.raw[1], asked)[0]
    assert candidate.train is not None
    steps = max(candidate.train.steps, LATENT_STEPS)
    return candidate, candidate.train.model_copy(update={"steps": steps})


def _over_window(study: Study, window: Window, seed: int) -> tuple[Candidate, TrainSettings]:
    """A network over as many lags as the best window has, or a few more."""
    train = study.shown[0]
    order = window.dense if study.comparable else min(window.reach, 20)
    width = plan.window_width(train, max(1, order), "auto")
    model = {
        "kind": "autoregressive",
        "order": width,
        "emission": study.view.emission.to_json(),
        "predictor": "mlp",
        "covariates": 0 if train.covariates is None else train.covariates.shape[1],
        "levels": study.view.differenced,
    }
    training = recipes.window_training(study.raw[0], study.view.emission, settings_of(seed))
    training = training.model_copy(update={"steps": min(training.steps, WINDOW_STEPS)})
    name = f"network over {width} lags"
    return Candidate(name=name, family="autoregressive", model=model, train=training), training


def _trained(
    study: Study, candidate: Candidate, training: TrainSettings, seconds: float
) -> tuple[SequenceModel, float]:
    """A network trained for so many seconds, and the passes over the data that this took."""
    begun = time.monotonic()
    torch.manual_seed(training.seed)
    model = plan.build(candidate.model)
    learn, choose = (shown_to(model, study.chain, raw) for raw in study.raw[:2])
    model.begin(learn)
    with threads(training.threads or 1):
        left = seconds - (time.monotonic() - begun)
        trainer = Trainer(
            model, learn, choose, affordable_steps(model, learn, choose, training, left)
        )
        trainer.run()
    return model.eval(), trainer.passes


def _rival(name: str, model: SequenceModel, study: Study) -> Rival:
    choose, judge = (
        _rows_of(model, shown_to(model, study.chain, raw), part.rows)
        for raw, part in zip(study.raw[1:], study.parts[1:], strict=True)
    )
    return Rival(name, float(choose.mean()), judge)


def _rows_of(model: SequenceModel, shown: Sequences, rows: Ints) -> Floats:
    """Nats of some targets in the data's own units, ``[n]``."""
    return -np.asarray(model.step_log_prob(shown)[torch.from_numpy(rows)].numpy())


def _memoryless(study: Study) -> SequenceModel:
    """The constant law with the emission of the networks."""
    model = Autoregressive(
        0, emission=study.view.emission, predictor="constant", levels=study.view.differenced
    )
    model.begin(study.shown[0])
    return model


def _constant(study: Study) -> Rival:
    return _rival("the constant law", _memoryless(study), study)


def named(window: Window) -> str:
    """What to call a window law."""
    far = f" and lag{'s' * (len(window.sparse) > 1)} {', '.join(map(str, window.sparse))}"
    return f"{window.family.name} of {window.dense} lags{far if window.sparse else ''}"
