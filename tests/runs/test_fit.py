"""The front door: every option by the library's own value, and nothing left behind."""

from __future__ import annotations

import os
import random
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.small_runs import QUICK, walk, write_series

import throughtime as tt
from throughtime.data.transforms import Difference, Log, Standardise, Transforms
from throughtime.errors import DataError, SettingError
from throughtime.models.base import SequenceModel
from throughtime.runs.assessment import Effort, Speed

pytestmark = pytest.mark.usefixtures("here")
PRICES = torch.from_numpy(walk(120))


def nats(run: tt.Run) -> dict[str, Any]:
    return {row.name: row.nats_per_step for row in run.scores.models}


def test_nothing_is_written_and_everything_is_there() -> None:
    run = tt.fit(PRICES, **QUICK)
    assert not list(Path().iterdir())
    assert run.folder is None
    assert {"constant", "random walk", "gru", "lstm", run.best.name} <= set(run.models)
    assert set(run.models) <= set(nats(run))
    assert run.verdict.endswith(".")
    assert run.certificate is not None
    assert run.forecast(3, num_paths=20).paths.shape == (1, 20, 3, 1)
    assert run.models["gru"].forecast(2, num_paths=5).paths.shape == (1, 5, 2, 1)
    assert run.models["gru"].score(PRICES).steps.tolist() == [120]


