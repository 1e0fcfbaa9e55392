"""Made-up data are what they say, and `tt.fit` alone solves the classic tasks of long memory."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import throughtime as tt
from throughtime.data.synthetic import adding, copying


def squared_error(run: tt.Run, test: tt.Sequences) -> float:
    """Of the predicted sums, in their own units."""
    scales = [one.std[0][0] for one in run.best.transforms if one.kind == "standardise"]
    errors = []
    for batch, distribution in run.best.model.distributions(run.best.transformed(test)):
        asked = batch.weight > 0
        errors.append((distribution.mean - batch.x)[asked].detach().square())
    return float(torch.cat(errors).mean() * math.prod(scales) ** 2)


def test_what_adding_asks_is_the_sum_of_the_two_marked_numbers() -> None:
    data = adding(20, 30, 1)
    for i in range(len(data)):
        value, marker = data[i].covariates.T
        assert marker.sum() == 2
        assert data[i].values[-1, 0].item() == pytest.approx(value[marker == 1].sum().item())
        assert bool(data[i].missing[:-1].all())


def test_what_copying_asks_is_what_came_first() -> None:
    data = copying(20, 30, 1, kept=4)
    for row in (data.sequence(i) for i in range(len(data))):
        assert len(row) == 30 + 2 * 4
        assert torch.equal(row[:4], row[-4:])
        assert row[4:-4].tolist() == [8] * 29 + [9]


@pytest.mark.slow
def test_the_settings_add_two_numbers_over_50_steps(tmp_path: Path) -> None:
    """The mean of the sum leaves 1/6, the variance of two uniform numbers."""
    parts = adding(1500, 50, 1), adding(100, 50, 2), adding(300, 50, 3)
    run = tt.fit(parts, model="gru", steps=200, out=tmp_path / "run")
    assert squared_error(run, parts[2]) < 0.02


@pytest.mark.slow
def test_the_settings_copy_symbols_over_50_steps(tmp_path: Path) -> None:
    """Without a memory the symbols cost log(8) nats each a second time."""
    kept = 3
    parts = tuple(copying(n, 50, seed, kept) for seed, n in enumerate((1500, 100, 200)))
    run = tt.fit(parts, model="gru", steps=400, out=tmp_path / "run")
    nats = -float(run.best.model.log_prob(run.best.transformed(parts[2])).mean())
    assert nats - kept * math.log(8) < 0.5 * kept * math.log(8)
