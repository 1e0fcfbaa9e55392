"""The recurrences of torch itself, made to restart rows in mid-sequence.

torch has no `reset`, so a batch with restarts is either cut in time at each restart (few of them:
keeps oneDNN's LSTM) or repacked so that each stretch between restarts is a sequence of its own
(many: one call over a PackedSequence layout). Both are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from throughtime import state as states
from throughtime.errors import BackendError
from throughtime.state import State

if TYPE_CHECKING:
    from throughtime.kernels import Spec

_STEPS_PER_CUT = 16  # cutting costs one call per cut; worthwhile while stretches stay this long


def run(
    spec: Spec,
    x: Tensor,
    state: State,
    weights: Sequence[Tensor],
    reset: Tensor | None = None,
    initial: State = None,
) -> tuple[Tensor, State]:
    """See `kernels.run`."""
    if len(x) == 0:
        width = spec.directions * next(states.leaves(state)).shape[-1]
        return x.new_zeros(0, x.shape[1], width), state
    if reset is None:
        return _call(spec, weights, (x,), state)
    if torch.jit.is_tracing() or torch.compiler.is_exporting():
        raise BackendError(
            "where rows restart would be written into the program for good; record a call without "
            "reset, or save it with torch.export and backend='cpu'"
        )
    cuts = [0, *(reset[1:].any(1).nonzero().flatten() + 1).tolist(), len(x)]
    if spec.bidirectional or len(cuts) - 2 > len(x) // _STEPS_PER_CUT:
        return _repacked(spec, x, state, weights, reset, initial)
    outputs = []
    for begin, end in pairwise(cuts):
        state = states.reset(state, reset[begin], initial)
        y, state = _call(spec, weights, (x[begin:end],), state)
        outputs.append(y)
    return torch.cat(outputs), state


def _call(
    spec: Spec, weights: Sequence[Tensor], data: tuple[Tensor, ...], state: State
) -> tuple[Tensor, State]:
    """torch's own recurrence over a tensor ``(x,)`` or a packed ``(data, batch_sizes)``."""
    state = states.apply(Tensor.contiguous, state)
    stack = (list(weights), spec.bias, spec.num_layers, spec.dropout, True, spec.bidirectional)
    layout = (False,) if len(data) == 1 else ()  # batch_first
    assert spec.cell.torch_layer is not None
    y, *final = spec.cell.torch_layer(*data, state, *stack, *layout)
    return y, tuple(final) if len(final) > 1 else final[0]


def _repacked(
    spec: Spec, x: Tensor, state: State, weights: Sequence[Tensor], reset: Tensor, initial: State
) -> tuple[Tensor, State]:
    steps, lanes = reset.shape
    begins = reset.t().clone(memory_format=torch.contiguous_format)  # never the caller's own
    begins[:, 0] = True
    position = begins.flatten().nonzero().flatten()  # of each stretch's first step, lane after lane
    count = len(position)
    ends = torch.cat([position[1:], position.new_tensor([steps * lanes])])
    _, sorting = (ends - position).sort(descending=True, stable=True)
    rank = torch.empty_like(sorting)
    rank[sorting] = torch.arange(count, device=x.device)
    stretch = begins.flatten().cumsum(0) - 1
    offset = torch.arange(steps * lanes, device=x.device) - position[stretch]
    order = (offset * count + rank[stretch]).argsort()
    sizes = torch.bincount(offset).cpu()

    lane = position // steps
    first = position % steps == 0
    last = torch.cat([lane[1:] != lane[:-1], lane.new_ones(1, dtype=torch.bool)])

    def start(part: Tensor, fresh: Tensor | float) -> Tensor:
        rows = part.index_select(1, lane)
        fresh = torch.as_tensor(fresh, dtype=part.dtype, device=part.device)
        if fresh.dim() and fresh.shape[1] > 1:  # a restart of its own for every lane
            fresh = fresh.index_select(1, lane)
        forward = (~first | reset[0, lane]).view(1, -1, 1).expand(spec.num_layers, -1, 1)
        masks = (
            [forward]
            if spec.directions == 1
            else [forward, (~last).view(1, -1, 1).expand_as(forward)]
        )
        mask = torch.stack(masks, 1).reshape(part.shape[0], -1, 1)
        return torch.where(mask, fresh, rows).index_select(1, sorting)

    if initial is None:
        packed_state = states.apply(lambda part: start(part, 0.0), state)
    else:
        packed_state = states.apply(start, state, initial)
    flat = x.transpose(0, 1).reshape(steps * lanes, -1)
    y, final = _call(spec, weights, (flat[order], sizes), packed_state)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(len(order), device=x.device)
    y = y[inverse].view(lanes, steps, -1).transpose(0, 1)

    def finish(part: Tensor) -> Tensor:
        ahead = part.index_select(1, rank[last])
        if spec.directions == 1:
            return ahead
        back = part.index_select(1, rank[first])
        return torch.stack([ahead[0::2], back[1::2]], 1).flatten(0, 1)

    return y, states.apply(finish, final)
