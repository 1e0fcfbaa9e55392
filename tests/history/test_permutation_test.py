"""Whether order matters: rightly decided on data whose memory is known, at the level it states."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from support.history_cases import trials_of
from support.profiles import examples

import throughtime as tt
from throughtime.data import synthetic
from throughtime.history.families import ValueFamily
from throughtime.history.lag_selection import Selected
from throughtime.history.permutation_test import in_blocks, order_matters
from throughtime.history.targets import Targets
from throughtime.history.work import Work


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", ["iid", "shuffled", "ar", "copy", "hmm", "garch"])
def test_the_decision_on_order_is_right(family: str, seed: int) -> None:
    length = synthetic.LONGER if family in ("hmm", "garch") else synthetic.LENGTH
    sample = synthetic.FAMILIES[family](seed, length=length)
    result = order_matters(trials_of(sample.data).best(least=1), seed, Work.of(60))
    assert bool(result) == sample.order_matters
    if sample.order_matters:
        assert result.p_value == 1 / (result.permutations + 1)
        assert result.interval is not None
        assert 0 < result.interval[0] < result.gain < result.interval[1]
        assert result.over_shuffled > result.gain


def test_the_permutation_test_holds_its_level() -> None:
    """p-values on independent steps are uniform, however badly the model was chosen."""
    source = np.random.default_rng(0)
    data = tt.Sequences.of([torch.from_numpy(source.normal(size=200) ** 3)])
    family = ValueFamily(Targets.of(data), "additive")  # overfitted to few, heavy-tailed steps
    chances = []
    for seed in range(40):
        fresh = Targets.of(tt.Sequences.of([torch.from_numpy(source.normal(size=60) ** 3)]))
        result = order_matters(Selected(family, 4, (), (fresh, fresh)), seed, Work.of(60))
        chances.append(result.p_value)
    assert stats.kstest(chances, "uniform").pvalue > 0.01
    assert np.mean(np.array(chances) <= 0.05) <= 0.15


@examples(40)
@given(count=st.integers(2, 60), block=st.integers(1, 30), seed=st.integers(0, 2**31))
def test_shuffled_blocks_are_a_reordering_that_leaves_none_in_place(
    count: int, block: int, seed: int
) -> None:
    order = in_blocks(count, block, seed)
    assert sorted(order.tolist()) == list(range(count))
    if 2 * block <= count and count % block == 0:
        assert not (order == np.arange(count)).any()
