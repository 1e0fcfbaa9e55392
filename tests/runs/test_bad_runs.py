"""Folders, disks and runs that are not what they should be: one line, and nothing left behind."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from support.small_runs import Fails, SmallRuns, days, walk, write_series, write_tone

import throughtime as tt
from throughtime import files
from throughtime.cli import main

pytestmark = pytest.mark.usefixtures("here")
QUICK = ("--steps", "4", "--hidden", "4", "--model", "gru")


def prices(values: Any = None, head: str = "date,price") -> str:
    write_series(Path("prices.csv"), walk(60) if values is None else values, head)
    return "prices.csv"


# ------------------------------------------------------------------------------- folders and disks


def test_folders_that_hold_something_else(
    fails: Fails, small_runs: SmallRuns, capsys: pytest.CaptureFixture[str]
) -> None:
    other = "; give another folder with -o, or delete it"
    shutil.copytree(small_runs("lines"), "run")
    shutil.copy(small_runs.folder / "names.txt", "names.txt")
    again = ("fit", "names.txt", "--lines", *QUICK, "-o", "run")
    main(list(again))
    capsys.readouterr()
    assert fails(*again, "--seed", "3") == (
        f"run holds a run with other settings (seed was 0, is 3){other}"
    )
    with open("names.txt", "a") as file:
        file.write("zoe\n")
    source = tt.load("run").scores.data.source
    assert fails(*again) == f"run holds a run on other data ({source}){other}"
    Path("work").mkdir()
    Path("work/notes.txt").write_text("mine")
    assert fails("fit", prices(), "-o", "work") == f"work exists and is not a run{other}"
    assert fails("fit", prices(), "-o", "prices.csv") == (
        f"prices.csv is a file, not a folder{other}"
    )
    Path("run/config.toml").write_text("[data\n")
    assert fails(*again).startswith("run/config.toml is damaged (it carries no digest")


def test_data_that_changed_since(fails: Fails, capsys: pytest.CaptureFixture[str]) -> None:
    main(["fit", prices(), *QUICK, "-o", "run"])
    capsys.readouterr()
    with open("prices.csv", "a") as file:
        file.write("2020-03-01,100\n")
    assert fails("fit", "prices.csv", *QUICK, "-o", "run") == (
        "run holds a run on other data: prices.csv has changed since; give another folder with -o, "
        "or delete it"
    )


def test_two_processes_in_one_folder(fails: Fails) -> None:
    Path("run").mkdir()
    with FileLock("run/.lock"):
        assert fails("fit", prices(), *QUICK, "-o", "run") == (
            "another process is fitting in run; wait for it, or end it"
        )


def test_a_disk_that_may_not_be_written(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    prices()

    def refuse(*args: Any, **options: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system", "/there/.config.toml.abcdefgh")

    with monkeypatch.context() as patch:
        patch.setattr(files.tempfile, "mkstemp", refuse)
        assert fails("fit", "prices.csv", *QUICK, "-o", "a/run") == (
            "a/run/config.toml: Read-only file system"
        )

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    assert fails("fit", "prices.csv", *QUICK, "-o", "run") == (
        "run/config.toml: No space left on device"
    )


def test_a_disk_that_fills_up_leaves_a_run_that_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prices()
    write, written = files.write_bytes, []

    def fill(path: Path, content: bytes) -> None:
        written.append(path.name)
        if len(written) == 5:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_bytes", fill)
        with pytest.raises(SystemExit):
            main(["fit", "prices.csv", *QUICK, "-o", "run"])
    assert capsys.readouterr().err.splitlines()[-1].endswith("No space left on device")
    assert not Path("run/model.json").exists()
    with pytest.raises(SystemExit):
        main(["score", "run", "prices.csv"])
    assert "the same fit command finishes it" in capsys.readouterr().err
    main(["fit", "prices.csv", *QUICK, "-o", "run"])
    assert Path("run/model.json").exists()


# ------------------------------------------------------------------------------ runs and their use


@pytest.fixture
def copy(small_runs: SmallRuns) -> Path:
    """A run of text that a test may damage."""
    shutil.copytree(small_runs("text"), "story")
    shutil.copy(small_runs.folder / "story.txt", "story.txt")
    return Path("story")


MISSING = {
    "model.json": (
        "story has no model.json: the run is not finished; the same fit command finishes it"
    ),
    **{
        name: f"story has no {name}; restore it from a copy, or fit again in another folder"
        for name in ("model.safetensors", "context.safetensors", "scores.json")
    },
}


@pytest.mark.parametrize("name", MISSING)
def test_a_run_that_misses_a_file(fails: Fails, copy: Path, name: str) -> None:
    (copy / name).unlink()
    assert fails("score", "story", "story.txt") == MISSING[name]
    assert fails("sample", "story") == MISSING[name]


def test_files_that_some_commands_do_without(fails: Fails, copy: Path, capsys: Any) -> None:
    (copy / "report.html").unlink()
    shutil.rmtree(copy / "checkpoint")
    main(["report", "story"])
    assert (copy / "report.html").exists()
    for name in ("config.toml", "log.jsonl"):
        (copy / name).unlink()
    main(["score", "story", "story.txt"])
    capsys.readouterr()
    assert fails("report", "story").startswith("story has no log.jsonl; restore it")


def test_a_run_that_is_damaged(fails: Fails, copy: Path) -> None:
    weights = (copy / "model.safetensors").read_bytes()
    (copy / "model.safetensors").write_bytes(weights[:-1] + b"x")
    anew = "; restore it from a copy, or fit again in another folder"
    assert fails("score", "story", "story.txt") == (
        f"story/model.safetensors is damaged (its SHA-256 differs){anew}"
    )
    (copy / "model.safetensors").write_bytes(weights)
    good = files.read_json(copy / "model.json")
    (copy / "model.json").write_text(json.dumps(good)[:200])
    assert fails("score", "story", "story.txt").startswith("story/model.json is damaged (")
    for damage, wanted in (
        ({"schema": "one"}, f"story/model.json is damaged (no schema){anew}"),
        ({"schema": 2}, "story/model.json was written by an older throughtime (schema 2, this one "
         "reads 3); fit again in another folder"),
        ({"schema": 9}, "story/model.json was written by a newer throughtime (schema 9, this one "
         "reads 3); upgrade with: pip install --upgrade throughtime"),
        ({"model": {"kind": "oracle"}}, None),
        ({"model": 5}, None),
        ({"transforms": {}}, None),
    ):  # fmt: skip
        files.write_json(copy / "model.json", {**good, **damage})
        result = fails("score", "story", "story.txt")
        if wanted is None:
            assert result.startswith("story/model.json is damaged (")
            assert result.endswith(anew)
        else:
            assert result == wanted
    files.write_json(copy / "model.json", {k: v for k, v in good.items() if k != "data"})
    assert fails("score", "story", "story.txt") == f"story/model.json is damaged (no 'data'){anew}"


def test_what_is_no_run(fails: Fails, small_runs: SmallRuns) -> None:
    shutil.copytree(small_runs("text"), "runs/story")
    Path("notes").mkdir()
    assert fails("score", "runs/stroy", "x.txt") == (
        "there is no run at runs/stroy; did you mean 'story'?"
    )
    assert fails("score", "nowhere/run", "x.txt") == "there is no run at nowhere/run"
    assert fails("sample", "notes") == "notes is not a run: it has no model.json"
    assert fails("sample", prices()) == "prices.csv is a file; a run is a folder, made by fit"
    assert fails("report", "notes") == (
        "notes has no model.json: the run has not ended; repeat its fit command to resume"
    )


def test_data_that_a_run_does_not_model(fails: Fails, small_runs: SmallRuns) -> None:
    for name in ("text", "sales", "sound"):
        shutil.copytree(small_runs(name), name)
    Path("more.txt").write_text("the fox\nand an emu! ☃")
    assert fails("score", "text", "more.txt") == (
        "'!' (U+0021) in 'more', line 2, column 11 is not among the 28 characters this model was "
        "fitted on; use --unknown to score it as an unseen character"
    )
    assert fails("sample", "text", "--prompt", "☃") == (
        "'☃' (U+2603) in 'the prompt', line 1, column 1 is not among the 28 characters this model "
        "was fitted on"
    )
    assert fails("score", "text", prices()) == ("prices.csv is a series; the run text models text")
    assert fails("score", "sales", prices()) == (
        "prices.csv: no column 'shop'; the columns are 'date', 'price'"
    )
    write_tone(Path("fast.wav"), rate=16000)
    assert "2000 Hz: resample, this has 16000 Hz" in fails("score", "sound", "fast.wav", code=2)


WRONG_USE = {
    ("forecast", "sales"): (
        "the run sales was fitted with covariates (promotion); give their values after the end of "
        "the data with --future"
    ),
    ("forecast", "sales", "--horizon", "0"): "--horizon 0: at least 1 step",
    ("forecast", "sales", "--quantiles", "0,0.5"): (
        "--quantiles 0: they lie between 0 and 1, for example 0.1,0.5,0.9"
    ),
    ("forecast", "sales", "--quantiles", "half"): (
        "--quantiles half: numbers between 0 and 1, for example 0.1,0.5,0.9"
    ),
    ("forecast", "sales", "--paths", "0"): "--paths 0: at least 1",
    ("forecast", "sales", "--tolerance", "0"): "--tolerance 0: above 0",
    ("forecast", "sales", "--series", "nort"): (
        "no series 'nort' in this run; did you mean 'north'? it has north, south"
    ),
    ("forecast", "sales", "-o", "f.xlsx"): "f.xlsx: tables are written as .csv or .parquet",
    ("forecast", "text"): "the run text models text, whose symbols have no quantiles; use sample",
    ("sample", "sales"): (
        "the run sales was fitted with covariates, which sampling would have to invent; use "
        "forecast with --future"
    ),
    ("sample", "sales", "--prompt", "x"): "--prompt is for runs of text",
    ("sample", "text", "--length", "-1"): "--length -1, --paths 1: both are at least 1",
    ("sample", "text", "--temperature", "0"): (
        "--temperature 0, --top-p 1: the temperature is above 0, and top-p above 0 and at most 1"
    ),
    ("score", "text", "story.txt", "--steps", "s.xls"): (
        "s.xls: tables are written as .csv or .parquet"
    ),
}


@pytest.mark.parametrize("command", WRONG_USE)
def test_use_that_makes_no_sense(
    fails: Fails, small_runs: SmallRuns, command: tuple[str, ...]
) -> None:
    shutil.copytree(small_runs(command[1]), command[1])
    assert fails(*command, code=2) == WRONG_USE[command]


def test_covariates_that_end_too_soon(fails: Fails, small_runs: SmallRuns) -> None:
    shutil.copytree(small_runs("sales"), "sales")
    rows = [f"{s},{d},1" for s in ("north", "south") for d in days(3, "2020-03-20")]
    Path("next.csv").write_text("shop,date,promotion\n" + "\n".join(rows) + "\n")
    assert fails("forecast", "sales", "--covariates", "next.csv", "--horizon", "5") == (
        "next.csv: covariates of 2 steps after the end of 'north'; the forecast needs 5"
    )
