"""Every emission against SciPy, finite differences, enumeration, scoringrules and quadrature."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.stats as st
import scoringrules
import torch
from scipy.integrate import quad
from scipy.special import gammaln, log_softmax, logsumexp
from torch import Tensor

from throughtime import emissions
from throughtime.emissions import (
    KINDS,
    Bernoulli,
    Categorical,
    DiscretisedLogistic,
    Distribution,
    Emission,
    Laplace,
    Mixture,
    MixtureOf,
    NegativeBinomial,
    Normal,
    Poisson,
    SkewStudentT,
    StudentT,
    weighted_mixture,
)
from throughtime.errors import DataError, SettingError, VocabularyError

ROWS = 7


def normal(d: Any, x: np.ndarray) -> np.ndarray:
    return st.norm(d.location, d.scale).logpdf(x).sum(-1)


def student_t(d: Any, x: np.ndarray) -> np.ndarray:
    return st.t(d.df, d.location, d.scale).logpdf(x).sum(-1)


def skew_student_t(d: Any, x: np.ndarray) -> np.ndarray:
    """Hansen (1994), equation 10, of mode 0 and unit scale before it is shifted and stretched."""
    z = (x - d.location.numpy()) / d.scale.numpy()
    width = 1 + np.sign(z) * d.skew.numpy()
    return (st.t(d.df).logpdf(z / width) - np.log(d.scale.numpy())).sum(-1)


def covariance(d: Any, row: int) -> np.ndarray:
    wide = (d.scale[..., None] * d.loadings)[row].numpy()
    return wide @ wide.T + np.diag(d.scale[row].numpy() ** 2)


def joint_normal(d: Any, x: np.ndarray) -> np.ndarray:
    distributions = [st.multivariate_normal(d.location[i], covariance(d, i)) for i in range(len(x))]
    return np.array(
        [distribution.logpdf(row) for distribution, row in zip(distributions, x, strict=True)]
    )


def joint_student_t(d: Any, x: np.ndarray) -> np.ndarray:
    distributions = [
        st.multivariate_t(d.location[i].numpy(), covariance(d, i), float(d.df[i]))
        for i in range(len(x))
    ]
    return np.array(
        [distribution.logpdf(row) for distribution, row in zip(distributions, x, strict=True)]
    )


def laplace(d: Any, x: np.ndarray) -> np.ndarray:
    return st.laplace(d.location, d.scale).logpdf(x).sum(-1)


def bernoulli(d: Any, x: np.ndarray) -> np.ndarray:
    return st.bernoulli(torch.sigmoid(d.logits).numpy()).logpmf(x).sum(-1)


def poisson(d: Any, x: np.ndarray) -> np.ndarray:
    return st.poisson(d.rate.numpy()).logpmf(x).sum(-1)


def negative_binomial(d: Any, x: np.ndarray) -> np.ndarray:
    return st.nbinom(d.size.numpy(), (d.size / (d.size + d.rate)).numpy()).logpmf(x).sum(-1)


def mixture(d: Any, x: np.ndarray) -> np.ndarray:
    c, x = d.components, x[..., None, :]
    distribution = (
        st.t(c.df, c.location, c.scale) if hasattr(c, "df") else st.norm(c.location, c.scale)
    )
    return logsumexp(d.log_weights.numpy() + distribution.logpdf(x), axis=-2).sum(-1)


def categorical(d: Any, x: np.ndarray) -> np.ndarray:
    return np.take_along_axis(log_softmax(d.logits.numpy(), -1), x[:, None], -1)[:, 0]


def discretised_logistic(d: Any, x: np.ndarray) -> np.ndarray:
    V = d.num_symbols
    edges = np.concatenate([[-np.inf], (2 * np.arange(V - 1) + 1) / (V - 1) - 1, [np.inf]])
    cdf = st.logistic(d.location.numpy(), d.scale.numpy()).cdf
    mass = cdf(edges[x + 1][:, None]) - cdf(edges[x][:, None])
    return np.log((d.log_weights.exp().numpy() * mass).sum(-1))


Moments = tuple[np.ndarray, np.ndarray]  # means and variances of every row's columns


def column_moments(distribution: Any) -> Moments:
    """Of a frozen SciPy distribution."""
    mean, variance = distribution.stats("mv")
    return np.asarray(mean), np.asarray(variance)


def joint_moments(d: Any) -> Moments:
    scale = np.sqrt([np.diag(covariance(d, row)) for row in range(len(d.location))])
    if hasattr(d, "df"):
        return column_moments(st.t(d.df[:, None].numpy(), d.location.numpy(), scale))
    return column_moments(st.norm(d.location.numpy(), scale))


def skew_moments(d: Any) -> Moments:
    """From the absolute moments of each half, by their gamma functions."""
    df, skew, scale = d.df.numpy(), d.skew.numpy(), d.scale.numpy()
    first = np.sqrt(df / np.pi) * np.exp(gammaln((df - 1) / 2) - gammaln(df / 2))
    mean = ((1 + skew) ** 2 - (1 - skew) ** 2) / 2 * first
    with np.errstate(divide="ignore", invalid="ignore"):
        second = ((1 + skew) ** 3 + (1 - skew) ** 3) / 2 * np.where(df > 2, df / (df - 2), np.inf)
    return d.location.numpy() + scale * mean, scale**2 * (second - mean**2)


def mixture_moments(d: Any) -> Moments:
    c, weights = d.components, d.log_weights.exp().numpy()
    distribution = (
        st.t(c.df, c.location, c.scale) if hasattr(c, "df") else st.norm(c.location, c.scale)
    )
    mean, variance = column_moments(distribution)
    total = (weights * mean).sum(-2)
    return total, (weights * (variance + mean**2)).sum(-2) - total**2


def symbol_moments(reference: Callable[[Any, np.ndarray], np.ndarray], size: int) -> Any:
    """Of the table of probabilities that a reference gives."""

    def moments(d: Any) -> Moments:
        rows = d.batch_shape[0]
        each = [np.exp(reference(d, np.full(rows, symbol))) for symbol in range(size)]
        p = np.stack(each, -1)
        tables = [st.rv_discrete(values=(np.arange(size), row / row.sum())) for row in p]
        return np.array([t.mean() for t in tables]), np.array([t.var() for t in tables])

    return moments


@dataclass(frozen=True)
class Case:
    emission: Emission
    reference: Callable[[Any, np.ndarray], np.ndarray]
    moments: Callable[[Any], Moments]

    def raw(self, dtype: torch.dtype = torch.float64) -> Tensor:
        generator = torch.Generator().manual_seed(1)
        shape = (ROWS, self.emission.num_parameters)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    def distribution(self, dtype: torch.dtype = torch.float64) -> Any:
        return self.emission.distribution(self.raw(dtype))


def independent(family: Callable[[Any], Any]) -> Callable[[Any], Moments]:
    return lambda d: column_moments(family(d))


CASES = {
    "normal": Case(Normal(3), normal, independent(lambda d: st.norm(d.location, d.scale))),
    "normal-rank": Case(Normal(4, rank=2), joint_normal, joint_moments),
    "student_t": Case(
        StudentT(2), student_t, independent(lambda d: st.t(d.df, d.location, d.scale))
    ),
    "student_t-rank": Case(StudentT(4, rank=1), joint_student_t, joint_moments),
    "skew_student_t": Case(SkewStudentT(2), skew_student_t, skew_moments),
    "laplace": Case(Laplace(2), laplace, independent(lambda d: st.laplace(d.location, d.scale))),
    "mixture-normal": Case(Mixture("normal", 3, columns=2), mixture, mixture_moments),
    "mixture-student_t": Case(Mixture("student_t", 4), mixture, mixture_moments),
    "bernoulli": Case(
        Bernoulli(5),
        bernoulli,
        independent(lambda d: st.bernoulli(torch.sigmoid(d.logits).numpy())),
    ),
    "poisson": Case(Poisson(2), poisson, independent(lambda d: st.poisson(d.rate.numpy()))),
    "negative_binomial": Case(
        NegativeBinomial(2),
        negative_binomial,
        independent(lambda d: st.nbinom(d.size.numpy(), (d.size / (d.size + d.rate)).numpy())),
    ),
    "categorical": Case(Categorical(6), categorical, symbol_moments(categorical, 6)),
    "discretised_logistic": Case(
        DiscretisedLogistic(32, 3), discretised_logistic, symbol_moments(discretised_logistic, 32)
    ),
}
REAL = [name for name, case in CASES.items() if not case.emission.discrete]
DISCRETE = [name for name in CASES if name not in REAL]
COLUMNS = [name for name, case in CASES.items() if not case.emission.symbols]
each = pytest.mark.parametrize("name", CASES)


def uniforms(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def draws(distribution: Distribution, count: int = ROWS, seed: int = 0) -> Tensor:
    return distribution.sample_from_uniforms(uniforms(count, distribution.num_uniforms, seed=seed))


def ensemble(case: Case, members: int = 3) -> tuple[Any, Any]:
    """Distributions [members, ROWS] and their mixture [ROWS]."""
    raw = torch.stack([case.raw() + 0.3 * m for m in range(members)])
    raw[..., 0] += torch.arange(members)[:, None]  # a shift of everything changes no logits
    distributions = case.emission.distribution(raw)
    return distributions, MixtureOf(distributions, dim=0)


def test_cases_cover_every_kind() -> None:
    assert {case.emission.kind for case in CASES.values()} == set(KINDS)
    assert len(CASES) == 13


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_prob_matches_scipy(name: str, dtype: torch.dtype) -> None:
    case = CASES[name]
    distribution = case.distribution(dtype)
    x = draws(distribution)
    nats = distribution.log_prob(x)
    assert nats.dtype == dtype
    assert nats.shape == distribution.batch_shape == (ROWS,)
    assert x.dtype == (torch.int64 if case.emission.symbols else dtype)
    expected = case.reference(distribution._exact(), x.numpy())
    tolerance = 1e-10 if dtype == torch.float64 else 2e-5
    np.testing.assert_allclose(nats, expected, rtol=tolerance, atol=tolerance)


@each
def test_gradient_matches_finite_differences(name: str) -> None:
    case = CASES[name]
    x = draws(case.distribution())
    if name in REAL:
        x[0, 0] = torch.nan
        x[1] = torch.nan

    def nats(raw: Tensor) -> Tensor:
        return case.emission.distribution(raw).log_prob(x)

    assert torch.autograd.gradcheck(nats, case.raw().requires_grad_(), eps=1e-6, atol=1e-6)


@each
@pytest.mark.parametrize("mixed", [False, True], ids=["alone", "ensemble"])
def test_moments_match_scipy(name: str, mixed: bool) -> None:
    case = CASES[name]
    distribution: Any = case.distribution()
    mean, variance = case.moments(distribution)
    if mixed:  # the law of total variance over SciPy's moments of the members
        members, distribution = ensemble(case)
        means, variances = zip(*(case.moments(members[m]) for m in range(3)), strict=True)
        mean = np.mean(means, 0)
        variance = np.mean(variances, 0) + np.var(means, 0)
    np.testing.assert_allclose(distribution.mean, mean, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(distribution.variance, variance, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["poisson", "negative_binomial", "bernoulli"])
def test_count_probabilities_sum_to_one(name: str) -> None:
    distribution = CASES[name].distribution()
    total = distribution.column_log_prob(torch.arange(2000.0).reshape(-1, 1, 1)).exp().sum(0)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-9)
    impossible = distribution.column_log_prob(torch.tensor([-1.0, 0.5]).reshape(-1, 1, 1))
    assert (impossible == -torch.inf).all()


@pytest.mark.parametrize("size", [2, 3, 256])
@pytest.mark.parametrize("stretch", [1.0, 10.0, 1e4])
def test_discretised_logistic_is_proper(size: int, stretch: float) -> None:
    emission = DiscretisedLogistic(size, 4)
    distribution = emission.distribution(stretch * Case(emission, normal, joint_moments).raw())
    total = distribution.log_table().exp().sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)


def by_column(distribution: Any, x: Tensor) -> Tensor:
    """Nats of each column: those of rows in which the others are missing."""
    columns = []
    for column in range(x.shape[-1]):
        alone = torch.full_like(x, torch.nan, dtype=torch.float64)
        alone[..., column] = x[..., column]
        columns.append(distribution.log_prob(alone))
    return torch.stack(columns, -1)


# Sampling


@each
def test_samples_follow_the_distribution(name: str) -> None:
    distribution = CASES[name].distribution()[2]
    x = draws(distribution, 4000)
    for column in range(1 if x.dim() == 1 else x.shape[1]):
        values = x if x.dim() == 1 else x[:, column]
        if not CASES[name].emission.discrete:
            result = distribution.cdf(x)[:, column]
        else:  # randomised, so that it is uniform
            high, low = distribution.cdf(x), distribution.cdf(x - 1)
            high, low = (high, low) if x.dim() == 1 else (high[:, column], low[:, column])
            result = low + uniforms(4000, seed=5) * (high - low)
        assert st.kstest(result.numpy(), "uniform").pvalue > 1e-3
        assert values.unique().numel() > 1


@pytest.mark.parametrize("name", ["normal-rank", "student_t-rank"])
def test_joint_samples_follow_the_distribution(name: str) -> None:
    distribution = CASES[name].distribution()[2]
    x = draws(distribution, 4000)
    scatter = covariance(CASES[name].distribution(), 2)
    centred = (x - distribution.location).numpy()
    distance = np.einsum("ni,ij,nj->n", centred, np.linalg.inv(scatter), centred)
    reference = st.chi2(4) if name == "normal-rank" else st.f(4, float(distribution.df), scale=4)
    assert st.kstest(distance, reference.cdf).pvalue > 1e-3
    # a direction in which the columns would cancel if they were independent of each other
    direction = np.linalg.eigh(scatter)[1][:, 0]
    along = (centred @ direction) / math.sqrt(direction @ scatter @ direction)
    reference = st.norm() if name == "normal-rank" else st.t(float(distribution.df))
    assert st.kstest(along, reference.cdf).pvalue > 1e-3


@each
def test_mean_is_the_average_of_samples(name: str) -> None:
    distribution = CASES[name].distribution()[0]
    x = draws(distribution, 20_000).double()
    spread = x.std(0).clamp_max(20)  # heavy tails: a bound, not an estimate
    assert (
        (x.clamp(-1e3, 1e3).mean(0) - distribution.mean).abs() < 5 * spread / math.sqrt(20_000)
    ).all()


@each
def test_a_draw_depends_on_its_own_row_only(name: str) -> None:
    distribution = CASES[name].distribution(torch.float32)
    u = uniforms(ROWS, distribution.num_uniforms)
    together = distribution.sample_from_uniforms(u)
    for i in range(ROWS):
        torch.testing.assert_close(
            distribution[i].sample_from_uniforms(u[i]), together[i], rtol=1e-6, atol=1e-6
        )
    paths = distribution.sample_from_uniforms(u.expand(3, -1, -1))
    assert paths.shape == (3, *together.shape)
    torch.testing.assert_close(paths[2], together, rtol=1e-6, atol=1e-6)


@each
def test_sample_draws_from_its_generator_alone(name: str) -> None:
    case = CASES[name]
    distribution = case.distribution(torch.float32)
    before = torch.get_rng_state()
    x = distribution.sample((3, 2), torch.Generator().manual_seed(4))
    assert torch.equal(torch.get_rng_state(), before)
    assert x.shape == (3, 2, *distribution.mean.shape)
    assert x.dtype == (torch.int64 if case.emission.symbols else torch.float32)
    assert torch.equal(x, distribution.sample((3, 2), torch.Generator().manual_seed(4)))
    assert not torch.equal(x, distribution.sample((3, 2), torch.Generator().manual_seed(5)))
    u = uniforms(3, 2, ROWS, distribution.num_uniforms, seed=4)
    assert torch.equal(x, distribution.sample_from_uniforms(u))
    assert distribution.sample().shape == distribution.mean.shape  # torch's own generator
    assert not torch.equal(torch.get_rng_state(), before)
    torch.set_rng_state(before)


@each
def test_samples_have_the_moments(name: str) -> None:
    distribution, count = CASES[name].distribution()[1], 20_000
    x = distribution.sample((count,), torch.Generator().manual_seed(0)).double()
    mean, variance = (np.asarray(m)[1] for m in CASES[name].moments(CASES[name].distribution()))
    bounded = np.isfinite(variance)
    error = np.abs(x.mean(0).numpy() - mean)
    assert (error < 5 * np.sqrt(variance / count))[bounded].all()
    if "student_t" not in name:  # whose fourth moments need not exist
        squares = (x.numpy() - mean) ** 2
        assert (np.abs(squares.mean(0) - variance) < 5 * squares.std(0) / math.sqrt(count)).all()


# Marginals


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("mixed", [False, True], ids=["alone", "ensemble"])
def test_steps_of_the_cdf_are_the_probabilities(name: str, mixed: bool) -> None:
    distribution = ensemble(CASES[name])[1] if mixed else CASES[name].distribution()
    if not CASES[name].emission.symbols:
        distribution = distribution.marginals()
    top = 2 if name == "bernoulli" else 6
    for k in range(top):
        x = torch.full(distribution.mean.shape, k)
        step = distribution.cdf(x) - distribution.cdf(x - 1)
        nats = distribution.log_prob(x) if step.dim() == 1 else by_column(distribution, x)
        torch.testing.assert_close(nats.exp(), step, rtol=1e-9, atol=1e-12)


@each
def test_icdf_inverts_cdf(name: str) -> None:
    distribution = CASES[name].distribution()
    x = draws(distribution, seed=3).double()
    p = distribution.cdf(x)
    assert p.dtype == torch.float64
    inside = p < 1  # at the top of a finite scale any q above the last step is as good
    torch.testing.assert_close(
        distribution.icdf(p - 1e-12)[inside], x[inside], rtol=1e-6, atol=1e-6
    )
    levels = torch.tensor([0.01, 0.3, 0.5, 0.99]).reshape(-1, *[1] * x.dim())
    q = distribution.icdf(levels)
    assert q.shape == (4, *x.shape)
    below = 1 if CASES[name].emission.discrete else 1e-6
    assert (distribution.cdf(q) >= levels.double() - 1e-9).all()
    assert (distribution.cdf(q - below) < levels).all()


def brute_crps(distribution: Distribution, x: float, discrete: bool) -> float:
    """The integral of (cdf - step)^2 for a distribution of a single column or symbol."""
    if discrete:
        k = torch.arange(0.0, 3000.0).double()
        cdf = distribution.cdf(k[:, None] if distribution.mean.dim() else k).flatten()
        return float(((cdf - (x <= k).double()) ** 2).sum())

    def gap(y: float) -> float:
        return (float(distribution.cdf(torch.tensor([y]).double())) - (x <= y)) ** 2

    marks = [
        float(distribution.icdf(torch.tensor([p]))) for p in (1e-5, 1e-3, 0.1, 0.5, 0.9, 0.999)
    ]
    marks = sorted([*marks, float(distribution.icdf(torch.tensor([1 - 1e-5]).double())), x])
    inner = sum(quad(gap, a, b, epsabs=1e-8)[0] for a, b in pairwise(marks))
    return inner + quad(gap, -np.inf, marks[0])[0] + quad(gap, marks[-1], np.inf)[0]


def single(name: str) -> Distribution:
    """The case's distribution, cut down to one column."""
    emission, columns = CASES[name].emission, {"columns": 1, "rank": 0}
    description = {k: columns.get(k, v) for k, v in emission.to_json().items()}
    emission = emissions.from_json(description)
    return Case(emission, normal, joint_moments).distribution()


