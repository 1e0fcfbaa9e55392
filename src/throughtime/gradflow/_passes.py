"""Passes over a batch without a graph: the states at some steps, and before each block of time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from throughtime import state as states
from throughtime.gradflow._contract import Loss, check_finite, finite
from throughtime.gradflow.batches import Segment, Timed
from throughtime.state import State

BYTES = 2 << 20  # of states in a block: so many are worked on without leaving the cache


@torch.no_grad()
def states_at(
    loss: Loss, batch: Timed, state: State, places: Sequence[int], first: int = 0
) -> dict[int, State]:
    """The states S_t after t steps of a batch, by t. state: the one after `first` steps."""
    known, at, now = {}, first, states.detach(state)
    for place in sorted(set(places)):
        if place > at:
            now, at = states.detach(loss(batch[at:place], now)[1]), place
        known[place] = now
    return known


def blocks(loss: Loss, batch: Timed, state: State) -> Iterator[tuple[Segment, State]]:
    """The blocks of a batch, the last one first, each with the (detached) state before it.

    Blocks have as many steps as `BYTES` of states. Where there is no state before the first step,
    that step is a block of its own. Raises NonFiniteError naming the first step whose loss or
    state is not finite.
    """
    length = len(batch)
    segments: list[tuple[Segment, State]] = []
    at, state = 0, states.detach(state)
    size = 1 if state is None else _steps(state)
    with torch.no_grad():
        while at < length:
            segment = Segment(batch, at, min(at + size, length))
            segments.append((segment, state))
            at = at + len(segment)
            if at == length:
                break
            value, after = loss(segment[0 : len(segment)], state)
            if not (math.isfinite(float(value)) and finite(after)):
                check_finite(loss, segment.batch, state, segment.begin, segment.end)
            state = states.detach(after)
            size = _steps(state)
    yield from reversed(segments)


def _steps(state: State) -> int:
    size = sum(p.numel() * p.element_size() for p in states.leaves(state) if p.is_floating_point())
    return max(1, BYTES // max(1, size))
