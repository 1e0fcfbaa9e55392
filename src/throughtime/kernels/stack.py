"""A stack of recurrent layers out of one function for a layer in one direction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from throughtime import state as states
from throughtime.state import State

if TYPE_CHECKING:
    from throughtime.kernels import Spec


class LayerArguments(NamedTuple):
    """One layer in one direction over a time-major batch: what every backend is given.

    Tensors have the names of `tt_sequence` in throughtime.h: x ``[T, B, I]``; h0 and c0 ``[B, H]``,
    c0 for cells with two parts of a state; h_restart and c_restart ``[1 or B, H]``, what a reset
    row starts from, zeros if None; weights as in torch.nn; reset bool ``[T, B]``; lengths int64
    ``[B]``. kind: of the cell; low: whether weights are rounded to bfloat16; keep: whether a
    backward pass follows.
    """

    x: Tensor
    h0: Tensor
    c0: Tensor | None
    h_restart: Tensor | None
    c_restart: Tensor | None
    w_ih: Tensor
    w_hh: Tensor
    b_ih: Tensor | None
    b_hh: Tensor | None
    reset: Tensor | None
    lengths: Tensor | None
    kind: str
    reverse: bool
    low: bool
    keep: bool

    def state(self) -> State:
        return self.h0 if self.c0 is None else (self.h0, self.c0)

    def initial(self) -> State:
        return self.h_restart if self.c_restart is None else (self.h_restart, self.c_restart)

    def weights(self) -> list[Tensor]:
        every = (self.w_ih, self.w_hh, self.b_ih, self.b_hh)
        return [weight for weight in every if weight is not None]


def run(
    layer: Callable[[LayerArguments], tuple[Tensor, State]],
    spec: Spec,
    x: Tensor,
    state: State,
    weights: Sequence[Tensor],
    reset: Tensor | None = None,
    initial: State = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, State]:
    """See `kernels.run`."""
    directions, per_layer = spec.directions, spec.weights_per_layer
    low, finals = spec.weight_dtype == "bfloat16", []
    for number in range(spec.num_layers):
        outputs = []
        for direction in range(directions):
            row = number * directions + direction
            (h0, c0), (h, c) = _parts(state, row), _parts(initial, row)
            w_ih, w_hh, *biases = weights[row * per_layer : (row + 1) * per_layer]
            b_ih, b_hh = biases or (None, None)
            y, final = layer(
                LayerArguments(
                    x, h0, c0, h, c, w_ih, w_hh, b_ih, b_hh, reset, lengths,
                    spec.kind, direction == 1, low, False,
                )
            )  # fmt: skip
            outputs.append(y)
            finals.append(states.apply(lambda part: part.unsqueeze(0), final))
        x = torch.cat(outputs, -1) if directions == 2 else outputs[0]
        if spec.dropout and number < spec.num_layers - 1:
            x = F.dropout(x, spec.dropout)
    return x, states.concatenate(finals, dim=0)


def _parts(state: State, row: int) -> tuple[Any, Tensor | None]:
    """The two parts of the state of one layer and direction, None where there is none."""
    h, c = state if isinstance(state, tuple) else (state, None)
    return None if h is None else h[row], None if c is None else c[row]
