"""What looking at the reach of the gradient costs a training: under 3 % of its time.

Trains each kind of network as its recipe does, and times every look and every update in the same
process. First the gate: a training that looks ends with the same bits as one that never does.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from common import arguments, finish

from throughtime import emissions
from throughtime.data.sequences import Sequences
from throughtime.models.latent import LatentAutoregressive
from throughtime.runtime import threads
from throughtime.training.config import TrainSettings
from throughtime.training.trainer import Trainer

LIMIT = 0.03


def values(length: int = 4000) -> Sequences:
    """A series with a memory of about fifty steps."""
    noise = torch.randn(length, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    level = torch.zeros(1, dtype=torch.float64)
    steps = []
    for shock in noise:
        level = 0.98 * level + 0.2 * shock
        steps.append(level + 0.5 * shock)
    return Sequences.of([torch.stack(steps)])


def symbols(length: int = 200_000) -> Sequences:
    """Symbols without a memory: only the time counts here."""
    chance = torch.Generator().manual_seed(0)
    return Sequences.of([torch.randint(0, 60, (length,), generator=chance)])


SERIES: dict[str, Any] = {"lanes": 32, "segment": 200, "bptt": "200", "valid_every": 25}
TEXT: dict[str, Any] = {"lanes": 32, "segment": 4000, "bptt": "80", "valid_every": 100}
SMALL: dict[str, Any] = {"lanes": 8, "bptt": "5", "valid_every": 50}
MIXTURE: dict[str, Any] = {
    "kind": "mixture", "component": "student_t", "num_components": 3, "columns": 1
}  # fmt: skip
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any], int]] = {
    "series": ("values", {"hidden_size": 8, "members": 8, "dropout": 0.1}, SERIES, 250),
    "text, narrow": ("symbols", {"hidden_size": 128, "embedding_size": 64}, TEXT, 400),
    "text, bfloat16": (
        "symbols", {"hidden_size": 128, "embedding_size": 64}, TEXT | {"precision": "bfloat16"}, 400
    ),
    "short segments": ("symbols", {"hidden_size": 16}, SMALL, 1500),
}  # fmt: skip


def trainer(cell: str, case: str, steps: int | None = None) -> Trainer:
    """A training as the recipes set it up."""
    kind, sizes, settings, usual = CASES[case]
    data = values() if kind == "values" else symbols()
    distribution = emissions.from_json(MIXTURE) if kind == "values" else emissions.Categorical(60)
    torch.manual_seed(0)
    model = LatentAutoregressive(cell, emission=distribution, **sizes)
    model.begin(data)
    return Trainer(model, data, None, TrainSettings(steps=steps or usual, **settings))


def same_bits(cell: str, case: str) -> bool:
    """Whether a training that looks at every validation ends as one that never looks."""
    ends = []
    for every in (1, 10**9):
        one = trainer(cell, case, 4)
        one.settings = one.settings.model_copy(update={"valid_every": 2})
        one.reach()  # makes the monitor
        assert one.monitor is not None
        one.monitor.every = every
        one.run()
        ends.append([*one.parameters, torch.get_rng_state()])
    return all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def measured(cell: str, case: str) -> dict[str, Any]:
    """A whole training, its looks timed apart."""
    one = trainer(cell, case)
    looks: list[float] = []
    reaches: list[float] = []
    plain, spent = one.reach, 0.0

    def timed() -> float | None:
        nonlocal spent
        begun = time.perf_counter()
        lags = plain()
        took = time.perf_counter() - begun
        spent += took  # the first call lays out the data, and may not look
        if lags is not None:
            looks.append(took)
            reaches.append(lags)
        return lags

    one.reach = timed  # type: ignore[method-assign]
    begun = time.perf_counter()
    one.run()
    whole = time.perf_counter() - begun
    return {
        "case": case,
        "cell": cell,
        "seconds": whole,
        "updates": one.progress.step,
        "looks": len(looks),
        "milliseconds": 1e3 * statistics.median(looks) if looks else None,
        "share": spent / whole,
        "reach": reaches,
    }


def main() -> None:
    args = arguments("What looking at the reach costs a training", reads=False)
    rows = []
    with threads(1):
        for case in CASES:
            for cell in ("gru", "lstm", "rnn") if case == "series" else ("lstm",):
                if not same_bits(cell, case):
                    raise SystemExit(f"{case}, {cell}: looking changes the training")
                rows.append(measured(cell, case))
    worst = max(row["share"] for row in rows)
    shown = [
        {
            "training": f"{row['case']}, {row['cell']}",
            "updates": row["updates"],
            "seconds": row["seconds"],
            "looks": row["looks"],
            "ms each": row["milliseconds"],
            "% of the time": 100 * row["share"],
            "reach": f"{row['reach'][0]:.0f} to {row['reach'][-1]:.0f}",
        }
        for row in rows
    ]
    finish(args, f"Looking at the reach: at most {100 * worst:.2f} % of the time", shown)
    if worst > LIMIT:
        raise SystemExit(f"more than {100 * LIMIT:.0f} % of the time")


if __name__ == "__main__":
    main()
