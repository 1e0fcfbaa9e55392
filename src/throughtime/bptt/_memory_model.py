"""The memory that checkpointing takes: measured on a loss, and a budget spent as well as can be.

Counted is what is kept for the backward pass: the tensors that autograd saves for one block (its
tape), the states between blocks, and the states of generators that go with them. Parameters, the
data and what an operation needs while it runs are not counted.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import ceil, isqrt

import torch
from pydantic import ByteSize, TypeAdapter
from torch import Tensor

from throughtime import state as states
from throughtime.bptt import revolve
from throughtime.errors import SettingError
from throughtime.gradflow import Loss, Timed
from throughtime.gradflow import _rng_state as rng_state
from throughtime.gradflow._rng_state import Generators
from throughtime.gradflow._unrolled import graph_inputs
from throughtime.state import State

_SIZE = re.compile(r"\d+(\.\d+)?\s*(([kmgt]i?)?b)?", re.IGNORECASE)
_BYTES = TypeAdapter(ByteSize)
_PROBE = 8  # steps whose tape is measured
_RUNNING = 5  # states in hand beside the kept ones: around a block, their gradients, and the last
_CALL = 20  # what a call costs whatever its length, in steps; a round figure for small networks
_BACKWARD = 3  # what a block with a graph costs, forward and backward, in advances


def size(text: str | int) -> int:
    """Bytes from "512MB", "1.5 GB", "300 kB", "2GiB" or a number of bytes. Raises SettingError."""
    plain = str(text).strip()
    count = int(_BYTES.validate_python(plain)) if _SIZE.fullmatch(plain) else 0
    if count <= 0:
        raise SettingError(f"memory={text!r} is not a size like 512MB, 1.5GB or 300kB")
    return count


def readable(count: int) -> str:
    """Bytes in words, rounded up."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            tenths = -(-count * 10 // factor)
            return f"{tenths / 10:g} {unit}" if tenths < 100 else f"{-(-count // factor)} {unit}"
    return f"{count} B"


@dataclass(frozen=True)
class Plan:
    """Steps in a block, and states kept at once."""

    block: int
    slots: int


@dataclass(frozen=True)
class Cost:
    """Bytes: what a tape takes whatever its length, and per step; a state; what goes with it."""

    fixed: int
    step: int
    state: int
    random: int

    def needed(self, block: int, slots: int) -> int:
        """What a plan takes."""
        kept = slots * (self.state + self.random)
        return self.fixed + self.step * block + kept + _RUNNING * self.state + self.random

    def slots(self, block: int, budget: int) -> int:
        """How many states a budget has room for beside the tape of a block; negative: none."""
        return (budget - self.needed(block, 0)) // max(1, self.state + self.random)


def measure(loss: Loss, batch: Timed, begin: int, state: State, given: Generators = ()) -> Cost:
    """What the first steps of a batch show: two tapes, so that their fixed part is separated.

    The generators are left as they were. What both tapes hold was there before: parameters, data.
    """
    long = min(_PROBE, len(batch) - begin)
    short = max(1, long // 2)
    with rng_state.forked(given) as before:
        first, _held = _tape(loss, batch, slice(begin, begin + short), state)
        second, (_, after) = _tape(loss, batch, slice(begin, begin + long), state)
        drawn = not before.equals(rng_state.capture(given))
    shared = first.keys() & second.keys()
    sizes = [sum(tape[key] for key in tape.keys() - shared) for tape in (first, second)]
    step = max(0, ceil((sizes[1] - sizes[0]) / max(1, long - short)))
    return Cost(
        fixed=max(0, sizes[1] - long * step),
        step=step,
        state=sum(part.numel() * part.element_size() for part in states.leaves(after)),
        random=before.nbytes if drawn else 0,
    )


def _tape(
    loss: Loss, batch: Timed, steps: slice, state: State
) -> tuple[dict[int, int], tuple[Tensor, State]]:
    """The bytes of each storage that autograd saves, by address; and what keeps them alive."""
    saved_bytes: dict[int, int] = {}

    def note(saved: Tensor) -> Tensor:
        if saved.layout is torch.strided:
            storage = saved.untyped_storage()
            saved_bytes[storage.data_ptr()] = storage.nbytes()
        return saved.detach()  # with its graph, an output would keep itself alive for ever

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
        return saved_bytes, loss(batch[steps], graph_inputs(state))


def choose(cost: Cost, steps: int, memory: str | int) -> Plan:
    """The plan within the budget that takes the least time, by counting.

    Raises SettingError, with the least that would do, where none fits.
    """
    budget = size(memory)
    least = cost.needed(1, 1)
    if least > budget:
        raise SettingError(
            f"memory={memory!r} cannot hold one step and the state before it; "
            f"the least is {readable(least)}"
        )
    lengths = {-(-steps // count) for count in range(1, isqrt(steps) + 1)}
    lengths |= set(range(1, min(steps, isqrt(steps) + 1) + 1))
    plans = []
    for block in lengths:
        slots = cost.slots(block, budget)
        if slots >= 1:
            count = -(-steps // block)
            slots = min(slots, max(1, count - 1))
            calls = revolve.advances(count, slots) + _BACKWARD * count
            plans.append((calls * (block + _CALL), block, slots))
    _, block, slots = min(plans)
    return Plan(block, slots)
