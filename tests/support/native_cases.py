"""What the tests of the native recurrence share: layers in pairs, gradients, random cases."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from torch import Tensor, nn

import throughtime as tt
from support.close import assert_same, gradient_names, output_names
from support.paths import TESTS
from throughtime import state as states
from throughtime.kernels import Spec, native
from throughtime.kernels.cells import CELLS

KINDS = tuple(CELLS)
IN_TORCH = tuple(kind for kind in KINDS if CELLS[kind].torch_layer is not None)
EXACT = {"rtol": 1e-10, "atol": 1e-10}
CLASSES = {"gru": (tt.GRU, nn.GRU), "lstm": (tt.LSTM, nn.LSTM), "li_gru": (tt.LiGRU, nn.Module)}


def classes(kind: str) -> tuple[type, type, dict[str, str]]:
    """Our class, torch's, and what their constructors need besides."""
    ours, theirs = CLASSES.get(kind, (tt.RNN, nn.RNN))
    return ours, theirs, {} if kind in CLASSES else {"nonlinearity": kind.removeprefix("rnn_")}


def layer(kind: str, *args: Any, dtype: torch.dtype = torch.float64, **kwargs: Any) -> Any:
    """Our layer with weights that depend on nothing but the arguments."""
    ours, _, more = classes(kind)
    torch.manual_seed(len(kind))
    return ours(*args, **more, **kwargs).to(dtype)


def pair(
    kind: str, *args: Any, backend: str = "cpu", dtype: torch.dtype = torch.float64, **kwargs: Any
) -> tuple[Any, Any]:
    """Our layer and torch's with the same weights."""
    ours = layer(kind, *args, backend=backend, dtype=dtype, **kwargs)
    _, theirs, more = classes(kind)
    other = theirs(*args, **more, **kwargs).to(dtype)
    other.load_state_dict(ours.state_dict())
    return ours, other


def random_state(module: Any, batch: int | None) -> Any:
    """A state for a layer, needing gradients; `batch` None for unbatched input."""
    rows = module.num_layers * (2 if module.bidirectional else 1)
    shape = (rows, module.hidden_size) if batch is None else (rows, batch, module.hidden_size)
    dtype = module.weight_ih_l0.dtype
    make = lambda: torch.randn(shape, dtype=dtype).requires_grad_()  # noqa: E731
    return (make(), make()) if len(module.cell.parts) == 2 else make()


def half(state: Any) -> Any:
    """The state in float32, without a graph."""
    return states.apply(lambda part: part.detach().float(), state)


def cotangents(outputs: list[Tensor]) -> list[Tensor]:
    """Random ones, the same for the same shapes."""
    generator = torch.Generator("cpu").manual_seed(7)
    return [
        torch.randn(out.shape, generator=generator, dtype=torch.float64, device="cpu").to(out)
        for out in outputs
    ]


def gradients(outputs: list[Tensor], wanted: list[Tensor], keep: bool = False) -> list[Tensor]:
    """Of the outputs' product with random numbers; zeros where nothing is reached."""
    reached = [
        (out, one)
        for out, one in zip(outputs, cotangents(outputs), strict=True)
        if out.requires_grad
    ]
    if not reached:
        return [torch.zeros_like(one) for one in wanted]
    outs, ones = zip(*reached, strict=True)
    return list(
        torch.autograd.grad(
            outs, wanted, ones, retain_graph=keep, allow_unused=True, materialize_grads=True
        )
    )


def flat(result: Any) -> list[Tensor]:
    """The tensors of (output, state), a PackedSequence's among them."""
    y, state = result
    y = y.data if isinstance(y, nn.utils.rnn.PackedSequence) else y
    return [y, *states.leaves(state)]


def same(
    actual: list[Tensor], expected: list[Tensor], names: Iterable[str] = (), **tolerance: float
) -> None:
    """Equal within the tolerance of float64, or the one given; what differs is named."""
    labels = list(names) or [f"tensor {i}" for i in range(len(actual))]
    assert_same(actual, expected, labels, **(tolerance or EXACT))


def compare(ours: Any, theirs: Any, inputs: list[Tensor], *args: Any) -> None:
    """Values and all gradients of two modules called alike."""
    actual, expected = flat(ours(*args)), flat(theirs(*args))
    same(actual, expected, output_names(actual))
    wanted = [*inputs, *ours.parameters()], [*inputs, *theirs.parameters()]
    slopes = gradients(actual, wanted[0]), gradients(expected, wanted[1])
    same(*slopes, gradient_names(inputs, ours))


