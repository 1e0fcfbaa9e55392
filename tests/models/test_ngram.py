"""The n-gram against a dictionary-based reference, by enumeration, and on real text."""

from __future__ import annotations

import itertools
import math
from collections import defaultdict

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.optimize import approx_fprime
from support.paths import SHARED
from support.profiles import examples
from torch import Tensor

from throughtime.errors import DataError, RunError, SettingError, VocabularyError
from throughtime.models import ngram
from throughtime.models.ngram import HIGHEST, LOWER, NGram

TEXT = SHARED / "text"
START = "start"


def ragged(*sequences: list[int]) -> tuple[Tensor, Tensor]:
    values = torch.tensor([x for s in sequences for x in s], dtype=torch.int64)
    offsets = torch.tensor([0, *itertools.accumulate(len(s) for s in sequences)])
    return values, offsets


def random_sequences(seed: int, count: int, longest: int, num_symbols: int) -> list[list[int]]:
    """Sequences in which a symbol tends to be followed by the next one."""
    rng = np.random.default_rng(seed)
    result = []
    for _ in range(count):
        x = [int(rng.integers(num_symbols))]
        for _ in range(int(rng.integers(longest))):
            step = int(rng.integers(num_symbols)) if rng.random() < 0.3 else 1
            x.append((x[-1] + step) % num_symbols)
        result.append(x)
    return result


class Reference:
    """The formulas of the module docstring, with dictionaries, one symbol at a time."""

    def __init__(self, sequences: list[list[int]], model: NGram) -> None:
        self.model = model
        self.counts: list[dict] = [defaultdict(lambda: defaultdict(int)) for _ in range(2)]
        longer = defaultdict(set)
        for x in sequences:
            line = [START, *x]
            for t in range(1, len(line)):
                for k in range(min(model.order, t) + 1):
                    context = tuple(line[t - k : t])
                    self.counts[HIGHEST][context][line[t]] += 1
                    if k > 0:
                        longer[context[1:], line[t]].add(context[0])
        for context, following in self.counts[HIGHEST].items():
            for x, n in following.items():
                extended = len(longer[context, x])
                top = len(context) == model.order or context[:1] == (START,)
                self.counts[LOWER][context][x] = n if top else extended

    def distribution(self, past: list, order: int) -> list[float]:
        p = [1 / self.model.num_symbols] * self.model.num_symbols
        line = [START, *past]
        for k in range(min(order, len(line)) + 1):
            context = tuple(line[len(line) - k :])
            kind = HIGHEST if k == order else LOWER
            following = self.counts[kind].get(context)
            if not following:
                continue
            bucket = sum(len(following) >= edge for edge in ngram.DIVERSITY)
            discount = self.model.discounts[kind, k, bucket]
            taken = {x: discount[min(n, ngram.COUNTS) - 1] for x, n in following.items()}
            total, left = sum(following.values()), sum(taken.values())
            p = [
                (following.get(x, 0) - taken.get(x, 0.0) + left * p[x]) / total
                for x in range(len(p))
            ]
        return p


@pytest.mark.parametrize("order", [0, 1, 2, 4])
def test_agrees_with_the_dictionary_reference(order: int) -> None:
    train = random_sequences(0, 60, 12, 5)
    other = [*random_sequences(1, 10, 15, 5), [4, 0, 4, 0, 0, 0, 0, 3]]
    model = NGram.fit(*ragged(*train), 5, order)
    reference = Reference(train, model)
    assert torch.isfinite(torch.from_numpy(model.heldout_nats)).all()
    for nested in range(order + 1):
        expected = [
            math.log(reference.distribution(x[:t], nested)[x[t]])
            for x in other
            for t in range(len(x))
        ]
        scored = model.log_prob(*ragged(*other), order=nested)
        torch.testing.assert_close(
            scored, torch.tensor(expected, dtype=torch.float64), atol=1e-12, rtol=0
        )
        for x in other:
            context = torch.tensor([[-1] * (order + 1) + x])[:, -max(order, 1) :]
            distribution = model.distribution(context, order=nested)
            expected_distribution = torch.tensor(
                [reference.distribution(x, nested)], dtype=torch.float64
            )
            torch.testing.assert_close(distribution, expected_distribution, atol=1e-12, rtol=0)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 4, 5])
