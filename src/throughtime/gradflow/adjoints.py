"""dL/dS_t of every state that a batch goes through."""

from __future__ import annotations

import torch
from torch import Tensor

from throughtime import state as states
from throughtime.gradflow.blocks import blocks, check, check_finite
from throughtime.gradflow.unrolled import (
    Loss,
    Stacked,
    Timed,
    apart,
    floating,
    gradients,
    outputs_of_states,
)
from throughtime.state import State


def adjoints(loss: Loss, batch: Timed, state: State) -> Stacked:
    """``dL/dS_t`` for t = 0 … T, L the whole loss: ``[T + 1, *shape]`` for each leaf of the state.

    The loss of step t itself counts where it is computed from the S_t that comes back, which holds
    for the layers of torch.nn and of this package. Takes T calls of the loss and one backward.
    Zeros stand for S_0 where `state` is None. Raises SettingError as `ledger` does.
    """
    later: list[Tensor] = []
    pieces: list[list[list[Tensor]]] = []  # by block, step and leaf
    with torch.random.fork_rng(devices=[]):
        check(loss, batch, state)
        check_finite(loss, batch, state)
        for window, start in blocks(loss, batch, state):
            before = states.apply(
                lambda leaf: leaf.detach().requires_grad_(leaf.is_floating_point()), start
            )
            chain, values = [floating(before)], []
            with torch.enable_grad(), outputs_of_states():
                for t in range(len(window)):
                    value, after = loss(window[t : t + 1], before)
                    before = apart(after, before)
                    chain.append(floating(before))
                    values.append(value)
            ends = list(zip(chain[-1], later, strict=True)) if later else []
            pairs = [*((value, torch.ones_like(value)) for value in values), *ends]
            leaves = [leaf for step in chain for leaf in step]
            found = iter(gradients(pairs, leaves))
            here = [[next(found) for _ in step] for step in chain]
            later = here[0]
            pieces.append(here[1:])
    first = later or [torch.zeros_like(leaf) for leaf in pieces[-1][0]]
    steps = [first, *(step for block in reversed(pieces) for step in block)]
    return [torch.stack(leaf) for leaf in zip(*steps, strict=True)]
