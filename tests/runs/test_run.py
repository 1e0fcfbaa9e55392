"""Runs from Python: fitted on each kind of data, used from their folder, resumed bit for bit."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.small_runs import QUICK, SmallRuns, days, walk, write_series

import throughtime as tt
from throughtime import files
from throughtime.data.domain import Domain
from throughtime.errors import SettingError, VocabularyError
from throughtime.runs.store import sweep
from throughtime.search import candidates, views
from throughtime.training.config import DataSettings, RunSettings

pytestmark = pytest.mark.usefixtures("here")
FILES = {
    "checkpoint", "config.toml", "context.safetensors", "log.jsonl", "model.json",
    "model.safetensors", "report.html", "scores.json",
}  # fmt: skip
KINDS = ("series", "sales", "text", "lines", "bytes", "sound")
SOURCES = {
    "series": "prices.csv", "sales": "sales.csv", "text": "story.txt", "lines": "names.txt",
    "bytes": "accents.txt", "sound": "recordings",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_run_is_made_of(small_runs: SmallRuns, kind: str) -> None:
    folder = small_runs(kind)
    assert {path.name for path in folder.iterdir()} == FILES
    left = {path.name for path in (folder / "checkpoint").rglob("*") if path.is_file()}
    assert left <= {"result.safetensors", "history.json"}
    run = tt.load(folder)
    assert isinstance(run, tt.Run)
    assert run.folder == folder
    assert "tensor(" not in repr(run)
    assert run.verdict in repr(run)
    assert run.best.name in {row.name for row in run.scores.models}
    assert run.verdict.endswith(".")


@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_the_model(small_runs: SmallRuns, kind: str) -> None:
    run, source = tt.load(small_runs(kind)), small_runs.folder / SOURCES[kind]
    actual, raw = run.score(source).to_json(), run.read(source)
    expected = run.best.model.log_prob(run.best.transformed(raw))
    nats = torch.tensor([row["nats"] for row in actual["sequences"]], dtype=torch.float64)
    torch.testing.assert_close(nats, expected, rtol=1e-9, atol=1e-9)
    assert actual["total_nats"] == pytest.approx(float(expected.sum()))
    steps = run.step_scores(source)
    assert -steps["surprisal"].sum() == pytest.approx(actual["total_nats"])
    torch.testing.assert_close(run.best.log_prob(source), expected, rtol=1e-9, atol=1e-9)
    if kind != "bytes":
        assert len(steps) == actual["steps"] == raw.steps


def test_the_symbols_of_each_step_are_the_text(small_runs: SmallRuns) -> None:
    run = tt.load(small_runs("text"))
    frame = run.step_scores(small_runs.folder / "story.txt")
    assert "".join(frame["symbol"]) == (small_runs.folder / "story.txt").read_text()
    assert frame["step"].to_list() == list(range(len(frame)))


def test_text_of_bytes_is_scored_per_character(small_runs: SmallRuns) -> None:
    run, source = tt.load(small_runs("bytes")), small_runs.folder / "accents.txt"
    result, text = run.score(source).to_json(), source.read_text(encoding="utf-8")
    assert result["unit"] == "nats per character"
    assert result["steps"] == len(text)
    assert len(run.step_scores(source)) == len(text.encode())
    assert result["bits_per_byte"] * len(text.encode()) == pytest.approx(
        result["bits_per_character"] * len(text)
    )
    drawn = "".join(run.stream_text(200, prompt="é à", top_p=0.5))  # whole characters, not bytes
    assert "\ufffd" not in drawn[:-4]
    assert set(drawn[:-4]) <= set(text)


def test_progress_is_reported(small_runs: SmallRuns) -> None:
    run, events = tt.load(small_runs("series")), []
    run.score(small_runs.folder / "prices.csv", on_progress=lambda *now: events.append(now))
    if run.scores[run.best.name].family == "latent":
        assert events[-1][:2] == (150, 150)
    events.clear()
    run.forecast(4, num_paths=5, on_progress=lambda *now: events.append(now))
    assert events == [(step, 4, "prices: 5 paths") for step in (1, 2, 3, 4)]
    events.clear()
    run.sample(3, on_progress=lambda *now: events.append(now))
    assert events == [(1, 3, "drawing"), (2, 3, "drawing"), (3, 3, "drawing")]


def test_forecasts(small_runs: SmallRuns) -> None:
    run = tt.load(small_runs("series"))
    forecast = run.forecast(10)
    result = forecast.to_json(paths=True)
    (series,) = result["series"]
    assert series["times"] == days(10, "2020-05-30")
    (column,) = series["columns"]
    levels = np.array(list(column["quantiles"].values()))
    assert levels.shape == (9, 10)
    assert (np.diff(levels, axis=0) >= 0).all()
    assert (levels > 0).all()
    paths = np.array(column["paths"])
    assert paths.shape == (result["num_paths"], 10)
    np.testing.assert_allclose(np.quantile(paths, 0.5, axis=0), column["quantiles"]["0.5"])
    assert result["quantile_error"] <= 0.05 or result["num_paths"] == 51_200
    assert run.forecast(10).to_json(paths=True) == result
    one, other = (run.forecast(10, num_paths=50, seed=seed) for seed in (1, 2))
    assert not np.array_equal(one.paths, other.paths)
    fewer = run.forecast(10, num_paths=50).paths[0, ..., 0]
    np.testing.assert_allclose(fewer, paths[:50])  # a path does not depend on how many there are


def test_forecasts_of_several_series_with_covariates(small_runs: SmallRuns) -> None:
    run = tt.load(small_runs("sales"))
    plan = torch.tensor([[1.0], [0.0], [1.0]])
    result = run.forecast(3, future=plan, num_paths=200)
    assert result.names == ("north", "south")
    alone = run.forecast(3, future=plan, num_paths=200, series=["south"])
    np.testing.assert_array_equal(alone.paths, result.paths[1:])
    with pytest.raises(SettingError, match=r"covariates are \[3, 1\], these are \[2, 1\]"):
        run.forecast(3, future=plan[:2])


def test_samples(small_runs: SmallRuns) -> None:
    text = tt.load(small_runs("text"))
    drawn = text.sample(30, num_paths=2)
    assert drawn.shape == (2, 30)
    streamed = "".join(text.stream_text(30))
    assert "".join(map(chr, drawn[0].tolist())) == streamed
    assert "".join(text.stream_text(30, path=1)) != streamed
    sizes = tt.load(small_runs("bytes"))
    texts = ["".join(map(chr, path.tolist())) for path in sizes.sample(30, num_paths=2)]
    assert texts[0] == "".join(sizes.stream_text(30))
    sound = tt.load(small_runs("sound")).sample(50)
    assert sound.shape == (1, 50, 1) or sound.shape == (1, 50)
    assert float(sound.abs().max()) <= 1
    series = tt.load(small_runs("series")).sample(5, num_paths=3)
    assert series.shape == (3, 5, 1)


def test_lines_begin_again_after_each_newline(small_runs: SmallRuns) -> None:
    run = tt.load(small_runs("lines"))
    drawn = "".join(run.stream_text(400, seed=3))
    assert len(drawn) == 400
    assert drawn.count("\n") > 5
    lines = drawn.split("\n")
    assert len(set(lines)) > 3  # each from random numbers of its own
    prompted = "".join(run.stream_text(20, prompt="x\nfo", seed=1))
    assert prompted == "".join(run.stream_text(20, prompt="fo", seed=1))
    with pytest.raises(VocabularyError):
        list(run.stream_text(5, prompt="☃"))


def test_a_finished_run_is_returned_as_it_is(small_runs: SmallRuns) -> None:
    shutil.copytree(small_runs("text"), "run")
    before = {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")}
    events: list[dict[str, Any]] = []
    source = small_runs.folder / "story.txt"
    run = tt.fit(source, out="run", on_event=events.append, **QUICK)
    assert [event["event"] for event in events] == ["read", "data", "finished"]
    assert run.best.name == tt.load(small_runs("text")).best.name
    assert {path: path.stat().st_mtime_ns for path in Path("run").rglob("*")} == before


def scores_without_timings(folder: Path) -> dict[str, Any]:
    """scores.json without what depends on the machine's mood."""
    scores = files.read_json(folder / "scores.json")
    for row in scores["models"]:
        del row["seconds"], row["peak_memory_mb"]
    result: dict[str, Any] = scores
    return result