@each
@pytest.mark.parametrize("mixed", [False, True], ids=["alone", "ensemble"])
def test_crps_matches_the_integral(name: str, mixed: bool) -> None:
    discrete = CASES[name].emission.discrete
    distribution = MixtureOf(single(name), dim=0) if mixed else single(name)[2]
    rel = 1e-5 if mixed and not discrete else 1e-8
    for x in (0.0, 1.0, 3.0) if discrete else (-7.3, 0.2, 25.0):
        if name == "bernoulli" and x > 1:
            continue
        at = torch.tensor(x, dtype=torch.float64)
        result = distribution.crps(at if CASES[name].emission.symbols else at[None])
        assert float(result) == pytest.approx(
            brute_crps(distribution, x, discrete), rel=rel, abs=1e-7
        )


def test_crps_matches_scoringrules() -> None:
    def check(name: str, reference: Callable[[Any, Any], Any]) -> None:
        distribution = CASES[name].distribution()
        x = draws(distribution, seed=4)
        np.testing.assert_allclose(
            distribution.crps(x), reference(distribution, x.numpy()), rtol=1e-9, atol=1e-9
        )

    def numbers(*parts: Tensor) -> list[np.ndarray]:
        return [part.numpy() for part in parts]

    check("normal", lambda d, x: scoringrules.crps_normal(x, *numbers(d.location, d.scale)))
    check("student_t", lambda d, x: scoringrules.crps_t(x, *numbers(d.df, d.location, d.scale)))
    check("laplace", lambda d, x: scoringrules.crps_laplace(x, *numbers(d.location, d.scale)))
    check("poisson", lambda d, x: scoringrules.crps_poisson(x, d.rate.numpy()))
    check(
        "negative_binomial",
        lambda d, x: scoringrules.crps_negbinom(x, *numbers(d.size, d.size / (d.size + d.rate))),
    )
    check(
        "mixture-normal",
        lambda d, x: scoringrules.crps_mixnorm(
            x, *numbers(d.components.location, d.components.scale, d.log_weights.exp()), m_axis=-2
        ),
    )


