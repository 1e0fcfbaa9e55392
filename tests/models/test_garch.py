"""The volatility models: the likelihood is that of arch, and of the recursion by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

import throughtime as tt
from throughtime.errors import DataError, SettingError
from throughtime.models.garch import VOLATILITIES, Garch

univariate = pytest.importorskip("arch.univariate", reason="the package arch is not installed")


def returns(length: int = 1200, seed: int = 0) -> np.ndarray:
    """A GARCH(1,1) path with normal noise, in per cent."""
    noise = np.random.default_rng(seed).normal(size=length)
    path, variance = np.empty(length), 1.0
    for t, e in enumerate(noise):
        path[t] = np.sqrt(variance) * e
        variance = 0.05 + 0.1 * path[t] ** 2 + 0.85 * variance
    return path


@pytest.mark.parametrize("name", VOLATILITIES)
def test_the_likelihood_is_that_of_arch(name: str) -> None:
    """arch's own log-likelihood of the same series at its own parameters, to 1e-8 a step."""
    x = returns()
    data = tt.Sequences.of([torch.from_numpy(x)])
    model = Garch(name)
    model.begin(data)
    spec = VOLATILITIES[name]
    library = univariate.arch_model(
        x / x.std(), mean="AR", lags=1, vol=spec.arch_name, p=spec.p, o=spec.o, q=spec.q,
        dist="skewt" if spec.skewed else "t", rescale=False,
    )  # fmt: skip
    assert model.fitted is not None
    parameters = model.fitted.numpy()
    fixed = library.fix(parameters)
    count = 2 + library.volatility.num_params
    rest = (x[1:] - parameters[1] * x[:-1]) / x.std() - parameters[0]
    variance, bounds = np.empty(len(rest)), np.tile([1e-8, 1e8], (len(rest), 1))
    backcast = float(model.units[1])
    library.volatility.compute_variance(parameters[2:count], rest, variance, backcast, bounds)
    expected = library.distribution.loglikelihood(
        parameters[count:], rest, variance, individual=True
    )
    nats = model.step_log_prob(data)
    assert nats[1:].numpy() == pytest.approx(expected - np.log(x.std()), abs=1e-8)
    # With arch's own guess of the variance before the first step it is nearly the same.
    whole = fixed.loglikelihood - len(rest) * np.log(x.std())
    assert float(nats[1:].sum()) == pytest.approx(whole, abs=0.05)
    # The first value has the mean and the variance of the series.
    first, _ = model.step(None, model.initial_state(1))
    assert float(first.mean) == pytest.approx(x.mean())
    assert float(first.variance) == pytest.approx(x.var())
    assert float(nats[0]) == pytest.approx(float(first.log_prob(data.values[:1])))
    # The forecast of the next variance is arch's.
    context = model.condition(data)
    previous, state = context.previous, context.state
    after, _ = model.step(previous, state)
    forecast = fixed.forecast(horizon=1, reindex=False)
    assert float(after.mean) == pytest.approx(x.std() * forecast.mean.iloc[-1, 0], rel=1e-8)
    assert float(after.variance) == pytest.approx(x.var() * forecast.variance.iloc[-1, 0], rel=1e-8)


def test_the_likelihood_is_that_of_the_recursion_by_hand() -> None:
    x = 100 * returns()
    data = tt.Sequences.of([torch.from_numpy(x)])
    model = Garch("garch(1,1)-t")
    model.begin(data)
    assert model.fitted is not None
    constant, slope, omega, alpha, beta, nu = model.fitted.tolist()
    scale, backcast = model.units[:2].tolist()
    rest = (x[1:] - scale * constant - slope * x[:-1]) / scale
    variance = np.empty_like(rest)
    variance[0] = omega + (alpha + beta) * backcast
    for t in range(1, len(rest)):
        variance[t] = omega + alpha * rest[t - 1] ** 2 + beta * variance[t - 1]
    spread = np.sqrt(variance * (nu - 2) / nu)
    nats = stats.t(nu, 0, spread).logpdf(rest) - np.log(scale)
    assert model.step_log_prob(data)[1:].numpy() == pytest.approx(nats, rel=1e-9)


def test_a_missing_value_counts_as_expected() -> None:
    """Its residual is unknown: the variance goes on as if it had been as large as expected."""
    data = tt.Sequences.of([torch.from_numpy(returns())])
    model = Garch("garch(1,1)-t")
    model.begin(data)
    assert model.fitted is not None
    omega, alpha, beta = model.fitted[2:5].tolist()
    context = model.condition(data)
    previous, state = context.previous, context.state
    before, state = model.step(previous, state)
    _, state = model.step(torch.full((1, 1), torch.nan).double(), state)
    after, _ = model.step(torch.zeros(1, 1).double(), state)
    del after
    unit = float(model.units[0] ** 2)
    expected = omega + (alpha + beta) * float(before.variance) / unit
    terms = state[1][1]
    assert float(model._variance(terms)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([torch.zeros(300, 2).double()], "one series of one column"),
        ([torch.zeros(300).double(), torch.zeros(300).double()], "one series of one column"),
        ([torch.arange(150.0).double()], "200 values or more"),
        ([torch.ones(300).double()], "not all the same"),
        ([torch.cat([torch.arange(300.0), torch.tensor([torch.nan])])], "without missing values"),
    ],
)
def test_what_it_cannot_be_fitted_to_is_said(data: list[torch.Tensor], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Garch().begin(tt.Sequences.of(data))
    with pytest.raises(SettingError, match=r"volatility 'figarch' is not one of: arch\(5\)-t"):
        Garch("figarch")
