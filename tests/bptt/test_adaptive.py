"""Adaptive truncation: the bias it promises against the full gradient; where its K comes from."""

import dataclasses
import math

import pytest
import torch
from torch import nn

import throughtime as tt
from throughtime import bptt
from throughtime.bptt.adaptive import sufficient_lag, truncation
from throughtime.bptt.base import Estimate
from throughtime.errors import SettingError
from throughtime.gradflow import ledger, parameters

STEPS, ROWS, INPUTS, HIDDEN = 150, 4, 2, 6


def problem(kind="gru", seed=0, steps=STEPS, scale=1.0):
    torch.manual_seed(seed)
    layer = {"rnn": tt.RNN, "gru": tt.GRU, "lstm": tt.LSTM}[kind](INPUTS, HIDDEN).double()
    with torch.no_grad():
        layer.weight_hh_l0.mul_(scale)
    x = torch.randn(steps, ROWS, INPUTS, dtype=torch.float64)

    def loss(batch, state):
        y, state = layer(batch, state)
        return (y[..., :INPUTS] - batch).square().sum(), state

    h = torch.zeros(1, ROWS, HIDDEN, dtype=torch.float64)
    return loss, x, (h, h.clone()) if kind == "lstm" else h, layer


def gradient(method, loss, batch, state, layer):
    layer.zero_grad()
    method.backward(loss, batch, state)
    return torch.cat([p.grad.flatten() for p in layer.parameters()])


@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("bias", [0.02, 0.2])
def test_the_bias_stays_within_what_was_asked_through_training(kind, bias):
    """Every few steps of training: the gradient of the whole batch against the exact one."""
    within, reached = 0, set()
    for seed in range(3):
        loss, batch, state, layer = problem(kind, seed, scale=1.0 + 0.5 * seed)
        optimiser = torch.optim.Adam(layer.parameters(), 0.02)
        for update in range(20):
            exact = gradient(bptt.Full(), loss, batch, state, layer)
            if update % 5 == 0:
                method = bptt.Adaptive(bias)
                lag = method.estimate(loss, batch, bptt.Position.start(state)).lag
                result = gradient(method, loss, batch, state, layer)
                within += bool((result - exact).norm() <= bias * exact.norm())
                reached.add(lag)
            optimiser.step()
    assert within == 12
    assert len(reached) > 1  # it does adapt
    assert max(reached) < STEPS - 1


def test_a_gradient_of_known_decay_gives_the_lag_by_hand():
    """h_t = 0.8 h_{t-1} + w x_t with x = 1, from its stationary state: G_k falls as 0.8ᵏ."""
    decay = 0.8
    w = torch.ones((), dtype=torch.float64, requires_grad=True)

    def loss(batch, state):
        total = torch.zeros((), dtype=torch.float64)
        for x in batch:
            state = decay * state + w * x
            total = total + state.sum()
        return total, state

    batch = torch.ones(900, 1, 1, dtype=torch.float64)
    state = torch.full((1, 1, 1), 5.0, dtype=torch.float64)
    for bias in (0.3, 0.03, 0.001):
        result = bptt.Adaptive(bias).estimate(loss, batch, bptt.Position.start(state))
        whole = ledger(loss, batch[:256], state, {"w": w}, 100)
        needed = next(k for k in range(100) if decay ** (k + 1) <= bias)
        assert needed <= result.lag <= needed + 2
        beyond, rate = sufficient_lag(dataclasses.replace(whole, **cut(whole, 8)), 1e-4, 900)
        assert math.isclose(rate, decay, rel_tol=1e-3)
        exact = next(k for k in range(100) if decay ** (k + 1) <= 1e-4)
        assert exact <= beyond <= exact + 6  # the tail is bounded, not fitted


def cut(result, lags):
    """The same ledger as if fewer lags had been measured."""
    block = result.joint
    kept = {n: getattr(block, n)[: lags + 1] for n in ("norms", "bias", "cosine")}
    return {"max_lag": lags, "joint": dataclasses.replace(block, **kept)}


