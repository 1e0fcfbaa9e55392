"""The contract of a loss: what it must be, and the one line for each way of not being it.

``loss(batch, state) -> (summed loss, state)``: of the steps of a batch (see `batches`) from the
state before them, the sum of their losses, a scalar, and the state after them. All that the past
says is in the state; the sum over two segments is that of the two sums; run again with the same
random numbers, it gives the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isfinite, isqrt
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from throughtime import state as states
from throughtime.errors import NonFiniteError, SettingError
from throughtime.gradflow import _rng_state as rng_state
from throughtime.gradflow._rng_state import Generators
from throughtime.gradflow.batches import Segment, Timed, tensors
from throughtime.state import State

Loss: TypeAlias = Callable[[Any, State], tuple[Tensor, State]]

_ROUNDING = {
    torch.float64: 1e-9, torch.complex128: 1e-9, torch.float32: 1e-4, torch.complex64: 1e-4
}  # fmt: skip
_COARSE = 5e-2  # of the types with few digits
CHECKED = 8  # steps that a diagnosis looks at before it begins
_REMEDY = "a module keeps hidden state inside; pass it in and return it as `state` instead"
_SCALAR = "loss(batch, state) must return a scalar, then the state"


def rounding(dtype: torch.dtype, recut: bool = False) -> float:
    """By how much, relative to the sizes that were added up, two computations may differ.

    recut: they cut the work differently, which under autocast is done with few digits.
    """
    coarse = recut and torch.is_autocast_enabled("cpu")
    return _COARSE if coarse else _ROUNDING.get(dtype, _COARSE)


def agree(value: float, other: float, scale: float, dtype: torch.dtype) -> bool:
    """Whether two sums of losses are the same but for rounding. scale: the sum of their sizes."""
    return abs(value - other) <= rounding(dtype, recut=True) * scale


def alike(one: Sequence[Tensor], other: Sequence[Tensor], recut: bool = False) -> bool:
    """Whether tensors agree up to rounding; those that are not numbers with a point, exactly."""
    return len(one) == len(other) and all(
        torch.equal(a, b) or _close(a, b, recut) for a, b in zip(one, other, strict=True)
    )


def _close(a: Tensor, b: Tensor, recut: bool) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype or not a.numel():
        return False
    if not (a.is_floating_point() or a.is_complex()):
        return False
    near = rounding(b.dtype, recut)
    spread = float(b.abs().nan_to_num(0.0, 0.0).max())
    return torch.allclose(a, b, rtol=near, atol=near * spread, equal_nan=True)


def scalar(value: Tensor, differentiable: bool = False) -> None:
    """Raises SettingError unless the loss is a scalar, and where asked one with a gradient."""
    if value.dim():
        raise SettingError(f"{_SCALAR}; got shape {list(value.shape)}")
    if differentiable and not value.requires_grad:
        raise SettingError(f"{_SCALAR}; this one depends on no parameter that needs a gradient")


def backward(outputs: Sequence[Tensor], gradients: Sequence[Tensor | None]) -> None:
    """torch's backward. Raises SettingError where it meets a graph that was used up before."""
    try:
        torch.autograd.backward(outputs, gradients)
    except RuntimeError as error:
        if "backward through the graph a second time" not in str(error):
            raise
        raise SettingError(
            f"the loss depends on a graph that was differentiated before: {_REMEDY}"
        ) from error


class Places(NamedTuple):
    """Two neighbouring segments that are looked at: begin … middle - 1 and middle … end - 1."""

    begin: int
    middle: int
    end: int

    @classmethod
    def first(cls, batch: Timed, steps: int) -> Places:
        """The first so many steps of a batch, half of it at most, and as many after them."""
        half = min(steps, max(1, len(batch) // 2))
        return cls(0, min(half, len(batch)), min(2 * half, len(batch)))


@torch.no_grad()
def check(
    loss: Loss, batch: Timed, state: State, places: Places, sums: bool = True,
    generators: Generators = (),
) -> bool:  # fmt: skip
    """Runs a few steps without gradients, and refuses what they show to be wrong.

    state: before the first place. sums: also whether the loss is a sum over time, as it must be
    where the batch is cut; a loss that draws random numbers is let through. generators: that it
    draws from, beside torch's own; all are left as they were. Returns whether there was a loss at
    all, without which little can be seen. Raises SettingError.
    """
    if len(batch) == 0:
        raise SettingError("the batch has no time steps; nothing to differentiate")
    begin, middle, end = places
    watched = rng_state.Watched()
    with rng_state.uncached_autocast(), rng_state.forked(generators) as before, watched:
        value, after = _run(loss, batch, begin, middle, state)
        scalar(value)
        drawn = not before.equals(rng_state.capture(generators)) or bool(watched.first)
        rng_state.restore(before, generators)
        watched.restore()
        again, after_again = loss(batch[begin:middle], state)
        watched.restore()
        if not alike([value, *states.leaves(after)], [again, *states.leaves(after_again)]):
            raise SettingError(
                f"{_steps(begin, middle)} loss {value:.6g}, and {again:.6g} when run again "
                f"from the same state (or another state after it): {_REMEDY} "
                "(and let random numbers come from torch's generators)"
            )
        if sums and end > middle and (state is None or not drawn):
            second, last = loss(batch[middle:end], after)
            both, whole = loss(batch[begin:end], state)
            _check_time_first(batch[begin:middle], places, (after, last, whole))
            if not drawn:
                size = float(value.abs() + second.abs())
                check_sum(both, float(value + second), size, begin, end)
        watched.restore()
    return bool(value != 0)


def _run(
    loss: Loss, batch: Timed, begin: int, end: int, state: State
) -> tuple[Tensor, State]:  # fmt: skip
    """The loss of some steps, where it is not known yet that batch and loss are what they must be.

    A loss that fails is explained where the batch certainly has its rows before time.
    """
    try:
        part = batch[begin:end]
    except (TypeError, KeyError, IndexError, ValueError) as error:
        raise SettingError(
            f"batch[{begin}:{end}] of a {type(batch).__name__} is not steps of it "
            f"({type(error).__name__}: {error}); a batch has len(batch) == T and batch[t0:t1]"
        ) from error
    try:
        result = loss(part, state)
    except Exception as error:
        rows = {leaf.shape[1] if leaf.dim() == 3 else None for leaf in states.leaves(state)}
        widths = {piece.shape[1] for piece in tensors(part) if piece.dim() > 1}
        if rows == {len(batch)} and widths and not rows & widths:
            raise SettingError(
                f"the batch has its rows before time: {len(batch)} along dim 0, as many as the "
                f"state has rows, and {_either(widths)} along dim 1; {_TIME_FIRST}"
            ) from error
        raise
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], Tensor)):
        raise SettingError(f"{_SCALAR}; got a {type(result).__name__}")
    return result


