"""The exact gradient in little memory: what `Checkpointed` keeps, and what its repetitions cost.

Kept is what autograd saves (each storage once, parameters and data left out) and the states between
blocks, both counted while they live. The budget is a twentieth of what `Full` keeps. Times are of
one thread, interleaved; of the whole process (CPU) beside the clock, which others disturb. The
gate: in float64 both methods give the same gradient to 1e-12.

At the end, in a process of its own, the gradient of a million steps: the peak of resident memory
above what there was with the data read and everything loaded.
"""

from __future__ import annotations

import gc
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from common import arguments, finish
from torch import Tensor, nn

import throughtime as tt
from throughtime import bptt
from throughtime import state as states

CASES = (  # layer, units, rows, steps
    ("GRU", 64, 1, 1000),
    ("GRU", 64, 32, 1000),
    ("LSTM", 128, 8, 1000),
    ("GRU", 256, 32, 1000),
    ("RNN", 64, 64, 1000),
    ("GRU", 64, 1, 10_000),
    ("GRU", 64, 1, 100_000),
)
INPUTS, SHARE, LONG, BUDGET = 8, 0.05, 1_000_000, "50MB"


class Problem:
    """A layer, a linear head and squared errors of one-step predictions."""

    def __init__(
        self, kind: str, hidden: int, rows: int, steps: int, dtype: torch.dtype = torch.float32
    ) -> None:
        torch.manual_seed(0)
        self.layer = getattr(tt, kind)(INPUTS, hidden).to(dtype)
        self.head = nn.Linear(hidden, INPUTS).to(dtype)
        self.data = torch.randn(steps, rows, INPUTS, dtype=dtype)
        self.parameters = [*self.layer.parameters(), *self.head.parameters()]

    def loss(self, batch: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, state = self.layer(batch, state)
        return (self.head(y) - batch).square().sum(), state

    def gradient(self, method: bptt.GradientMethod) -> list[Tensor]:
        for p in self.parameters:
            p.grad = None
        method.backward(self.loss, self.data, None)
        return [p.grad for p in self.parameters]


class Kept:
    """Bytes that autograd holds, each storage once, and of living states; the most at any time."""

    def __init__(self, problem: Problem) -> None:
        self.known = {t.untyped_storage().data_ptr() for t in problem.parameters}
        self.known.add(problem.data.untyped_storage().data_ptr())
        self.problem, self.holders, self.living = problem, {}, {}
        self.saved = self.states = self.most = 0

    def hold(self, tensor: Tensor) -> Held:
        return Held(self, tensor)

    def loss(self, batch: Tensor, state: Any) -> tuple[Tensor, Any]:
        shapes = {part.shape for part in states.leaves(state)}
        living = (t for t in gc.get_objects() if type(t) is Tensor and t.shape in shapes)
        self.living = {t.untyped_storage().data_ptr(): t.nbytes for t in living}
        apart = self.living.keys() - {at for at, count in self.holders.items() if count}
        self.states = sum(self.living[address] for address in apart)
        return self.problem.loss(batch, state)

    def by(self, method: bptt.GradientMethod) -> int:
        """The most that a method keeps at once."""
        with torch.autograd.graph.saved_tensors_hooks(self.hold, lambda held: held.tensor):
            method.advance(self.loss, self.problem.data, bptt.Position())
        return self.most


class Held:
    """A tensor that autograd saved, for as long as it does."""

    def __init__(self, kept: Kept, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self.kept, self.tensor, self.address = kept, tensor.detach(), storage.data_ptr()
        before = self.address in kept.known or self.address in kept.living
        self.bytes = 0 if before else storage.nbytes()
        count = kept.holders.get(self.address, 0)
        kept.holders[self.address] = count + 1
        kept.saved += self.bytes if count == 0 else 0
        kept.most = max(kept.most, kept.saved + kept.states)

    def __del__(self) -> None:
        self.kept.holders[self.address] -= 1
        self.kept.saved -= self.bytes if self.kept.holders[self.address] == 0 else 0


def gate(case: tuple[str, int, int, int], slots: int) -> float:
    """The largest relative difference of the gradients in float64; refuses more than 1e-12."""
    problem = Problem(*case, dtype=torch.float64)
    full = [g.clone() for g in problem.gradient(bptt.Full())]
    ours = problem.gradient(bptt.Checkpointed(slots=slots))
    worst = max(float((a - b).norm() / a.norm()) for a, b in zip(full, ours, strict=True))
    if worst > 1e-12:
        raise SystemExit(f"{case}: gradients differ by {worst:.1e}")
    return worst


def seconds(problem: Problem, methods: list[bptt.GradientMethod], rounds: int) -> list[Any]:
    """(clock, CPU) of each method in each round, the first round left out."""
    rows: list[Any] = []
    for _ in range(rounds + 1):
        row = []
        for method in methods:
            begun = time.perf_counter(), time.process_time()
            problem.gradient(method)
            row.append((time.perf_counter() - begun[0], time.process_time() - begun[1]))
        rows.append(row)
    return rows[1:]


def row(case: tuple[str, int, int, int], rounds: int) -> dict[str, Any]:
    """One line of the table."""
    kind, hidden, rows, steps = case
    problem = Problem(*case)
    whole = Kept(problem).by(bptt.Full())
    method = bptt.Checkpointed(memory=int(SHARE * whole))
    plan = method.plan(problem.loss, problem.data, None)
    part = Kept(problem).by(method)
    times = seconds(problem, [bptt.Full(), method], rounds)
    clock, cpu = (
        statistics.median(ours[i] / full[i] for full, ours in times) for i in range(2)
    )  # fmt: skip
    return {
        "layer": f"{kind}({hidden})",
        "rows": rows,
        "steps": steps,
        "Full keeps MB": round(whole / 1e6, 2),
        "share kept": f"{part / whole:.1%}",
        "block": plan.block,
        "slots": plan.slots,
        "Full ms": round(statistics.median(full[0] for full, _ in times) * 1e3, 2),
        "time ratio": round(clock, 2),
        "CPU ratio": round(cpu, 2),
        "gate": f"{gate(case, plan.slots):.0e}",
    }


def memory(name: str) -> float:
    """A line of /proc/self/status in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024 / 1e6
    raise SystemExit(f"this system does not tell {name}")


def long() -> None:
    """The gradient of a million steps; prints what it took as JSON."""
    problem = Problem("GRU", 64, 1, LONG)
    method = bptt.Checkpointed(memory=BUDGET)
    method.backward(problem.loss, problem.data[:2000], None)
    before = memory("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    begun = time.monotonic()
    plan = method.plan(problem.loss, problem.data, None)
    problem.gradient(method)
    measured = {
        "layer": "GRU(64)",
        "rows": 1,
        "steps": LONG,
        "budget": BUDGET,
        "block": plan.block,
        "slots": plan.slots,
        "peak above the data, MB": round(memory("VmHWM") - before, 1),
        "seconds": round(time.monotonic() - begun, 1),
    }
    print(json.dumps(measured))


def main() -> None:
    """Prints both tables."""
    torch.set_num_threads(1)
    if "--long" in sys.argv:
        return long()
    args = arguments(__doc__, reads=False, rounds={"type": int, "default": 9})
    finish(args, "Checkpointed beside Full", [row(case, args.rounds) for case in CASES])
    done = subprocess.run(
        [sys.executable, __file__, "--long"], check=True, capture_output=True, text=True
    )
    return finish(args, "A million steps", [json.loads(done.stdout)])


if __name__ == "__main__":
    main()