def test_the_same_seed_gives_the_same_bits() -> None:
    path = write_series(Path("prices.csv"), walk(100))
    for out, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(random.getrandbits(30))
        tt.fit(path, model="gru", out=out, seed=seed, **QUICK)
    results = [Path(out, "checkpoint/gru/result.safetensors") for out in ("a", "b", "c")]
    tensors = [files.read_tensors(result)[0] for result in results]
    same = [all(torch.equal(tensors[0][k], other[k]) for k in tensors[0]) for other in tensors]
    assert same == [True, True, False]
    assert scores_without_timings(Path("a")) == scores_without_timings(Path("b"))


def test_other_kinds_of_data() -> None:
    import polars as pl

    frame = pl.DataFrame({"ds": days(60), "y": walk(60)})
    run = tt.fit(frame, model="gru", out="frame", **QUICK)
    assert run.scores.data.source == "dataframe"
    assert int(run.score(frame).steps.sum()) == 60
    rolls = tt.Sequences.of([torch.randint(0, 2, (30, 3)).double() for _ in range(6)])
    parts = (rolls[:4], rolls[4:5], rolls[5:])
    run = tt.fit(parts, model="gru", out="rolls", **QUICK)
    assert int(run.score(rolls).steps.sum()) == 180
    again = tt.fit(parts, model="gru", out="rolls", **QUICK)
    assert again.best.name == run.best.name


