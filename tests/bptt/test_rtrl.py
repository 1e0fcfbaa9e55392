"""Online against backpropagation through everything, and against RTRL written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.model_cases import sequences_of, shaken
from support.profiles import examples
from torch import Tensor, nn

import throughtime as tt
from throughtime import bptt
from throughtime import state as states
from throughtime.data.batching import Lanes
from throughtime.errors import SettingError
from throughtime.state import Traced

EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}


class Cut:
    """Inputs and restarts, cut along time together."""

    def __init__(self, x: Tensor, reset: Tensor) -> None:
        self.x, self.reset = x, reset

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, steps: slice) -> Cut:
        return Cut(self.x[steps], self.reset[steps])


class Problem(nn.Module):
    """A loss at every step of what a nonlinear head reads off a MinGRU."""

    def __init__(self, steps=15, rows=2, bias=True, start="one", restarts=0.2, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.layer = tt.MinGRU(3, 4, bias=bias)
        self.head = nn.Linear(4, 2)
        shape = None if start == "zeros" else (1, rows if start == "each" else 1, 4)
        self.start = None if shape is None else nn.Parameter(torch.randn(shape))
        self.double()
        x = torch.randn(steps, rows, 3, dtype=torch.float64)
        self.batch = Cut(x, torch.rand(steps, rows) < restarts)
        self.first = torch.randn(1, rows, 4, dtype=torch.float64)

    def loss(self, batch: Cut, state: Any) -> tuple[Tensor, Any]:
        y, state = self.layer(batch.x, state, batch.reset, self.start)
        return self.head(y).tanh().square().sum() + y[:, :, 0].sum(), state

    def gradients(self) -> list[Tensor]:
        result = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters()]
        self.zero_grad()
        return [grad.clone() for grad in result]

    def of(self, method: Any, state: Any, loss: Any = None) -> tuple[Tensor, Any, list[Tensor]]:
        value, state = method.backward(loss or self.loss, self.batch, state)
        return value, state, self.gradients()


@examples(60)
@given(
    k1=st.integers(1, 9),
    steps=st.integers(1, 25),
    rows=st.integers(1, 3),
    bias=st.booleans(),
    start=st.sampled_from(["zeros", "one", "each"]),
    restarts=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 99),
)
def test_the_gradient_is_exact_whatever_k1(k1, steps, rows, bias, start, restarts, seed):
    problem = Problem(steps, rows, bias, start, restarts, seed)
    loss, state, grads = problem.of(bptt.Online(k1), problem.layer.traced(problem.first))
    expected = problem.of(bptt.Full(), problem.first)
    torch.testing.assert_close((loss, state[0], grads), expected, **EXACT)


def test_without_the_traces_it_would_not_be():
    problem = Problem(restarts=0.0)
    where = [name for name, _ in problem.named_parameters()].index("layer.weight_ih_l0")
    exact = problem.of(bptt.Full(), problem.first)[2][where]
    for k1 in (1, 5):
        short = problem.of(bptt.Truncated(k1), problem.first)[2][where]
        assert (short - exact).norm() > 0.1 * exact.norm()


def test_the_traces_are_the_derivatives_of_the_state():
    problem = Problem(rows=2)
    layer, rows, size = problem.layer, 2, 4

    def last(weight: Tensor, bias: Tensor, start: Tensor) -> Tensor:
        named = {"weight_ih_l0": weight, "bias_ih_l0": bias}
        arguments = (problem.batch.x, problem.first, problem.batch.reset, start)
        result: Tensor = torch.func.functional_call(layer, named, arguments)[1][0]
        return result

    inputs = (layer.weight_ih_l0.detach(), layer.bias_ih_l0.detach(), problem.start.detach())
    by_weight, by_bias, by_start = torch.autograd.functional.jacobian(last, inputs)
    _, _, result = problem.loss(problem.batch, layer.traced(problem.first))[1]
    state = problem.loss(problem.batch, layer.traced(problem.first))[1]
    for b in range(rows):
        for j in range(size):
            for gate in range(2):
                row = gate * size + j
                torch.testing.assert_close(state[1][gate, b, j, :3], by_weight[b, j, row], **EXACT)
                torch.testing.assert_close(state[1][gate, b, j, 3], by_bias[b, j, row], **EXACT)
            others = [i for i in range(2 * size) if i % size != j]
            assert not by_weight[b, j, others].any()  # nothing is left out of the traces
            torch.testing.assert_close(result[0, b, j], by_start[b, j, 0, 0, j], **EXACT)


def test_a_loss_that_goes_step_by_step_inside_a_segment():
    problem = Problem(restarts=0.0)

    def loss(batch: Cut, state: Any) -> tuple[Tensor, Any]:
        total = torch.zeros((), dtype=torch.float64)
        for x in batch.x:
            y, state = problem.layer.step(x, state)
            total = total + problem.head(y).tanh().square().sum() + y[:, 0].sum()
        return total, state

    actual = problem.of(bptt.Online(4), problem.layer.traced(problem.first), loss)
    expected = problem.of(bptt.Full(), problem.first)
    torch.testing.assert_close((actual[0], actual[1][0], actual[2]), expected, **EXACT)


def test_updates_on_the_way_are_those_of_rtrl_written_out():
    """h' = f(θ, h), e' = ∂f/∂h e + ∂f/∂θ, θ' = θ - rate ∂ℓ/∂h' e' (Williams & Zipser 1989)."""
    torch.manual_seed(0)
    layer, rate = tt.MinGRU(2, 3).double(), 0.1
    x = torch.randn(8, 1, 2, dtype=torch.float64)
    shapes = [p.shape for p in layer.parameters()]
    theta = nn.utils.parameters_to_vector(layer.parameters()).detach()
    h, e = torch.zeros(3, dtype=torch.float64), torch.zeros(3, len(theta), dtype=torch.float64)

    def step(theta: Tensor, h: Tensor, x_t: Tensor) -> Tensor:
        weight, bias = (
            part.view(shape)
            for part, shape in zip(theta.split([s.numel() for s in shapes]), shapes, strict=True)
        )
        z, new = (weight @ x_t + bias).chunk(2)
        return (1 - torch.sigmoid(z)) * h + torch.sigmoid(z) * new

    for x_t in x[:, 0]:
        by_theta, by_h = torch.autograd.functional.jacobian(
            lambda theta, h, x_t=x_t: step(theta, h, x_t), (theta, h)
        )
        e, h = by_h @ e + by_theta, step(theta, h, x_t)
        theta = theta - rate * (2 * (h - 1)) @ e

    def loss(batch: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = layer(batch, state)
        return (y - 1).square().sum(), state

    def update(_: Tensor) -> None:
        with torch.no_grad():
            for p in layer.parameters():
                p -= rate * p.grad
                p.grad = None

    bptt.Online().backward(loss, x, layer.traced(), update)
    result = nn.utils.parameters_to_vector(layer.parameters())
    torch.testing.assert_close(result.detach(), theta, **EXACT)


@pytest.mark.parametrize("k1", [1, 4])
def test_a_whole_model_on_ragged_sequences(k1):
    """Learned start, resets where sequences begin, members apart, rows that end."""
    emission = tt.emissions.Normal(2)
    for members in (1, 2):
        model: Any = tt.LatentAutoregressive("mingru", 5, emission=emission, members=members)
        shaken(model)
        lanes = Lanes(sequences_of(emission, missing=False), 2, cut=False, dtype=torch.float64)
        assert int(lanes[:].reset.sum()) > 3
        assert bool((lanes[:].weight == 0).any())
        result = []
        for method in (bptt.Full(), bptt.Online(k1)):
            state = model.initial_state(2)
            if isinstance(method, bptt.Online):
                state = model.recurrent.traced(state)
            model.zero_grad()
            loss, _ = method.backward(model.loss, lanes, state)
            result.append([loss, *(p.grad.clone() for p in model.parameters())])
        torch.testing.assert_close(result[0], result[1], **EXACT)


def test_products_in_bfloat16_leave_the_traces_in_full_precision():
    layer, x = tt.MinGRU(3, 4), torch.randn(6, 2, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, state = layer(x, layer.traced(batch_size=2))
        (layer(x, state)[0].sum() + y.sum()).backward()
    _, exact = layer(x, layer.traced(batch_size=2))
    for actual, expected in zip(state, exact, strict=True):
        assert actual.dtype == torch.float32
        torch.testing.assert_close(actual, expected, rtol=0.1, atol=0.05)
    assert layer.weight_ih_l0.grad.dtype == torch.float32


def kept(problem: Problem, method: Any, state: Any) -> int:
    """The most bytes that autograd holds before any one update."""
    sizes, most = [0], [0]

    def pack(tensor: Tensor) -> Tensor:
        sizes[0] += tensor.numel() * tensor.element_size()
        return tensor

    def update(_: Tensor) -> None:
        most[0], sizes[0] = max(most[0], sizes[0]), 0

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        method.backward(problem.loss, problem.batch, state, update)
    return most[0]


def test_memory_does_not_grow_with_the_sequence():
    short, long = Problem(steps=20), Problem(steps=200)
    online = [kept(p, bptt.Online(5), p.layer.traced(p.first)) for p in (short, long)]
    full = [kept(p, bptt.Full(), p.first) for p in (short, long)]
    assert online[0] == online[1] > 0
    assert full[1] > 9 * full[0]


def test_a_traced_state_is_a_state():
    layer = tt.MinGRU(3, 4).double()
    x = torch.randn(6, 3, 3, dtype=torch.float64)
    y, state = layer(x, layer.traced(batch_size=3))
    assert isinstance(state, Traced)
    assert states.traced((state, (state,)))
    assert not states.traced((state, state[0]))
    assert not states.traced(())
    torch.testing.assert_close(y, layer(x)[0], rtol=0, atol=0)
    for made in (states.detach(state), states.clone(state), states.zeros_like(state)):
        assert isinstance(made, Traced)
        assert not any(leaf.requires_grad for leaf in states.leaves(made))
    rows = states.concatenate([states.index(state, slice(b, b + 1)) for b in range(3)])
    assert isinstance(rows, Traced)
    torch.testing.assert_close(tuple(rows), tuple(state), rtol=0, atol=0)
    none, empty = layer(x[:0], state)
    assert none.shape == (0, 3, 4)
    torch.testing.assert_close(tuple(empty), tuple(state), rtol=0, atol=0)


def test_what_is_refused():
    with pytest.raises(SettingError, match="k1 must be at least 1"):
        bptt.Online(0)
    problem = Problem()
    for state in (None, problem.first, (problem.layer.traced(problem.first), problem.first)):
        with pytest.raises(SettingError, match=r"pass layer.traced\(\.\.\.\) of a MinGRU"):
            bptt.Online().backward(problem.loss, problem.batch, state)

    def forgetful(batch, state):
        total, state = problem.loss(batch, state)
        return total, state[0] if isinstance(state, Traced) else state

    with pytest.raises(SettingError, match="returned a state without traces"):
        bptt.Online().backward(forgetful, problem.batch, problem.layer.traced(problem.first))
    with pytest.raises(SettingError, match="only one layer can be traced exactly, this MinGRU has"):
        tt.MinGRU(3, 4, 2).traced()
    with pytest.raises(SettingError, match=r"must be \[1, B, 4\], got \[2, 1, 4\]"):
        problem.layer.traced(torch.zeros(2, 1, 4))
    with pytest.raises(SettingError, match="another layer or another batch size"):
        problem.layer(problem.batch.x, problem.layer.traced(batch_size=5))
    below = problem.batch.x.clone().requires_grad_()
    with pytest.raises(SettingError, match="something below this layer is trained"):
        problem.layer(below, problem.layer.traced(problem.first))
    with torch.no_grad():
        problem.layer(below, problem.layer.traced(problem.first))
    symbols = tt.LatentAutoregressive("mingru", 4, emission=tt.emissions.Categorical(3))
    lanes = Lanes(sequences_of(tt.emissions.Categorical(3)), 1)
    with pytest.raises(SettingError, match="something below this layer is trained"):
        bptt.Online().backward(symbols.loss, lanes, symbols.recurrent.traced())


def test_the_restart_state_may_not_be_forgotten():
    problem = Problem(restarts=0.5)
    _, state = problem.loss(problem.batch, problem.layer.traced(problem.first))
    with pytest.raises(SettingError, match="restarted from `initial`; pass it in every call"):
        problem.layer(problem.batch.x, state)


def test_a_second_derivative_of_the_past_is_refused():
    problem = Problem()
    loss, _ = problem.loss(problem.batch, problem.layer.traced(problem.first))
    grads = torch.autograd.grad(loss, list(problem.parameters()), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        sum(grad.square().sum() for grad in grads).backward()
