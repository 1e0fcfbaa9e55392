"""What every gradient method is: it goes through a batch from update to update."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from throughtime import state as states
from throughtime.errors import SettingError
from throughtime.state import State
from throughtime.unrolled import Loss, Timed

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
        Raises SettingError for an empty batch or a loss that is not a scalar with a gradient.
        """
        if len(batch) == 0:
            raise SettingError("the batch has no time steps; nothing to differentiate")
        total, at = None, Position.start(state)
        while at.target < len(batch):
            part, at = self.advance(loss, batch, at)
            total = part if total is None else total + part
            if on_update is not None:
                on_update(part)
        assert total is not None
        return total, at.state


def differentiate(total: Tensor) -> Tensor:
    """Adds the gradient of a summed loss to ``.grad``; returns its value."""
    if total.dim() != 0 or not total.requires_grad:
        raise SettingError(
            "loss(batch, state) must return a scalar that depends on the parameters, "
            f"then the state; got shape {list(total.shape)}, requires_grad={total.requires_grad}"
        )
    total.backward()
    return total.detach()
