"""The hidden Markov model: its filter against all paths of states, and EM."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

import throughtime as tt
from throughtime import emissions
from throughtime.data.domain import Domain
from throughtime.errors import SettingError
from throughtime.models.hmm import HiddenMarkov, Parameters, em_round, lanes_of


def symbols(values: np.ndarray | list[int], count: int) -> tt.Sequences:
    return tt.Sequences.of([torch.as_tensor(values)], Domain("symbols", num_symbols=count))


def known() -> HiddenMarkov:
    model = HiddenMarkov(2, emission=emissions.Categorical(2))
    model.parameters_ = Parameters(
        np.array([0.3, 0.7]), np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.6, 0.4], [0.1, 0.9]])
    )
    return model


def test_the_likelihood_is_the_sum_over_all_paths_of_states() -> None:
    model, seen = known(), [0, 1, 1, 0, 1]
    fitted = model.parameters_
    assert fitted is not None
    total = 0.0
    for states in itertools.product(range(2), repeat=5):
        p = fitted.first[states[0]]
        for before, after in itertools.pairwise(states):
            p *= fitted.move[before, after]
        total += p * np.prod([fitted.emit[h, x] for h, x in zip(states, seen, strict=True)])
    assert float(model.log_prob(symbols(seen, 2))) == pytest.approx(math.log(total), rel=1e-12)


def drawn(length: int) -> tt.Sequences:
    """Three states that last 20 steps on average, each a distribution over six symbols."""
    draw = np.random.default_rng(6)
    distributions = draw.dirichlet(np.full(6, 1.0), size=3)
    jumps = draw.uniform(size=length) > 0.95
    state = np.cumsum(jumps * draw.integers(1, 3, length)) % 3
    return symbols(np.array([draw.choice(6, p=distributions[s]) for s in state]), 6)


def test_em_finds_the_states_and_never_gets_worse() -> None:
    data = drawn(3000)
    model = HiddenMarkov(3, emission=emissions.Categorical(6))
    model.begin(data)
    fitted = model.parameters_
    assert fitted is not None
    for distribution in (fitted.first, fitted.move, fitted.emit):
        assert distribution.sum(-1) == pytest.approx(np.ones(distribution.shape[:-1]))
    count = np.bincount(data.values.numpy(), minlength=6) / 3000
    alone = -(count * np.log(count)).sum()
    assert -float(model.log_prob(data)) / 3000 < alone - 0.05
    lanes, places = lanes_of(data, 20_000)
    assert int(places.sum()) == 3000
    rounds = [Parameters(np.full(3, 1 / 3), np.full((3, 3), 1 / 3), fitted.emit[::-1])]
    nats = []
    for _ in range(8):
        better, before = em_round(rounds[-1], lanes, places)
        rounds.append(better)
        nats.append(before)
    assert all(after <= before + 1e-3 for before, after in itertools.pairwise(nats))


def test_wrong_settings_are_errors() -> None:
    with pytest.raises(SettingError, match="emits symbols"):
        HiddenMarkov(2, emission=emissions.Normal())  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="num_states must be 1 or more, got 0"):
        HiddenMarkov(0, emission=emissions.Categorical(2))
