"""The table of cells: a row each, with the one pure step that specifies it.

Every backend, layer, model and benchmark that enumerates cells reads this table. A new cell is its
row and step here, its struct in cells.h (and its name there and in throughtime.h), and its layer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from throughtime.state import State

# x [B, I], state [B, H] (or a pair), weights (w_ih, w_hh) or (w_ih, w_hh, b_ih, b_hh)
Step = Callable[[Tensor, State, Sequence[Tensor]], tuple[Tensor, State]]


@dataclass(frozen=True)
class Cell:
    """One row of the table.

    Attributes:
        kind: its name.
        number: its number in throughtime.h.
        gates: names of the blocks of rows of its weights, in order, each with its activation.
        step: the specification.
        mode: its name in torch.nn.RNNBase.
        parts: names of the parts of its state.
        keep: the gate that keeps the state while it is near 1, if there is one.
        admit: a gate besides it that lets the input in, if there is one.
        torch_layer: torch's own function of a sequence, if it has one.
    """

    kind: str
    number: int
    gates: dict[str, str]
    step: Step
    mode: str
    parts: tuple[str, ...] = ("h",)
    keep: int | None = None
    admit: int | None = None
    torch_layer: Callable[..., Any] | None = None

    def products(self, inputs: int, hidden: int) -> int:
        """Multiplications of one step of one row: the number of weights."""
        return len(self.gates) * hidden * (inputs + hidden)


def _rnn(activation: Callable[[Tensor], Tensor]) -> Step:
    """``S_t = σ(X_t W_x + O_{t-1})``, ``O_t = S_t W_rec`` (Elman 1990)."""

    def step(x: Tensor, state: State, w: Sequence[Tensor]) -> tuple[Tensor, State]:
        s = activation(F.linear(x, w[0], *w[2:3]) + F.linear(state, w[1], *w[3:4]))
        return s, s

    return step


def _gru(x: Tensor, state: State, w: Sequence[Tensor]) -> tuple[Tensor, State]:
    """GRU as in torch.nn (Cho et al. 2014, reset gate after the product)."""
    xr, xz, xn = F.linear(x, w[0], *w[2:3]).chunk(3, -1)
    hr, hz, hn = F.linear(state, w[1], *w[3:4]).chunk(3, -1)
    r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
    n = torch.tanh(xn + r * hn)
    h = n + z * (state - n)
    return h, h


def _lstm(x: Tensor, state: State, w: Sequence[Tensor]) -> tuple[Tensor, State]:
    """LSTM as in torch.nn (Hochreiter & Schmidhuber 1997; Gers et al. 2000)."""
    h, c = state
    gates = F.linear(x, w[0], *w[2:3]) + F.linear(h, w[1], *w[3:4])
    i, f, g, o = gates.chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return h, (h, c)


def _li_gru(x: Tensor, state: Tensor, w: Sequence[Tensor]) -> tuple[Tensor, State]:
    """Light GRU (Ravanelli et al. 2018, IEEE TETCI 2(2)), biases instead of batch normalisation.

    ``z = σ(W_z x + U_z h + b_z)``, ``n = relu(W_n x + U_n h + b_n)``, ``h' = z h + (1 - z) n``.
    """
    gates = F.linear(x, w[0], *w[2:3]) + F.linear(state, w[1], *w[3:4])
    z, n = gates.chunk(2, -1)
    n = torch.relu(n)
    h = n + torch.sigmoid(z) * (state - n)
    return h, h


_ROWS = (
    Cell(
        "rnn_tanh", 0, {"s": "tanh"}, _rnn(torch.tanh), "RNN_TANH",
        torch_layer=torch.rnn_tanh
    ),
    Cell(
        "rnn_relu", 1, {"s": "relu"}, _rnn(torch.relu), "RNN_RELU",
        torch_layer=torch.rnn_relu
    ),
    Cell("rnn_identity", 2, {"s": "identity"}, _rnn(lambda pre: pre), "RNN_TANH"),
    Cell(
        "gru", 3, {"r": "sigmoid", "z": "sigmoid", "n": "tanh"}, _gru, "GRU", keep=1,
        torch_layer=torch.gru
    ),
    Cell(
        "lstm", 4, {"i": "sigmoid", "f": "sigmoid", "g": "tanh", "o": "sigmoid"}, _lstm, "LSTM",
        ("h", "c"), keep=1, admit=0,
        torch_layer=torch.lstm
    ),
    Cell("li_gru", 5, {"z": "sigmoid", "n": "relu"}, _li_gru, "LI_GRU", keep=0),
)  # fmt: skip
CELLS: dict[str, Cell] = {cell.kind: cell for cell in _ROWS}
