"""Randomized truncation: its distribution, and that its mean is the exact gradient."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import scipy.stats
import torch
from support.training_cases import everything, same, trainer
from torch import Tensor

from throughtime import bptt
from throughtime.bptt import randomized
from throughtime.errors import SettingError
from throughtime.training.trainer import Trainer


class Problem:
    """A cell of three units whose losses are wanted at every step."""

    def __init__(self, steps: int, seed: int = 0) -> None:
        source = torch.Generator().manual_seed(seed)
        kind: Any = {"dtype": torch.float64, "generator": source}
        self.weight = (0.7 * torch.randn(3, 3, **kind)).requires_grad_()
        self.readout = torch.randn(3, **kind)
        self.batch = torch.randn(steps, 3, **kind)
        self.state = torch.randn(3, **kind)
        self.parameters = [self.weight]

    def loss(self, batch: Tensor, state: Any) -> tuple[Tensor, Any]:
        parts = []
        for x in batch:
            state = torch.tanh(torch.addmv(x, self.weight, state))
            parts.append(torch.dot(state, self.readout))
        return parts[0] if len(parts) == 1 else torch.stack(parts).sum(), state

    def gradient(self, method: Any) -> Tensor:
        method.backward(self.loss, self.batch, self.state)
        result = torch.cat([p.grad.flatten() for p in self.parameters])
        for p in self.parameters:
            p.grad = None
        return result


def distribution(mean_lag: float, every: int, alpha: float, most: int) -> list[float]:
    """P(length = every * l), l = 1 … most, from the paper's chances of a cut."""
    left, result = 1.0, []
    for candidate in range(1, most + 1):
        chance = alpha / ((alpha - 1) * mean_lag / every + candidate)
        result.append(left * chance)
        left *= 1 - chance
    return result


@pytest.mark.parametrize("alpha", [4.0, 6.0, 9.5])
@pytest.mark.parametrize(("mean_lag", "every"), [(1.0, 1), (3.0, 1), (16.5, 1), (40.0, 8), (8, 8)])
def test_the_mean_length_is_mean_lag(mean_lag, every, alpha):
    method = bptt.Randomized(mean_lag, every, alpha=alpha)
    chances = distribution(mean_lag, every, alpha, 20_000)
    assert sum(chances) == pytest.approx(1, abs=1e-8)
    mean = sum(every * candidate * p for candidate, p in enumerate(chances, 1))
    assert mean == pytest.approx(mean_lag, rel=1e-6)
    left = 1.0
    for candidate, p in enumerate(chances[:50], 1):
        assert method.chance(candidate) * left == pytest.approx(p, rel=1e-9, abs=1e-300)
        left *= 1 - method.chance(candidate)


@pytest.mark.parametrize("every", [1, 3])
def test_segments_have_the_lengths_of_the_distribution(every):
    weight = torch.ones((), requires_grad=True)
    lengths: list[int] = []
    method = bptt.Randomized(4.5, every, torch.Generator().manual_seed(0))
    method.backward(
        lambda batch, state: (weight * len(batch), state),
        torch.zeros(12_000),
        None,
        lambda part: lengths.append(int(part)),
    )
    assert {length % every for length in lengths[:-1]} == {0}
    most = 15 // every
    expected = distribution(4.5, every, 6.0, most)
    expected.append(1 - sum(expected))
    counts = [lengths[:-1].count(every * n) for n in range(1, most + 1)]
    counts.append(len(lengths) - 1 - sum(counts))
    total = sum(counts)
    assert scipy.stats.chisquare(counts, [p * total for p in expected]).pvalue > 1e-3
    plain = [1 / 4.5 * every * (1 - every / 4.5) ** (n - 1) for n in range(1, most + 1)]
    plain.append(1 - sum(plain))
    assert scipy.stats.chisquare(counts, [p * total for p in plain]).pvalue < 1e-6


