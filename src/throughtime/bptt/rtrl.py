"""The exact gradient forward in time: nothing of the past is kept but its derivatives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from throughtime import state as states
from throughtime.bptt.base import GradientMethod, Position, differentiate, whole_number
from throughtime.errors import SettingError
from throughtime.gradflow import Loss, Timed
from throughtime.state import State


@dataclass(frozen=True)
class Online(GradientMethod):
    """Real-time recurrent learning (RTRL; Williams & Zipser 1989) with an update every k1 steps.

    The state brings the derivatives of itself by the parameters along, step by step, so each
    segment of k1 steps has the gradient of its losses through the whole past, exactly, and memory
    does not grow with T. That is cheap where the recurrence is element-wise (Menick et al. 2021;
    Zucchet et al. 2023): pass the state that ``layer.traced(...)`` of a `MinGRU` makes. With fixed
    parameters the sum is Full's gradient whatever k1 is; when parameters are updated on the way,
    older derivatives are those by the parameters of their time.

    Within a segment the losses are backpropagated as usual. A larger k1 costs memory for k1 steps
    and saves time: the traces are brought up to date once per segment.

    Args:
        k1: steps from one update to the next.

    Raises:
        SettingError: for k1 < 1; in use, for a state without traces.
    """

    k1: int = 1

    def __post_init__(self) -> None:
        whole_number("k1", self.k1)

    def __str__(self) -> str:
        return "online" if self.k1 == 1 else f"online={self.k1}"

    def start(self, state: State) -> Position:
        if not states.traced(state):
            raise SettingError(
                "Online needs a state that carries its own past: pass layer.traced(...) of a MinGRU"
            )
        return super().start(state)

    def _advance(self, loss: Loss, batch: Timed, at: Position) -> tuple[Tensor, Position]:
        stop = min(at.target + self.k1, len(batch))
        total, state = loss(batch[at.target : stop], at.state)
        if not states.traced(state):
            raise SettingError(
                "the loss returned a state without traces: it must return the state that the "
                "layer gave back for its traced one"
            )
        return differentiate(total), Position.at(stop, state)
