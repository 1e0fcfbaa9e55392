"""Targets: cut, reordered and given less of their past."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import throughtime as tt
from throughtime import emissions
from throughtime.data.domain import Domain
from throughtime.history.networks import truncated_nats
from throughtime.history.targets import Targets
from throughtime.models.exponential_smoothing import ExponentialSmoothing
from throughtime.models.hmm import HiddenMarkov, Parameters
from throughtime.models.lag_regression import Past


def values(*lengths: int) -> tt.Sequences:
    source = np.random.default_rng(0)
    return tt.Sequences.of([torch.from_numpy(source.normal(size=length)) for length in lengths])


def test_a_truncated_filter_has_seen_the_last_symbols_alone() -> None:
    model = HiddenMarkov(2, emission=emissions.Categorical(2))
    first, emit = np.array([0.3, 0.7]), np.array([[0.6, 0.4], [0.1, 0.9]])
    model.parameters_ = Parameters(first, np.array([[0.9, 0.1], [0.2, 0.8]]), emit)
    symbols = torch.tensor([0, 1, 1, 0, 1])
    targets = Targets.of(tt.Sequences.of([symbols], Domain("symbols", num_symbols=2)))
    last = replace(targets, rows=targets.rows[4:])
    whole = targets.nats(model)
    assert last.truncated(4).nats(model) == pytest.approx(whole[4:], rel=1e-12)
    assert last.truncated(9).nats(model) == pytest.approx(whole[4:], rel=1e-12)
    alone = -np.log(float(first @ emit[:, 1]))
    assert last.truncated(0).nats(model) == pytest.approx([alone])


def test_truncated_averages_have_seen_the_last_values_alone() -> None:
    data = values(30, 30)
    targets = Targets.of(data)
    model = ExponentialSmoothing((1,), emission=emissions.StudentT())
    short = targets.truncated(7)
    actual = model.averages(Past.of(short.data, short.rows))
    x = data.values[:, 0].numpy().reshape(2, 30)
    for i, half in enumerate(model.half_lives):
        keep = 0.5 ** (1 / half)
        for target in (0, 1, 12, 29, 30, 45):
            row, t = divmod(target, 30)
            past = x[row, max(0, t - 7) : t][::-1]
            expected = (1 - keep) * past @ keep ** np.arange(len(past))
            assert actual[target, 0, i, 0] == pytest.approx(expected, rel=1e-9)


def test_a_network_and_a_closed_form_are_truncated_alike() -> None:
    """A network run from a state of so many steps before says what it says of a cut piece."""
    data = values(40, 25)
    targets = replace(Targets.of(data), data=data)
    late = replace(targets, rows=targets.rows[targets.age >= 12])
    network = tt.LatentAutoregressive("gru", 3, emission=emissions.Normal()).double()
    network.begin(data)
    full = truncated_nats(network, late, 12)
    for row, nats in zip(late.rows.tolist()[:3], full[:3], strict=True):
        state = network.initial_state(1)
        for t in range(row - 12, row):
            distribution, state = network.step(data.values[t : t + 1], state)
        expected = -distribution.log_prob(data.values[row : row + 1]).detach()
        assert nats == pytest.approx(float(expected), abs=1e-10)
    closed = ExponentialSmoothing((1,), emission=emissions.StudentT())
    closed.begin(data)
    assert truncated_nats(closed, late, 100) == pytest.approx(late.nats(closed))


def test_the_latest_targets_keep_as_much_past_as_asked() -> None:
    targets = Targets.of(values(30, 20, 10))
    short = targets.latest(15, past=4)
    assert len(short) == 15
    assert torch.equal(short.data.values[short.rows], targets.data.values[targets.rows[-15:]])
    assert short.age.tolist() == [*range(4, 9), *range(10)]
    assert short.bounds.tolist() == [0, 5, 15]
    assert targets.latest(100, past=0) is targets


def test_reordered_targets_have_the_same_values_and_the_same_past() -> None:
    data = replace(values(20), starts=torch.tensor([5]))
    targets = Targets.of(data)
    orders = np.stack([np.random.default_rng(i).permutation(15) for i in range(3)])
    other = targets.reordered(orders)
    assert len(other) == 45
    for copy, order in zip(other.data, orders, strict=True):
        assert torch.equal(copy.values[:5], data.values[:5])
        assert torch.equal(copy.values[5:], data.values[5:][torch.from_numpy(order)])
        assert int(copy.starts[0]) == 5
    assert torch.equal(other.data.values[other.rows], other.data.values[other.data.scored()])


def test_initial_values_are_no_targets() -> None:
    data = values(12, 9).transform(["difference", "standardise"])
    targets = Targets.of(data)
    assert len(targets) == 11 + 8
    assert int(targets.data.values.isnan().sum()) == 2
