"""One small problem whose batch comes in every shape that can be cut along time."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import throughtime as tt

STEPS, ROWS, SYMBOLS, SIZE = 23, 3, 5, 4


class Example(NamedTuple):
    """Symbols, and those to be told from them."""

    x: Tensor
    y: Tensor


Plain = namedtuple("Plain", "x y")


@dataclasses.dataclass(frozen=True)
class Cut:
    """A class of one's own that has a length and slices."""

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, steps: slice) -> Cut:
        return Cut(self.x[steps], self.y[steps])


# How a batch is made of (x, y), and how a loss takes x and y out of it.
KINDS: dict[str, tuple[Callable[[Tensor, Tensor], Any], Callable[[Any], tuple[Tensor, Tensor]]]] = {
    "tensor": (lambda x, y: torch.stack([x, y], -1), lambda b: (b[..., 0], b[..., 1])),
    "tuple": (lambda x, y: (x, y), lambda b: (b[0], b[1])),
    "list": (lambda x, y: [x, y], lambda b: (b[0], b[1])),
    "named tuple": (Example, lambda b: (b.x, b.y)),
    "namedtuple": (Plain, lambda b: (b.x, b.y)),
    "dict": (lambda x, y: {"x": x, "y": y}, lambda b: (b["x"], b["y"])),
    "ordered dict": (lambda x, y: OrderedDict(x=x, y=y), lambda b: (b["x"], b["y"])),
    "nested": (
        lambda x, y: {"in": {"x": x, "none": None}, "out": [Example(y, y)]},
        lambda b: (b["in"]["x"], b["out"][0].y),
    ),
    "dataset": (torch.utils.data.TensorDataset, lambda b: (b[0], b[1])),
    "own class": (Cut, lambda b: (b.x, b.y)),
}


class Tagger(nn.Module):
    """A recurrent network that names the symbol seen a while before, float64.

    kind: of KINDS. layer: of (inputs, units).
    """

    def __init__(self, kind: str, layer: Callable[[int, int], nn.Module] = tt.GRU) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.embedding, self.head = nn.Embedding(SYMBOLS, SIZE), nn.Linear(SIZE, SYMBOLS)
        self.layer = layer(SIZE, SIZE)
        self.double()
        if layer is tt.MinGRU:  # its traces are of itself, not of what lies below
            self.embedding.requires_grad_(False)
        self.trained = [p for p in self.parameters() if p.requires_grad]
        x = torch.randint(SYMBOLS, (STEPS, ROWS))
        make, self.parts = KINDS[kind]
        self.batch = make(x, x.roll(2, 0))
        self.x, self.y = x, x.roll(2, 0)
        state = 0.3 * torch.randn(1, ROWS, SIZE, dtype=torch.float64)
        self.state = (state, 0.5 * state) if "LSTM" in str(self.layer) else state

    def loss(self, batch: Any, state: Any) -> tuple[Tensor, Any]:
        """The contract: summed cross-entropy of a batch, and the state after it."""
        return self.core(*self.parts(batch), state)

    def core(self, x: Tensor, y: Tensor, state: Any) -> tuple[Tensor, Any]:
        """The same of two tensors ``[T, B]``."""
        out, state = self.layer(self.embedding(x), state)
        said = self.head(out)
        return F.cross_entropy(said.flatten(0, 1), y.flatten(), reduction="sum"), state

    def exact(self) -> tuple[Tensor, Any, list[Tensor]]:
        """Loss, state and gradients by plain autograd of the whole, no batch involved."""
        loss, state = self.core(self.x, self.y, self.state)
        return loss.detach(), state, list(torch.autograd.grad(loss, self.trained))
