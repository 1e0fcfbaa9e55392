"""Forecast measures against hand computations and scoringrules; forecasts against closed forms."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from support.known_models import KnownAR, ar_path, fitted

from throughtime.data.domain import Domain
from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Transforms
from throughtime.emissions import Categorical, DiscretisedLogistic, Normal
from throughtime.errors import SettingError
from throughtime.evaluation import metrics
from throughtime.evaluation.backtest import backtest
from throughtime.evaluation.calibration import calibration
from throughtime.evaluation.predictive import next_risk
from throughtime.evaluation.results import Accuracy, BacktestResult
from throughtime.models.autoregressive import Autoregressive
from throughtime.models.latent import LatentAutoregressive
from throughtime.predict.forecast import enough_paths, quantile_error

PHI = 0.8


def normal_crps(scale: float) -> float:
    """Expected CRPS of the true normal distribution: scale / sqrt(pi)."""
    return scale / math.sqrt(math.pi)


def series(length: int = 6000, seed: int = 0, test: float = 0.5) -> Sequences:
    """The test part of a stationary AR(1) with unit innovations, after the rest as its past."""
    raw = Sequences.of([torch.from_numpy(ar_path(length, PHI, seed))])
    return raw.split(valid=0.1, test=test)[2]


# Measures


def test_crps_of_an_ensemble_is_that_of_scoringrules() -> None:
    import scoringrules

    chance = np.random.default_rng(0)
    ensemble, truth = chance.normal(size=(50, 4, 3)), chance.normal(size=(4, 3))
    for fair, estimator in ((True, "fair"), (False, "nrg")):
        theirs = scoringrules.crps_ensemble(
            truth, np.moveaxis(ensemble, 0, -1), estimator=estimator
        )
        assert metrics.ensemble_crps(ensemble, truth, fair) == pytest.approx(theirs)


def test_pinball_and_smape_by_hand() -> None:
    quantile, truth = np.array([1.0, 3.0]), np.array([2.0, 2.0])
    assert metrics.pinball(quantile, truth, 0.9) == pytest.approx([0.9, 0.1])
    point, truth = np.array([0.0, 1.0, -2.0]), np.array([0.0, 3.0, 2.0])
    assert metrics.smape(point, truth) == pytest.approx([0.0, 100.0, 200.0])


def test_naive_scale_by_hand() -> None:
    values = np.array([[1.0, 5.0], [2.0, 5.0], [4.0, np.nan], [8.0, 5.0], [9.0, 5.0]])
    assert metrics.naive_scale(values)[0] == pytest.approx((1 + 2 + 4 + 1) / 4)
    assert np.isnan(metrics.naive_scale(values)[1])
    assert metrics.naive_scale(values, 3)[0] == pytest.approx((7 + 7) / 2)
    assert metrics.naive_scale(values, 9)[0] == pytest.approx(2.0)
    assert np.isnan(metrics.naive_scale(values[:1])).all()


def test_paths_that_diverge_have_infinite_errors_and_no_warning() -> None:
    """numpy's warnings are errors here."""
    ensemble = np.array([1e300, -1e300, 1.0, 2.0]).reshape(4, 1, 1)
    wanted = metrics.needed_levels([0.8])
    quantiles = {level: np.array([[1.0]]) for level in wanted}
    truth, scale = np.array([[0.5]]), np.array([1.0])
    row = Accuracy(
        **metrics.averages(
            metrics.measures(np.abs(ensemble) * 1e7, quantiles, truth, scale, [0.8], True), [0.8]
        )
    )
    assert row.rmse is None
    assert row.mase == 0.5


def test_measures_leave_missing_truths_out() -> None:
    ensemble = np.random.default_rng(0).normal(size=(100, 2, 1))
    truth = np.array([[0.3], [np.nan]])
    wanted = metrics.needed_levels([0.8])
    quantiles = dict(zip(wanted, np.quantile(ensemble, wanted, axis=0), strict=True))
    result = metrics.measures(ensemble, quantiles, truth, np.array([2.0]), [0.8], True)
    first = {key: value[:1] for key, value in result.items()}
    row = Accuracy(**metrics.averages(result, [0.8]))
    assert row == Accuracy(**metrics.averages(first, [0.8]))
    median = float(np.median(ensemble[:, 0]))
    assert row.mase == pytest.approx(abs(0.3 - median) / 2)
    assert row.rmse == pytest.approx(abs(0.3 - ensemble[:, 0].mean()))
    assert row.coverage == {0.8: 1.0}


