"""How often Adaptive keeps the bias it was asked for, and the K it chooses while it trains.

Random networks (cell, size, layers, scale of the weights, forget bias), data (noise, an
autoregression, a delay to copy) and allowed biases. Each is trained by Adaptive itself, with an
estimate renewed after --every updates; at every fifth pass the gradient of the whole batch that it
then gives is set against the exact one. The claim: within the bias in at least 95 % of the checks.
"""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

import torch
from common import arguments, finish
from torch import Tensor

import throughtime as tt
from throughtime import bptt
from throughtime.bptt import Position

PASSES = 30
BIASES = (0.02, 0.05, 0.1, 0.3)


def problem(seed: int) -> tuple[Any, Tensor, Any, list[Tensor], dict[str, Any]]:
    """(loss, batch, state, parameters, what was drawn)."""
    draw = random.Random(seed)
    torch.manual_seed(seed)
    cell, hidden = draw.choice(["RNN", "GRU", "LSTM"]), draw.choice([3, 8, 16, 32])
    layers, rows, steps = (
        draw.choice([1, 1, 2]),
        draw.choice([1, 4, 16]),
        draw.choice([20, 60, 300]),
    )
    layer = getattr(tt, cell)(2, hidden, layers).double()
    scale = draw.choice([0.5, 1.0, 1.0, 2.0])
    with torch.no_grad():
        for name, p in layer.named_parameters():
            if name.startswith("weight_hh"):
                p.mul_(scale)
        if cell != "RNN" and draw.random() < 0.4:
            layer.bias_hh_l0[hidden : 2 * hidden] += draw.choice([1.0, 2.0, 4.0])
    head = torch.nn.Linear(hidden, 1).double()
    x = torch.randn(steps, rows, 2, dtype=torch.float64)
    kind = draw.choice(["noise", "autoregression", "delay"])
    if kind == "autoregression":
        for t in range(1, steps):
            x[t] += 0.9 * x[t - 1]
    lag = {"noise": None, "autoregression": -1, "delay": draw.choice([1, 5, 20])}[kind]
    target = torch.randn(steps, rows, 1, dtype=torch.float64)
    target = target if lag is None else x.roll(lag, 0)[..., :1]

    def loss(batch: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = layer(batch[..., :2], state)
        return (head(y) - batch[..., 2:]).square().sum(), state

    h = torch.zeros(layers, rows, hidden, dtype=torch.float64)
    state = (h, h.clone()) if cell == "LSTM" else h
    said = {"cell": cell, "data": kind, "bias": draw.choice(BIASES)}
    return loss, torch.cat([x, target], -1), state, [*layer.parameters(), *head.parameters()], said


def gradient(parameters: list[Tensor]) -> Tensor:
    """Takes the gradients that have come together."""
    flat = torch.cat([p.grad.flatten() for p in parameters])  # type: ignore[union-attr]
    for p in parameters:
        p.grad = None
    return flat


def checks(seed: int, every: int) -> tuple[dict[str, Any], list[tuple[int, int, float]]]:
    """What was drawn, and (pass, K, relative bias) through one training."""
    loss, batch, state, parameters, said = problem(seed)
    optimiser = torch.optim.Adam(parameters, 1e-2)
    method, estimate, checked = bptt.Adaptive(said["bias"], every=every), None, []
    for number in range(PASSES):
        at = Position.start(state, estimate)
        while at.target < len(batch):
            _, at = method.advance(loss, batch, at)
        assert at.estimate is not None
        estimate = at.estimate
        if number % 5 == 0:
            given = gradient(parameters)
            bptt.Full().backward(loss, batch, state)
            exact = gradient(parameters)
            checked.append((number, estimate.lag, float((given - exact).norm() / exact.norm())))
            for p, g in zip(parameters, given.split([p.numel() for p in parameters]), strict=True):
                p.grad = g.view_as(p)
        optimiser.step()
        optimiser.zero_grad()
    return said, checked


def main() -> None:
    args = arguments(
        __doc__ or "",
        reads=False,
        draws={"type": int, "default": 200},
        every={"type": int, "default": 10},
    )
    torch.set_num_threads(1)
    groups: dict[tuple[str, Any], list[tuple[float, int]]] = defaultdict(list)
    for seed in range(args.seed, args.seed + args.draws):
        said, checked = checks(seed, args.every)
        for number, lag, bias in checked:
            for key in (("all", ""), *said.items(), ("pass", number)):
                groups[key].append((bias / said["bias"], lag))
    rows = []
    for (name, value), seen in sorted(groups.items(), key=str):
        used = sorted(share for share, _ in seen)
        lags = sorted(lag for _, lag in seen)
        rows.append(
            {
                "of": f"{name} {value}".strip(),
                "checks": len(seen),
                "within %": 100 * sum(share <= 1 for share in used) / len(seen),
                "bias / allowed, median": used[len(used) // 2],
                "largest": used[-1],
                "K, median": lags[len(lags) // 2],
                "K, 90 %": lags[len(lags) * 9 // 10],
            }
        )
    finish(args, "Adaptive: the bias it keeps", rows)


if __name__ == "__main__":
    main()
