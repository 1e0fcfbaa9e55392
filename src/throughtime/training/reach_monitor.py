"""How far back the gradient of a network in training reaches, looked at now and then.

The full ledger follows the losses of all steps through every lag. Here only the losses of one step
(of several rows) are followed, and they are looked at where the segment was cut: at the lags 1, 2,
4, 8, … So one forward and one backward pass give the exact ``‖∂ℓ_t/∂S_{t-k}‖`` of those lags.

When it is looked at follows from sizes alone, never from the clock: a run that was interrupted
logs the same as one that was not. The sizes keep it under 3 % of the time of training, which
benchmarks/reach.py measures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from throughtime import rng
from throughtime import state as states
from throughtime.bptt import Full, GradientMethod, Truncated
from throughtime.data.batching import Lanes
from throughtime.data.sequences import Sequences
from throughtime.gradflow import Loss, along_time
from throughtime.gradflow._unrolled import graph_inputs
from throughtime.models.latent import LatentAutoregressive
from throughtime.state import State
from throughtime.training.config import TrainSettings

SHARE = 0.95
_TINY = 1e-30
_COST = 0.03  # of the time of training, at most
_ROWS = 8
_LEAST = 64  # steps of a segment, however early training truncates
_SHORT, _FAR = 16, 256  # steps of an update, and lags, where the method does not say
_CALL, _UPDATE = 12, 15  # what a call of the loss and an update cost beside their steps, in steps


@dataclass(frozen=True)
class StateNorms:
    """Mean over rows of ``‖∂ℓ_t/∂S_{t-k}‖`` at some lags k, for the last step t of a segment."""

    lags: tuple[int, ...]
    norms: tuple[float, ...]

    def reach(self, share: float = SHARE) -> float | None:
        """The lag within which `share` of the sum of the norms lies, in fractions of a step.

        Lags count as in a ledger, k = 0 being the step itself, which is not looked at here. Between
        two lags the norm is taken to decay by the same factor at each step. None without a
        gradient.
        """
        if not all(map(math.isfinite, self.norms)) or not any(self.norms):
            return None
        logs = [math.log(max(norm, _TINY)) for norm in self.norms]
        each: list[float] = [self.norms[0]] * self.lags[0]
        for (k0, k1), (a, b) in zip(pairwise(self.lags), pairwise(logs), strict=True):
            each += [math.exp(a + (b - a) * i / (k1 - k0)) for i in range(1, k1 - k0 + 1)]
        left, total = share * sum(each), 0.0
        for lag, norm in enumerate(each, start=1):
            total += norm
            if total >= left:
                return lag - (total - left) / norm
        return float(len(each))


def state_norms(loss: Loss, batch: Any, state: State) -> StateNorms:
    """The gradient of the last step's loss with respect to the states before it.

    Changes nothing: no ``.grad``, no generator.

    Args:
        loss: ``loss(batch, state) -> (summed loss, state)``.
        batch: T steps, see `gradflow.along_time`, of which the first ones only warm the state up;
            the longest lag is the largest power of two below T.
        state: before them, ``[L, B, H]`` or a tuple of such.
    """
    batch = along_time(batch)
    length = len(batch)
    lags = [1 << i for i in range((length - 1).bit_length()) if 1 << i < length]
    cuts = [length - lag for lag in reversed(lags)]
    with torch.random.fork_rng(devices=[]):
        with torch.no_grad():
            _, state = loss(batch[0 : cuts[0]], state)
        before, after = [], []
        with torch.enable_grad():
            for begin, end in pairwise((*cuts, length)):
                state = graph_inputs(state)
                before.append(list(states.leaves(state)))
                value, state = loss(batch[begin:end], state)
                after.append([value] if end == length else list(states.leaves(state)))
    given = [torch.ones_like(after[-1][0])]
    norms = []
    for inputs, outputs in zip(reversed(before), reversed(after), strict=True):
        given = list(torch.autograd.grad(outputs, inputs, given, materialize_grads=True))
        squares = torch.stack([leaf.square().sum((0, 2)) for leaf in given])
        norms.append(float(squares.sum(0).sqrt().mean()))
    return StateNorms(tuple(lags), tuple(norms))


def truncation(settings: TrainSettings, method: GradientMethod) -> Truncated | None:
    """What training truncates to, pieces of sequences being short too; None: not known, or none."""
    piece = settings.segment
    known = method if isinstance(method, Truncated) else None
    if piece is not None and (known is None or piece < known.k2):
        return Truncated(piece)
    return known


class ReachMonitor:
    """Looks at a model's reach at some of the validations of its training.

    The segments come from whole sequences, whatever pieces of them the training runs through.
    """

    def __init__(
        self,
        model: LatentAutoregressive,
        train: Sequences,
        settings: TrainSettings,
        method: GradientMethod,
    ) -> None:
        self.model, self.settings = model, settings
        rows = max(1, min(_ROWS, settings.lanes // 4))
        chance = rng.generator(settings.seed, "reach")
        self.lanes = Lanes(train, rows, generator=chance)
        longest = int(train.lengths.max())
        cut = truncation(settings, method)
        known = None if cut is None else cut.k2
        if isinstance(method, Truncated):
            each = method.k2
        elif isinstance(method, Full):
            each = train.steps // settings.lanes
        else:  # a method that may truncate early
            each, known = _SHORT, min(known or _FAR, _FAR)
        self.furthest = min(longest, known or longest)
        self.length = min(max(2 * self.furthest, _LEAST), len(self.lanes))
        ends = self.lanes.scored_steps() + 1
        self.ends = ends[ends >= self.length]  # where a segment ends there is a loss to follow
        # A quarter of the rows take at least half the time.
        work = self.length / 2 + _CALL * (1 + self.length.bit_length())
        self.every = math.ceil(work / (each + _UPDATE) / _COST)

    def look(self, update: int) -> float | None:
        """The reach after so many updates; None at a validation that does without."""
        before = (update - 1) // self.settings.valid_every * self.settings.valid_every
        if update // self.every == before // self.every or self.length < 2 or not len(self.ends):
            return None
        chance = rng.generator(self.settings.seed, "reach", update)
        end = int(self.ends[torch.randint(len(self.ends), (1,), generator=chance)])
        begin = end - self.length
        model, training = self.model, self.model.training
        model.eval()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.precision == "bfloat16"):
            batch = self.lanes[begin : begin + self.length]
            norms = state_norms(model.loss, batch, model.initial_state(self.lanes.num_lanes))
        model.train(training)
        return norms.reach()
