"""The optional baselines: onnxruntime and a compiled JAX scan, each at its best.

Neither is needed to install or use throughtime; where one is missing the table says so.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from throughtime.bench.cases import Case, Numbers, StepCase, named
from throughtime.bench.gate import step_numbers, steps_compared
from throughtime.bench.timing import Contender
from throughtime.runtime import version

PACKAGES = {"onnxruntime": ("onnxruntime", "onnx"), "jax": ("jax", "jaxlib")}
INSTALL = {"onnxruntime": "pip install onnxruntime onnx", "jax": "pip install jax"}
_ONNX = {
    "rnn": ("RNN", (0,), {}),
    "gru": ("GRU", (1, 0, 2), {"linear_before_reset": 1}),
    "lstm": ("LSTM", (0, 3, 1, 2), {}),
}  # operator, torch's gates in its order, attributes


def installed(name: str) -> bool:
    """Whether all packages that a baseline needs are here."""
    return all(importlib.util.find_spec(package) is not None for package in PACKAGES[name])


def listed() -> list[dict[str, str | None]]:
    """Each baseline with its version, or None and the command that installs it."""
    return [
        {
            "name": name,
            "version": version(name) if installed(name) else None,
            "install": None if installed(name) else INSTALL[name],
        }
        for name in PACKAGES
    ]


# ------------------------------------------------------------------------------------ onnxruntime


class _Session:
    """A recurrent layer as an onnxruntime session, with buffers that stay where they are.

    names: of the outputs, of y, h and c. Weights are constants of the graph, so that onnxruntime
    packs them once.
    """

    def __init__(self, cell: str, weights: list[Tensor], names: tuple[str, ...]) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        self.ort: Any = importlib.import_module("onnxruntime")
        options = self.ort.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self.names, self.states = names, ("h", "c") if cell == "lstm" else ("h",)
        self.session = self.ort.InferenceSession(
            _graph(cell, weights, self.states, names), options, ["CPUExecutionProvider"]
        )

    def buffer(self, value: Tensor) -> Any:
        """A copy of a tensor that the session can read and write."""
        return self.ort.OrtValue.ortvalue_from_numpy(value.detach().numpy().copy())

    def bind(self, inputs: dict[str, Any], outputs: dict[str, Any]) -> Callable[[], None]:
        """A call on those buffers."""
        binding = self.session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        run = self.session.run_with_iobinding
        return lambda: run(binding)


def _graph(
    cell: str, weights: list[Tensor], states: tuple[str, ...], names: tuple[str, ...]
) -> bytes:
    """One ONNX operator: x [T, B, I] and the initial states to the outputs that are named."""
    onnx: Any = importlib.import_module("onnx")
    helper, numpy_helper = onnx.helper, importlib.import_module("onnx.numpy_helper")
    operator, order, attributes = _ONNX[cell]
    hidden = weights[1].shape[1]
    w_ih, w_hh, b_ih, b_hh = (
        torch.cat([w.detach().chunk(len(order))[gate] for gate in order]) for w in weights
    )
    constants = {"w": w_ih[None], "r": w_hh[None], "b": torch.cat([b_ih, b_hh])[None]}
    inputs = ["x", "w", "r", "b", "", *(f"{state}0" for state in states)]
    outputs = [name if name in names else "" for name in ("y", *states)]
    node = helper.make_node(operator, inputs, outputs, hidden_size=hidden, **attributes)

    def info(name: str, axes: int) -> Any:
        sizes = [f"{name}{axis}" for axis in range(axes)]
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, sizes)

    graph = helper.make_graph(
        [node], operator,
        [info("x", 3), *(info(f"{state}0", 3) for state in states)],
        [info(name, 4 if name == "y" else 3) for name in names],
        [numpy_helper.from_array(value.numpy(), name) for name, value in constants.items()],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    return bytes(model.SerializeToString())


def onnx_forward(case: Case) -> tuple[Contender, Numbers]:
    """A whole sequence in one call."""
    states = ("h", "c")[: len(case.start)]
    session = _Session(case.cell, list(case.theirs.parameters()), ("y", *states))
    inputs = {"x": session.buffer(case.x)}
    inputs |= {f"{n}0": session.buffer(p) for n, p in zip(states, case.start, strict=True)}
    shape = (case.shape.steps, 1, case.shape.batch, case.shape.hidden)
    outputs = {"y": session.buffer(torch.zeros(shape))}
    outputs |= {n: session.buffer(p) for n, p in zip(states, case.start, strict=True)}
    call = session.bind(inputs, outputs)
    call()
    y, *after = [torch.tensor(value.numpy()) for value in outputs.values()]
    return Contender("onnxruntime", _repeat(call)), named(case, (y[:, 0], *after))


def onnx_step(case: StepCase) -> tuple[Contender, Numbers]:
    """Single steps; two sets of buffers take turns, so that no state is copied."""
    states = ("h", "c")[: len(case.start)]
    session = _Session(case.cell, list(case.theirs.parameters()), states)
    x = session.buffer(case.x[None])
    here = [session.buffer(part[None]) for part in case.start]
    there = [session.buffer(part[None]) for part in case.start]

    def bind(before: list[Any], after: list[Any]) -> Callable[[], None]:
        given = {f"{name}0": value for name, value in zip(states, before, strict=True)}
        return session.bind({"x": x, **given}, dict(zip(states, after, strict=True)))

    forth, back = bind(here, there), bind(there, here)

    def run(count: int) -> None:
        for i in range(count):
            (back if i % 2 else forth)()

    run(steps_compared())  # an even number: the state is where it began
    after = tuple(torch.tensor(value.numpy())[0] for value in here)
    return Contender("onnxruntime", run), step_numbers(after)


def _repeat(call: Callable[[], object]) -> Callable[[int], None]:
    def run(count: int) -> None:
        for _ in range(count):
            call()

    return run


# -------------------------------------------------------------------------------------------- JAX


def jax_scan(case: Case, training: bool) -> tuple[Contender, Numbers]:
    """`lax.scan` compiled once; the products with the input are one product before it.

    Four steps at a time, which is up to twice as fast forward; with gradients it is slower.
    """
    jax = _jax()
    arrays = [case.x, case.start, list(case.theirs.parameters())]
    x, start, weights = jax.tree.map(_array(jax), arrays, is_leaf=torch.is_tensor)
    function = _scan(jax, case.cell, unroll=1 if training else 4)
    if not training:
        compiled = jax.jit(function)

        def forward() -> Any:
            return jax.block_until_ready(compiled(x, start, weights))

        return Contender("jax", _repeat(forward)), named(case, _tensors(forward()))
    slopes = jax.tree.map(_array(jax), case.slopes, is_leaf=torch.is_tensor)

    def loss(x: Any, start: Any, weights: Any, slopes: Any) -> tuple[Any, Any]:
        outputs = function(x, start, weights)
        return sum((o * s).sum() for o, s in zip(outputs, slopes, strict=True)), outputs

    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))

    def backward() -> Any:
        (_, outputs), gradients = jax.block_until_ready(both(x, start, weights, slopes))
        return outputs, gradients

    outputs, (dx, dstart, dweights) = backward()
    numbers = named(case, _tensors(outputs), _tensors((dx, *dstart, *dweights)))
    return Contender("jax", _repeat(backward)), numbers


def _scan(jax: Any, cell: str, unroll: int) -> Callable[..., Any]:
    nn, np = jax.nn, jax.numpy

    def step(state: Any, x: Any, w: Any, b: Any) -> Any:
        sums = state[0] @ w.T + b
        if cell == "rnn":
            return (np.tanh(x + sums),)
        if cell == "gru":
            h = state[0]
            xr, xz, xn = np.split(x, 3, -1)
            r, z, n = np.split(sums, 3, -1)
            r, z = nn.sigmoid(xr + r), nn.sigmoid(xz + z)
            n = np.tanh(xn + r * n)
            return (n + z * (h - n),)
        i, f, g, o = np.split(x + sums, 4, -1)
        c = nn.sigmoid(f) * state[1] + nn.sigmoid(i) * np.tanh(g)
        return nn.sigmoid(o) * np.tanh(c), c

    def function(x: Any, start: Any, weights: Any) -> Any:
        w_ih, w_hh, b_ih, b_hh = weights

        def body(state: Any, xt: Any) -> Any:
            after = step(state, xt, w_hh, b_hh)
            return after, after[0]

        first = tuple(part[0] for part in start)
        after, y = jax.lax.scan(body, first, x @ w_ih.T + b_ih, unroll=unroll)
        return y, *(part[None] for part in after)

    return function


def _jax() -> Any:
    """JAX on the CPU, with as many threads as torch."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    with _fewer_cores(torch.get_num_threads()):
        jax: Any = importlib.import_module("jax")
        importlib.import_module("jax.numpy")
        jax.devices()
    return jax


@contextmanager
def _fewer_cores(count: int) -> Iterator[None]:
    """JAX takes a thread for each core that it sees, and looks when it starts."""
    if not hasattr(os, "sched_setaffinity"):
        yield
        return
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(every)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, every)


def _array(jax: Any) -> Callable[[Tensor], Any]:
    return lambda tensor: jax.numpy.asarray(tensor.detach().numpy())


def _tensors(arrays: Any) -> tuple[Tensor, ...]:
    numpy: Any = importlib.import_module("numpy")
    return tuple(torch.tensor(numpy.asarray(array)) for array in arrays)
