"""The reach of a gradient in training: exact at the lags it looks at, and without side effects."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from support.training_cases import small_model, toy, trainer

from throughtime import bptt
from throughtime import state as states
from throughtime.data.batching import Lanes
from throughtime.data.sequences import Sequences
from throughtime.models.autoregressive import Autoregressive
from throughtime.training.config import TrainSettings
from throughtime.training.reach_monitor import ReachMonitor, StateNorms, state_norms, truncation


def unrolled(model: Any, batch: Any) -> list[float]:
    """``‖∂ℓ_T/∂S_{T-k}‖`` for k = 1, 2, …, by hand: every state a node of one graph."""
    state = model.initial_state(batch.x.shape[1])
    nodes = []
    for t in range(len(batch)):
        state = states.apply(lambda part: part.clone(), state)
        nodes.append(list(states.leaves(state)))
        value, state = model.loss(batch[t : t + 1], state)
    given = torch.autograd.grad(value, [leaf for node in nodes for leaf in node])
    each, size = [], len(nodes[0])
    for t in reversed(range(len(batch))):
        squares = sum(leaf.square().sum((0, 2)) for leaf in given[t * size : (t + 1) * size])
        each.append(float(squares.sqrt().mean()))  # type: ignore[union-attr]
    return each


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_the_norms_are_those_of_the_unrolled_graph(cell: str) -> None:
    model = small_model(cell=cell, num_layers=2, members=2).double().eval()
    batch = Lanes(toy(), 3, dtype=torch.float64)[0:23]
    result = state_norms(model.loss, batch, model.initial_state(3))
    assert result.lags == (1, 2, 4, 8, 16)
    known = unrolled(model, batch)
    assert result.norms == pytest.approx([known[lag - 1] for lag in result.lags], rel=1e-12)
    assert known[0] > known[15] > 0


@pytest.mark.parametrize(("decay", "share"), [(0.5, 0.95), (0.9, 0.95), (0.97, 0.5), (1.0, 0.95)])
def test_the_reach_of_a_gradient_that_decays_evenly(decay: float, share: float) -> None:
    lags = (1, 2, 4, 8, 16, 32, 64, 128)
    result = StateNorms(lags, tuple(decay**lag for lag in lags)).reach(share)
    assert result is not None
    whole = sum(decay**k for k in range(1, 129))
    cumulative = [sum(decay**k for k in range(1, n + 1)) / whole for n in range(129)]
    inside = next(n for n in range(129) if cumulative[n] >= share - 1e-12)
    assert inside - 1 <= result <= inside + 1e-9


def test_a_gradient_that_is_not_there_has_no_reach() -> None:
    assert StateNorms((1, 2), (0.0, 0.0)).reach() is None
    assert StateNorms((1, 2), (math.nan, 1.0)).reach() is None
    assert StateNorms((1, 2, 4), (1.0, 0.0, 0.0)).reach() == pytest.approx(0.95, abs=1e-3)


def test_looking_changes_nothing_in_a_training() -> None:
    """The same bits with and without: weights, .grad, generator, mode."""
    results = []
    for every in (1, 10**9):
        attempt = trainer({"valid_every": 1, "bptt": "8,20", "steps": 6})
        parts = (attempt.model, attempt.train, attempt.settings, attempt.method)
        attempt.monitor = ReachMonitor(*parts)  # type: ignore[arg-type]
        attempt.monitor.every = every
        reaches: list[float | None] = []
        attempt.on_event = lambda event, seen=reaches: seen.append(event["reach"])
        attempt.run()
        assert all((reach is not None) == (every == 1) for reach in reaches)
        grads = [p.grad for p in attempt.parameters if p.grad is not None]
        results.append([*attempt.parameters, *grads, torch.get_rng_state()])
        assert len(reaches) == 6
    assert len(results[0]) > 10
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_batch_is_the_same_whatever_came_before() -> None:
    settings = TrainSettings(lanes=8, bptt="5", valid_every=10, seed=3)
    data, method = toy((300, 200, 100)), bptt.parse("5")
    first, again = (ReachMonitor(small_model(), data, settings, method) for _ in range(2))
    first.every = again.every = 10
    first.look(10)
    torch.manual_seed(99)
    assert first.look(20) == again.look(20) != first.look(30)


def test_sizes_alone_say_when() -> None:
    data = Sequences.of([torch.randn(5000, 1).double()])
    for options, each in (({"bptt": "200", "segment": 200, "lanes": 32}, 200), ({"bptt": "5"}, 5)):
        settings = TrainSettings(valid_every=1, **options)
        watch = ReachMonitor(small_model(), data, settings, bptt.parse(settings.bptt))
        assert watch.furthest == each
        assert watch.length == max(2 * each, 64)
        # One look costs less than so many updates, each of `each` steps in four times the rows.
        assert watch.every >= (watch.length / 2) / each / 0.03
    settings = TrainSettings(bptt="4", valid_every=5, lanes=4)
    watch = ReachMonitor(small_model(), toy(), settings, bptt.parse("4"))
    watch.every = 7
    looked = [step for step in range(5, 61, 5) if watch.look(step) is not None]
    assert looked == [10, 15, 25, 30, 35, 45, 50, 60]  # the first after 7, 14, 21, …
    assert all(any(a < 7 * i <= b for i in range(9)) for a, b in pairwise([0, *looked]))


def test_a_method_of_unknown_truncation_is_looked_at_as_if_it_were_short() -> None:
    class Other(bptt.GradientMethod):
        def _advance(self, loss: Any, batch: Any, at: Any) -> Any:
            raise AssertionError("never asked to")

    settings, data = TrainSettings(lanes=4), Sequences.of([torch.randn(5000, 1).double()])
    other = ReachMonitor(small_model(), data, settings, Other())
    full = ReachMonitor(small_model(), data, settings, bptt.Full())
    assert (other.furthest, full.furthest) == (256, 5000)
    assert other.every > 256 / (16 + 15) / 0.03 > full.every


def test_what_limits_a_gradient_in_training() -> None:
    def limit(**options: Any) -> tuple[int, int] | None:
        settings = TrainSettings(**options)
        return truncation(settings, bptt.parse(settings.bptt))

    assert limit(bptt="full") is None
    assert limit(bptt="8,20") == bptt.Truncated(8, 20)
    assert limit(bptt="80", segment=4000) == bptt.Truncated(80)
    assert limit(bptt="full", segment=12) == bptt.Truncated(12)


def test_sequences_of_one_step_and_finite_orders_have_no_reach() -> None:
    settings = {"valid_every": 1, "steps": 2}
    events: list[dict[str, Any]] = []
    mlp = Autoregressive(3, emission=small_model().emission, predictor="mlp", hidden_size=4)
    trainer(settings, model=mlp, on_event=events.append).run()
    assert [event["reach"] for event in events] == [None, None]
    watch = ReachMonitor(small_model(), toy((1, 1)), TrainSettings(valid_every=1), bptt.Full())
    watch.every = 1
    assert watch.look(1) is None
