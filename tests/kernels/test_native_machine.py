"""The native recurrence on this machine: instruction sets, threads, workspaces, extreme numbers."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from support.native_cases import (
    IN_TORCH,
    KINDS,
    compare,
    flat,
    gradients,
    half,
    instruction_sets,
    layer,
    pair,
    random_state,
    run_python,
    running,
    same,
)
from torch import Tensor

from throughtime import state as states
from throughtime.kernels import native

pytestmark = pytest.mark.skipif(not native.available(), reason="the native kernels were not built")


@pytest.fixture(autouse=True)
def _threads_put_back() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@contextmanager
def poisoned() -> Iterator[None]:
    """Workspaces begin as NaN."""
    native.library().tt_poison(1)
    try:
        yield
    finally:
        native.library().tt_poison(0)


def everything(module: Any, x: Tensor, state: Any, **more: Any) -> tuple[list[Tensor], ...]:
    """Outputs, gradients of what goes in, gradients of the weights."""
    inputs = [x, *states.leaves(state)]
    outputs = flat(module(x, state, **more))
    result = gradients(outputs, [*inputs, *module.parameters()])
    return outputs, result[: len(inputs)], result[len(inputs) :]


# ---------------------------------------------------------------------------- instruction sets


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["avx512", "avx2", "neon", "baseline"])
def test_each_instruction_set(name: str, kind: str) -> None:
    torch.set_num_threads(2)
    sizes = ((5, 3, 7, 9), (9, 21, 5, 33), (3, 1, 64, 70))
    with running(name), poisoned():
        for both, (steps, batch, inputs, hidden) in product((False, True), sizes):
            ours = layer(kind, inputs, hidden, 2, bidirectional=both, backend="cpu")
            theirs = layer(kind, inputs, hidden, 2, bidirectional=both, backend="reference")
            x = torch.randn(steps, batch, inputs, dtype=torch.float64, requires_grad=True)
            state, reset = random_state(ours, batch), torch.rand(steps, batch) < 0.2
            compare(ours, theirs, [x, *states.leaves(state)], x, state, reset)
            actual, expected = flat(ours(x, state)), flat(ours.float()(x.float(), half(state)))
            for one, other in zip(expected, actual, strict=True):
                assert (one - other).norm() < 1e-5 * (1 + other.norm())
            if not both:
                stepped, now = [], half(state)
                with torch.no_grad():
                    for x_t in x.float():
                        y_t, now = ours.step(x_t, now)
                        stepped.append(y_t)
                same([torch.stack(stepped)], [expected[0].detach()], rtol=1e-5, atol=1e-6)


def test_the_best_instruction_set_is_chosen_and_an_unknown_one_refused() -> None:
    code = """
import os, torch
import throughtime as tt
from throughtime.errors import BackendError
from throughtime.kernels import native
for wanted in ("", "baseline", "mmx"):
    if wanted:
        os.environ[native.FORCE] = wanted
        native.load()
    for backend in ("cpu", "auto"):
        try:
            tt.GRU(2, 3, backend=backend)(torch.zeros(1, 1, 2))
            print(native.instructions())
        except BackendError as error:
            print(error)
"""
    refused = "THROUGHTIME_INSTRUCTIONS=mmx: this machine does not run these instructions"
    said = run_python(code).splitlines()
    assert said == [instruction_sets()[0]] * 2 + ["baseline"] * 2 + [refused] * 2


# ------------------------------------------------------------------------------------- threads


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_threads_does_not_matter(kind: str, dtype: torch.dtype) -> None:
    """Bit for bit, but for the gradients of weights: each thread sums its rows."""
    module = layer(kind, 20, 33, bidirectional=True, backend="cpu", dtype=dtype)
    torch.manual_seed(1)
    x = torch.randn(40, 13, 20, dtype=dtype, requires_grad=True)
    state, reset = random_state(module, 13), torch.rand(40, 13) < 0.1
    actual = []
    for threads in (1, 2, 3, 13, 80):
        torch.set_num_threads(threads)
        actual.append(everything(module, x, state, reset=reset))
    for one, other in pairwise(actual):
        for part in (0, 1):
            assert all(map(torch.equal, one[part], other[part]))
        for ours, theirs in zip(one[2], other[2], strict=True):
            assert (ours - theirs).norm() <= 1e-6 * theirs.norm()


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_the_threads_of_a_single_row_do_not_matter(
    kind: str, dtype: torch.dtype, both: bool
) -> None:
    """Its units are shared out; a team may also break up on the way, and one thread go on."""
    hidden = 150 if kind.startswith("rnn") else 90  # from where they are worth sharing
    module = layer(kind, 20, hidden, bidirectional=both, backend="cpu", dtype=dtype)
    torch.manual_seed(1)
    x = torch.randn(300, 1, 20, dtype=dtype, requires_grad=True)
    state, reset = random_state(module, 1), torch.rand(300, 1) < 0.1
    actual = []
    for threads in (1, 2, 3, 2, 1):
        torch.set_num_threads(threads)
        actual.append(everything(module, x, state, reset=reset))
    for one, other in pairwise(actual):
        for part in (0, 1):
            assert all(map(torch.equal, one[part], other[part]))
        for ours, theirs in zip(one[2], other[2], strict=True):
            assert (ours - theirs).norm() <= 1e-6 * theirs.norm()


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_does_not_depend_on_the_batch_around_it(kind: str) -> None:
    module = layer(kind, 11, 21, backend="cpu", dtype=torch.float32)
    torch.manual_seed(1)
    x, state = torch.randn(9, 29, 11, requires_grad=True), random_state(module, 29)
    whole, inward, _ = everything(module, x, state)
    for rows in (slice(0, 1), slice(3, 8), slice(20, 29)):
        x_ = x[:, rows].detach().requires_grad_()
        state_ = states.apply(lambda p: p[:, rows].detach().requires_grad_(), state)  # noqa: B023
        part, _, _ = everything(module, x_, state_)
        assert all(torch.equal(w[:, rows], p) for w, p in zip(whole, part, strict=True))
    assert len(inward) == len(whole)


@pytest.mark.slow
def test_fewer_threads_than_asked_for_do_all_the_work() -> None:
    code = """