def test_all_sequences_of_a_length_sum_to_one(length: int) -> None:
    model = NGram.fit(*ragged(*random_sequences(2, 30, 9, 3)), 3, order=3)
    every = [list(x) for x in itertools.product(range(3), repeat=length)]
    total = model.log_prob(*ragged(*every)).reshape(len(every), length).sum(1).exp().sum()
    assert abs(total.item() - 1) < 1e-12


@examples(40)
@given(
    sequences=st.lists(st.lists(st.integers(0, 3), max_size=9), min_size=1, max_size=6),
    order=st.integers(0, 4),
    heldout=st.sampled_from([0.0, 0.1, 0.5]),
    context=st.lists(st.integers(-1, 3), min_size=4, max_size=4),
)
@example(sequences=[[0, 0]], order=2, heldout=0.5, context=[0, 0, 0, 0])  # no sequence of 3
def test_every_distribution_is_positive_and_sums_to_one(
    sequences: list[list[int]], order: int, heldout: float, context: list[int]
) -> None:
    if not any(sequences):
        sequences = [[0]]
    model = NGram.fit(*ragged(*sequences), 4, order, heldout)
    for nested in range(order + 1):
        distribution = model.distribution(torch.tensor([context]), order=nested)
        assert (distribution > 0).all()
        assert abs(distribution.sum().item() - 1) < 1e-12


def test_states_and_contexts_agree_with_scoring() -> None:
    train = random_sequences(3, 80, 20, 6)
    model = NGram.fit(*ragged(*train), 6, order=3)
    x = torch.tensor([[0, 1, 2, 5, 5, 0], [3, 3, 3, 4, 5, 1]])
    scored = model.log_prob(x.reshape(-1), torch.tensor([0, 6, 12])).reshape(2, 6)
    nodes = model.start(2)
    for t in range(6):
        stepped = model.probabilities(nodes).gather(1, x[:, t : t + 1]).log()[:, 0]
        torch.testing.assert_close(stepped, scored[:, t], atol=1e-12, rtol=0)
        nodes = model.advance(nodes, x[:, t])
    restarted = model.advance(nodes, torch.tensor([-1, 0]))
    assert torch.equal(restarted[0], model.start(1)[0])
    assert model.probabilities(nodes[:0]).shape == (0, 6)


def test_a_score_does_not_depend_on_the_other_sequences() -> None:
    train = random_sequences(4, 60, 12, 4)
    model = NGram.fit(*ragged(*train), 4, order=3)
    alone = torch.cat([model.log_prob(*ragged(x)) for x in train[:7]])
    together = model.log_prob(*ragged([], *train[:3], [], *train[3:7], []))
    assert torch.equal(alone, together)


def test_tensors_round_trip() -> None:
    train = ragged(*random_sequences(5, 60, 12, 4))
    model = NGram.fit(*train, 4, order=3)
    copy = NGram.from_tensors(model.tensors(), model.settings())
    assert torch.equal(copy.log_prob(*train), model.log_prob(*train))
    assert copy.num_parameters == model.num_parameters
    with pytest.raises(RunError, match="lacks 'keys'"):
        NGram.from_tensors({}, model.settings())
    with pytest.raises(RunError, match="does not fit"):
        NGram.from_tensors(model.tensors(), {"num_symbols": 4, "order": 2})