def test_what_does_not_decay_takes_the_whole_batch():
    w = torch.ones((), dtype=torch.float64, requires_grad=True)

    def loss(batch, state):
        path = state + w * batch.cumsum(0)
        return path.sum(), path[-1]

    batch, state = torch.ones(90, 1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    result = bptt.Adaptive(0.01, max_lag=10).estimate(loss, batch, bptt.Position.start(state))
    assert result.lag == 89
    assert truncation(result) == bptt.Truncated(89, 178)


def test_no_gradient_reaches_no_lag():
    loss, batch, state, _ = problem()
    nothing = lambda b, s: (0.0 * loss(b, s)[0], loss(b, s)[1])  # noqa: E731
    result = bptt.Adaptive().estimate(nothing, batch, bptt.Position.start(state))
    assert result == Estimate(0, 0.0)
    assert truncation(result) == bptt.Truncated(16, 16)


def test_estimates_are_carried_renewed_and_leave_random_numbers_alone(monkeypatch):
    loss, batch, state, _ = problem()
    made = []
    estimate = bptt.Adaptive.estimate
    monkeypatch.setattr(
        bptt.Adaptive, "estimate", lambda self, *a: made.append(1) or estimate(self, *a)
    )
    method, at = bptt.Adaptive(0.1, every=2), bptt.Position.start(state)
    before = torch.get_rng_state()
    for update in range(1, 5):
        _, at = method.advance(loss, batch, at)
        assert at.estimate.updates == (update - 1) % 2 + 1
    assert torch.equal(before, torch.get_rng_state())
    assert len(made) == 2
    again = bptt.Position.start(state, at.estimate)
    _, at = bptt.Adaptive(0.1, every=9).advance(loss, batch, again)
    assert len(made) == 2
    late = dataclasses.replace(at, target=STEPS - 5, estimate=Estimate(3, 0.5, 99))
    _, at = method.advance(loss, batch, late)  # too few steps are left to measure on
    assert at.estimate == Estimate(3, 0.5, 100)
    assert len(made) == 2


def test_what_is_not_finite_leaves_the_estimate():
    loss, batch, state, _ = problem()
    broken = batch.clone()
    broken[0] = math.nan
    method = bptt.Adaptive()
    value, at = method.advance(loss, broken, bptt.Position.start(state))
    assert math.isnan(float(value))
    assert at.estimate.updates > method.every  # measured again with the next update
    known = Estimate(7, 0.5, method.every)
    _, at = method.advance(loss, broken, bptt.Position.start(state, known))
    assert at.estimate == dataclasses.replace(known, updates=method.every + 1)


def test_parameters_are_found_in_the_graph():
    loss, batch, state, layer = problem("lstm")
    result = parameters(loss, batch[:3], state)
    assert {id(p) for p in result.values()} == {id(p) for p in layer.parameters()}
    frozen = nn.Linear(INPUTS, 1).double().requires_grad_(False)
    with pytest.raises(SettingError, match="depends on no parameter"):
        parameters(lambda b, s: (frozen(b).sum(), s), batch[:3], None)


def test_dropout_is_off_while_a_module_is_measured():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.drop = tt.GRU(INPUTS, HIDDEN).double(), nn.Dropout(0.5)
            self.fixed = nn.Dropout(0.5).eval()
            self.modes = set()

        def loss(self, batch, state):
            self.modes.add(self.training)
            y, state = self.layer(batch, state)
            return self.drop(y).square().sum(), state

    model, (_, batch, state, _) = Model(), problem()
    result = bptt.Adaptive().estimate(model.loss, batch, bptt.Position.start(state))
    assert result.lag > 0
    assert model.modes == {False}
    assert model.training
    assert model.drop.training
    assert not model.fixed.training


def test_settings_and_names():
    for bad, pattern in (
        ({"bias": 0.0}, "bias=0.0: a positive number"),
        ({"bias": math.nan}, "bias=nan: a positive number"),
        ({"max_lag": 0}, "max_lag=0: at least 1 lag"),
        ({"every": 0}, "every=0: at least 1 update"),
    ):
        with pytest.raises(SettingError, match=pattern):
            bptt.Adaptive(**bad)
    assert bptt.parse("adaptive") == bptt.Adaptive()
    assert bptt.parse("bias=0.1") == bptt.Adaptive(0.1)
    with pytest.raises(SettingError, match="'bias=few' has no number"):
        bptt.parse("bias=few")


def test_losses_that_come_late_are_looked_for():
    """A sample without any loss must not be taken for one without any memory."""
    torch.manual_seed(0)
    layer = tt.RNN(2, 5, nonlinearity="identity").double()
    torch.nn.init.orthogonal_(layer.weight_hh_l0)
    x = torch.zeros(150, 2, 3, dtype=torch.float64)
    x[0, :, 0], x[-1, :, 2] = 1.0, 1.0  # what matters comes first, and is asked for last

    def loss(batch, state):
        y, state = layer(batch[..., :2], state)
        return (y.square().sum(-1) * batch[..., 2]).sum(), state

    start = torch.zeros(1, 2, 5, dtype=torch.float64)
    result = bptt.Adaptive(bias=0.01).estimate(loss, x, bptt.Position.start(start))
    assert result.lag > 100
