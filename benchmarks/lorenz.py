"""The Lyapunov exponent of the Lorenz system, out of a network that was trained on its values.

The system (σ = 10, ρ = 28, β = 8/3) has the exponents 0.9056, 0 and -14.572 per unit of time
(Sprott 2003, "Chaos and time-series analysis"). First the tool alone, on the equations themselves
as a cell; then GRUs trained to predict the next value, which then run on what they predict: their
state is (hidden state, last value), in a loss of the user's own.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from common import arguments, finish
from torch import Tensor, nn

import throughtime as tt
from throughtime.gradflow.lyapunov import Lyapunov, lyapunov

KNOWN = 0.9056
DT = 0.05
SEGMENT, RATE = 24, 1e-2  # of training
ROWS, STEPS = 64, 2000  # of the closed loop that is measured


def rate(s: Tensor) -> Tensor:
    x, y, z = s.unbind(-1)
    return torch.stack([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z], -1)


def advance(s: Tensor, dt: float) -> Tensor:
    """One step of the classical Runge-Kutta method."""
    a = rate(s)
    b = rate(s + dt / 2 * a)
    c = rate(s + dt / 2 * b)
    return s + dt / 6 * (a + 2 * b + 2 * c + rate(s + dt * c))


def follow(s: Tensor) -> Tensor:
    """The value DT later, in ten steps."""
    for _ in range(10):
        s = advance(s, DT / 10)
    return s


def paths(count: int, steps: int, seed: int) -> Tensor:
    """Paths on the attractor, float64 ``[steps, count, 3]``, DT apart."""
    source = torch.Generator().manual_seed(seed)
    s = torch.randn(count, 3, generator=source, dtype=torch.float64) * 5
    s = s + torch.tensor([0.0, 0.0, 25.0], dtype=torch.float64)
    visited = []
    for i in range(steps + 200):
        s = follow(s)
        if i >= 200:
            visited.append(s)
    return torch.stack(visited)


class Network(nn.Module):
    """A GRU that predicts the change to the next (standardised) value."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.gru, self.out = tt.GRU(3, hidden), nn.Linear(hidden, 3)

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        y, state = self.gru(x, state)
        return x + self.out(y), state

    def running(self, batch: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Any]:
        """The closed loop as a loss; the batch is there for its length."""
        h, value = state
        for _ in batch:
            value, h = self(value, h)
        return value.sum(), (h, value)


def pairs(path: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Inputs and what follows them one step later, both standardised, float32.

    The inputs lie about the attractor, 0.1 % to 30 % of its size away (each row at its distance):
    so the network also learns how the system comes back to it.
    """
    mean, std = path.mean((0, 1)), path.std((0, 1))
    source = torch.Generator().manual_seed(seed)
    away = 10 ** (2.5 * torch.rand(path.shape[1], 1, generator=source, dtype=torch.float64) - 3)
    noise = torch.randn(path.shape, generator=source, dtype=torch.float64)
    before = path + away * std * noise
    return ((before - mean) / std).float(), ((follow(before) - mean) / std).float()


def train(path: Tensor, hidden: int, updates: int, seed: int) -> Network:
    """Adam on segments of 24 steps, one-step prediction."""
    torch.manual_seed(seed)
    network = Network(hidden)
    optimiser = torch.optim.Adam(network.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, updates, final_div_factor=1e3)
    given, wanted = pairs(path, seed)
    scale = (path[1:] - path[:-1]).std((0, 1)).float() / path.std((0, 1)).float()
    source = torch.Generator().manual_seed(seed)
    for _ in range(updates):
        begin = int(torch.randint(len(path) - SEGMENT, (), generator=source))
        rows = torch.randint(path.shape[1], (128,), generator=source)
        segment = slice(begin, begin + SEGMENT)
        predicted, _ = network(given[segment, rows], None)
        optimiser.zero_grad()
        ((predicted - wanted[segment, rows]) / scale).square().mean().backward()
        optimiser.step()
        schedule.step()
    network.eval()
    return network


def of_equations() -> Lyapunov:
    """The tool on the Runge-Kutta map itself."""

    def loss(batch: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        for _ in batch:
            state = advance(state, DT / 2)
        return state.sum(), state

    start = paths(ROWS, 1, 99)
    return lyapunov(loss, torch.zeros(2 * STEPS, ROWS, 0), start, dt=DT / 2)


def of_network(network: Network, data: Tensor) -> Lyapunov:
    """The closed loop of a network, in float64, from the state that data brought it to."""
    network.double()
    with torch.no_grad():
        value, h = network(data[:50], None)
    batch = torch.zeros(STEPS, data.shape[1], 0)
    return lyapunov(network.running, batch, (h, value[-1:]), num=3, dt=DT)


def row(name: str, result: Lyapunov, seconds: float, error: float | None = None) -> dict[str, Any]:
    return {
        "system": name,
        "exponents": ", ".join(f"{e:.4f}" for e in result.exponents.tolist()),
        "standard error": float(result.error[0]),
        "off by": f"{100 * (result.largest / KNOWN - 1):+.2f} %",
        "one-step error": error,
        "seconds": seconds,
    }


def main() -> None:
    args = arguments(
        __doc__ or "",
        reads=False,
        seeds={"type": int, "default": 5},
        hidden={"type": int, "default": 64},
        updates={"type": int, "default": 5000},
    )
    begun = time.monotonic()
    rows = [row("the equations", of_equations(), time.monotonic() - begun)]
    raw = paths(256, 400, 0)
    mean, std = raw.mean((0, 1)), raw.std((0, 1))
    test = (paths(ROWS, 400, 1) - mean) / std
    for seed in range(args.seed, args.seed + args.seeds):
        begun = time.monotonic()
        network = train(raw, args.hidden, args.updates, seed)
        with torch.no_grad():
            predicted, _ = network(test.float()[:-1], None)
        error = float((predicted - test[1:])[20:].square().mean().sqrt())
        result = of_network(network, test)
        rows.append(row(f"GRU, seed {seed}", result, time.monotonic() - begun, error))
        print(rows[-1], flush=True)
    finish(args, f"Lyapunov exponents of the Lorenz system (known: {KNOWN}, 0, -14.572)", rows)


if __name__ == "__main__":
    main()
