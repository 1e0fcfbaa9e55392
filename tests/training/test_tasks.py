"""The classic tasks of long memory, small, through `tt.fit` alone: do the recipes solve them?"""

from __future__ import annotations

import importlib
import math
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from support.paths import ROOT

import throughtime as tt

BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture(scope="module")
def tasks() -> ModuleType:
    """The script of the benchmark."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module("tasks")
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_what_adding_asks_is_the_sum_of_the_two_marked_numbers(tasks: ModuleType) -> None:
    data = tasks.adding(20, 30, 1)
    for i in range(len(data)):
        value, marker = data[i].covariates.T
        assert marker.sum() == 2
        assert data[i].values[-1, 0].item() == pytest.approx(value[marker == 1].sum().item())
        assert bool(data[i].missing[:-1].all())


def test_what_copying_asks_is_what_came_first(tasks: ModuleType) -> None:
    data = tasks.copying(20, 30, 1, kept=4)
    for row in (data.sequence(i) for i in range(len(data))):
        assert len(row) == 30 + 2 * 4
        assert torch.equal(row[:4], row[-4:])
        assert row[4:-4].tolist() == [tasks.SYMBOLS] * 29 + [tasks.SYMBOLS + 1]


def test_the_settings_add_two_numbers_over_50_steps(tasks: ModuleType, tmp_path: Path) -> None:
    """The mean of the sum leaves 1/6, the variance of two uniform numbers."""
    parts = tasks.adding(1500, 50, 1), tasks.adding(100, 50, 2), tasks.adding(300, 50, 3)
    run = tt.fit(parts, model="gru", steps=200, out=tmp_path / "run")
    assert tasks.squared_error(run, parts[2]) < 0.02


def test_the_settings_copy_symbols_over_50_steps(tasks: ModuleType, tmp_path: Path) -> None:
    """Without a memory the symbols cost log(8) nats each a second time."""
    kept = 3
    parts = tuple(tasks.copying(n, 50, seed, kept) for seed, n in enumerate((1500, 100, 200)))
    run = tt.fit(parts, model="gru", steps=400, out=tmp_path / "run")
    assert tasks.copied(run, parts[2], kept) < 0.5 * kept * math.log(8) / (50 + 2 * kept)
