"""The lag ledger: against autograd of the whole, truncated gradients, the linear RNN by hand."""

import dataclasses
import json
import math

import pytest
import torch
from torch import nn

import throughtime as tt
from throughtime import bptt
from throughtime import state as states
from throughtime.data.batching import Lanes
from throughtime.errors import NonFiniteError, RunError, SettingError
from throughtime.gradflow import _passes, adjoints, ledger

STEPS, ROWS, INPUTS, HIDDEN = 14, 3, 2, 4


def random(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def close(actual, expected, tolerance=1e-10):
    torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


@dataclasses.dataclass(frozen=True)
class Pair:
    x: torch.Tensor
    reset: torch.Tensor

    def __len__(self):
        return len(self.x)

    def __getitem__(self, steps):
        return Pair(self.x[steps], self.reset[steps])


def of_layer(layer, state=None, reset=False):
    """(loss, batch, state, params) of a layer under a quadratic loss of its output."""
    layer = layer.double()
    restarts = torch.zeros(STEPS, ROWS, dtype=torch.bool)
    restarts[STEPS // 2, 1] = restarts[STEPS - 1, 0] = restarts[0, 2] = True
    target = random(STEPS, ROWS, HIDDEN)

    def loss(batch, state):
        if reset:
            y, state = layer(batch.x[..., :INPUTS], state, reset=batch.reset)
        else:
            y, state = layer(batch.x[..., :INPUTS], state)
        return (y - batch.x[..., INPUTS:]).square().sum(), state

    batch = Pair(torch.cat([random(STEPS, ROWS, INPUTS), target], -1), restarts)
    if state is None:
        h = 0.4 * random(layer.num_layers, ROWS, HIDDEN)
        state = (h, 0.7 * h) if isinstance(layer, nn.RNNBase) and "LSTM" in layer.mode else h
    return loss, batch, state, dict(layer.named_parameters())


class Own(nn.Module):
    """A cell of one's own: a vector and a counter, no rows, a learned initial state, a skip."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(0.5 * random(3, 3))
        self.first = nn.Parameter(random(3))

    def loss(self, batch, state):
        h, last, count = (self.first, self.first, torch.tensor(0)) if state is None else state
        total = torch.zeros((), dtype=torch.float64)
        for x in batch:
            h, last, count = torch.tanh(self.w @ h + 0.3 * last + x), h, count + 1
            total = total + (h * last).sum() + (h * h).sum()
        return total, (h, last, count)


def of_cell():
    cell = Own()
    return cell.loss, random(STEPS, 3), None, dict(cell.named_parameters())


def of_model(cell, num_layers=1):
    """A model of the package on ragged sequences in lanes, learned initial states and all."""
    sizes = (9, 4, 6, 1, 11, 5)
    data = tt.Sequences.of([torch.randint(0, 3, (n,)) for n in sizes])
    model = tt.LatentAutoregressive(
        cell, hidden_size=HIDDEN, num_layers=num_layers, emission=tt.emissions.Categorical(3)
    ).double()
    with torch.no_grad():
        model.start.normal_()
    lanes = Lanes(data, ROWS, dtype=torch.float64)
    return model.loss, lanes, model.initial_state(ROWS), dict(model.named_parameters())


CASES = {
    "rnn": lambda: of_layer(tt.RNN(INPUTS, HIDDEN)),
    "gru of two layers, restarts": lambda: of_layer(tt.GRU(INPUTS, HIDDEN, 2), reset=True),
    "lstm": lambda: of_layer(tt.LSTM(INPUTS, HIDDEN)),
    "li_gru": lambda: of_layer(tt.LiGRU(INPUTS, HIDDEN, 2)),
    "lstm of two layers, restarts": lambda: of_layer(tt.LSTM(INPUTS, HIDDEN, 2), reset=True),
    "torch gru": lambda: of_layer(nn.GRU(INPUTS, HIDDEN)),
    "torch lstm of two layers": lambda: of_layer(nn.LSTM(INPUTS, HIDDEN, 2)),
    "own cell": of_cell,
    "model gru": lambda: of_model("gru"),
    "model lstm of two layers": lambda: of_model("lstm", 2),
    "model li_gru": lambda: of_model("li_gru", 1),
}


@pytest.fixture(params=CASES)
def case(request):
    torch.manual_seed(1)
    return CASES[request.param]()


def gradient_of(method, loss, batch, state, params):
    for p in params.values():
        p.grad = None
    value, _ = method.backward(loss, batch, state)
    return value, {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in params.items()}


def test_the_lags_sum_to_the_gradient_and_partial_sums_are_truncated_gradients(case):
    loss, batch, state, params = case
    length = len(batch)
    result = ledger(loss, batch, state, params, max_lag=length + 1, tensors=True)
    value, full = gradient_of(bptt.Full(), *case)
    close(result.loss, float(value))
    for name in params:
        parts = result.gradient(name)
        assert parts.shape == (length + 2, *params[name].shape)
        close(parts.sum(0), full[name])
        assert not parts[length:].any()
        close(result.total(name), float(full[name].norm()))
        close(result.norm(name), parts.flatten(1).norm(dim=1))
    for lag in (0, 1, 4, length - 2, length - 1):
        _, cut = gradient_of(bptt.Truncated(1, lag + 1), *case)
        for name in params:
            close(result.gradient(name)[: lag + 1].sum(0), cut[name])
        lost = {n: full[n] - cut[n] for n in params}
        whole, kept = flat(full), flat(cut)
        close(result.bias(lag), float(flat(lost).norm() / whole.norm()))
        close(result.cosine(lag), float(torch.cosine_similarity(whole, kept, dim=0)))
        one = max(params, key=lambda n: float(full[n].norm()))
        close(result.bias(lag, one), float(lost[one].norm() / full[one].norm()))
        close(result.cosine(lag, one), float(torch.cosine_similarity(
            full[one].flatten(), cut[one].flatten(), dim=0)))  # fmt: skip


def flat(gradients):
    return torch.cat([g.flatten() for g in gradients.values()])


def test_state_norms_are_those_of_the_gradients_of_single_losses(case):
    loss, batch, state, params = case
    length = len(batch)
    result = ledger(loss, batch, state, params, max_lag=length + 1)
    chain, values, before = [], [], states.detach(state)
    for t in range(length):
        before = states.apply(fresh, before)
        chain.append(floats(before))
        value, before = loss(batch[t : t + 1], before)
        values.append(value)
    for lag in range(1, length + 1):
        seen = []
        for t in range(lag, length + 1):  # the loss of step t, the state S_{t - lag}
            leaves = chain[t - lag]
            if not leaves:
                continue
            gradients = torch.autograd.grad(
                values[t - 1], leaves, retain_graph=True, allow_unused=True
            )
            squares = [
                torch.zeros_like(a) if g is None else g.square()
                for a, g in zip(leaves, gradients, strict=True)
            ]
            rows = all(s.dim() == 3 for s in squares)
            seen.append(sum(s.sum((0, 2)) if rows else s.sum()[None] for s in squares).sqrt())
        if chain[0]:
            values_at = torch.cat(seen)
            close(result.state_norm[lag], values_at.mean())
            at = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
            close(result.state_quantiles[:, lag], values_at.quantile(at))
    assert math.isnan(result.state_norm[length + 1])


@pytest.mark.parametrize("size", [1, 200, 700])
def test_blocks_of_time_change_nothing(case, size, monkeypatch):
    loss, batch, state, params = case
    whole = ledger(loss, batch, state, params, max_lag=9, tensors=True)
    sides = adjoints(loss, batch, state)
    monkeypatch.setattr(_passes, "BYTES", size)
    parts = ledger(loss, batch, state, params, max_lag=9, tensors=True)
    for name in params:
        close(parts.gradient(name), whole.gradient(name))
        close(parts.total(name), whole.total(name))
    close(parts.loss, whole.loss)
    torch.testing.assert_close(
        parts.state_norm, whole.state_norm, rtol=1e-10, atol=1e-10, equal_nan=True
    )
    close(adjoints(loss, batch, state), sides)


def test_adjoints_are_the_gradient_at_every_state(case):
    """The loss moved by a small push of one state, t by t: no autograd on this side."""
    loss, batch, state, _ = case
    actual = adjoints(loss, batch, state)
    assert all(len(leaf) == len(batch) + 1 for leaf in actual)
    kept = [states.detach(state)]
    with torch.no_grad():
        for t in range(len(batch)):
            kept.append(loss(batch[t : t + 1], kept[-1])[1])
        for t in (0, 1, 5, len(batch) - 1):
            if kept[t] is None:
                continue
            pushes = [torch.randn_like(leaf) for leaf in floats(kept[t])]
            ends = []
            for sign in (1e-6, -1e-6):
                given = iter(pushes)
                moved = states.apply(
                    lambda leaf, s=sign, g=given: (
                        leaf + s * next(g) if leaf.is_floating_point() else leaf
                    ),
                    kept[t],
                )
                ends.append(float(loss(batch[t:], moved)[0]))
            slope = (ends[0] - ends[1]) / 2e-6
            later = [leaf[t] for leaf in actual]
            own = own_part(loss, batch, kept, t)
            expected = sum(float((a * p).sum()) for a, p in zip(later, pushes, strict=True))
            expected -= sum(float((a * p).sum()) for a, p in zip(own, pushes, strict=True))
            assert math.isclose(slope, expected, rel_tol=1e-5, abs_tol=1e-6)


def fresh(leaf):
    """A tensor of its own with the same value, in the graph."""
    if not leaf.is_floating_point():
        return leaf
    return leaf * 1 if leaf.requires_grad else leaf.clone().requires_grad_()


def floats(state):
    return [leaf for leaf in states.leaves(state) if leaf.is_floating_point()]


def own_part(loss, batch, kept, t):
    """What the loss of step t itself says about S_t, which a push after it does not show."""
    from throughtime.gradflow._unrolled import Steps

    zeros = [torch.zeros_like(leaf) for leaf in floats(kept[t])]
    if t == 0:
        return zeros
    own = Steps(loss, batch[t - 1 : t], kept[t - 1]).own()
    return zeros if own is None else [leaf[0] for leaf in own]


def test_the_linear_rnn_is_its_closed_form():
    """S_t = W S_{t-1} + U x_t, ℓ_t = c·S_t: G_k(W) = Σ_t (Wᵏ)ᵀ c S_{t-k-1}ᵀ, and so on."""
    torch.manual_seed(3)
    layer = tt.RNN(INPUTS, HIDDEN, bias=False, nonlinearity="identity").double()
    rate = 0.8
    with torch.no_grad():
        q, _ = torch.linalg.qr(random(HIDDEN, HIDDEN))
        layer.weight_hh_l0.copy_(rate * q)
    w, u = layer.weight_hh_l0.detach(), layer.weight_ih_l0.detach()
    x, c, first = random(STEPS, INPUTS), random(HIDDEN), random(HIDDEN)

    def loss(batch, state):
        y, state = layer(batch, state)
        return (y * c).sum(), state

    params = dict(layer.named_parameters())
    actual = ledger(loss, x[:, None], first[None, None], params, STEPS - 1, tensors=True)
    path = [first]
    for x_t in x:
        path.append(w @ path[-1] + u @ x_t)
    norms_of = []
    for lag in range(STEPS):
        back = torch.matrix_power(w, lag).T @ c
        recurrent = sum(torch.outer(back, path[t - lag - 1]) for t in range(lag + 1, STEPS + 1))
        given = sum(torch.outer(back, x[t - lag - 1]) for t in range(lag + 1, STEPS + 1))
        close(actual.gradient("weight_hh_l0")[lag], recurrent)
        close(actual.gradient("weight_ih_l0")[lag], given)
        norms_of.append(torch.cat([recurrent.flatten(), given.flatten()]))
        close(float(actual.state_norm[lag]), rate**lag * float(c.norm()))
        close(actual.state_quantiles[:, lag], c.norm().mul(rate**lag).expand(3))
    parts = torch.stack(norms_of)
    close(actual.norms, parts.norm(dim=1))
    close(actual.share, parts.norm(dim=1).cumsum(0) / parts.norm(dim=1).sum())
    total = parts.sum(0)
    for lag in range(STEPS):
        close(actual.bias(lag), float(parts[lag + 1 :].sum(0).norm() / total.norm()))
    for share in (0.3, 0.8, 0.95, 0.999):
        expected = next(k for k in range(STEPS) if float(actual.share[k]) >= share)
        assert actual.reach(share) == expected
    short = ledger(loss, x[:, None], first[None, None], params, 2)
    close(short.rest, float(parts[3:].sum(0).norm()))
    close(short.share[-1], parts[:3].norm(dim=1).sum() / (parts[:3].norm(dim=1).sum() + short.rest))
    assert short.reach(0.999) is None
    close(short.bias(1), actual.bias(1))


def test_dropout_is_split_for_the_numbers_drawn():
    layer = tt.GRU(INPUTS, HIDDEN, 2, dropout=0.5).double()

    def loss(batch, state):
        y, state = layer(batch, state)
        return nn.functional.dropout(y, 0.3).square().sum(), state

    x, state = random(STEPS, ROWS, INPUTS), torch.zeros(2, ROWS, HIDDEN, dtype=torch.float64)
    before = torch.get_rng_state()
    result = ledger(loss, x, state, dict(layer.named_parameters()), tensors=True)
    assert torch.equal(before, torch.get_rng_state())
    assert result.max_lag == STEPS - 1
    assert result.rest < 1e-10 * result.total()
    for name in layer.state_dict():
        close(float(result.gradient(name).sum(0).norm()), result.total(name))


def test_without_a_state_all_the_gradient_is_at_lag_0():
    layer = nn.Linear(INPUTS, 1).double()

    def loss(batch, state):
        return layer(batch).square().sum(), state

    params = dict(layer.named_parameters())
    result = ledger(loss, random(STEPS, ROWS, INPUTS), None, params, tensors=True)
    close(result.norm("weight")[0], torch.tensor(result.total("weight"), dtype=torch.float64))
    assert not result.norms[1:].any()
    assert (result.reach(1.0), result.bias(0) < 1e-14) == (0, True)
    assert torch.isnan(result.state_norm).all()


def test_nothing_to_learn_is_no_bias():
    layer = tt.RNN(INPUTS, HIDDEN).double()

    def loss(batch, state):
        y, state = layer(batch, state)
        return 0.0 * y.sum(), state

    state = torch.zeros(1, ROWS, HIDDEN, dtype=torch.float64)
    result = ledger(loss, random(STEPS, ROWS, INPUTS), state, dict(layer.named_parameters()))
    assert (result.total(), result.bias(2), result.cosine(2), result.reach()) == (0.0, 0.0, 1.0, 0)
    assert result.share.tolist() == [1.0] * STEPS


def test_as_json_it_is_plain_and_finite():
    loss, batch, state, params = of_layer(tt.GRU(INPUTS, HIDDEN))
    result = ledger(loss, batch, state, params, max_lag=STEPS + 3, k2=5)
    text = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert text["k2"] == 5
    assert text["state_norm"]["mean"][-1] is None
    assert text["norms"] == result.norms.tolist()
    assert set(text["parameters"]) == set(params)
    assert text["reach"]["0.95"] == result.reach()
    assert text["bias"] == [result.bias(lag) for lag in range(STEPS + 4)]
    assert text["verdict"]["sentence"] == result.verdict.sentence
    again = tt.gradflow.Ledger.from_json(text)
    assert again.to_json() == text
    assert again.cosine(2, "weight_hh_l0") == result.cosine(2, "weight_hh_l0")
    with pytest.raises(RunError, match=r"has schema None, this version reads \d+; take it again"):
        tt.gradflow.Ledger.from_json({**text, "schema": None})


def refused(pattern, *args, error=SettingError, **more):
    with pytest.raises(error, match=pattern):
        ledger(*args, **more)


def test_what_makes_no_sense_is_refused():
    loss, batch, state, params = of_layer(tt.GRU(INPUTS, HIDDEN))
    refused("max_lag=-1: 0 or more", loss, batch, state, params, max_lag=-1)
    refused("no parameter that requires a gradient", loss, batch, state, {})
    frozen = {n: p.detach() for n, p in params.items()}
    refused("no parameter that requires a gradient", loss, batch, state, frozen)
    refused("no time steps", loss, batch[0:0], state, params)
    refused(r"scalar, then the state; got shape \[4\]",
            lambda b, s: (loss(b, s)[0].expand(4), s), batch, state, params)  # fmt: skip
    mean = lambda b, s: (loss(b, s)[0] / len(b), loss(b, s)[1])  # noqa: E731
    refused("return the sum over time, not a mean", mean, batch, state, params)
    result = ledger(loss, batch, state, params, max_lag=3)
    for ask, pattern in (
        (lambda: result.norm("weight"), "no parameter 'weight' in this ledger; it has: weight_ih"),
        (lambda: result.gradient("bias_ih_l0"), r"ask for ledger\(..., tensors=True\)"),
        (lambda: result.bias(4), "lag 4 is not among 0 … 3"),
        (lambda: result.cosine(-1), "lag -1 is not among"),
        (lambda: result.reach(1.5), r"share=1.5: a part of the gradient lies in \(0, 1\]"),
    ):
        with pytest.raises(SettingError, match=pattern):
            ask()


def test_a_module_that_keeps_its_state_is_refused():
    layer = tt.RNN(INPUTS, HIDDEN).double()
    kept = [torch.zeros(1, ROWS, HIDDEN, dtype=torch.float64)]

    def loss(batch, state):
        y, kept[0] = layer(batch, kept[0])
        return y.square().sum(), state

    args = random(STEPS, ROWS, INPUTS), None, dict(layer.named_parameters())
    refused("a module keeps hidden state inside; pass it in and return it", loss, *args)


def test_what_is_not_finite_is_named():
    loss, batch, state, params = of_layer(tt.GRU(INPUTS, HIDDEN))
    for size in (1 << 20, 300):
        x = batch.x.clone()
        x[9, 1, -1] = math.inf
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_passes, "BYTES", size)
            refused("the loss is infinite or NaN in steps .*, first in step 9; look",
                    loss, Pair(x, batch.reset), state, params, error=NonFiniteError)  # fmt: skip
            x[4, 0, 0] = math.nan
            refused("the (loss|state) is infinite or NaN in steps .*, first in step 4; look",
                    loss, Pair(x, batch.reset), state, params, error=NonFiniteError)  # fmt: skip


def test_an_exploding_gradient_is_named_with_its_lag():
    layer = tt.RNN(1, 1, bias=False, nonlinearity="identity")
    with torch.no_grad():
        layer.weight_hh_l0.fill_(1e9)

    def loss(batch, state):
        y, state = layer(batch, state)
        return y.sum(), state

    args = torch.zeros(20, 1, 1), torch.zeros(1, 1, 1), dict(layer.named_parameters())
    refused("the gradient of 'weight_ih_l0' at lag 5 is not finite: it explodes",
            loss, *args, error=NonFiniteError)  # fmt: skip
    refused("the gradient of 'weight_ih_l0' is not finite beyond lag 3", loss, *args, max_lag=3,
            error=NonFiniteError)  # fmt: skip


def test_parameters_are_found_where_none_are_given():
    loss, batch, state, params = of_layer(tt.GRU(INPUTS, HIDDEN, 2), reset=True)
    result, known = ledger(loss, batch, state, max_lag=3), ledger(loss, batch, state, params, 3)
    assert len(result.parameters) == len(known.parameters)
    torch.testing.assert_close(result.norms, known.norms, rtol=1e-12, atol=0)


def test_the_norms_of_jacobian_products_on_request():
    """Against the explicit product of Jacobians, each built row by row by autograd."""
    loss, batch, state, params = of_layer(tt.RNN(INPUTS, HIDDEN))
    assert ledger(loss, batch, state, params, 4).jacobian_norms is None
    actual = ledger(loss, batch, state, params, 4, jacobians=2).jacobian_norms
    assert actual.lags == (1, 2, 4)
    for i, lag in enumerate(actual.lags):
        for j, t in enumerate(actual.times):
            with torch.no_grad():
                before = loss(batch[0 : t - lag], state)[1] if t > lag else state
            for row in range(ROWS):
                jacobian = torch.autograd.functional.jacobian(
                    lambda h, t=t, lag=lag: loss(batch[t - lag : t], h)[1], before
                )[0, row, :, 0, row]
                expected = torch.linalg.matrix_norm(jacobian, ord=2)
                close(actual.values[i, j, row], expected, 1e-6)
