"""What a lag ledger costs, in passes of the same loss.

The promise is at most K + 2 of them for the lags 0 to K; a pass is what `bptt.Full` does, forward
and backward, and the backward alone is printed beside. The gate: the lags sum to the gradient of
the same network in float64, to 1e-10, and in float32 to rounding. Each round takes the processor
time of one forward, one backward and one ledger, on one thread; printed are medians over the
rounds.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from common import arguments, finish
from torch import Tensor

import throughtime as tt
from throughtime.gradflow import ledger

SHAPES = [
    ("GRU", 64, 1000, 1),
    ("GRU", 64, 1000, 32),
    ("LSTM", 128, 1000, 1),
    ("LSTM", 128, 500, 32),
    ("RNN", 64, 1000, 8),
    ("GRU of 2 layers", 64, 1000, 8),
]
LAGS = (16, 64, 200)


def problem(kind: str, hidden: int, steps: int, rows: int, dtype: torch.dtype) -> Any:
    """(loss, batch, state, params): a layer, a head, a quadratic loss of noise."""
    torch.manual_seed(0)
    name, *more = kind.split(" of ")
    layers = int(more[0].split()[0]) if more else 1
    layer = getattr(tt, name)(16, hidden, layers).to(dtype)
    head = torch.nn.Linear(hidden, 16).to(dtype)

    def loss(batch: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = layer(batch, state)
        return (head(y) - batch).square().sum(), state

    h = torch.zeros(layers, rows, hidden, dtype=dtype)
    params = dict(layer.named_parameters()) | {f"head.{n}": p for n, p in head.named_parameters()}
    batch = torch.randn(steps, rows, 16, dtype=dtype)
    return loss, batch, (h, h.clone()) if name == "LSTM" else h, params


def gate(kind: str, hidden: int, steps: int, rows: int) -> None:
    """Exits where the lags do not sum to the gradient."""
    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 1e-4)):
        few = min(steps, 60)
        loss, batch, state, params = problem(kind, hidden, few, rows, dtype)
        result = ledger(loss, batch, state, params, tensors=True)
        value, _ = loss(batch, state)
        for name, g in zip(params, torch.autograd.grad(value, list(params.values())), strict=True):
            off = float((result.gradient(name).sum(0) - g).norm() / g.norm())
            if off > tolerance:
                raise SystemExit(f"{kind} {dtype}: the lags of {name} miss the gradient by {off}")


def cost(function: Callable[[], Any]) -> float:
    """Seconds of processor time."""
    begun = time.process_time()
    function()
    return time.process_time() - begun


def row(shape: tuple[str, int, int, int], lag: int, rounds: int) -> dict[str, Any]:
    """Medians over the rounds for one shape and one max_lag."""
    loss, batch, state, params = problem(*shape, torch.float32)
    wanted = list(params.values())
    times: list[list[float]] = [[], [], []]
    for turn in range(rounds + 1):
        losses: list[Tensor] = []
        spent = (
            cost(lambda into=losses: into.append(loss(batch, state)[0])),  # type: ignore[misc]
            cost(lambda into=losses: torch.autograd.grad(into[0], wanted)),  # type: ignore[misc]
            cost(lambda: ledger(loss, batch, state, params, lag)),
        )
        for one, seconds in zip(times, spent, strict=True):
            one += [seconds] if turn else []
    forward, backward, whole = (1e3 * statistics.median(t) for t in times)
    return {
        "layer": shape[0],
        "H": shape[1],
        "T": shape[2],
        "B": shape[3],
        "K": lag,
        "forward ms": forward,
        "backward ms": backward,
        "ledger ms": whole,
        "in backwards alone": whole / backward,
        "in forward + backward": whole / (forward + backward),
        "K + 2": lag + 2,
    }


def main() -> None:
    args = arguments(
        __doc__ or "",
        reads=False,
        rounds={"type": int, "default": 5},
        lags={"type": int, "nargs": "+", "default": list(LAGS)},
    )
    torch.set_num_threads(1)
    rows = []
    for shape in SHAPES:
        gate(*shape)
        for lag in args.lags:
            rows.append(row(shape, lag, args.rounds))
            print(f"  {rows[-1]}", file=sys.stderr, flush=True)
    finish(args, "The cost of a lag ledger, in passes of the same loss", rows)


if __name__ == "__main__":
    main()
