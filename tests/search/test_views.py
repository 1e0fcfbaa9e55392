"""How data are looked at, and how much of them where time is short."""

from __future__ import annotations

import torch
from support.model_cases import generator

import throughtime as tt
from throughtime.data.transforms import Difference, Standardise, Transforms
from throughtime.search.views import at_most, fitted, natural_view, unfitted
from throughtime.training.config import DataSettings, RunSettings


def walks(count: int, length: int) -> tt.Sequences:
    steps = torch.randn(count, length, generator=generator(1), dtype=torch.float64)
    return tt.Sequences.of(list(steps.cumsum(1)))


def test_of_many_series_some_are_looked_at_whole() -> None:
    panel = walks(80, 60)
    train, _, test = panel.split(valid=0.1, test=0.1, by="time")
    few = at_most(train, 1000)
    assert len(few.values) <= 1000
    assert few.names == train.names[::4]
    assert torch.equal(few.sequence(1), train.sequence(4))
    held = at_most(test, 1200)
    assert len(held.values) <= 1200  # their pasts are counted, because they are read
    assert int(held.lengths.min()) == 60


def test_of_a_few_series_the_last_steps_are_looked_at() -> None:
    one = walks(1, 1000)
    last = at_most(one, 100)
    assert torch.equal(last.values, one.values[-100:])
    _, _, test = one.split(valid=0.1, test=0.2)
    held = at_most(test, 250)
    assert torch.equal(held.values, one.values[-250:])
    assert held.steps == 50


def test_nothing_is_left_out_without_a_limit_or_need() -> None:
    panel = walks(80, 60)
    assert at_most(panel, None) is panel
    assert at_most(panel, 80 * 60) is panel


def test_transforms_asked_for_are_the_view() -> None:
    train, valid, _ = walks(1, 200).split(valid=0.2, test=0.2)
    asked = unfitted("difference").to_json()
    settings = RunSettings(data=DataSettings(source="x"), transforms=asked, emission="normal")
    view = natural_view(train, valid, settings)
    assert view.transforms == Transforms((Difference(), Standardise()))
    assert view.num_differencing == 1
    assert view.emission == tt.emissions.Normal()
    known = fitted(view.transforms, train)
    assert fitted(known, valid) is known
