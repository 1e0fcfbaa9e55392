"""Does a latent state beat every window? Each of several is tried, and judged against the best.

The rivals are the windows of every kind: the distributions of `values` and `symbols`, a network
over a window, and the constant distribution with the emission of the networks. The states are the
smallest that can be fitted by maximum likelihood (`hidden`, `leaky`) and a recurrent network. On
both sides the best is chosen on data that are then not used for judging, so the one comparison is a
fair one.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from throughtime.data.sequences import Sequences
from throughtime.emissions import Emission
from throughtime.evaluation.bootstrap import mean_interval
from throughtime.history import hidden, leaky, networks
from throughtime.history.lag_selection import Point, Tick, Window, compared, sufficient
from throughtime.history.parts import Floats, Ints, Part
from throughtime.history.study import Study
from throughtime.history.symbols import Symbols
from throughtime.history.values import Values
from throughtime.models.autoregressive import Autoregressive
from throughtime.models.base import SequenceModel

WORTH = 0.01  # of what the past is worth: a latent state that adds less is not worth its training
LEAST = 0.001  # nats per step: less than that is within what training networks anew varies by
WINDOW_SHARE = 1 / 3  # of the time, for the network over a window
RESTARTS = (1, 2, 3, 5, 8, 13, 20, 32, 50, 80, 125, 200, 320, 500)
_TARGETS, _NETWORK_TARGETS = 4000, 1000  # before which a state is restarted, at most
_ALPHABET = 64  # symbols of which a hidden Markov chain is tried

Spans = tuple[Sequences, Sequences]
Restart = Callable[[Part, Ints, int], Floats]


@dataclass(frozen=True)
class LatentGain:
    """What a latent state adds to the best window: nats per step, with its 95 % interval.

    wins: the interval lies above zero and the gain is worth having (`WORTH`, `LEAST`). model: the
    latent model; against: the best window. passes: how often the training of a network went
    through its data, None for a closed form. trained: the share of the network's updates that
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
    """A model in the comparison: nats of every target to choose by, and to judge by."""

    name: str
    choose: Floats
    judge: Floats
    part: Part  # what it is judged by, as it sees it
    restarted: Restart | None = None  # how well it does from a state begun so many steps before
    passes: float | None = None


def compare(
    study: Study, window: Window, worth: float, seed: int, seconds: float | None, tick: Tick
) -> tuple[LatentGain, Entrant | None]:
    """The best latent model against the best window. worth: nats of the past in all, per step.

    seconds: for training networks; None: only models in closed form. Returns the latent model, too,
    or None where there is none to try.
    """
    begun = time.monotonic()
    rivals, states = [constant(study)], []
    if study.comparable:
        distribution = window.distribution()
        choose, judge = window.held
        name = named(window)
        rivals.append(Entrant(name, distribution.nats(choose), distribution.nats(judge), judge))
        tick("small latent states")
        states = _closed(window, seed)
    trained = 0.0
    if seconds is not None:
        if study.raw[0].domain.kind != "text":
            tick("a network over a window")
            lags = window.dense if study.comparable else min(window.reach, 20)
            share = WINDOW_SHARE * seconds
            rivals.append(
                _entrant(networks.over_window(study, lags, seed, share), *study.parts[1:])
            )
        tick(f"a {networks.CELL.upper()}")
        left = max(1.0, seconds - (time.monotonic() - begun))
        network = networks.recurrent(study, seed, left)
        states.append(_entrant(network, *study.parts[1:]))
        trained = network.trained
    if not states:
        return LatentGain(
            False, 0.0, None, "network", named(window), trained=0.0, tried=False
        ), None
    best = min(rivals, key=lambda rival: float(rival.choose.mean()))
    latent = max(states, key=lambda state: _surely(best.choose - state.choose))
    nats, interval = mean_interval(best.judge - latent.judge, study.parts[2].bounds, seed)
    wins = interval is not None and interval[0] > 0 and nats > max(LEAST, WORTH * worth)
    gain = LatentGain(wins, nats, interval, latent.name, best.name, latent.passes, trained)
    return gain, latent


