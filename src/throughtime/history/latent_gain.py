"""Does a latent state beat every finite order? Each of several is tried, and tested against the
best.

The rivals are the finite-order models of every kind: the regressions or n-grams, a network of
finite order, and the i.i.d. baseline with the emission of the networks. The states are the smallest
that can be fitted by maximum likelihood (a hidden Markov model, exponential smoothing) and a
recurrent network. On both sides the best is chosen on validation data, and the one comparison is
made on test data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from throughtime.data.sequences import Sequences
from throughtime.emissions import Emission
from throughtime.evaluation.bootstrap import mean_interval
from throughtime.history import networks
from throughtime.history.lag_selection import Point, Selected, Tick, compared, sufficient
from throughtime.history.study import Study
from throughtime.history.targets import Floats, Targets
from throughtime.history.work import Work
from throughtime.models.autoregressive import Autoregressive
from throughtime.models.base import SequenceModel
from throughtime.models.closed_form import ClosedForm
from throughtime.predict.fitted import FittedModel
from throughtime.runtime import out_of_time

WORTH = 0.01  # of what the past is worth: a latent state that adds less is not worth its training
LEAST = 0.001  # nats per step: less than that is within what training networks again varies by
FINITE_SHARE = 1 / 3  # of the time of networks, for the one of finite order
TRUNCATIONS = (1, 2, 3, 5, 8, 13, 20, 32, 50, 80, 125, 200, 320, 500)
_TARGETS, _NETWORK_TARGETS = 4000, 1000  # that are looked at by truncated states, at most
_FEWEST = 200
_MOST_PARAMETERS = 300  # of the distribution of a step, for the baseline to have it


@dataclass(frozen=True)
class LatentGain:
    """What a latent state adds to the best finite order: nats per step, with its 95 % interval.

    wins: the interval lies above zero and the gain is worth having (`WORTH`, `LEAST`). model: the
    latent model; against: the best of finite order. passes: how often the training of a network
    went through its data, None for a closed form. trained: the share of the network's updates that
    there was time for, 0 where none was to be trained. tried: False where order does not matter, so
    that there is nothing for a state to hold, and where there was no model to try.
    """

    wins: bool
    nats: float
    interval: tuple[float, float] | None
    model: str
    against: str
    passes: float | None = None
    trained: float = 1.0
    tried: bool = True


@dataclass(frozen=True)
class Entrant:
    """A model in the comparison, with the nats of all validation and test targets."""

    name: str
    model: SequenceModel
    test: Targets  # as the model sees them
    valid_nats: Floats
    test_nats: Floats
    passes: float | None = None

    @classmethod
    def of(
        cls,
        name: str,
        model: SequenceModel,
        held: tuple[Targets, Targets],
        passes: float | None = None,
    ) -> Entrant:
        valid, test = (targets.nats(model) for targets in held)
        return cls(name, model, held[1], valid, test, passes)


def compare(
    study: Study, selected: Selected, worth: float, seed: int, seconds: float | None, tick: Tick
) -> tuple[LatentGain, Entrant | None]:
    """The best latent model against the best of finite order.

    Args:
        study: the data.
        selected: the best lags.
        worth: nats of the past in all, per step.
        seed: of everything random.
        seconds: for training networks; None: only closed forms.
        tick: called with what is done.

    Returns:
        The comparison, and the latent model, None where there is none to try.
    """
    rivals, states = [iid_baseline(study, selected)], []
    if study.comparable:
        rivals.append(Entrant.of(selected.name, selected.fit(), selected.held))
        tick("small latent states")
        closed = selected.family.latent(selected.dense, selected.far, seed)
        states = [Entrant.of(name, model, selected.held) for name, model in closed]
    trained = 0.0
    if seconds is not None:
        left = seconds
        if study.raw[0].domain.kind != "text":
            tick("a network of finite order")
            lags = selected.dense if study.comparable else min(selected.order, 20)
            left = seconds * (1 - FINITE_SHARE)
            finite = networks.of_order(study, lags, seed, seconds - left)
            rivals += [_entrant(study, finite)] if finite else []
        tick(f"a {networks.CELL.upper()}")
        network = networks.recurrent(study, seed, left)
        if network is not None:
            states.append(_entrant(study, network))
            trained = network.trained
    if not states:
        return untried(selected, "network"), None
    best = min(rivals, key=lambda rival: float(rival.valid_nats.mean()))
    latent = max(states, key=lambda state: _surely(best.valid_nats - state.valid_nats))
    bounds = study.targets[0][2].bounds
    nats, interval = mean_interval(best.test_nats - latent.test_nats, bounds, seed)
    wins = interval is not None and interval[0] > 0 and nats > max(LEAST, WORTH * worth)
    gain = LatentGain(wins, nats, interval, latent.name, best.name, latent.passes, trained)
    return gain, latent


def untried(selected: Selected, model: str) -> LatentGain:
    """Where no latent model is compared."""
    return LatentGain(False, 0.0, None, model, selected.name, trained=0.0, tried=False)


def memory_curve(
    latent: Entrant, iid: Floats, seed: int, tick: Tick, work: Work
) -> tuple[list[Point], int]:
    """How well a latent model does where its state has seen no more than the last k steps.

    Args:
        latent: the model and its test data.
        iid: nats of every target under the i.i.d. baseline, which has seen none.
        seed: of the intervals.
        tick: called with what is done.
        work: what may be done: fewer targets with less.

    Returns:
        The curve over k, and the k that is needed.
    """
    targets, age = latent.test, latent.test.age
    longest = max(1, min(TRUNCATIONS[-1], int(age.max())))
    old = (age >= min(longest, int(torch.quantile(age.double(), 0.5)))).nonzero().flatten()
    weights = sum(p.numel() for p in latent.model.parameters())
    each = 1.5 * sum(TRUNCATIONS) * (2 * weights + 500 * targets.data.values[:1].numel())
    most = _TARGETS if isinstance(latent.model, ClosedForm) else _NETWORK_TARGETS
    most = int(max(_FEWEST, min(most, work.limit / each)))
    kept = old[torch.linspace(0, len(old) - 1, min(len(old), most), dtype=torch.float64).long()]
    chosen = replace(targets, rows=targets.rows[kept])
    nats = {0: iid[kept.numpy()]}

    def look(steps: int) -> None:
        tick(f"the last {steps} steps alone")
        nats[steps] = networks.truncated_nats(latent.model, chosen, steps)

    for steps in sorted({longest, *(k for k in TRUNCATIONS if k < longest)}):
        if not out_of_time() or len(nats) < 2:
            look(steps)
    while True:
        points = compared(nats, chosen.bounds, seed)
        needed = sufficient(points)
        below = max((p.lags for p in points if p.lags < needed), default=needed)
        if needed - below <= max(1, needed // 8) or out_of_time():
            return points, needed
        look((below + needed) // 2)


def memory_of(
    network: FittedModel, train: Sequences, test: Sequences, seed: int
) -> tuple[list[Point], int]:
    """The curve of `memory_curve` of a trained network, and the steps it needs, on raw data."""
    model, data = network.model, network.transformed(test)
    targets = replace(Targets.of(data), data=data)
    baseline = _constant(model.emission, model.num_differencing)
    baseline.begin(network.transformed(train))
    entrant = Entrant(network.name, model, targets, np.zeros(0), np.zeros(0))
    return memory_curve(entrant, targets.nats(baseline), seed, lambda about: None, Work(np.inf))


def iid_baseline(study: Study, selected: Selected) -> Entrant:
    """The i.i.d. baseline with the emission of the networks, or, of very many columns, a plain one.

    A mixture of so many columns would take longer to fit than all the rest.
    """
    name, emission = "i.i.d. baseline", study.view.emission
    if study.comparable and emission.num_parameters > _MOST_PARAMETERS:
        return Entrant.of(name, selected.family.fit(0), selected.held)
    model = _constant(emission, study.view.num_differencing)
    model.begin(study.transformed[0])
    return Entrant.of(name, model, study.seen(study.transformed[1:]))


def _constant(emission: Emission, num_differencing: int) -> Autoregressive:
    return Autoregressive(
        0, emission=emission, predictor="constant", num_differencing=num_differencing
    )


def _surely(gain: Floats) -> float:
    """A gain less twice its standard error: of two states, the more certain one is tested."""
    return float(gain.mean() - 2 * gain.std() / len(gain) ** 0.5)


def _entrant(study: Study, network: networks.Network) -> Entrant:
    held = study.seen(network.spans)
    return Entrant.of(network.name, network.model, held, network.passes)
