"""A fitted model as a value: it scores, forecasts any data, moves on, and is kept whole."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.small_runs import days

import throughtime as tt
from throughtime import state as states
from throughtime.data.domain import Domain
from throughtime.errors import DataError, RunError, SettingError
from throughtime.predict.fitted import FittedModel
from throughtime.runs.run import update


def panel(lengths: tuple[int, ...] = (80, 120), stamped: bool = True) -> tt.Sequences:
    """Random walks of several lengths, a covariate beside each."""
    chance = torch.Generator().manual_seed(0)
    parts = [50 + torch.randn(n, 1, generator=chance).double().cumsum(0) for n in lengths]
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    stamps = np.concatenate([np.array(days(n), dtype="datetime64[us]") for n in lengths])
    return tt.Sequences(
        torch.cat(parts),
        offsets,
        domain=Domain("real", columns=("y",), step="day"),
        names=tuple("abcdef"[: len(lengths)]),
        times=stamps if stamped else None,
    )


def upto(data: tt.Sequences, stop: int) -> tt.Sequences:
    """The first steps of every series."""
    parts = [data[i] for i in range(len(data))]
    keep = [torch.arange(stop) + int(b) for b in data.offsets[:-1]]
    steps = torch.cat(keep)
    return tt.Sequences(
        data.values[steps],
        torch.arange(len(parts) + 1) * stop,
        domain=data.domain,
        names=data.names,
        times=None if data.times is None else data.times[steps.numpy()],
    )


def since(data: tt.Sequences, begin: int) -> tt.Sequences:
    """The steps of every series from one on."""
    steps = torch.cat([torch.arange(int(b) + begin, int(e)) for b, e in pairwise(data.offsets)])
    lengths = data.lengths - begin
    return tt.Sequences(
        data.values[steps],
        torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
        domain=data.domain,
        names=data.names,
        times=None if data.times is None else data.times[steps.numpy()],
    )


def network(cell: str = "gru", **options: Any) -> tt.LatentAutoregressive:
    torch.manual_seed(3)
    return tt.LatentAutoregressive(cell, 6, emission=tt.emissions.StudentT(), **options)


MODELS = {
    "gru": lambda: network(),
    "lstm": lambda: network("lstm", members=2),
    "ar": lambda: tt.Autoregressive(3, emission=tt.emissions.Normal()),
    "mlp": lambda: tt.Autoregressive(2, emission=tt.emissions.StudentT(), predictor="mlp"),
}


@pytest.fixture(params=MODELS)
def fitted(request: pytest.FixtureRequest) -> FittedModel:
    """A model of two series that ended after 60 steps."""
    data = upto(panel(), 60)
    model = MODELS[request.param]()
    return tt.train(model, data, transforms=["difference", "standardise"], steps=3, seed=1)


def test_forecasts_go_on_from_any_data_as_from_its_own(fitted: FittedModel) -> None:
    own = fitted.forecast(5, num_paths=20)
    again = fitted.forecast(5, data=upto(panel(), 60), num_paths=20)
    np.testing.assert_array_equal(own.paths, again.paths)
    assert [str(day)[:10] for day in own.times[0]] == days(5, "2020-03-01")
    # Series never seen: the same past gives the same paths under the same name.
    stranger = replace(upto(panel(), 60)[1], names=("new",))
    assert fitted.forecast(5, data=stranger, num_paths=20).names == ("new",)
    known = fitted.forecast(5, data=replace(stranger, names=("b",)), num_paths=20)
    np.testing.assert_allclose(known.paths[0], own.paths[1], rtol=1e-5)


def test_a_run_fitted_on_the_same_data_forecasts_the_same(tmp_path: Path) -> None:
    """Fitting on some data and forecasting others is conditioning, not fitting again."""
    data = panel()
    one = tt.train(network(), upto(data, 60), transforms=["difference"], steps=3, seed=1)
    moved = one.forecast(4, data=data, num_paths=10)
    np.testing.assert_array_equal(one.ending(data).forecast(4, num_paths=10).paths, moved.paths)


@pytest.mark.parametrize(("kind", "tolerance"), [("float64", 1e-10), ("float32", 1e-6)])
@pytest.mark.parametrize("name", MODELS)
def test_update_is_reading_it_all(name: str, kind: str, tolerance: float) -> None:
    data = panel()
    model = MODELS[name]()
    one = tt.train(model, upto(data, 60), transforms=["log", "difference"], steps=2, seed=1)
    one.model.to(getattr(torch, kind))
    one = one.ending(upto(data, 60))
    moved = one.update(since(data, 60))
    piece = one.update(since(upto(data, 61), 60)).update(since(data, 61))
    whole = one.ending(data)
    for other in (moved, piece):
        assert other.end is not None
        assert whole.end is not None
        assert torch.equal(other.end.steps, whole.end.steps)
        assert torch.equal(other.end.history.values, whole.end.history.values)
        pairs = zip(
            states.leaves(other.end.context.state),
            states.leaves(whole.end.context.state),
            strict=True,
        )
        for part, wanted in pairs:
            torch.testing.assert_close(part, wanted, rtol=tolerance, atol=tolerance)
        ours, theirs = other.forecast(3, num_paths=9), whole.forecast(3, num_paths=9)
        np.testing.assert_allclose(ours.paths, theirs.paths, rtol=10 * tolerance)
    for before, after in zip(one.model.parameters(), moved.model.parameters(), strict=True):
        assert torch.equal(before, after)


def test_update_takes_later_rows_only_and_new_series() -> None:
    data = panel()
    one = tt.train(MODELS["ar"](), upto(data, 60), transforms=["difference"])
    same = one.update(data)  # all of the file again: what is known is passed over
    assert same.end is not None
    assert same.end.steps.tolist() == [80, 120]
    assert repr(same).startswith(
        "FittedModel('ar(3)', Autoregressive, Difference, Sequences(real; 2"
    )
    with pytest.raises(DataError, match=r"after the end of the data, which is at 2020-\d\d-\d\d$"):
        one.update(upto(data, 50))
    new = replace(upto(data, 40)[0], names=("z",))
    joined = tt.Sequences(
        torch.cat([since(data, 60)[0].values, new.values]),
        torch.tensor([0, 20, 60]),
        domain=data.domain,
        names=("a", "z"),
        times=np.concatenate([since(data, 60)[0].times, new.times]),
    )
    more = one.update(joined)
    assert more.names == ("a", "b", "z")
    assert more.end is not None
    assert more.end.steps.tolist() == [80, 60, 40]
    assert more.forecast(2, num_paths=3).names == ("a", "b", "z")


def test_rows_that_are_not_new_are_named_by_their_file(tmp_path: Path) -> None:
    path = tmp_path / "old.csv"
    path.write_text("day,sold\n" + "".join(f"{day},{i}\n" for i, day in enumerate(days(60))))
    fitted = tt.train(tt.Autoregressive(1, emission=tt.emissions.Normal()), path)
    with pytest.raises(DataError, match=r"old\.csv: no row comes after the end of the data"):
        fitted.update(path)
    fitted.save(tmp_path / "run")
    with pytest.raises(DataError, match=r"old\.csv: no row comes after the end of the data"):
        update(tmp_path / "run", path)


def test_a_misspelt_option_is_refused_with_the_nearest(fitted: FittedModel) -> None:
    with pytest.raises(SettingError, match="forecast has no option 'num_path'; did you mean"):
        fitted.forecast(3, num_path=3)  # type: ignore[call-arg]
    with pytest.raises(SettingError, match="sample has no option 'temprature'; did you mean"):
        fitted.sample(3, temprature=2)  # type: ignore[call-arg]
    with pytest.raises(SettingError, match="split has no option 'tests'; did you mean 'test'"):
        panel().split(tests=0.1)  # type: ignore[call-arg]
    normal = tt.emissions.Normal()
    with pytest.raises(SettingError, match="LatentAutoregressive has no option 'hidden'; did you"):
        tt.LatentAutoregressive("gru", hidden=3, emission=normal)  # type: ignore[call-arg]
    with pytest.raises(SettingError, match=r"bptt= takes a method of tt\.bptt .* got object"):
        tt.fit(panel(), bptt=object())
    with pytest.raises(SettingError, match=r"bptt= takes a method of tt\.bptt .* got object"):
        tt.train(fitted, panel(), bptt=object())


def test_series_without_times_go_on_counting() -> None:
    data = panel(stamped=False)
    one = tt.train(MODELS["ar"](), upto(data, 60)[0])
    assert one.forecast(2, num_paths=2).frame()["ds"].to_list() == [60, 61]
    later = one.update(torch.randn(5, dtype=torch.float64).numpy() + 50)
    assert later.forecast(2, num_paths=2).frame()["ds"].to_list() == [65, 66]
    assert later.forecast(2, num_paths=2).to_json()["series"][0]["times"] is None


def test_scores_are_exact_and_include_the_first_element() -> None:
    data = panel()
    one = tt.train(MODELS["ar"](), upto(data, 60), transforms=["log", "difference"])
    total = one.log_prob(data)
    frame = one.step_scores(data)
    assert frame.columns == ["unique_id", "ds", "step", "y", "surprisal"]
    by_series = frame.group_by("unique_id", maintain_order=True).sum()["surprisal"]
    np.testing.assert_allclose(-by_series.to_numpy(), total.numpy())
    assert len(frame) == len(data.values)
    torch.testing.assert_close(one.step_log_prob(data).sum(), total.sum())
    scores = one.score(data)
    assert scores.steps.tolist() == [80, 120]
    assert scores.to_json()["total_nats"] == pytest.approx(float(total.sum()))


def test_it_is_kept_whole(fitted: FittedModel, tmp_path: Path) -> None:
    fitted.save(tmp_path / "kept")
    back = tt.load(tmp_path / "kept")
    assert isinstance(back, FittedModel)
    assert (back.name, back.names, back.training) == (fitted.name, fitted.names, fitted.training)
    data = panel()
    assert torch.equal(back.log_prob(data), fitted.log_prob(data))
    ours, theirs = back.forecast(4, num_paths=7), fitted.forecast(4, num_paths=7)
    np.testing.assert_array_equal(ours.paths, theirs.paths)
    moved, wanted = back.update(since(data, 60)), fitted.update(since(data, 60))
    np.testing.assert_array_equal(
        moved.forecast(2, num_paths=3).paths, wanted.forecast(2, num_paths=3).paths
    )


def test_the_end_of_another_model_is_refused(tmp_path: Path) -> None:
    data = upto(panel(), 60)
    for name, order in (("one", 1), ("two", 2)):
        model = tt.Autoregressive(order, emission=tt.emissions.Normal())
        tt.train(model, data).save(tmp_path / name)
    other = (tmp_path / "two/context.safetensors").read_bytes()
    (tmp_path / "one/context.safetensors").write_bytes(other)
    with pytest.raises(RunError, match=r"context.safetensors is damaged \(its SHA-256 differs"):
        tt.load(tmp_path / "one")


def test_covariates_of_the_future_are_asked_for() -> None:
    chance = torch.Generator().manual_seed(1)
    known = torch.randn(200, 1, generator=chance).double()
    values = 3 * known + 0.1 * torch.randn(200, 1, generator=chance).double()
    data = tt.Sequences(
        values, torch.tensor([0, 200]),
        domain=Domain("real", columns=("y",), covariate_columns=("u",)), names=("a",),
        covariates=known,
    )  # fmt: skip
    model = tt.Autoregressive(1, emission=tt.emissions.Normal(), covariates=1)
    one = tt.train(model, data)
    with pytest.raises(SettingError, match=r"was fitted with covariates .*give their values"):
        one.forecast(2)
    ahead = one.forecast(2, future=torch.tensor([[1.0], [-2.0]]), num_paths=400)
    np.testing.assert_allclose(ahead.mean[0, :, 0], [3.0, -6.0], atol=0.1)
    with pytest.raises(SettingError, match="takes 2 covariates, the data have 1"):
        tt.train(tt.Autoregressive(1, emission=tt.emissions.Normal(), covariates=2), data)


def test_text_goes_on_too() -> None:
    text = "the quick brown fox " * 20
    data = tt.Sequences.of([text])
    symbols = len(set(text)) + 1
    model = tt.Autoregressive(3, emission=tt.emissions.Categorical(symbols))
    one = tt.train(model, data)
    assert "".join(one.stream_text(12, prompt="the quick bro", top_p=0.3)).startswith("wn fox ")
    moved = one.update(tt.Sequences.of(["the qui"]))
    assert moved.end is not None
    assert moved.end.steps.tolist() == [407]
    with pytest.raises(SettingError, match="models text, whose symbols have no quantiles"):
        one.forecast(2)


def test_a_model_kept_without_its_end_says_so() -> None:
    one = replace(tt.train(MODELS["ar"](), upto(panel(), 60)), end=None)
    with pytest.raises(SettingError, match="without the end of its data; give data="):
        one.forecast(2)
    assert one.names == ()
    assert one.forecast(2, data=panel(), num_paths=2).names == ("a", "b")


def test_data_of_another_kind_are_refused() -> None:
    one = tt.train(MODELS["ar"](), upto(panel(), 60))
    with pytest.raises(DataError, match=r"gives symbols data; the model 'ar\(3\)' models real"):
        one.forecast(2, data=tt.Sequences.of([torch.tensor([0, 1, 2])]))


@pytest.mark.parametrize("library", ["polars", "pandas"])
def test_frames_in_are_frames_out_of_the_same_library(library: str, tmp_path: Path) -> None:
    module = pytest.importorskip(library)
    values = 50 + np.random.default_rng(0).normal(size=60).cumsum()
    frame = module.DataFrame({"unique_id": ["a"] * 60, "ds": days(60), "y": values})
    one = tt.train(tt.Autoregressive(1, emission=tt.emissions.Normal()), frame)
    one.save(tmp_path / "kept")
    for fitted in (one, tt.load(tmp_path / "kept")):
        ahead = fitted.forecast(2, num_paths=5).frame()
        assert type(ahead) is module.DataFrame
        assert list(ahead.columns)[:3] == ["unique_id", "ds", "mean"]
        assert type(fitted.step_scores(frame)) is module.DataFrame
    # Data that were read beforehand know how, and what they came in.
    shops = frame.rename(columns={"unique_id": "shop", "ds": "day", "y": "sold"}) if (
        library == "pandas"
    ) else frame.rename({"unique_id": "shop", "ds": "day", "y": "sold"})  # fmt: skip
    read = tt.read(shops, id="shop", time="day", value="sold")
    known = tt.train(tt.Autoregressive(1, emission=tt.emissions.Normal()), read)
    assert type(known.forecast(2, num_paths=5).frame()) is module.DataFrame
    assert known.forecast(2, data=shops, num_paths=5).names == ("a",)
    other = tt.train(tt.Autoregressive(1, emission=tt.emissions.Normal()), values)
    assert type(other.forecast(2, data=frame, num_paths=5).frame()) is module.DataFrame
    assert type(other.forecast(2, num_paths=5).frame()).__module__.startswith("polars")
