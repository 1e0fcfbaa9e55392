"""The native loops of sampling against the loop in Python, which is the specification."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from support.native_cases import running
from support.sampling_cases import CELLS, HEADS, both, model, same, starting

import throughtime as tt
from throughtime import emissions, rng
from throughtime import state as states
from throughtime.errors import SettingError
from throughtime.kernels import native
from throughtime.models.native import sampler as sampling

pytestmark = pytest.mark.skipif(not native.available(), reason="the native library was not built")

# -------------------------------------------------------------------- the maps of the distributions

ODD = (0.0, -0.7, 3.0, -30.0, 25.0, 1e12, torch.nan)  # raw numbers


@pytest.mark.parametrize("head", [name for name in HEADS if name != "categorical"])
@pytest.mark.parametrize("value", ODD)
def test_draws_are_the_emissions_own(head: str, value: float):
    emission = HEADS[head]
    made = model(emission)
    with torch.no_grad():
        made.head_weight.zero_()
        made.head_bias[0, ::2] = value
        made.head_bias[0, 1::2] = -0.4
    root, paths = rng.root(5, "here"), 300
    u = rng.uniforms(rng.streams(root, torch.arange(paths)), 0, 4 * emission.num_parameters)
    distribution = emission.distribution(made.head_bias[0].detach())
    actual = made.sample(1, num_paths=paths, seed=5, name="here")[:, 0]
    expected = distribution.sample_from_uniforms(u[:, : distribution.num_uniforms])
    # SciPy's incomplete beta function, from which Python's draws are, loses digits at huge rates
    same(actual, expected, 1e-6 if head == "negative_binomial" and value > 1e9 else 1e-11)


@pytest.mark.parametrize("rate", [1e-12, 0.3, 40.0, 599.0, 601.0, 3e4, 1e8, 1e13])
def test_quantiles_of_poisson_counts_at_all_rates(rate: float):
    made, paths = model(emissions.Poisson()), 500
    with torch.no_grad():
        made.head_weight.zero_()
        made.head_bias[:] = float(np.arctanh(np.log(rate) / 30) * 30)
    result = made.sample(1, num_paths=paths, seed=1)[:, 0, 0].numpy()
    u = rng.uniforms(rng.streams(rng.root(1), torch.arange(paths)), 0, 1)[:, 0].numpy()
    assert (scipy.special.pdtr(result, rate) >= u - 1e-13).all()
    missed = np.where(result > 0, scipy.special.pdtr(result - 1, rate), 0.0)
    assert (missed <= u + 1e-13).all()


@pytest.mark.parametrize(("rate", "size"), [
    (0.2, 0.01), (5.0, 2.0), (900.0, 2e4), (3e3, 0.3), (1e5, 50.0), (1e5, 2e4), (1e9, 7.0),
    (1e12, 2e4), (1e9, 0.01),
])  # fmt: skip
def test_quantiles_of_negative_binomial_counts_at_all_rates(rate: float, size: float):
    made, paths = model(emissions.NegativeBinomial()), 300
    with torch.no_grad():
        made.head_weight.zero_()
        made.head_bias[0, 0] = float(np.arctanh(np.log(rate) / 30) * 30)
        made.head_bias[0, 1] = float(np.arctanh(np.log(size) / 10) * 10)
    result = made.sample(1, num_paths=paths, seed=1)[:, 0, 0].numpy()
    u = rng.uniforms(rng.streams(rng.root(1), torch.arange(paths)), 0, 1)[:, 0].numpy()
    success = size / (size + rate)
    reached = scipy.special.betainc(size, result + 1, success)
    missed = np.where(result > 0, scipy.special.betainc(size, result, success), 0.0)
    error = 1e-12 if rate < 1e4 and size < 1e3 else 1e-10 if rate < 1e9 else 2e-8  # SciPy's own
    assert (reached >= u - error).all()
    assert (missed <= u + error).all()


# ----------------------------------------------------------------------------------- whole paths


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("cell", CELLS)
def test_paths_are_those_of_the_loop_in_python(head: str, cell: str):
    actual, expected = both(model(HEADS[head], cell), 60, num_paths=5, seed=2)
    same(actual, expected)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("layers", [2, 3])
@pytest.mark.parametrize("size", [1, 8, 33])
def test_paths_of_deeper_networks(cell: str, layers: int, size: int):
    made = model(HEADS["student_t"], cell, size, num_layers=layers)
    same(*both(made, 40, num_paths=30))
    made = model(emissions.Categorical(70), cell, size, num_layers=layers)
    same(*both(made, 40, num_paths=1))


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_paths_of_several_members(head: str, cell: str):
    same(*both(model(HEADS[head], cell, members=3, num_layers=2), 40, num_paths=7))


@pytest.mark.parametrize("members", [1, 3])
@pytest.mark.parametrize(
    ("temperature", "top_p"), [(0.5, 1.0), (1.0, 0.6), (1.7, 0.9), (0.8, 0.01), (1.0, 0.9)]
)
def test_shaped_distribution_of_symbols(members: int, temperature: float, top_p: float):
    made = model(emissions.Categorical(11), members=members)
    with torch.no_grad():
        made.head_bias[:, 4:8] = 0.25  # equally likely ones: the lower symbol comes first
        made.head_weight[:, 4:8] = 0
    actual, expected = both(made, 80, num_paths=6, temperature=temperature, top_p=top_p)
    same(actual, expected)
    plain = made.sample(80, num_paths=6)
    assert not torch.equal(actual, plain)


@pytest.mark.parametrize("head", ["categorical", "student_t", "poisson"])
@pytest.mark.parametrize("each", [False, True])
def test_covariates_and_identities(head: str, each: bool):
    made = model(HEADS[head], covariates=2, identities=("a", "b"))
    known = torch.randn(*([5] if each else []), 30, 2, generator=torch.Generator().manual_seed(1))
    known[..., 3, 0] = torch.nan
    for series in (None, torch.tensor([1]), torch.tensor([0, 1, -1, 1, 0])):
        same(*both(made, 30, num_paths=5, covariates=known, series=series))
    assert len(list(made.stream(num_paths=5, covariates=known))) == 30
    for wrong in (None, known[..., :1]):
        with pytest.raises(SettingError, match="this model needs 2 covariate"):
            made.sample(3, num_paths=5, covariates=wrong)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("members", [1, 2])
def test_going_on_from_a_past(head: str, members: int):
    made = model(HEADS[head], "lstm", members=members)
    past = made.sample(12, num_paths=3)
    past = past.double() if past.is_floating_point() else past
    context = made.condition(tt.Sequences.of(list(past)))
    kept = states.clone(context.state)
    same(*both(made, 20, num_paths=5, context=context[[0, 1, 2, 2, 1]]))
    same(*both(made, 20, num_paths=4, context=context[0]))
    if past.is_floating_point():
        missing = torch.full_like(context.previous[:1], torch.nan)
        same(*both(made, 5, num_paths=4, context=replace(context[0], previous=missing)))
    written = states.leaves(context.state)
    assert all(map(torch.equal, states.leaves(kept), written))  # not written to


def test_the_first_step_of_differenced_values():
    made = model(emissions.StudentT(), num_differencing=1)
    made.initial_raw.copy_(torch.tensor([100.0, 0.5, 1.0]))
    actual, expected = both(made, 10, num_paths=50)
    same(actual, expected)
    assert (actual[:, 0] > 50).float().mean() > 0.9
    assert (actual[:, 1] < 50).float().mean() > 0.9


def test_a_large_alphabet_without_a_table():
    same(*both(model(emissions.Categorical(1500)), 20, num_paths=3))


def test_one_path_of_a_large_network_on_two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        made = model(emissions.Categorical(40), "gru", 300)
        shared = made.sample(150)
        torch.set_num_threads(1)
        assert torch.equal(shared, made.sample(150))
    finally:
        torch.set_num_threads(before)
    same(*both(made, 30, num_paths=1))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("head", HEADS)
def test_parameters_that_are_not_finite_end_as_in_python(head: str, value: float):
    made = model(HEADS[head])
    with torch.no_grad():
        made.head_bias[0, 0] = value
    if head == "poisson" and value == torch.nan:
        made.head_bias.data[0, 1] = 0.5
    same(*both(made, 5, num_paths=4))


# ---------------------------------------------------------------------------- one seed, one path


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("head", ["categorical", "student_t", "normals", "negative_binomial"])
def test_the_same_bits_whatever_runs_beside(head: str, dtype: torch.dtype, monkeypatch):
    made = model(HEADS[head], "lstm", 40, dtype, num_layers=2, members=2)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        every = made.sample(70, num_paths=61, seed=9)
        for paths in (1, 2, 3, 7, 24, 25, 60):
            assert torch.equal(made.sample(70, num_paths=paths, seed=9), every[:paths])
        torch.set_num_threads(2)
        assert torch.equal(made.sample(70, num_paths=61, seed=9), every)
        stream = made.stream(num_paths=5, seed=9)
        assert torch.equal(torch.stack([next(stream) for _ in range(70)], 1), every[:5])
        monkeypatch.setattr(sampling, "_MOST_WORK", 100_000)  # few paths and steps at a time
        assert torch.equal(made.sample(70, num_paths=61, seed=9), every)
    finally:
        torch.set_num_threads(before)


def test_the_first_step_of_a_stream_comes_at_once(monkeypatch):
    made, asked = model(emissions.Categorical(5)), []
    steps = sampling.Sampler._steps
    monkeypatch.setattr(
        sampling.Sampler, "_steps", lambda *a: asked.append(a[1]) or steps(*a)
    )  # fmt: skip
    stream = made.stream()
    next(stream)
    assert asked == [1]
    for _ in range(199):
        next(stream)
    assert asked == [1, 2, 4, 8, 16, 32, 64, 64, 64]


@pytest.mark.parametrize("paths", [1, 30])
def test_workspaces_full_of_nan_change_nothing(paths: int):
    made = [model(HEADS[head], num_layers=2, members=2) for head in ("categorical", "students")]
    expected = [one.sample(20, num_paths=paths) for one in made]
    native.library().tt_poison(1)
    try:
        actual = [one.sample(20, num_paths=paths) for one in made]
    finally:
        native.library().tt_poison(0)
    assert all(map(torch.equal, actual, expected))


@pytest.mark.parametrize("size", [5, 40])
@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("name", ["avx512", "avx2", "neon", "baseline"])
def test_every_set_of_instructions(name: str, cell: str, size: int):
    """Values agree to rounding, which a chaotic network would soon blow up: few steps."""
    with running(name):
        same(*both(model(HEADS["students"], cell, size), 30, num_paths=20))
        same(*both(model(HEADS["categorical"], cell, size, num_layers=2), 30, num_paths=1))
        if cell == "gru":
            single = model(HEADS["student_t"], cell, size, torch.float32)
            same(*both(single, 3, num_paths=20), 1e-4)


# ---------------------------------------------------------------------------- equal in distribution


def test_symbols_come_as_often_as_enumeration_says():
    made = model(emissions.Categorical(3), dtype=torch.float32)
    length, paths = 4, 40_000
    words = torch.cartesian_prod(*[torch.arange(3)] * length)
    chances = made.log_prob(list(words)).exp().numpy()
    drawn = made.sample(length, num_paths=paths, seed=11)
    code = (drawn * 3 ** torch.arange(length - 1, -1, -1)).sum(1)
    counts = torch.bincount(code, minlength=3**length).numpy()
    assert chances.sum() == pytest.approx(1, abs=1e-6)
    assert scipy.stats.chisquare(counts, paths * chances / chances.sum()).pvalue > 1e-4
    wrong = chances * np.linspace(0.9, 1.1, len(chances))
    assert scipy.stats.chisquare(counts, paths * wrong / wrong.sum()).pvalue < 1e-4


@pytest.mark.parametrize("head", ["normal", "student_t", "laplace", "normals", "students"])
def test_values_are_uniform_under_their_own_distribution(head: str):
    made = model(HEADS[head], dtype=torch.float32)
    drawn = made.sample(25, num_paths=400, seed=4)
    data = tt.Sequences.of([path.double() for path in drawn])
    levels = []
    for batch, distribution in made.distributions(data):
        levels.append(distribution.cdf(batch.x)[batch.weight > 0].flatten())
    result = torch.cat(levels).numpy()
    assert len(result) == 400 * 25 * HEADS[head].columns
    assert scipy.stats.kstest(result, "uniform").pvalue > 1e-4
    assert scipy.stats.kstest(result**1.1, "uniform").pvalue < 1e-4


# ------------------------------------------------------------------------------ who draws what


def test_what_the_native_loops_leave_to_python():
    factors = model(emissions.Normal(3, 1))
    levels = model(emissions.DiscretisedLogistic(16, 2))
    without_loop = model(HEADS["normal"], "mingru")
    for made in (factors, levels, without_loop):
        assert made._sampler(starting(made)) is None
        assert made.sample(3, num_paths=2).shape[:2] == (2, 3)
    made = model(HEADS["normal"], dtype=torch.float32)
    made.recurrent.weight_dtype = "bfloat16"
    assert made._sampler(starting(made)) is None
    made.recurrent.weight_dtype = "float32"
    assert made._sampler(starting(made)) is not None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert made._sampler(starting(made)) is None
    assert made.half()._sampler(starting(made)) is None


def test_what_is_refused():
    made = model(HEADS["normal"])
    with pytest.raises(SettingError, match="shape the distribution of symbols"):
        made.sample(3, temperature=0.5)
    made = model(HEADS["categorical"])
    with pytest.raises(SettingError, match="top_p must lie"):
        made.sample(3, top_p=0.0)
    with pytest.raises(SettingError, match="temperature must be"):
        next(made.stream(temperature=-1.0))
    assert made.sample(0, num_paths=3).shape == (3, 0)
    assert model(HEADS["normal"]).sample(0, num_paths=3).shape == (3, 0, 2)
