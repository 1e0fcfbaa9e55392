"""What every gradient method is: it goes through a batch from update to update."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from throughtime import state as states
from throughtime.errors import SettingError
from throughtime.gradflow import Loss, Timed, along_time
from throughtime.gradflow import _contract as contract
from throughtime.gradflow._contract import Places
from throughtime.gradflow._rng_state import Generators
from throughtime.state import State

_CHECKED = 256  # steps, at most, that are run again to see whether the loss is what it must be
Update = Callable[[Tensor], None]


@dataclass(frozen=True)
class Estimate:
    """How far back the gradient reaches, as measured during training.

    Attributes:
        lag: K, the lag within which all but the allowed bias lies.
        rate: by which each older lag is weaker.
        updates: how many were made since.
    """

    lag: int
    rate: float
    updates: int = 0


@dataclass(frozen=True)
class Position:
    """Where a pass over a batch stands between two updates; all that is needed to go on.

    Attributes:
        target: the first step whose loss has not been used.
        state: the (detached) state before it.
        begin: the step from which the next graph is built, at or before target.
        begin_state: the state before it, computed when that step was last passed.
        estimate: of a method that measures.
    """

    target: int = 0
    state: State = None
    begin: int = 0
    begin_state: State = None
    estimate: Estimate | None = None

    @classmethod
    def start(cls, state: State, estimate: Estimate | None = None) -> Position:
        """Before the first step of a batch; arguments as of `at`."""
        return cls.at(0, state, estimate)

    @classmethod
    def at(cls, step: int, state: State, estimate: Estimate | None = None) -> Position:
        """Before a step, where the next graph begins too.

        Args:
            step: of the batch.
            state: before it; it is cut off from what produced it.
            estimate: of how far the gradient reaches, if there is one.
        """
        state = states.detach(state)
        return cls(step, state, step, state, estimate)


class GradientMethod(ABC):
    """A way to differentiate a loss through time.

    A value: two with the same settings are equal, and ``parse(str(method)) == method``. Generators
    are no part of that.
    """

    cuts: ClassVar[bool] = True  # whether the loss is taken in pieces, as only a sum can be
    generators: Generators = ()  # beside torch's own, those that the loss draws from

    def start(self, state: State) -> Position:
        """Before the first step. Raises SettingError for a state it cannot start from."""
        return Position.start(state)

    @abstractmethod
    def _advance(self, loss: Loss, batch: Timed, at: Position) -> tuple[Tensor, Position]:
        """`advance` over a batch that has a length and slices along time."""

    def advance(self, loss: Loss, batch: Any, at: Position) -> tuple[Tensor, Position]:
        """One update's worth: adds the gradient of the next steps' losses to ``.grad``.

        Args:
            loss, batch: as in `backward`, which has looked whether they are what they must be.
            at: where the pass stands; ``at.target < T``.

        Returns:
            The (detached) summed loss of those steps and the position after them.
        """
        return self._advance(loss, along_time(batch), at)

    def backward(
        self, loss: Loss, batch: Any, state: State, on_update: Update | None = None
    ) -> tuple[Tensor, State]:
        """Differentiates the whole batch: adds the gradient to ``.grad``.

        Args:
            loss: ``loss(batch, state) -> (summed loss, state)``.
            batch: T steps: a tensor ``[T, B, ...]``, a tuple, list or dict (any pytree) of such, or
                anything with ``len(batch) == T`` and ``batch[t0:t1]``; see `gradflow.along_time`.
            state: before the first step; gradients do not flow into it.
            on_update: called with the loss of each update's steps, as soon as ``.grad`` is there.

        Returns:
            The summed loss and the state after the last step, both detached.

        Raises:
            SettingError: for an empty batch or one that cannot be cut along time, a loss that is
                not a scalar with a gradient or not a sum over time, and a module that keeps hidden
                state inside.
            NonFiniteError: for a loss that is infinite or NaN. ``.grad`` is of no use then; that of
                a finite loss may still be infinite, which `clip` tells.
        """
        batch = along_time(batch)
        total, at = None, self.start(state)
        known = self._check(loss, batch, at.state, Places.first(batch, 1))
        while at.target < len(batch):
            before = at
            part, at = self._advance(loss, batch, before)
            if not known and 1 < at.target - before.target <= _CHECKED:
                # No loss so far: what is wrong with it shows where there is one.
                middle = (before.target + at.target) // 2
                places = Places(before.target, middle, at.target)
                known = self._check(loss, batch, before.state, places)
            if not bool(torch.isfinite(part)):
                steps = before.target, at.target
                contract.check_finite(loss, batch, before.state, *steps, self.generators, False)
                raise contract.non_finite(*steps)
            total = part if total is None else total + part
            if on_update is not None:
                on_update(part)
        assert total is not None
        return total, at.state

    def _check(self, loss: Loss, batch: Timed, state: State, places: Places) -> bool:
        return contract.check(loss, batch, state, places, self.cuts, self.generators)


def differentiate(total: Tensor) -> Tensor:
    """Adds the gradient of a summed loss to ``.grad``; returns its value."""
    contract.scalar(total, differentiable=True)
    contract.backward([total], [None])
    return total.detach()


def settings_text(method: Any, first: str) -> str:
    """``first=…`` and every other setting that is not its default, as `parse` reads them."""
    named = [
        field
        for field in dataclasses.fields(method)
        if field.compare and (field.name == first or getattr(method, field.name) != field.default)
    ]
    named.sort(key=lambda field: field.name != first)
    return ",".join(
        f"{field.name}={getattr(method, field.name)}".removesuffix(".0") for field in named
    )


def whole_number(name: str, value: int) -> None:
    """Raises SettingError unless a setting is a whole number of at least 1."""
    if value < 1:
        raise SettingError(f"{name} must be at least 1, got {value}")
