"""The fused head of symbol models against torch's linear layer and cross-entropy."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from support.profiles import examples

import throughtime as tt
from throughtime.errors import BackendError
from throughtime.kernels import native
from throughtime.models.native import cross_entropy as categorical

needs_library = pytest.mark.skipif(
    not native.available(), reason="the native kernels are not built"
)


def problem(rows, hidden, symbols, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, dtype=dtype, generator=generator)  # noqa: E731
    y, weight, bias = draw(rows, hidden), draw(symbols, hidden), draw(symbols)
    target = torch.randint(symbols, (rows,), generator=generator)
    scale = (torch.rand(rows, generator=generator) < 0.8).to(dtype) / 3
    return [part.requires_grad_() for part in (y, weight, bias)], target, scale


def of_torch(inputs, target, scale):
    y, weight, bias = inputs
    return (F.cross_entropy(F.linear(y, weight, bias), target, reduction="none") * scale).sum()


@needs_library
@examples(60)
@given(
    rows=st.integers(0, 200),
    hidden=st.integers(1, 70),
    symbols=st.integers(1, 140),
    threads=st.integers(1, 3),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 10**6),
)
def test_values_and_gradients_equal_torch(rows, hidden, symbols, threads, dtype, seed):
    inputs, target, scale = problem(rows, hidden, symbols, dtype, seed)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        actual = categorical.nats(*inputs, target, scale)
        gradients = torch.autograd.grad(actual, inputs)
    finally:
        torch.set_num_threads(before)
    exact = [part.detach().double().requires_grad_() for part in inputs]
    expected = of_torch(exact, target, scale.double())
    wanted = torch.autograd.grad(expected, exact)
    tolerance = 1e-11 if dtype == torch.float64 else 2e-5
    for mine, truth in zip((actual, *gradients), (expected, *wanted), strict=True):
        size = max(float(truth.detach().abs().max()), 1.0) if truth.numel() else 1.0
        torch.testing.assert_close(mine.double(), truth, rtol=0, atol=tolerance * size)


@needs_library
def test_rows_apart_and_an_upstream_factor():
    inputs, target, scale = problem(30, 24, 9, torch.float64, 1)
    wide = inputs[0].detach().clone().requires_grad_()
    result = 3.0 * categorical.nats(
        wide[:, 8:16], *problem(30, 8, 9, torch.float64, 2)[0][1:], target, scale
    )
    result.backward()
    other = inputs[0].detach().clone().requires_grad_()
    head = problem(30, 8, 9, torch.float64, 2)[0][1:]
    (3.0 * of_torch([other[:, 8:16], *head], target, scale)).backward()
    torch.testing.assert_close(wide.grad, other.grad, rtol=1e-11, atol=1e-12)


@needs_library
def test_what_is_refused():
    inputs, target, scale = problem(4, 3, 5, torch.float64, 0)
    with pytest.raises(IndexError, match="a symbol is not one of those"):
        categorical.nats(*inputs, target + 5, scale)
    total = categorical.nats(*inputs, target, scale)
    with pytest.raises(BackendError, match="backend='reference'"):
        torch.autograd.grad(total, inputs, create_graph=True)


@needs_library
def test_infinite_outputs_give_nan_as_in_torch():
    inputs, target, _scale = problem(4, 3, 5, torch.float32, 0)
    with torch.no_grad():
        inputs[0][1] = torch.inf
    assert torch.isnan(categorical.nats(*inputs, target, torch.ones(4)))
    assert torch.isnan(of_torch(inputs, target, torch.ones(4)))


@needs_library
@pytest.mark.parametrize("members", [1, 3])
def test_the_model_has_the_same_loss_and_gradients_with_and_without_it(members):
    torch.manual_seed(0)
    model = tt.LatentAutoregressive(
        "gru", 6, emission=tt.emissions.Categorical(7), members=members
    ).double()
    data = tt.Sequences.of([torch.randint(7, (n,)) for n in (30, 11, 1)])
    from throughtime.data.batching import Lanes

    lanes = Lanes(data, 2)
    result = []
    for backend in ("cpu", "reference"):
        model.recurrent.backend = backend
        model.zero_grad()
        loss, _ = model.loss(lanes[0 : len(lanes)], model.initial_state(lanes.num_lanes))
        loss.backward()
        result.append([loss.detach(), *(p.grad.clone() for p in model.parameters())])
    torch.testing.assert_close(result[0], result[1], rtol=1e-9, atol=1e-11)