_TIME_FIRST = (
    "give it time first, [T, B, ...] (batch.transpose(0, 1), and batch_first=False in the layer)"
)


def _check_time_first(part: Any, places: Places, after: tuple[State, State, State]) -> None:
    """Refuses a batch with its rows before time, which shows where the loss makes the first state.

    Its state has as many rows as it was given steps, whatever came before. Not so where the state
    has a dim of the batch's second one, as that of a batch with time first has.
    """
    begin, middle, end = places
    sizes = (middle - begin, end - middle, end - begin)
    widths = {piece.shape[1] for piece in tensors(part) if piece.dim() > 1}
    shapes = [tuple(leaf.shape for leaf in states.leaves(state)) for state in after]
    if len({len(leaves) for leaves in shapes}) > 1 or not shapes[0] or not widths:
        return
    for one, two, both in zip(*shapes, strict=True):
        if not len(one) == len(two) == len(both) == 3 or widths & {*one, *both}:
            return
        if (one[1], two[1], both[1]) != sizes:
            return
    raise SettingError(
        f"the batch has its rows before time: the state after {sizes[2]} steps at once has "
        f"{sizes[2]} rows, and {sizes[0]} after {sizes[0]}; {_TIME_FIRST}"
    )


def check_sum(whole: Tensor, total: float, scale: float, begin: int, end: int) -> None:
    """Refuses a loss whose value over several steps is not the sum of those of its parts."""
    known = isfinite(float(whole)) and isfinite(total)
    if known and not agree(float(whole), total, scale, whole.dtype):
        raise SettingError(
            f"the loss is not a sum over time: {_steps(begin, end)} {whole:.6g} at once and "
            f"{total:.6g} part by part; return the sum over time, not a mean (reduction='sum')"
        )


@torch.no_grad()
def check_segment_sum(
    loss: Loss, segment: Segment, state: State, total: float, scale: float
) -> None:
    """Refuses a loss whose value over a segment is not the sum of its steps' losses.

    total: that sum. scale: that of their sizes. A loss that draws random numbers cannot be checked,
    and is let through.
    """
    before = rng_state.capture()
    whole, _ = loss(segment[0 : len(segment)], state)
    if before.equals(rng_state.capture()):
        check_sum(whole, total, scale, segment.begin, segment.end)


def _steps(begin: int, end: int) -> str:
    return f"step {begin} gives" if end == begin + 1 else f"steps {begin} to {end - 1} give"


def _either(sizes: set[int]) -> str:
    return " or ".join(map(str, sorted(sizes)))


@torch.no_grad()
def check_finite(
    loss: Loss, batch: Timed, state: State, begin: int, end: int,
    generators: Generators = (), states_too: bool = True,
) -> None:  # fmt: skip
    """Raises NonFiniteError naming the first step whose loss (or state) is infinite or NaN, if any.

    state: before step `begin`. The steps are gone through in pieces, and one by one in a bad one.
    """
    with rng_state.uncached_autocast(), rng_state.forked(generators):
        bad = _first_bad(loss, batch, state, begin, end, states_too)
    if bad is not None:
        raise non_finite(begin, end, *bad)


def non_finite(begin: int, end: int, step: int | None = None, what: str = "loss") -> NonFiniteError:
    """What to raise when steps are not finite; step: the first of them where it is known."""
    first = "" if step is None else f", first in step {step}"
    return NonFiniteError(
        f"the {what} is infinite or NaN in steps {begin} to {end - 1}{first}; "
        "look for extreme values in the data or lower the learning rate"
    )


def _first_bad(
    loss: Loss, batch: Timed, state: State, begin: int, end: int, states_too: bool
) -> tuple[int, str] | None:
    """The first step that is not finite, and what of it; None if it does not show again."""
    piece = isqrt(end - begin)
    for t0 in range(begin, end, piece):
        t1 = min(t0 + piece, end)
        value, after = loss(batch[t0:t1], state)
        broken = not bool(torch.isfinite(value).all())
        if broken or (states_too and not finite(after)):
            if t1 - t0 == 1:
                return t0, "loss" if broken else "state"
            return _first_bad(loss, batch, state, t0, t1, states_too)
        state = after
    return None


def finite(state: State) -> bool:
    """Whether no number of a state is infinite or NaN."""
    return all(
        bool(torch.isfinite(leaf).all())
        for leaf in states.leaves(state)
        if leaf.is_floating_point()
    )
