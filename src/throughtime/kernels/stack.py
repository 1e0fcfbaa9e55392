"""A stack of recurrent layers out of one function for a layer in one direction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from throughtime import state as states
from throughtime.state import State

if TYPE_CHECKING:
    from throughtime.kernels import Spec

# kind, x [T, B, I], state [B, H], weights, reset, initial [1 or B, H], lengths [B], reverse
Scan = Callable[
    [str, Tensor, State, Sequence[Tensor], Tensor | None, State, Tensor | None, bool],
    tuple[Tensor, State],
]


def run(
    scan: Scan,
    spec: Spec,
    x: Tensor,
    state: State,
    weights: Sequence[Tensor],
    reset: Tensor | None = None,
    initial: State = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, State]:
    """See `kernels.run`."""
    directions = 2 if spec.bidirectional else 1
    per_layer = 4 if spec.bias else 2
    finals: list[State] = []
    for layer in range(spec.num_layers):
        outputs = []
        for direction in range(directions):
            row = layer * directions + direction
            start = None if initial is None else layer_state(initial, row)
            w = weights[row * per_layer : (row + 1) * per_layer]
            y, final = scan(
                spec.kind, x, layer_state(state, row), w, reset, start, lengths, direction == 1
            )
            outputs.append(y)
            finals.append(states.apply(lambda part: part.unsqueeze(0), final))
        x = torch.cat(outputs, -1) if directions == 2 else outputs[0]
        if spec.dropout and layer < spec.num_layers - 1:
            x = F.dropout(x, spec.dropout)
    return x, states.concatenate(finals, dim=0)


def layer_state(state: State, row: int) -> State:
    """The state ``[B, H]`` of one layer and direction out of ``[L*D, B, H]``."""
    return states.apply(lambda part: part[row], state)
