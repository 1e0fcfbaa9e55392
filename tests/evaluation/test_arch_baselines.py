"""The volatility models of `arch` as baselines: exact likelihoods, published figures."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from support.known_models import ar_path

from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Transforms
from throughtime.errors import MissingExtra
from throughtime.evaluation import arch_baselines

pytest.importorskip("arch", reason="the package arch is not installed")

PUBLISHED = {  # nats per day, log-returns in per cent, last 1,006 days
    "sp500": {"arch(5)-t": 1.103, "garch(1,1)-t": 1.074, "gjr-garch(1,1)-skew-t": 1.059},
    "nasdaq": {"arch(5)-t": 1.329, "garch(1,1)-t": 1.309, "gjr-garch(1,1)-skew-t": 1.290},
}


def returns(length: int = 1200, seed: int = 0) -> np.ndarray:
    """A GARCH(1,1) path with normal noise."""
    noise = np.random.default_rng(seed).normal(size=length)
    path, variance = np.empty(length), 1.0
    for t, e in enumerate(noise):
        path[t] = 0.01 * np.sqrt(variance) * e
        variance = 0.05 + 0.1 * (path[t] / 0.01) ** 2 + 0.85 * variance
    return path


@pytest.mark.parametrize("index", ["sp500", "nasdaq"])
def test_published_figures(shared_data: Path, index: str) -> None:
    import polars as pl

    frame = pl.read_csv(shared_data / "prices" / f"arch_{index}.csv.gz")
    prices = frame["Adj Close"].to_numpy()
    values = torch.from_numpy(100 * np.diff(np.log(prices)))
    _, valid, test = Sequences.of([values]).split(valid=0.1, test=0.2)
    assert test.steps == 1006
    result = {one.name: one for one in arch_baselines.baselines(valid, test, Transforms())}
    assert list(result) == [*PUBLISHED[index], "egarch(1,1)-skew-t"]
    # EGARCH sees the sign as GJR does, and comes close to it.
    assert result["egarch(1,1)-skew-t"].test.nats_per_step < PUBLISHED[index]["garch(1,1)-t"]
    for name, nats in PUBLISHED[index].items():
        assert result[name].test.nats_per_step == pytest.approx(nats, abs=0.0015)
        assert result[name].family == "baseline"
        assert result[name].validation > 0.8


def test_prices_through_transforms_have_the_likelihood_of_their_returns() -> None:
    prices = np.exp(3 + np.cumsum(returns()))
    raw = Sequences.of([torch.from_numpy(prices)])
    train, valid, test = raw.split()
    chain = Transforms.fit(["log", "difference", "standardise"], train)
    whole = torch.from_numpy(np.diff(np.log(prices)))
    starts = [int(part.starts[0]) for part in (valid, test)]
    plain = Sequences.of([whole])
    by_hand = []
    for start, stop in zip(starts, (starts[1], len(prices)), strict=True):
        cut = plain._window(torch.tensor([0]), torch.tensor([start - 1]), torch.tensor([stop - 1]))
        by_hand.append(cut)
    actual = arch_baselines.baselines(valid, test, chain, ("garch(1,1)-t",))[0]
    other = arch_baselines.baselines(by_hand[0], by_hand[1], Transforms(), ("garch(1,1)-t",))[0]
    mine = actual.test.log_prob[test.scored()]
    theirs = other.test.log_prob[by_hand[1].scored()]
    # d log(p) / d p = 1 / p
    assert mine.shape == theirs.shape == (120,)
    change = (mine - theirs).numpy() + np.log(prices[-120:])
    assert np.abs(change).max() < 0.02
    assert actual.test.log_prob.shape == test.values[:, 0].shape
    assert not actual.test.log_prob[~test.scored()].any()


def test_the_test_span_changes_nothing_that_was_fitted() -> None:
    values = 100 * returns()
    changed = values.copy()
    changed[-1] = 50.0
    result = []
    for path in (values, changed):
        _, valid, test = Sequences.of([torch.from_numpy(path)]).split()
        result.append(arch_baselines.baselines(valid, test, Transforms(), ("arch(5)-t",))[0])
    assert torch.equal(result[0].test.log_prob[:-1], result[1].test.log_prob[:-1])
    assert result[0].validation == result[1].validation


def test_data_that_baselines_do_not_suit_have_none() -> None:
    path = torch.from_numpy(ar_path(1000, 0.2, 0))
    gap = path.clone()
    gap[500] = torch.nan
    constant = torch.ones(1000)
    text = Sequences.of(["some text " * 100])
    cases = [
        Sequences.of([path, path]),
        Sequences.of([torch.stack([path, path], 1)]),
        Sequences.of([gap]),
        Sequences.of([constant]),
        Sequences.of([path[:100]]),
        text,
    ]
    for raw in cases:
        _, valid, test = raw.split(by="time")
        assert arch_baselines.baselines(valid, test, Transforms()) == []


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "arch", None)
    raw = Sequences.of([torch.zeros(10)])
    with pytest.raises(MissingExtra, match=r"throughtime\[arch\]"):
        arch_baselines.baselines(raw, raw, Transforms())
