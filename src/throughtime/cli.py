"""The command line: every command prints for people on stderr or, with --json, one object."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console
from rich.text import Text

from throughtime import __version__
from throughtime.errors import SettingError, ThroughtimeError

app = App(
    name="throughtime",
    version=__version__,
    help="Recurrent sequence models with exact likelihoods: text, sound, prices, any series.",
    help_format="plaintext",
    help_epilogue="""Examples:
  throughtime fit prices.csv --value close            compare models of a series, keep the best
  throughtime fit story.txt --model lstm --time-limit 10m
  throughtime forecast runs/prices --horizon 20
  throughtime sample runs/story --length 500 --temperature 0.8
  throughtime score runs/story other.txt --steps surprisal.csv""",
)
out = Console()
err = Console(stderr=True)

Json = Annotated[bool, Parameter(name="--json", negative=(), help="One JSON object on stdout.")]
Seed = Annotated[int, Parameter(help="The one seed of everything random.")]
RunFolder = Annotated[Path, Parameter(help="A run folder, made by `throughtime fit`.")]
Columns = Annotated[
    list[str] | None,
    Parameter(help="Column(s) to model; '*' for every column of numbers.", negative=()),
]


def emit(value: dict[str, Any], as_json: bool) -> bool:
    """Prints the JSON object if asked for; returns whether it did."""
    if as_json:
        sys.stdout.write(json.dumps(value) + "\n")
    return as_json


def read_options(**given: Any) -> dict[str, Any]:
    """Only what the user gave: an option that says nothing about a source is an error."""
    given["time"] = False if given.get("time") == "none" else given.get("time")
    return {k: v for k, v in given.items() if v is not None and v != [] and v != ""}


@app.command
def fit(
    data: Annotated[
        str, Parameter(help="A file, a folder, or demo:prices, demo:nasdaq, demo:text.")
    ],
    /,
    *,
    model: Annotated[
        Literal["auto", "ar", "rnn", "gru", "lstm"], Parameter(help="One family, or all of them.")
    ] = "auto",
    order: Annotated[str, Parameter(help="Lags of the autoregression: auto or a number.")] = "auto",
    hidden: Annotated[int | None, Parameter(help="Units of each network.")] = None,
    layers: Annotated[int | None, Parameter(help="Layers of each network.")] = None,
    bptt: Annotated[str, Parameter(help="auto, full, K or K1,K2 steps.")] = "auto",
    emission: Annotated[str, Parameter(help="Law of a step: auto, student_t, normal, …")] = "auto",
    symbols: Annotated[
        Literal["characters", "bytes", "tokens"], Parameter(help="What text is made of.")
    ] = "characters",
    time: Annotated[str | None, Parameter(help="Column of time stamps; 'none': row order.")] = None,
    value: Columns = None,
    id: Annotated[str | None, Parameter(help="Column that names the series.")] = None,
    covariates: Annotated[
        list[str] | None, Parameter(help="Columns known beforehand.", negative=())
    ] = None,
    time_format: Annotated[str | None, Parameter(help="As strftime, or epoch.")] = None,
    gaps: Annotated[Literal["keep", "fill"] | None, Parameter(help="Missing rows.")] = None,
    lines: Annotated[bool | None, Parameter(help="Each line of a text is a sequence.")] = None,
    rate: Annotated[float | None, Parameter(help="Resample sound to this rate, Hz.")] = None,
    kind: Annotated[
        Literal["series", "text", "sound"] | None, Parameter(help="If the name does not say it.")
    ] = None,
    valid: Annotated[float, Parameter(help="Share of the data to choose by.")] = 0.1,
    test: Annotated[
        float, Parameter(help="Share of the data to judge by, never seen before.")
    ] = 0.1,
    split: Annotated[Literal["auto", "time", "sequence", "spread"], Parameter()] = "auto",
    time_limit: Annotated[str | None, Parameter(help="For example 90s, 5m or 1h.")] = None,
    steps: Annotated[int | None, Parameter(help="Updates of each network.")] = None,
    seed: Seed = 0,
    output: Annotated[Path | None, Parameter(name=["-o", "--output"], help="Run folder.")] = None,
    json_: Json = False,
) -> None:
    """Fit models of sequences, compare them on untouched data, keep the best in a run folder.

    The same command on an interrupted run goes on where it stopped.
    """
    from throughtime.display import FitDisplay, comparison
    from throughtime.pipeline import fit as fit_models

    options = read_options(
        time=time, value=value, id=id, covariates=covariates, time_format=time_format, gaps=gaps,
        lines=lines, rate=rate, kind=kind,
    )  # fmt: skip
    if order != "auto" and not order.isdigit():
        raise SettingError(f"--order {order!r} is not auto or a number of lags")
    with FitDisplay(err, quiet=json_) as display:
        run = fit_models(
            data, model=model, order=order, hidden=hidden, layers=layers, bptt=bptt,
            emission=emission, symbols=symbols, valid=valid, test=test, split=split,
            time_limit=time_limit, steps=steps, seed=seed, out=output, on_event=display,
            **options,
        )  # fmt: skip
    models = [
        {
            "name": row["name"],
            "family": row["family"],
            "nats_per_step": row["nats_per_step"],
            "interval": None if row["difference"] is None else row["difference"]["interval"],
            "difference": None if row["difference"] is None else row["difference"]["value"],
            "seconds": row["seconds"],
        }
        for row in run.scores["models"]
    ]
    found = {"run": str(run.folder), "best": run.best, "verdict": run.verdict, "models": models}
    if emit(found, json_):
        return
    out.print(comparison(run.scores))
    out.print()
    out.print(Text(run.verdict), soft_wrap=True)
    out.print(Text(f"report: {run.folder / 'report.html'}"), soft_wrap=True)


@app.command
def score(
    run: RunFolder,
    data: Annotated[str, Parameter(help="Data of the kind the run was fitted on.")],
    /,
    *,
    steps: Annotated[
        Path | None, Parameter(help="Write each step's nats: .csv or .parquet.")
    ] = None,
    unknown: Annotated[bool, Parameter(help="Accept unseen characters.", negative=())] = False,
    json_: Json = False,
) -> None:
    """Score sequences: log-likelihood in nats, per sequence and (with --steps) per step."""
    from throughtime.output import write_frame
    from throughtime.run import load

    loaded = load(run)
    found = loaded.score(data, unknown=unknown)
    if steps is not None:
        write_frame(loaded.step_scores(data, unknown=unknown), steps)
        found["steps_file"] = str(steps)
    if emit(found, json_):
        return
    total = f"{found['nats_per_step']:.4f} {found['unit']} over {found['steps']:,} steps"
    bits = [f"{found[k]:.4f} {k.replace('_', ' ')}" for k in found if k.startswith("bits_per")]
    out.print(Text("; ".join([total, *bits])), soft_wrap=True)
    for row in found["sequences"][:20]:
        out.print(Text(f"  {row['name']}: {row['nats']:.3f} nats in {row['steps']:,} steps"))
    if len(found["sequences"]) > 20:
        out.print(f"  … and {len(found['sequences']) - 20:,} more (all with --json)")
    if steps is not None:
        out.print(Text(f"each step: {steps}"))


@app.command
def forecast(
    run: RunFolder,
    /,
    *,
    horizon: Annotated[int, Parameter(help="Steps ahead.")] = 20,
    series: Annotated[list[str] | None, Parameter(help="Only these series.", negative=())] = None,
    quantiles: Annotated[str, Parameter(help="Comma-separated.")] = "0.025,0.1,0.5,0.9,0.975",
    paths: Annotated[
        int | None, Parameter(help="Paths to draw; as many as needed if not given.")
    ] = None,
    tolerance: Annotated[
        float, Parameter(help="Error of a quantile, as a share of the spread.")
    ] = 0.05,
    output: Annotated[
        Path | None, Parameter(name=["-o", "--output"], help="Write quantiles: .csv or .parquet.")
    ] = None,
    paths_output: Annotated[
        Path | None, Parameter(help="Write the paths: .csv or .parquet.")
    ] = None,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Forecast what comes after the data the run was fitted on: quantiles of simulated paths."""
    from throughtime.output import path_frame, quantile_frame, write_frame
    from throughtime.run import load

    try:
        levels = tuple(float(q) for q in quantiles.split(","))
    except ValueError:
        levels = ()
    if not levels or not all(0 < q < 1 for q in levels):
        raise SettingError(f"--quantiles {quantiles!r} are not numbers between 0 and 1")
    found = load(run).forecast(
        horizon, series=series, quantiles=levels, num_paths=paths, tolerance=tolerance,
        seed=seed, paths=paths_output is not None,
    )  # fmt: skip
    if output is not None:
        write_frame(quantile_frame(found), output)
    if paths_output is not None:
        write_frame(path_frame(found), paths_output)
        for one in found["series"]:
            for column in one["columns"]:
                del column["paths"]
    if emit(found, json_):
        return
    from throughtime.display import forecast_tables

    for table in forecast_tables(found):
        out.print(table)
    out.print(f"{found['num_paths']:,} paths each", style="dim")