def test_crps_of_far_and_spiky_distribution() -> None:
    # two spikes far apart, heavy tails: E|X - 0| - E|X - X'| / 2 = 50 - 25, but for the spikes
    raw = torch.tensor([0, 0, 0, 100, -9.0, -9.0, 1.0, 1.0]).double()
    distribution = Mixture("student_t", 2).distribution(raw)
    assert float(distribution.crps(torch.tensor([0.0]))) == pytest.approx(25, abs=1e-3)
    # counts over so many numbers that the sum is integrated
    wide: Any = NegativeBinomial().distribution(torch.tensor([5.0, 1.0]).double())
    k = torch.arange(0.0, 10_000).double()[:, None]
    for x in (0.0, 3.0, 150.0, 4_000.0):
        exact = ((wide.cdf(k) - (x <= k).double()) ** 2).sum()
        assert float(wide.crps(torch.tensor([x]))) == pytest.approx(float(exact), rel=1e-5)
    # far below and far above all mass
    many: Any = Poisson().distribution(torch.tensor([math.log(1e4)]).double())
    spread = float(many.crps(many.rate.round())) / float(many.rate.sqrt())
    assert spread == pytest.approx((math.sqrt(2) - 1) / math.sqrt(math.pi), rel=0.01)
    far = many.crps(torch.tensor([30_000.0])) - many.crps(torch.tensor([20_000.0]))
    assert float(far) == pytest.approx(10_000, abs=1e-6)
    near = many.crps(torch.tensor([0.0])) - many.crps(torch.tensor([1_000.0]))
    assert float(near) == pytest.approx(1_000, abs=1e-6)


