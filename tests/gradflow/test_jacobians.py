"""Norms and radii of Jacobians: dense matrices, finite differences, closed forms."""

import pytest
import torch

import throughtime as tt
from throughtime import state as states
from throughtime.errors import SettingError
from throughtime.gradflow._jacobian_products import Product, from_vectors, to_vectors
from throughtime.gradflow._krylov import largest_eigenvalue, largest_singular
from throughtime.gradflow.jacobians import jacobian_norms, spectral_radius, step_radius

STEPS, ROWS, INPUTS, HIDDEN = 20, 2, 2, 3

LAYERS = {
    "rnn": lambda: tt.RNN(INPUTS, HIDDEN),
    "gru": lambda: tt.GRU(INPUTS, HIDDEN, 2),
    "lstm": lambda: tt.LSTM(INPUTS, HIDDEN, 2),
    "torch lstm": lambda: torch.nn.LSTM(INPUTS, HIDDEN),
}


def problem(name, steps=STEPS, gain=1.0):
    """(loss, batch, state, layer)."""
    torch.manual_seed(0)
    layer = LAYERS[name]().double()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter *= gain
    x = torch.randn(steps, ROWS, INPUTS, dtype=torch.float64)

    def loss(batch, state):
        y, state = layer(batch, state)
        return y.square().sum(), state

    h = 0.3 * torch.randn(layer.num_layers, ROWS, HIDDEN, dtype=torch.float64)
    return loss, x, (h, 0.5 * h) if "lstm" in name else h, layer


def vector(state):
    return to_vectors(list(states.leaves(state)))


def like(vectors, state):
    leaves = from_vectors(vectors, list(states.leaves(state)))
    return tuple(leaves) if isinstance(state, tuple) else leaves[0]


def dense(loss, piece, state):
    """∂S_t/∂S_{t-k} of each row, ``[B, n, n]``, by autograd of one row after the other."""
    result = []
    for row in range(vector(state).shape[0]):
        one = states.index(state, slice(row, row + 1))

        def after(v, one=one, row=row):
            return vector(loss(piece[:, row : row + 1], like(v[None], one))[1])[0]

        result.append(torch.autograd.functional.jacobian(after, vector(one)[0]))
    return torch.stack(result)


@pytest.mark.parametrize("name", LAYERS)
def test_norms_are_those_of_the_explicit_product(name):
    loss, x, state, _ = problem(name)
    actual = jacobian_norms(loss, x, state, lags=[1, 3, 8], times=[9, 17])
    assert actual.lags == (1, 3, 8)
    assert actual.values.shape == (3, 2, ROWS)
    for j, t in enumerate(actual.times):
        for i, lag in enumerate(actual.lags):
            before = states.detach(loss(x[: t - lag], state)[1])
            expected = torch.linalg.matrix_norm(dense(loss, x[t - lag : t], before), ord=2)
            torch.testing.assert_close(actual.values[i, j], expected, rtol=1e-6, atol=0)
    short, flat = actual.by_lag, actual.values.flatten(1)
    assert short.lags == actual.lags
    assert short.mean == pytest.approx(flat.mean(1).tolist())
    for name, share in (("low", 0.1), ("median", 0.5), ("high", 0.9)):
        assert getattr(short, name) == pytest.approx(flat.quantile(share, dim=1).tolist())


@pytest.mark.parametrize("name", LAYERS)
def test_products_are_those_of_finite_differences(name):
    loss, x, state, _ = problem(name)
    with torch.no_grad():
        before = states.detach(loss(x[:5], state)[1])
    product = Product(loss, [x[5:12]], [before], True)
    size = product.shape[1]
    v, step = torch.randn(ROWS, size, dtype=torch.float64), 1e-5
    v /= v.norm(dim=1, keepdim=True)
    with torch.no_grad():
        ends = [
            vector(loss(x[5:12], like(vector(before) + sign * step * v, before))[1])
            for sign in (1, -1)
        ]
    expected = (ends[0] - ends[1]) / (2 * step)
    forward = product.jvp(v)
    assert float((forward - expected).norm() / expected.norm()) < 1e-6
    u = torch.randn(ROWS, size, dtype=torch.float64)
    torch.testing.assert_close((u * forward).sum(1), (v * product.vjp(u)).sum(1))


def test_the_linear_recurrence_has_the_norms_of_its_powers():
    torch.manual_seed(1)
    layer = tt.RNN(INPUTS, 6, nonlinearity="identity").double()

    def loss(batch, state):
        y, state = layer(batch, state)
        return y.sum(), state

    x = torch.randn(300, ROWS, INPUTS, dtype=torch.float64)
    actual = jacobian_norms(loss, x, torch.zeros(1, ROWS, 6, dtype=torch.float64), times=3)
    assert actual.lags == (1, 2, 4, 8, 16, 32, 64, 128)
    for i, lag in enumerate(actual.lags):
        power = torch.linalg.matrix_power(layer.weight_hh_l0.detach(), lag)
        expected = torch.linalg.matrix_norm(power, ord=2).expand(3, ROWS)
        torch.testing.assert_close(actual.values[i], expected, rtol=1e-6, atol=0)
    radius = float(torch.linalg.eigvals(layer.weight_hh_l0.detach()).abs().max())
    state = torch.zeros(1, ROWS, 6, dtype=torch.float64)
    assert step_radius(loss, x, state) == pytest.approx(radius, rel=1e-6)
    assert spectral_radius(dict(layer.named_parameters())) == pytest.approx(
        {"weight_hh_l0": radius}, rel=1e-9
    )


