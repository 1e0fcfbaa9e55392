"""What the models share that are fitted at once, without a loop of gradient steps.

Their state is ``(count, memory)``: how many elements of the sequence have been seen, int64
``[1, B]``, and tensors with the batch on dim 1. Everything is float64.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from throughtime import state as states
from throughtime.data.batching import Batch
from throughtime.data.sequences import Sequences
from throughtime.emissions import Distribution, Emission
from throughtime.errors import DataError, SettingError
from throughtime.models.base import SequenceModel, choose
from throughtime.state import State
from throughtime.types import Counted, uncounted

_NUMBERS = 2**22  # of states, or of probabilities, held at once


class ClosedForm(SequenceModel):
    """A model that `begin` fits in full, and that gives the distributions of many steps at once."""

    closed_form = True

    def __init__(self, emission: Emission, num_differencing: int = 0) -> None:
        super().__init__(emission, num_differencing)
        self.initial_raw = self.initial_raw.double()

    @abstractmethod
    def memory(self, rows: int, cut: bool = False) -> State:
        """The memory of `rows` sequences before their first element.

        cut: elements came before, and nothing is known of them.
        """

    @abstractmethod
    def advance(self, x: Tensor, state: State) -> State:
        """The memory after one more element, ``[B]`` symbols or ``[B, D]`` values (NaN: missing).

        state: before it, its count included.
        """

    @abstractmethod
    def predictive(self, state: State) -> Distribution:
        """The distributions ``[T, B]`` of the next elements in states ``[T, B, …]``."""

    @abstractmethod
    def predict(self, data: Sequences, rows: Tensor) -> Distribution:
        """The distribution of some steps, each given all that comes before it in its sequence.

        Args:
            data: as the model sees them.
            rows: int64 ``[n]``, which steps of ``data.values``; scored ones.

        Returns:
            A distribution ``[n]``, the same as step by step.
        """

    def log_prob_at(self, data: Sequences, rows: Tensor) -> Tensor:
        """Nats of some steps as the model sees them, float64 ``[n]``; arguments as `predict`."""
        size = max(1, _NUMBERS // (self.emission.num_parameters if self.emission.symbols else 1))
        if len(rows) <= size:
            return self.predict(data, rows).log_prob(data.values[rows])
        return torch.cat([self.log_prob_at(data, part) for part in rows.split(size)])

    def runs(self, data: Sequences, on_steps: Counted = uncounted) -> Iterator[Tensor]:
        rows = data.scored().nonzero().flatten()
        nats = torch.zeros(len(data.values), dtype=torch.float64)
        if len(rows):
            nats[rows] = self.log_prob_at(data, rows)
        yield nats

    def initial_state(self, batch_size: int) -> State:
        return torch.zeros(1, batch_size, dtype=torch.int64), self.memory(batch_size)

    def members_step(
        self,
        previous: Tensor | None,
        state: State,
        covariates: Tensor | None,
        series: Tensor | None,
    ) -> tuple[Distribution, State]:
        if previous is not None:
            state = self._observe(previous, state)
        return self._initial_apart(
            state[0][0] < self.num_differencing, self.predictive(state)[0]
        ), state

    def members_distribution(self, batch: Batch, state: State) -> tuple[Distribution, State]:
        held, after = self._states(batch, state)
        size = sum(part.numel() for part in states.leaves(held[0]))
        at_once = max(1, _NUMBERS // max(1, size))
        distribution = stacked(
            [
                self.predictive(states.concatenate(held[t : t + at_once], dim=0))
                for t in range(0, len(held), at_once)
            ]
        )
        if self.num_differencing and batch.initial is not None:
            distribution = self._initial_apart(batch.initial, distribution)
        return distribution, after

    def _states(self, batch: Batch, state: State) -> tuple[list[State], State]:
        """The state before each step of a batch, and after the last but one of its elements."""
        rows = batch.x.shape[1]
        cut = torch.full((1, rows), self.num_differencing), self.memory(rows, cut=True)
        fresh, held = self.initial_state(rows), []
        resets, starts = batch.reset.any(1).tolist(), batch.start.any(1).tolist()
        for t in range(len(batch)):
            start = batch.start[t]
            if resets[t]:
                state = _where(batch.reset[t], _where(start, fresh, cut), state)
            after = self._observe(batch.previous[t], state)
            state = _where(start, state, after) if starts[t] else after
            held.append(state)
        return held, state

    def _observe(self, x: Tensor, state: State) -> State:
        if self.num_differencing:  # an initial value says nothing about the differences
            x = torch.where((state[0][0] < self.num_differencing).unsqueeze(-1), torch.nan, x)
        return state[0] + 1, self.advance(x, state)

    def _initial_apart(self, initial: Tensor, distribution: Distribution) -> Distribution:
        if not self.num_differencing:
            return distribution
        return choose(initial, self.emission.distribution(self.initial_raw), distribution)


class NotConverged(DataError):
    """An optimiser that has not found the most likely parameters."""


class Unfitted(SettingError):
    """A closed form that `begin` has not been called on."""

    def __init__(self) -> None:
        super().__init__("this model has not been fitted; call fit(train) first")


def stacked(parts: list[Distribution]) -> Distribution:
    """Distributions ``[T_i, B]`` one after the other."""
    if len(parts) == 1:
        return parts[0]
    tensors: dict[str, Any] = {
        field.name: torch.cat([getattr(part, field.name) for part in parts])
        for field in dataclasses.fields(parts[0])  # type: ignore[arg-type]
    }
    return dataclasses.replace(parts[0], **tensors)  # type: ignore[type-var]


def _where(rows: Tensor, chosen: State, other: State) -> State:
    """The rows of one state where `rows` ``[B]`` is True, of the other elsewhere."""

    def each(one: Tensor, two: Tensor) -> Tensor:
        return torch.where(rows.reshape(1, -1, *(1,) * (one.dim() - 2)), one, two)

    return states.apply(each, chosen, other)
