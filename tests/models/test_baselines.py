"""The table of classical baselines: each says what it is for, and applies there alone."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

import throughtime as tt
from throughtime import emissions
from throughtime.errors import MissingExtra
from throughtime.models import registry
from throughtime.models.baselines import BASELINES
from throughtime.models.garch import VOLATILITIES


def values(columns: int = 1, count: int = 1) -> tt.Sequences:
    source = np.random.default_rng(0)
    parts = [torch.from_numpy(source.normal(size=(300, columns))) for _ in range(count)]
    return tt.Sequences.of(parts).transform(["standardise"])


def names(baseline: str, emission: emissions.Emission, data: tt.Sequences) -> list[str]:
    result = BASELINES[baseline].make(emission, data, 0)
    for model in result.values():
        rebuilt = registry.build(model.settings())
        assert rebuilt.settings() == model.settings()
        rebuilt.begin(data)
        assert bool(rebuilt.log_prob(data).isfinite().all())
    return list(result)


def test_each_applies_where_it_can() -> None:
    text = tt.Sequences.of([torch.arange(300) % 7])
    series, mixture = values(), emissions.Mixture("student_t", 3)
    assert names("hmm", emissions.Categorical(7), text) == ["hmm(5)"]
    assert names("hmm", mixture, series) == []
    assert names("hmm", emissions.Categorical(500), text) == []
    assert names("exponential_smoothing", mixture, series) == ["exponential smoothing"]
    assert names("exponential_smoothing", mixture, values(3, 2)) == ["exponential smoothing"]
    assert names("exponential_smoothing", emissions.Categorical(7), text) == []
    assert all(row.about and row.suits for row in BASELINES.values())


def test_garch_applies_to_one_series() -> None:
    pytest.importorskip("arch", reason="the package arch is not installed")
    mixture = emissions.Mixture("student_t", 3)
    assert names("garch", mixture, values()) == list(VOLATILITIES)
    assert names("garch", mixture, values(count=2)) == []
    assert names("garch", mixture, values(2)) == []


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arch", None)
    with pytest.raises(MissingExtra, match=r"throughtime\[arch\]"):
        BASELINES["garch"].make(emissions.StudentT(), values(), 0)