@pytest.mark.parametrize("name", COLUMNS)
@pytest.mark.parametrize("mixed", [False, True], ids=["alone", "ensemble"])
def test_scores_of_missing_values_are_missing(name: str, mixed: bool) -> None:
    distribution = ensemble(CASES[name])[1] if mixed else CASES[name].distribution()
    x = draws(distribution, seed=3)
    x[2, 0] = torch.nan
    for result in (distribution.cdf(x), distribution.crps(x)):
        assert torch.equal(result.isnan(), x.isnan())


# Starting values


def test_initial_reproduces_the_maximum_likelihood_fit() -> None:
    rng = np.random.default_rng(0)
    returns = 0.01 * st.t(4).rvs(5000, random_state=rng) + 0.02
    distribution: Any = start(StudentT(), returns)
    df, location, scale = st.t.fit(returns)
    assert float(distribution.df) == pytest.approx(df, rel=0.05)
    assert float(distribution.location) == pytest.approx(location, abs=2e-4)
    assert float(distribution.scale) == pytest.approx(scale, rel=0.02)

    distribution = start(Normal(), 1e5 + 1e3 * rng.standard_normal(1000))
    assert float(distribution.location) == pytest.approx(1e5, rel=1e-2)
    assert float(distribution.scale) == pytest.approx(1e3, rel=0.1)

    values = st.laplace(3, 2).rvs(1000, random_state=rng)
    distribution = start(Laplace(), values)
    assert (float(distribution.location), float(distribution.scale)) == pytest.approx(
        st.laplace.fit(values)
    )

    counts = st.nbinom(3, 0.2).rvs(4000, random_state=rng)
    distribution = start(NegativeBinomial(), counts)
    assert float(distribution.rate) == pytest.approx(counts.mean(), rel=0.01)
    assert float(distribution.size) == pytest.approx(3, rel=0.1)
    distribution = start(Poisson(), counts)
    assert float(distribution.rate) == pytest.approx(counts.mean())

    distribution = start(Bernoulli(2), np.array([[0, 1], [0, 0], [0, 1], [0, 1]]))
    assert distribution.mean.tolist() == pytest.approx([0.5 / 5, 3.5 / 5])

    distribution = start(Categorical(3), np.array([0, 0, 1, 0]))
    assert torch.softmax(distribution.logits, -1).tolist() == pytest.approx(
        [10 / 15, 4 / 15, 1 / 15]
    )