VALUES = {
    "bptt": (tt.bptt.Truncated(8, 16), "8,16"),
    "emission": (tt.emissions.Normal(), "normal"),
    "emission with options": (tt.emissions.StudentT(min_scale=0.01), "student_t:min_scale=0.01"),
    "transforms": ([Log(), Difference()], ["log", "difference"]),
    "transforms, unfitted": (
        Transforms((Difference(), Standardise())), [{"kind": "difference"}, "standardise"]
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", VALUES)
def test_a_value_and_its_string_form_give_the_same_run(case: str) -> None:
    option = case.split(",")[0].split(" ")[0]
    runs = [tt.fit(PRICES, model="gru", **{option: form}, **QUICK) for form in VALUES[case]]
    assert nats(runs[0]) == nats(runs[1])
    assert runs[0].models["gru"].transforms == runs[1].models["gru"].transforms
    weights = [run.models["gru"].model.state_dict() for run in runs]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_an_emission_with_options_reaches_the_model() -> None:
    pair = torch.stack([PRICES, PRICES.flip(0)], 1)
    run = tt.fit(pair, model="gru", emission="student_t:rank=1", **QUICK)
    assert run.models["gru"].model.emission == tt.emissions.StudentT(2, rank=1)


def test_fitted_transforms_are_taken_as_they_are() -> None:
    series = tt.Sequences.of([PRICES])
    known = Transforms.fit(["log", "standardise"], series)
    run = tt.fit(series, model="gru", transforms=known, **QUICK)
    assert run.models["gru"].transforms == known


def test_models_by_value_are_trained_as_they_are_with_names_of_their_own() -> None:
    small = tt.LatentAutoregressive("gru", 3, emission=tt.emissions.StudentT())
    before = {name: value.clone() for name, value in small.state_dict().items()}
    models = [
        small,
        tt.LatentAutoregressive("gru", 5, emission=tt.emissions.Normal()),
        tt.Autoregressive(2, emission=tt.emissions.StudentT()),
    ]
    run = tt.fit(PRICES, model=models, steps=4)
    assert {"gru", "gru 2", "ar(2)", "constant", "random walk"} <= set(nats(run))
    assert "lstm" not in nats(run)
    assert run.models["gru"].model.settings()["hidden_size"] == 3
    assert run.models["gru 2"].model.emission.kind == "normal"
    assert all(torch.equal(before[name], value) for name, value in small.state_dict().items())
    assert not all(
        torch.equal(before[name], value)
        for name, value in run.models["gru"].model.state_dict().items()
    )


def test_a_model_by_value_is_kept_in_a_folder_and_goes_on() -> None:
    model = tt.LatentAutoregressive("lstm", 3, emission=tt.emissions.StudentT())
    write_series(Path("prices.csv"), walk(100))
    run = tt.fit("prices.csv", model=model, out="run", steps=4)
    again = tt.fit("prices.csv", model=model, out="run", steps=4)
    assert nats(again) == nats(run)
    assert "lstm" in again.models


class Own(tt.Autoregressive):
    """A model that no file can name."""

    def settings(self) -> dict[str, Any]:
        return {**super().settings(), "kind": "own"}


def test_a_model_of_ones_own_is_fitted_in_memory() -> None:
    own: SequenceModel = Own(1, emission=tt.emissions.Normal())
    assert nats(tt.fit(PRICES, model=own, steps=4))
    with pytest.raises(SettingError, match="the model Own cannot be kept in run"):
        tt.fit(PRICES, model=own, steps=4, out="run")
    assert not Path("run").exists()


def test_training_goes_on_from_a_fitted_model() -> None:
    model = tt.LatentAutoregressive("gru", 4, emission=tt.emissions.StudentT())
    fitted = tt.train(model, PRICES[:80], transforms=["difference", "standardise"], steps=5)
    run = tt.fit(PRICES, model=fitted, steps=4)
    assert run.models["gru"].transforms == fitted.transforms
    assert run.models["gru"].model.settings() == fitted.model.settings()
    with pytest.raises(SettingError, match="a fitted model has its transforms"):
        tt.fit(PRICES, model=fitted, transforms=["log"])
    with pytest.raises(DataError, match="models real data"):
        tt.fit(tt.Sequences.of(["some text " * 20]), model=fitted)


def test_baselines_by_name() -> None:
    run = tt.fit(PRICES, model="ar", baselines=["exponential_smoothing"], steps=4)
    assert "exponential smoothing" in nats(run)
    with pytest.raises(SettingError, match="did you mean 'garch'"):
        tt.fit(PRICES, baselines="garhc")
    with pytest.raises(SettingError, match="baseline 'hmm' is for at most 64 kinds of symbols"):
        tt.fit(PRICES, model="ar", baselines="hmm", steps=4)


WRONG = {
    "hiden": (8, "fit has no option 'hiden'; did you mean 'hidden'?"),
    "time_fromat": ("%Y", "fit has no option 'time_fromat'; did you mean 'time_format'?"),
    "emission": ("student_t:rnk=2", "emission 'student_t' has no option 'rnk'"),
    "transforms": (["diference"], "unknown transform 'diference'; did you mean 'difference'?"),
    "bptt": ("fulll", "fulll"),
    "model": (5, "model=5: a name, a model such as tt.LatentAutoregressive, or a list of models"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_misspelt_gets_one_line(name: str) -> None:
    value, message = WRONG[name]
    with pytest.raises(SettingError) as caught:
        tt.fit(PRICES, **{name: value})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def surroundings() -> dict[str, Any]:
    return {
        "torch": torch.get_rng_state().tolist(),
        "numpy": [str(part) for part in np.random.get_state()],
        "random": random.getstate(),
        "threads": torch.get_num_threads(),
        "warnings": list(warnings.filters),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "files": sorted(Path().rglob("*")),
    }


@pytest.mark.parametrize("work", ["fit", "train", "certificate", "raises"])
def test_the_callers_surroundings_stay_as_they_were(work: str) -> None:
    before = surroundings()
    model = tt.LatentAutoregressive("gru", 4, emission=tt.emissions.StudentT())
    torch.set_rng_state(torch.tensor(before["torch"], dtype=torch.uint8))
    if work == "fit":
        tt.fit(PRICES, model="gru", **QUICK)
    elif work == "train":
        tt.train(model, PRICES, steps=3)
    elif work == "certificate":
        tt.history.certificate(PRICES, time_limit=2)
    else:
        with pytest.raises(DataError, match="is 1 at every step"):
            tt.fit(torch.ones(100), model="gru", **QUICK)
    after = surroundings()
    assert {name for name in before if before[name] != after[name]} == set()


def test_effort_is_what_fits_beside_the_scoring() -> None:
    quick, slow = Speed(1.0, 0.01, 9), Speed(1.0, 1.0, 9)
    assert slow.forecasts == 110.0  # 20 series of the best model, and 10 of each of nine
    assert Effort.within(1000.0, quick) == Effort()
    short = Effort.within(10.0, slow)
    assert 0 < short.distributions * slow.forecasts < 10.0 - slow.scoring
    assert 0 < short.gradient < 1
    assert Effort.within(2.0, slow) == Effort(0.0, 0.0)


def test_a_panel_in_a_short_time_is_compared_on_some_of_its_steps() -> None:
    steps = torch.randn(90, 400, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    panel = tt.Sequences.of(list(steps.cumsum(1) + 100))
    run = tt.fit(panel, model="ar", order=1, time_limit=4.0, split="time")
    assert any("steps, as many as the time allows" in note for note in run.scores.data.notes)
    assert {row.name for row in run.scores.models} >= {"constant", "random walk", "ar(1)"}
    assert all(row.nats_per_step is not None for row in run.scores.models)
