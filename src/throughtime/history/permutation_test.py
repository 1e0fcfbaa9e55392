"""Does order matter at all? A finite-order model against the i.i.d. baseline, on data that chose
nothing.

The p-value is that of a permutation test. If the steps tested are exchangeable (independent and
alike, order does not matter), any reordering of them is as likely as the one seen, so the rank of
their likelihood among those of reorderings is uniform: (b + 1) / (m + 1) for b of m reorderings at
least as likely (Phipson & Smyth 2010, Statistical Applications in Genetics and Molecular Biology
9). Only one model is tested, it was fitted and chosen on earlier data, and so the level holds by
construction, whatever the model is.

What the past is worth is measured beside it: the same model given the true past of each step, and
given the past of another step, in blocks, so that each false past is a true stretch of the data.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from throughtime import rng
from throughtime.evaluation.bootstrap import mean_interval
from throughtime.history.lag_selection import Selected
from throughtime.history.targets import Ints, Targets
from throughtime.history.work import Work
from throughtime.models.closed_form import ClosedForm
from throughtime.runtime import out_of_time

LEVEL = 0.01  # of the test: at most so often does order seem to matter where it does not
REORDERINGS = 199
SHUFFLES = 10  # of the past, averaged
_MOST, _FEWEST = 5000, 200  # targets that are tested
_HELD = 20_000  # values of reorderings held at once


@dataclass(frozen=True)
class OrderMatters:
    """Whether the order of the steps says anything; true or false as a value by itself.

    gain: nats per step that the past saves the model over the i.i.d. baseline; interval: its 95 %
    interval, None where the data are too few. over_shuffled: nats per step that the true past is
    worth over one shuffled in blocks of `block` steps, with its interval: more, since a false past
    misleads. p_value: of the permutation test; model: the one that was tested.
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


def order_matters(selected: Selected, seed: int, work: Work) -> OrderMatters:
    """Tests one model on test data, which it was neither fitted nor chosen on.

    Args:
        selected: its lags, and the test data.
        seed: of the reorderings.
        work: what the test may take; with less, fewer of the latest targets are tested.
    """
    each = selected.family.cost(selected.dense, selected.far) * (REORDERINGS + 3)
    affordable = int(min(_MOST, max(_FEWEST, work.limit / each)))
    targets = selected.held[1].latest(affordable, past=selected.order)
    work.spend(each * len(targets))
    model, iid = selected.fit(), selected.family.fit(0)
    true = targets.nats(model)
    p_value = permutation_p_value(model, targets, float(true.mean()), seed)
    block = max(1, min(selected.order + 1, len(targets) // 10))
    rows, data = targets.rows, targets.data
    given = model.predict(data, rows)
    false = np.zeros(len(targets))
    for i in range(SHUFFLES):
        order = in_blocks(len(rows), block, rng.generator(seed, "shuffled past", i).initial_seed())
        log_prob = given[torch.from_numpy(order)].log_prob(data.values[rows])
        false -= (log_prob + data.log_det[rows]).numpy() / SHUFFLES
    gain, interval = mean_interval(targets.nats(iid) - true, targets.bounds, seed)
    over, shuffled = mean_interval(false - true, targets.bounds, seed)
    matters = p_value <= LEVEL and gain > 0 and (shuffled is None or shuffled[0] > 0)
    name = selected.name
    return OrderMatters(matters, gain, interval, over, shuffled, p_value, REORDERINGS, block, name)


def permutation_p_value(model: ClosedForm, targets: Targets, nats: float, seed: int) -> float:
    """How rarely a reordering of the targets is as likely as they are."""
    source = np.random.default_rng(rng.generator(seed, "reorderings").initial_seed())
    orders = np.stack([source.permutation(len(targets)) for _ in range(REORDERINGS)])
    at_once = max(1, _HELD // len(targets.data.values))
    as_likely = tried = 0
    for i in range(0, REORDERINGS, at_once):
        if out_of_time() and tried >= 1 / LEVEL:  # what the level needs
            break
        tried += len(orders[i : i + at_once])
        other = targets.reordered(orders[i : i + at_once])
        means = other.nats(model).reshape(-1, len(targets)).mean(1)
        as_likely += int((means <= nats).sum())
    return (as_likely + 1) / (tried + 1)


def in_blocks(count: int, block: int, seed: int) -> Ints:
    """An order of 0 … count - 1 in which blocks stay together and none stays where it was."""
    source = np.random.default_rng(seed)
    blocks = np.array_split(np.arange(count), max(1, count // block))
    turn = int(source.integers(1, len(blocks))) if len(blocks) > 1 else 0
    drawn = source.permutation(len(blocks))
    place = np.empty(len(blocks), dtype=np.int64)
    place[drawn] = np.roll(drawn, turn)  # one cycle over all blocks: each gets another's place
    order = np.concatenate([blocks[i] for i in place])
    indices: Ints = np.resize(order, count)
    return indices
