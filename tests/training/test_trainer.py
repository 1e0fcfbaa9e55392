"""The training loop: what an update is, what is kept, and that no interruption changes a bit."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from support.model_cases import generator, sequences_of
from support.training_cases import SYMBOLS, cycle, everything, same, small_model, toy, trainer
from torch import Tensor

import throughtime as tt
from throughtime.data.batching import Lanes
from throughtime.data.sequences import Sequences
from throughtime.errors import NonFiniteError
from throughtime.models.autoregressive import Autoregressive
from throughtime.models.latent import LatentAutoregressive
from throughtime.training import planning
from throughtime.training import trainer as train
from throughtime.training.config import TrainSettings
from throughtime.training.planning import affordable_steps
from throughtime.training.trainer import Trainer, validation_nats

# What training does


@pytest.mark.parametrize("bptt", ["full", "8", "8,20", "memory=50kB"])
def test_the_loss_goes_down(bptt: str) -> None:
    events: list[dict[str, Any]] = []
    settings = {"steps": 60, "learning_rate": 3e-2, "bptt": bptt, "valid_every": 20}
    run = trainer(settings, on_event=events.append)
    before = validation_nats(run.model, run.valid, None)
    progress = run.run()
    after = validation_nats(run.model, run.valid, None)
    assert before > 1.2  # log 4 = 1.386
    assert after < 0.8  # the noise alone costs 0.45
    assert progress.best == pytest.approx(after, abs=1e-6)  # the best weights are in the model
    assert [event["step"] for event in events] == [20, 40, 60]
    assert events[-1]["train"] < events[0]["train"] < before
    assert all(event["learning_rate"] > 0 and event["rate"] > 0 for event in events)


def test_a_network_over_the_last_lags_trains_too() -> None:
    torch.manual_seed(0)
    model = Autoregressive(2, emission=SYMBOLS, predictor="mlp", hidden_size=8)
    run = trainer({"steps": 60, "learning_rate": 2e-2}, model=model)
    model.begin(run.train)
    before = validation_nats(model, run.valid, None)
    run.run()
    assert validation_nats(model, run.valid, None) < 0.7 * before


def test_the_same_seed_gives_the_same_bits() -> None:
    one, same_seed, other = (trainer({"seed": seed, "bptt": "8"}) for seed in (1, 1, 2))
    for run in (one, same_seed, other):
        run.run()
    assert same(everything(one), everything(same_seed))
    assert not same(everything(one)["weights"], everything(other)["weights"])


@pytest.mark.parametrize(("bptt", "steps"), [("full", None), ("slots=4", None), ("8", 8)])
def test_the_gradient_is_that_of_the_mean_over_scored_steps(bptt: str, steps: int | None) -> None:
    run = trainer({"bptt": bptt, "clip": 1e9}, model=small_model())
    run.epoch(0)
    assert run.lanes is not None
    batch = run.lanes[: steps or len(run.lanes)]
    distribution, _ = run.model(batch, run.model.initial_state(run.lanes.num_lanes))
    nats = [
        -distribution.log_prob(batch.x)[t, b]
        for t in range(len(batch))
        for b in range(run.lanes.num_lanes)
        if batch.index[t, b] >= 0
    ]
    assert len(nats) == int(batch.weight.sum())  # toy() has no past and no gap
    wanted = torch.autograd.grad(torch.stack(nats).mean(), run.parameters)
    run.update()
    result = [p.grad for p in run.parameters]
    torch.testing.assert_close(result, list(wanted), rtol=1e-4, atol=1e-6)


def test_each_scored_step_of_an_epoch_is_used_once() -> None:
    run = trainer({"bptt": "8", "steps": 1000})
    run.epoch(0)
    assert run.lanes is not None
    used = 0.0
    while run.at.target < len(run.lanes):
        run.update()
        used = run.progress.loss_steps
    assert used == run.train.steps == 165
    before = run.lanes[:].index
    run.epoch(1)
    assert not torch.equal(before, run.lanes[:].index)  # each epoch in an order of its own


def test_only_weights_decay() -> None:
    run = trainer({"weight_decay": 0.1}, model=small_model(members=2))
    names = {id(p): name for name, p in run.model.named_parameters()}
    decayed, others = ([names[id(p)] for p in g["params"]] for g in run.optimiser.param_groups)
    assert run.optimiser.param_groups[0]["weight_decay"] == 0.1
    assert run.optimiser.param_groups[1]["weight_decay"] == 0.0
    assert set(decayed) == {
        "encoder.embedding.weight",
        "recurrent.weight_ih_l0",
        "recurrent.weight_hh_l0",
        "head_weight",
    }
    assert set(others) == {"start", "head_bias", "recurrent.bias_ih_l0", "recurrent.bias_hh_l0"}


def test_warm_up_and_cosine() -> None:
    run = trainer({"steps": 100, "warmup": 0.1, "learning_rate": 0.5, "final_rate": 0.2})
    rates = [run.learning_rate(step) for step in range(1, 101)]
    assert rates[0] == pytest.approx(0.05)
    assert rates[4] == pytest.approx(0.25)
    assert rates[9] == pytest.approx(0.5) == max(rates)
    assert rates[54] == pytest.approx(0.5 * (0.2 + 0.8 * 0.5))  # half-way down
    assert rates[99] == pytest.approx(0.1)
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert trainer({"warmup": 0.0, "learning_rate": 0.5}).learning_rate(1) == pytest.approx(0.5)
    run.epoch(0)
    run.update()
    assert run.optimiser.param_groups[0]["lr"] == pytest.approx(0.05)


@pytest.mark.parametrize("average", [0.9, 0.15, 0.0])
def test_averages_by_hand(average: float) -> None:
    run = trainer({"average": average})
    run.epoch(0)
    by_hand = [p.detach().clone() for p in run.parameters]
    for step in range(1, 6):
        run.epoch(step)
        run.update()
        decay = min(average, (1 + step) / (10 + step))
        pairs = zip(by_hand, run.parameters, strict=True)
        by_hand = [decay * a + (1 - decay) * p.detach() for a, p in pairs]
    torch.testing.assert_close(run.averages, by_hand, rtol=1e-6, atol=1e-7)
    moved = any(not torch.equal(a, p) for a, p in zip(run.averages, run.parameters, strict=True))
    assert moved == (average > 0)


def test_the_clip_rate_is_logged() -> None:
    for clip, expected in ((1e-3, 1.0), (1e9, 0.0)):
        events: list[dict[str, Any]] = []
        run = trainer({"clip": clip}, on_event=events.append)
        run.run()
        assert [event["clip_rate"] for event in events] == [expected] * 3
        assert run.progress.clipped == 12 * expected
    norm = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in run.parameters]))  # type: ignore[union-attr]
    assert norm > 1e-3
    run = trainer({"clip": 1e-3})
    run.run()
    norm = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in run.parameters]))  # type: ignore[union-attr]
    assert float(norm) == pytest.approx(1e-3, rel=1e-3)


def test_early_stopping_keeps_the_best_weights() -> None:
    """Training data run forwards and validation data backwards: learning makes it worse."""
    whole = Sequences.of([torch.cat([cycle(200), cycle(100).flip(0)])])
    fit, valid, _ = whole.split(valid=0.3, test=0.03, by="time")
    assert int(valid.starts[0]) == len(fit.values)
    events: list[dict[str, Any]] = []
    settings = TrainSettings(
        steps=500, valid_every=4, patience=3, learning_rate=3e-2, average=0.5, valid_past=20
    )
    run = Trainer(small_model(), fit, valid, settings, on_event=events.append)
    progress = run.run()
    assert progress.step == progress.best_step + 3 * 4 < 500
    scores = [event["valid"] for event in events]
    assert progress.best == min(scores) == scores[-4]
    assert validation_nats(run.model, valid, 20) == progress.best
    assert scores[-1] > scores[-4]


def test_validation_is_on_the_averages_and_leaves_training_alone() -> None:
    run = trainer({"average": 0.9})
    run.epoch(0)
    run.update()
    before = [p.detach().clone() for p in run.parameters]
    run.validate()
    assert same(before, [p.detach() for p in run.parameters])
    with torch.no_grad():
        for p, average in zip(run.parameters, run.averages, strict=True):
            p.copy_(average)
    assert run.progress.best == validation_nats(run.model, run.valid, 2000)


@pytest.mark.parametrize("past", [None, 5, 0])
def test_validation_nats_by_hand(past: int | None) -> None:
    model = small_model()
    valid = toy((40, 30), 3)
    valid = Sequences(valid.values, valid.offsets, torch.tensor([25, 0]), valid.domain)
    kept = 25 if past is None else past
    piece = model.step_log_prob([valid.sequence(0)[25 - kept :]])[kept:]
    if past in (0, 5):  # a piece that does not begin its sequence knows the value before it
        lanes = Lanes(valid[0], 1, past=past, cut=False)
        distribution, _ = model(lanes[:])
        piece = distribution.log_prob(lanes[:].x)[past:, 0].double().detach()
        assert not bool(lanes[:1].start[0, 0])
    total = piece.sum() + model.log_prob([valid.sequence(1)]).sum()
    assert validation_nats(model, valid, past) == pytest.approx(-float(total) / 45, rel=1e-6)


def test_nats_are_in_the_units_of_the_data() -> None:
    prices = (0.1 * torch.randn(50, 1, dtype=torch.float64, generator=generator(0))).exp()
    transformed = Sequences.of([100 * prices]).transform(["log", "difference", "standardise"])
    model = LatentAutoregressive("gru", 3, emission=tt.emissions.Normal(), num_differencing=1)
    model.begin(transformed)
    result = validation_nats(model, transformed, None)
    assert result == pytest.approx(-float(model.log_prob(transformed)) / 50, rel=1e-5)


# Steps that are not finite


class Poisoned(LatentAutoregressive):
    """Gives a loss (and a state) that is not finite at the chosen calls."""

    poison: dict[int, str]
    calls = 0

    def loss(self, batch: Any, state: Any) -> tuple[Tensor, Any]:
        loss, state = super().loss(batch, state)
        self.calls += 1
        kind = self.poison.get(self.calls, self.poison.get(0, ""))
        if "loss" in kind:
            loss = loss * math.inf
        if "gradient" in kind:
            loss = loss + (self.head_bias[0, 0] * 0).sqrt()  # 0, with the slope NaN
        if "state" in kind:
            state = state * math.nan
        return loss, state


def poisoned(poison: dict[int, str], **settings: Any) -> Trainer:
    torch.manual_seed(0)
    model = Poisoned("gru", 4, emission=SYMBOLS)
    model.poison = poison
    return trainer({"bptt": "8", "average": 0.5} | settings, model=model)


@pytest.mark.parametrize("kind", ["loss", "gradient", "loss state"])
def test_a_step_that_is_not_finite_is_skipped_and_counted(kind: str) -> None:
    run = poisoned({3: kind, 4: kind})
    events: list[dict[str, Any]] = []
    run.on_event = events.append
    run.epoch(0)
    for _ in range(2):
        run.update()
    before = everything(run)
    for _ in range(2):
        run.update()
    after = everything(run)
    for part in ("weights", "averages", "optimiser"):
        assert same(before[part], after[part])
    progress = run.progress
    assert (progress.skipped, progress.skipped_in_a_row, progress.step) == (2, 2, 4)
    assert events == [
        {"event": "skip", "step": 3, "skipped": 1},
        {"event": "skip", "step": 4, "skipped": 2},
    ]
    assert progress.loss_steps == before["progress"]["loss_steps"]
    run.update()
    assert (progress.skipped, progress.skipped_in_a_row) == (2, 0)
    assert not same(after["weights"], everything(run)["weights"])
    assert all(bool(p.isfinite().all()) for p in run.parameters)


def test_steps_that_stay_not_finite_are_an_error() -> None:
    run = poisoned({0: "loss state"}, max_skipped=3, learning_rate=0.25)
    with pytest.raises(NonFiniteError) as error:
        run.run()
    assert str(error.value) == (
        "3 training steps in a row had an infinite or NaN loss or gradient (last at step 3); "
        "lower the learning rate (0.25) or look for extreme values in the data"
    )


def test_extreme_values_in_the_data_do_not_break_the_weights() -> None:
    emission = tt.emissions.Normal(1)
    data = sequences_of(emission, lengths=(60, 60), missing=False)
    data.values[70] = 1e30  # its square is infinite in float32
    model = LatentAutoregressive("rnn_relu", 4, emission=emission)
    settings = TrainSettings(steps=30, lanes=2, bptt="5,15", valid_every=10)
    run = Trainer(model, data, sequences_of(emission, missing=False), settings)
    run.run()
    assert run.progress.skipped > 0
    assert run.progress.skipped < 30
    assert all(bool(p.isfinite().all()) for p in run.parameters)


def test_a_validation_that_is_not_finite_is_never_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([math.nan, math.inf, 2.0, math.nan, 1.0])
    monkeypatch.setattr(train, "validation_nats", lambda *_: next(scores))
    run = trainer({"steps": 5, "valid_every": 1})
    progress = run.run()
    assert (progress.best, progress.best_step, progress.waited) == (1.0, 5, 0)


# A budget of time


def clocked(monkeypatch: pytest.MonkeyPatch, updating: float, validating: float) -> None:
    """A clock that only updates and validations move."""
    now = [0.0]
    monkeypatch.setattr(train.time, "monotonic", lambda: now[0])

    def costly(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            now[0] += seconds
            return function(*arguments)

        return call

    monkeypatch.setattr(Trainer, "update", costly(Trainer.update, updating))
    monkeypatch.setattr(planning, "validation_nats", costly(validation_nats, validating))


@pytest.mark.parametrize("validating", [0.001, 0.05, 2.0, 10.0])
def test_steps_fit_the_time(monkeypatch: pytest.MonkeyPatch, validating: float) -> None:
    clocked(monkeypatch, 0.1, validating)
    model = small_model()
    before = json.dumps([p.tolist() for p in model.parameters()])
    settings = TrainSettings(steps=100_000, valid_every=5, lanes=3)
    result = []
    for seconds in (60.0, 120.0, 600.0):
        planned = affordable_steps(model, toy(), toy((20,)), settings, seconds)
        spent = planned.steps * 0.1 + -(-planned.steps // planned.valid_every) * validating
        assert 0.8 * seconds < spent < seconds + validating
        share = (spent - planned.steps * 0.1) / spent  # of the time, for validations
        assert share < 0.15 or (share < 0.6 and planned.steps < 25 * planned.valid_every)
        assert planned.model_copy(update={"steps": 100_000, "valid_every": 5}) == settings
        result.append(planned.steps)
    assert result == sorted(result)
    few = settings.model_copy(update={"steps": 30})
    assert affordable_steps(model, toy(), toy((20,)), few, 600.0).steps == 30
    assert affordable_steps(model, toy(), toy((20,)), settings, 0.0).steps == 10
    assert json.dumps([p.tolist() for p in model.parameters()]) == before  # a copy was tried