def test_gaps_everywhere_leave_what_needs_no_neighbours() -> None:
    values = [price if i % 2 else "" for i, price in enumerate(walk(120))]
    write_series(Path("weekly.csv"), values)
    run = tt.fit("weekly.csv", **QUICK)
    names = {row.name: row for row in run.scores.models}
    assert {"constant", "ar(0)", "gru"} <= set(names)
    assert "random walk" not in names
    assert all(row.nats_per_step is not None for row in names.values())


def test_answers_at_the_end_of_long_covariates() -> None:
    torch.manual_seed(0)
    count, steps = 60, 30
    covariates_drawn = torch.rand(count, steps, 2, dtype=torch.float64)
    answers = torch.full((count, steps), torch.nan, dtype=torch.float64)
    answers[:, -1] = covariates_drawn[:, 3, 0]
    domain = Domain("real", columns=("answer",), covariate_columns=("a", "b"))
    whole = tt.Sequences(
        answers.flatten().unsqueeze(1),
        torch.arange(count + 1) * steps,
        starts=torch.zeros(count, dtype=torch.int64),
        domain=domain,
        names=tuple(map(str, range(count))),
        covariates=covariates_drawn.flatten(0, 1),
    )
    run = tt.fit((whole[:40], whole[40:50], whole[50:]), model="gru", out="answers", **QUICK)
    assert run.scores["gru"].nats_per_step is not None
    assert candidates.latent_candidates(
        views.View(views.unfitted(), tt.emissions.Normal()), whole[:40], whole[40:50],
        RunSettings(data=DataSettings(source="x")),
    )[0].make().time_scale == steps  # fmt: skip


def test_what_was_half_written_is_swept_away() -> None:
    Path("run/checkpoint/gru").mkdir(parents=True)
    partial = ("run/.config.toml.k3x_9qa1", "run/checkpoint/gru/.training.safetensors.abcdefgh")
    kept = ("run/.gitignore", "run/.model.json", "run/notes.txt")
    for name in (*partial, *kept):
        Path(name).touch()
    sweep(Path("run"))
    assert not any(Path(name).exists() for name in partial)
    assert all(Path(name).exists() for name in kept)


def test_a_folder_with_nothing_but_a_partial_file_is_new() -> None:
    path = write_series(Path("prices.csv"), walk(60))
    Path("run").mkdir()
    Path("run/.config.toml.k3x_9qa1").touch()
    tt.fit(path, model="gru", out="run", **QUICK)
    assert {entry.name for entry in Path("run").iterdir()} == FILES


def begin(out: str) -> subprocess.Popen[bytes]:
    """A process that fits with checkpoints at every step."""
    code = (
        "import torch; torch.set_num_threads(1)\n"
        "from throughtime.training.config import TrainSettings\n"
        "TrainSettings.model_fields['checkpoint_seconds'].default = 0.0\n"
        "TrainSettings.model_rebuild(force=True)\n"
        "from throughtime.cli import main\n"
        f"main('fit prices.csv --steps 12 --hidden 4 -o {out}'.split())\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def logged(out: str) -> int:
    """How many events a fit has logged."""
    log = Path(out, "log.jsonl")
    return log.read_bytes().count(b"\n") if log.exists() else 0


@pytest.mark.slow
def test_kill_9_at_any_moment_and_again_ends_with_the_same_bits() -> None:
    write_series(Path("prices.csv"), walk(150))
    assert begin("whole").wait(600) == 0
    events, chance, kills = logged("whole"), random.Random(0), 0
    for share in (0.1, 0.3, 0.6, 0.9):  # among the candidates, in training and refits, evaluating
        process = begin("killed")
        enough = logged("killed") + round(chance.uniform(0.5, 1.0) * share * events)
        while process.poll() is None and logged("killed") < enough:
            time.sleep(0.01)
        process.kill()
        kills += process.wait() == -9
        assert not Path("killed/model.json").exists() or process.returncode == 0
    assert kills >= 2
    assert begin("killed").wait(600) == 0
    for name in ("model.safetensors", "context.safetensors"):
        assert Path("killed", name).read_bytes() == Path("whole", name).read_bytes(), name
    described = [files.read_json(Path(out, "model.json")) for out in ("killed", "whole")]
    for one in described:  # of files with timings in them
        one["files"] = {k: v for k, v in one["files"].items() if not k.startswith("checkpoint/")}
        del one["files"]["log.jsonl"], one["files"]["scores.json"]
    assert described[0] == described[1]
    assert scores_without_timings(Path("killed")) == scores_without_timings(Path("whole"))
    assert {entry.name for entry in Path("killed").iterdir()} == FILES


def test_every_model_of_a_kept_run_goes_on(small_runs: SmallRuns) -> None:
    run = tt.load(small_runs("series"))
    assert isinstance(run, tt.Run)
    for name, model in run.models.items():
        assert model.forecast(2, num_paths=3).model == name
    again = type(run.scores).from_json(json.loads(json.dumps(run.scores.to_json())))
    assert again == run.scores
