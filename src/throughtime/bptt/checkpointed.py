"""The exact gradient in a declared amount of memory: states are kept now and then, the rest redone.

Time is cut into blocks. A block is run with a graph and differentiated at once, the last one first;
the gradient that reaches its beginning is handed to the block before. Where a block begins is kept,
or found again from the last kept state, in the order of `revolve`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from throughtime import state as states
from throughtime.bptt import _memory_model as memory_model
from throughtime.bptt import revolve
from throughtime.bptt._memory_model import Plan
from throughtime.bptt.base import GradientMethod, Position
from throughtime.errors import SettingError
from throughtime.gradflow import Loss, Timed, along_time
from throughtime.gradflow import _contract as contract
from throughtime.gradflow import _rng_state as rng_state
from throughtime.gradflow._rng_state import Generators, RngState
from throughtime.gradflow._unrolled import graph_inputs
from throughtime.state import State


@dataclass(frozen=True)
class Checkpointed(GradientMethod):
    """Backpropagation through the whole batch inside a budget: the gradient of `Full`, exactly.

    T steps take one pass forward more than `Full` while T <= slots², two while T <= slots³ / 2, and
    so on (Griewank & Walther 2000). A block is run more than once, with the same numbers each time:
    the states of torch's generators, and of the given `generators`, are kept with each state, and
    stand at the end where one forward pass leaves them.

    Args:
        memory: "512MB", "1.5GB" or bytes: what may be kept for the backward pass; what the graph of
            a step and a state take is measured on the first steps (see `_memory_model`).
        slots: instead, how many states may be kept at once; blocks are about as many steps.
        generators: that the loss draws from, beside torch's own.

    Raises:
        SettingError: for both or none of memory and slots, or a size that is none; in use, for a
            budget that cannot be met, and for a block that does not end as it did before.
    """

    memory: str | int | None = None
    slots: int | None = None
    generators: Generators = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if (self.memory is None) == (self.slots is None):
            raise SettingError("Checkpointed takes memory='512MB' or slots=32: give one of them")
        if self.slots is not None and self.slots < 1:
            raise SettingError(f"slots={self.slots}: at least one state must be kept")
        if self.memory is not None:
            memory_model.size(self.memory)
            text = f"{self.memory}B" if isinstance(self.memory, int) else self.memory
            object.__setattr__(self, "memory", text.replace(" ", ""))
        object.__setattr__(self, "generators", tuple(self.generators))

    def __str__(self) -> str:
        return f"slots={self.slots}" if self.memory is None else f"memory={self.memory}"

    def plan(self, loss: Loss, batch: Any, state: State, begin: int = 0) -> Plan:
        """How the steps from `begin` on are cut, and how many states are kept.

        Args:
            loss, batch: as in `backward`.
            state: before step `begin`.

        Raises:
            SettingError: where the memory cannot hold one step.
        """
        batch = along_time(batch)
        steps = len(batch) - begin
        if self.memory is not None:
            cost = memory_model.measure(loss, batch, begin, state, self.generators)
            return memory_model.choose(cost, steps, self.memory)
        assert self.slots is not None
        blocks = -(-steps // self.slots)
        return Plan(-(-steps // blocks), self.slots)

    def _advance(self, loss: Loss, batch: Timed, at: Position) -> tuple[Tensor, Position]:
        with rng_state.uncached_autocast():
            plan = self.plan(loss, batch, at.state, at.target)
            cuts = [*range(at.target, len(batch), plan.block), len(batch)]
            total, state = _Chain(loss, batch, cuts, self.generators).run(at.state, plan.slots)
        return total, Position.at(len(batch), state)


@dataclass(frozen=True)
class _Kept:
    block: int
    state: State
    random: RngState


class _Chain:
    """The blocks of a batch, gone through once from the end."""

    def __init__(self, loss: Loss, batch: Timed, cuts: list[int], given: Generators) -> None:
        self.loss, self.batch, self.cuts, self.given = loss, batch, cuts, given
        self.parts: Tensor | None = None  # the losses of blocks that were advanced over
        self.after: State = None  # the state after the block to differentiate, as it was used
        self.cotangents: list[Tensor | None] = []  # the gradient that reaches it
        self.depends = False

    def run(self, state: State, slots: int) -> tuple[Tensor, State]:
        """Adds the gradient to ``.grad``; returns the summed loss and the last state."""
        kept = [_Kept(0, state, rng_state.capture(self.given))]
        here: _Kept | None = kept[0]
        blocks = len(self.cuts) - 1
        total, last, end = None, None, kept[0].random
        for move in revolve.moves(blocks, slots):
            if here is not kept[-1]:
                rng_state.restore(kept[-1].random, self.given)
            state = kept[-1].state
            for block in range(move.begin, move.end):
                state = self.advanced(block, state)
            if not move.tape:
                here = _Kept(move.end, states.clone(state), self.random(kept[-1].random))
                kept.append(here)
                continue
            part, state = self.taped(move.end, state, last=move.end == blocks - 1)
            if move.end == blocks - 1:
                last, end = state, rng_state.capture(self.given)
            total = part if total is None else part + total
            here = None
            if kept[-1].block == move.end:
                kept.pop()
        rng_state.restore(end, self.given)
        assert total is not None
        if not self.depends:
            contract.scalar(total, differentiable=True)
        return total, last

    def random(self, before: RngState) -> RngState:
        """Where the generators stand; the same value if nothing was drawn, which takes no room."""
        now = rng_state.capture(self.given)
        return before if before.equals(now) else now

    def steps(self, block: int) -> slice:
        return slice(self.cuts[block], self.cuts[block + 1])

    @torch.no_grad()
    def advanced(self, block: int, state: State) -> State:
        """The state after a block, found without a graph."""
        part, state = self.loss(self.batch[self.steps(block)], state)
        if self.parts is None:
            self.parts = part.new_empty(len(self.cuts) - 1)
        self.parts[block] = part
        return states.detach(state)

    def taped(self, block: int, state: State, last: bool) -> tuple[Tensor, State]:
        """Differentiates a block; returns its loss and the state after it, both detached."""
        begin = graph_inputs(state) if block else states.detach(state)
        with torch.enable_grad():
            part, end = self.loss(self.batch[self.steps(block)], begin)
        contract.scalar(part)
        ends = list(states.leaves(end))
        if not last:  # the first time, it was without a graph
            self.compare(block, [part.detach(), *states.leaves(states.detach(end))])
        self.after = None
        self.depends |= part.requires_grad
        reached = [] if last else list(zip(ends, self.cotangents, strict=True))
        pairs = [(one, two) for one, two in reached if one.requires_grad and two is not None]
        if part.requires_grad:
            pairs.insert(0, (part, torch.ones_like(part)))
        if pairs:
            contract.backward([one for one, _ in pairs], [two for _, two in pairs])
        self.after = begin
        self.cotangents = [leaf.grad for leaf in states.leaves(begin)]
        return part.detach(), states.detach(end)

    def compare(self, block: int, now: list[Tensor]) -> None:
        """Refuses a block that does not end as it did when it was first run."""
        assert self.parts is not None
        before = [self.parts[block], *states.leaves(self.after)]
        if not contract.alike(before, now):
            raise SettingError(
                f"steps {self.cuts[block]} to {self.cuts[block + 1] - 1} did not give the same "
                "loss and state when they were run again: a module keeps hidden state inside (pass "
                "it in and out as `state`) or draws from a generator of its own (give it to "
                "Checkpointed as generators=(…,))"
            )
