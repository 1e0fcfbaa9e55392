"""Backpropagation through the whole batch, and truncated backpropagation."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, cast

from torch import Tensor

from throughtime import state as states
from throughtime.bptt.base import GradientMethod, Position, differentiate, whole_number
from throughtime.errors import SettingError
from throughtime.gradflow import Loss, Timed


@dataclass(frozen=True)
class Full(GradientMethod):
    """Backpropagation through the whole batch (Werbos 1990): exact; memory grows with T."""

    cuts: ClassVar[bool] = False

    def __str__(self) -> str:
        return "full"

    def _advance(self, loss: Loss, batch: Timed, at: Position) -> tuple[Tensor, Position]:
        total, state = loss(batch[at.target : len(batch)], at.state)
        return differentiate(total), Position.at(len(batch), state)


@dataclass(frozen=True)
class Truncated(GradientMethod):
    """Truncated backpropagation, TBPTT(k1, k2) (Williams & Peng 1990; Sutskever 2013).

    Every k1 steps the losses of the last k1 steps are backpropagated through at most the last k2
    steps. The state is carried across; where k2 > k1, the steps before the k1 ones are run again
    from the state carried at their beginning, with the parameters as they are now. ``k1 = 1`` is
    a sliding context, ``k1 = k2`` the usual chunks. Cost: k2 / k1 forward and backward passes.

    Args:
        k1: steps from one update to the next.
        k2: the number of steps a gradient may travel, at least k1; None: k1.

    Raises:
        SettingError: for k1 < 1 and k2 < k1.
    """

    k1: int
    k2: int = cast("int", None)  # k1, once it is made

    def __post_init__(self) -> None:
        whole_number("k1", self.k1)
        object.__setattr__(self, "k2", cast("int | None", self.k2) or self.k1)
        if self.k2 < self.k1:
            raise SettingError(
                f"k2={self.k2} is shorter than k1={self.k1}: a gradient travels over all the steps "
                "whose losses are used at once; choose k2 >= k1"
            )

    def __str__(self) -> str:
        return f"{self.k1}" if self.k2 == self.k1 else f"{self.k1},{self.k2}"

    def _advance(self, loss: Loss, batch: Timed, at: Position) -> tuple[Tensor, Position]:
        stop = min(at.target + self.k1, len(batch))
        next_begin = max(0, stop + self.k1 - self.k2)  # where the next graph will start
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
