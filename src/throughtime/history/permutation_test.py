"""Does order matter at all? A window against the memoryless distribution, on data that chose
nothing.

The p-value is that of a permutation test. If the steps judged are exchangeable (independent and
alike, order does not matter), any reordering of them is as likely as the one seen, so the rank of
their likelihood among those of reorderings is uniform: (b + 1) / (m + 1) for b of m reorderings at
least as likely (Phipson & Smyth 2010). Only one distribution is tested, it was fitted and chosen on
earlier data, and so the level holds by construction, whatever the distribution is.

What the past is worth is measured beside it: the same distribution given the true past of each
step, and given the past of another step, in blocks, so that each false past is a true stretch of
the data.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from throughtime import rng
from throughtime.evaluation.bootstrap import mean_interval
from throughtime.history.lag_selection import Law
from throughtime.history.parts import Ints, Part

LEVEL = 0.01  # of the test: at most so often does order seem to matter where it does not
REORDERINGS = 199
SHUFFLES = 10  # of the past, averaged
_MOST = 5000  # targets that are judged


@dataclass(frozen=True)
class OrderMatters:
    """Whether the order of the steps says anything; true or false as a value by itself.

    gain: nats per step that the past saves the distribution over the memoryless one; interval: its
    95 % interval, None where the data are too few. over_shuffled: nats per step that the true past
    is worth over one shuffled in blocks of `block` steps, with its interval: more, since a false
    past misleads. p_value: of the permutation test; model: the distribution that was tested.
    """

    matters: bool
    gain: float
    interval: tuple[float, float] | None
    over_shuffled: float
    shuffled_interval: tuple[float, float] | None
    p_value: float
    permutations: int
    block: int
    model: str

    def __bool__(self) -> bool:
        return self.matters


def order_matters(
    distribution: Law,
    memoryless: Law,
    reach: int,
    judge: Part,
    model: str,
    seed: int,
    seconds: float,
) -> OrderMatters:
    """Tests one distribution, which sees `reach` lags, on data that it was neither fitted nor
    chosen on.

    seconds: what the test may take; with less, fewer of the latest targets are judged.
    """
    part = judge.latest(_MOST)
    begun = time.monotonic()
    distribution.nats(part)
    each = time.monotonic() - begun
    if each * (REORDERINGS + SHUFFLES) > seconds:
        part = judge.latest(max(200, int(len(part) * seconds / (each * REORDERINGS))))
    true = distribution.nats(part)
    p_value = permutation_p_value(distribution, part, float(true.mean()), seed)
    block = max(1, min(reach + 1, len(part) // 10))
    false = np.zeros(len(part))
    for i in range(SHUFFLES):
        order = in_blocks(len(part), block, rng.generator(seed, "shuffled past", i).initial_seed())
        false += distribution.nats(part.with_past_of(order)) / SHUFFLES
    gain, interval = mean_interval(memoryless.nats(part) - true, part.bounds, seed)
    over, shuffled = mean_interval(false - true, part.bounds, seed)
    matters = p_value <= LEVEL and gain > 0 and (shuffled is None or shuffled[0] > 0)
    return OrderMatters(matters, gain, interval, over, shuffled, p_value, REORDERINGS, block, model)


def permutation_p_value(distribution: Law, part: Part, nats: float, seed: int) -> float:
    """How rarely a reordering of the targets is as likely as they are."""
    source = np.random.default_rng(rng.generator(seed, "reorderings").initial_seed())
    as_likely = 0
    for _ in range(REORDERINGS):
        other = part.reordered(source.permutation(len(part)))
        as_likely += float(distribution.nats(other).mean()) <= nats
    return (as_likely + 1) / (REORDERINGS + 1)


def in_blocks(count: int, block: int, seed: int) -> Ints:
    """An order of 0 … count - 1 in which blocks stay together and none stays where it was."""
    source = np.random.default_rng(seed)
    blocks = np.array_split(np.arange(count), max(1, count // block))
    turn = int(source.integers(1, len(blocks))) if len(blocks) > 1 else 0
    drawn = source.permutation(len(blocks))
    place = np.empty(len(blocks), dtype=np.int64)
    place[drawn] = np.roll(drawn, turn)  # one cycle over all blocks: each gets another's place
    order = np.concatenate([blocks[i] for i in place])
    found: Ints = np.resize(order, count)
    return found
