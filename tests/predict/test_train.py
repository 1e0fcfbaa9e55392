"""`tt.train`: one model by hand."""

from __future__ import annotations

import os
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import throughtime as tt
from throughtime.data.transforms import Difference, Transforms
from throughtime.errors import NonFiniteError, SettingError


def walk(length: int = 200) -> tt.Sequences:
    chance = torch.Generator().manual_seed(0)
    values = 20 + torch.randn(length, 1, generator=chance).double().cumsum(0)
    return tt.Sequences.of([values], names=["walk"])


def gru(**options: Any) -> tt.LatentAutoregressive:
    torch.manual_seed(0)
    return tt.LatentAutoregressive("gru", 4, emission=tt.emissions.StudentT(), **options)


def test_the_model_that_is_given_is_left_as_it_is() -> None:
    model = gru()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fitted = tt.train(model, walk(), transforms=["difference", "standardise"], steps=5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.num_differencing == 0
    assert fitted.model.num_differencing == 1
    assert any(
        not torch.equal(value, before[name]) for name, value in fitted.model.state_dict().items()
    )


def test_it_is_the_trainer_by_hand() -> None:
    """The public loop gives the same bits."""
    data, settings = walk(), tt.TrainSettings(steps=7, lanes=4, bptt="16", seed=3, threads=1)
    fitted = tt.train(
        gru(), data, transforms=["standardise"], **settings.model_dump(exclude={"refit"})
    )
    model, chain = gru(), Transforms.fit(["standardise"], data)
    seen = data.transform(chain)
    model.begin(seen)
    torch.manual_seed(0)
    tt.Trainer(model, seen, None, settings).run()
    for one, other in zip(fitted.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_same_seed_same_bits_whatever_came_before() -> None:
    runs = []
    for noise, seed in ((1, 0), (2, 0), (3, 1)):
        torch.manual_seed(noise)
        np.random.default_rng(noise)
        model = gru()
        runs.append(tt.train(model, walk(), steps=5, lanes=4, segment=50, seed=seed))
    same = [
        all(map(torch.equal, runs[0].model.parameters(), other.model.parameters()))
        for other in runs
    ]
    assert same == [True, True, False]


@pytest.mark.parametrize(
    "transforms",
    [["difference"], [Difference()], ("difference",), Transforms((Difference(),))],
)
def test_transforms_by_name_or_as_values(transforms: Any) -> None:
    fitted = tt.train(gru(), walk(), transforms=transforms, steps=2)
    assert fitted.transforms.kinds == ("difference",)
    assert fitted.transforms.domain is not None


@pytest.mark.parametrize("bptt", ["16,32", tt.bptt.Truncated(16, 32)])
def test_gradient_methods_by_name_or_as_values(bptt: Any) -> None:
    fitted = tt.train(gru(), walk(), bptt=bptt, steps=2)
    assert fitted.training is not None
    assert fitted.training.bptt == "16,32"


def test_closed_forms_are_fitted_at_once() -> None:
    data = walk()
    fitted = tt.train(tt.Autoregressive(2, emission=tt.emissions.Normal()), data)
    expected = tt.Autoregressive(2, emission=tt.emissions.Normal())
    expected.fit(data)
    torch.testing.assert_close(fitted.log_prob(data), expected.log_prob(data))
    assert fitted.name == "ar(2)"
    differenced = tt.train(
        tt.Autoregressive(2, emission=tt.emissions.Normal()), data, transforms=["difference"]
    )
    assert differenced.model.num_differencing == 1


def test_training_goes_on_from_fitted_weights() -> None:
    data = walk()
    train, valid, _ = data.split(valid=0.2, test=0.1)
    first = tt.train(gru(), train, valid, transforms=["standardise"], steps=10, seed=0)
    kept = [p.clone() for p in first.model.parameters()]
    more = tt.train(first, data, steps=1, learning_rate=1e-12, average=0.0)
    assert all(map(torch.equal, kept, first.model.parameters()))
    for before, after in zip(kept, more.model.parameters(), strict=True):
        torch.testing.assert_close(before, after, rtol=1e-6, atol=1e-6)
    assert more.transforms == first.transforms
    assert more.end is not None
    assert more.end.steps.tolist() == [200]
    with pytest.raises(SettingError, match="has its transforms"):
        tt.train(first, data, transforms=["log"])


def test_validation_data_choose_the_weights_and_are_the_end() -> None:
    train, valid, _ = walk().split(valid=0.2, test=0.1)
    events: list[dict[str, Any]] = []
    fitted = tt.train(gru(), train, valid, steps=6, valid_every=2, on_event=events.append)
    assert [event["step"] for event in events if event["event"] == "valid"] == [2, 4, 6]
    assert fitted.end is not None
    assert fitted.end.steps.tolist() == [180]


def test_nothing_is_written_and_nothing_of_the_callers_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model, data = gru(), walk()
    torch.manual_seed(5)
    random.seed(5)

    def world() -> list[Any]:
        return [
            torch.get_rng_state().tolist(), random.getstate(),
            np.random.get_state()[1].tolist(),  # type: ignore[index]
            torch.get_num_threads(), dict(os.environ), list(warnings.filters), os.getcwd(),
        ]  # fmt: skip

    before = world()
    tt.train(model, data, steps=2, threads=1)
    assert world() == before
    with pytest.raises(NonFiniteError):
        tt.train(model, data, steps=50, learning_rate=1e30, clip=1e30, max_skipped=1, threads=1)
    assert world() == before
    assert list(tmp_path.iterdir()) == []


def test_it_is_kept_where_out_says(tmp_path: Path) -> None:
    fitted = tt.train(gru(), walk(), steps=3, out=tmp_path / "kept")
    back = tt.load(tmp_path / "kept")
    assert isinstance(back, tt.FittedModel)
    assert torch.equal(back.log_prob(walk()), fitted.log_prob(walk()))


def test_any_sequence_model_can_be_trained() -> None:
    """A model that the library does not know, with parameters of its own."""

    class Mean(tt.LatentAutoregressive):
        def settings(self) -> dict[str, Any]:
            return {"kind": "mine"}

    torch.manual_seed(0)
    mine = Mean("rnn", 3, emission=tt.emissions.Normal())
    fitted = tt.train(mine, walk(), steps=2)
    assert (fitted.name, type(fitted.model)) == ("mine", Mean)


WRONG: tuple[tuple[dict[str, Any], str], ...] = (
    ({"stepz": 3}, "train has no option 'stepz'; did you mean 'steps'?"),
    ({"bptt": "some"}, "bptt='some' is not full, K or K1,K2"),
    ({"steps": 0}, "setting 'steps'"),
    ({"transforms": ["diff"]}, "unknown transform 'diff'"),
    ({"model": "gru"}, "train takes a model .* tt.fit takes names"),
    ({"model": tt.LatentAutoregressive("gru", 3, emission=tt.emissions.Normal(2))},
     "this model takes values"),
)  # fmt: skip


@pytest.mark.parametrize(("options", "message"), WRONG)
def test_what_makes_no_sense_is_one_clear_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingError, match=message) as error:
        tt.train(**{"model": gru(), "train": walk(), "steps": 2, **options})
    assert "\n" not in str(error.value)
