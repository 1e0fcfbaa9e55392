"""The scan for far lags: Pearson's test, and every product of a lag as it is by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import throughtime as tt
from throughtime.data.domain import Domain
from throughtime.history import lag_scan
from throughtime.history.targets import Targets


def test_the_scan_is_pearsons_test_and_holds_its_level() -> None:
    """At one lag its statistic is χ² of the table of pairs; noise is rarely taken for a lag."""
    source = np.random.default_rng(2)
    x = source.integers(0, 3, 400)
    targets = Targets.of(tt.Sequences.of([torch.from_numpy(x)], Domain("symbols", num_symbols=3)))
    table = np.zeros((3, 3))
    for now, then in zip(x[5:], x[:-5], strict=True):
        table[then, now] += 1
    one_hot = np.eye(3)[x]
    past = lag_scan.whitened(one_hot, targets.rows.numpy())
    now = lag_scan.whitened(one_hot, None)
    size = lag_scan.cross_products(past, now, targets, 8)[4] / len(x[5:])
    assert size == pytest.approx(stats.chi2_contingency(table).statistic, rel=0.1)
    hits = 0
    for seed in range(60):
        z = np.random.default_rng(seed).normal(size=(300, 1))
        noise = Targets.of(tt.Sequences.of([torch.from_numpy(z)]))
        hits += lag_scan.strongest(z, z, noise, 99) is not None
    assert hits <= 4


def test_products_of_several_sequences_are_those_by_hand() -> None:
    source = np.random.default_rng(3)
    lengths, most = (40, 3, 25), 12
    parts = [torch.from_numpy(source.normal(size=(length, 1))) for length in lengths]
    targets = Targets.of(tt.Sequences.of(parts))
    rows = targets.rows[::2][10:]  # some of the targets, the first ones left out
    targets = Targets(targets.data, rows)
    past, now = source.normal(size=(68, 3)), source.normal(size=(len(rows), 2))
    result = lag_scan.cross_products(past, now, targets, most)
    first = np.repeat([0, 40, 43], lengths)
    for lag in range(1, most + 1):
        product = np.zeros((3, 2))
        for row, scores in zip(rows.tolist(), now, strict=True):
            if row - lag >= first[row]:
                product += np.outer(past[row - lag], scores)
        assert result[lag - 1] == pytest.approx((product**2).sum())
