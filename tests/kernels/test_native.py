"""The native recurrence against the plain reference and torch.nn: values and all gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.close import gradient_names, output_names
from support.native_cases import (
    IN_TORCH,
    KINDS,
    Case,
    cases,
    compare,
    flat,
    gradients,
    layer,
    pair,
    random_state,
    same,
)
from support.profiles import examples
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence

from throughtime import kernels
from throughtime import state as states
from throughtime.kernels import native

pytestmark = pytest.mark.skipif(not native.available(), reason="the native kernels were not built")


def results(case: Case, backend: str) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, and gradients of everything that goes in."""
    outputs = flat(
        kernels.run(
            case.spec, case.x, case.state, case.weights, case.reset, case.initial, backend,
            case.lengths,
        )
    )  # fmt: skip
    return outputs, gradients(outputs, case.leaves())


@examples(250)
@given(case=cases())
def test_values_and_gradients_equal_the_reference(case: Case) -> None:
    actual, expected = results(case, "cpu"), results(case, "reference")
    same(actual[0], expected[0], output_names(actual[0]))
    same(actual[1], expected[1], case.gradient_names())


@examples(150)
@given(
    kind=st.sampled_from(IN_TORCH),
    sizes=st.tuples(st.integers(1, 12), st.integers(0, 6), st.integers(1, 7), st.integers(1, 19)),
    layers=st.integers(1, 2),
    bias=st.booleans(),
    both=st.booleans(),
    batch_first=st.booleans(),
    unbatched=st.booleans(),
    given_state=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_values_and_gradients_equal_torch(
    kind: str, sizes: tuple[int, ...], layers: int, bias: bool, both: bool, batch_first: bool,
    unbatched: bool, given_state: bool, seed: int,
) -> None:  # fmt: skip
    steps, batch, inputs, hidden = sizes
    ours, theirs = pair(
        kind, inputs, hidden, num_layers=layers, bias=bias, batch_first=batch_first,
        bidirectional=both,
    )  # fmt: skip
    torch.manual_seed(seed)
    shape = (batch, steps, inputs) if batch_first else (steps, batch, inputs)
    x = torch.randn((steps, inputs) if unbatched else shape, dtype=torch.float64)
    x.requires_grad_()
    state = random_state(ours, None if unbatched else batch) if given_state else None
    compare(ours, theirs, [x, *states.leaves(state)], x, state)


@examples(80)
@given(
    kind=st.sampled_from(KINDS),
    lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    ordered=st.booleans(),
    both=st.booleans(),
    batch_first=st.booleans(),
    given_state=st.booleans(),
)
def test_packed_sequences(
    kind: str, lengths: list[int], ordered: bool, both: bool, batch_first: bool, given_state: bool
) -> None:
    lengths = sorted(lengths, reverse=True) if ordered else lengths
    ours = layer(kind, 3, 5, 2, bidirectional=both, batch_first=batch_first, backend="cpu")
    theirs = layer(kind, 3, 5, 2, bidirectional=both, batch_first=batch_first)
    theirs.backend = "torch" if kind in IN_TORCH else "reference"
    x = torch.randn(len(lengths), max(lengths), 3, dtype=torch.float64, requires_grad=True)
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=ordered)
    state = random_state(ours, len(lengths)) if given_state else None
    inputs = [x, *states.leaves(state)]
    outputs = flat(ours(packed, state)), flat(theirs(packed, state))
    same(*outputs, output_names(outputs[0]))
    wanted = [*inputs, *ours.parameters()], [*inputs, *theirs.parameters()]
    first = gradients(outputs[0], wanted[0], keep=True)
    same(first, gradients(outputs[1], wanted[1]), gradient_names(inputs, ours))
    actual, expected = ours(packed, state)[0], theirs(packed, state)[0]
    assert isinstance(actual, PackedSequence)
    assert torch.equal(actual.batch_sizes, expected.batch_sizes)
    for ours_, theirs_ in zip(actual[2:], expected[2:], strict=True):
        assert (ours_ is None) == ordered == (theirs_ is None)
        assert ordered or torch.equal(ours_, theirs_)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [128, 129, 300])
