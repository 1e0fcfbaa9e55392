"""What is tried on a case: the classical baselines, and models given by name and by value."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.known_models import ar_path

import throughtime as tt
from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Transforms
from throughtime.errors import SettingError
from throughtime.evaluation.comparison import StepScores
from throughtime.models.closed_form import NotConverged
from throughtime.models.garch import VOLATILITIES, Garch
from throughtime.search import views
from throughtime.search.artifacts import Artifacts
from throughtime.search.budget import TimeBudget
from throughtime.search.fitting import Case, Parts
from throughtime.search.strategies import named_baselines
from throughtime.training.config import DataSettings, RunSettings

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


def case(
    raw: Sequences, transforms: Transforms, events: list[dict[str, Any]], **shares: Any
) -> Case:
    """A case whose view is given."""
    parts = Parts(*raw.split(**shares))
    settings = RunSettings(data=DataSettings(source="x"), transforms=transforms.to_json())
    view = views.natural_view(parts.train, parts.valid, settings)
    return Case(parts, settings, view, None, Artifacts(None), TimeBudget(), events.append)


@pytest.mark.parametrize("index", ["sp500", "nasdaq"])
def test_volatility_models_have_the_published_figures(shared_data: Path, index: str) -> None:
    import polars as pl

    frame = pl.read_csv(shared_data / "prices" / f"arch_{index}.csv.gz")
    prices = frame["Adj Close"].to_numpy()
    raw = Sequences.of([torch.from_numpy(100 * np.diff(np.log(prices)))])
    whole = case(raw, Transforms(()), [], valid=0.1, test=0.2)
    assert whole.parts.test.steps == 1006
    found = {one.name: one for one in named_baselines(whole, ())}
    assert list(found) == [*PUBLISHED[index], "egarch(1,1)-skew-t"]
    nats = {
        name: StepScores.of(one.fitted, whole.parts.test).nats_per_step
        for name, one in found.items()
    }
    # EGARCH sees the sign as GJR does, and comes close to it.
    assert nats["egarch(1,1)-skew-t"] < PUBLISHED[index]["garch(1,1)-t"]
    for name, figure in PUBLISHED[index].items():
        assert nats[name] == pytest.approx(figure, abs=0.0015)
        assert found[name].family == "baseline"
        assert found[name].valid > 0.8


def test_prices_through_transforms_have_the_likelihood_of_their_returns() -> None:
    prices = np.exp(3 + np.cumsum(returns()))
    both = []
    for path, kinds in (
        (prices, ["log", "difference", "standardise"]),
        (np.diff(np.log(prices)), []),
    ):
        raw = Sequences.of([torch.from_numpy(path)])
        train, valid, test = raw.split()
        fitted = tt.train(
            Garch("garch(1,1)-t"), Parts(train, valid, test).fitting, transforms=kinds
        )
        scores = StepScores.of(fitted, test)
        assert scores.log_prob.shape == test.values[:, 0].shape
        assert not scores.log_prob[~test.scored()].any()
        both.append(scores.log_prob[-119:].numpy())
    # d log(p) / d p = 1 / p
    assert np.abs(both[0] - both[1] + np.log(prices[-119:])).max() < 0.02


def test_data_that_volatility_models_do_not_suit_have_none() -> None:
    path = torch.from_numpy(ar_path(1000, 0.2, 0))
    gap = path.clone()
    gap[500] = torch.nan
    for raw in (
        Sequences.of([path, path]),
        Sequences.of([torch.stack([path, path], 1)]),
        Sequences.of([gap]),
        Sequences.of([path[:150]]),
    ):
        assert named_baselines(case(raw, Transforms(()), [], by="time"), ()) == []


def test_a_model_that_does_not_converge_is_not_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """arch says so with a flag; the others go on."""
    univariate = pytest.importorskip("arch.univariate")
    plain = univariate.base.ARCHModel.fit

    def fit(self: Any, **options: Any) -> Any:
        result = plain(self, **options)
        if self.volatility.name == "EGARCH":
            result._optim_output.status = 9
        return result

    monkeypatch.setattr(univariate.base.ARCHModel, "fit", fit)
    data = Sequences.of([torch.from_numpy(100 * returns(600))])
    with pytest.raises(NotConverged, match=r"egarch\(1,1\)-skew-t: the optimiser of arch did not"):
        tt.train(Garch("egarch(1,1)-skew-t"), data)
    events: list[dict[str, Any]] = []
    found = named_baselines(case(data, Transforms(()), events), ())
    assert [one.name for one in found] == list(VOLATILITIES)[:-1]
    notes = [event for event in events if event["event"] == "note"]
    assert [note["model"] for note in notes] == ["egarch(1,1)-skew-t"]


@pytest.mark.parametrize(
    ("baseline", "data"),
    [
        ("hmm", Sequences.of([torch.randn(400).double()])),
        ("garch", Sequences.of([torch.randn(300).double(), torch.randn(300).double()])),
        ("garch", Sequences.of([torch.randn(100).double()])),
        ("exponential_smoothing", Sequences.of(["some text " * 40])),
    ],
)
def test_an_unsuitable_baseline_is_refused_before_anything_is_done(
    baseline: str, data: Sequences
) -> None:
    events: list[str] = []
    with pytest.raises(SettingError, match=f"baseline '{baseline}' is for"):
        tt.fit(data, baselines=baseline, on_event=lambda event: events.append(event["event"]))
    assert set(events) <= {"read", "reading"}


def test_names_and_models_go_together() -> None:
    data = Sequences.of([torch.from_numpy(ar_path(300, 0.6, 0)).float()])
    given = tt.LatentAutoregressive("gru", 3, emission=tt.emissions.Normal())
    run = tt.fit(data, model=[given, "ar", "rnn"], order=2, hidden=3, steps=4)
    names = [row.name for row in run.scores.models if row.family not in ("reference", "baseline")]
    assert names[0] == "ar(2)"
    assert {"rnn", "gru"} <= set(names)
    assert "lstm" not in names
    with pytest.raises(SettingError, match="model=arr; did you mean 'ar'"):
        tt.fit(data, model=[given, "arr"])
    with pytest.raises(SettingError, match="and names, got int"):
        tt.fit(data, model=[given, 3])
