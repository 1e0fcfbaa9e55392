"""Losses that no gradient method can be right about, refused in one clear line."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from throughtime import state as states
from throughtime.bptt import replay
from throughtime.bptt.replay import Generators
from throughtime.errors import NonFiniteError, SettingError
from throughtime.gradflow.unrolled import Loss, Timed
from throughtime.state import State

_ROUNDING = {torch.float64: 1e-9, torch.complex128: 1e-9, torch.float32: 1e-4}
_COARSE = 5e-2  # of the types with few digits
_REMEDY = "a module keeps hidden state inside; pass it in and return it as `state` instead"


def scalar(total: Tensor) -> None:
    """Raises SettingError unless the loss is a scalar with a gradient."""
    if total.dim() != 0 or not total.requires_grad:
        raise SettingError(
            "loss(batch, state) must return a scalar that depends on the parameters, "
            f"then the state; got shape {list(total.shape)}, requires_grad={total.requires_grad}"
        )


def backward(tensors: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """torch's backward. Raises SettingError where it meets a graph that was used up before."""
    try:
        torch.autograd.backward(tensors, gradients)
    except RuntimeError as error:
        if "backward through the graph a second time" not in str(error):
            raise
        raise SettingError(
            f"the loss depends on a graph that was differentiated before: {_REMEDY}"
        ) from error


def alike(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    """Whether tensors agree up to rounding; those that are not numbers with a point, exactly."""
    return len(one) == len(other) and all(
        torch.equal(a, b) or _close(a, b) for a, b in zip(one, other, strict=True)
    )


def _close(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype or not a.numel():
        return False
    if not (a.is_floating_point() or a.is_complex()):
        return False
    near = _rounding(b)
    spread = float(b.abs().nan_to_num(0.0, 0.0).max())
    return torch.allclose(a, b, rtol=near, atol=near * spread, equal_nan=True)


def _rounding(part: Tensor) -> float:
    return _ROUNDING.get(part.dtype, _COARSE)


class _Draws(TorchFunctionMode):
    """Notes where each generator stood that is handed to torch from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[torch.Generator, Tensor] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for value in (*args, *kwargs.values()):
            if isinstance(value, torch.Generator) and value not in self.first:
                self.first[value] = value.get_state()
        return func(*args, **kwargs)

    def put_back(self) -> bool:
        """Sets these generators to where they stood; whether any of them had moved."""
        moved = False
        for generator, state in self.first.items():
            moved |= not torch.equal(generator.get_state(), state)
            generator.set_state(state)
        return moved


@torch.no_grad()
def steps(
    loss: Loss, batch: Timed, state: State, places: tuple[int, int, int], sums: bool,
    given: Generators = (),
) -> bool:  # fmt: skip
    """Runs a few steps without gradients, and refuses what they show to be wrong.

    places: where the first part begins, ends, and a second one ends; state: before the first.
    sums: also whether the loss is a sum over time, as it must be if the batch is to be cut.
    Generators are left as they were. Returns whether there was a loss at all, without which
    little is shown. Raises SettingError.
    """
    begin, middle, end = places
    first = batch[begin:middle]
    draws = _Draws()
    with replay.uncached(), replay.forked(given) as before, draws:
        part, after = loss(first, state)
        drawn = not before.equals(replay.take(given)) or bool(draws.first)
        replay.put(before, given)
        draws.put_back()
        again, after_again = loss(first, state)
        draws.put_back()
        if not alike([part, *states.leaves(after)], [again, *states.leaves(after_again)]):
            raise SettingError(
                f"{_named(begin, middle)} loss {_shown(part)}, and {_shown(again)} when run again "
                f"from the same state (or another state after it): {_REMEDY} "
                "(and let random numbers come from torch's generators)"
            )
        if sums and not drawn and end > middle and part.dim() == 0:
            _check_sum(loss, batch, state, places, part, after)
        draws.put_back()
    return bool((part != 0).any())


def _named(begin: int, end: int) -> str:
    return f"step {begin} gives" if end == begin + 1 else f"steps {begin} to {end - 1} give"


def _check_sum(
    loss: Loss, batch: Timed, state: State, places: tuple[int, int, int], part: Tensor,
    after: State,
) -> None:  # fmt: skip
    begin, middle, end = places
    second, _ = loss(batch[middle:end], after)
    both, _ = loss(batch[begin:end], state)
    gap = float((both - part - second).abs())
    if gap > _rounding(both) * float(part.abs() + second.abs()):
        raise SettingError(
            f"the loss is not a sum over time: {_named(begin, end)} {_shown(both)}, their parts "
            f"{_shown(part)} and {_shown(second)}; use reduction='sum'"
        )


def _shown(part: Tensor) -> str:
    return f"{float(part):.6g}" if part.dim() == 0 else f"of shape {list(part.shape)}"


@torch.no_grad()
def non_finite(
    loss: Loss, batch: Timed, state: State, begin: int, end: int, given: Generators = ()
) -> NonFiniteError:
    """What to raise when the loss of some steps is not finite; names the first bad step.

    state: before step `begin`. The steps are gone through again, in pieces and then one by one.
    """
    where = f"steps {begin} to {end - 1}"
    with replay.uncached(), replay.forked(given):
        at = _first_bad(loss, batch, state, begin, end)
    exactly = "" if at is None else f", first in step {at}"
    return NonFiniteError(
        f"the loss is infinite or NaN in {where}{exactly}; "
        "look for extreme values in the data or lower the learning rate"
    )


def _first_bad(loss: Loss, batch: Timed, state: State, begin: int, end: int) -> int | None:
    """The first step with a loss that is not finite; None if it does not show again."""
    piece = isqrt(end - begin)
    for t0 in range(begin, end, piece):
        t1 = min(t0 + piece, end)
        part, after = loss(batch[t0:t1], state)
        if not bool(torch.isfinite(part)):
            return t0 if t1 - t0 == 1 else _first_bad(loss, batch, state, t0, t1)
        state = after
    return None
