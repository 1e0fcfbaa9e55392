"""The commands as people and programs see them: exact lines, and every field of --json."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import soundfile
from rich.console import Console
from support.documentation import documented, fields
from support.small_runs import Fails, SmallRuns, days, walk, write_series

import throughtime as tt
from throughtime.cli import display, main
from throughtime.cli.messages import EXAMPLES, as_flags
from throughtime.files import finite

CLI_QUANTILES = (0.025, 0.1, 0.5, 0.9, 0.975)
Capture = pytest.CaptureFixture[str]
pytestmark = pytest.mark.usefixtures("here")


@pytest.fixture
def ask(capsys: Capture) -> Any:
    """Runs a command with --json; gives the one object that it prints."""

    def run(*arguments: object) -> dict[str, Any]:
        capsys.readouterr()
        main([*map(str, arguments), "--json"])
        printed = capsys.readouterr().out
        assert printed.count("\n") == 1
        result: dict[str, Any] = json.loads(printed)
        return result

    return run


def said(capsys: Capture, *arguments: object) -> list[str]:
    """What a command prints for people, line by line."""
    capsys.readouterr()
    main([str(argument) for argument in arguments])
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


# --------------------------------------------------------------------------------------- fit


def test_fit_prints_a_table_that_fits_80_columns(small_runs: SmallRuns, capsys: Capture) -> None:
    run = small_runs("series")
    source = small_runs.folder / "prices.csv"
    lines = said(capsys, "fit", source, "--value", "price", "--steps", 4, "--hidden", 4, "-o", run)
    assert max(map(len, lines[:-1])) <= 80
    heads = " ".join(" ".join(lines[:2]).split())
    assert heads == "against random walk model nats per day [95 % interval] time"
    names = [row.name for row in tt.load(run).scores.models]
    printed = [re.sub(r"^[▸ ]+", "", line).split("  ")[0] for line in lines[2 : 2 + len(names)]]
    assert sorted(printed) == sorted(names)
    assert sum(line.startswith("▸") for line in lines) == 1
    row = r"  \S.* +\d+\.\d{4}  ([+-]\d\.\d{3} \[[+-]\d+\.\d{3}, [+-]\d+\.\d{3}\])?( +\d\.\d s)?"
    rows = [line for line in lines[2 : 2 + len(names)] if re.fullmatch(row, line)]
    assert len(rows) >= len(names) - 2
    assert lines[-1] == f"report: {run / 'report.html'}"


def test_fit_says_what_it_reads_and_does(capsys: Capture) -> None:
    write_series(Path("prices.csv"), walk(100))
    main(["fit", "prices.csv", "--model", "gru", "--steps", "4", "--hidden", "4"])
    lines = capsys.readouterr().err.splitlines()
    assert lines[:6] == [
        "reading prices.csv",
        "prices.csv: 100 days of price from 2020-01-01 to 2020-04-09",
        "  80 for training, 10 for validation, 10 for test",
        "  note: time is the column 'date'",
        "  note: value is the column 'price'",
        "  note: time runs from 2020-01-01 to 2020-04-09, one row per day",
    ]
    end = lines.index("testing 4 models on the test data")
    fitted = re.compile(r"[a-z ]{22} \d+\.\d{4} nats per day on validation, \d+\.?\d* s")
    assert all(fitted.fullmatch(line) for line in lines[6:end])
    assert all(line.startswith("testing: ") for line in lines[end + 1 :])
    assert lines[-3:] == ["testing: forecasts", "testing: gradient", "testing: samples"]
    main(["fit", "prices.csv", "--model", "gru", "--steps", "4", "--hidden", "4"])
    assert capsys.readouterr().err.splitlines()[-1] == (
        "runs/prices holds this run already; give another folder to fit it again"
    )


@pytest.mark.parametrize(
    ("name", "unit"), [("text", "bits per character"), ("sound", "bits per sample")]
)
def test_text_and_sound_are_in_bits_too(
    small_runs: SmallRuns, capsys: Capture, name: str, unit: str
) -> None:
    from rich.console import Console

    console = Console(width=80)
    console.print(display.comparison(tt.load(small_runs(name)).scores))
    lines = capsys.readouterr().out.splitlines()
    first, second = unit.rsplit(" ", 1)
    assert first in lines[0] + lines[1]
    assert second in lines[1]
    assert max(map(len, lines)) <= 80


def test_fit_json(ask: Any, small_runs: SmallRuns) -> None:
    run = small_runs("series")
    source = small_runs.folder / "prices.csv"
    result = ask("fit", source, "--value", "price", "--steps", 4, "--hidden", 4, "-o", run)
    assert fields(result) == documented("fit")
    scores = tt.load(run).scores
    assert result["run"] == str(run)
    assert result["best"] == scores.best
    assert [m["name"] for m in result["models"]] == [m.name for m in scores.models]
    assert {m["family"] for m in result["models"]} >= {"reference", "autoregressive", "latent"}
    compared = [m for m in result["models"] if m["interval"]]
    assert all(m["interval"][0] <= m["difference"] <= m["interval"][1] for m in compared)


def test_the_name_of_the_data(ask: Any) -> None:
    write_series(Path("prices.csv"), walk(100))
    ask("fit", "prices.csv", "--name", "Tulips", "--model", "gru", "--steps", 2, "--hidden", 2)
    assert tt.load("runs/prices").scores.data.source == "Tulips"
    assert "Tulips" in Path("runs/prices/report.html").read_text()


# --------------------------------------------------------------------------------------- score


def test_score(ask: Any, small_runs: SmallRuns, capsys: Capture) -> None:
    run, source = small_runs("text"), small_runs.folder / "story.txt"
    result = ask("score", run, source)
    assert fields(result) == documented("score") - {"bits_per_sample", "steps_file"}
    assert result["nats_per_step"] == pytest.approx(-result["total_nats"] / result["steps"])
    assert said(capsys, "score", run, source) == [
        f"{result['nats_per_step']:.4f} nats per character over {result['steps']} steps; "
        f"{result['bits_per_character']:.4f} bits per character; "
        f"{result['bits_per_byte']:.4f} bits per byte"
    ]


def test_score_of_several_and_each_step(ask: Any, small_runs: SmallRuns, capsys: Capture) -> None:
    run, source = small_runs("sales"), small_runs.folder / "sales.csv"
    lines = said(capsys, "score", run, source, "--steps", "steps.csv")
    assert lines[1].split() == ["sequence", "days", "nats", "per", "day", "log-likelihood"]
    assert [line.split()[0] for line in lines[2:4]] == ["north", "south"]
    assert lines[4] == "each step: steps.csv"
    table = pl.read_csv("steps.csv")
    assert table.columns == ["unique_id", "ds", "step", "sold", "surprisal"]
    result = ask("score", run, source, "--steps", "steps.parquet")
    assert result["steps_file"] == "steps.parquet"
    same = pl.read_parquet("steps.parquet")
    assert same["surprisal"].sum() == pytest.approx(-result["total_nats"])
    assert same["surprisal"].to_list() == pytest.approx(table["surprisal"].to_list())


def test_many_sequences_are_not_all_printed(small_runs: SmallRuns, capsys: Capture) -> None:
    lines = said(capsys, "score", small_runs("lines"), small_runs.folder / "names.txt")
    assert lines[-1] == "… and 76 more (all with --json)"
    assert len(lines) == 1 + 2 + 20 + 1


def test_sound_is_scored_in_bits_per_sample(ask: Any, small_runs: SmallRuns) -> None:
    result = ask("score", small_runs("sound"), small_runs.folder / "recordings")
    assert result["bits_per_sample"] == pytest.approx(result["nats_per_step"] / 0.6931471805599453)
    assert result["steps"] == 1600


def test_unknown_characters_on_request(ask: Any, small_runs: SmallRuns) -> None:
    Path("more.txt").write_text("the ☃ fox")
    result = ask("score", small_runs("text"), "more.txt", "--unknown")
    assert result["steps"] == 9
    assert result["bits_per_byte"] < result["bits_per_character"]


# --------------------------------------------------------------------------------------- forecast


def test_forecast(ask: Any, small_runs: SmallRuns, capsys: Capture) -> None:
    run = small_runs("series")
    result = ask("forecast", run, "--horizon", 3, "--quantiles", "0.1,0.5,0.9", "--paths", 400)
    assert fields(result) == documented("forecast")
    (series,) = result["series"]
    assert series["times"] == ["2020-05-30", "2020-05-31", "2020-06-01"]
    (column,) = series["columns"]
    lines = said(
        capsys, "forecast", run, "--horizon", 3, "--quantiles", "0.1,0.5,0.9", "--paths", 400,
        "-o", "f.csv", "--paths-output", "p.parquet",
    )  # fmt: skip
    assert lines[0] == "prices"
    assert lines[1].split() == ["step", "time", "10", "%", "50", "%", "90", "%"]
    assert lines[2].split()[:2] == ["1", "2020-05-30"]
    assert re.fullmatch(r"400 paths each(; quantiles are certain to \d+\.\d % of the spread)?", (
        lines[5]
    ))  # fmt: skip
    assert lines[6] == "quantiles: f.csv"
    table = pl.read_csv("f.csv")
    assert table.columns == ["unique_id", "ds", "mean", "q0.1", "q0.5", "q0.9"]
    assert table["q0.5"].to_list() == pytest.approx(column["quantiles"]["0.5"])
    paths = pl.read_parquet("p.parquet")
    assert paths.columns == ["unique_id", "ds", "path", "value"]
    assert paths.height == 1200
    first = paths.filter(pl.col("ds") == paths["ds"].min())["value"]
    assert first.quantile(0.5, "linear") == pytest.approx(column["quantiles"]["0.5"][0])


def test_forecast_of_other_data(ask: Any, small_runs: SmallRuns) -> None:
    run = small_runs("series")
    write_series(Path("other.csv"), walk(90, seed=4))
    result = ask("forecast", run, "other.csv", "--horizon", 2, "--paths", 50)
    (series,) = result["series"]
    assert series["name"] == "other"
    assert series["times"] == ["2020-03-31", "2020-04-01"]
    again = tt.load(run).forecast(2, data="other.csv", num_paths=50, quantiles=CLI_QUANTILES)
    assert again.to_json() == result


def test_update_moves_the_end_on(ask: Any, small_runs: SmallRuns, capsys: Capture) -> None:
    shutil.copytree(small_runs("series"), "run")
    write_series(Path("prices.csv"), walk(153))  # three days more than the run has seen
    actual = ask("update", "run", "prices.csv")
    assert fields(actual) == documented("update")
    assert actual == {
        "run": "run", "series": 1, "rows": 3, "passed_over": 150, "end": "2020-06-01"
    }  # fmt: skip
    moved = ask("forecast", "run", "--horizon", 2, "--paths", 50)
    assert moved["series"][0]["times"] == ["2020-06-02", "2020-06-03"]
    whole = ask("forecast", "run", "prices.csv", "--horizon", 2, "--paths", 50)
    for one, other in zip(moved["series"], whole["series"], strict=True):
        for ours, theirs in zip(one["columns"], other["columns"], strict=True):
            assert ours["mean"] == pytest.approx(theirs["mean"], rel=1e-5)
    write_series(Path("prices.csv"), walk(154))
    (line,) = said(capsys, "update", "run", "prices.csv")
    assert line == ("1 new rows of 1 series (153 were known already), the end is at 2020-06-02 now")


def test_a_model_that_was_saved_is_used_like_a_run(ask: Any) -> None:
    write_series(Path("prices.csv"), walk(100))
    data = tt.read("prices.csv", value="price")
    model = tt.Autoregressive(1, emission=tt.emissions.Normal())
    tt.train(model, data, out="kept")
    assert ask("forecast", "kept", "--horizon", 1, "--paths", 9)["horizon"] == 1
    assert ask("score", "kept", "prices.csv")["steps"] == 100
    assert ask("update", "kept", write_series(Path("more.csv"), walk(101)))["rows"] == 1


def test_forecast_with_covariates(ask: Any, small_runs: SmallRuns) -> None:
    rows = ["shop,date,promotion"]
    for shop in ("south", "north"):
        rows += [f"{shop},{day},{i % 2}" for i, day in enumerate(days(6, "2020-03-20"))]
    Path("next.csv").write_text("\n".join(rows) + "\n")
    run = small_runs("sales")
    result = ask("forecast", run, "--covariates", "next.csv", "--horizon", 4, "--series", "south")
    (series,) = result["series"]
    assert series["times"] == ["2020-03-21", "2020-03-22", "2020-03-23", "2020-03-24"]
    medians = series["columns"][0]["quantiles"]["0.5"]
    assert medians == pytest.approx([70, 50, 70, 50], abs=3)  # a promotion sells 20 more


def test_a_long_forecast_is_cut_and_says_so(small_runs: SmallRuns, capsys: Capture) -> None:
    lines = said(capsys, "forecast", small_runs("series"), "--horizon", 50, "--paths", 20)
    assert lines[-2] == "… and 10 more steps (all with -o or --json)"


# --------------------------------------------------------------------------------------- sample


def test_sample_of_text(ask: Any, small_runs: SmallRuns, capsys: Capture) -> None:
    run = small_runs("text")
    result = ask("sample", run, "--length", 40, "--paths", 2, "--prompt", "the ")
    assert fields(result) == documented("sample") - {"files", "seconds", "rate"}
    assert [len(text) for text in result["texts"]] == [44, 44]
    assert all(text.startswith("the ") for text in result["texts"])
    assert result["texts"][0] != result["texts"][1]
    capsys.readouterr()
    main(["sample", str(run), "--length", "40", "--paths", "2", "--prompt", "the "])
    assert capsys.readouterr().out == f"\n{'─' * 20}\n".join(result["texts"]) + "\n"
    assert (
        ask("sample", run, "--length", 40, "--seed", 1)["texts"]
        != (ask("sample", run, "--length", 40)["texts"])
    )
    assert said(capsys, "sample", run, "--length", 40, "-o", "new.txt") == [
        "1 text of 40 steps: new.txt"
    ]
    assert Path("new.txt").read_text() == ask("sample", run, "--length", 40)["texts"][0]


def test_sample_of_sound(ask: Any, small_runs: SmallRuns, capsys: Capture) -> None:
    result = ask("sample", small_runs("sound"), "--paths", 2, "--length", 500, "-o", "new.wav")
    assert fields(result) == documented("sample") - {"texts"}
    assert result["files"] == ["new-1.wav", "new-2.wav"]
    samples, rate = soundfile.read("new-2.wav")
    assert (len(samples), rate) == (500, 2000)
    lines = said(capsys, "sample", small_runs("sound"), "--length", 300)
    assert lines == ["1 path of 0.15 s of sound at 2,000 Hz: sample.wav"]


def test_sample_of_series(ask: Any, small_runs: SmallRuns, capsys: Capture) -> None:
    result = ask("sample", small_runs("series"), "--paths", 3, "--length", 5, "-o", "s.csv")
    assert result == {"kind": "paths", "files": ["s.csv"], "paths": 3, "steps": 5}
    table = pl.read_csv("s.csv")
    assert table.columns == ["path", "step", "price"]
    assert table["path"].to_list() == [1] * 5 + [2] * 5 + [3] * 5
    assert table["step"].to_list() == [0, 1, 2, 3, 4] * 3  # as score counts them
    assert said(capsys, "sample", small_runs("series"), "--length", 5) == [
        "1 path of 5 steps: sample.csv"
    ]


# --------------------------------------------------------------------------------------- gradients


def test_gradients(ask: Any, small_runs: SmallRuns, capsys: Capture) -> None:
    run = small_runs("series")
    result = ask("gradients", run)
    named = ("spectral_radius.", "saturation.", "verdict.evidence.")
    printed = {field for field in fields(result) if not field.startswith(named)}
    assert printed == documented("gradients")
    assert result["run"] == str(run)
    assert result["k2"] == tt.load(run).scores.gradients.k2
    lines = said(capsys, "gradients", run)
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith(f"{result['model']}: its gradient over {result['steps']} days")
    assert any("truncated at" in line for line in lines)
    assert any(line.startswith("reach, in days: 50 % within") for line in lines)
    assert any(line.startswith(f"{result['verdict']['name']}: ") for line in lines)
    short = ask("gradients", run, "--max-lag", 5)
    assert short["lags"] == [0, 1, 2, 3, 4, 5]
    assert short["steps"] == result["steps"]


def test_gradients_that_cannot_be_measured(fails: Fails, small_runs: SmallRuns) -> None:
    closed, run = small_runs("sales"), small_runs("text")
    assert fails("gradients", closed).startswith(f"{closed} has no recurrent network; its ")
    longest = tt.load(run).scores.data.steps
    far = longest["train"] + longest["validation"]
    assert fails("gradients", run, "--max-lag", "9999", code=2) == (
        f"--max-lag 9999: from 1 to {far - 1}; the longest sequence has {far} steps"
    )
    assert "from 1 to" in fails("gradients", run, "--max-lag", "0", code=2)
    assert fails("gradients", "nowhere") == "there is no run at nowhere"


def test_gradients_of_text(ask: Any, small_runs: SmallRuns) -> None:
    result = ask("gradients", small_runs("text"), "--max-lag", 12)
    assert result["step"] == "character"
    assert len(result["norms"]) == len(result["state_norm"]["median"]) == 13
    assert result["share"] == sorted(result["share"])


# --------------------------------------------------------------------------------------- the rest


def test_report_and_doctor(ask: Any, small_runs: SmallRuns, capsys: Capture) -> None:
    run = small_runs("text")
    (run / "report.html").unlink()
    result = ask("report", run)
    assert fields(result) == documented("report")
    assert Path(result["report"]).exists()
    assert said(capsys, "report", run) == [str(run / "report.html")]
    result = ask("doctor")
    assert fields(result) - {f"backends.{name}" for name in result["backends"]} == (
        documented("doctor")
    )
    lines = said(capsys, "doctor")
    assert lines[0] == f"throughtime  {tt.__version__}"
    assert len(lines) == 8 + len(result["extras"])


@pytest.mark.parametrize("command", EXAMPLES)
def test_every_help_has_examples_that_parse(command: str, capsys: Capture) -> None:
    import shlex

    from throughtime.cli import app

    said_ = said(capsys, *([command] if command else []), "--help")
    assert "Examples:" in said_
    assert max(map(len, said_)) <= 80
    for line in EXAMPLES[command].strip().splitlines():
        tokens = shlex.split(line.split("  ")[0].split(" && ")[0])[1:]
        if "COMMAND" not in tokens:
            app.parse_args(tokens, exit_on_error=False, print_error=False)


@pytest.mark.parametrize(
    ("python", "flags"),
    [
        ("choose one or several with value=, all of them with value='*'",
         "choose one or several with --value, all of them with --value '*'"),
        ("or take rows as they come with time=False", "or take rows as they come with --time none"),
        ("header=False reads it as data", "--no-header reads it as data"),
        ("time_format needs time=, the column", "time_format needs --time, the column"),
        ("use unknown=True to score it", "use --unknown to score it"),
        ("rate=8000 resamples them", "--rate 8000 resamples them"),
        ("valid=0.1, test=0.1, gap=0: remove it", "--valid 0.1, --test 0.1: remove it"),
        ("give another folder with out=, or", "give another folder with -o, or"),
        ("a/kind=b/x.csv: no such file", "a/kind=b/x.csv: no such file"),
        ("say id='symbol'", "say --id 'symbol'"),
        ("k2=3 is shorter", "k2=3 is shorter"),
    ],
)  # fmt: skip
def test_messages_in_the_spelling_of_the_command_line(python: str, flags: str) -> None:
    assert as_flags(python) == flags


def test_what_json_does_not_have() -> None:
    assert finite({"a": [float("nan"), (1.5, float("inf"))], "b": None}) == (
        {"a": [None, [1.5, None]], "b": None}
    )


def test_progress_tells_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    console = Console(record=True, width=80, force_terminal=False)
    with display.Working(console, "scoring") as working:
        for done in range(1, 6):
            now[0] += 4
            working(done, 10, "scoring")
    assert console.export_text().splitlines() == ["scoring: 30%, 28 s left"]


def test_live_views_of_fitting_and_working(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(display.time, "monotonic", lambda: now[0])
    console = Console(record=True, width=80, force_terminal=True)
    fitting = display.FitDisplay(console)
    fitting({"event": "start", "model": "gru"})
    fitting({"event": "valid", "model": "gru", "step": 100, "steps": 400, "rate": 10.0,
             "valid": 1.5, "best": 1.25})  # fmt: skip
    now[0] = 5.0
    fitting({"event": "note", "model": "gru", "message": "its plan is damaged; it is made anew"})
    console.print(fitting._view())
    printed = console.export_text()
    assert "note: gru: its plan is damaged; it is made anew" in printed
    assert re.search(r"gru +1\.2500 .* 10\.0 +25 s", printed)
    assert "fitting gru … 5.0 s so far" in printed
    working = display.Working(console, "loading")
    working(0, 10, "scoring")
    now[0] = 10.0
    working(5, 10, "scoring")
    console.print(working._view())
    assert "5.0 s left" in console.export_text()


@pytest.mark.slow
def test_ctrl_c_leaves_a_run_that_goes_on() -> None:
    write_series(Path("prices.csv"), walk(300))
    fit = [sys.executable, "-c", "from throughtime.cli import main; main()", "fit", "prices.csv",
           "--model", "gru", "--hidden", "4", "--steps", "100000"]  # fmt: skip
    process = subprocess.Popen(fit, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    log = Path("runs/prices/log.jsonl")
    while process.poll() is None and not (log.exists() and '"valid"' in log.read_text()):
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 1
    assert out == ""
    assert err.splitlines()[-1] == ("error: interrupted; the same command goes on where it stopped")
    assert "Traceback" not in err
    assert not Path("runs/prices/model.json").exists()
    assert Path("runs/prices/config.toml").exists()
