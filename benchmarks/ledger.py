"""What a lag ledger costs, in units of one backward pass of the same loss.

The promise is at most (K + 2) of them for the lags 0 to K. The gate: the lags sum to the gradient
of the same network in float64, to 1e-10, and in float32 to rounding. Each round takes the time of
one forward, one backward and one ledger, one after the other; printed are medians over the rounds.
"""

from __future__ import annotations

import statistics
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
        found = ledger(loss, batch, state, params, tensors=True)
        value, _ = loss(batch, state)
        for name, g in zip(params, torch.autograd.grad(value, list(params.values())), strict=True):
            off = float((found.gradient(name).sum(0) - g).norm() / g.norm())
            if off > tolerance:
                raise SystemExit(f"{kind} {dtype}: the lags of {name} miss the gradient by {off}")


def timed(function: Callable[[], Any]) -> tuple[float, Any]:
    begun = time.process_time()
    found = function()
    return time.process_time() - begun, found


def main() -> None:
    args = arguments(
        __doc__ or "",
        reads=False,
        rounds={"type": int, "default": 5},
        lags={"type": int, "nargs": "+", "default": list(LAGS)},
    )
    rows = []
    for kind, hidden, steps, batch_rows in SHAPES:
        gate(kind, hidden, steps, batch_rows)
        loss, batch, state, params = problem(kind, hidden, steps, batch_rows, torch.float32)
        wanted = list(params.values())
        for lag in args.lags:
            times: list[list[float]] = [[], [], []]
            for turn in range(args.rounds + 1):
                forward, (value, _) = timed(lambda: loss(batch, state))
                backward, _ = timed(lambda v=value: torch.autograd.grad(v, wanted))
                whole, _ = timed(lambda k=lag: ledger(loss, batch, state, params, k))
                for one, spent in zip(times, (forward, backward, whole), strict=True):
                    one += [spent] if turn else []
            forward, backward, whole = (1e3 * statistics.median(t) for t in times)
            rows.append(
                {
                    "layer": kind,
                    "H": hidden,
                    "T": steps,
                    "B": batch_rows,
                    "K": lag,
                    "forward ms": forward,
                    "backward ms": backward,
                    "ledger ms": whole,
                    "in backwards": whole / backward,
                    "in forward + backward": whole / (forward + backward),
                    "allowed": lag + 2,
                }
            )
            print(f"  {rows[-1]}", flush=True)
    finish(args, "The cost of a lag ledger in backward passes", rows)


if __name__ == "__main__":
    main()