@app.command
def sample(
    run: RunFolder,
    /,
    *,
    length: Annotated[int | None, Parameter(help="Steps (default 500, or 2 s of sound).")] = None,
    paths: Annotated[int, Parameter(help="How many.")] = 1,
    prompt: Annotated[str, Parameter(help="Text to go on from.")] = "",
    temperature: Annotated[float, Parameter(help="Below 1: bolder choices of symbols.")] = 1.0,
    top_p: Annotated[float, Parameter(help="Keep the likeliest symbols up to this mass.")] = 1.0,
    output: Annotated[
        Path | None, Parameter(name=["-o", "--output"], help=".wav for sound, .csv or .parquet.")
    ] = None,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Draw new sequences: text as it is written, sound to a .wav file, series to a table."""
    from throughtime.run import load

    loaded = load(run)
    kind = loaded.description["data"]["kind"]
    if kind == "text":
        _sample_text(loaded, length or 500, prompt, seed, temperature, top_p, json_)
        return
    if prompt:
        raise SettingError("--prompt is for runs of text")
    from throughtime.output import sample_to_file

    found = sample_to_file(loaded, length, paths, seed, temperature, top_p, output)
    if not emit(found, json_):
        out.print(Text(found["text"]), soft_wrap=True)


def _sample_text(
    loaded: Any,
    length: int,
    prompt: str,
    seed: int,
    temperature: float,
    top_p: float,
    as_json: bool,
) -> None:
    pieces = [prompt]
    if not as_json:
        sys.stdout.write(prompt)
    for piece in loaded.stream_text(
        length, prompt=prompt, seed=seed, temperature=temperature, top_p=top_p
    ):
        pieces.append(piece)
        if not as_json:
            sys.stdout.write(piece)
            sys.stdout.flush()
    if not emit({"kind": "text", "text": "".join(pieces)}, as_json):
        sys.stdout.write("\n")


@app.command
def report(run: RunFolder, /, *, json_: Json = False) -> None:
    """Write the run's report.html again and say where it is."""
    from throughtime.run import load

    path = load(run).report()
    if not emit({"report": str(path)}, json_):
        out.print(Text(str(path)), soft_wrap=True)


@app.command
def doctor(*, json_: Json = False) -> None:
    """Say what runs here (torch, backends, threads, extras) and how to get what is missing."""
    from throughtime.doctor import examine

    found = examine()
    if emit(found, json_):
        return
    for key in ("throughtime", "python", "torch", "cpu"):
        out.print(f"{key:<12} {found[key]}")
    out.print(f"{'threads':<12} {found['threads']} of {found['cores']} cores")
    out.print(f"{'cuda':<12} {'yes' if found['cuda'] else 'no'}")
    ready = ", ".join(name for name, runs in found["backends"].items() if runs)
    out.print(f"{'backends':<12} {ready}")
    for extra in found["extras"]:
        state = extra["version"] or f"missing: {extra['install']}"
        out.print(Text(f"{extra['package']:<12} {state}  ({extra['for']})"), soft_wrap=True)


def main(arguments: list[str] | None = None) -> None:
    """Runs a command; every failure is one line and an exit code."""
    tokens = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]
    try:
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        _fail(" ".join(str(error).split()), 2)
    except SettingError as error:
        if debug:
            raise
        _fail(str(error), 2)
    except ThroughtimeError as error:
        if debug:
            raise
        _fail(str(error), 1)
    except KeyboardInterrupt:
        _fail("interrupted; the same command goes on where it stopped", 1)
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None
    except OSError as error:
        if debug:
            raise
        _fail(f"{error.filename or 'file'}: {error.strerror or error}", 1)


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"error: {message}\n")
    raise SystemExit(code)
