"""The specification: one pure step per cell under one shared loop.

Slow and plain on purpose. Every other backend is tested against this file.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from throughtime import state as states
from throughtime.kernels import stack
from throughtime.state import State

Step = Callable[[Tensor, State, Sequence[Tensor]], tuple[Tensor, State]]


def _rnn(activation: Callable[[Tensor], Tensor]) -> Step:
    """``S_t = σ(X_t W_x + O_{t-1})``, ``O_t = S_t W_rec`` (Elman 1990)."""

    def step(x: Tensor, state: State, w: Sequence[Tensor]) -> tuple[Tensor, State]:
        s = activation(F.linear(x, w[0], *w[2:3]) + F.linear(state, w[1], *w[3:4]))
        return s, s

    return step


def gru_step(x: Tensor, state: State, w: Sequence[Tensor]) -> tuple[Tensor, State]:
    """GRU as in torch.nn (Cho et al. 2014, reset gate after the product), gates r, z, n."""
    xr, xz, xn = F.linear(x, w[0], *w[2:3]).chunk(3, -1)
    hr, hz, hn = F.linear(state, w[1], *w[3:4]).chunk(3, -1)
    r, z = torch.sigmoid(xr + hr), torch.sigmoid(xz + hz)
    n = torch.tanh(xn + r * hn)
    h = n + z * (state - n)
    return h, h


def lstm_step(x: Tensor, state: State, w: Sequence[Tensor]) -> tuple[Tensor, State]:
    """LSTM as in torch.nn (Hochreiter & Schmidhuber 1997; Gers et al. 2000), gates i, f, g, o."""
    h, c = state
    gates = F.linear(x, w[0], *w[2:3]) + F.linear(h, w[1], *w[3:4])
    i, f, g, o = gates.chunk(4, -1)
    c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
    h = torch.sigmoid(o) * torch.tanh(c)
    return h, (h, c)


STEPS: dict[str, Step] = {
    "rnn_tanh": _rnn(torch.tanh),
    "rnn_relu": _rnn(torch.relu),
    "rnn_identity": _rnn(lambda pre: pre),
    "gru": gru_step,
    "lstm": lstm_step,
}


def _scan(
    kind: str,
    x: Tensor,
    state: State,
    weights: Sequence[Tensor],
    reset: Tensor | None,
    initial: State,
    lengths: Tensor | None,
    reverse: bool,
) -> tuple[Tensor, State]:
    """One layer in one direction. In reverse a restart takes effect after step t, not before it."""
    outputs: list[Tensor] = []
    for t in reversed(range(len(x))) if reverse else range(len(x)):
        if reset is not None and not reverse:
            state = states.reset(state, reset[t], initial, dim=0)
        y, after = STEPS[kind](x[t], state, weights)
        if lengths is not None:  # a row that has ended keeps its state
            going = (t < lengths).unsqueeze(-1)
            y = torch.where(going, y, torch.zeros_like(y))
            after = states.apply(lambda new, old: torch.where(going, new, old), after, state)  # noqa: B023
        outputs.append(y)
        state = after
        if reset is not None and reverse and t > 0:
            state = states.reset(state, reset[t], initial, dim=0)
    if not outputs:
        return x.new_zeros(0, x.shape[1], next(states.leaves(state)).shape[-1]), state
    return torch.stack(outputs[::-1] if reverse else outputs), state


run = functools.partial(stack.run, _scan)