def test_gradient_of_the_tuning_objective() -> None:
    x = np.random.default_rng(6).integers(0, 12, 400)
    trie = ngram._Trie.count(x[:200], np.array([0, 200]), 12, 2)
    tuning = ngram._Tuning(trie, x, np.array([0, 400]), np.arange(200, 400))
    shape = (2, 3, ngram.BUCKETS, ngram.COUNTS)
    at = np.random.default_rng(0).uniform(0.3, 0.9, shape)
    numeric = approx_fprime(
        at.ravel(), lambda d: float(tuning.evaluate(d.reshape(shape))[0].mean()), 1e-7
    )
    exact = tuning.evaluate(at)[1].ravel()
    assert np.abs(exact).max() > 1e-3
    np.testing.assert_allclose(exact, numeric, atol=2e-7)


def test_tuning_lowers_the_heldout_nats() -> None:
    data = ragged(random_sequences(7, 1, 10**6, 12)[0][:20_000])
    model = NGram.fit(*data, 12, order=4, heldout=0.5)
    half = (data[0][:10_000], torch.tensor([0, 10_000]))
    plain = NGram.fit(*half, 12, order=4, heldout=0.0)
    assert np.isnan(plain.heldout_nats).all()
    for order in range(1, 5):
        before = -plain.log_prob(*data, order=order)[10_000:].mean().item()
        assert model.heldout_nats[order] <= before + 1e-6


@pytest.mark.parametrize(
    ("error", "change"),
    [
        (SettingError, {"order": -1}),
        (SettingError, {"num_symbols": 0}),
        (SettingError, {"heldout": 1.0}),
        (DataError, {"values": torch.empty(0, dtype=torch.int64), "offsets": torch.tensor([0, 0])}),
        (DataError, {"offsets": torch.tensor([0, 2])}),
        (VocabularyError, {"num_symbols": 2}),
    ],
)
def test_bad_arguments(error: type[Exception], change: dict) -> None:
    good = {
        "values": torch.tensor([0, 1, 2]),
        "offsets": torch.tensor([0, 3]),
        "num_symbols": 3,
        "order": 1,
    }
    with pytest.raises(error):
        NGram.fit(**{**good, **change})
    model = NGram.fit(**good)
    with pytest.raises(VocabularyError):
        model.log_prob(torch.tensor([3]), torch.tensor([0, 1]))
    with pytest.raises(VocabularyError):
        model.distribution(torch.tensor([[3]]))
    with pytest.raises(SettingError):
        model.log_prob(torch.tensor([0]), torch.tensor([0, 1]), order=2)


@pytest.mark.slow
def test_beats_witten_bell_on_shakespeare() -> None:
    path = TEXT / "tinyshakespeare.txt"
    if not path.exists():
        pytest.skip(f"{path.name} is not in the shared data folder")
    text = torch.tensor(list(path.read_bytes()))
    symbols, values = text.unique(return_inverse=True)
    cut = int(len(values) * 0.9)
    train, test = values[:cut], values[cut:]
    model = NGram.fit(train, torch.tensor([0, cut]), len(symbols), order=6)
    offsets = torch.tensor([0, len(test)])
    nats = [-model.log_prob(test, offsets, order=k).mean().item() for k in (3, 4, 5, 6)]
    for ours, bound in zip(nats, [1.72, 1.56, 1.51, 1.495], strict=True):
        assert ours < bound  # Witten-Bell: 1.774, 1.669, 1.698


def test_names_learn_where_a_sequence_starts() -> None:
    path = TEXT / "names.txt"
    if not path.exists():
        pytest.skip(f"{path.name} is not in the shared data folder")
    names = [[ord(c) - ord("a") for c in line] for line in path.read_text().split()]
    train = [name for i, name in enumerate(names) if i % 10]
    test = ragged(*names[::10])
    model = NGram.fit(*ragged(*train), 26, order=5)
    firsts = torch.bincount(torch.tensor([name[0] for name in train]), minlength=26)
    distribution = model.distribution(torch.full((1, 5), -1))[0]
    torch.testing.assert_close(distribution, firsts / firsts.sum().double(), atol=2e-3, rtol=0)
    nats = [-model.log_prob(*test, order=k).mean().item() for k in range(6)]
    assert nats[0] > nats[1] > nats[2] > nats[3]
    assert nats[5] < 2.14
