"""dL/dS_t of every state that a batch goes through."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from throughtime.gradflow import _rng_state as rng_state
from throughtime.gradflow._contract import CHECKED, Loss, Places, check, check_finite
from throughtime.gradflow._passes import blocks
from throughtime.gradflow._unrolled import (
    Stacked,
    apart,
    floating,
    gradients,
    graph_inputs,
    outputs_of_states,
)
from throughtime.gradflow.batches import along_time
from throughtime.state import State


def adjoints(loss: Loss, batch: Any, state: State) -> Stacked:
    """``dL/dS_t`` for t = 0 … T, L being the whole loss.

    The loss of step t itself counts where it is computed from the S_t that comes back, which holds
    for the layers of torch.nn and of this package. Takes T calls of the loss and one backward.

    Args:
        loss: ``loss(batch, state) -> (summed loss, state)``.
        batch: T steps, see `along_time`.
        state: S_0, before the first step.

    Returns:
        ``[T + 1, *shape]`` for each floating leaf of the state; zeros stand for S_0 where `state`
        is None.

    Raises:
        SettingError: as `ledger` does.
        NonFiniteError: naming the first step whose loss or state is infinite or NaN.
    """
    batch = along_time(batch)
    later: list[Tensor] = []
    pieces: list[list[list[Tensor]]] = []  # by block, step and leaf
    with rng_state.forked():
        check(loss, batch, state, Places.first(batch, CHECKED))
        check_finite(loss, batch, state, 0, len(batch))
        for segment, start in blocks(loss, batch, state):
            before = graph_inputs(start)
            chain, values = [floating(before)], []
            with torch.enable_grad(), outputs_of_states():
                for t in range(len(segment)):
                    value, after = loss(segment[t : t + 1], before)
                    before = apart(after, before)
                    chain.append(floating(before))
                    values.append(value)
            ends = list(zip(chain[-1], later, strict=True)) if later else []
            pairs = [*((value, torch.ones_like(value)) for value in values), *ends]
            leaves = [leaf for step in chain for leaf in step]
            given = iter(gradients(pairs, leaves))
            here = [[next(given) for _ in step] for step in chain]
            later = here[0]
            pieces.append(here[1:])
    first = later or [torch.zeros_like(leaf) for leaf in pieces[-1][0]]
    steps = [first, *(step for block in reversed(pieces) for step in block)]
    return [torch.stack(leaf) for leaf in zip(*steps, strict=True)]
