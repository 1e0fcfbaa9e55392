"""Every layer under the tools of torch, beside torch.nn: what records, transforms or counts calls.

Where a tool can only see torch's own operators the layer runs on them; elsewhere it stays itself.
"""

from __future__ import annotations

import copy
import io
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.native_cases import (
    EXACT,
    IN_TORCH,
    KINDS,
    flat,
    gradients,
    layer,
    pair,
    random_state,
    same,
)
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import throughtime as tt
from throughtime import state as states
from throughtime.errors import BackendError
from throughtime.kernels import native

pytestmark = [
    pytest.mark.skipif(not native.available(), reason="the library was not built here"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning"),
    pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous"),
]
MADE = ("ours", "accelerated")


class Head(nn.Module):
    """A recurrent layer below a linear one."""

    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn = rnn
        self.out = nn.Linear(5, 2, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(x)
        out: Tensor = self.out(y)
        return out


def both(kind: str, made: str, *args: Any, **options: Any) -> tuple[Any, Any]:
    """Our layer, constructed or swapped in, and torch's, with the same weights."""
    ours, theirs = pair(kind, 3, 5, *args, backend="auto", **options)
    if made == "accelerated":
        ours = tt.accelerate(copy.deepcopy(theirs))
    return ours, theirs


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("kind", IN_TORCH)
def test_traced_saved_and_loaded(kind: str, made: str, grad: bool) -> None:
    ours, theirs = both(kind, made, 2, bidirectional=True)
    x, other = torch.randn(7, 2, 3).double(), torch.randn(9, 3, 3).double()
    file = io.BytesIO()
    with torch.set_grad_enabled(grad):
        torch.jit.save(torch.jit.trace(ours, (x,)), file)
    file.seek(0)
    same(flat(torch.jit.load(file)(other)), flat(theirs(other)))


@pytest.mark.parametrize("kind", IN_TORCH)
def test_a_trace_of_a_named_backend_or_of_restarts_is_refused_in_a_sentence(kind: str) -> None:
    x = torch.randn(4, 2, 3).double()
    with pytest.raises(BackendError, match=r"use backend='auto', or tt\.restore\(module\)"):
        torch.jit.trace(layer(kind, 3, 5, backend="cpu"), (x,))
    reset = torch.zeros(4, 2, dtype=torch.bool)
    with pytest.raises(BackendError, match="record a call without reset"):
        torch.jit.trace(lambda x: layer(kind, 3, 5)(x, None, reset)[0], (x,))


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("kind", IN_TORCH)
def test_scripted(kind: str, made: str) -> None:
    ours, theirs = both(kind, made)
    x = torch.randn(4, 2, 3).double()
    torch.jit.script(ours)
    model = Head(ours)
    expected = model(x)
    same([torch.jit.script(model)(x)], [expected])
    same([ours(x)[0]], [theirs(x)[0]])
    with pytest.raises(BackendError, match="torch has no layer 'li_gru'"):
        torch.jit.script(layer("li_gru", 3, 5))


@pytest.mark.parametrize("kind", [*KINDS, "mingru"])
def test_symbolically_traced(kind: str) -> None:
    ours = tt.MinGRU(3, 5).double() if kind == "mingru" else layer(kind, 3, 5)
    model = Head(ours)
    traced = torch.fx.symbolic_trace(model)
    calls = [node.target for node in traced.graph.nodes if node.op == "call_module"]
    assert calls == ["rnn", "out"]
    assert traced.get_submodule("rnn") is ours
    x = torch.randn(4, 2, 3).double()
    same([traced(x)], [model(x)])


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_quantised_once_restored(kind: str) -> None:
    from torch.ao.quantization import quantize_dynamic

    ours, theirs = pair(kind, 8, 16, backend="auto", dtype=torch.float32)
    known = {nn.GRU, nn.LSTM}
    with pytest.warns(UserWarning, match=r"passes over .*tt\.restore\(module\)"):
        quantize_dynamic(nn.Sequential(ours), known)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor")
        plain = quantize_dynamic(nn.Sequential(copy.deepcopy(theirs)), known)
        restored = quantize_dynamic(tt.restore(nn.Sequential(copy.deepcopy(ours))), known)
    assert type(restored[0]) is type(plain[0])
    assert type(plain[0]).__module__.startswith("torch.ao")
    x = torch.randn(4, 2, 8)
    assert torch.equal(restored[0](x)[0], plain[0](x)[0])


@pytest.mark.parametrize("kind", ["rnn_tanh", "gru"])  # oneDNN's LSTM is not counted by torch
def test_operations_are_counted_as_those_of_torch(kind: str) -> None:
    ours, theirs = both(kind, "accelerated", 2)
    x = torch.randn(7, 2, 3).double().requires_grad_()
    counted = []
    for module in (ours, theirs):
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(x)
        forward = counter.get_total_flops()
        with FlopCounterMode(display=False) as counter:
            module(x)[0].sum().backward()
        counted.append((forward, counter.get_total_flops()))
    assert counted[0][0] == counted[1][0] > 0
    assert counted[0][1] == 3 * counted[0][0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_profile_names_the_operator(kind: str) -> None:
    ours = layer(kind, 3, 5)
    x = torch.randn(4, 2, 3).double()
    expected = flat(ours(x))
    with torch.profiler.profile() as profile:
        actual = flat(ours(x))
        gradients(actual, list(ours.parameters()))
    names = {event.key for event in profile.key_averages()}
    assert {"throughtime::recur", "throughtime::recur_backward"} <= names
    assert all(map(torch.equal, actual, expected))


class Logged(Tensor):
    """A tensor that sees what is done to it."""

    seen: list[str]

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.seen.append(getattr(func, "__name__", str(func)))
        return super().__torch_function__(func, types, args, kwargs or {})


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("kind", IN_TORCH)
def test_tensors_of_a_class_of_their_own(kind: str, made: str) -> None:
    ours, theirs = both(kind, made)
    x = torch.randn(4, 2, 3).double()
    Logged.seen = []
    y, _ = ours(x.as_subclass(Logged))
    assert isinstance(y, Logged)
    assert any(kind.split("_")[0] in name for name in Logged.seen)
    same([y.as_subclass(Tensor)], [theirs(x)[0]])


@pytest.mark.parametrize("made", MADE)
@pytest.mark.parametrize("kind", IN_TORCH)
def test_shapes_of_tensors_without_numbers(kind: str, made: str) -> None:
    from torch._subclasses.fake_tensor import FakeTensorMode

    ours, theirs = both(kind, made)
    mode = FakeTensorMode()
    for module in (ours, theirs):
        for name, value in list(module.named_parameters()):
            setattr(module, name, nn.Parameter(mode.from_tensor(value)))
    x = mode.from_tensor(torch.randn(4, 2, 3).double())
    state = states.apply(lambda part: mode.from_tensor(part.detach()), random_state(ours, 2))
    shapes = [[one.shape for one in flat(module(x, state))] for module in (ours, theirs)]
    assert shapes[0] == shapes[1]
    with mode:
        assert ours(x)[0].shape == (4, 2, 5)


def transformed(f: Callable[[Tensor], Tensor], x: Tensor, rows: Tensor) -> dict[str, Any]:
    """What torch.func and autograd make of a function of one tensor."""

    def loss(x: Tensor) -> Tensor:
        return f(x).pow(3).sum()

    v = x.detach().clone().requires_grad_()
    (once,) = torch.autograd.grad(loss(v), v, create_graph=True)
    (twice,) = torch.autograd.grad(once.square().sum(), v)
    return {
        "vmap": torch.func.vmap(f)(rows),
        "vmap along another dim": torch.func.vmap(f, in_dims=2)(rows.movedim(0, 2)),
        "vmap of grad": torch.func.vmap(torch.func.grad(loss))(rows),
        "grad": torch.func.grad(loss)(x),
        "jacrev": torch.func.jacrev(f)(x),
        "jacobian": torch.autograd.functional.jacobian(f, x, vectorize=True),
        "hessian by autograd": torch.autograd.functional.hessian(loss, x),
        "twice by autograd": twice,
        "twice by torch.func": torch.func.grad(lambda x: torch.func.grad(loss)(x).square().sum())(
            x
        ),
    }


@pytest.mark.parametrize("backend", ["auto", "cpu"])
@pytest.mark.parametrize("kind", KINDS)
def test_transforms_and_higher_derivatives_are_those_of_the_reference(
    kind: str, backend: str
) -> None:
    """Beside oneDNN's LSTM, which has none of them, this is what torch.nn does on a good day."""
    ours = layer(kind, 3, 5, 2, bidirectional=True, backend=backend)
    truth = layer(kind, 3, 5, 2, bidirectional=True, backend="reference")
    x, rows = torch.randn(4, 2, 3).double(), torch.randn(3, 4, 2, 3).double()
    reset = torch.rand(4, 2) < 0.3
    actual, expected = (
        transformed(lambda x, m=module: m(x, None, reset)[0], x, rows) for module in (ours, truth)
    )
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, **EXACT, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize("kind", KINDS)
def test_forward_mode_and_hessians(kind: str) -> None:
    ours, truth = layer(kind, 3, 5), layer(kind, 3, 5, backend="reference")
    x = torch.randn(4, 2, 3).double()
    results = []
    for module in (ours, truth):
        tangent = torch.func.jvp(lambda x, m=module: m(x)[0], (x,), (x.cos(),))[1]
        hessian = torch.func.hessian(lambda x, m=module: m(x)[0].pow(2).sum())(x)
        results.append([tangent, hessian])
    same(*results)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_every_row_by_itself(kind: str) -> None:
    ours = layer(kind, 3, 5)
    x = torch.randn(6, 4, 3).double()
    parameters = dict(ours.named_parameters())

    def loss(parameters: dict[str, Tensor], row: Tensor) -> Tensor:
        y, _ = torch.func.functional_call(ours, parameters, (row.unsqueeze(1),))
        return y.square().sum()

    found = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 1))(parameters, x)
    for row in range(4):
        y, _ = ours(x[:, row : row + 1])
        alone = torch.autograd.grad(y.square().sum(), list(parameters.values()))
        same([found[name][row] for name in parameters], list(alone))


@pytest.mark.parametrize("change", ["add", "relu", "index"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_output_changed_in_place_trains(kind: str, change: str) -> None:
    ours, truth = layer(kind, 3, 3, 2), layer(kind, 3, 3, 2, backend="reference")
    x = torch.randn(4, 2, 3).double()
    results = []
    for module in (ours, truth):
        y, state = module(x)
        if change == "add":
            y += x
        elif change == "relu":
            y = nn.ReLU(inplace=True)(y)
        else:
            y[2:] = 0
        results.append([y, *gradients([y, *states.leaves(state)], list(module.parameters()))])
    same(*results)


@pytest.mark.parametrize("kind", IN_TORCH)
def test_replicated_on_a_mesh(kind: str, tmp_path: Path) -> None:
    """Tensors that are spread over processes, here one."""
    import torch.distributed as dist
    from torch.distributed.tensor import DTensor, Replicate, distribute_module

    dist.init_process_group(
        "gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1
    )
    try:
        ours, theirs = both(kind, "accelerated")
        mesh = dist.device_mesh.init_device_mesh("cpu", (1,))
        x = torch.randn(4, 2, 3).double()
        results = []
        for module in (ours, theirs):
            distribute_module(module, mesh)
            spread = DTensor.from_local(x, mesh, [Replicate()])
            try:
                results.append(module(spread)[0].to_local().detach())
            except (NotImplementedError, RuntimeError) as error:
                results.append(type(error))
    finally:
        dist.destroy_process_group()
    if isinstance(results[1], type):
        assert results[0] is results[1]  # what torch.nn cannot do here, neither can ours
    else:
        same([results[0]], [results[1]])


def test_a_saved_program_runs_after_importing_throughtime_alone(tmp_path: Path) -> None:
    ours = layer("gru", 3, 5).eval()
    x = torch.randn(7, 2, 3).double()
    with torch.no_grad():
        torch.export.save(torch.export.export(ours, (x,)), tmp_path / "gru.pt2")
        torch.save((x, ours(x)[0]), tmp_path / "numbers.pt")
    code = (
        "import throughtime\n{first}\nimport torch\n"
        "x, y = torch.load('numbers.pt')\n"
        "assert torch.equal(torch.export.load('gru.pt2').module()(x)[0], y)\n"
    )
    for first in ("", "throughtime.Sequences"):
        subprocess.run(
            [sys.executable, "-c", code.format(first=first)], cwd=tmp_path, check=True, timeout=120
        )


@pytest.mark.parametrize(("dynamo", "grad"), [(False, False), (False, True), (True, False)])
@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_exported_to_onnx(kind: str, dynamo: bool, grad: bool, tmp_path: Path) -> None:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    for needed in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(needed, reason="ONNX is not installed")
    import onnxruntime

    ours, theirs = pair(kind, 3, 5, backend="auto", batch_first=True, dtype=torch.float32)
    model, plain = Head(ours).float().eval(), Head(theirs).float().eval()
    plain.load_state_dict(model.state_dict())
    x, path = torch.randn(2, 7, 3), tmp_path / "model.onnx"
    with warnings.catch_warnings(), torch.set_grad_enabled(grad):
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (x,), path, input_names=["x"], output_names=["y"], dynamo=dynamo, verbose=False
        )
    (y,) = onnxruntime.InferenceSession(path).run(None, {"x": x.numpy()})
    torch.testing.assert_close(torch.from_numpy(y), plain(x).detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", IN_TORCH)
def test_restore_undoes_accelerate(kind: str) -> None:
    from torch.nn.utils import parametrizations

    ours, theirs = both(kind, "accelerated", 2)
    x = torch.randn(4, 2, 3).double()
    model = nn.ModuleDict({"rnn": ours, "own": layer(kind, 3, 5), "li": layer("li_gru", 3, 5)})
    parameters = dict(model.named_parameters())
    assert tt.restore(model) is model
    assert type(model["rnn"]) is type(model["own"]) is type(theirs)
    assert type(model["li"]) is tt.LiGRU
    assert all(value is parameters[name] for name, value in model.named_parameters())
    same(flat(ours(x)), flat(theirs(x)))
    assert not hasattr(model["own"], "backend")
    normed = parametrizations.weight_norm(copy.deepcopy(theirs), "weight_hh_l0")
    plain = type(normed).__mro__[1]
    tt.restore(tt.accelerate(normed))
    assert type(normed).__mro__[1] is plain
    tt.accelerate(model)
    assert isinstance(model["rnn"], type(theirs))
    assert hasattr(model["rnn"], "step")
