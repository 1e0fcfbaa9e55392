"""The linear AR against statsmodels, SciPy and brute force."""

from __future__ import annotations

import gzip
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, optimize, stats
from statsmodels.tsa.ar_model import AutoReg
from support.paths import SHARED
from support.profiles import examples
from torch import Tensor

from throughtime.errors import DataError, RunError, SettingError
from throughtime.models.linear_ar import LinearAR, fit_normal, fit_student_t, highest_order, scan

SERIES = SHARED / "series"
EXACT = {"atol": 1e-8, "rtol": 1e-8}


def simulate(seed: int, steps: int, columns: int = 1, df: float | None = None) -> Tensor:
    """A stable AR(2) around 5, ``[steps, columns]``."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((steps, columns))
    if df is not None:
        noise = rng.standard_t(df, (steps, columns))
    z = np.zeros((steps, columns))
    for t in range(steps):
        z[t] = 2 + noise[t]
        if t >= 2:
            z[t] += 0.5 * z[t - 1] - 0.3 * z[t - 2, ::-1]
    return torch.from_numpy(z)


@pytest.mark.parametrize("order", [0, 1, 2, 5, 20])
@pytest.mark.parametrize("level", [0.0, 1e5])
def test_agrees_with_statsmodels(order: int, level: float) -> None:
    z = simulate(0, 400) + level
    model = fit_normal([z], order)
    reference = AutoReg(z[:, 0].numpy(), lags=order, trend="c").fit()
    tolerance = 1e-8 if level == 0 else 1e-6
    np.testing.assert_allclose(model.weights[-1, :, 0], reference.params, rtol=tolerance, atol=1e-8)
    assert model.scale[-1, 0].item() ** 2 == pytest.approx(reference.sigma2, rel=1e-8)
    fitted = model.predict(z).location[order:, 0]
    np.testing.assert_allclose(fitted, reference.fittedvalues, rtol=1e-8)
    nats = -model.log_prob(z)[order:].sum().item()
    assert nats == pytest.approx(-reference.llf, rel=1e-9)
    row = scan([z], [order])[0]
    assert row["nats_in_sample"] * row["steps"] == pytest.approx(-reference.llf, rel=1e-9)
    assert row["aic"] == pytest.approx(reference.aic, rel=1e-9)
    assert row["bic"] == pytest.approx(reference.bic, rel=1e-9)


def test_real_series_agrees_with_statsmodels() -> None:
    path = SERIES / "exchange_rate.txt.gz"
    if not path.exists():
        pytest.skip(f"{path.name} is not in the shared data folder")
    with gzip.open(path, "rt") as lines:
        rate = np.loadtxt(lines, delimiter=",")[:, 0]
    reference = AutoReg(rate, lags=7, trend="c").fit()
    model = fit_normal([torch.from_numpy(rate)[:, None]], 7)
    np.testing.assert_allclose(model.weights[-1, :, 0], reference.params, **EXACT)


def brute_force(
    series: list[Tensor], k: int, covariates: list[Tensor] | None = None
) -> tuple[Tensor, Tensor, int]:
    """Coefficients ``[P, D]`` and noise covariance from rows written out one by one."""
    rows, targets = [], []
    for i, z in enumerate(series):
        for t in range(k, len(z)):
            u = torch.empty(0) if covariates is None else covariates[i][t]
            row = torch.cat([torch.ones(1), u, *[z[t - j] for j in range(1, k + 1)]]).double()
            if not torch.cat([row, z[t]]).isnan().any():
                rows.append(row)
                targets.append(z[t])
    x, y = torch.stack(rows), torch.stack(targets)
    weights = torch.linalg.lstsq(x, y).solution
    residual = y - x @ weights
    return weights, residual.mT @ residual / len(y), len(y)


@pytest.mark.parametrize("columns", [1, 3])
def test_ragged_series_with_gaps_and_covariates(columns: int) -> None:
    series = [simulate(seed, 30 + 17 * seed, columns) for seed in range(5)]
    series.append(simulate(9, 2, columns))
    series[1][10] = math.nan
    series[2][5, 0] = math.nan
    series[2][-1] = math.nan
    generator = torch.Generator().manual_seed(0)
    covariates = [torch.randn(len(z), 2, dtype=torch.float64, generator=generator) for z in series]
    covariates[3][4, 1] = math.nan
    model = fit_normal(series, 4, covariates=covariates, full=True)
    diagonal = fit_normal(series, 4, covariates=covariates)
    assert torch.equal(model.weights, diagonal.weights)
    assert model.covariance is not None
    for k in range(5):
        weights, noise, _ = brute_force(series, k, covariates)
        torch.testing.assert_close(model.weights[k, : len(weights)], weights, **EXACT)
        assert (model.weights[k, len(weights) :] == 0).all()
        torch.testing.assert_close(model.covariance[k], noise, **EXACT)
        torch.testing.assert_close(diagonal.scale[k], noise.diagonal().sqrt(), **EXACT)


@pytest.mark.parametrize("family", ["normal", "full", "student_t"])
def test_every_element_has_the_distribution_of_its_observed_past(family: str) -> None:
    series = [simulate(1, 40, 2), simulate(2, 3, 2), simulate(3, 25, 2)]
    series[2][6, 1] = math.nan
    model = (
        fit_student_t(series, 3)
        if family == "student_t"
        else fit_normal(series, 3, full=family == "full")
    )
    z = torch.cat(series)
    offsets = torch.tensor([0, 40, 43, 68])
    distribution = model.predict(z, offsets=offsets)
    expected_lags = [*range(4), *[3] * 36, 0, 1, 2, *range(4), 3, 3, 3, *range(4), *[3] * 14]
    assert distribution.lags.tolist() == expected_lags
    nats = model.log_prob(z, offsets=offsets)
    for t in range(len(z)):
        k = expected_lags[t]
        past = torch.full((1, 3, 2), math.nan, dtype=torch.float64)
        past[0, 3 - k :] = z[t - k : t]
        one = model.mean(past, k)
        torch.testing.assert_close(one.location[0], distribution.location[t], atol=1e-12, rtol=0)
        assert torch.equal(one.scale[0], distribution.scale[t])
        if z[t].isnan().any():
            assert nats[t].isnan()
        elif model.covariance is not None:
            reference = stats.multivariate_normal(
                distribution.location[t], model.covariance[k]
            ).logpdf(z[t])
            assert nats[t].item() == pytest.approx(reference, abs=1e-10)
        elif distribution.df is not None:
            reference = (
                stats.t(distribution.df[t], distribution.location[t], distribution.scale[t])
                .logpdf(z[t])
                .sum()
            )
            assert nats[t].item() == pytest.approx(reference, abs=1e-10)
        else:
            reference = (
                stats.norm(distribution.location[t], distribution.scale[t]).logpdf(z[t]).sum()
            )
            assert nats[t].item() == pytest.approx(reference, abs=1e-10)


@pytest.mark.parametrize("family", ["normal", "student_t"])
def test_the_density_integrates_to_one(family: str) -> None:
    z = simulate(4, 100, df=4.0)
    model = fit_normal([z], 1) if family == "normal" else fit_student_t([z], 1)
    for value, lags in ((5.0, 1), (math.nan, 0)):
        past = torch.tensor([[value]], dtype=torch.float64)

        def density(x: float, past: Tensor = past) -> float:
            pair = torch.cat([past, torch.tensor([[x]], dtype=torch.float64)])
            return math.exp(model.log_prob(pair)[1].item())

        assert model.predict(torch.cat([past, past])).lags[1] == lags
        assert integrate.quad(density, -np.inf, np.inf)[0] == pytest.approx(1, abs=1e-6)


def test_rows_may_have_different_counts() -> None:
    model = fit_normal([simulate(5, 200)], 3)
    past = torch.randn(4, 5, 1, generator=torch.Generator().manual_seed(0)).double()
    counts = torch.tensor([0, 2, 3, 5])
    together = model.mean(past, counts)
    for row, count in enumerate(counts.tolist()):
        alone = model.mean(past[row : row + 1], count)
        torch.testing.assert_close(together.location[row], alone.location[0], **EXACT)
        assert together.lags[row] == min(count, 3)
    assert model.mean(past[:, :2], 2).lags.tolist() == [2] * 4
    assert model.mean(past[:, :0], 0).location.shape == (4, 1)


def test_student_t_finds_the_optimum_of_scipy() -> None:
    z = simulate(6, 600, df=3.5)
    model = fit_student_t([z], 2)
    y = z[2:, 0].numpy()
    x = np.stack([np.ones(len(y)), z[1:-1, 0].numpy(), z[:-2, 0].numpy()], 1)

    def nats(point: np.ndarray) -> float:
        b, log_scale, log_df = point[:3], point[3], point[4]
        return -stats.t(np.exp(log_df), x @ b, np.exp(log_scale)).logpdf(y).mean()

    best = optimize.minimize(
        nats,
        [1.0, 0.5, 0.0, 0.0, 1.5],
        method="Nelder-Mead",
        options={"xatol": 1e-9, "fatol": 1e-13, "maxiter": 5000, "maxfev": 5000},
    )
    ours = -model.log_prob(z)[2:].mean().item()
    assert ours <= best.fun + 1e-10
    np.testing.assert_allclose(model.weights[-1, :, 0], best.x[:3], atol=1e-5)
    assert model.df is not None
    np.testing.assert_allclose([model.scale[-1, 0], model.df[-1, 0]], np.exp(best.x[3:]), rtol=1e-5)
    residual = (z[1:] - fit_normal([z], 1).predict(z).location[1:]).numpy()  # the nested AR(1)
    df, _, scale = stats.t.fit(residual, 5.0, floc=0.0)
    np.testing.assert_allclose([model.scale[1, 0], model.df[1, 0]], [scale, df], rtol=1e-3)


def test_student_t_columns_are_independent_fits_and_df_is_bounded() -> None:
    normal, heavy = simulate(7, 500)[:, 0], simulate(8, 500, df=2.2)[:, 0]
    z = torch.stack([normal, heavy], 1)
    both = fit_student_t([z], 0)
    assert both.df is not None
    for column in range(2):
        alone = fit_student_t([z[:, column : column + 1]], 0)
        assert alone.df is not None
        assert both.df[0, column].item() == pytest.approx(alone.df[0, 0].item(), rel=1e-4)
        assert both.weights[0, 0, column].item() == pytest.approx(alone.intercept.item(), rel=1e-5)
    cauchy = torch.from_numpy(np.random.default_rng(0).standard_cauchy((300, 1)))
    uniform = torch.linspace(-1, 1, 300, dtype=torch.float64)[:, None]
    low, high = fit_student_t([cauchy], 0).df, fit_student_t([uniform], 0).df
    assert low is not None
    assert high is not None
    assert low.item() == pytest.approx(2.05)
    assert high.item() == pytest.approx(200)


@pytest.mark.parametrize("noise", ["normal", "student_t"])
def test_scan_compares_orders_on_the_same_steps(noise: str) -> None:
    z = [simulate(10, 300, 2, df=4.0), simulate(11, 50, 2, df=4.0)]
    table = scan(z, [0, 1, 2, 3, 6], noise=noise)
    assert [row["order"] for row in table] == [0, 1, 2, 3, 6]
    assert {row["steps"] for row in table} == {294 + 44}
    nats = [row["nats_in_sample"] for row in table]
    assert nats == sorted(nats, reverse=True)
    assert min(table, key=lambda row: row["bic"])["order"] == 2
    for row in table:
        p = 2 * (1 + 2 * row["order"]) + (2 if noise == "normal" else 4)
        log_likelihood = -row["steps"] * row["nats_in_sample"]
        assert row["parameters"] == p
        assert row["aic"] == pytest.approx(2 * p - 2 * log_likelihood)
        assert row["bic"] == pytest.approx(p * math.log(row["steps"]) - 2 * log_likelihood)
    fit = fit_student_t if noise == "student_t" else fit_normal
    model = fit(z, 6)
    assert model.num_parameters == table[-1]["parameters"]
    own = -torch.cat([model.log_prob(s)[6:] for s in z]).mean().item()
    assert nats[-1] == pytest.approx(own, rel=1e-9)


@pytest.mark.parametrize("missing", [0.0, 0.3, 0.6, 0.9, 1.0])
def test_the_highest_order_is_the_last_that_can_be_fitted(missing: float) -> None:
    z = simulate(4, 60)
    z[torch.rand(60, generator=torch.Generator().manual_seed(3)) < missing] = torch.nan
    series = list(z.split([35, 25]))
    result = highest_order(z, torch.tensor([0, 35, 60]), 0, 8)
    for order in range(9):
        if order <= result:
            fit_normal(series, order)
        else:
            with pytest.raises(DataError, match="observed predecessors"):
                fit_normal(series, order)


def test_scan_with_full_covariance() -> None:
    z = simulate(12, 200, 2)
    row = scan([z], [1], full=True)[0]
    model = fit_normal([z], 1, full=True)
    assert row["parameters"] == model.num_parameters == 9
    assert row["nats_in_sample"] == pytest.approx(-model.log_prob(z)[1:].mean().item(), rel=1e-9)


@examples(30)
@given(
    scale=st.floats(1e-6, 1e6),
    shift=st.floats(-1e3, 1e3),
    seed=st.integers(0, 50),
    student=st.booleans(),
)
def test_units_do_not_matter(scale: float, shift: float, seed: int, student: bool) -> None:
    fit = fit_student_t if student else fit_normal
    z = simulate(seed, 80, df=4.0)
    moved = (z + shift) * scale
    nats = fit([z], 2).log_prob(z)
    changed = fit([moved], 2).log_prob(moved) + math.log(scale)
    torch.testing.assert_close(nats, changed, atol=1e-4, rtol=0)


def test_ridge_shrinks_the_lags_but_not_the_level() -> None:
    z = simulate(13, 300)
    plain, shrunk, flat = (fit_normal([z], 2, ridge) for ridge in (0.0, 100.0, 1e12))
    assert shrunk.lag_coefficients.abs().sum() < plain.lag_coefficients.abs().sum()
    assert flat.lag_coefficients.abs().max() < 1e-6
    assert flat.intercept.item() == pytest.approx(z.mean().item(), abs=0.05)


def test_a_perfectly_predictable_series_keeps_a_density() -> None:
    z = torch.sin(torch.arange(200.0, dtype=torch.float64))[:, None]
    for model in (fit_normal([z], 3), fit_normal([z], 3, full=True), fit_student_t([z], 3)):
        assert model.log_prob(z).isfinite().all()
        assert (model.scale > 0).all()
    constant = torch.full_like(z, 2.5)
    known = fit_normal([simulate(0, 200)], 1, covariates=[constant])
    assert known.weights[-1, 1].item() == 0


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    z = [simulate(14, 500, 2, df=5.0), simulate(15, 300, 2, df=5.0)]
    whole = fit_student_t(z, 2), fit_normal(z, 2)
    monkeypatch.setattr("throughtime.models.regression.BLOCK", 64)
    parts = fit_student_t(z, 2), fit_normal(z, 2)
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one.weights, other.weights, atol=1e-6, rtol=0)
        torch.testing.assert_close(one.scale, other.scale, atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", ["normal", "full", "student_t"])
def test_tensors_round_trip(family: str) -> None:
    z, u = simulate(16, 120, 2), simulate(17, 120, 1)
    if family == "student_t":
        model = fit_student_t([z], 2, covariates=[u])
    else:
        model = fit_normal([z], 2, covariates=[u], full=family == "full")
    copy = LinearAR.from_tensors(model.tensors(), model.settings())
    assert torch.equal(copy.log_prob(z, u), model.log_prob(z, u))
    assert copy.num_parameters == model.num_parameters
    with pytest.raises(RunError, match="lacks 'weights'"):
        LinearAR.from_tensors({}, model.settings())
    with pytest.raises(RunError, match="do not fit"):
        LinearAR.from_tensors(model.tensors(), {"num_covariates": 0})


def test_lag_coefficients_are_effects_on_rows() -> None:
    z = simulate(18, 200, 3)
    model = fit_normal([z], 2)
    a = model.lag_coefficients
    expected = model.intercept + a[0] @ z[-1] + a[1] @ z[-2]
    torch.testing.assert_close(model.mean(z[None], 2).location[0], expected, **EXACT)


def test_bad_arguments() -> None:
    z = simulate(19, 50)
    with pytest.raises(SettingError, match="order -1"):
        fit_normal([z], -1)
    with pytest.raises(SettingError, match="ridge"):
        fit_normal([z], 1, ridge=-1.0)
    with pytest.raises(SettingError, match="same D columns"):
        fit_normal([z, simulate(0, 50, 2)], 1)
    with pytest.raises(SettingError, match="own length"):
        fit_normal([z], 1, covariates=[z[1:]])
    with pytest.raises(SettingError, match="unknown"):
        scan([z], [1], noise="cauchy")
    with pytest.raises(SettingError, match="no orders"):
        scan([z], [])
    with pytest.raises(DataError, match="only 26 steps with 24 observed predecessors"):
        fit_normal([z], 24)
    with pytest.raises(DataError, match="column 0 is constant"):
        fit_normal([torch.full((50, 1), 3.3, dtype=torch.float64)], 1)
    with pytest.raises(DataError, match="infinite"):
        fit_normal([torch.where(z > z.max() - 1e-9, math.inf, z)], 1)
    model = fit_normal([z], 1, covariates=[z.flip(0)])
    with pytest.raises(SettingError, match="covariates have shape"):
        model.predict(z)
    with pytest.raises(SettingError, match="needs"):
        model.predict(simulate(0, 50, 2), z)
    with pytest.raises(DataError, match="missing at step 7"):
        model.predict(z, torch.where(torch.arange(50)[:, None] == 7, math.nan, z))
