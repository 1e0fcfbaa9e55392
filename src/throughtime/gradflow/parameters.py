"""The parameters of a loss, found in the graph that it leaves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from throughtime import state as states
from throughtime.gradflow import _rng_state as rng_state
from throughtime.gradflow._contract import Loss, scalar
from throughtime.gradflow.batches import along_time
from throughtime.state import State


def parameters(loss: Loss, batch: Any, state: State) -> dict[str, Tensor]:
    """The leaves of autograd's graph that the loss and the new state of a batch come from.

    Args:
        loss: ``loss(batch, state) -> (summed loss, state)``.
        batch: T steps, see `along_time`; one pass with a graph is made over all of them.
        state: before the first step.

    Returns:
        The parameters by name: "0", "1", …, in the order in which they are met.

    Raises:
        SettingError: where there are none.
    """
    batch = along_time(batch)
    with rng_state.forked(), torch.enable_grad():
        value, after = loss(batch[0 : len(batch)], states.detach(state))
    named: dict[str, Tensor] = {}
    seen, ahead = set(), [t.grad_fn for t in (value, *states.leaves(after))]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        ahead += [source for source, _ in node.next_functions]
        if hasattr(node, "variable"):
            named[str(len(named))] = node.variable
    if not named:
        scalar(value.detach(), differentiable=True)
    return named
