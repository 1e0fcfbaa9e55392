"""Which settings the data get, by what can be seen of them."""

from __future__ import annotations

import pytest
import torch
from support.model_cases import generator

import throughtime as tt
from throughtime.data.sequences import Domain, Sequences
from throughtime.models.latent import Dropout
from throughtime.search.defaults import Recipe, recipe
from throughtime.training.config import DataSettings, RunSettings


def symbols(count: int, length: int, silent: float, kind: str = "symbols") -> Sequences:
    """Sequences of 5 symbols, of which one fills the share `silent` of the time."""
    chance = generator(3)
    rows = torch.randint(0, 4, (count, length), generator=chance)
    rows[:, : round(silent * length)] = 4
    return Sequences.of(list(rows), Domain(kind, num_symbols=5))  # type: ignore[arg-type]


def chosen(data: Sequences, **asked: object) -> Recipe:
    settings = RunSettings(data=DataSettings(source="x"), **asked)  # type: ignore[arg-type]
    return recipe(data, tt.emissions.Categorical(5), settings)


def test_events_in_silence_get_a_memory_and_a_gradient_as_long_as_the_longest() -> None:
    data = symbols(150, 300, 0.9)
    found = chosen(data)
    assert found.time_scale == 300
    assert found.train.bptt == "300"
    assert found.train.segment is None  # no sequence is begun in the middle
    assert found.dropout == Dropout()


@pytest.mark.parametrize(
    ("count", "length", "silent"),
    [(150, 300, 0.3), (20, 300, 0.9), (150, 5000, 0.9)],
    ids=["no symbol prevails", "few sequences", "too long to be taken whole"],
)
def test_other_symbols_are_trained_as_text(count: int, length: int, silent: float) -> None:
    found = chosen(symbols(count, length, silent))
    assert (found.train.bptt, found.time_scale) == ("80", None)


def test_text_is_trained_as_text_whatever_fills_it() -> None:
    found = chosen(symbols(150, 300, 0.9, "text"))
    assert (found.train.bptt, found.time_scale) == ("80", None)


def test_what_is_asked_for_overrides_what_was_found() -> None:
    found = chosen(symbols(150, 300, 0.9), bptt="50", hidden=7, steps=40)
    assert (found.hidden, found.train.bptt, found.train.steps) == (7, "50", 40)
    assert found.time_scale == 300