# Forecasts


def test_forecasts_of_a_known_distribution_are_its_closed_form() -> None:
    raw = series(8000)
    result = backtest(fitted(KnownAR(PHI, 1.0)), raw, 6, origins=400, num_paths=200)
    assert result is not None
    assert (result.horizon, result.origins, result.paths) == (6, 400, 200)
    past = raw.values[: int(raw.starts[0]), 0].numpy()
    scale = np.abs(np.diff(past)).mean()
    for row in result.free_running:
        spread = math.sqrt(sum(PHI ** (2 * k) for k in range(row.horizon)))
        assert row.crps == pytest.approx(normal_crps(spread), rel=0.12)
        assert row.rmse == pytest.approx(spread, rel=0.12)
        assert row.mase == pytest.approx(spread * math.sqrt(2 / math.pi) / scale, rel=0.12)
        assert row.coverage[0.8] == pytest.approx(0.8, abs=0.06)
        assert row.coverage[0.95] == pytest.approx(0.95, abs=0.04)
        density = stats.norm.pdf(stats.norm.ppf(0.9))
        assert row.pinball[0.9] == pytest.approx(spread * density, rel=0.15)
    one = result.one_step
    assert one.count == 1000
    assert one.crps == pytest.approx(normal_crps(1.0), rel=0.05)
    assert one.rmse == pytest.approx(1.0, rel=0.05)
    assert one.coverage[0.95] == pytest.approx(0.95, abs=0.02)
    plain = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert BacktestResult.model_validate(plain) == result


def test_one_step_measures_are_those_of_the_exact_distribution() -> None:
    raw = series(1500)
    chain = Transforms.fit(["standardise"], raw)
    (std,) = chain.transforms[0].std[0]  # type: ignore[attr-defined]
    result = backtest(fitted(KnownAR(PHI, 1.0 / std), chain), raw, 2, origins=2, num_paths=10)
    assert result is not None
    values = raw.values[:, 0].numpy()
    start = int(raw.starts[0])
    mean = values.mean()
    distribution = stats.norm(mean + PHI * (values[start - 1 : -1] - mean), 1.0)
    truth = values[start:]
    z = distribution.cdf(truth)
    error = truth - distribution.mean()
    crps = error * (2 * z - 1) + 2 * distribution.pdf(truth) - 1 / math.sqrt(math.pi)
    one = result.one_step
    assert one.count == 750
    assert one.crps == pytest.approx(crps.mean(), rel=0.01)
    assert one.rmse == pytest.approx(math.sqrt((error**2).mean()), rel=1e-4)
    assert one.coverage[0.8] == pytest.approx((np.abs(2 * z - 1) <= 0.8).mean())
    low = metrics.pinball(distribution.ppf(0.1), truth, 0.1).mean()
    assert one.pinball[0.1] == pytest.approx(low, rel=1e-6)


def test_prices_are_forecast_through_their_transforms() -> None:
    prices = np.exp(4 + np.cumsum(0.01 * np.random.default_rng(0).normal(size=1200)))
    raw = Sequences.of([torch.from_numpy(prices)]).split(test=0.3)[2]
    chain = Transforms.fit(["log", "difference", "standardise"], raw)
    result = backtest(fitted(KnownAR(0.0, 1.0), chain), raw, 9, origins=60, num_paths=300)
    assert result is not None
    last = result.free_running[8]
    assert last.coverage[0.8] == pytest.approx(0.8, abs=0.15)
    origin = len(prices) - 9
    spread = 3 * 0.01 * result.fans[0].past.values[-1]
    assert result.fans[0].past.values[-1] == prices[origin - 1]
    top = result.fans[0].quantiles[0.9][8] - result.fans[0].quantiles[0.5][8]
    assert top == pytest.approx(1.28 * spread, rel=0.25)


