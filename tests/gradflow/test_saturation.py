"""Shares of saturated gates against gates computed step by step, by hand."""

import pytest
import torch

import throughtime as tt
from throughtime.gradflow.saturation import saturation

STEPS, ROWS, INPUTS, HIDDEN = 15, 3, 2, 4


def problem(layer, gain, **more):
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(gain * torch.randn_like(parameter))
    x = torch.randn(STEPS, ROWS, INPUTS, dtype=torch.float64)

    def loss(batch, state):
        y, state = layer(batch.transpose(0, 1) if layer.batch_first else batch, state, **more)
        return y.sum(), state

    h = torch.zeros(layer.num_layers, ROWS, HIDDEN, dtype=torch.float64)
    return loss, x, (h, h.clone()) if layer.mode == "LSTM" else h


def by_hand(layer, x):
    """{name: share}, one step and layer after the other, from the equations of torch.nn."""
    flat, kind = {}, layer.mode.partition("_")[0]
    for number in range(layer.num_layers):
        w_ih, w_hh, b_ih, b_hh = (
            getattr(layer, f"{name}_l{number}").detach()
            for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )
        h = c = torch.zeros(ROWS, HIDDEN, dtype=torch.float64)
        outputs = []
        for now in x:
            a, b = now @ w_ih.T + b_ih, h @ w_hh.T + b_hh
            if kind == "RNN":
                h = torch.tanh(a + b)
                gates = {"tanh": (h, 1)}
            elif kind == "GRU":
                r = torch.sigmoid(a[:, :4] + b[:, :4])
                z = torch.sigmoid(a[:, 4:8] + b[:, 4:8])
                n = torch.tanh(a[:, 8:] + r * b[:, 8:])
                h = (1 - z) * n + z * h
                gates = {"r": (r, 0), "z": (z, 0), "n": (n, 1)}
            else:
                i, f, o = (torch.sigmoid((a + b)[:, 4 * k : 4 * k + 4]) for k in (0, 1, 3))
                g = torch.tanh((a + b)[:, 8:12])
                c = f * c + i * g
                h = o * torch.tanh(c)
                gates = {"i": (i, 0), "f": (f, 0), "g": (g, 1), "o": (o, 0)}
                gates["c"] = (torch.tanh(c), 1)
            for name, (y, tanh) in gates.items():
                out = y.abs() > 0.99**0.5 if tanh else (y - 0.5).abs() > 0.99**0.5 / 2
                flat.setdefault(f"l{number}.{name}", []).append(out.double().mean())
            outputs.append(h)
        x = torch.stack(outputs)
    return {name: float(torch.stack(shares).mean()) for name, shares in flat.items()}


LAYERS = {
    "rnn": lambda **kw: tt.RNN(INPUTS, HIDDEN, 2, **kw),
    "gru": lambda **kw: tt.GRU(INPUTS, HIDDEN, 2, **kw),
    "lstm": lambda **kw: tt.LSTM(INPUTS, HIDDEN, 2, **kw),
    "torch rnn": lambda **kw: torch.nn.RNN(INPUTS, HIDDEN, **kw),
    "torch gru": lambda **kw: torch.nn.GRU(INPUTS, HIDDEN, 2, **kw),
    "torch lstm": lambda **kw: torch.nn.LSTM(INPUTS, HIDDEN, **kw),
}


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_shares_are_those_of_the_gates(name, batch_first):
    layer = LAYERS[name](batch_first=batch_first).double()
    loss, x, state = problem(layer, 4.0)
    actual = saturation(loss, x, state, {f"inner.{n}": p for n, p in layer.named_parameters()})
    expected = {f"inner.{n}": share for n, share in by_hand(layer, x).items()}
    assert actual == pytest.approx(expected, abs=1e-12)
    assert all(0 < share < 1 for share in actual.values())
    small, x, state = problem(layer, 0.1)
    assert set(saturation(small, x, state).values()) == {0.0}


def test_a_light_gru_has_two_gates():
    layer = tt.LiGRU(INPUTS, HIDDEN).double()
    loss, x, state = problem(layer, 4.0)
    h, shares = torch.zeros(ROWS, HIDDEN, dtype=torch.float64), []
    for now in x:
        pre = now @ layer.weight_ih_l0.T + h @ layer.weight_hh_l0.T
        z, n = (pre + layer.bias_ih_l0 + layer.bias_hh_l0).chunk(2, -1)
        gate = torch.sigmoid(z)
        shares.append(
            [((gate - 0.5).abs() > 0.99**0.5 / 2).double().mean(), (n <= 0).double().mean()]
        )
        h = gate * h + (1 - gate) * torch.relu(n)
    expected = torch.tensor(shares, dtype=torch.float64).mean(0).tolist()
    params = {f"inner.{n}": p for n, p in layer.named_parameters()}
    assert saturation(loss, x, state, params) == pytest.approx(
        {"inner.l0.z": expected[0], "inner.l0.n": expected[1]}, abs=1e-12
    )


def test_a_restart_is_before_the_step():
    layer = tt.RNN(INPUTS, HIDDEN).double()
    reset = torch.ones(STEPS, ROWS, dtype=torch.bool)
    _, x, state = problem(layer, 4.0)

    class Both:
        def __len__(self):
            return STEPS

        def __getitem__(self, steps):
            return (x[steps], reset[steps])

    def loss(batch, state):
        y, state = layer(batch[0], state, reset=batch[1])
        return y.sum(), state

    actual = saturation(loss, Both(), state + 100)
    y = torch.tanh(x @ layer.weight_ih_l0.T + layer.bias_ih_l0 + layer.bias_hh_l0)
    expected = float((y.abs() > 0.99**0.5).double().mean())
    assert actual == {"RNN_TANH0.l0.tanh": pytest.approx(expected)}


def test_units_that_are_off_and_units_that_cannot_saturate():
    layer = tt.RNN(INPUTS, HIDDEN, nonlinearity="relu").double()
    loss, x, state = problem(layer, 0.3)
    with torch.no_grad():
        off = float((layer(x, state)[0] <= 0).double().mean())
    assert saturation(loss, x, state) == {"RNN_RELU0.l0.relu": pytest.approx(off)}
    line = tt.RNN(INPUTS, HIDDEN, nonlinearity="identity").double()
    loss, x, state = problem(line, 0.3)
    assert saturation(loss, x, state) == {"RNN_TANH0.l0.identity": 0.0}


def test_no_hook_is_left_behind():
    layer = tt.GRU(2, 3)
    x = torch.randn(5, 1, 2)

    def loss(batch, state):
        y, state = layer(batch, state)
        return y.sum(), state

    saturation(loss, x, torch.zeros(1, 1, 3), dict(layer.named_parameters()))
    assert not torch.nn.modules.module._has_any_global_hook()
