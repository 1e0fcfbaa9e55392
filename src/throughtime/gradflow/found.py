"""The parameters of a loss, found in the graph that it leaves."""

from __future__ import annotations

import torch
from torch import Tensor

from throughtime import state as states
from throughtime.errors import SettingError
from throughtime.gradflow.unrolled import Loss, Timed
from throughtime.state import State


def parameters(loss: Loss, batch: Timed, state: State) -> dict[str, Tensor]:
    """The leaves of autograd's graph that the loss and the new state of a batch come from.

    They are named "0", "1", …, in the order in which they are met. Raises SettingError where there
    are none.
    """
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        value, after = loss(batch[0 : len(batch)], states.detach(state))
    found: dict[str, Tensor] = {}
    seen, ahead = set(), [t.grad_fn for t in (value, *states.leaves(after))]
    while ahead:
        node = ahead.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        ahead += [source for source, _ in node.next_functions]
        if hasattr(node, "variable"):
            found[str(len(found))] = node.variable
    if not found:
        raise SettingError(
            "loss(batch, state) must return a scalar that depends on the parameters, then the "
            "state; this one depends on none"
        )
    return found