def test_initial_mixtures_reproduce_the_shape() -> None:
    rng = np.random.default_rng(0)
    pick = rng.random(4000) < 0.3
    values = np.where(pick, rng.normal(-50, 2, 4000), rng.normal(80, 10, 4000))
    truth = np.log(0.3 * st.norm(-50, 2).pdf(values) + 0.7 * st.norm(80, 10).pdf(values)).mean()
    for component in ("normal", "student_t"):
        emission = Mixture(component, 3)
        nats = start(emission, values).log_prob(torch.as_tensor(values)[:, None]).mean()
        assert truth - 0.005 < float(nats) < truth + 0.02

    symbols = torch.as_tensor(values / 2 + 100).round().clamp(0, 255).long()
    distribution = start(DiscretisedLogistic(256, 5), symbols)
    share = torch.bincount(symbols, minlength=256).double() / len(symbols)
    entropy = -float(torch.special.xlogy(share, share).sum())
    assert entropy < -float(distribution.log_prob(symbols).mean()) < entropy + 0.05


@pytest.mark.parametrize("emission", [Normal(4, rank=1), StudentT(4, rank=1)])
def test_initial_factors_reproduce_the_covariance(emission: Any) -> None:
    scatter = np.diag([1.0, 4.0, 9.0, 0.25]) + 3 * np.outer([1, -2, 1, 0.5], [1, -2, 1, 0.5])
    rng = np.random.default_rng(0)
    df = 1e6 if emission.kind == "normal" else 5
    values = st.multivariate_t(np.arange(4), scatter, df).rvs(4000, random_state=rng)
    distribution: Any = start(emission, values)
    wide = distribution.scale[:, None] * distribution.loadings
    result = wide @ wide.mT + torch.diag(distribution.scale**2)
    np.testing.assert_allclose(result, scatter, rtol=0.12, atol=0.15)
    np.testing.assert_allclose(distribution.location, np.arange(4), atol=0.15)
    if emission.kind == "student_t":
        assert float(distribution.df) == pytest.approx(5, rel=0.2)