def test_norms_far_below_the_square_root_of_the_smallest_number():
    weight = 1e-3 * torch.eye(2, dtype=torch.float64)

    def loss(batch, state):
        for x in batch:
            state = state @ weight + x
        return state.sum(), state

    x = torch.zeros(80, 1, 1, 2, dtype=torch.float64)
    result = jacobian_norms(loss, x, torch.ones(1, 1, 2, dtype=torch.float64), lags=[80])
    assert float(result.values) == pytest.approx(1e-240, rel=1e-6)


def test_a_state_of_any_shape():
    weight = torch.randn(3, 3, dtype=torch.float64)

    def loss(batch, state):
        h, count = state
        for x in batch:
            h, count = torch.tanh(weight @ h + x), count + 1
        return h.sum(), (h, count)

    x = torch.randn(9, 3, dtype=torch.float64)
    state = (torch.zeros(3, dtype=torch.float64), torch.zeros((), dtype=torch.int64))
    actual = jacobian_norms(loss, x, state, lags=[1, 4], times=[4, 9])
    for j, t in enumerate((4, 9)):
        for i, lag in enumerate((1, 4)):
            before = loss(x[: t - lag], state)[1]
            jacobian = torch.autograd.functional.jacobian(
                lambda h, t=t, lag=lag: loss(x[t - lag : t], (h, state[1]))[1][0], before[0]
            )
            expected = float(torch.linalg.matrix_norm(jacobian, ord=2))
            assert float(actual.values[i, j, 0]) == pytest.approx(expected, rel=1e-6)


def test_a_loss_made_for_its_number_of_rows():
    loss, x, state, _ = problem("gru")

    def fixed(batch, state):
        if state.shape[1] != ROWS:
            raise ValueError("not so many rows")
        return loss(batch, state)

    actual = jacobian_norms(fixed, x, state, lags=[1, 4], times=[7, 9])
    expected = jacobian_norms(loss, x, state, lags=[1, 4], times=[7, 9])
    torch.testing.assert_close(actual.values, expected.values, rtol=1e-6, atol=0)


def test_a_restart_lets_nothing_through():
    layer = tt.GRU(INPUTS, HIDDEN).double()
    reset = torch.zeros(STEPS, ROWS, dtype=torch.bool)
    reset[10, 1] = True

    def loss(batch, state):
        y, state = layer(batch[0], state, reset=batch[1])
        return y.sum(), state

    class Both:
        def __len__(self):
            return STEPS

        def __getitem__(self, steps):
            return (x[steps], reset[steps])

    x = torch.randn(STEPS, ROWS, INPUTS, dtype=torch.float64)
    state = torch.zeros(1, ROWS, HIDDEN, dtype=torch.float64)
    values = jacobian_norms(loss, Both(), state, lags=[1, 4], times=[12]).values[:, 0]
    assert float(values[1, 1]) == 0
    assert bool((values[0] > 0).all())
    assert float(values[1, 0]) > 0


@pytest.mark.parametrize("size", [1, 2, 7])
def test_krylov_methods_against_dense_ones(size):
    source = torch.Generator().manual_seed(size)
    matrices = torch.randn(5, size, size, generator=source, dtype=torch.float64)
    matrices[0] = torch.linalg.qr(matrices[0])[0]  # all singular values are one
    matrices[1] = 0
    start = torch.randn(5, size, generator=source, dtype=torch.float64)
    actual, left = largest_singular(
        lambda v: torch.einsum("rij,rj->ri", matrices, v),
        lambda u: torch.einsum("rij,ri->rj", matrices, u),
        start,
        1e-6,
    )
    expected = torch.linalg.matrix_norm(matrices, ord=2)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)
    back = torch.einsum("rij,ri->rj", matrices, left).norm(dim=1)
    torch.testing.assert_close(back, expected, rtol=1e-4, atol=0)
    for matrix, v in zip(matrices, start, strict=True):
        radius = float(torch.linalg.eigvals(matrix).abs().max())
        assert largest_eigenvalue(lambda v, m=matrix: m @ v, v, 1e-6) == pytest.approx(
            radius, rel=1e-6, abs=1e-12
        )


def test_radii_of_gates_by_name():
    layer = tt.GRU(2, 3).double()
    module = torch.nn.ModuleDict({"inner": layer})
    result = spectral_radius(dict(module.named_parameters()))
    assert list(result) == [f"inner.weight_hh_l0.{gate}" for gate in "rzn"]
    block = layer.weight_hh_l0[3:6].detach()
    assert result["inner.weight_hh_l0.z"] == pytest.approx(
        float(torch.linalg.eigvals(block).abs().max())
    )


def test_what_makes_no_sense_is_refused():
    loss, x, state, layer = problem("gru")
    with pytest.raises(SettingError, match=r"lags must lie in 1 … 20"):
        jacobian_norms(loss, x, state, lags=[0])
    with pytest.raises(SettingError, match=r"times must lie in 4 … 20"):
        jacobian_norms(loss, x, state, lags=[4], times=[3])
    with pytest.raises(SettingError, match="times must be at least 1"):
        jacobian_norms(loss, x, state, lags=[4], times=0)
    with pytest.raises(SettingError, match="the state has no numbers"):
        jacobian_norms(lambda b, s: (b.sum(), None), x, None, lags=[4])
    with pytest.raises(SettingError, match="rows of this loss depend on each other"):
        jacobian_norms(lambda b, s: (b.sum(), s - s.mean(1, keepdim=True) + b.sum()), x, state)
    layer.dropout = 0.5
    with pytest.raises(SettingError, match="must not draw random numbers"):
        jacobian_norms(loss, x, state, lags=[4])
