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
from throughtime.state import State
from throughtime.unrolled import Loss, Timed

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
def first_steps(loss: Loss, batch: Timed, state: State, sums: bool, given: Generators = ()) -> None:
    """Runs the first step or two without gradients, and refuses what they show to be wrong.

    sums: also whether the loss is a sum over time, as it must be if the batch is to be cut.
    Generators are left as they were. Raises SettingError.
    """
    draws = _Draws()
    with replay.uncached(), replay.forked(given) as before, draws:
        part, after = loss(batch[0:1], state)
        drawn = not before.equals(replay.take(given)) or bool(draws.first)
        replay.put(before, given)
        draws.put_back()
        again, after_again = loss(batch[0:1], state)
        draws.put_back()
        if not alike([part, *states.leaves(after)], [again, *states.leaves(after_again)]):
            raise SettingError(
                f"the first step gives loss {_shown(part)}, and {_shown(again)} when it is run "
                f"again from the same state (or another state after it): {_REMEDY} "
                "(and let random numbers come from torch's generators)"
            )
        if sums and not drawn and len(batch) > 1 and part.dim() == 0:
            _check_sum(loss, batch, state, part, after)
        draws.put_back()


def _check_sum(loss: Loss, batch: Timed, state: State, part: Tensor, after: State) -> None:
    second, _ = loss(batch[1:2], after)
    both, _ = loss(batch[0:2], state)
    gap = float((both - part - second).abs())
    if gap > _rounding(both) * float(part.abs() + second.abs()):
        raise SettingError(
            f"the loss is not a sum over time: two steps give {_shown(both)}, one and one "
            f"{_shown(part + second)}; use reduction='sum'"
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