import torch
from support.native_cases import *
torch.set_num_threads(4)
for kind in KINDS:
    ours = layer(kind, 20, 33, backend="cpu")
    theirs = layer(kind, 20, 33, backend="reference")
    x = torch.randn(40, 9, 20, dtype=torch.float64, requires_grad=True)
    compare(ours, theirs, [x], x)
big = layer("gru", 300, 300, backend="cpu", dtype=torch.float32)
x, h = torch.randn(1, 300), torch.zeros(1, 1, 300)
with torch.no_grad():
    torch.testing.assert_close(big.step(x, h)[0], big(x[None], h)[0][0])
print("done")
"""
    assert run_python(code, OMP_THREAD_LIMIT="1").split() == ["done"]
    assert run_python(code, OMP_THREAD_LIMIT="3").split() == ["done"]


def test_no_threads_are_added_to_those_of_torch() -> None:
    code = """
import os
import torch
from support.native_cases import *

def count():
    return len(os.listdir("/proc/self/task"))

def run():
    for kind, batch in ((kind, batch) for kind in KINDS for batch in (1, 9)):
        ours = layer(kind, 20, 150, backend="cpu", dtype=torch.float32)
        x = torch.randn(60, batch, 20, requires_grad=True)
        ours(x)[0].sum().backward()
        with torch.no_grad():
            ours.step(x[0].detach(), None)

torch.set_num_threads(1)
begin = count()
run()
alone = count()
torch.set_num_threads(3)
torch.ones(4_000_000).add(1)
pool = count()
run()
print(alone - begin, pool - alone, count() - pool)
"""
    if not os.path.isdir("/proc/self/task"):
        pytest.skip("the threads of a process cannot be counted here")
    assert run_python(code).split() == ["0", "2", "0"]


def train(module: Any, x: Tensor) -> list[Tensor]:
    """The weights after some steps."""
    optimiser = torch.optim.Adam(module.parameters(), 0.01)
    for _ in range(15):
        optimiser.zero_grad()
        (module(x)[0] ** 2).mean().backward()
        optimiser.step()
    return [p.detach().clone() for p in module.parameters()]


@pytest.mark.parametrize(("threads", "batch", "hidden"), [(1, 12, 40), (2, 12, 40), (2, 1, 130)])
def test_two_python_threads_train_as_one_after_the_other(
    threads: int, batch: int, hidden: int
) -> None:
    torch.set_num_threads(threads)
    x = torch.randn(30, batch, 6)
    modules = {
        kind: layer(kind, 6, hidden, 2, backend="cpu", dtype=torch.float32)
        for kind in ("gru", "lstm", "rnn_tanh")
    }
    alone = {kind: train(copy.deepcopy(module), x) for kind, module in modules.items()}
    together: dict[str, list[Tensor]] = {}

    def work(kind: str) -> None:
        torch.set_num_threads(threads)
        together[kind] = train(modules[kind], x)

    team = [threading.Thread(target=work, args=(kind,)) for kind in modules]
    for one in team:
        one.start()
    for one in team:
        one.join()
    assert set(together) == set(modules)
    for kind in modules:
        assert all(map(torch.equal, alone[kind], together[kind]))


def denormals_kept() -> bool:
    """Whether every thread of torch's pool computes with denormal numbers."""
    tiny = torch.full((400_000,), 1e-310, dtype=torch.float64)
    return bool(((tiny * 0.5) > 0).all())


def test_denormal_flags_stay_as_they_are() -> None:
    torch.set_num_threads(2)
    module = layer("lstm", 20, 33, backend="cpu", dtype=torch.float32)
    x, state = torch.randn(40, 13, 20, requires_grad=True), random_state(module, 13)
    assert denormals_kept()
    everything(module, x, state)
    with torch.no_grad():
        module.step(x[0, :4], states.apply(lambda p: p[:, :4].contiguous(), state))
    assert denormals_kept()
    if torch.set_flush_denormal(True):
        try:
            everything(module, x, state)
            assert not (torch.full((1,), 1e-310, dtype=torch.float64) * 0.5).any()
        finally:
            torch.set_flush_denormal(False)


