"""A loss taken apart into steps: folded and one by one, against autograd of the whole."""

import dataclasses

import pytest
import torch

import throughtime as tt
from throughtime import state as states
from throughtime.errors import SettingError
from throughtime.gradflow._unrolled import Steps, norms
from throughtime.gradflow.batches import Segment, fold

STEPS, ROWS, INPUTS, HIDDEN = 11, 3, 2, 4


@dataclasses.dataclass(frozen=True)
class Pair:
    """A batch of two parts, cut along time."""

    x: torch.Tensor
    reset: torch.Tensor

    def __len__(self):
        return len(self.x)

    def __getitem__(self, steps):
        return Pair(self.x[steps], self.reset[steps])


LAYERS = {
    "rnn": lambda: tt.RNN(INPUTS, HIDDEN),
    "gru": lambda: tt.GRU(INPUTS, HIDDEN, 2),
    "lstm": lambda: tt.LSTM(INPUTS, HIDDEN, 2),
    "torch gru": lambda: torch.nn.GRU(INPUTS, HIDDEN, 2),
    "torch lstm": lambda: torch.nn.LSTM(INPUTS, HIDDEN),
}


def problem(name, seed=0, steps=STEPS):
    """(loss, batch, state, params): two restarts where the layer takes them."""
    torch.manual_seed(seed)
    layer = LAYERS[name]().double()
    x = torch.randn(steps, ROWS, INPUTS, dtype=torch.float64)
    reset = torch.zeros(steps, ROWS, dtype=torch.bool)
    reset[steps // 2, 1] = reset[steps - 1, 0] = True
    weight = torch.arange(1.0, HIDDEN + 1, dtype=torch.float64)

    def loss(batch, state):
        more = {} if name.startswith("torch") else {"reset": batch.reset}
        y, state = layer(batch.x, state, **more)
        return (weight * y.square()).sum(), state

    h = 0.3 * torch.randn(layer.num_layers, ROWS, HIDDEN, dtype=torch.float64)
    state = (h, 0.5 * h) if "lstm" in name else h
    return loss, Pair(x, reset), state, dict(layer.named_parameters())


def alone(loss):
    return lambda batch, state: loss(Pair(*batch), state)


def close(actual, expected, tolerance=1e-11):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("name", LAYERS)
def test_products_are_those_of_autograd_step_by_step(name):
    loss, batch, state, params = problem(name)
    steps = Steps(loss, batch, state, params)
    assert steps.folded
    given = [torch.randn_like(leaf) for leaf in steps.immediate()[0]]
    before, cost, own = state, {n: torch.zeros_like(p) for n, p in params.items()}, []
    pulled = {n: torch.zeros_like(p) for n, p in params.items()}
    for t in range(STEPS):
        leaves = [leaf.detach().requires_grad_() for leaf in states.leaves(before)]
        now = tuple(leaves) if len(leaves) > 1 else leaves[0]
        value, after = loss(batch[t : t + 1], now)
        first = torch.autograd.grad(
            value, [*leaves, *params.values()], retain_graph=True, allow_unused=True
        )
        for i, leaf in enumerate(leaves):
            wanted = torch.zeros_like(leaf) if first[i] is None else first[i]
            close(steps.immediate()[0][i][t], wanted)
        for total, g in zip(cost.values(), first[len(leaves) :], strict=True):
            total += 0 if g is None else g
        second = torch.autograd.grad(
            list(states.leaves(after)), [*leaves, *params.values()], [g[t] for g in given]
        )
        for i in range(len(leaves)):
            close(steps.vjp(given)[0][i][t], second[i])
        for total, g in zip(pulled.values(), second[len(leaves) :], strict=True):
            total += g
        before = states.detach(after)
        close(list(states.leaves(steps.states[t + 1])), list(states.leaves(before)))
        own.append(2 * torch.arange(1.0, HIDDEN + 1, dtype=torch.float64) * leaves_of(before)[0])
    close(steps.immediate()[1], cost)
    close(steps.vjp(given)[1], pulled)
    for t, expected in enumerate(own):  # the loss reads the last layer's h alone
        actual = steps.own()[0][t]
        close(actual[-1], expected[-1])
        assert not actual[:-1].any()
        assert all(not leaf[t].any() for leaf in steps.own()[1:])


def leaves_of(state):
    return list(states.leaves(state))


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_one_by_one_gives_the_numbers_of_the_folded(name):
    loss, batch, state, params = problem(name)
    folded = Steps(loss, batch, state, params)
    single = Steps(alone(loss), OneByOneBatch(batch), state, params)
    assert folded.folded
    assert not single.folded
    close(single.total, folded.total)
    close(single.immediate(), folded.immediate())
    delta = folded.immediate()[0]
    close(single.vjp(delta), folded.vjp(delta))
    close(single.own(), folded.own())


class OneByOneBatch:
    """A batch that gives itself out in a kind that nobody knows how to put side by side."""

    def __init__(self, pair):
        self.pair = pair

    def __len__(self):
        return len(self.pair)

    def __getitem__(self, steps):
        return Opaque(self.pair[steps])


class Opaque:
    def __init__(self, pair):
        self.pair = pair

    def __iter__(self):
        return iter((self.pair.x, self.pair.reset))


def test_random_numbers_make_steps_one_by_one():
    """A loss that draws differs when it is folded, so it never is."""
    layer = tt.GRU(INPUTS, HIDDEN, 2, dropout=0.5).double()
    x = torch.randn(STEPS, ROWS, INPUTS, dtype=torch.float64)

    def loss(batch, state):
        y, state = layer(batch, state)
        return y.square().sum(), state

    steps = Steps(loss, x, torch.zeros(2, ROWS, HIDDEN, dtype=torch.float64))
    assert not steps.folded
    assert len(steps.states) == STEPS + 1


def test_rows_that_depend_on_each_other_are_not_folded():
    loss, batch, state, params = problem("gru")

    def coupled(batch, state):
        value, state = loss(batch, state)
        return value, state - state.mean(1, keepdim=True)

    steps = Steps(coupled, batch, state, params)
    assert not steps.folded
    plain = Steps(loss, batch, state, params)
    assert plain.folded


def test_a_state_of_any_shape_and_integers_in_it():
    weight = torch.randn(3, 3, dtype=torch.float64, requires_grad=True)

    def loss(batch, state):
        h, count = state
        total = torch.zeros((), dtype=torch.float64)
        for x in batch:
            h = torch.tanh(weight @ h + x)
            total, count = total + h.square().sum(), count + 1
        return total, (h, count)

    state = (torch.zeros(3, dtype=torch.float64), torch.zeros((), dtype=torch.int64))
    steps = Steps(loss, torch.randn(5, 3, dtype=torch.float64), state, {"w": weight})
    assert not steps.folded
    assert int(steps.states[-1][1]) == 5
    delta, gradient = steps.immediate()
    assert [leaf.shape for leaf in delta] == [(5, 3)]
    assert gradient["w"].shape == (3, 3)
    close(steps.own()[0], 2 * torch.stack([s[0] for s in steps.states[1:]]))
    assert norms(delta).shape == (5,)


def test_steps_of_batches_as_rows():
    x = torch.arange(24.0).reshape(2, 3, 4)
    batch, one = {"a": (x, None)}, {"a": (x[:1], None)}
    result = fold(batch, one, slice(None))
    close(result["a"][0], torch.cat([x[:1], x[1:]], 1))
    assert result["a"][1] is None
    close(fold(x, x[:1], slice(1, None, 2)), x[1:])
    assert fold("text", "t", slice(None)) is None
    assert fold(torch.zeros(3), torch.zeros(1), slice(None)) is None
    assert fold((x, torch.zeros(2, 2)), (x[:1], torch.zeros(2, 2)), slice(None)) is None


def test_a_segment_of_a_batch_is_a_batch():
    segment = Segment(torch.arange(10), 3, 8)
    assert len(segment) == 5
    assert segment[1:3].tolist() == [4, 5]
    assert segment[0:9].tolist() == [3, 4, 5, 6, 7]


@pytest.mark.parametrize("name", LAYERS)
def test_a_sweep_is_one_backward_of_the_whole(name):
    loss, batch, state, params = problem(name)
    given = [torch.randn_like(leaf) for leaf in states.leaves(state)]
    before = states.apply(lambda leaf: leaf.clone().requires_grad_(), state)
    value, after = loss(batch, before)
    total = value + sum((a * g).sum() for a, g in zip(leaves_of(after), given, strict=True))
    expected = torch.autograd.grad(total, [*leaves_of(before), *params.values()])
    for steps in (
        Steps(loss, batch, state, params),
        Steps(alone(loss), OneByOneBatch(batch), state, params),
    ):
        start, gradients = steps.sweep(given)
        close([*start, *gradients.values()], list(expected))


def test_without_a_state_before_the_first_step():
    layer = tt.GRU(INPUTS, HIDDEN).double()
    x = torch.randn(STEPS, ROWS, INPUTS, dtype=torch.float64)

    def loss(batch, state):
        y, state = layer(batch, state)
        return y.square().sum(), state

    params = dict(layer.named_parameters())
    result = Steps(loss, x, None, params)
    zeros = Steps(loss, x, torch.zeros(1, ROWS, HIDDEN, dtype=torch.float64), params)
    close(result.immediate()[1], zeros.immediate()[1])
    close(result.immediate()[0][0][1:], zeros.immediate()[0][0][1:])
    assert not result.immediate()[0][0][0].any()


def test_a_loss_that_is_no_scalar_is_refused():
    with pytest.raises(
        SettingError, match=r"must return a scalar, then the state; got shape \[2\]"
    ):
        Steps(lambda batch, state: (batch.sum(0), state), torch.zeros(3, 2), None)