def start(emission: Emission, values: np.ndarray | Tensor) -> Distribution:
    raw = emission.initial(torch.as_tensor(values))
    assert raw.shape == (emission.num_parameters,)
    assert raw.dtype == torch.float64
    return emission.distribution(raw)


@pytest.mark.parametrize("name", COLUMNS)
def test_initial_ignores_missing_values(name: str) -> None:
    emission = CASES[name].emission
    values = draws(CASES[name].distribution()[0], 300)
    gaps = torch.full((20, emission.columns), torch.nan, dtype=torch.float64)
    torch.testing.assert_close(
        emission.initial(torch.cat([values, gaps])), emission.initial(values)
    )
    with pytest.raises(DataError, match="column 0 holds no value"):
        emission.initial(gaps)


@each
@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_initial_of_few_or_constant_values_is_finite(name: str, count: int) -> None:
    emission = CASES[name].emission
    shape = (count,) if emission.symbols else (count, emission.columns)
    x = torch.ones(shape)
    distribution = start(emission, x)
    assert torch.isfinite(distribution.log_prob(x.long() if emission.symbols else x)).all()
    if count == 1 and name in REAL:  # one value tells nothing of the scale
        assert (distribution.log_prob(x) < 0).all()


def test_initial_refuses_unknown_symbols() -> None:
    with pytest.raises(VocabularyError, match="from 0 to 7, but num_symbols=5"):
        Categorical(5).initial(torch.tensor([0, 7]))
    with pytest.raises(DataError, match="no symbols"):
        DiscretisedLogistic(5).initial(torch.tensor([], dtype=torch.int64))


# Safety


@each
@pytest.mark.parametrize("size", [30.0, 1e3, 1e6, 1e30])
def test_extreme_raw_values_stay_finite(name: str, size: float) -> None:
    emission = CASES[name].emission
    signs = torch.randn(64, emission.num_parameters, generator=torch.Generator().manual_seed(2))
    raw = (size * signs.sign()).requires_grad_()
    distribution = emission.distribution(raw)
    for value in (0, 1):
        x = torch.full(distribution.mean.shape, float(value))
        nats = distribution.log_prob(x.long() if emission.symbols else x)
        assert torch.isfinite(nats).all()
        (gradient,) = torch.autograd.grad(nats.sum(), raw, retain_graph=True)
        assert torch.isfinite(gradient).all()


@each
def test_nan_from_a_diverged_network_stays_nan(name: str) -> None:
    raw = CASES[name].raw()
    x = draws(CASES[name].distribution())
    assert CASES[name].emission.distribution(raw * torch.nan).log_prob(x).isnan().all()


@pytest.mark.parametrize("name", REAL)
def test_missing_columns_count_nothing(name: str) -> None:
    case = CASES[name]
    raw = case.raw().requires_grad_()
    distribution = case.emission.distribution(raw)
    missing = torch.full((ROWS, case.emission.columns), torch.nan, dtype=torch.float64)
    nats = distribution.log_prob(missing)
    assert (nats == 0).all()
    (gradient,) = torch.autograd.grad(nats.sum(), raw)
    assert (gradient == 0).all()


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("mixed", [False, True], ids=["alone", "ensemble"])
def test_a_partly_missing_row_has_its_marginal_density(name: str, mixed: bool) -> None:
    case = CASES[name]
    distribution = ensemble(case)[1] if mixed else case.distribution()
    x = draws(distribution)
    h = 1e-5
    slope = (distribution.cdf(x + h) - distribution.cdf(x - h)) / (2 * h)
    torch.testing.assert_close(by_column(distribution, x).exp(), slope, rtol=1e-5, atol=1e-7)


def test_correlated_columns_with_gaps_match_the_smaller_distribution() -> None:
    for name in ("normal-rank", "student_t-rank"):
        distribution = CASES[name].distribution()
        x = draws(distribution)
        x[:, [0, 2]] = torch.nan
        kept = [1, 3]
        for i in range(ROWS):
            scatter = covariance(distribution, i)[np.ix_(kept, kept)]
            centre = distribution.location[i, kept].numpy()
            if name == "normal-rank":
                expected = st.multivariate_normal(centre, scatter).logpdf(x[i, kept])
            else:
                expected = st.multivariate_t(centre, scatter, float(distribution.df[i])).logpdf(
                    x[i, kept]
                )
            assert float(distribution.log_prob(x)[i]) == pytest.approx(expected, rel=1e-9)


def test_constraint_maps() -> None:
    raw = torch.tensor([0.5, -3.0, 1.0]).double()
    distribution: Any = StudentT(min_scale=0.2).distribution(raw)
    assert float(distribution.location) == 0.5
    assert float(distribution.scale) == pytest.approx(0.2 + math.log1p(math.exp(-3)))
    assert float(distribution.df) == pytest.approx(1 + math.exp(7 * math.tanh(1 / 7)))
    slope = torch.linspace(0.9, 2.2, 50)
    distribution = StudentT().distribution(torch.stack([slope, slope, slope], -1))
    assert distribution.df.min() < 3.6
    assert (
        distribution.df.max() > 8.5
    )  # the degrees of freedom of daily returns are all within one step
    assert float(Poisson().distribution(torch.tensor([2.0])).mean) == pytest.approx(7.389, rel=0.01)


