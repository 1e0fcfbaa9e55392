"""The plan of kept states against every other plan there is."""

import heapq
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.profiles import examples

from throughtime.bptt.revolve import Move, advances, moves
from throughtime.errors import SettingError


@cache
def by_recurrence(blocks, slots):
    """The fewest advances by dynamic programming over the place of the next kept state."""
    if blocks == 1:
        return 0
    if slots == 1:
        return blocks * (blocks - 1) // 2
    return min(
        j + by_recurrence(blocks - j, slots - 1) + by_recurrence(j, slots) for j in range(1, blocks)
    )


def by_search(blocks, slots):
    """The fewest advances by Dijkstra over everything that could be done at all.

    A situation is the kept states, where the running state is, and what is still to be taped. One
    may advance, keep, drop, load any kept state, or tape the last block when standing before it.
    """
    start = (frozenset([0]), 0, blocks)
    queue, order, known = [(0, 0, start)], 1, {start: 0}
    while queue:
        cost, _, (kept, at, end) = heapq.heappop(queue)
        if end == 0:
            return cost
        if known[kept, at, end] < cost:
            continue
        result = [(0, (kept, other, end)) for other in kept]
        result += [(0, (kept - {other}, at, end)) for other in kept]
        if at < end - 1:
            result.append((1, (kept, at + 1, end)))
        if len(kept) < slots:
            result.append((0, (kept | {at}, at, end)))
        if at == end - 1:
            result.append((0, (kept, blocks, end - 1)))  # at the end, so of no more use
        for more, situation in result:
            if cost + more < known.get(situation, 10**9):
                known[situation] = cost + more
                heapq.heappush(queue, (cost + more, order, situation))
                order += 1
    raise AssertionError("no plan tapes every block")


def played(blocks, slots):
    """Carries a plan out, checks that each move can be made, and counts."""
    kept, taped, count, most = [0], [], 0, 1
    for move in moves(blocks, slots):
        assert move.begin == kept[-1]
        assert move.begin <= move.end < blocks
        count += move.end - move.begin
        if move.tape:
            taped.append(move.end)
            if kept[-1] == move.end:
                kept.pop()
        else:
            kept.append(move.end)
        most = max(most, len(kept))
    assert taped == list(range(blocks))[::-1]
    assert kept == []
    assert most <= slots
    return count


@pytest.mark.parametrize("blocks", range(1, 8))
def test_no_plan_of_any_kind_advances_less(blocks):
    for slots in range(1, blocks + 1):
        assert by_search(blocks, slots) == by_recurrence(blocks, slots) == played(blocks, slots)


@pytest.mark.parametrize("blocks", range(1, 31))
def test_the_count_is_the_least_for_all_chains_of_thirty_blocks(blocks):
    for slots in range(1, 33):
        least = by_recurrence(blocks, slots)
        assert played(blocks, slots) == least
        assert advances(blocks, slots) == least


@examples(60)
@given(blocks=st.integers(1, 3000), slots=st.integers(1, 60))
def test_long_chains_are_carried_out_as_counted(blocks, slots):
    if slots > 2 or blocks < 400:
        assert played(blocks, slots) == advances(blocks, slots)


def test_one_pass_is_enough_where_every_state_is_kept():
    assert list(moves(3, 3)) == [
        Move(0, 1, tape=False),
        Move(1, 2, tape=False),
        Move(2, 2, tape=True),
        Move(1, 1, tape=True),
        Move(0, 0, tape=True),
    ]
    assert advances(10_000, 9_999) == 9_999
    assert advances(10_000, 10**6) == 9_999


def test_nothing_to_plan_is_refused():
    for blocks, slots in ((0, 1), (1, 0)):
        with pytest.raises(SettingError, match="each is at least 1"):
            list(moves(blocks, slots))