# ------------------------------------------------------------------------- workspaces, extremes


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", KINDS)
def test_workspaces_full_of_nan_change_nothing(kind: str, dtype: torch.dtype) -> None:
    torch.set_num_threads(2)
    module = layer(kind, 9, 21, 2, bidirectional=True, backend="cpu", dtype=dtype)
    torch.manual_seed(1)
    x = torch.randn(40, 7, 9, dtype=dtype, requires_grad=True)
    state, reset = random_state(module, 7), torch.rand(40, 7) < 0.1
    clean = everything(module, x, state, reset=reset)
    torch.use_deterministic_algorithms(True)  # tensors of torch begin as NaN, too
    try:
        with poisoned():
            result = everything(module, x, state, reset=reset)
    finally:
        torch.use_deterministic_algorithms(False)
    for one, other in zip(clean, result, strict=True):
        assert all(map(torch.equal, one, other))
        assert all(part.isfinite().all() for part in other)


EXTREMES = {
    "inf": float("inf"), "-inf": -float("inf"), "nan": float("nan"), "1e30": 1e30, "-1e30": -1e30,
    "1e38": 1e38, "1e-42": 1e-42,
}  # fmt: skip
SATURATING = ("rnn_tanh", "gru", "lstm")


@pytest.mark.parametrize("number", EXTREMES)
@pytest.mark.parametrize("place", ["x", "state", "weight_ih_l0", "weight_hh_l0", "bias_hh_l0"])
@pytest.mark.parametrize("kind", IN_TORCH)
def test_extreme_numbers_as_in_torch(kind: str, place: str, number: str) -> None:
    """The same NaN, the same infinities, and the rest equal as far as float32 carries."""
    huge = abs(EXTREMES[number]) > 1e20 and abs(EXTREMES[number]) < float("inf")
    if huge and kind not in SATURATING and place not in ("x", "state"):
        pytest.skip("a huge weight overflows float32 here, sooner or later by the order of sums")
    ours, theirs = pair(kind, 4, 7, dtype=torch.float32)
    torch.manual_seed(0)
    x, state = torch.randn(6, 3, 4), random_state(ours, 3)
    with torch.no_grad():
        if place == "x":
            x[2, 1, 3] = EXTREMES[number]
        elif place == "state":
            for part in states.leaves(state):
                part[0, 1, 2] = EXTREMES[number]
        else:
            for module in (ours, theirs):
                getattr(module, place).view(-1)[5] = EXTREMES[number]
    x.requires_grad_()
    actual = [one for part in everything(ours, x, state) for one in part]
    expected = [one for part in everything(theirs, x, state) for one in part]
    for one, other in zip(actual, expected, strict=True):
        assert torch.equal(one.isnan(), other.isnan())
        assert torch.equal(one.isinf(), other.isinf())
        rest = other.isfinite()
        if huge:
            difference = (one[rest].double() - other[rest].double()).norm()
            assert difference <= 1e-5 * other[rest].double().norm()
        else:
            same([torch.where(rest, one, 0)], [torch.where(rest, other, 0)], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_activations_over_their_whole_range(dtype: torch.dtype) -> None:
    """One unit, input weights that pass the number on: σ and tanh themselves."""
    x = torch.cat([torch.linspace(-110, 110, 40_001), torch.logspace(-40, 38, 2_001)]).to(dtype)
    x = torch.cat([x, -x, x.new_tensor([0.0, float("inf"), -float("inf"), float("nan")])])
    module = layer("rnn_tanh", 1, 1, bias=False, backend="cpu", dtype=dtype)
    gates = layer("lstm", 1, 1, bias=False, backend="cpu", dtype=dtype)
    with torch.no_grad():
        module.weight_ih_l0.fill_(1)
        module.weight_hh_l0.zero_()
        gates.weight_ih_l0.copy_(torch.tensor([[0.0], [1.0], [0.0], [0.0]]))  # c' = sigmoid(x) c
        gates.weight_hh_l0.zero_()
        one = torch.ones(1, len(x), 1, dtype=dtype)
        tanh = module(x.view(1, -1, 1))[0].flatten()
        finite = x.clamp(-3e38, 3e38)  # zero weights make NaN of infinities
        sigmoid = gates(finite.view(1, -1, 1), (0 * one, one))[1][1].flatten()
    eps, tiny = torch.finfo(dtype).eps, torch.finfo(dtype).tiny
    for result, exact in ((tanh, x.double().tanh()), (sigmoid, x.double().sigmoid())):
        assert torch.equal(result.isnan(), x.isnan())
        error = (result.double() - exact)[:-1].abs()
        assert (error <= 4 * eps * exact[:-1].abs() + tiny).all()
