"""Backpropagation through the whole batch, and through windows of it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

from torch import Tensor

from throughtime import state as states
from throughtime.bptt.base import GradientMethod, Position, differentiate
from throughtime.errors import SettingError
from throughtime.gradflow.unrolled import Loss, Timed


@dataclass(frozen=True)
class Full(GradientMethod):
    """Backpropagation through the whole batch (Werbos 1990): exact; memory grows with T."""

    cuts: ClassVar[bool] = False

    def advance(self, loss: Loss, batch: Timed, at: Position) -> tuple[Tensor, Position]:
        total, state = loss(batch[at.target : len(batch)], at.state)
        part = differentiate(total)
        state = states.detach(state)
        return part, Position(len(batch), state, len(batch), state)


@dataclass(frozen=True)
class Truncated(GradientMethod):
    """Truncated backpropagation, TBPTT(k1, k2) (Williams & Peng 1990; Sutskever 2013).

    Every k1 steps the losses of the last k1 steps are backpropagated through at most the last k2
    steps. The state is carried across; a window that reaches back before its k1 steps is run again
    from the state carried at its beginning, with the parameters as they are now. ``k1 = 1`` is the
    sliding window, ``k1 = k2`` the usual chunks. Cost: k2 / k1 forward and backward passes.
    """

    k1: int
    k2: int | None = None

    def __post_init__(self) -> None:
        if self.k2 is None:
            object.__setattr__(self, "k2", self.k1)
        if self.k1 < 1:
            raise SettingError(f"k1 must be at least 1, got {self.k1}")
        if self.reach < self.k1:
            raise SettingError(
                f"k2={self.k2} is shorter than k1={self.k1}: each window must reach back over "
                "all the losses it uses; choose k2 >= k1"
            )

    @property
    def reach(self) -> int:
        """k2, the number of steps a gradient may travel."""
        return self.k1 if self.k2 is None else self.k2

    def advance(self, loss: Loss, batch: Timed, at: Position) -> tuple[Tensor, Position]:
        stop = min(at.target + self.k1, len(batch))
        next_begin = max(0, stop + self.k1 - self.reach)  # where the next window will start
        next_begin = max(at.begin, min(next_begin, stop))
        cuts = sorted({at.begin, next_begin, at.target, stop})
        state, begin_state, total = at.begin_state, at.begin_state, None
        for t0, t1 in pairwise(cuts):
            part, state = loss(batch[t0:t1], state)
            if t1 == next_begin:
                begin_state = states.detach(state)
            if t0 >= at.target:
                total = part if total is None else total + part
        assert total is not None
        value = differentiate(total)
        return value, Position(stop, states.detach(state), next_begin, begin_state)
