"""What is measured: layers, their sizes, and numbers to run them on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from throughtime import state as states
from throughtime.kernels import cells
from throughtime.layers import LAYERS, Stepper

CELLS = {"gru": "gru", "rnn": "rnn_tanh", "lstm": "lstm"}  # those that torch has, and their kinds
_TORCH: dict[str, Any] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
_TORCH_CELLS: dict[str, Any] = {"rnn": nn.RNNCell, "gru": nn.GRUCell, "lstm": nn.LSTMCell}

Numbers = dict[str, Tensor]


@dataclass(frozen=True)
class Shape:
    """Sizes of a batch and a layer: sequences, steps of each, inputs, hidden units."""

    batch: int
    steps: int
    inputs: int
    hidden: int

    def __str__(self) -> str:
        return f"{self.batch}, {self.steps}, {self.inputs}, {self.hidden}"


SHAPES = (
    Shape(1, 1000, 32, 64),
    Shape(8, 1000, 16, 128),
    Shape(32, 100, 64, 64),
    Shape(32, 100, 64, 256),
    Shape(64, 128, 128, 512),
)
STEPS = (Shape(1, 1, 64, 64), Shape(1, 1, 64, 256), Shape(1, 1, 64, 512))


def work(cell: str, shape: Shape, training: bool) -> int:
    """Floating-point operations of the products: two for each weight, step and sequence.

    The gradients need as many again for the states and as many for the weights.
    """
    products = cells.CELLS[CELLS[cell]].products(shape.inputs, shape.hidden)
    return 2 * shape.steps * shape.batch * products * (3 if training else 1)


@dataclass
class Case:
    """One layer on one batch, as torch.nn's and as ours, with the same weights.

    start: the initial state, one tensor ``[1, B, H]`` or, for the LSTM, two. slopes: the gradients
    that come from above, of the output and of the final state.
    """

    cell: str
    shape: Shape
    ours: Any = field(init=False)
    theirs: Any = field(init=False)
    x: Tensor = field(init=False)
    start: tuple[Tensor, ...] = field(init=False)
    slopes: tuple[Tensor, ...] = field(init=False)

    def __post_init__(self) -> None:
        s, draw = self.shape, torch.Generator().manual_seed(0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.theirs = _TORCH[self.cell](s.inputs, s.hidden)
        self.ours = LAYERS[self.cell](s.inputs, s.hidden, backend="cpu")
        self.ours.load_state_dict(self.theirs.state_dict())
        count = self.ours.state_parts
        state = [(1, s.batch, s.hidden)] * count
        sizes = [(s.steps, s.batch, s.inputs), *state, (s.steps, s.batch, s.hidden), *state]
        drawn = [torch.randn(*size, generator=draw) for size in sizes]
        self.x, self.start, self.slopes = drawn[0], tuple(drawn[1 : 1 + count]), ()
        self.slopes = tuple(drawn[1 + count :])

    def double(self) -> Case:
        """The same in float64, for torch alone."""
        other = Case.__new__(Case)
        other.cell, other.shape = self.cell, self.shape
        other.theirs = _TORCH[self.cell](self.shape.inputs, self.shape.hidden).double()
        other.theirs.load_state_dict(self.theirs.state_dict())
        other.x = self.x.double()
        other.start = tuple(part.double() for part in self.start)
        other.slopes = tuple(part.double() for part in self.slopes)
        return other

    def __str__(self) -> str:
        return f"{self.cell.upper()} at {self.shape}"


def forward(case: Case, layer: Any) -> tuple[Tensor, ...]:
    """Output and final state, without gradients."""
    state = case.start if len(case.start) > 1 else case.start[0]
    with torch.no_grad():
        y, after = layer(case.x, state)
    return y, *states.leaves(after)


class Training:
    """A layer's output, final state, and the gradients of input, initial state and weights."""

    def __init__(self, case: Case, layer: Any) -> None:
        self.layer, self.slopes = layer, case.slopes
        self.x = case.x.detach().clone().requires_grad_()
        self.start = tuple(part.detach().clone().requires_grad_() for part in case.start)
        self.wanted = [self.x, *self.start, *layer.parameters()]

    def __call__(self) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        y, after = self.layer(self.x, self.start if len(self.start) > 1 else self.start[0])
        outputs = (y, *states.leaves(after))
        gradients = torch.autograd.grad(outputs, self.wanted, self.slopes)
        return tuple(part.detach() for part in outputs), gradients


def named(case: Case, outputs: Sequence[Tensor], gradients: Sequence[Tensor] = ()) -> Numbers:
    """The numbers of a case under names that all contenders share."""
    states = ("h", "c")[: len(case.start)]
    numbers = dict(zip(("output", *(f"final {name}" for name in states)), outputs, strict=True))
    if gradients:
        names = ["input", *(f"initial {name}" for name in states)]
        names += [name for name, _ in case.theirs.named_parameters()]
        numbers |= {f"gradient of {n}": g for n, g in zip(names, gradients, strict=True)}
    return numbers


@dataclass
class StepCase:
    """A layer that takes single steps, and torch's cell with the same weights."""

    cell: str
    shape: Shape
    ours: Any = field(init=False)
    theirs: Any = field(init=False)
    x: Tensor = field(init=False)
    start: tuple[Tensor, ...] = field(init=False)

    def __post_init__(self) -> None:
        s, draw = self.shape, torch.Generator().manual_seed(0)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.theirs = _TORCH_CELLS[self.cell](s.inputs, s.hidden)
        self.ours = LAYERS[self.cell](s.inputs, s.hidden, backend="cpu")
        weights = {f"{name}_l0": value for name, value in self.theirs.state_dict().items()}
        self.ours.load_state_dict(weights)
        self.x = torch.randn(s.batch, s.inputs, generator=draw)
        count = self.ours.state_parts
        self.start = tuple(torch.randn(s.batch, s.hidden, generator=draw) for _ in range(count))

    def run_torch(self, count: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        """The state after some steps of torch's cell."""
        cell = self.theirs if dtype == torch.float32 else self._double()
        x, start = self.x.to(dtype), tuple(part.to(dtype) for part in self.start)
        with torch.no_grad():
            state: Any = start if len(start) > 1 else start[0]
            for _ in range(count):
                state = cell(x, state)
        return tuple(states.leaves(state))

    def run_ours(self, count: int) -> tuple[Tensor, ...]:
        """The state after some of our steps."""
        x, step = self.x, Stepper(self.ours)
        parts = tuple(part.unsqueeze(0) for part in self.start)
        state: Any = parts if len(parts) > 1 else parts[0]
        for _ in range(count):
            _, state = step(x, state)
        return tuple(part[0] for part in states.leaves(state))

    def _double(self) -> Any:
        cell = _TORCH_CELLS[self.cell](self.shape.inputs, self.shape.hidden).double()
        cell.load_state_dict(self.theirs.state_dict())
        return cell

    def __str__(self) -> str:
        return f"a step of {self.cell.upper()} at {self.shape}"
