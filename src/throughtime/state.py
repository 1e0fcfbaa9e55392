"""Recurrent state as a value.

A state is a tensor, a (nested) tuple of tensors, or None. It goes into a step and comes out of it;
no module keeps one. Layer states have the batch on dim 1, ``[layers, B, H]``, as in torch.nn; an
LSTM's state is the pair ``(h, c)``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import torch
from torch import Tensor

from throughtime.errors import SettingError

State: TypeAlias = Any  # Tensor | tuple[State, ...] | None; recursive aliases are beyond mypy here


class Traced(tuple[Any, ...]):
    """A state that carries its own past: ``(h, *traces)``, traces being dh / d(parameters).

    A layer that takes one treats h as a constant whose gradient goes into the parameters through
    the traces, and returns the traces of what comes after (see `mingru` and `bptt.Online`).
    """


def traced(state: State) -> bool:
    """Whether every tensor of the state belongs to one that carries its own past."""
    if isinstance(state, tuple) and not isinstance(state, Traced):
        return bool(state) and all(map(traced, state))
    return isinstance(state, Traced)


def _like(state: tuple[Any, ...]) -> type[tuple[Any, ...]]:
    return Traced if isinstance(state, Traced) else tuple


def apply(function: Callable[..., Tensor], state: State, *others: State) -> State:
    """The state with `function` applied to each tensor (and the matching ones of `others`)."""
    if state is None:
        return None
    if isinstance(state, (list, dict)):
        raise SettingError(
            f"a state is a tensor, a tuple of states, or None; got a {type(state).__name__}: "
            "put its parts into a tuple"
        )
    if isinstance(state, tuple):
        parts = (apply(function, *leaves) for leaves in zip(state, *others, strict=True))
        return _like(state)(parts)
    return function(state, *others)


def leaves(state: State) -> Iterator[Tensor]:
    """The tensors of a state, in order."""
    if isinstance(state, tuple):
        for part in state:
            yield from leaves(part)
    elif state is not None:
        yield state


def detach(state: State) -> State:
    """The same values, cut off from the graph that produced them."""
    return apply(Tensor.detach, state)


def clone(state: State) -> State:
    """A copy that later in-place changes of the original do not reach."""
    return apply(lambda part: part.detach().clone(), state)


def zeros_like(state: State) -> State:
    """A state of zeros with the same shapes."""
    return apply(torch.zeros_like, state)


def index(state: State, rows: Tensor | slice, dim: int = 1) -> State:
    """The chosen batch rows of a state."""
    if isinstance(rows, slice):
        return apply(lambda part: part[(slice(None),) * dim + (rows,)], state)
    return apply(lambda part: part.index_select(dim, rows), state)


def reset(state: State, rows: Tensor, initial: State = None, dim: int = 1) -> State:
    """The state with the rows where `rows` (bool ``[B]``) is True put back to `initial`.

    `initial` broadcasts against the state; None means zero.
    """

    def put_back(part: Tensor, start: Tensor | float) -> Tensor:
        mask = rows.reshape((1,) * dim + (-1,) + (1,) * (part.dim() - dim - 1))
        return torch.where(mask, torch.as_tensor(start, dtype=part.dtype, device=part.device), part)

    if initial is None:
        return apply(lambda part: put_back(part, 0.0), state)
    return apply(put_back, state, initial)


def concatenate(states: list[State], dim: int = 1) -> State:
    """Several states side by side along the batch."""
    first = states[0]
    if first is None:
        return None
    if isinstance(first, tuple):
        parts = (concatenate([s[i] for s in states], dim) for i in range(len(first)))
        return _like(first)(parts)
    return torch.cat(states, dim)
