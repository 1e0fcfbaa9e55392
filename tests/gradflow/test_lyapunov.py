"""Lyapunov exponents: closed forms, determinants, a system whose exponents are known."""

import math

import pytest
import torch

import throughtime as tt
from throughtime import state as states
from throughtime.errors import SettingError
from throughtime.gradflow.lyapunov import lyapunov


def simple(layer):
    def loss(batch, state):
        y, state = layer(batch, state)
        return y.square().sum(), state

    return loss


def zeros(layer, rows):
    h = torch.zeros(layer.num_layers, rows, layer.hidden_size, dtype=torch.float64)
    return (h, h.clone()) if isinstance(layer, torch.nn.LSTM | tt.LSTM) else h


def test_the_linear_recurrence_has_the_logarithms_of_its_eigenvalues():
    torch.manual_seed(0)
    layer = tt.RNN(2, 4, nonlinearity="identity").double()
    eigenvalues = torch.tensor([0.9, -0.7, 0.3, 1.02], dtype=torch.float64)
    base = torch.randn(4, 4, dtype=torch.float64)
    with torch.no_grad():
        layer.weight_hh_l0.copy_(base @ eigenvalues.diag() @ torch.linalg.inv(base))
    x = torch.randn(700, 3, 2, dtype=torch.float64)
    actual = lyapunov(simple(layer), x, zeros(layer, 3), dt=0.5, warmup=150)
    expected = eigenvalues.abs().log().sort(descending=True).values / 0.5
    torch.testing.assert_close(actual.rows, expected.expand(3, 4), rtol=1e-6, atol=1e-9)
    assert actual.largest == pytest.approx(math.log(1.02) / 0.5)
    assert float(actual.error.max()) < 1e-6
    assert actual.steps == 400


@pytest.mark.parametrize("name", ["LSTM", "GRU"])
def test_exponents_sum_to_the_mean_logarithm_of_the_determinant(name):
    """Over the whole state: h and c of all layers."""
    torch.manual_seed(1)
    layer = getattr(tt, name)(2, 3, 2).double()
    loss, start = simple(layer), zeros(layer, 2)
    x = torch.randn(60, 2, 2, dtype=torch.float64)
    actual = lyapunov(loss, x, start, warmup=7)
    size = 12 if name == "LSTM" else 6
    assert actual.rows.shape == (2, size)
    for row in range(2):
        before, logs = states.index(start, slice(row, row + 1)), []
        for t in range(60):
            piece = x[t : t + 1, row : row + 1]

            def after(v, piece=piece, before=before):
                parts = v.reshape(-1, 2, 1, 3).unbind()
                now = tuple(parts) if isinstance(before, tuple) else parts[0]
                return torch.cat([p.flatten() for p in states.leaves(loss(piece, now)[1])])

            flat = torch.cat([leaf.flatten() for leaf in states.leaves(before)])
            jacobian = torch.autograd.functional.jacobian(after, flat)
            logs.append(float(torch.linalg.slogdet(jacobian)[1]))
            before = states.detach(loss(piece, before)[1])
        expected = sum(logs[7:-7]) / 46
        assert float(actual.rows[row].sum()) == pytest.approx(expected, rel=1e-9)


def lorenz_step(state, dt):
    def rate(s):
        x, y, z = s.unbind(-1)
        return torch.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], -1)

    a = rate(state)
    b = rate(state + dt / 2 * a)
    c = rate(state + dt / 2 * b)
    return state + dt / 6 * (a + 2 * b + 2 * c + rate(state + dt * c))


def test_the_lorenz_system_as_a_cell():
    """0.9056, 0, -14.572 (Sprott 2003), to the accuracy of 30 × 60 units of time."""

    def loss(batch, state):
        for _ in batch:
            state = lorenz_step(state, 0.03)
        return state.sum(), state

    source = torch.Generator().manual_seed(0)
    start = torch.randn(1, 30, 3, generator=source, dtype=torch.float64) + torch.tensor(
        [1.0, 1.0, 25.0], dtype=torch.float64
    )
    batch = torch.zeros(2500, 30, 0, dtype=torch.float64)
    result = lyapunov(loss, batch, start, dt=0.03)
    largest, middle, least = result.exponents.tolist()
    assert largest == pytest.approx(0.9056, rel=0.01)
    assert abs(middle) < 0.01
    assert largest + middle + least == pytest.approx(-(10 + 1 + 8 / 3), rel=2e-3)
    assert abs(largest - 0.9056) < 4 * float(result.error[0])


def test_rows_do_not_know_of_each_other():
    torch.manual_seed(2)
    layer = tt.GRU(2, 4).double()
    x = torch.randn(50, 3, 2, dtype=torch.float64)
    together = lyapunov(simple(layer), x, zeros(layer, 3), warmup=20).rows
    alone = lyapunov(simple(layer), x[:, 1:2], zeros(layer, 1), warmup=20).rows
    # other starting vectors, so that only what does not depend on them agrees exactly
    assert float(together[1].sum()) == pytest.approx(float(alone.sum()), rel=1e-9)


def test_a_restart_begins_anew_and_a_dead_direction_is_minus_infinity():
    torch.manual_seed(3)
    layer = tt.RNN(2, 3, nonlinearity="identity").double()
    scale = torch.tensor([0.9, 0.5, 0.0], dtype=torch.float64)
    with torch.no_grad():
        layer.weight_hh_l0.copy_(scale.diag())
    reset = torch.zeros(200, 2, dtype=torch.bool)
    reset[[50, 90, 91], 1] = True

    def loss(batch, state):
        y, state = layer(batch[0], state, reset=batch[1])
        return y.sum(), state

    class Both:
        def __len__(self):
            return 200

        def __getitem__(self, steps):
            return (x[steps], reset[steps])

    x = torch.randn(200, 2, 2, dtype=torch.float64)
    result = lyapunov(loss, Both(), zeros(layer, 2), warmup=0)
    assert result.rows[:, 2].tolist() == [-math.inf] * 2
    assert result.rows[:, 0].tolist() == pytest.approx([math.log(0.9)] * 2, abs=0.02)


def test_where_nothing_passes_the_exponents_are_minus_infinity():
    layer = tt.RNN(2, 3).double()
    x = 1e4 * torch.ones(50, 2, 2, dtype=torch.float64)
    assert lyapunov(simple(layer), x, zeros(layer, 2)).rows.tolist() == [[-math.inf] * 3] * 2


def test_a_state_without_rows():
    weight = torch.tensor([[0.5, 0.2], [0.0, 0.8]], dtype=torch.float64)

    def loss(batch, state):
        for x in batch:
            state = weight @ state + x
        return state.sum(), state

    result = lyapunov(loss, torch.randn(100, 2, dtype=torch.float64), torch.zeros(2).double())
    assert result.exponents.tolist() == pytest.approx([math.log(0.8), math.log(0.5)], abs=1e-3)


def test_what_makes_no_sense_is_refused():
    layer = tt.GRU(2, 4).double()
    x = torch.randn(50, 3, 2, dtype=torch.float64)
    with pytest.raises(SettingError, match=r"num must be in 1 … 4"):
        lyapunov(simple(layer), x, zeros(layer, 3), num=5)
    with pytest.raises(SettingError, match="warmup must leave some of the 50 steps; got 25 a side"):
        lyapunov(simple(layer), x, zeros(layer, 3), warmup=25)
    with pytest.raises(SettingError, match="the state has no numbers"):
        lyapunov(lambda b, s: (b.sum(), None), x, None)