def test_fans_hold_past_truth_and_times() -> None:
    times = np.datetime64("2020-01-01", "us") + np.arange(100) * np.timedelta64(1, "h")
    values = torch.from_numpy(np.stack([ar_path(100, PHI, 0), ar_path(100, PHI, 1)], 1))
    domain = Domain("real", columns=("a", "b"), step="hour")
    offsets, starts = torch.tensor([0, 100]), torch.tensor([60])
    raw = Sequences(values, offsets, starts, domain, ("x",), times)
    model = Autoregressive(1, emission=Normal(2))
    model.begin(raw)
    result = backtest(fitted(model), raw, 5, origins=3, num_paths=20)
    assert result is not None
    first, second = result.fans
    assert (first.series, first.column, second.column) == ("x", "a", "b")
    assert first.past.values == tuple(values[75:95, 0].tolist())
    assert first.truth == tuple(values[95:, 0].tolist())
    assert first.times[0] == "2020-01-04 23:00:00"
    assert first.past.times[-2:] == ("2020-01-04 21:00:00", "2020-01-04 22:00:00")
    assert sorted(first.quantiles) == [0.025, 0.1, 0.5, 0.9, 0.975]
    assert all(len(row) == 5 for row in first.quantiles.values())


def test_states_at_several_origins_are_those_of_condition() -> None:
    values = torch.randn(700, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one = Sequences.of([values])
    models: list[Any] = [
        LatentAutoregressive("lstm", 5, emission=Normal(1), members=2),
        Autoregressive(3, emission=Normal(1)),
    ]
    models[1].begin(one)
    for model in models:
        every = model.condition_at(one, [1, 40, 690])
        for k, stop in enumerate((1, 40, 690)):
            alone = model.condition(Sequences.of([values[:stop]]))
            assert torch.equal(every.previous[k : k + 1], alone.previous)
            for part, other in zip(leaves(every.state), leaves(alone.state), strict=True):
                assert torch.allclose(part[:, k : k + 1].double(), other.double(), atol=1e-6)


def leaves(state: Any) -> list[torch.Tensor]:
    return [state] if isinstance(state, torch.Tensor) else [x for s in state for x in leaves(s)]


def test_covariates_of_the_future_and_series_identities_are_used() -> None:
    chance = torch.Generator().manual_seed(0)
    u = torch.randn(400, 1, dtype=torch.float64, generator=chance)
    values = 10 * u + 0.1 * torch.randn(400, 1, dtype=torch.float64, generator=chance)
    raw = Sequences(
        values,
        torch.tensor([0, 400]),
        torch.tensor([300]),
        Domain("real", columns=("y",), covariate_columns=("u",)),
        ("x",),
        covariates=u,
    )
    model = Autoregressive(1, emission=Normal(1), covariates=1)
    model.begin(raw)
    result = backtest(fitted(model), raw, 4, origins=10, num_paths=50)
    assert result is not None
    assert all(row.rmse < 0.2 for row in result.free_running)
    assert result.one_step.rmse < 0.2
    known = LatentAutoregressive("gru", 4, emission=Normal(1), covariates=1, identities=("x", "z"))
    assert backtest(fitted(known), raw, 4, origins=2, num_paths=5) is not None


def test_many_series_are_subsampled_and_short_ones_left_out() -> None:
    parts = [torch.from_numpy(ar_path(n, PHI, n)) for n in (3, 40, 41, 42, 43, 44)]
    raw = Sequences.of(parts)
    train = Sequences.of([torch.from_numpy(ar_path(500, PHI, 9))])
    model = KnownAR(PHI, 1.0)
    result = backtest(fitted(model), raw, 5, origins=3, num_paths=20, max_series=3, train=train)
    assert result is not None
    assert [fan.series for fan in result.fans] == ["1", "3", "5"]
    scale = np.abs(np.diff(train.values[:, 0].numpy())).mean()
    one = result.one_step
    assert one.mase == pytest.approx(math.sqrt(2 / math.pi) / scale, rel=0.2)
    again = backtest(fitted(model), raw, 5, origins=3, num_paths=20, max_series=3, train=train)
    assert again == result


def test_sound_is_forecast_in_amplitudes() -> None:
    wave = 0.5 * torch.sin(torch.arange(300) / 5.0).double()
    domain = Domain("sound", columns=("amplitude",), sample_rate=8000.0, step="sample")
    raw = Sequences.of([wave], domain).split(test=0.3)[2]
    chain = Transforms.fit(["mulaw"], raw)
    seen = raw.transform(chain)
    for emission in (Categorical(256), DiscretisedLogistic(256, 3)):
        model = LatentAutoregressive("gru", 8, emission=emission)
        model.begin(seen)
        result = backtest(fitted(model, chain), raw, 3, origins=2, num_paths=20)
        assert result is not None
        assert 0 < result.one_step.rmse < 1
        assert result.fans[0].times is None
        assert calibration(fitted(model, chain), raw) is not None


def test_long_horizons_are_cut_and_what_has_no_room_is_none() -> None:
    raw = Sequences.of([torch.from_numpy(ar_path(20, PHI, 0))]).split(test=0.2)[2]
    result = backtest(fitted(KnownAR(PHI, 1.0)), raw, 50, origins=3, num_paths=5)
    assert result is not None
    assert result.horizon == 4
    single = Sequences.of([torch.zeros(1)])
    assert backtest(fitted(KnownAR(PHI, 1.0)), single, 2) is None
    assert backtest(fitted(KnownAR(PHI, 1.0)), Sequences.of(["text"]), 2) is None
    with pytest.raises(SettingError, match="horizon"):
        backtest(fitted(KnownAR(PHI, 1.0)), raw, 0)


def test_missing_values_do_not_reach_the_measures() -> None:
    values = torch.from_numpy(ar_path(200, PHI, 0)).clone()
    values[[120, 150, 189]] = torch.nan
    raw = Sequences.of([values]).split(test=0.5)[2]
    model = LatentAutoregressive("gru", 4, emission=Normal(1))
    result = backtest(fitted(model), raw, 3, origins=98, num_paths=5)
    assert result is not None
    assert all(row.crps is not None for row in result.free_running)
    assert result.one_step.count == 97


# Paths and risk


def test_paths_are_drawn_until_the_quantiles_are_certain() -> None:
    asked: list[int] = []

    def draw(count: int) -> torch.Tensor:
        asked.append(count)
        source = torch.Generator().manual_seed(0)
        return torch.randn(count, 2, 1, dtype=torch.float64, generator=source)

    paths = enough_paths(draw, (0.1, 0.5, 0.9), tolerance=0.02, start=100)
    assert asked == [100 * 2**k for k in range(len(asked))]
    # sqrt(q (1 - q) / n) / density / 80 % width, for the normal distribution's 10 % quantile
    per_root = 0.3 / stats.norm.pdf(stats.norm.ppf(0.1)) / (2 * stats.norm.ppf(0.9))
    assert len(paths) / 2 < (per_root / 0.02) ** 2 * 2
    assert len(paths) * 2 > (per_root / 0.02) ** 2
    assert quantile_error(paths, (0.1,)) == pytest.approx(per_root / len(paths) ** 0.5, rel=0.4)
    assert len(enough_paths(draw, (0.5,), 1e-9, start=100, limit=300)) == 300
    assert quantile_error(paths[:100], (0.01,)) == math.inf
    constant = enough_paths(lambda count: torch.zeros(count, 3), (0.05,), start=100)
    assert len(constant) == 100
    with pytest.raises(SettingError, match="quantiles"):
        enough_paths(draw, (0.0,))


def test_risk_is_the_low_quantile_of_tomorrow() -> None:
    raw = series(400)
    last = float(raw.values[-1, 0])
    result = next_risk(fitted(KnownAR(PHI, 1.0)), raw)
    assert result is not None
    assert result.value == pytest.approx(PHI * last + stats.norm.ppf(0.01))
    assert (result.level, result.last) == (0.01, last)
    prices = Sequences.of([raw.values.exp()])
    chain = Transforms.fit(["log"], prices)
    result = next_risk(fitted(KnownAR(PHI, 1.0), chain), prices)
    assert result is not None
    assert result.value == pytest.approx(math.exp(PHI * last + stats.norm.ppf(0.01)))
    two = Sequences.of([torch.zeros(4), torch.zeros(4)])
    assert next_risk(fitted(KnownAR(PHI, 1.0)), two) is None
