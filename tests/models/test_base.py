"""Every model is a distribution: it sums to one, step equals sequence, and nothing else matters."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from statsmodels.tsa.ar_model import AutoReg
from support.model_cases import (
    CASES,
    EMISSIONS,
    GARCH,
    SYMBOLS,
    Case,
    case_of,
    distributions_by_step,
    generator,
    nats_by_step,
    sequences_of,
    shaken,
    with_pasts,
)
from torch import Tensor

import throughtime as tt
from throughtime import emissions
from throughtime import state as states
from throughtime.data.batching import Lanes
from throughtime.data.sequences import Domain, Sequences
from throughtime.errors import DataError, SettingError, VocabularyError
from throughtime.models import registry
from throughtime.models.autoregressive import Autoregressive
from throughtime.models.base import SequenceModel
from throughtime.models.context import Context
from throughtime.models.latent import LatentAutoregressive

GARCH_FITTED = [name for name in GARCH if name in CASES]
EXACT: dict[str, Any] = {"rtol": 0, "atol": 1e-10}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return case_of(request.param)


def test_the_cases_cover_every_emission() -> None:
    assert set(EMISSIONS) == set(emissions.KINDS)


# The distribution itself


def every_sequence(num_symbols: int, length: int) -> Sequences:
    grid = torch.tensor(list(itertools.product(range(num_symbols), repeat=length)))
    return Sequences.of(list(grid), domain=Domain("symbols", num_symbols=num_symbols))


@pytest.mark.parametrize("name", SYMBOLS)
@pytest.mark.parametrize("length", [1, 2, 4, 6])
def test_sequences_of_a_length_sum_to_one(name: str, length: int) -> None:
    """By enumeration: each conditional distribution sums to one, and the chain rule is applied
    rightly.
    """
    model = case_of(name).model
    nats = model.log_prob(every_sequence(3, length))
    assert nats.dtype == torch.float64
    assert len(nats) == 3**length
    assert nats.exp().sum().item() == pytest.approx(1.0, abs=1e-10)
    if length > 1 and name not in ("ngram-0", "mlp-0"):
        assert nats.exp().std() > 1e-4 / 3**length  # and it is not the uniform distribution


@pytest.mark.parametrize("emission", [emissions.Categorical(2), EMISSIONS["discretised_logistic"]])
def test_other_alphabets_sum_to_one(emission: Any) -> None:
    data = sequences_of(emission)
    model = tt.LatentAutoregressive("gru", 4, emission=emission)
    model.begin(data)
    size = emission.num_symbols
    whole = every_sequence(size, 6 if size == 2 else 3)
    assert shaken(model).log_prob(whole).exp().sum().item() == pytest.approx(1.0, abs=1e-10)


def test_step_equals_log_prob(case: Case) -> None:
    torch.testing.assert_close(
        case.model.step_log_prob(case.data), nats_by_step(case.model, case.data).detach(), **EXACT
    )


def test_log_prob_is_the_sum_over_each_sequence(case: Case) -> None:
    steps = case.model.step_log_prob(case.data)
    result = case.model.log_prob(case.data)
    by_hand = [part.sum() for part in steps.split(case.data.lengths.tolist())]
    torch.testing.assert_close(result, torch.stack(by_hand), **EXACT)
    assert bool((steps[~case.data.scored()] == 0).all())
    # The first element is included: it changes the result.
    first = case.data.offsets[:-1]
    assert bool((steps[first][case.data.scored()[first]] != 0).any())


def test_pasts_are_conditioned_on(case: Case) -> None:
    before, rest = with_pasts(case.data)
    whole = replace(rest, starts=torch.zeros_like(rest.starts))
    difference = case.model.log_prob(whole) - case.model.log_prob(before)
    torch.testing.assert_close(case.model.log_prob(rest), difference, **EXACT)
    # Without the past it is another number, unless nothing is remembered.
    if getattr(case.model, "order", 1) > 0:
        nats, alone = case.model.step_log_prob(rest), case.model.step_log_prob(whole)
        assert torch.equal(nats[rest.scored()], alone[rest.scored()])
        assert bool((nats[~rest.scored()] == 0).all())


def test_one_impossible_sequence_leaves_the_others_alone() -> None:
    model = tt.LatentAutoregressive("rnn", 2, emission=tt.emissions.Normal(1))
    parts = [torch.tensor([[0.5]]), torch.tensor([[1e30]]), torch.tensor([[-0.5]])]
    result = model.log_prob(parts)  # 1e30 squared is infinite in float32
    assert result[1] == -math.inf
    torch.testing.assert_close(result[[0, 2]], model.log_prob([parts[0], parts[2]]), **EXACT)


# What else is in the batch does not matter


def test_other_sequences_do_not_matter(case: Case) -> None:
    together = case.model.log_prob(case.data)
    alone = torch.cat([case.model.log_prob(one) for one in case.data])
    torch.testing.assert_close(together, alone, **EXACT)
    turned = case.data[torch.tensor([3, 0, 4, 2, 1])]
    torch.testing.assert_close(case.model.log_prob(turned), together[[3, 0, 4, 2, 1]], **EXACT)


def gradients(model: SequenceModel, total: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    total.backward()
    return {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
    }


AT_ONCE = ("ngram", "linear", "constant", "hmm", "sparse", "lag-", "smoothing", *GARCH)
TRAINED = [name for name in CASES if not name.startswith(AT_ONCE)]


@pytest.mark.parametrize("name", TRAINED)
def test_lanes_and_chunks_do_not_matter(name: str) -> None:
    """Value and gradient of the summed loss: packed lanes against a sequence and step at a time."""
    case = case_of(name)
    model, data = case.model, case.data
    expected = torch.zeros((), dtype=torch.float64)
    for one in data:
        scored = one.scored()
        for t, distribution, x in distributions_by_step_of_members(model, one):
            if scored[t]:
                expected = expected - distribution.log_prob(x).mean()
    wanted = gradients(model, expected)
    assert any(bool((g != 0).any()) for g in wanted.values())
    for num_lanes, chunk in ((1, 100), (2, 3), (3, 1), (5, 7), (8, 4)):
        lanes = Lanes(data, num_lanes, cut=False, dtype=torch.float64)
        state, total = model.initial_state(num_lanes), torch.zeros((), dtype=torch.float64)
        for batch in lanes.chunks(chunk):
            part, state = model.loss(batch, state)
            total = total + part
        torch.testing.assert_close(total, expected, **EXACT)
        torch.testing.assert_close(gradients(model, total), wanted, **EXACT)


def distributions_by_step_of_members(model: SequenceModel, one: Sequences) -> Any:
    """`distributions_by_step`, the members' own distributions ``[1, M]`` and an x that broadcasts
    against them.
    """
    averaged, model._average = model._average, lambda distribution: distribution  # type: ignore[method-assign]
    try:
        for t, distribution, x in distributions_by_step(model, one):
            yield t, distribution, model._per_member(x)
    finally:
        model._average = averaged  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "name",
    [name for name in CASES if name.startswith(AT_ONCE) and not name.endswith("-covariates")],
)
def test_closed_forms_say_the_same_lane_by_lane(name: str) -> None:
    case = case_of(name)
    expected = case.model.step_nats(case.data)
    for num_lanes, chunk in ((1, 100), (2, 3), (5, 1)):
        lanes = Lanes(case.data, num_lanes, cut=False, dtype=torch.float64)
        state, actual = case.model.initial_state(num_lanes), torch.zeros_like(expected)
        for batch in lanes.chunks(chunk):
            distribution, state = case.model(batch, state)
            real = batch.weight > 0
            actual[batch.index[real]] = distribution.log_prob(batch.x)[real]
        torch.testing.assert_close(
            actual[case.data.scored()], expected[case.data.scored()], **EXACT
        )


@pytest.mark.parametrize("name", ["ngram-2", "linear-3-student_t", "mlp-normal"])
def test_a_cut_piece_knows_its_previous_value_and_no_more(name: str) -> None:
    model = case_of(name).model
    emission = model.emission
    data = sequences_of(emission, lengths=(30,), seed=5, missing=False)
    order = model.order  # type: ignore[attr-defined]
    batch = Lanes(data, 1, segment=8, dtype=torch.float64)[:]
    distribution, _ = model(batch, model.initial_state(1))
    nats = distribution.log_prob(batch.x)[:, 0]
    cuts = (batch.reset & ~batch.start)[:, 0].nonzero().flatten().tolist()
    assert cuts == [8, 16, 24]
    whole = nats_by_step(model, data)
    for cut in cuts:
        for k in range(order):
            if name.startswith("ngram"):
                context = data.values[cut - 1 : cut + k].unsqueeze(0)
                known = model.predictor.core.distribution(context)  # type: ignore[attr-defined]
                wanted = known[0, data.values[cut + k]].log()
            else:  # the distribution of a sequence that began one step before the cut
                piece = Sequences.of([data.values[cut - 1 : cut + 8]])
                wanted = model.step_log_prob(piece)[1 + k]
            torch.testing.assert_close(nats[cut + k], wanted, **EXACT)
        inside = slice(cut + order, cut + 6)
        torch.testing.assert_close(nats[inside], whole[inside].detach(), **EXACT)


# Units


@pytest.mark.parametrize("predictor", ["linear", "latent"])
def test_log_prob_is_in_the_units_of_the_data(predictor: str) -> None:
    """A chain of prices by hand: log p(x) = log p(log x_0) - log x_0 + Σ log p(r_t) - log x_t."""
    paths = 0.02 * torch.randn(4, 30, dtype=torch.float64, generator=generator(1))
    prices = (paths.cumsum(1) + torch.tensor([1.0, 2.0, 3.0, 4.0]).double()[:, None]).exp()
    data = Sequences.of(list(prices)).transform(["log", "difference", "standardise"])
    distribution = tt.emissions.Normal(min_scale=1e-12)
    model: SequenceModel = Autoregressive(0, emission=distribution, num_differencing=1)
    if predictor == "latent":
        model = LatentAutoregressive("gru", 2, emission=distribution, num_differencing=1).double()
        torch.nn.init.zeros_(model.head_weight)  # type: ignore[arg-type]
    model.begin(data)
    logs = prices.log().numpy()
    changes = np.diff(logs, axis=1)
    expected = stats.norm.logpdf(logs[:, 0], logs[:, 0].mean(), logs[:, 0].std()) - logs[:, 0]
    each = stats.norm.logpdf(changes, changes.mean(), changes.std()) - logs[:, 1:]
    torch.testing.assert_close(
        model.log_prob(data), torch.from_numpy(expected + each.sum(1)), rtol=1e-6, atol=1e-6
    )


def test_the_units_of_the_data_do_not_matter() -> None:
    values = torch.randn(60, 1, dtype=torch.float64, generator=generator(2)).cumsum(0)
    result = []
    for factor in (1.0, 1000.0):
        data = Sequences.of([factor * values]).transform(["difference", "standardise"])
        model = Autoregressive(1, emission=tt.emissions.StudentT(), num_differencing=1)
        model.begin(data)
        result.append(float(model.log_prob(data)) + 60 * math.log(factor))
    assert result[0] == pytest.approx(result[1], abs=1e-6)


@pytest.mark.parametrize("order", [0, 1, 4])
def test_the_linear_autoregression_is_the_one_of_statsmodels(order: int) -> None:
    x = torch.randn(200, dtype=torch.float64, generator=generator(3))
    for t in range(2, 200):
        x[t] += 0.6 * x[t - 1] - 0.3 * x[t - 2]
    model = tt.Autoregressive(order, emission=tt.emissions.Normal())
    model.fit(tt.Sequences.of([x]))
    reference = AutoReg(x.numpy(), lags=order, trend="c").fit()
    nats = model.step_log_prob([x])
    assert float(nats[order:].sum()) == pytest.approx(reference.llf, abs=1e-8)
    context = model.condition(tt.Sequences.of([x]))
    distribution, _ = model.step(context.previous, context.state)
    assert float(distribution.mean) == pytest.approx(reference.forecast(1)[0], abs=1e-8)


# Sampling


@pytest.mark.parametrize(
    "name", ["ngram-2", "mlp-3", "gru-2x3-1", "lstm-1x5-1", "hmm-3", "sparse-ngram"]
)
def test_samples_of_symbols_follow_the_distribution(name: str) -> None:
    model = case_of(name).model
    paths = model.sample(3, num_paths=4000, seed=1)
    assert paths.shape == (4000, 3)
    counts = Counter(map(tuple, paths.tolist()))
    expected = model.log_prob(every_sequence(3, 3)).exp() * 4000
    keys = itertools.product(range(3), repeat=3)
    rare = expected < 5
    actual = torch.tensor([counts[key] for key in keys]).double()
    pooled = torch.cat([actual[~rare], actual[rare].sum()[None]])
    wanted = torch.cat([expected[~rare], expected[rare].sum()[None]])
    keep = wanted > 0
    assert stats.chisquare(pooled[keep], wanted[keep]).pvalue > 1e-3


@pytest.mark.parametrize(
    "name",
    [
        "gru-2-normal",
        "mlp-mixture",
        "linear-1-student_t",
        "gru-1-laplace",
        "lag-regression",
        "smoothing",
        *GARCH_FITTED,
    ],
)
def test_samples_of_values_follow_the_distribution(name: str) -> None:
    model = case_of(name).model
    paths = model.sample(2, num_paths=1500, seed=2)
    columns = model.emission.columns
    assert paths.shape == (1500, 2, columns)
    distribution, state = model.step(None, model.initial_state(1500))
    for t in range(2):
        ranks = distribution.cdf(paths[:, t])
        for d in range(columns):
            assert stats.kstest(ranks[:, d].numpy(), "uniform").pvalue > 1e-3
        distribution, state = model.step(paths[:, t], state)


@pytest.mark.parametrize(
    "name",
    ["ngram-2", "gru-2x3-1", "gru-2-mixture", "linear-1-student_t", "mlp-poisson", "smoothing"],
)
def test_a_path_is_tied_to_its_index(name: str) -> None:
    model = case_of(name).model
    many, few = model.sample(6, num_paths=9, seed=4), model.sample(6, num_paths=2, seed=4)
    torch.testing.assert_close(many[:2], few, **EXACT)
    torch.testing.assert_close(model.sample(3, num_paths=9, seed=4), many[:, :3], **EXACT)
    assert not torch.equal(model.sample(6, num_paths=9, seed=5), many)
    assert not torch.equal(model.sample(6, num_paths=9, seed=4, name="b"), many)
    assert len({tuple(path.flatten().tolist()) for path in many}) > 1
    assert model.sample(0, num_paths=3).shape[:2] == (3, 0)


def test_sampling_restores_the_mode_of_the_model() -> None:
    model = tt.LatentAutoregressive("gru", 3, emission=tt.emissions.Categorical(3), dropout=0.5)
    model.train()
    assert torch.equal(model.sample(9, num_paths=2), model.sample(9, num_paths=2))
    model.log_prob([torch.tensor([0, 1, 2])])
    model.condition(Sequences.of([torch.tensor([0, 1, 2])]))
    assert model.training


def test_covariates_that_end_before_the_sample_are_an_error() -> None:
    model = case_of("gru-covariates").model
    known = torch.zeros(4, 3, dtype=torch.float64)
    assert model.sample(4, num_paths=2, covariates=known).shape == (2, 4, 2)
    with pytest.raises(SettingError, match="covariates for 4 steps; sampling 5 steps needs"):
        model.sample(5, num_paths=2, covariates=known)


# State goes in and comes out


def _holds(value: object) -> bool:
    return isinstance(value, Tensor | tuple)


def test_two_streams_do_not_disturb_each_other(case: Case) -> None:
    one, other = case.data[0], case.data[2]
    held = {name: value for name, value in vars(case.model).items() if _holds(value)}
    alone = [
        distribution.log_prob(x) for _, distribution, x in distributions_by_step(case.model, one)
    ]
    both = zip(
        distributions_by_step(case.model, one),
        distributions_by_step(case.model, other),
        strict=False,
    )
    mixed = [distribution.log_prob(x) for (_, distribution, x), _ in both]
    assert len(mixed) == len(alone)
    assert torch.equal(torch.cat(mixed), torch.cat(alone))
    kept = {name: value for name, value in vars(case.model).items() if _holds(value)}
    assert set(kept) == set(held)
    assert all(kept[name] is held[name] for name in kept)


def test_condition_and_step_go_on_exactly(case: Case) -> None:
    before, rest = with_pasts(case.data)
    context = case.model.condition(before)
    first = rest.starts
    at = rest.offsets[:-1] + first
    known = None if rest.covariates is None else rest.covariates[at]
    series = rest.identity if bool((rest.identity >= 0).any()) else None
    distribution, _ = case.model.step(context.previous, context.state, known, series)
    expected = [
        list(distributions_by_step(case.model, one))[int(s)][1]
        for one, s in zip(rest, first, strict=True)
    ]
    x = (
        torch.where(rest.values[at].isnan(), 0.0, rest.values[at])
        if (rest.values.is_floating_point())
        else rest.values[at]
    )
    wanted = torch.cat(
        [
            distribution.log_prob(value[None])
            for distribution, value in zip(expected, x, strict=True)
        ]
    )
    torch.testing.assert_close(distribution.log_prob(x), wanted, **EXACT)


def test_a_past_without_scored_steps_can_be_conditioned_on() -> None:
    case = case_of("gru-1-normal")
    past = replace(case.data, starts=case.data.lengths)
    actual, expected = case.model.condition(past), case.model.condition(case.data)
    torch.testing.assert_close(actual.previous, expected.previous, **EXACT, equal_nan=True)
    torch.testing.assert_close(actual.state, expected.state, **EXACT, equal_nan=True)


def test_a_state_of_the_wrong_size_is_an_error() -> None:
    model = case_of("gru-1-normal").model
    context = Context(model.initial_state(2), torch.zeros(2, 1))
    with pytest.raises(SettingError, match="the context has 2 rows; sampling 3 paths needs 1 or 3"):
        model.sample(1, context, num_paths=3)


def test_a_path_for_each_row_of_a_context_if_nobody_says_how_many() -> None:
    case = case_of("gru-1-normal")
    context = case.model.condition(case.data)
    assert len(case.model.sample(2, context)) == len(case.data)
    assert len(case.model.sample(2, context[0])) == len(case.model.sample(2)) == 100


def test_a_state_without_its_last_element_is_an_error() -> None:
    model = case_of("gru-1-normal").model
    with pytest.raises(SettingError, match="needs the last element of each sequence"):
        Context(model.initial_state(2), None)  # type: ignore[arg-type]
    with pytest.raises(SettingError, match="goes on from a Context"):
        model.sample(3, model.initial_state(2), num_paths=2)


def test_a_context_goes_on_where_another_stands(case: Case) -> None:
    """Conditioning on the pasts and then on the rest is conditioning on all of it."""
    before, rest = with_pasts(case.data)
    actual = case.model.condition(rest, after=case.model.condition(before))
    expected = case.model.condition(rest)
    torch.testing.assert_close(actual.previous, expected.previous, **EXACT, equal_nan=True)
    for part, other in zip(states.leaves(actual.state), states.leaves(expected.state), strict=True):
        torch.testing.assert_close(part, other, **EXACT, equal_nan=True)


def test_contexts_are_rows() -> None:
    case = case_of("gru-1-normal")
    whole = case.model.condition(case.data)
    parts = [case.model.condition(one) for one in case.data]
    joined = Context.concatenate(parts)
    assert len(joined) == len(whole) == len(case.data)
    for one, other in ((joined, whole), (whole[[1]].repeat(2)[0], whole[1])):
        torch.testing.assert_close(one.previous, other.previous, **EXACT, equal_nan=True)
        torch.testing.assert_close(one.state, other.state, **EXACT, equal_nan=True)


# Descriptions


def test_models_are_rebuilt_from_their_settings_and_tensors(case: Case) -> None:
    tensors = {name: value.clone() for name, value in registry.tensors_of(case.model).items()}
    copy = registry.restored(case.model.settings(), tensors)
    assert copy.settings() == case.model.settings()
    assert set(registry.tensors_of(copy)) == set(tensors)
    copy = copy.double()
    torch.testing.assert_close(
        copy.log_prob(case.data), case.model.log_prob(case.data), rtol=1e-5, atol=1e-4
    )
    assert not copy.training
    assert copy.num_parameters() == case.model.num_parameters() > 0


def test_a_float32_model_comes_back_bit_for_bit() -> None:
    data = sequences_of(EMISSIONS["mixture"])
    model = tt.LatentAutoregressive("lstm", 4, 2, emission=EMISSIONS["mixture"], members=2)
    model.begin(data)
    copy = registry.restored(model.settings(), registry.tensors_of(model))
    assert torch.equal(copy.log_prob(data), model.log_prob(data))


def test_unknown_kinds_are_errors() -> None:
    with pytest.raises(SettingError, match=r"model kind 'os.system' is not one of: latent, auto"):
        registry.build({"kind": "os.system", "emission": {"kind": "normal"}})
    with pytest.raises(SettingError, match=r"cell 'transformer' is not one of: rnn"):
        tt.LatentAutoregressive("transformer", emission=tt.emissions.Normal())
    with pytest.raises(SettingError, match="order must be 0 or more, got -1"):
        tt.Autoregressive(-1, emission=tt.emissions.Normal())
    with pytest.raises(SettingError, match=r"predictor 'forest' is not one of: .*linear, mlp"):
        tt.Autoregressive(1, emission=tt.emissions.Normal(), predictor="forest")


@pytest.mark.parametrize("name", ["ngram-2", "mlp-3", "gru-1x5-2"])
def test_data_of_the_wrong_kind_are_errors(name: str) -> None:
    symbols, values = case_of(name).model, case_of("gru-1-normal").model
    with pytest.raises(SettingError, match=r"takes int64 symbols \[T\]; got real values"):
        symbols.log_prob([torch.tensor([0.5])])
    message = "series '0', step 1: the symbol 3 is not one of the 3 that this model knows"
    with pytest.raises(VocabularyError, match=message):
        symbols.log_prob([torch.tensor([0, 3])])
    with pytest.raises(SettingError, match=r"takes values \[T, 2\]; got"):
        values.log_prob([torch.zeros(4, 3)])
    with pytest.raises(SettingError, match=r"takes values \[T, 2\]; got symbols"):
        values.log_prob(sequences_of(emissions.Categorical(3)))


def test_counts_may_be_given_as_integers() -> None:
    model = tt.LatentAutoregressive("gru", 2, emission=tt.emissions.Poisson(1))
    given = model.log_prob([torch.tensor([3, 0, 1])])
    assert torch.equal(given, model.log_prob([torch.tensor([[3.0], [0.0], [1.0]])]))


@pytest.mark.parametrize(
    "name", ["linear-1-normal", "ngram-1", "hmm-3", "smoothing", "sparse-ngram"]
)
def test_an_unfitted_closed_form_says_so(name: str) -> None:
    emission = case_of(name).model.emission
    model = registry.build(case_of(name).model.settings())
    with pytest.raises((SettingError, DataError), match=r"has not been fitted; call fit\(train\)"):
        model.log_prob(sequences_of(emission))


@pytest.mark.parametrize("name", ["gru-covariates", "mlp-covariates", "linear-covariates"])
def test_missing_covariates_are_an_error(name: str) -> None:
    model = case_of(name).model
    with pytest.raises(SettingError, match="covariate"):
        model.log_prob([torch.zeros(4, 2)])
    assert list(states.leaves(model.initial_state(1)))
