"""Tiny data of each kind and a run fitted on each, made once for all the tests that use them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from filelock import FileLock

import throughtime as tt

Fails = Callable[..., str]  # a command that fails, to the line it ends with
QUICK: dict[str, Any] = {"steps": 4, "hidden": 4}
WORDS = "the quick brown fox jumps over the lazy dog and runs away\n"


def days(count: int, begin: str = "2020-01-01") -> list[str]:
    """So many dates, one a day."""
    return [str(np.datetime64(begin) + i) for i in range(count)]


def walk(count: int, seed: int = 0) -> np.ndarray:
    """Prices that wander, rounded to four decimals."""
    steps = np.random.default_rng(seed).normal(0, 0.01, count)
    return (100 * np.exp(steps.cumsum())).round(4)


def write_series(path: Path, values: Any, head: str = "date,price") -> Path:
    """A CSV with a date for each value; an empty text is an empty cell."""
    rows = [f"{day},{value}\n" for day, value in zip(days(len(values)), values, strict=True)]
    path.write_text(head + "\n" + "".join(rows), encoding="utf-8")
    return path


def write_tone(path: Path, seconds: float = 0.05, rate: int = 8000, pitch: float = 440.0) -> Path:
    """A tone with a little noise."""
    t = np.arange(round(seconds * rate)) / rate
    noise = np.random.default_rng(len(path.stem)).normal(0, 0.02, len(t))
    soundfile.write(path, 0.5 * np.sin(2 * math.pi * pitch * t) + noise, rate)
    return path


class SmallRuns:
    """Folders of runs by name, fitted when a process first asks for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def __call__(self, name: str) -> Path:
        out = self.folder / "runs" / name
        with FileLock(self.folder / f"{name}.lock"):
            if not (out / "model.json").exists():
                torch.manual_seed(0)
                tt.fit(**{**QUICK, "out": out, **getattr(self, f"_{name}")()})
        return out

    def _series(self) -> dict[str, Any]:
        """One price, all the models."""
        return {"data": write_series(self.folder / "prices.csv", walk(150)), "value": "price"}

    def _sales(self) -> dict[str, Any]:
        """Two series that a covariate explains."""
        rows = ["shop,date,promotion,sold"]
        for k, shop in enumerate(("north", "south")):
            noise = np.random.default_rng(k).normal(0, 1, 80)
            for i, day in enumerate(days(80)):
                rows.append(f"{shop},{day},{i % 3 == 0:d},{50 + 20 * (i % 3 == 0) + noise[i]:.3f}")
        path = self.folder / "sales.csv"
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
        return {
            "data": path, "model": "ar", "order": 1, "id": "shop", "time": "date",
            "value": "sold", "covariates": "promotion",
        }  # fmt: skip

    def _text(self) -> dict[str, Any]:
        path = self.folder / "story.txt"
        path.write_text(WORDS * 12, encoding="utf-8")
        return {"data": path}

    def _lines(self) -> dict[str, Any]:
        path = self.folder / "names.txt"
        path.write_text("".join(f"{w}\n" for w in WORDS.split() * 8), encoding="utf-8")
        return {"data": path, "model": "gru", "lines": True}

    def _bytes(self) -> dict[str, Any]:
        path = self.folder / "accents.txt"
        path.write_text("é à ü ☃ naïve\n" * 30, encoding="utf-8")
        return {"data": path, "model": "ar", "symbols": "bytes"}

    def _sound(self) -> dict[str, Any]:
        folder = self.folder / "recordings"
        folder.mkdir(exist_ok=True)
        for i in range(4):
            write_tone(folder / f"tone{i}.wav", 0.2, 2000, pitch=100.0 + 20 * i)
        return {"data": folder, "model": "gru"}