# Mixtures over a batch dimension


@each
def test_mixture_of_matches_by_hand(name: str) -> None:
    case = CASES[name]
    distributions, mixed = ensemble(case)
    x = draws(distributions[1], seed=7)
    nats = torch.stack([distributions[m].log_prob(x) for m in range(3)])
    torch.testing.assert_close(mixed.log_prob(x), torch.logsumexp(nats, 0) - math.log(3))
    torch.testing.assert_close(mixed.mean, distributions.mean.mean(0))
    cdfs = torch.stack([distributions[m].cdf(x) for m in range(3)])
    torch.testing.assert_close(mixed.cdf(x), cdfs.mean(0))
    assert mixed.batch_shape == (ROWS,)
    assert mixed.discrete == case.emission.discrete
    q = mixed.icdf(0.7)
    assert (mixed.cdf(q) >= 0.7 - 1e-9).all()
    assert (mixed.cdf(q - (1 if mixed.discrete else 1e-6)) < 0.7).all()
    torch.testing.assert_close(mixed[2:4].log_prob(x[2:4]), mixed.log_prob(x)[2:4])


@each
def test_mixture_of_takes_any_dimension(name: str) -> None:
    emission = CASES[name].emission
    raw = torch.stack([CASES[name].raw() + m for m in range(3)])
    x = draws(emission.distribution(raw[0]))
    first = MixtureOf(emission.distribution(raw), dim=0).log_prob(x)
    last = MixtureOf(emission.distribution(raw.movedim(0, 1))).log_prob(x)
    torch.testing.assert_close(first, last)


@each
def test_mixture_of_samples_follow_it(name: str) -> None:
    _, mixed = ensemble(CASES[name])
    one = mixed[3]
    x = draws(one, 4000)
    high, low = one.cdf(x), one.cdf(x - 1) if one.discrete else one.cdf(x)
    result = low + uniforms(*x.shape, seed=5) * (high - low)
    for column in result.reshape(4000, -1).T:
        assert st.kstest(column.numpy(), "uniform").pvalue > 1e-3


def test_mixture_of_chooses_one_member_for_the_whole_row() -> None:
    raw = torch.tensor([[-100.0, -100.0, 0, 0], [100.0, 100.0, 0, 0]])
    x = draws(MixtureOf(Normal(2).distribution(raw)), 200)
    assert (x[:, 0].sign() == x[:, 1].sign()).all()
    assert 60 < (x[:, 0] > 0).sum() < 140


@each
def test_weighted_mixture_matches_by_hand(name: str) -> None:
    case, weights = CASES[name], torch.tensor([0.7, 0.1, 0.2], dtype=torch.float64)
    members, _ = ensemble(case)
    parts = [members[m] for m in range(3)]
    mixed = weighted_mixture(parts, weights)
    assert mixed.batch_shape == (ROWS,)
    assert mixed.discrete == case.emission.discrete
    x = draws(parts[1], seed=7)
    nats = np.stack([case.reference(part._exact(), x.numpy()) for part in parts])
    expected = logsumexp(nats + weights.log().numpy()[:, None], axis=0)
    np.testing.assert_allclose(mixed.log_prob(x), expected, rtol=1e-9)
    means, variances = map(np.stack, zip(*map(case.moments, parts), strict=True))
    w = weights.numpy().reshape(-1, *[1] * (means.ndim - 1))
    mean = (w * means).sum(0)
    np.testing.assert_allclose(mixed.mean, mean, rtol=1e-9, atol=1e-9)
    variance = (w * (variances + means**2)).sum(0) - mean**2
    np.testing.assert_allclose(mixed.variance, variance, rtol=1e-9, atol=1e-9)
    q = mixed.icdf(0.7)
    assert (mixed.cdf(q) >= 0.7 - 1e-9).all()
    assert (mixed.cdf(q - (1 if mixed.discrete else 1e-6)) < 0.7).all()
    one = mixed[3]
    x = draws(one, 4000)
    high, low = one.cdf(x), one.cdf(x - 1) if one.discrete else one.cdf(x)
    actual = low + uniforms(*x.shape, seed=5) * (high - low)
    for column in actual.reshape(4000, -1).T:
        assert st.kstest(column.numpy(), "uniform").pvalue > 1e-3


# Symbols


def test_tempered_and_nucleus() -> None:
    p = torch.tensor([0.5, 0.1, 0.3, 0.1]).double()
    distribution = Categorical(4).distribution(torch.log(p))
    torch.testing.assert_close(
        distribution.tempered(0.5).log_prob(torch.arange(4)).exp(), p**2 / 0.36
    )
    kept = distribution.nucleus(0.7).log_prob(torch.arange(4)).exp()
    torch.testing.assert_close(kept, torch.tensor([0.625, 0, 0.375, 0]).double())
    assert set(draws(distribution.nucleus(0.7), 500).tolist()) == {0, 2}
    torch.testing.assert_close(distribution.nucleus(1.0).log_prob(torch.arange(4)).exp(), p)
    assert set(draws(distribution.nucleus(1e-6), 50).tolist()) == {0}
    edges = torch.tensor([[1e-300], [1 - 2**-53]]).double()
    assert distribution.nucleus(0.7).sample_from_uniforms(edges).tolist() == [0, 2]
    # rounding of the cumulated probabilities must not reach a symbol that was dropped
    raw = torch.randn(2000, 50, generator=torch.Generator().manual_seed(0))
    many = Categorical(50).distribution(raw).nucleus(0.9)
    assert torch.isfinite(many.log_prob(many.sample_from_uniforms(edges[1]))).all()
    for value in (0.0, -1.0, math.nan, 1.5):
        with pytest.raises(SettingError, match="top_p"):
            distribution.nucleus(value)
    with pytest.raises(SettingError, match="temperature"):
        distribution.tempered(0.0)
    sound = DiscretisedLogistic(16, 2).distribution(torch.zeros(3, 6)).nucleus(0.5)
    assert sound.batch_shape == (3,)


