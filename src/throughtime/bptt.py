"""Gradient methods: how far back through time a loss is differentiated. Each is a value.

All differentiate any ``loss(batch, state) -> (summed loss, state)`` over any batch that has
``len(batch) == T`` and ``batch[t0:t1]`` along time, and add to ``.grad``. They are interchangeable
and are tested against each other and against hand-built graphs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from throughtime import state as states
from throughtime.errors import SettingError
from throughtime.state import State


class Timed(Protocol):
    """Anything that can be cut along time."""

    def __len__(self) -> int: ...
    def __getitem__(self, steps: slice, /) -> Any: ...


Loss = Callable[[Any, State], tuple[Tensor, State]]
Update = Callable[[Tensor], None]


@dataclass(frozen=True)
class Position:
    """Where a pass over a batch stands between two updates; all that is needed to go on.

    target: the first step whose loss has not been used. state: the (detached) state before it.
    begin: the step from which the next window is run, at or before target. begin_state: the state
    before it, computed when that step was last passed.
    """

    target: int = 0
    state: State = None
    begin: int = 0
    begin_state: State = None

    @classmethod
    def start(cls, state: State) -> Position:
        """Before the first step of a batch."""
        state = states.detach(state)
        return cls(0, state, 0, state)


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


def _differentiate(total: Tensor) -> Tensor:
    if total.dim() != 0 or not total.requires_grad:
        raise SettingError(
            "loss(batch, state) must return a scalar that depends on the parameters, "
            f"then the state; got shape {list(total.shape)}, requires_grad={total.requires_grad}"
        )
    total.backward()
    return total.detach()


@dataclass(frozen=True)
class Full(GradientMethod):
    """Backpropagation through the whole batch (Werbos 1990): exact; memory grows with T."""

    def advance(self, loss: Loss, batch: Timed, at: Position) -> tuple[Tensor, Position]:
        total, state = loss(batch[at.target : len(batch)], at.state)
        part = _differentiate(total)
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
        value = _differentiate(total)
        return value, Position(stop, states.detach(state), next_begin, begin_state)


def parse(text: str) -> GradientMethod:
    """The method that a command line names: "full", "K" or "K1,K2"."""
    if text == "full":
        return Full()
    try:
        steps = [int(part) for part in text.split(",")]
    except ValueError:
        steps = []
    if len(steps) not in (1, 2):
        raise SettingError(f"--bptt {text!r} is not full, K or K1,K2 (for example 64 or 64,128)")
    return Truncated(*steps)


def describe(method: GradientMethod) -> str:
    """What `parse` reads back."""
    if isinstance(method, Truncated):
        return f"{method.k1},{method.reach}"
    return "full"


def clip(parameters: list[Tensor], limit: float) -> tuple[Tensor, bool]:
    """Scales the gradients down to a joint norm of at most `limit` (Pascanu et al. 2013).

    Returns the norm before clipping and whether it was above the limit. Non-finite gradients are
    left as they are, for the caller to skip.
    """
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    clipped = bool(norm > limit) and bool(torch.isfinite(norm))
    if clipped:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm, clipped
