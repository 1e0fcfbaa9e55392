"""The scan against the loop that defines it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.profiles import examples
from torch import Tensor

from throughtime.layers import parallel_scan as scans
from throughtime.layers.parallel_scan import scan

EXACT = {"rtol": 1e-12, "atol": 1e-12}


def written_out(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    """h_t = a_t h_{t-1} + b_t by plain operations that autograd knows."""
    h, all_h = start, []
    for t in range(len(a)):
        h = a[t] * h + b[t]
        all_h.append(h)
    return torch.stack(all_h)


def problem(steps: int, shape: tuple[int, ...], seed: int = 0, zeros: float = 0.1) -> list[Tensor]:
    source = torch.Generator().manual_seed(seed)
    kind = {"dtype": torch.float64, "generator": source}
    a = torch.rand((steps, *shape), **kind) * 1.2 - 0.1  # gates, and a little beyond
    a = torch.where(torch.rand(a.shape, **kind) < zeros, 0.0, a)
    made = [a, torch.randn((steps, *shape), **kind), torch.randn(shape, **kind)]
    return [one.requires_grad_() for one in made]


@examples(60)
@given(
    steps=st.integers(1, 70),
    shape=st.sampled_from([(1,), (3,), (2, 5), ()]),
    seed=st.integers(0, 99),
    zeros=st.sampled_from([0.0, 0.2, 1.0]),
)
def test_values_and_gradients_are_those_of_the_loop(steps, shape, seed, zeros):
    inputs = problem(steps, shape, seed, zeros)
    same(inputs)


def same(inputs: list[Tensor]) -> None:
    """Values, and the gradients of every input for a random cotangent."""
    actual, expected = scan(*inputs), written_out(*inputs)
    torch.testing.assert_close(actual, expected, **EXACT)
    weights = torch.randn(actual.shape, dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad((actual * weights).sum(), inputs),
        torch.autograd.grad((expected * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, **EXACT)


@pytest.mark.parametrize("width", [16, 1024])  # merged in several blocks; step by step
def test_long_sequences_of_every_way_to_scan(width):
    _, b, start = inputs = problem(9000 if width == 16 else 40, (width,))
    step = start.numel() * start.element_size()
    assert (step >= scans._WIDE) == (width == 1024)
    assert width == 1024 or len(b) > scans._BLOCK // step + scans._FEW
    same(inputs)


@pytest.mark.parametrize("steps", [1, 2, 8, 9, 16, 21])
def test_derivatives_of_second_order(steps):
    inputs = problem(steps, (2,))
    assert torch.autograd.gradcheck(scan, inputs)
    assert torch.autograd.gradgradcheck(scan, inputs)


def test_third_derivatives_go_on():
    """h_2 = a_2 a_1 a_0 s: its derivative by all three factors is s."""
    a = torch.tensor([[0.5], [0.7], [0.2]], dtype=torch.float64, requires_grad=True)
    start = torch.tensor([3.0], dtype=torch.float64)
    value = scan(a, torch.zeros_like(a), start)[-1]
    for t in range(3):
        value = torch.autograd.grad(value.sum(), a, create_graph=True)[0][t]
    torch.testing.assert_close(value, start)


@examples(20)
@given(cut=st.integers(0, 50), width=st.sampled_from([2, 1100]))
def test_a_sequence_in_two_parts_is_the_same(cut, width):
    a, b, start = problem(50, (width,))
    first = scan(a[:cut], b[:cut], start)
    second = scan(a[cut:], b[cut:], first[-1] if cut else start)
    torch.testing.assert_close(torch.cat([first, second]), scan(a, b, start), **EXACT)


def test_nothing_from_before_a_zero_is_seen_after_it():
    a, b, start = problem(30, (3,), zeros=0.0)
    with torch.no_grad():
        a[17] = 0
    after = scan(a, b, start)[17:]
    grads = torch.autograd.grad(after.sum(), (b, start))
    assert not grads[0][:17].any()
    assert not grads[1].any()
    torch.testing.assert_close(after, written_out(a[17:], b[17:], torch.zeros_like(start)), **EXACT)


def test_no_steps():
    a, b, start = problem(0, (3,))
    result = scan(a, b, start)
    assert result.shape == (0, 3)
    result.sum().backward()
    assert start.grad is not None
    assert not start.grad.any()