def test_a_single_step_of_many_rows(kind: str, batch: int) -> None:
    """Its backward pass works the rows off in chunks."""
    torch.manual_seed(batch)
    x = torch.randn(1, batch, 3, dtype=torch.float64, requires_grad=True)
    module = layer(kind, 3, 5)
    before, first = random_state(module, batch), random_state(module, 1)
    weights = list(module.parameters())
    case = Case(module._spec(), x, before, weights, torch.rand(1, batch) < 0.3, first, None)
    actual, expected = results(case, "cpu"), results(case, "reference")
    same(actual[0], expected[0])
    same(actual[1], expected[1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("both", [False, True])
def test_rows_of_no_length_keep_their_state(kind: str, both: bool) -> None:
    module = layer(kind, 3, 5, bidirectional=both)
    x, state = torch.randn(6, 4, 3, dtype=torch.float64), random_state(module, 4)
    weights = list(module.parameters())
    lengths = torch.tensor([0, 6, 0, 2])
    run = kernels.run(module._spec(), x, state, weights, None, None, "cpu", lengths)
    y, *final = flat(run)
    assert not y[:, [0, 2]].any()
    assert not y[2:, 3].any()
    assert y[:2, 3].any(-1).all()
    for end, start in zip(final, states.leaves(state), strict=True):
        assert torch.equal(end[:, [0, 2]], start[:, [0, 2]])
        assert not torch.equal(end[:, 1], start[:, 1])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("both", [False, True])
def test_gradcheck(kind: str, both: bool) -> None:
    torch.manual_seed(1)
    module = layer(kind, 2, 3, 2, bidirectional=both, backend="cpu")
    x = torch.randn(4, 2, 2, dtype=torch.float64, requires_grad=True)
    reset = torch.tensor([[0, 0], [0, 1], [1, 0], [0, 0]], dtype=torch.bool)
    state, initial = random_state(module, 2), random_state(module, 1)
    leaves = [*states.leaves(state), *states.leaves(initial)]

    def run(x: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
        half = len(leaves) // 2
        parts = tensors[:half], tensors[half : 2 * half]
        start, again = (part if kind == "lstm" else part[0] for part in parts)
        spec, weights = module._spec(), tensors[2 * half :]
        return tuple(flat(kernels.run(spec, x, start, weights, reset, again, "cpu")))

    assert torch.autograd.gradcheck(run, (x, *leaves, *module.parameters()))


SHAPES = {  # T, B, I, H
    "one row": (60, 1, 19, 64),
    "odd": (25, 7, 13, 67),
    "many rows": (12, 50, 33, 40),
    "large": (10, 9, 40, 256),
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", KINDS)
def test_float32_errs_at_most_four_times_as_much_as_torch(kind: str, shape: str) -> None:
    """Root-mean-square errors of values and of every gradient, against float64."""
    steps, batch, inputs, hidden = SHAPES[shape]
    exact = layer(kind, inputs, hidden, backend="reference", dtype=torch.float32)
    ours = layer(kind, inputs, hidden, backend="cpu", dtype=torch.float32)
    other_backend = "torch" if kind in IN_TORCH else "reference"
    theirs = layer(kind, inputs, hidden, backend=other_backend, dtype=torch.float32)
    exact.double()
    torch.manual_seed(0)
    x, state = torch.randn(steps, batch, inputs), random_state(ours, batch)
    actual: list[list[Tensor]] = []
    for module in (ours, theirs, exact):
        dtype = module.weight_ih_l0.dtype
        x_ = x.to(dtype).requires_grad_()
        state_ = states.apply(lambda p: p.detach().to(dtype).requires_grad_(), state)  # noqa: B023
        outputs = flat(module(x_, state_))
        leaves = [x_, *states.leaves(state_), *module.parameters()]
        actual.append([*outputs, *gradients(outputs, leaves)])
    for one, other, truth in zip(*actual, strict=True):
        ours_, theirs_ = ((part.double() - truth).norm().item() for part in (one, other))
        assert 0 < ours_ <= 4 * theirs_
        assert ours_ < 1e-4 * truth.norm().item()