def restarted(
    latent: Entrant, memoryless: Floats, seed: int, tick: Tick, until: float
) -> tuple[list[Point], int]:
    """Nats against the steps that the state has seen since it was restarted; those needed.

    memoryless: nats of every target under the constant distribution, which has seen none. until:
    when to stop looking closer, by `time.monotonic`.
    """
    assert latent.restarted is not None
    part = latent.part
    age = part.rows - part.first[part.rows]
    longest = max(1, min(RESTARTS[-1], int(age.max())))
    old = np.flatnonzero(age >= min(longest, int(np.quantile(age, 0.5))))
    most = min(len(old), _TARGETS if latent.passes is None else _NETWORK_TARGETS)
    chosen = old[np.linspace(0, len(old) - 1, most).astype(np.int64)]
    bounds = np.searchsorted(part.rows[chosen], part.offsets)
    nats = {0: memoryless[chosen]}

    def judge(steps: int) -> None:
        tick(f"the state restarted {steps} steps before")
        nats[steps] = latent.restarted(part, chosen, steps)  # type: ignore[misc]

    for steps in sorted({longest, *(k for k in RESTARTS if k < longest)}):
        judge(steps)
    while True:
        points = compared(nats, bounds, seed)
        needed = sufficient(points)
        below = max((p.lags for p in points if p.lags < needed), default=needed)
        if needed - below <= max(1, needed // 8) or time.monotonic() > until:
            return points, needed
        judge((below + needed) // 2)


def _surely(gain: Floats) -> float:
    """A gain less twice its standard error: of two states, the more certain one is judged."""
    return float(gain.mean() - 2 * gain.std() / len(gain) ** 0.5)


def _closed(window: Window, seed: int) -> list[Entrant]:
    """The latent models that are fitted by maximum likelihood."""
    choose, judge = window.held
    family = window.family
    distributions: list[hidden.HiddenChain | leaky.LeakyLaw] = []
    if isinstance(family, Symbols) and family.num_symbols <= _ALPHABET:
        distributions += [
            hidden.fitted(family.learn, family.num_symbols, states, seed)
            for states in hidden.STATES
        ]
    elif isinstance(family, Values):
        line = replace(family, shape="linear")
        tried = [(line, 1), (family, min(1, window.dense)), (family, window.dense)]
        distributions += [leaky.fitted(values, dense, window.sparse) for values, dense in tried]
    return [
        Entrant(
            distribution.name,
            distribution.nats(choose),
            distribution.nats(judge),
            judge,
            distribution.restarted,
        )
        for distribution in distributions
    ]


def _entrant(network: networks.Network, choose: Part, judge: Part) -> Entrant:
    return Entrant(
        network.name,
        network.nats(0, choose),
        network.nats(1, judge),
        judge,
        network.restarted,
        network.passes,
    )


def memoryless(
    emission: Emission, num_differencing: int, learn: Sequences, shown: Spans
) -> networks.Network:
    """The i.i.d. baseline with the emission of a network. shown: validation and test data."""
    model = Autoregressive(
        0, emission=emission, predictor="constant", num_differencing=num_differencing
    )
    model.begin(learn)
    return networks.Network("constant distribution", model, shown, 0.0, 1.0)


def constant(study: Study) -> Entrant:
    """The memoryless distribution with the emission of the networks."""
    learn, *shown = study.shown
    distribution = memoryless(
        study.view.emission, study.view.num_differencing, learn, (shown[0], shown[1])
    )
    return _entrant(distribution, *study.parts[1:])


def memory_of(
    model: SequenceModel, name: str, learn: Sequences, judge: Sequences, seed: int, tick: Tick
) -> tuple[list[Point], int]:
    """Of a trained latent model: nats of `judge` from a state restarted k steps before each target.

    learn, judge: as the model sees them. Returns the curve over k and the k that is needed.
    """
    part, spans = Part.of(judge), (judge, judge)
    entrant = _entrant(networks.Network(name, model, spans, 1.0, 1.0), part, part)
    constant = memoryless(model.emission, model.num_differencing, learn, spans).nats(1, part)
    return restarted(entrant, constant, seed, tick, math.inf)


def named(window: Window) -> str:
    """What to call a window distribution."""
    lags = f"{window.dense} lag{'' if window.dense == 1 else 's'}"
    if not window.sparse:
        return f"{window.family.name} of {lags}"
    far = f"lag{'s' * (len(window.sparse) > 1)} {', '.join(map(str, window.sparse))}"
    return f"{window.family.name} of {far if window.dense == 0 else f'{lags} and {far}'}"
