"""Long batches in blocks of time: each with the state before it, worked off from the last."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from throughtime import state as states
from throughtime.errors import NonFiniteError, SettingError
from throughtime.gradflow.unrolled import Loss, Timed, Window, agree, floating
from throughtime.state import State

BYTES = 2 << 20  # of states in a block: so many are worked on without leaving the cache
_CHECKED = 8


def blocks(loss: Loss, batch: Timed, state: State) -> Iterator[tuple[Window, State]]:
    """The blocks of a batch, the last one first, each with the (detached) state before it.

    Blocks have as many steps as `BYTES` of states. Where there is no state before the first step,
    that step is a block of its own. Raises NonFiniteError naming the first step whose loss or
    state is not finite.
    """
    length = len(batch)
    found: list[tuple[Window, State]] = []
    at, state = 0, states.detach(state)
    size = 1 if state is None else _steps(state)
    with torch.no_grad():
        while at < length:
            window = Window(batch, at, min(at + size, length))
            found.append((window, state))
            if window.end == length:
                break
            value, after = loss(window[0 : len(window)], state)
            if not (math.isfinite(float(value)) and _finite(after)):
                raise_at(loss, window, state)
            at, state = window.end, states.detach(after)
            size = _steps(state)
    yield from reversed(found)


def _steps(state: State) -> int:
    size = sum(leaf.numel() * leaf.element_size() for leaf in floating(state))
    return max(1, BYTES // max(1, size))


def _finite(state: State) -> bool:
    return all(bool(torch.isfinite(leaf).all()) for leaf in floating(state))


@torch.no_grad()
def raise_at(loss: Loss, window: Window, state: State) -> None:
    """Raises NonFiniteError naming the first step of a window that is not finite, if any is."""
    for t in range(len(window)):
        value, state = loss(window[t : t + 1], state)
        what = "loss" if not math.isfinite(float(value)) else "state"
        if what == "loss" or not _finite(state):
            raise NonFiniteError(
                f"the {what} of step {window.begin + t} is not finite; look at the data there, "
                "or lower the learning rate that led to these weights"
            )


@torch.no_grad()
def check_finite(loss: Loss, batch: Timed, state: State) -> None:
    """Raises NonFiniteError naming the first step whose loss or state is not finite, if any is."""
    size = max(1, math.isqrt(len(batch)))
    for begin in range(0, len(batch), size):
        window = Window(batch, begin, min(begin + size, len(batch)))
        value, after = loss(window[0 : len(window)], state)
        if not (bool(torch.isfinite(value).all()) and _finite(after)):
            raise_at(loss, window, state)
        state = states.detach(after)


@torch.no_grad()
def check(loss: Loss, batch: Timed, state: State) -> None:
    """Refuses an empty batch, a loss of another shape, and a module that keeps state inside."""
    if len(batch) == 0:
        raise SettingError("the batch has no time steps; nothing to differentiate")
    part, start = batch[0 : min(_CHECKED, len(batch))], states.detach(state)
    kept, values = torch.get_rng_state(), []
    for _ in range(2):
        torch.set_rng_state(kept)
        value, _ = loss(part, start)
        if value.dim() != 0:
            raise SettingError(
                "loss(batch, state) must return a scalar, then the state; "
                f"got shape {list(value.shape)}"
            )
        values.append(float(value))
    torch.set_rng_state(kept)
    if all(map(math.isfinite, values)) and not agree(
        values[0], values[1], abs(values[0]), value.dtype
    ):
        raise SettingError(
            f"the loss was {values[0]:.6g}, then {values[1]:.6g} for the same steps, state and "
            "random numbers: a module keeps hidden state inside (take the state as an argument "
            "and return the new one), or random numbers come from a generator of its own"
        )


@torch.no_grad()
def check_sum(loss: Loss, window: Window, state: State, total: float, scale: float) -> None:
    """Refuses a loss whose value over several steps is not the sum of theirs.

    A loss that draws random numbers cannot be checked, and is let through.
    """
    kept = torch.get_rng_state()
    whole, _ = loss(window[0 : len(window)], state)
    drew = not torch.equal(kept, torch.get_rng_state())
    known = math.isfinite(float(whole)) and math.isfinite(total)
    if known and not drew and not agree(float(whole), total, scale, whole.dtype):
        raise SettingError(
            f"the loss of steps {window.begin} to {window.end - 1} is {float(whole):.6g}, but the "
            f"losses of each of them sum to {total:.6g}: return the sum over time, not a mean"
        )
