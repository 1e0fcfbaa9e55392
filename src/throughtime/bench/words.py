"""What the figures say, in one sentence."""

from __future__ import annotations

from typing import Any

_TASKS = {
    "training": "forward and backward",
    "forward": "forward alone",
    "step": "one step at a time",
    "sample": "sampling",
    "forecast": "forecasting",
}
_MOST = 3  # losing cases that the sentence names; the table marks them all


def sentence(rows: list[dict[str, Any]]) -> str:
    """How much faster than torch, task by task, and how many cases lose to a baseline."""
    parts: list[str] = []
    for task, words in _TASKS.items():
        ratios = [
            baseline["ratio"]
            for row in rows
            for baseline in row["baselines"]
            if row["task"] == task and baseline["name"] == "torch"
        ]
        if ratios:
            low, high = times(min(ratios)), times(max(ratios))
            faster = "times" if parts else "times as fast"
            parts.append(f"{low if low == high else f'{low} to {high}'} {faster} {words}")
    losses = sorted(
        (
            (baseline["ratio"], row, baseline)
            for row in rows
            for baseline in row["baselines"]
            if baseline["ratio"] < 1
        ),
        key=lambda loss: loss[0],
    )
    said = f"Against torch the kernels are {_joined(parts)}"
    if not losses:
        return f"{said}; no baseline is faster anywhere."
    named = ", ".join(_named(row, baseline) for _, row, baseline in losses[:_MOST])
    which = "in" if len(losses) <= _MOST else f"in {len(losses)} cases, most of all in"
    return f"{said}; a baseline is faster {which} {named}."


def _named(row: dict[str, Any], baseline: dict[str, Any]) -> str:
    sizes = "×".join(str(row[key]) for key in ("batch", "steps", "inputs", "hidden"))
    against = f"{baseline['name']}, {times(baseline['ratio'])}"
    return f"{row['cell'].upper()} {sizes} {row['task']} ({against})"


def times(ratio: float) -> str:
    """A ratio for people: three digits, and never 1.00 for what is below it."""
    if ratio < 1:
        return f"{min(ratio, 0.99):.2f}"
    return f"{ratio:.2f}" if ratio < 9.995 else f"{ratio:.1f}" if ratio < 99.95 else f"{ratio:.0f}"


def _joined(parts: list[str]) -> str:
    """a, b and c."""
    return " and ".join(part for part in (", ".join(parts[:-1]), *parts[-1:]) if part)
