"""The networks of a certificate: one with a recurrent state, one over a window; trained briefly."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from throughtime.data.batching import Batch
from throughtime.data.sequences import Sequences
from throughtime.history.parts import Floats, Ints, Part
from throughtime.history.study import Study
from throughtime.models import registry
from throughtime.models.base import SequenceModel
from throughtime.predict.fitted import FittedModel
from throughtime.runtime import threads
from throughtime.search import candidates, defaults
from throughtime.search.candidates import Candidate
from throughtime.training.config import DataSettings, RunSettings, TrainSettings
from throughtime.training.trainer import Trainer, affordable_steps

CELL = "gru"
FEW = 30_000  # steps of data up to which a network of half the width is trained
HIDDEN = 64  # units of the network, all members together: enough to tell, and quick
TEXT_HIDDEN, TEXT_UPDATES = 128, 3000
UPDATES, WINDOW_UPDATES = 300, 600  # of the recurrent network, at least; of the other, at most
_CHUNK = 50  # steps run at once


@dataclass(frozen=True)
class Network:
    """A trained network on the judging span: how well it does, and from a restarted state."""

    name: str
    model: SequenceModel
    shown: tuple[Sequences, Sequences]  # the spans to choose by and to judge by, as it sees them
    passes: float  # through the data to learn from
    trained: float  # the share of its updates that there was time for

    def nats(self, span: int, part: Part) -> Floats:
        """Nats of the targets of a span (0: to choose by, 1: to judge by), in own units ``[n]``."""
        found = self.model.step_log_prob(self.shown[span])[torch.from_numpy(part.rows)]
        return -np.asarray(found.numpy())

    @torch.no_grad()
    def restarted(self, part: Part, chosen: Ints, steps: int) -> Floats:
        """Nats of some targets to judge by, from a state that began `steps` steps before."""
        data = self.shown[1]
        targets = torch.from_numpy(part.rows[chosen])
        first = torch.from_numpy(part.first[part.rows[chosen]])
        state = self.model.initial_state(len(targets))
        for back in range(steps, 0, -_CHUNK):
            count = min(_CHUNK, back)
            batch = _stretch(data, targets - back + 1, count, first, back == steps)
            distribution, state = self.model(batch, state)
        last = distribution.log_prob(batch.x)[-1].double() + data.log_det[targets]
        return -np.asarray(last.numpy())


def settings_of(seed: int, hidden: int | None = None) -> RunSettings:
    """The settings of a fit that asks for nothing special."""
    return RunSettings(data=DataSettings(source=""), model=CELL, seed=seed, hidden=hidden)


def recurrent(study: Study, seed: int, seconds: float) -> Network:
    """The recurrent network of the recipe for such data, no wider than `HIDDEN`."""
    usual = defaults.recipe(study.raw[0], study.view.emission, settings_of(seed))
    width = HIDDEN if study.raw[0].steps > FEW else HIDDEN // 2
    hidden = max(1, min(usual.hidden, width // usual.members))
    asked = settings_of(seed, hidden)
    candidate = candidates.latent_candidates(study.view, study.raw[0], study.raw[1], asked)[0]
    training = candidate.train
    assert training is not None
    training = training.model_copy(update={"steps": max(training.steps, UPDATES)})
    if study.raw[0].domain.kind == "text":
        candidate, training = _brisk(candidate, training)
    return _trained(study, CELL.upper(), candidate, training, seconds)


def _brisk(candidate: Candidate, training: TrainSettings) -> tuple[Candidate, TrainSettings]:
    """A network of text that is to be told from a window soon, not to be the best in the end.

    What thins a network out pays only where it is trained for long. In a quarter of the updates of
    a fit it is then past the best n-gram, if it ever will be.
    """
    plain = {"dropout": 0.0, "input_dropout": 0.0, "recurrent_dropout": 0.0}
    make = partial(
        registry.build, {**candidate.make().settings(), **plain, "hidden_size": TEXT_HIDDEN}
    )
    steps = {"steps": max(training.steps, TEXT_UPDATES), "precision": "float32"}
    return replace(candidate, make=make), training.model_copy(update=steps)


def over_window(study: Study, lags: int, seed: int, seconds: float) -> Network:
    """A network over so many lags, or a few more."""
    train = study.shown[0]
    width = candidates.lag_network_order(train, max(1, lags), "auto")
    training = defaults.lag_network_training(study.raw[0], study.view.emission, settings_of(seed))
    steps = min(training.steps, WINDOW_UPDATES)
    training = training.model_copy(update={"steps": steps})
    name = f"network over {width} lags"
    candidate = candidates.autoregression(name, width, study.view, train, training=training)
    return _trained(study, name, candidate, training, seconds)


def _trained(
    study: Study, name: str, candidate: Candidate, training: TrainSettings, seconds: float
) -> Network:
    """A network trained for so many seconds at most, stopped by the data to choose by."""
    begun = time.monotonic()
    torch.manual_seed(training.seed)
    model = candidate.make()
    learn, choose, judge = (
        FittedModel("", model, study.chain).transformed(raw) for raw in study.raw
    )
    model.begin(learn)
    with threads(training.threads or 1):
        left = seconds - (time.monotonic() - begun)
        planned = affordable_steps(model, learn, choose, training, left)
        trainer = Trainer(model, learn, choose, planned)
        trainer.run()
    return Network(
        name, model.eval(), (choose, judge), trainer.passes, planned.steps / training.steps
    )


def _stretch(data: Sequences, begin: Tensor, count: int, first: Tensor, restart: bool) -> Batch:
    """`count` steps from `begin` on, a lane each; it begins afresh where its sequence does."""
    at = begin + torch.arange(count).unsqueeze(1)
    start = at == first
    reset = start.clone()
    if restart:
        reset[0] = True
    at = torch.maximum(at, first)  # steps before the sequence, which the reset forgets
    rows = torch.searchsorted(data.offsets, at, right=True) - 1
    known = bool((data.identity >= 0).any())
    return Batch(
        x=_values(data, at, torch.zeros_like(start)),
        previous=_values(data, (at - 1).clamp(min=0), at == first),
        start=start,
        reset=reset,
        weight=torch.ones(at.shape),
        covariates=None if data.covariates is None else data.covariates[at].nan_to_num().float(),
        series=data.identity[rows] if known else None,
        index=at,
        initial=data.initial[at] if bool(data.initial.any()) else None,
    )


def _values(data: Sequences, at: Tensor, nothing: Tensor) -> Tensor:
    found = data.values[at]
    if not found.is_floating_point():
        return found.masked_fill(nothing, 0)
    return found.nan_to_num().float().masked_fill(nothing.unsqueeze(-1), 0.0)
