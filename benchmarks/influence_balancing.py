"""Influence balancing: where truncated backpropagation diverges and its unbiased form converges.

Tallec & Ollivier (2017), "Unbiasing Truncated Backpropagation Through Time", and their UORO (2018):
a linear system of 23 units, each half itself and half the next one, that one parameter pushes up
through the 10 units nearest to the output and down through the 13 further ones. In the short term
the parameter moves the output the wrong way, and cut gradients follow the short term.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch
from common import arguments, finish
from torch import Tensor

from throughtime import bptt

UNITS, POSITIVE, REPORTED = 23, 10, (1000, 2000, 5000, 10_000, 20_000)


def curve(method: bptt.GradientMethod, rate: float, seed: int) -> dict[int, float]:
    """The loss that the parameter would have for ever, after the REPORTED steps: a pass of SGD."""
    torch.manual_seed(seed)
    matrix = (torch.eye(UNITS) + torch.diag(torch.ones(UNITS - 1), 1)).double() / 2
    sign = torch.ones(UNITS, dtype=torch.float64)
    sign[POSITIVE:] = -1
    theta = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    state: Any = torch.ones(UNITS, dtype=torch.float64)

    def loss(batch: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        total = torch.zeros((), dtype=torch.float64)
        for _ in range(len(batch)):
            state = torch.mv(matrix, state) + theta * sign
            total = total + 0.5 * (state[0] - 1) ** 2
        return total, state

    def update(_: Tensor) -> None:
        with torch.no_grad():
            theta.sub_(rate * theta.grad)
        theta.grad = None

    loss_after, passed = {}, 0
    for steps in REPORTED:
        _, state = method.backward(loss, torch.zeros(steps - passed), state, update)
        passed = steps
        output = 2 * float(sign.sum()) * float(theta.detach())  # the first unit's fixed point
        loss_after[steps] = 0.5 * (output - 1) ** 2
    return loss_after


def main() -> None:
    args = arguments(
        __doc__ or "",
        reads=False,
        rate={"type": float, "default": 1e-5, "help": "of gradient descent"},
        seeds={"type": int, "default": 10, "help": "of the random cuts"},
    )
    seeds = range(args.seed, args.seed + args.seeds)
    fixed = {k: curve(bptt.Truncated(k), args.rate, 0) for k in (10, 100)}
    free = [curve(bptt.Randomized(16), args.rate, seed) for seed in seeds]
    rows = [
        {"steps": 0} | {f"Truncated({k})": 8.0 for k in fixed} | {"Randomized(16), median": 8.0}
    ]
    rows[0]["worst seed"] = 8.0  # 0.5 (2 * -3 * 0.5 - 1)^2, where all begin
    for steps in REPORTED:
        row: dict[str, Any] = {"steps": steps}
        row |= {f"Truncated({k})": f"{loss_after[steps]:.3g}" for k, loss_after in fixed.items()}
        losses = [loss_after[steps] for loss_after in free]
        row["Randomized(16), median"] = f"{statistics.median(losses):.3g}"
        row["worst seed"] = f"{max(losses):.3g}"
        rows.append(row)
    finish(args, f"Influence balancing, rate {args.rate:g}: loss after so many steps", rows)


if __name__ == "__main__":
    main()
