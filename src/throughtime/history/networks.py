"""The networks of a certificate: one with a recurrent state, one of finite order; trained briefly.

How many updates they get follows from their size and the time limit, by a rate that is cautious on
any machine, and not from a clock: the same certificate has the same networks everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from throughtime import bptt
from throughtime.data.batching import Batch
from throughtime.data.sequences import Sequences
from throughtime.history.study import Study
from throughtime.history.targets import Floats, Targets
from throughtime.models import registry
from throughtime.models.base import SequenceModel
from throughtime.models.closed_form import ClosedForm
from throughtime.predict.fitted import FittedModel
from throughtime.runtime import threads
from throughtime.search import candidates, defaults
from throughtime.search.candidates import Candidate
from throughtime.training.config import DataSettings, RunSettings, TrainSettings
from throughtime.training.trainer import Trainer

CELL = "gru"
_SMALL = 30_000  # steps of data up to which a network of half the width is trained
_HIDDEN = 64  # units of the network, all members together: enough to tell, and quick
_TEXT_HIDDEN, _TEXT_UPDATES = 128, 3000
_UPDATES, _ORDER_UPDATES = 300, 600  # of the recurrent network, at least; of the other, at most
_CHUNK = 50  # steps run at once
# Seconds of a step of a sequence in training, on one core: in all, and for each number that
# describes the distribution of a step, and for each weight.
_PER_STEP, _PER_PARAMETER, _PER_WEIGHT = 6e-6, 1.5e-7, 2e-10
_BEGIN = 1.5e-2  # seconds for each such number, to find a constant distribution
_LEAST_UPDATES = 10  # with fewer a network says nothing


@dataclass(frozen=True)
class Network:
    """A trained network.

    spans: validation and test data as it sees them. passes: how often training went through its
    data. trained: the share of its updates that there was time for.
    """

    name: str
    model: SequenceModel
    spans: tuple[Sequences, Sequences]
    passes: float
    trained: float


def settings_of(seed: int, hidden: int | None = None) -> RunSettings:
    """The settings of a fit that asks for nothing special."""
    return RunSettings(data=DataSettings(source=""), model=CELL, seed=seed, hidden=hidden)


def recurrent(study: Study, seed: int, seconds: float) -> Network | None:
    """The recurrent network of the recipe for such data, no wider than 64 units."""
    usual = defaults.recipe(study.raw[0], study.view.emission, settings_of(seed))
    width = _HIDDEN if study.raw[0].steps > _SMALL else _HIDDEN // 2
    hidden = max(1, min(usual.hidden, width // usual.members))
    asked = settings_of(seed, hidden)
    candidate = candidates.latent_candidates(study.view, study.raw[0], study.raw[1], asked)[0]
    training = candidate.train
    assert training is not None
    training = training.model_copy(update={"steps": max(training.steps, _UPDATES)})
    if study.raw[0].domain.kind == "text":
        candidate, training = _short(candidate, training)
    return _trained(study, CELL.upper(), candidate, training, seconds)


def _short(candidate: Candidate, training: TrainSettings) -> tuple[Candidate, TrainSettings]:
    """A network of text that is soon to be compared with a finite order, not to be best in the end.

    Dropout pays only where it is trained for long. In a quarter of the updates of
    a fit it is then past the best n-gram, if it ever will be.
    """
    dropouts = dict.fromkeys(("dropout", "input_dropout", "recurrent_dropout"), 0.0)
    settings = {**candidate.make().settings(), **dropouts, "hidden_size": _TEXT_HIDDEN}
    steps = {"steps": max(training.steps, _TEXT_UPDATES), "precision": "float32"}
    make = partial(registry.build, settings)
    return replace(candidate, make=make), training.model_copy(update=steps)


def of_order(study: Study, lags: int, seed: int, seconds: float) -> Network | None:
    """A network of so many lags, or a few more."""
    train = study.transformed[0]
    width = candidates.lag_network_order(train, max(1, lags), "auto")
    training = defaults.lag_network_training(study.raw[0], study.view.emission, settings_of(seed))
    steps = min(training.steps, _ORDER_UPDATES)
    training = training.model_copy(update={"steps": steps})
    name = f"network of {width} lags"
    candidate = candidates.autoregression(name, width, study.view, train, training=training)
    return _trained(study, name, candidate, training, seconds)


def _trained(
    study: Study, name: str, candidate: Candidate, training: TrainSettings, seconds: float
) -> Network | None:
    """A network trained for so many seconds at most, stopped by the validation data.

    None where they do not suffice for ten updates.
    """
    torch.manual_seed(training.seed)
    model = candidate.make()
    fitted = FittedModel(name, model, study.transforms)
    train, valid, test = map(fitted.transformed, study.raw)
    planned = affordable(model, train, valid, training, seconds - scoring(model, valid, test))
    if planned.steps < _LEAST_UPDATES:
        return None
    model.begin(train)
    with threads(training.threads or 1):
        trainer = Trainer(model, train, valid, planned)
        trainer.run()
    share = planned.steps / training.steps
    return Network(name, model.eval(), (valid, test), trainer.passes, share)


def affordable(
    model: SequenceModel,
    train: Sequences,
    valid: Sequences,
    training: TrainSettings,
    seconds: float,
) -> TrainSettings:
    """The settings with as many updates as so many seconds surely suffice for.

    Args:
        model: what is trained.
        train: the data.
        valid: validation takes a tenth of the time, half of it where there are few updates.
        training: what is wanted.
        seconds: of one core.
    """
    step = per_step(model)
    method = bptt.parse(training.bptt)
    longest = int(train.lengths.max())
    length = method.k1 if isinstance(method, bptt.Truncated) else longest
    lanes = min(training.lanes, max(1, train.steps // max(1, min(length, longest))))
    update = step * lanes * min(length, longest)
    validation = step * min(
        len(valid.values), valid.steps + len(valid) * (training.valid_past or 0)
    )
    steps = max(0, min(training.steps, int(seconds / (1.1 * update))))
    cost = validation / update
    every = max(training.valid_every, math.ceil(max(cost, min(10 * cost, steps / 20))))
    steps = max(0, min(steps, int(seconds / (update * (1 + cost / every)))))
    return training.model_copy(update={"steps": steps, "valid_every": max(1, min(every, steps))})


def per_step(model: SequenceModel) -> float:
    """Seconds that a step of a sequence takes in training, on one core, cautiously."""
    weights = sum(p.numel() for p in model.parameters())
    numbers = model.members * model.emission.num_parameters
    return _PER_STEP + _PER_PARAMETER * numbers + _PER_WEIGHT * weights


def scoring(model: SequenceModel, *spans: Sequences) -> float:
    """Seconds that beginning at a constant distribution and scoring these data take, cautiously."""
    steps = sum(len(span.values) for span in spans)
    return per_step(model) * steps + _BEGIN * model.emission.num_parameters


@torch.no_grad()
def truncated_nats(model: SequenceModel, targets: Targets, steps: int) -> Floats:
    """Nats of targets ``[n]`` where the state has seen no more than so many steps before each."""
    if isinstance(model, ClosedForm):
        return targets.truncated(steps).nats(model)
    data, rows = targets.data, targets.rows
    first, state = rows - targets.age, model.initial_state(len(rows))
    dtype = next(model.parameters()).dtype
    for back in range(steps, 0, -_CHUNK):
        batch = _stretch(data, rows - back + 1, min(_CHUNK, back), first, back == steps, dtype)
        distribution, state = model(batch, state)
    last = distribution.log_prob(batch.x)[-1].double() + data.log_det[rows]
    return -last.numpy()


def _stretch(
    data: Sequences, begin: Tensor, count: int, first: Tensor, restart: bool, dtype: torch.dtype
) -> Batch:
    """`count` steps from `begin` on, a lane each; it begins where its sequence does."""
    at = begin + torch.arange(count).unsqueeze(1)
    start = at == first
    reset = start.clone()
    if restart:
        reset[0] = True
    at = torch.maximum(at, first)  # steps before the sequence, which the reset forgets
    rows = torch.searchsorted(data.offsets, at, right=True) - 1
    known = bool((data.identity >= 0).any())
    return Batch(
        x=_values(data, at, torch.zeros_like(start), dtype),
        previous=_values(data, (at - 1).clamp(min=0), at == first, dtype),
        start=start,
        reset=reset,
        weight=torch.ones(at.shape),
        covariates=None if data.covariates is None else data.covariates[at].nan_to_num().to(dtype),
        series=data.identity[rows] if known else None,
        index=at,
        initial=data.initial[at] if bool(data.initial.any()) else None,
    )


def _values(data: Sequences, at: Tensor, nothing: Tensor, dtype: torch.dtype) -> Tensor:
    gathered = data.values[at]
    if not gathered.is_floating_point():
        return gathered.long().masked_fill(nothing, 0)
    return gathered.nan_to_num().to(dtype).masked_fill(nothing.unsqueeze(-1), 0.0)
