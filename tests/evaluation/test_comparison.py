"""Comparison, bootstrap intervals, calibration, surprisal and the verdict."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from support.known_models import KnownAR, ar_path, fitted

from throughtime import runtime
from throughtime.data.domain import Domain
from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Transforms
from throughtime.emissions import Mixture, MixtureOf, NegativeBinomial, StudentT
from throughtime.errors import SettingError
from throughtime.evaluation import bootstrap
from throughtime.evaluation.bootstrap import block_length, mean_interval
from throughtime.evaluation.calibration import calibration
from throughtime.evaluation.comparison import Entry, StepScores, compare, paired
from throughtime.evaluation.predictive import Unwinding, quantiles_of
from throughtime.evaluation.results import DataSummary, Difference, Place, Scores
from throughtime.evaluation.summary import verdict
from throughtime.evaluation.surprisal import surprisal
from throughtime.models.autoregressive import Autoregressive

TEXT = "the cat sat on the mat — naïve Ωmega, 日本\nand so on and on. " * 8


def scores(nats: np.ndarray | torch.Tensor, offsets: Any = None) -> StepScores:
    """Scores of steps that are all scored."""
    log_prob = -torch.as_tensor(nats, dtype=torch.float64)
    bounds = torch.tensor([0, len(log_prob)]) if offsets is None else torch.as_tensor(offsets)
    return StepScores(log_prob, torch.ones(len(log_prob), dtype=torch.bool), bounds)


def entry(name: str, family: str, nats: Any, valid: float, **more: Any) -> Entry:
    test = nats if isinstance(nats, StepScores) else scores(nats)
    return Entry(name, family, f"about {name}", 3, test, valid, 1.5, **more)


def table(entries: list[Entry], raw: Sequences, **options: Any) -> Scores:
    """The comparison of entries on test data of which nothing more is known."""
    steps = {"train": 0, "validation": 0, "test": raw.steps}
    data = {"source": "test", "kind": "real", "sequences": 1, "step": "step", "steps": steps}
    return compare(entries, raw, DataSummary.model_validate(data), **options)


# Bootstrap


def test_block_length_is_close_to_that_of_the_package_arch() -> None:
    """arch counts one lag more as significant than Politis & White do, so not equal to it."""
    from arch.bootstrap import optimal_block_length

    for seed, (n, phi) in enumerate([(200, 0.0), (1000, 0.5), (5000, 0.9), (777, -0.4)]):
        x = ar_path(n, phi, seed)
        theirs = float(optimal_block_length(x)["circular"].iloc[0])
        assert block_length(x) == pytest.approx(theirs, rel=0.3, abs=1.0)


@pytest.mark.parametrize("phi", [0.0, 0.6])
def test_intervals_of_dependent_differences_cover_the_truth(phi: float) -> None:
    covered = 0
    for seed in range(200):
        x = ar_path(600, phi, seed) + 0.3
        _, interval = mean_interval(x, np.array([0, 600]), seed)
        assert interval is not None
        covered += interval[0] <= 0.3 <= interval[1]
    assert 0.88 * 200 <= covered <= 0.99 * 200


def test_intervals_over_many_sequences_cover_when_sequences_differ() -> None:
    covered = 0
    for seed in range(200):
        chance = np.random.default_rng(seed)
        lengths = chance.integers(1, 9, 120)
        levels = np.repeat(chance.normal(size=120), lengths)
        x = levels + 0.2 * chance.normal(size=len(levels))
        offsets = np.concatenate([[0], lengths.cumsum()])
        _, interval = mean_interval(x, offsets, seed)
        assert interval is not None
        covered += interval[0] <= 0.0 <= interval[1]
    assert 0.88 * 200 <= covered <= 0.99 * 200


def test_interval_of_independent_values_is_the_normal_one() -> None:
    x = np.random.default_rng(0).normal(2.0, 3.0, 40_000)
    mean, interval = mean_interval(x, np.array([0, len(x)]))
    assert interval is not None
    assert mean == x.mean()
    half = 1.96 * x.std() / math.sqrt(len(x))
    assert interval[0] == pytest.approx(mean - half, abs=0.1 * half)
    assert interval[1] == pytest.approx(mean + half, abs=0.1 * half)


def test_a_million_steps_take_no_more_draws_than_some_thousand(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = np.random.default_rng(0).normal(size=1_000_000)
    drawn: list[int] = []
    draw = bootstrap._draws
    monkeypatch.setattr(
        bootstrap,
        "_draws",
        lambda below, count, seed: drawn.append(count) or draw(below, count, seed),
    )
    mean_interval(x, np.array([0, len(x)]))
    mean_interval(x, np.arange(0, 1_000_001, 10))
    assert len(drawn) == 2
    assert max(drawn) <= 2000


def test_too_few_or_infinite_values_have_no_interval() -> None:
    assert mean_interval(np.array([1.0, 2.0]), np.array([0, 2])) == (1.5, None)
    mean, interval = mean_interval(np.array([1.0, np.inf] * 50), np.array([0, 100]))
    assert (mean, interval) == (np.inf, None)
    assert math.isnan(mean_interval(np.zeros(0), np.array([0, 0]))[0])


def test_paired_is_negative_where_the_first_is_better_and_repeats_itself() -> None:
    base = np.random.default_rng(1).normal(1.0, 1.0, 500)
    result = paired(scores(base - 0.5), scores(base))
    assert result.value == pytest.approx(-0.5)
    assert result.interval == pytest.approx((-0.5, -0.5))
    noisy = scores(base + np.random.default_rng(2).normal(0, 1, 500))
    assert paired(noisy, scores(base), seed=3) == paired(noisy, scores(base), seed=3)
    assert paired(noisy, scores(base), seed=3) != paired(noisy, scores(base), seed=4)


def test_paired_compares_the_steps_that_both_score() -> None:
    a, b = scores(np.full(40, 1.0)), scores(np.full(40, 3.0))
    scored = torch.ones(40, dtype=torch.bool)
    scored[7] = False
    a = StepScores(torch.where(scored, a.log_prob, 0.0), scored, a.offsets)
    assert paired(a, b).value == -2.0


def test_scores_of_other_data_are_refused() -> None:
    with pytest.raises(SettingError, match="same raw data"):
        paired(scores(np.ones(5)), scores(np.ones(6)))


# Scores and table


@pytest.mark.parametrize("kind", ["characters", "bytes", "tokens"])
def test_nats_of_every_tokenisation_are_placed_on_characters(kind: str) -> None:
    raw = Sequences.of([TEXT, TEXT[5:90] + "Ж"])
    _, _, test = raw.split(by="time")
    if kind == "tokens":
        pytest.importorskip("tokenizers")
    chain = Transforms.fit([kind], raw)
    seen = test.transform(chain)
    nats = -torch.rand(len(seen.values), dtype=torch.float64)
    nats = torch.where(seen.scored(), nats, 0.0)
    actual = StepScores.aligned(nats, seen, test)
    assert actual.log_prob.shape == test.values.shape
    assert torch.equal(actual.scored, test.scored())
    for i in range(2):
        mine = actual.log_prob[test.offsets[i] : test.offsets[i + 1]].sum()
        theirs = nats[seen.offsets[i] : seen.offsets[i + 1]].sum()
        assert mine == pytest.approx(theirs)
    assert not actual.log_prob[~test.scored()].any()


def test_bytes_of_one_character_are_added_up() -> None:
    raw = Sequences.of(["aé日"])
    seen = raw.transform(Transforms.fit(["bytes"], raw))
    result = StepScores.aligned(-torch.arange(1.0, 7.0, dtype=torch.float64), seen, raw)
    assert result.log_prob.tolist() == [-1.0, -5.0, -15.0]
    with pytest.raises(SettingError, match="not those of this text"):
        StepScores.aligned(torch.zeros(5), seen, raw)


def test_scores_of_a_model_are_those_of_its_likelihood() -> None:
    path = 100 + np.cumsum(ar_path(200, 0.3, 0))
    raw = Sequences.of([torch.from_numpy(path)]).split()[2]
    chain = Transforms.fit(["log", "standardise"], raw)
    model = KnownAR(0.8, 0.5)
    result = StepScores.of(fitted(model, chain), raw)
    z = raw.transform(chain).values[:, 0].numpy()
    std = chain.transforms[1].std[0][0]  # type: ignore[attr-defined]
    density = stats.norm(0.8 * z[-21:-1], 0.5).logpdf(z[-20:]) - np.log(path[-20:]) - math.log(std)
    assert result.steps == 20
    assert result.log_prob[-20:].numpy() == pytest.approx(density, abs=1e-9)
    assert result.nats_per_step == pytest.approx(-density.mean())


def test_table_of_text_by_hand() -> None:
    raw = Sequences.of(["aébc"])
    nats = [1.0, 2.0, 3.0, 4.0]
    result = table([entry("unigram", "reference", nats, 2.4, peak_memory_mb=7.0)], raw)
    assert result.unit == "nats per character"
    (row,) = result.models
    assert row.nats_per_step == 2.5
    assert row.bits_per_step == row.bits_per_character == pytest.approx(2.5 / math.log(2))
    assert row.bits_per_byte == pytest.approx(10 / math.log(2) / 5)
    assert row.perplexity == pytest.approx(math.exp(2.5))
    assert (row.validation_nats_per_step, row.seconds, row.peak_memory_mb) == (2.4, 1.5, 7.0)
    assert row.selected is True
    assert row.difference is None
    plain = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert plain.pop("schema") == 2
    assert Scores.model_validate(plain) == result


def test_validation_chooses_and_the_reference_is_the_best_simple_one() -> None:
    base = np.random.default_rng(0).normal(2, 1, 300)
    raw = Sequences.of([torch.zeros(300)])
    entries = [
        entry("constant", "reference", base, 2.0),
        entry("random walk", "reference", base + 0.4, 1.0),  # better in validation, worse in test
        entry("ar(1)", "autoregressive", base - 0.1, 0.9),
        entry("gru", "latent", base - 0.2, 0.8),
        entry("lstm", "latent", base - 0.9, 0.85),
        entry("garch", "baseline", base - 2.0, 0.1),
    ]
    result = table(entries, raw)
    assert (result.reference, result.best) == ("random walk", "gru")
    assert [row.name for row in result.models if row.selected] == ["gru"]
    assert result["random walk"].difference is None
    assert result["gru"].difference.value == pytest.approx(-0.6)
    assert result["gru"].perplexity is result["gru"].bits_per_character is None
    past, latent = result.comparisons.past, result.comparisons.latent
    assert (past.model, past.against) == ("gru", "random walk")
    assert (latent.model, latent.against) == ("gru", "ar(1)")
    assert result.comparisons.baseline.against == "gru"
    assert table(entries, raw, best="lstm").best == "lstm"


def test_models_are_scored_on_the_steps_that_all_score() -> None:
    raw = Sequences.of([torch.zeros(10)])
    some = torch.ones(10, dtype=torch.bool)
    some[3] = False
    nats = torch.ones(10, dtype=torch.float64)
    nats[3] = 100.0
    part = StepScores(torch.where(some, -nats, 0.0), some, raw.offsets)
    entries = [entry("a", "reference", nats.numpy(), 1.0), entry("b", "latent", part, 1.0)]
    assert [row.nats_per_step for row in table(entries, raw).models] == [1.0, 1.0]


def test_an_impossible_step_is_not_a_number_in_json() -> None:
    raw = Sequences.of([torch.zeros(30)])
    impossible = np.ones(30)
    impossible[4] = np.inf
    entries = [entry("a", "reference", np.ones(30), 1.0), entry("b", "latent", impossible, 1.0)]
    result = table(entries, raw)
    json.dumps(result.to_json(), allow_nan=False)
    assert result.models[1].difference == Difference(value=None)


def test_wrong_families_and_empty_tables_are_refused() -> None:
    with pytest.raises(SettingError, match="family 'latnt'"):
        entry("a", "latnt", [1.0], 1.0)
    with pytest.raises(SettingError, match="no models"):
        table([], Sequences.of([torch.zeros(3)]))


def test_peak_memory_is_plausible() -> None:
    memory = runtime.peak_memory_mb()
    assert memory is not None
    assert 50 < memory < 100_000


# Distributions of single steps


def mixture(seed: int = 0) -> Any:
    """An ensemble of four mixtures of three Student-t each, at seven places."""
    emission = Mixture("student_t", 3, 2)
    source = torch.Generator().manual_seed(seed)
    raw = 2 * torch.randn(7, 4, emission.num_parameters, generator=source, dtype=torch.float64)
    return MixtureOf(emission.distribution(raw), dim=-1)


def test_quantiles_of_nested_mixtures_are_those_of_bisection() -> None:
    distribution = mixture()
    levels = [0.01, 0.025, 0.1, 0.37, 0.5, 0.9, 0.975, 0.99]
    p = torch.tensor(levels, dtype=torch.float64).reshape(-1, 1, 1)
    result = quantiles_of(distribution, levels)
    assert result.shape == (8, 7, 2)
    assert (distribution.cdf(result) - p).abs().max() < 2e-3
    width = distribution.icdf(0.9) - distribution.icdf(0.1)
    exact = distribution.icdf(p)
    assert ((result - exact).abs() / width)[1:-1].max() < 5e-3


def test_unwinding_undoes_every_transform_step_by_step() -> None:
    chance = torch.Generator().manual_seed(0)
    parts = [torch.rand(n, 2, dtype=torch.float64, generator=chance) + 1 for n in (30, 12)]
    raw = Sequences.of(parts)
    for specs in (["log", "difference", "standardise"], ["standardise"], []):
        chain = Transforms.fit(specs, raw)
        seen = raw.transform(chain)
        index = torch.tensor([0, 5, 29, 30, 41])
        back = Unwinding(chain, raw)(seen.values[index][None], index)
        assert torch.allclose(back[0], raw.values[index])
        shifted = seen.values[7] + torch.tensor([0.3, -0.2], dtype=torch.float64)
        alone = chain.inverse(shifted[None], raw.values[:7])
        together = Unwinding(chain, raw)(shifted[None, None], torch.tensor([7]))
        assert torch.allclose(together[0], alone)


# Calibration


def test_pit_of_the_true_model_is_uniform() -> None:
    raw = Sequences.of([torch.from_numpy(ar_path(8000, 0.7, 3))])
    result = calibration(fitted(KnownAR(0.7, 1.0)), raw)
    assert result is not None
    assert result.count == 8000
    assert sum(result.pit) == pytest.approx(1.0)
    counts = 8000 * np.array(result.pit)
    assert stats.chisquare(counts).pvalue > 0.001
    for level, share in result.coverage.items():
        assert share == pytest.approx(level, abs=0.02)


def test_pit_shows_a_model_that_is_too_sure() -> None:
    raw = Sequences.of([torch.from_numpy(ar_path(4000, 0.7, 3))])
    result = calibration(fitted(KnownAR(0.7, 0.4)), raw)
    assert result is not None
    assert result.pit[0] > 0.15
    assert result.pit[-1] > 0.15
    assert result.coverage[0.9] < 0.6


def test_randomised_pit_of_counts_is_uniform_and_repeats_itself() -> None:
    emission = NegativeBinomial(1)
    model = Autoregressive(0, emission=emission, predictor="mlp")
    empty = Sequences.of([torch.tensor([1.0, 2.0, 3.0, 9.0])])
    model.begin(empty)
    with torch.no_grad():
        counts = model.sample(1, num_paths=5000, seed=4)[:, 0].double()
    raw = Sequences.of([counts])
    chain = Transforms.fit(["counts"], raw)
    result = calibration(fitted(model, chain), raw)
    assert result is not None
    assert stats.chisquare(5000 * np.array(result.pit)).pvalue > 0.001
    assert result == calibration(fitted(model, chain), raw)


def test_what_is_no_amount_has_no_calibration() -> None:
    raw = Sequences.of([torch.tensor([0.0, 1.0, 1.0, 0.0])])
    assert calibration(fitted(KnownAR(0.5, 1.0), Transforms.fit(["binary"], raw)), raw) is None
    assert calibration(fitted(KnownAR(0.5, 1.0)), Sequences.of(["text"])) is None


# Surprisal


def test_surprisal_of_text_quotes_the_place() -> None:
    text = "once upon a time\nthere lived a king who had three sons and a golden bird in a cage"
    raw = Sequences.of([text])
    nats = np.full(len(text), 1.0)
    nats[text.index("king")] = 9.0
    nats[1] = 5.0
    result = surprisal(scores(nats), raw)
    assert result.top[0] == Place(
        where="character 31",
        nats=9.0,
        quote="…nce upon a time↵there lived a ⟦k⟧ing who had three sons and a g…",
    )
    assert result.top[1].quote.startswith("o⟦n⟧ce upon")
    assert result.position == tuple(range(len(text)))
    assert result.times is None


def test_thinning_keeps_every_peak() -> None:
    nats = np.random.default_rng(0).random(123_457)
    nats[[5, 70_000, 123_456]] = [7.0, 8.0, 9.0]
    raw = Sequences.of([torch.zeros(len(nats))])
    result = surprisal(scores(nats), raw)
    assert len(result.nats) == 2000
    assert {7.0, 8.0, 9.0} <= set(result.nats)
    assert {5, 70_000, 123_456} <= set(result.position)
    assert list(result.position) == sorted(result.position)


def test_surprisal_of_a_dated_series_says_what_was_expected() -> None:
    path = ar_path(300, 0.5, 0)
    path[250] = 12.0
    times = np.datetime64("2001-01-01", "us") + np.arange(300) * np.timedelta64(1, "D")
    one = torch.from_numpy(path)[:, None]
    domain = Domain("real", columns=("price",), step="day")
    raw = Sequences(one, torch.tensor([0, 300]), torch.tensor([200]), domain, ("x",), times)
    model, chain = KnownAR(0.5, 1.0), Transforms.fit(["standardise"], raw)
    actual = surprisal(StepScores.of(fitted(model, chain), raw), raw, fitted(model, chain))
    assert actual.position[0] == 200
    assert actual.times[50] == "2001-09-08"
    top = actual.top[0]
    assert top.where == "2001-09-08"
    mean, std = path.mean(), path.std()
    centre = mean + 0.5 * (path[249] - mean)
    low, high = centre - 1.64485 * std, centre + 1.64485 * std
    expected = f"12; expected {centre:.6g}, 90 % between {low:.3f}"
    assert top.quote.startswith(expected[:-1])
    assert f" and {high:.3f}"[:-1] in top.quote


def test_surprisal_of_sound_names_the_file_and_second() -> None:
    domain = Domain("sound", columns=("amplitude",), sample_rate=100.0, step="sample")
    raw = Sequences.of([torch.zeros(50), torch.zeros(90)], domain, ["a.wav", "b.wav"])
    nats = np.ones(140)
    nats[60] = 4.0
    nats[61] = 3.9
    nats[20] = 3.0
    top = surprisal(scores(nats, [0, 50, 140]), raw).top
    assert [place.where for place in top[:2]] == ["b.wav, 0.100 s", "a.wav, 0.200 s"]


def test_surprisal_of_symbols_and_bytes() -> None:
    symbols = Sequences.of([torch.tensor([3, 1, 4, 1, 5])])
    nats = np.array([0.1, 0.1, 9.0, 0.1, 0.1])
    assert surprisal(scores(nats), symbols).top[0].quote == "3 1⟦4⟧1 5"
    domain = Domain("symbols", num_symbols=256, step="byte")
    raw = Sequences.of([torch.tensor(list(b"a\nbcd"))], domain)
    assert surprisal(scores(nats), raw).top[0].quote == "a↵⟦b⟧cd"


# The table in words, and direct quantiles


def test_verdict_reads_the_table() -> None:
    base = np.random.default_rng(0).normal(2, 1, 300)
    gain = np.random.default_rng(1).normal(0.2, 0.1, 300)
    entries = [entry("constant", "reference", base, 2), entry("gru", "latent", base - gain, 1)]
    result = table(entries, Sequences.of([torch.zeros(300)]))
    said = verdict(result.best, result.step, result.comparisons)
    assert said.startswith("The past matters: gru gains 0.190")


def test_student_t_distribution_have_direct_quantiles() -> None:
    distribution: Any = StudentT(1).distribution(
        torch.tensor([[0.5, 0.2, 1.0]], dtype=torch.float64)
    )
    result = quantiles_of(distribution, [0.975, 0.025])
    exact = stats.t(
        float(distribution.df), float(distribution.location), float(distribution.scale)
    ).ppf([0.025, 0.975])
    assert result.flatten().numpy() == pytest.approx(exact)