@dataclass(frozen=True)
class Case:
    """Arguments of `kernels.run`: everything that a backend may be asked."""

    spec: Spec
    x: Tensor
    state: Any
    weights: list[Tensor]
    reset: Tensor | None
    initial: Any
    lengths: Tensor | None

    def leaves(self) -> list[Tensor]:
        return [self.x, *states.leaves(self.state), *self.weights, *states.leaves(self.initial)]

    def gradient_names(self) -> list[str]:
        """Of the gradients of `leaves`."""
        kinds = ("w_ih", "w_hh", "b_ih", "b_hh")[: self.spec.weights_per_layer]
        weights = [f"{kinds[i % len(kinds)]} {i // len(kinds)}" for i in range(len(self.weights))]
        parts = CELLS[self.spec.kind].parts
        restarts = [f"{part}_restart" for part in parts] if self.initial is not None else []
        return [f"d {name}" for name in ("x", *(f"{part}0" for part in parts), *weights, *restarts)]


_LAYOUTS = ("plain", "transposed", "every second", "expanded in time", "expanded in batch", "rows")


def laid_out(layout: str, steps: int, batch: int, inputs: int) -> Tensor:
    """Random input ``[T, B, I]``, contiguous or not."""
    make = lambda *shape: torch.randn(*shape, dtype=torch.float64)  # noqa: E731
    if layout == "transposed":
        return make(batch, steps, inputs).transpose(0, 1)
    if layout == "every second":
        return make(2 * steps, batch, 2 * inputs)[::2, :, ::2]
    if layout == "expanded in time":
        return make(1, batch, inputs).expand(steps, -1, -1)
    if layout == "expanded in batch":
        return make(steps, 1, inputs).expand(-1, batch, -1)
    if layout == "rows":
        return make(steps, batch, inputs + 3)[..., 2 : 2 + inputs]
    return make(steps, batch, inputs)


@st.composite
def cases(draw: Any) -> Case:
    """Any kind, size, layout, stack, with or without restarts and lengths."""
    kind = draw(st.sampled_from(KINDS))
    steps, batch = draw(st.integers(0, 9)), draw(st.integers(0, 10))
    sizes = st.one_of(st.integers(1, 9), st.sampled_from([15, 16, 17, 31, 33, 40, 65]))
    inputs, hidden = draw(sizes), draw(sizes)
    layers, both = draw(st.integers(1, 3)), draw(st.booleans())
    spec = Spec(kind, layers, draw(st.booleans()), both)
    torch.manual_seed(draw(st.integers(0, 10**6)))
    rows, width, weights = layers * (2 if both else 1), hidden * (2 if both else 1), []
    for row in range(rows):
        first = inputs if row < rows // layers else width
        gates = len(CELLS[kind].gates) * hidden
        shapes = [(gates, first), (gates, hidden), (gates,), (gates,)][: 4 if spec.bias else 2]
        weights += [torch.randn(s, dtype=torch.float64) / (1 + hidden) ** 0.5 for s in shapes]

    def state(rows_: int, size: int) -> Any:
        make = lambda: torch.randn(rows_, size, hidden, dtype=torch.float64)  # noqa: E731
        return (make(), make()) if len(CELLS[kind].parts) == 2 else make()

    x = laid_out(draw(st.sampled_from(_LAYOUTS)), steps, batch, inputs)
    density = draw(st.sampled_from([None, 0.0, 0.1, 0.5, 1.0]))
    reset = None if density is None else torch.rand(steps, batch) < density
    initial = state(rows, draw(st.sampled_from([1, batch]))) if draw(st.booleans()) else None
    lengths = torch.randint(0, steps + 1, (batch,)) if draw(st.booleans()) else None
    start = state(rows, batch)
    if batch and draw(st.booleans()):
        start = states.apply(lambda part: part[:, :1].expand(-1, batch, -1), start)
    case = Case(spec, x, start, weights, reset, initial, lengths)
    for leaf in case.leaves():
        leaf.requires_grad_()
    return case


def instruction_sets() -> list[str]:
    """Those that this machine runs, best first; the one in use stays in use."""
    library = native.library()
    used = native.instructions()
    names = ("avx512", "avx2", "neon", "baseline")
    result = [name for name in names if library.tt_instructions(name.encode()) is not None]
    assert library.tt_instructions(used.encode()) is not None
    return result


@contextmanager
def running(name: str) -> Iterator[None]:
    """The kernels on this instruction set for a while; a test is skipped where it does not run."""
    library, used = native.library(), native.instructions()
    if library.tt_instructions(name.encode()) is None:
        pytest.skip(f"this machine does not run {name}")
    try:
        assert native.instructions() == name
        yield
    finally:
        library.tt_instructions(used.encode())


def run_python(code: str, **environment: str) -> str:
    """What a program prints in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env={**os.environ, "OMP_NUM_THREADS": "2", **environment}, cwd=TESTS,
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout
