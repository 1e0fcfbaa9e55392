"""Which states to keep when a chain of blocks is differentiated from its end: the best plan.

To differentiate block i, its beginning must be known; only a few of the states between blocks are
kept, and the others are found again by advancing from the last kept one. Griewank & Walther 2000
("Revolve", algorithm 799) give the plan with the fewest advances in closed form.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import comb

from throughtime.errors import SettingError


@dataclass(frozen=True)
class Move:
    """From the last kept state, the one before block `begin`, to the state before block `end`.

    tape: then block `end` is run with a graph and differentiated, and a kept state before it is
    dropped; otherwise the state before it is kept.
    """

    begin: int
    end: int
    tape: bool


def moves(blocks: int, slots: int) -> Iterator[Move]:
    """The plan with the fewest advances.

    Args:
        blocks: N, of the chain.
        slots: c, states that are kept at once, at most; the one before the first block is kept from
            the beginning and takes one.

    Raises:
        SettingError: where there is no block or no slot.
    """
    if blocks < 1 or slots < 1:
        raise SettingError(f"blocks={blocks}, slots={slots}: each is at least 1")
    kept, end = [0], blocks
    while end:
        begin, free = kept[-1], slots - len(kept) + 1
        tape = free == 1 or end - begin == 1
        target = end - 1 if tape else begin + _stride(end - begin, free)
        yield Move(begin, target, tape)
        if tape:
            end -= 1
            if begin == end:
                kept.pop()
        else:
            kept.append(target)


def advances(blocks: int, slots: int) -> int:
    """How many blocks are run without a graph in the best plan: r N - C(c + r, r - 1)."""
    r = _repetitions(blocks, slots)
    return r * blocks - _longest(slots + 1, r - 1)


def _longest(slots: int, r: int) -> int:
    """The longest chain whose blocks are each advanced over at most r times."""
    return comb(slots + r, slots) if r >= 0 else 0


def _repetitions(blocks: int, slots: int) -> int:
    """The least r with which a chain can be differentiated."""
    r, longest = 0, 1
    while longest < blocks:
        r += 1
        longest = longest * (slots + r) // r
    return r


def _stride(blocks: int, slots: int) -> int:
    """How many blocks lie before the next kept state; the longest of the best strides.

    A stride j is best if the j blocks before it can be done with r - 1 repetitions, the others
    with r and one slot less, and none with fewer.
    """
    r = _repetitions(blocks, slots)
    return min(_longest(slots, r - 1), blocks - _longest(slots - 1, r - 1))