@pytest.mark.parametrize("every", [1, 2, 3])
def test_the_mean_over_all_ways_to_cut_is_the_exact_gradient(every, monkeypatch):
    """No sampling: each pattern of cuts with its probability from the distribution."""
    problem = Problem(7)
    exact = problem.gradient(bptt.Full())
    mean, plain, total = torch.zeros_like(exact), torch.zeros_like(exact), 0.0
    for cuts in itertools.product([False, True], repeat=-(-7 // every) - 1):
        chance, since = 1.0, 0
        for cut in cuts:
            since += 1
            c = 6.0 / (5.0 * 3.5 / every + since)
            chance *= c if cut else 1 - c
            since = 0 if cut else since
        drawn = iter([0.0 if cut else 1 - 1e-12 for cut in cuts])
        with monkeypatch.context() as patch:
            patch.setattr(torch, "rand", lambda *_, drawn=drawn, **__: torch.tensor(next(drawn)))
            mean += chance * problem.gradient(bptt.Randomized(3.5, every))
            total += chance
        with monkeypatch.context() as patch:
            drawn = iter([0.0 if cut else 1 - 1e-12 for cut in cuts])
            patch.setattr(torch, "rand", lambda *_, drawn=drawn, **__: torch.tensor(next(drawn)))
            patch.setattr(randomized, "amplified", lambda state, factor: state)
            plain += chance * problem.gradient(bptt.Randomized(3.5, every))
    assert total == pytest.approx(1, abs=1e-12)
    torch.testing.assert_close(mean, exact, rtol=1e-11, atol=1e-11)
    assert (plain - exact).norm() > 1e-2 * exact.norm()


def interval(draws: Tensor, exact: Tensor) -> bool:
    """Whether the exact value lies in the joint 99 % interval of the mean (Bonferroni)."""
    quantile = scipy.stats.norm.ppf(1 - 0.01 / (2 * draws.shape[1]))
    error = draws.std(0) / math.sqrt(len(draws))
    return bool(((draws.mean(0) - exact).abs() <= quantile * error).all())


@pytest.mark.slow
def test_the_mean_of_ten_thousand_draws_is_the_exact_gradient(monkeypatch):
    problem = Problem(8)
    exact = problem.gradient(bptt.Full())
    torch.manual_seed(0)
    method = bptt.Randomized(4)
    draws = torch.stack([problem.gradient(method) for _ in range(10_000)])
    assert interval(draws, exact)
    # Cut at the same places without making up for it, the same test tells the difference.
    monkeypatch.setattr(randomized, "amplified", lambda state, factor: state)
    torch.manual_seed(0)
    draws = torch.stack([problem.gradient(method) for _ in range(1_000)])
    assert not interval(draws, exact)


def test_values_are_bit_identical_and_gradients_multiplied():
    state = (torch.randn(3, requires_grad=True), (torch.randn(2), None))
    actual = randomized.amplified(state, 1.7)
    assert torch.equal(actual[0], state[0])
    assert torch.equal(actual[1][0], state[1][0])
    assert actual[1][1] is None
    actual[0].square().sum().backward()
    torch.testing.assert_close(state[0].grad, 2 * 1.7 * state[0].detach())
    problem = Problem(30)
    loss, last = bptt.Randomized(5).backward(problem.loss, problem.batch, problem.state)
    expected, end = problem.loss(problem.batch, problem.state)
    torch.testing.assert_close(last, end.detach(), rtol=0, atol=0)
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-12, atol=0)


def test_cuts_come_from_torchs_generator_or_from_ones_own():
    problem = Problem(40)
    torch.manual_seed(3)
    first = problem.gradient(bptt.Randomized(4))
    after = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(problem.gradient(bptt.Randomized(4)), first)
    assert torch.equal(torch.rand(1), after)
    assert not torch.equal(problem.gradient(bptt.Randomized(4)), first)
    torch.manual_seed(3)
    own = bptt.Randomized(4, generator=torch.Generator().manual_seed(3))
    assert torch.equal(problem.gradient(own), first)
    torch.manual_seed(3)
    assert torch.equal(problem.gradient(bptt.Randomized(4)), first)  # the global one is untouched


def test_a_pass_taken_up_again_with_its_generator_is_the_same_pass():
    problem, method = Problem(60), bptt.Randomized(4)
    torch.manual_seed(1)
    whole = problem.gradient(method)
    torch.manual_seed(1)
    at = bptt.Position.start(problem.state)
    while at.target < 60:
        saved = torch.get_rng_state()
        torch.rand(7)
        torch.set_rng_state(saved)
        _, at = method.advance(problem.loss, problem.batch, at)
    result = torch.cat([p.grad.flatten() for p in problem.parameters])
    assert torch.equal(result, whole)


def test_training_resumes_with_the_same_bits(tmp_path):
    """The trainer saves torch's generator between two updates, and so the cuts to come."""

    class Random(Trainer):
        left = 0

        def __post_init__(self) -> None:
            super().__post_init__()
            self.method = bptt.Randomized(6, every=2)

        def save(self) -> None:
            super().save()
            self.left -= 1
            if self.left == 0:
                raise InterruptedError

    settings = {"steps": 20, "checkpoint_seconds": 0}
    whole = trainer(settings, kind=Random)
    whole.run()
    first = trainer(settings, tmp_path, Random)
    first.left = 7
    with pytest.raises(InterruptedError):
        first.run()
    torch.manual_seed(99)
    second = trainer(settings, tmp_path, Random)
    second.run()
    assert second.progress.step == 20
    assert same(everything(whole), everything(second))


def test_what_is_refused():
    with pytest.raises(SettingError, match="mean_lag=3 must be finite and at least every=4"):
        bptt.Randomized(3, every=4)
    with pytest.raises(SettingError, match="mean_lag=nan"):
        bptt.Randomized(float("nan"))
    with pytest.raises(SettingError, match="mean_lag=inf"):
        bptt.Randomized(float("inf"))
    with pytest.raises(SettingError, match="every must be at least 1"):
        bptt.Randomized(3, every=0)
    with pytest.raises(SettingError, match="alpha must be above 1"):
        bptt.Randomized(3, alpha=1.0)


def influences(method: Any, steps: int, units: int = 23, positive: int = 10) -> list[float]:
    """Tallec & Ollivier's task: |error| of the first unit's fixed point after each update.

    ``s' = A s + θ (1, …, 1, -1, …, -1)``, A with 1/2 on and above its diagonal: θ moves the first
    unit up at first (by the near units) and down in the end (there are more far ones).
    """
    matrix = (torch.eye(units) + torch.diag(torch.ones(units - 1), 1)).double() / 2
    sign = torch.ones(units, dtype=torch.float64)
    sign[positive:] = -1
    theta = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    errors = []

    def loss(batch: Tensor, state: Any) -> tuple[Tensor, Any]:
        total = torch.zeros((), dtype=torch.float64)
        for _ in range(len(batch)):
            state = torch.mv(matrix, state) + theta * sign
            total = total + 0.5 * (state[0] - 1) ** 2
        return total, state

    def update(_: Tensor) -> None:
        with torch.no_grad():
            theta.sub_(1e-5 * theta.grad)
        theta.grad = None
        errors.append(abs(float(theta.detach()) * 2 * float(sign.sum()) - 1))

    method.backward(loss, torch.zeros(steps), torch.ones(units, dtype=torch.float64), update)
    return errors


def test_influence_balancing():
    """Fixed truncation follows the short-term influence away from the solution."""
    torch.manual_seed(0)
    for length in (10, 100):
        fixed = influences(bptt.Truncated(length), 5000)
        assert fixed[-1] > fixed[len(fixed) // 2] > fixed[0]
    free = influences(bptt.Randomized(16), 5000)
    assert free[-1] < 0.1 * free[0]
