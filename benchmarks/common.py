"""What the benchmark scripts share: where the data are, and one printed table each."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import throughtime as tt
from throughtime.evaluation.results import ModelScores


def arguments(description: str, *, reads: bool = True, **extra: Any) -> argparse.Namespace:
    """--out, --seed, --json, what a script adds, and --data where it reads any."""
    parser = argparse.ArgumentParser(description=description)
    if reads:
        folder = Path("../shared/data")
        parser.add_argument("--data", type=Path, default=folder, help="folder of data")
    parser.add_argument("--out", type=Path, help="keep the run folders here")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    for name, options in extra.items():
        parser.add_argument(f"--{name.replace('_', '-')}", **options)
    found = parser.parse_args()
    if reads and not found.data.exists():
        parser.exit(1, f"no data at {found.data}; point --data at them\n")
    return found


def quietly(event: dict[str, Any]) -> None:
    """Progress for a benchmark: one line per fitted model."""
    if event["event"] == "end":
        print(
            f"  {event['model']}: validation {event['valid']:.4f}, {event.get('seconds', 0):.0f} s",
            flush=True,
        )


class Timed:
    """Runs `tt.fit` in a fresh folder and takes the time."""

    def __init__(self, args: argparse.Namespace, name: str) -> None:
        self.folder = (args.out or Path(tempfile.mkdtemp(prefix="throughtime-"))) / name
        self.keep, self.seed = args.out is not None, args.seed

    def fit(self, data: Any, **options: Any) -> tuple[tt.Run, float]:
        shutil.rmtree(self.folder, ignore_errors=True)
        begun = time.monotonic()
        run = tt.fit(data, out=self.folder, seed=self.seed, on_event=quietly, **options)
        return run, time.monotonic() - begun


def rows_of(run: tt.Run) -> dict[str, ModelScores]:
    """The comparison by model name."""
    return {row.name: row for row in run.scores.models}


def machine() -> str:
    """The machine and versions that a figure belongs to."""
    return (
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}, torch {torch.__version__}, "
        f"Python {platform.python_version()}"
    )


def finish(args: argparse.Namespace, title: str, rows: list[dict[str, Any]]) -> None:
    """Prints the table (Markdown) or the JSON object."""
    if args.json:
        print(json.dumps({"title": title, "machine": machine(), "rows": rows}))
        return
    columns = list(dict.fromkeys(key for row in rows for key in row))
    print(f"\n### {title}\n\n{machine()}\n")
    print("| " + " | ".join(columns) + " |")
    print("|" + "---|" * len(columns))
    for row in rows:
        print("| " + " | ".join(_cell(row.get(column)) for column in columns) + " |")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return (
        f"{value:.4g}"
        if isinstance(value, float) and abs(value) >= 10
        else (f"{value:.4f}" if isinstance(value, float) else str(value))
    )
