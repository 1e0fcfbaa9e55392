"""What every gradient method is: it goes through a batch from update to update."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from throughtime import state as states
from throughtime.bptt import checks
from throughtime.bptt.replay import Generators
from throughtime.errors import SettingError
from throughtime.gradflow.unrolled import Loss, Timed
from throughtime.state import State

_CHECKED = 256  # steps, at most, that are run again to see whether the loss is what it must be
Update = Callable[[Tensor], None]


@dataclass(frozen=True)
class Estimate:
    """How far back the gradient reaches, as measured during training.

    lag: K, the steps back that count. rate: by which each older lag is weaker. updates: how many
    were made since.
    """

    lag: int
    rate: float
    updates: int = 0


@dataclass(frozen=True)
class Position:
    """Where a pass over a batch stands between two updates; all that is needed to go on.

    target: the first step whose loss has not been used. state: the (detached) state before it.
    begin: the step from which the next window is run, at or before target. begin_state: the state
    before it, computed when that step was last passed. estimate: of a method that measures.
    """

    target: int = 0
    state: State = None
    begin: int = 0
    begin_state: State = None
    estimate: Estimate | None = None

    @classmethod
    def start(cls, state: State, estimate: Estimate | None = None) -> Position:
        """Before the first step of a batch."""
        state = states.detach(state)
        return cls(0, state, 0, state, estimate)


class GradientMethod(ABC):
    """A way to differentiate a loss through time."""

    cuts: ClassVar[bool] = True  # whether the loss is taken in pieces, as only a sum can be
    generators: Generators = ()  # beside torch's own, those that the loss draws from

    def start(self, state: State) -> Position:
        """Before the first step. Raises SettingError for a state it cannot start from."""
        return Position.start(state)

    @abstractmethod
    def advance(self, loss: Loss, batch: Timed, at: Position) -> tuple[Tensor, Position]:
        """One update's worth: adds the gradient of the next steps' losses to ``.grad``.

        Returns the (detached) summed loss of those steps and the position after them.
        """

    def backward(
        self, loss: Loss, batch: Timed, state: State, on_update: Update | None = None
    ) -> tuple[Tensor, State]:
        """Differentiates the whole batch. `on_update(loss)` is called after each k1 steps.

        state: before the batch's first step; gradients do not flow into it.
        Returns the summed loss (detached) and the state after the last step (detached).
        Raises SettingError for an empty batch, a loss that is not a scalar with a gradient or not
        a sum over time, and a module that keeps hidden state inside; NonFiniteError for a loss that
        is infinite or NaN (``.grad`` is of no use then; that of a finite loss may still be
        infinite, which `clip` tells).
        """
        if len(batch) == 0:
            raise SettingError("the batch has no time steps; nothing to differentiate")
        total, at = None, self.start(state)
        places = (0, 1, min(2, len(batch)))
        told = checks.steps(loss, batch, at.state, places, self.cuts, self.generators)
        while at.target < len(batch):
            before = at
            part, at = self.advance(loss, batch, before)
            if not told and 1 < at.target - before.target <= _CHECKED:
                # No loss so far: what is wrong with it shows where there is one.
                places = (before.target, (before.target + at.target) // 2, at.target)
                told = checks.steps(loss, batch, before.state, places, self.cuts, self.generators)
            if not bool(torch.isfinite(part)):
                raise checks.non_finite(
                    loss, batch, before.state, before.target, at.target, self.generators
                )
            total = part if total is None else total + part
            if on_update is not None:
                on_update(part)
        assert total is not None
        return total, at.state


def differentiate(total: Tensor) -> Tensor:
    """Adds the gradient of a summed loss to ``.grad``; returns its value."""
    checks.scalar(total)
    checks.backward([total], [None])
    return total.detach()
