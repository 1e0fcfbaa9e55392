"""The native recurrence among torch's tools: autograd, autocast, compile, copies, bad input."""

from __future__ import annotations

import copy
import ctypes
import io
from typing import Any

import pytest
import torch
from support.native_cases import (
    KINDS,
    compare,
    flat,
    gradients,
    half,
    layer,
    pair,
    random_state,
    same,
)
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import throughtime as tt
from throughtime import kernels
from throughtime import state as states
from throughtime.errors import BackendError, SettingError
from throughtime.kernels import Spec, native

needs_library = pytest.mark.skipif(
    not native.available(), reason="the native kernels were not built"
)
REFERENCE = "use backend='reference'"


# ------------------------------------------------------------------------------------ autograd


class Spy:
    """The library, noting what each forward call was given to keep for the backward."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library, self.kept = library, []  # type: tuple[Any, list[bool]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self.library, name)

    def tt_forward(self, call: Any) -> Any:
        self.kept.append(call._obj.reserve is not None)
        return self.library.tt_forward(call)


@needs_library
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_nothing_is_stored_where_no_gradient_is_wanted(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spy = Spy(native.library())
    monkeypatch.setattr(native, "library", lambda: spy)
    ours = layer(kind, 3, 5, backend="cpu")
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    with torch.no_grad():
        silent = flat(ours(x))
    with torch.inference_mode():
        ours(x)
    frozen = copy.deepcopy(ours).requires_grad_(False)
    assert frozen(x)[0].grad_fn is None
    assert spy.kept == [False] * 3
    assert all(part.grad_fn is None for part in silent)
    loud = flat(ours(x))
    assert spy.kept[3:] == [True]
    assert all(map(torch.equal, silent, loud))
    assert frozen(x.requires_grad_())[0].requires_grad
    assert spy.kept[4:] == [True]


@needs_library
@pytest.mark.parametrize("kind", KINDS)
def test_only_the_gradients_that_are_wanted(kind: str) -> None:
    ours, truth = (layer(kind, 3, 5, backend=name) for name in ("cpu", "reference"))
    x, state = torch.randn(6, 2, 3, dtype=torch.float64), random_state(ours, 2)
    for names in (["weight_hh_l0"], ["bias_ih_l0"], ["weight_ih_l0", "bias_hh_l0"], []):
        result = []
        for module in (ours, truth):
            for name, weight in module.named_parameters():
                weight.requires_grad_(name in names)
            wanted = [getattr(module, name) for name in names] or [*states.leaves(state)]
            result.append(gradients(flat(module(x, state)), wanted))
        same(*result)


@needs_library
@pytest.mark.parametrize("kind", KINDS)
def test_what_has_no_kernel_names_what_has(kind: str) -> None:
    ours = layer(kind, 2, 3, backend="cpu")
    x = torch.randn(4, 2, 2, dtype=torch.float64, requires_grad=True)
    with pytest.raises(BackendError, match=REFERENCE):
        torch.func.jvp(lambda x: ours(x)[0], (x,), (x,))
    with pytest.raises(BackendError, match=REFERENCE), torch.autograd.forward_ad.dual_level():
        ours(torch.autograd.forward_ad.make_dual(x, x))
    low = layer(kind, 2, 3, backend="cpu", weight_dtype="bfloat16", dtype=torch.float32)
    v = x.detach().float().requires_grad_()
    (once,) = torch.autograd.grad(low(v)[0].pow(2).sum(), v, create_graph=True)
    with pytest.raises(BackendError, match="use weight_dtype='float32'"):
        once.sum().backward()


# ---------------------------------------------------------------------------------- autocast etc.


@needs_library
@pytest.mark.parametrize("kind", KINDS)
def test_autocast_computes_in_the_type_of_the_weights(kind: str) -> None:
    ours = layer(kind, 3, 5, 2, backend="cpu", dtype=torch.float32)
    x = torch.randn(6, 2, 3).bfloat16().float().requires_grad_()
    state = random_state(ours, 2)
    state = states.apply(lambda p: p.detach().bfloat16().float().requires_grad_(), state)
    expected = flat(ours(x, state))
    truth = gradients(expected, list(ours.parameters()))
    for low in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            to = (lambda p: p.detach().bfloat16()) if low else (lambda p: p)
            actual = flat(ours(to(x), states.apply(to, state)))
            with torch.no_grad():
                stepped = ours.step(to(x[0]), states.apply(to, state))[0]
        assert all(map(torch.equal, actual, expected))
        assert all(map(torch.equal, gradients(actual, list(ours.parameters())), truth))
        torch.testing.assert_close(stepped, expected[0][0].detach())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert kernels.choose(kind, "auto", x) == ("torch" if kind == "lstm" else "cpu")


@needs_library
@pytest.mark.parametrize(
    ("steps", "batch", "hidden"), [(100, 8, 128), (1000, 1, 64), (40, 4, 512), (60, 8, 16)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_weights_err_as_little_as_documented(
    kind: str, steps: int, batch: int, hidden: int
) -> None:
    assert "less than 0.3 % and 5 % is tested" in " ".join(str(Spec.__doc__).split())
    exact = layer(kind, 40, hidden, backend="cpu", dtype=torch.float32)
    low = layer(kind, 40, hidden, backend="cpu", weight_dtype="bfloat16", dtype=torch.float32)
    torch.manual_seed(2)
    x = torch.randn(steps, batch, 40)
    outputs, rounded = flat(exact(x)), flat(low(x))
    for one, other in zip(outputs, rounded, strict=True):
        error = (one - other).square().mean().sqrt() / one.std()
        assert 1e-4 < error < 3e-3
    truth, result = (
        gradients(out, list(module.parameters()))
        for out, module in ((outputs, exact), (rounded, low))
    )
    for one, other in zip(truth, result, strict=True):
        limit = (
            5e-2 if kind in ("rnn_relu", "li_gru") else 3e-3
        )  # signs change, and slopes with them
        assert 1e-4 * one.norm() < (one - other).norm() < limit * one.norm()
    with torch.no_grad():
        state = states.zeros_like(half(random_state(low, batch)))
        assert torch.equal(low.step(x[0], state)[0], rounded[0][0])
    with pytest.raises(BackendError, match="float32 only"):
        low.double()(x.double())
    with pytest.raises(BackendError, match="weight_dtype 'bfloat16' needs backend 'cpu'"):
        layer("gru", 2, 3, weight_dtype="bfloat16", backend="reference")(
            torch.zeros(1, 1, 2).double()
        )
    with pytest.raises(SettingError, match="weight_dtype 'int8' is not float32 or bfloat16"):
        tt.GRU(2, 3, weight_dtype="int8")


@needs_library
@pytest.mark.parametrize(
    "kind", ["gru", *(pytest.param(k, marks=pytest.mark.slow) for k in KINDS if k != "gru")]
)
def test_compiled_without_a_graph_break(kind: str) -> None:
    ours = layer(kind, 3, 5, 2, bidirectional=True, backend="cpu")
    torch.compiler.reset()
    compiled = torch.compile(ours, fullgraph=True, backend="aot_eager")
    for steps in (6, 9, 4):  # from the second on, torch compiles for any number of steps
        x = torch.randn(steps, 2, 3, dtype=torch.float64, requires_grad=True)
        state = random_state(ours, 2)
        compare(compiled, ours, [x, *states.leaves(state)], x, state)
        reset = torch.rand(steps, 2) < 0.3
        compare(compiled, ours, [x, *states.leaves(state)], x, state, reset)
    with torch.no_grad():
        same(flat(compiled(x)), flat(ours(x)))


@needs_library
def test_the_operators_are_what_torch_expects() -> None:
    from throughtime.kernels import cpu

    x, h = torch.randn(4, 2, 3), torch.randn(2, 5)
    w_ih, w_hh = torch.randn(15, 3), torch.randn(15, 5)
    given = [one.requires_grad_() for one in (x, h, w_ih, w_hh)]
    arguments = (given[0], given[1], None, None, None, given[2], given[3], None, None, None, None)
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(cpu.recur, (*arguments, "gru", False, False, True), test_utils=tests)


@needs_library
@pytest.mark.parametrize("kind", ["rnn_tanh", "gru", "lstm"])
def test_steps_compiled_and_under_other_tools(kind: str) -> None:
    """A layer that has taken steps goes on working where torch watches."""
    ours = layer(kind, 3, 5, backend="cpu")
    x, state = torch.randn(2, 3, dtype=torch.float64), random_state(ours, 2)
    with torch.no_grad():
        state = states.apply(Tensor.detach, state)
        expected = flat(ours.step(x, state))
        torch.compiler.reset()
        compiled = torch.compile(ours.step, fullgraph=True, backend="aot_eager")
        same(flat(compiled(x, state)), expected)
        same(flat(copy.deepcopy(ours).step(x, state)), expected)


# ------------------------------------------------------------------------------ modules of torch


@needs_library
@pytest.mark.parametrize("kind", KINDS)
def test_copies_state_dicts_and_functional_call(kind: str) -> None:
    ours, other = layer(kind, 3, 5, 2, backend="cpu"), layer(kind, 3, 5, 2, backend="reference")
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    twin = copy.deepcopy(ours)
    assert all(map(torch.equal, flat(twin(x)), flat(ours(x))))
    with torch.no_grad():
        for weight in twin.parameters():
            weight.mul_(2)
    assert not torch.equal(twin(x)[0], ours(x)[0])
    file = io.BytesIO()
    torch.save(twin.state_dict(), file)
    file.seek(0)
    other.load_state_dict(torch.load(file, weights_only=True))
    same(flat(twin(x)), flat(other(x)))
    doubled = {name: (2 * one).requires_grad_() for name, one in ours.state_dict().items()}
    actual = flat(torch.func.functional_call(ours, doubled, (x,)))
    same(actual, flat(twin(x)))
    expected = gradients(flat(twin(x)), list(twin.parameters()))
    same(gradients(actual, list(doubled.values())), expected)
    shapes = {name: one.expand(4, *one.shape)[1] for name, one in doubled.items()}
    shapes |= {name: one.sum().expand(one.shape) for name, one in doubled.items() if "bias" in name}
    truth = torch.func.functional_call(other, shapes, (x,))
    same(flat(torch.func.functional_call(ours, shapes, (x,))), flat(truth))


@needs_library
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_weight_normed_layers(kind: str) -> None:
    ours, theirs = pair(kind, 3, 5)
    for module in (ours, theirs):
        parametrizations.weight_norm(module, "weight_hh_l0")
    x = torch.randn(6, 2, 3, dtype=torch.float64, requires_grad=True)
    compare(ours, theirs, [x], x)
    with torch.no_grad():
        state = states.zeros_like(random_state(ours, 2))
        for _ in range(2):
            same([ours.step(x[0], state)[0]], [theirs(x[:1])[0][0]])
            ours.parametrizations.weight_hh_l0.original0.mul_(2)
            theirs.parametrizations.weight_hh_l0.original0.mul_(2)


@needs_library
@pytest.mark.parametrize("kind", KINDS)
def test_dropout_is_between_layers_in_training_only(kind: str) -> None:
    ours = layer(kind, 3, 50, 2, dropout=0.4, backend="cpu")
    truth = layer(kind, 3, 50, 2, dropout=0.4, backend="reference")
    x = torch.randn(6, 2, 3, dtype=torch.float64, requires_grad=True)
    for module in (ours, truth):
        module.train()
    drawn = []
    for module in (ours, truth):
        torch.manual_seed(5)
        out = flat(module(x))
        drawn.append([*out, *gradients(out, [x, *module.parameters()])])
    same(*drawn)
    assert not torch.equal(ours(x)[0], ours(x)[0])
    first = ours(x)[1], ours(x)[1]
    first_layers = [next(states.leaves(one))[0] for one in first]
    assert torch.equal(*first_layers)
    assert torch.equal(ours.eval()(x)[0], ours(x)[0])
    compare(ours, truth.eval(), [x], x)


def test_projections_run_on_torch() -> None:
    torch.manual_seed(0)
    ours, theirs = tt.LSTM(3, 6, 2, proj_size=4), nn.LSTM(3, 6, 2, proj_size=4)
    theirs.load_state_dict(ours.state_dict())
    ours, theirs = ours.double(), theirs.double()
    x = torch.randn(5, 2, 3, dtype=torch.float64, requires_grad=True)
    compare(ours, theirs, [x], x)
    outputs, state = [], None
    with torch.no_grad():
        for x_t in x:
            y_t, state = ours.step(x_t, state)
            outputs.append(y_t)
    same([torch.stack(outputs), *states.leaves(state)], flat(theirs(x)))
    reset = torch.zeros(5, 2, dtype=torch.bool)
    reset[2] = True
    same([ours(x, reset=reset)[0][2:]], [theirs(x[2:])[0]])
    for backend in ("reference", *(["cpu"] if native.available() else [])):
        with pytest.raises(BackendError, match="has no proj_size; use 'torch'"):
            tt.LSTM(3, 6, proj_size=4, backend=backend)(x.float())


# ------------------------------------------------------------------------------------ bad input


@needs_library
@pytest.mark.parametrize("backend", ["cpu", "reference"])
@pytest.mark.parametrize("kind", ["rnn_relu", "gru", "lstm"])
def test_wrong_input_fails_in_the_words_of_torch(kind: str, backend: str) -> None:
    ours, theirs = pair(kind, 3, 5, backend=backend, dtype=torch.float32)
    state = lambda *shape: (torch.zeros(shape),) * 2 if kind == "lstm" else torch.zeros(shape)  # noqa: E731
    calls: list[tuple[Any, ...]] = [
        (torch.zeros(4, 2, 9),),
        (torch.zeros(4, 2, 3, 1),),
        (torch.zeros(4, 2, 3, dtype=torch.float64),),
        (torch.zeros(4, 2, 3), state(1, 1, 5)),
        (torch.zeros(4, 2, 3), state(1, 2, 6)),
        (torch.zeros(4, 2, 3), state(2, 2, 5)),
        (torch.zeros(4, 2, 3), state(1, 5)),
        (torch.zeros(4, 3), state(1, 2, 5)),
        (torch.zeros(4, 2, 3), states.apply(Tensor.double, state(1, 2, 5))),
    ]
    for call in calls:
        with pytest.raises((RuntimeError, ValueError)) as expected:
            theirs(*call)
        with pytest.raises(expected.type) as actual:
            ours(*call)
        assert str(actual.value) == str(expected.value)
        with pytest.raises(expected.type):
            ours(*call, reset=torch.zeros(call[0].shape[:2], dtype=torch.bool))


@needs_library
def test_nothing_of_another_size_type_or_device_reaches_c() -> None:
    spec = Spec("gru")
    x, h = torch.zeros(4, 2, 3), torch.zeros(1, 2, 5)
    w = [torch.zeros(15, 3), torch.zeros(15, 5), torch.zeros(15), torch.zeros(15)]
    kernels.run(spec, x, h, w, backend="cpu")
    flags, lengths = torch.zeros(4, 2, dtype=torch.bool), torch.tensor([1, 2])
    wrong: list[tuple[Any, ...]] = [
        (x, h, [torch.zeros(15, 4), *w[1:]]),
        (x, h, [w[0], torch.zeros(14, 5), *w[2:]]),
        (x, h, [*w[:2], torch.zeros(14), w[3]]),
        (x, h, w, flags[1:]),
        (x, h, w, flags.float()),
        (x, h, w, flags, None, "cpu", lengths[:1]),
        (x, h, w, flags, None, "cpu", lengths.float()),
        (x, h.double(), w),
        (x, h, [one.double() for one in w]),
    ]
    for x_, h_, w_, *rest in wrong:
        more = [*rest, *[None, None, "cpu", None][len(rest) :]]
        with pytest.raises(SettingError, match=r"do not have the sizes|but a state or weight"):
            kernels.run(spec, x_, h_, w_, *more)
    with pytest.raises(RuntimeError, match="expanded"):
        kernels.run(spec, x, torch.zeros(1, 3, 5), w, backend="cpu")
    with pytest.raises(BackendError, match=r"float32 and float64, not in torch\.float16"):
        kernels.run(spec, x.half(), h.half(), [one.half() for one in w], backend="cpu")
    with pytest.raises(BackendError, match="runs on the CPU, not on meta"):
        kernels.run(spec, x.to("meta"), h.to("meta"), [o.to("meta") for o in w], backend="cpu")
