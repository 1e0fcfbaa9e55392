"""Online (exact RTRL for an element-wise cell): memory, exactness, and what it learns in time.

First: the bytes that autograd holds before an update and the difference from Full's gradient, as
the sequence grows. Then a value that is marked must be repeated 20 steps later, in one endless
stream with an update at every step: for the same wall-clock time, Online(1) learns against the
immediate derivative, Truncated(1, 1), and against a truncation that just reaches, Truncated(1, 21).
"""

from __future__ import annotations

import time
from typing import Any

import torch
from common import arguments, finish
from torch import Tensor, nn

import throughtime as tt
from throughtime import bptt

DELAY, ROWS, SLICE = 20, 16, 200  # steps; sequences side by side; steps between looks at the clock


class Net(nn.Module):
    """A MinGRU, a linear head, and squared errors where an answer is asked for."""

    def __init__(self, inputs: int, size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.layer, self.head = tt.MinGRU(inputs, size), nn.Linear(size, 1)
        with torch.no_grad():  # memories of 1 … 100 steps to begin with
            self.layer.bias_ih_l0[:size] = -torch.linspace(0.0, 4.6, size)
        self.to(dtype)

    def loss(self, batch: Tensor, state: Any) -> tuple[Tensor, Any]:
        """batch ``[T, B, inputs + 2]``: what is shown, the answer, and whether it is asked for."""
        y, state = self.layer(batch[..., :-2], state)
        error = self.head(y)[..., 0] - batch[..., -2]
        return (batch[..., -1] * error.square()).sum(), state


def recall(steps: int, source: torch.Generator, dtype: torch.dtype, rows: int = ROWS) -> Tensor:
    """Values, a mark on one in about 40 of them, a question 20 steps after each mark."""
    value = torch.randn(steps, rows, generator=source, dtype=dtype)
    mark = (torch.rand(steps, rows, generator=source) < 1 / (2 * DELAY)).to(dtype)
    since = torch.zeros(rows)
    for t in range(steps):  # no mark before the last one's question
        since += 1
        mark[t] *= since > DELAY
        since = torch.where(mark[t] > 0, 0.0, since)
    ask, answer = torch.zeros_like(mark), torch.zeros_like(mark)
    ask[DELAY:], answer[DELAY:] = mark[:-DELAY], (mark * value)[:-DELAY]
    return torch.stack([value, mark, ask, answer, ask], -1)


def memory(args: Any) -> list[dict[str, Any]]:
    """Bytes kept and the error of the gradient for each length."""
    rows = []
    for steps in args.lengths:
        torch.manual_seed(args.seed)
        net = Net(3, 16, torch.float64)
        source = torch.Generator().manual_seed(args.seed)
        batch = recall(steps, source, torch.float64, rows=1)
        measured: dict[str, Any] = {}
        for name, method, state in (
            ("Full", bptt.Full(), torch.zeros(1, 1, 16, dtype=torch.float64)),
            ("Online(10)", bptt.Online(10), net.layer.traced()),
        ):
            net.zero_grad()
            held, seconds = kept(net, method, batch, state)
            grad = torch.cat([p.grad.flatten() for p in net.parameters()])
            measured[name] = held, grad.clone(), seconds
        exact = measured["Full"][1]
        error = (measured["Online(10)"][1] - exact).norm() / exact.norm()
        row: dict[str, Any] = {"steps": steps}
        for name, (held, _, seconds) in measured.items():
            row |= {f"{name}, kB": held / 1000, f"{name}, s": seconds}
        rows.append(row | {"relative difference": f"{float(error):.1e}"})
    return rows


def kept(net: Net, method: Any, batch: Tensor, state: Any) -> tuple[int, float]:
    """The most bytes that autograd holds before an update, and the time of the pass."""
    now, most = {}, [0]

    def pack(tensor: Tensor) -> Tensor:
        now[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    def update(_: Tensor) -> None:
        most[0] = max(most[0], sum(now.values()))
        now.clear()

    begun = time.perf_counter()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        method.backward(net.loss, batch, state, update)
    return most[0], time.perf_counter() - begun


class Learner:
    """A network that goes along the stream, and the time it has used."""

    def __init__(self, name: str, method: Any, traced: bool, args: Any) -> None:
        torch.manual_seed(args.seed)
        self.name, self.method = name, method
        self.net = Net(3, args.hidden, torch.float32)
        self.optimiser = torch.optim.Adam(self.net.parameters(), args.rate, fused=True)
        start = torch.zeros(1, ROWS, args.hidden)
        self.state: Any = self.net.layer.traced(start) if traced else start
        self.source = torch.Generator().manual_seed(args.seed + 1)
        self.seconds, self.updates = 0.0, 0

    def go_on(self) -> None:
        """One slice of the stream; drawing it is not counted."""
        batch = recall(SLICE + DELAY, self.source, torch.float32)[DELAY:]
        begun = time.perf_counter()
        _, self.state = self.method.backward(self.net.loss, batch, self.state, self._update)
        self.seconds += time.perf_counter() - begun

    def _update(self, _: Tensor) -> None:
        self.optimiser.step()
        self.optimiser.zero_grad()
        self.updates += 1

    @torch.no_grad()
    def tested(self) -> float:
        """Mean squared error per question on a stream it has not seen."""
        batch = recall(5000, torch.Generator().manual_seed(99), torch.float32)
        return float(self.net.loss(batch, None)[0] / batch[..., -1].sum())


def learning(args: Any) -> list[dict[str, Any]]:
    """The three methods in turns, each until its time is used up; looked at on the way."""
    learners = [
        Learner("Online(1)", bptt.Online(1), True, args),
        Learner("Truncated(1, 1)", bptt.Truncated(1, 1), False, args),
        Learner(f"Truncated(1, {DELAY + 1})", bptt.Truncated(1, DELAY + 1), False, args),
    ]
    shares = (0.25, 0.5, 1.0)
    rows: dict[str, dict[str, Any]] = {one.name: {"method": one.name} for one in learners}
    for share in shares:
        while going := [one for one in learners if one.seconds < share * args.seconds]:
            for one in going:
                one.go_on()
        for one in learners:
            rows[one.name][f"error after {share * args.seconds:g} s"] = one.tested()
    for one in learners:
        rows[one.name]["updates"] = one.updates
    return list(rows.values())


def main() -> None:
    args = arguments(
        __doc__ or "",
        reads=False,
        lengths={"type": int, "nargs": "*", "default": [1000, 10_000, 100_000]},
        seconds={"type": float, "default": 40.0, "help": "for each method"},
        hidden={"type": int, "default": 32},
        rate={"type": float, "default": 3e-3},
    )
    finish(args, "What is kept before an update, and the gradient (float64)", memory(args))
    finish(args, f"A value to be repeated after {DELAY} steps: mean squared error", learning(args))


if __name__ == "__main__":
    main()