def test_symbols_outside_the_levels_are_refused() -> None:
    distribution = Categorical(3).distribution(torch.zeros(2, 3))
    for x in (3, -1, -100):
        with pytest.raises((IndexError, RuntimeError)):
            distribution.log_prob(torch.tensor([0, x]))


def test_symbol_cdf_outside_the_levels() -> None:
    distribution = Categorical(3).distribution(torch.zeros(3).double())
    result = distribution.cdf(torch.tensor([-1.0, 0, 0.5, 2, 9]))
    torch.testing.assert_close(result, torch.tensor([0, 1 / 3, 1 / 3, 1, 1]).double())


# Values


@each
def test_emission_is_a_value(name: str) -> None:
    emission = CASES[name].emission
    again = emissions.from_json(json.loads(json.dumps(emission.to_json())))
    assert again == emission
    assert hash(again) == hash(emission)
    with pytest.raises(FrozenInstanceError):
        emission.columns = 9


def test_parse_reads_the_string_form_and_takes_emissions() -> None:
    parse = emissions.parse
    assert parse("student_t:rank=2", columns=4) == StudentT(4, rank=2)
    assert parse("student_t: rank=1, min_scale=0.01", columns=3) == StudentT(3, 1, min_scale=0.01)
    assert parse("mixture:component=normal,num_components=5") == Mixture("normal", 5)
    assert parse("mixture", columns=2) == Mixture("student_t", 3, 2)
    assert parse("categorical", num_symbols=7) == Categorical(7)
    assert parse("discretised_logistic:num_components=4", num_symbols=16) == DiscretisedLogistic(
        16, 4
    )
    assert parse(Normal(2), columns=2) == Normal(2)
    assert parse(Laplace(), columns=3) == Laplace(3)  # as many columns as the data have
    assert parse(Categorical(9), num_symbols=4) == Categorical(9)
    for kind in KINDS:  # each row of the table
        made = parse(kind, **({"num_symbols": 5} if KINDS[kind].symbols else {"columns": 2}))
        assert parse(made) is made
        assert made.kind == kind


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Normal(0), "columns must be an integer of at least 1, not 0"),
        (lambda: Normal(2, rank=2), "rank=2 needs more than 2 columns"),
        (lambda: StudentT(2, rank=-1), "rank must be an integer"),
        (lambda: StudentT(min_scale=0.0), "min_scale must be a finite number above zero"),
        (lambda: Categorical(2.5), "num_symbols"),  # type: ignore[arg-type]
        (lambda: Mixture("cauchy"), "component must be 'normal' or 'student_t'"),
        (lambda: emissions.from_json({"kind": "zeta"}), "'zeta' is unknown; it is one of categor"),
        (
            lambda: emissions.from_json({"kind": "poisson", "rank": 1}),
            "'poisson' has no option 'rank'",
        ),
        (lambda: emissions.parse("studentt"), "'studentt' is unknown; did you mean 'student_t'?"),
        (
            lambda: emissions.parse("student_t:rnk=2"),
            "'student_t' has no option 'rnk'; did you mean 'rank'?",
        ),
        (lambda: emissions.parse("student_t:rank=x"), "write rank=<int>, not 'rank=x'"),
        (lambda: emissions.parse("student_t:rank"), "write rank=<int>, not 'rank'"),
        (lambda: emissions.parse("categorical"), "'categorical' cannot be made"),
        (lambda: emissions.parse("categorical", columns=1), "for symbols; these data are values"),
        (lambda: emissions.parse(Normal(), num_symbols=3), "for values; these data are symbols"),
        (
            lambda: emissions.parse(Categorical(3), num_symbols=4),
            "3 symbols, but these data have 4",
        ),
        (lambda: emissions.parse(Normal(3), columns=2), "3 columns, these data have 2"),
    ],
)
def test_nonsense_is_refused(make: Callable[[], Emission], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        make()


@each
def test_indexing_takes_batch_entries(name: str) -> None:
    emission = CASES[name].emission
    raw = torch.stack([CASES[name].raw(), CASES[name].raw() + 1])
    distribution = emission.distribution(raw)
    assert distribution.batch_shape == (2, ROWS)
    mask = torch.arange(ROWS) % 2 == 0
    for index in (1, slice(0, 1), (1, 3), (slice(None), mask), torch.tensor([1, 0])):
        chosen = emission.distribution(raw[index])
        x = draws(chosen[0] if chosen.batch_shape else chosen, 1)[0]
        torch.testing.assert_close(distribution[index].log_prob(x), chosen.log_prob(x))
        torch.testing.assert_close(distribution[index].mean, chosen.mean)


def test_import_is_light() -> None:
    code = "import sys, throughtime.emissions; print([m for m in sys.modules if m == 'scipy'])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
