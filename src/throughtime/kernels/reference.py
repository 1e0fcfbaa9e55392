"""The specification: the pure step of a cell (see `cells`) under one shared loop.

Slow and plain on purpose. Every other backend is tested against it.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from throughtime import state as states
from throughtime.kernels import stack
from throughtime.kernels.cells import CELLS
from throughtime.kernels.stack import LayerArguments
from throughtime.state import State


def _moving(tensor: Tensor | None) -> Tensor | None:
    """In forward mode the same with a tangent, of zeros where it has none.

    Sums of one tangent and one that is not there go through Python in torch, eight times as slowly.
    """
    if tensor is None or torch._C._are_functorch_transforms_active():
        return tensor
    if forward_ad._current_level < 0 or forward_ad.unpack_dual(tensor).tangent is not None:
        return tensor
    return forward_ad.make_dual(tensor, torch.zeros_like(tensor))


def layer(given: LayerArguments) -> tuple[Tensor, State]:
    """One layer in one direction. In reverse a restart takes effect after step t, not before it."""
    moving: dict[str, Any] = {name: _moving(getattr(given, name)) for name in ("x", "b_ih", "b_hh")}
    given = given._replace(**moving)
    x, reset, reverse = given.x, given.reset, given.reverse
    state, initial, weights = given.state(), given.initial(), given.weights()
    outputs: list[Tensor] = []
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        if reset is not None and not reverse:
            state = states.reset(state, reset[t], initial, dim=0)
        y, after = CELLS[given.kind].step(x[t], state, weights)
        if given.lengths is not None:  # a row that has ended keeps its state
            going = (t < given.lengths).unsqueeze(-1)
            y = torch.where(going, y, torch.zeros_like(y))
            after = states.apply(lambda new, old: torch.where(going, new, old), after, state)  # noqa: B023
        outputs.append(y)
        state = after
        if reset is not None and reverse and t > 0:
            state = states.reset(state, reset[t], initial, dim=0)
    if not outputs:
        return x.new_zeros(0, x.shape[1], next(states.leaves(state)).shape[-1]), state
    return torch.stack(outputs[::-1] if reverse else outputs), state


run = functools.partial(stack.run, layer)
