"""The command line: every command prints for people on stderr or, with --json, one object."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Group, Parameter
from rich.console import Console
from rich.text import Text

from throughtime import __version__
from throughtime.errors import SettingError, ThroughtimeError
from throughtime.messages import epilogue, explained
from throughtime.plain import finite

app = App(
    name="throughtime",
    version=__version__,
    help="Recurrent sequence models with exact likelihoods: text, sound, prices, any series.",
    help_format="plaintext",
    help_epilogue=epilogue(""),
    suppress_keyboard_interrupt=False,  # `main` says what an interruption means
)
out = Console()
err = Console(stderr=True)

_models = Group("Models", sort_key=1)
_reading = Group("Reading the data", sort_key=2)
_running = Group("Running", sort_key=3)
Json = Annotated[
    bool,
    Parameter(name="--json", negative=(), help="One JSON object on stdout.", show_default=False),
]
Seed = Annotated[int, Parameter(help="The one seed of everything random.")]
RunFolder = Annotated[Path, Parameter(help="A run folder, made by `throughtime fit`.")]


def emit(value: dict[str, Any], as_json: bool) -> bool:
    """Prints the JSON object if asked for; returns whether it did."""
    if as_json:
        sys.stdout.write(json.dumps(finite(value), allow_nan=False) + "\n")
    return as_json


def say(text: str) -> None:
    """A line of the result; long ones are left to the terminal to break."""
    out.print(Text(text), soft_wrap=True)


@app.command(help_epilogue=epilogue("fit"))
def fit(
    data: Annotated[
        str, Parameter(help="A file, a folder, or demo:prices, demo:nasdaq, demo:text.")
    ],
    /,
    *,
    model: Annotated[
        Literal["auto", "ar", "rnn", "gru", "lstm"],
        Parameter(help="One family, or all of them.", group=_models),
    ] = "auto",
    order: Annotated[
        str, Parameter(help="Lags of the autoregression: auto or a number.", group=_models)
    ] = "auto",
    hidden: Annotated[int | None, Parameter(help="Units of each network.", group=_models)] = None,
    layers: Annotated[int | None, Parameter(help="Layers of each network.", group=_models)] = None,
    bptt: Annotated[
        str, Parameter(help="Gradient through time: auto, full, K or K1,K2 steps.", group=_models)
    ] = "auto",
    emission: Annotated[
        str, Parameter(help="Law of a step: auto, student_t, normal, poisson, …", group=_models)
    ] = "auto",
    symbols: Annotated[
        Literal["characters", "bytes", "tokens"],
        Parameter(help="What text is made of.", group=_models),
    ] = "characters",
    time: Annotated[
        str | None,
        Parameter(help="Column of time stamps; none: rows as they come.", group=_reading),
    ] = None,
    value: Annotated[
        list[str] | None,
        Parameter(help="Column to model (again for more); '*': all.", negative=(), group=_reading),
    ] = None,
    id: Annotated[
        str | None, Parameter(help="Column that names the series.", group=_reading)
    ] = None,
    covariates: Annotated[
        list[str] | None,
        Parameter(help="Column known beforehand (again for more).", negative=(), group=_reading),
    ] = None,
    time_format: Annotated[
        str | None, Parameter(help="As in strftime (%d/%m/%Y), or epoch.", group=_reading)
    ] = None,
    gaps: Annotated[
        Literal["keep", "fill"] | None, Parameter(help="Missing rows.", group=_reading)
    ] = None,
    header: Annotated[
        bool | None, Parameter(help="Whether a table's first line names columns.", group=_reading)
    ] = None,
    lines: Annotated[
        bool,
        Parameter(
            help="Each line of a text is a sequence.",
            negative=(),
            show_default=False,
            group=_reading,
        ),
    ] = False,
    text: Annotated[
        str | None, Parameter(help="Field of a .jsonl file that holds text.", group=_reading)
    ] = None,
    encoding: Annotated[
        str | None, Parameter(help="Of text: utf-8, latin-1, … or bytes.", group=_reading)
    ] = None,
    rate: Annotated[
        float | None, Parameter(help="Resample sound to this rate, Hz.", group=_reading)
    ] = None,
    kind: Annotated[
        Literal["series", "text", "sound"] | None,
        Parameter(help="If the name does not say it.", group=_reading),
    ] = None,
    valid: Annotated[
        float, Parameter(help="Share of the data to choose by.", group=_running)
    ] = 0.1,
    test: Annotated[
        float, Parameter(help="Share to judge by, never seen before.", group=_running)
    ] = 0.1,
    split: Annotated[
        Literal["auto", "time", "sequence", "spread"],
        Parameter(help="Where the shares are cut off: at the end, or sequences.", group=_running),
    ] = "auto",
    time_limit: Annotated[
        str | None, Parameter(help="For example 90s, 5m or 1h.", group=_running)
    ] = None,
    steps: Annotated[int | None, Parameter(help="Updates of each network.", group=_running)] = None,
    seed: Annotated[int, Parameter(help="The one seed of everything random.", group=_running)] = 0,
    name: Annotated[
        str | None, Parameter(help="What to call the data in the report.", group=_running)
    ] = None,
    output: Annotated[
        Path | None,
        Parameter(name=["-o", "--output"], help="Run folder; runs/NAME.", group=_running),
    ] = None,
    json_: Annotated[Json, Parameter(group=_running)] = False,
) -> None:
    """Fit models of sequences, compare them on untouched data, keep the best in a run folder.

    The same command on an interrupted run goes on where it stopped.
    """
    from throughtime.display import FitDisplay, comparison

    options: dict[str, Any] = {
        "time": False if time == "none" else time, "value": value or None, "id": id,
        "covariates": covariates or None, "time_format": time_format, "gaps": gaps,
        "header": header, "lines": lines or None, "text": text, "encoding": encoding,
        "rate": rate, "kind": kind,
    }  # fmt: skip
    with FitDisplay(err, quiet=json_) as display:
        from throughtime.pipeline import fit as fit_models

        run = fit_models(
            data, model=model, order=order, hidden=hidden, layers=layers, bptt=bptt,
            emission=emission, symbols=symbols, valid=valid, test=test, split=split,
            time_limit=time_limit, steps=steps, seed=seed, name=name, out=output,
            on_event=display, **options,
        )  # fmt: skip
    if emit(_fitted(run), json_):
        return
    out.print(comparison(run.scores))
    out.print()
    out.print(Text(run.verdict))
    say(f"report: {run.folder / 'report.html'}")


def _fitted(run: Any) -> dict[str, Any]:
    """What fit --json prints."""
    models = []
    for row in run.scores["models"]:
        against = row["difference"] or {"value": None, "interval": None}
        kept = {key: row[key] for key in ("name", "family", "parameters", "nats_per_step")}
        more = {key: row.get(key) for key in ("bits_per_step", "bits_per_character", "seconds")}
        models.append(
            {**kept, "difference": against["value"], "interval": against["interval"], **more}
        )
    return {
        "run": str(run.folder),
        "best": run.best,
        "reference": run.scores["reference"],
        "unit": run.scores["unit"],
        "verdict": run.verdict,
        "report": str(run.folder / "report.html"),
        "models": models,
    }


@app.command(help_epilogue=epilogue("history"))
def history(
    data: Annotated[
        str, Parameter(help="A file, a folder, or demo:prices, demo:nasdaq, demo:text.")
    ],
    /,
    *,
    time: Annotated[
        str | None,
        Parameter(help="Column of time stamps; none: rows as they come.", group=_reading),
    ] = None,
    value: Annotated[
        list[str] | None,
        Parameter(help="Column to model (again for more); '*': all.", negative=(), group=_reading),
    ] = None,
    id: Annotated[
        str | None, Parameter(help="Column that names the series.", group=_reading)
    ] = None,
    covariates: Annotated[
        list[str] | None,
        Parameter(help="Column known beforehand (again for more).", negative=(), group=_reading),
    ] = None,
    time_format: Annotated[
        str | None, Parameter(help="As in strftime (%d/%m/%Y), or epoch.", group=_reading)
    ] = None,
    gaps: Annotated[
        Literal["keep", "fill"] | None, Parameter(help="Missing rows.", group=_reading)
    ] = None,
    header: Annotated[
        bool | None, Parameter(help="Whether a table's first line names columns.", group=_reading)
    ] = None,
    lines: Annotated[
        bool,
        Parameter(
            help="Each line of a text is a sequence.",
            negative=(),
            show_default=False,
            group=_reading,
        ),
    ] = False,
    text: Annotated[
        str | None, Parameter(help="Field of a .jsonl file that holds text.", group=_reading)
    ] = None,
    encoding: Annotated[
        str | None, Parameter(help="Of text: utf-8, latin-1, … or bytes.", group=_reading)
    ] = None,
    rate: Annotated[
        float | None, Parameter(help="Resample sound to this rate, Hz.", group=_reading)
    ] = None,
    kind: Annotated[
        Literal["series", "text", "sound"] | None,
        Parameter(help="If the name does not say it.", group=_reading),
    ] = None,
    split: Annotated[
        Literal["auto", "time", "sequence", "spread"],
        Parameter(help="Where the shares are cut off: at the end, or sequences.", group=_running),
    ] = "auto",
    time_limit: Annotated[
        str, Parameter(help="For example 30s or 5m; small data take seconds.", group=_running)
    ] = "2m",
    seed: Annotated[int, Parameter(help="The one seed of everything random.", group=_running)] = 0,
    json_: Annotated[Json, Parameter(group=_running)] = False,
) -> None:
    """Measure how much of the past data need: whether order matters, how many lags, what to set."""
    from throughtime.display import Working

    options: dict[str, Any] = {
        "time": False if time == "none" else time, "value": value or None, "id": id,
        "covariates": covariates or None, "time_format": time_format, "gaps": gaps,
        "header": header, "lines": lines or None, "text": text, "encoding": encoding,
        "rate": rate, "kind": kind,
    }  # fmt: skip
    with Working(err, "loading", quiet=json_) as working:
        from throughtime.history import certificate
        from throughtime.history.picture import picture

        def on_event(event: dict[str, Any]) -> None:
            about = event.get("about", f"reading {data}")
            working(event.get("done", 0), event.get("total", 0), about)

        found = certificate(data, time_limit, seed, on_event, split=split, **options).to_json()
    if emit(found, json_):
        return
    if found["order_matters"]["matters"]:
        for line in picture(found):
            say(line)
        say("")
    out.print(Text(found["verdict"]), width=min(80, out.width))
    for note in found["notes"]:
        out.print(Text(f"note: {note}", "dim"), width=min(80, out.width))


@app.command(help_epilogue=epilogue("score"))
def score(
    run: RunFolder,
    data: Annotated[str, Parameter(help="Data of the kind the run was fitted on.")],
    /,
    *,
    steps: Annotated[
        Path | None, Parameter(help="Write the nats of each step: .csv or .parquet.")
    ] = None,
    unknown: Annotated[
        bool, Parameter(help="Accept unseen characters.", negative=(), show_default=False)
    ] = False,
    json_: Json = False,
) -> None:
    """Score sequences: log-likelihood in nats, per sequence and (with --steps) per step."""
    from throughtime.display import Working, score_table

    with Working(err, "loading", quiet=json_) as working:
        from throughtime.output import check_table, write_frame
        from throughtime.run import load

        check_table(steps)
        loaded = load(run)
        judged = loaded.judge(data, unknown=unknown, on_progress=working)
        found = judged.totals()
        if steps is not None:
            write_frame(judged.frame(), steps)
            found["steps_file"] = str(steps)
    if emit(found, json_):
        return
    total = f"{found['nats_per_step']:.4f} {found['unit']} over {found['steps']:,} steps"
    bits = [f"{found[k]:.4f} {k.replace('_', ' ')}" for k in found if k.startswith("bits_per")]
    say("; ".join([total, *bits]))
    if len(found["sequences"]) > 1:
        out.print(score_table(found, 20))
    if len(found["sequences"]) > 20:
        say(f"… and {len(found['sequences']) - 20:,} more (all with --json)")
    if steps is not None:
        say(f"each step: {steps}")


@app.command(help_epilogue=epilogue("forecast"))
def forecast(
    run: RunFolder,
    /,
    *,
    horizon: Annotated[int, Parameter(help="Steps ahead.")] = 20,
    series: Annotated[
        list[str] | None, Parameter(help="Only this series (again for more).", negative=())
    ] = None,
    quantiles: Annotated[str, Parameter(help="Comma-separated.")] = "0.025,0.1,0.5,0.9,0.975",
    covariates: Annotated[
        Path | None, Parameter(help="Table of the covariates after the end of the data.")
    ] = None,
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
    from throughtime.display import Working

    try:
        levels = tuple(float(q) for q in quantiles.split(","))
    except ValueError:
        raise SettingError(
            f"quantiles={quantiles}: numbers between 0 and 1, for example 0.1,0.5,0.9"
        ) from None
    with Working(err, "loading", quiet=json_) as working:
        from throughtime.output import check_table, path_frame, quantile_frame, write_frame
        from throughtime.run import load

        check_table(output, paths_output)
        found = load(run).forecast(
            horizon, series=series, quantiles=levels, num_paths=paths, tolerance=tolerance,
            seed=seed, paths=paths_output is not None, covariates=covariates,
            on_progress=working,
        )  # fmt: skip
    if output is not None:
        write_frame(quantile_frame(found), output)
    if paths_output is not None:
        write_frame(path_frame(found), paths_output)
        for one in found["series"]:
            for column in one["columns"]:
                del column["paths"]
    if not emit(found, json_):
        _show_forecast(found, output)


def _show_forecast(found: dict[str, Any], output: Path | None) -> None:
    from throughtime.display import forecast_tables

    most_rows, most_series = 40, 10
    for table in forecast_tables(found, most_rows, most_series):
        out.print(table)
    hidden = []
    if found["horizon"] > most_rows:
        hidden.append(f"{found['horizon'] - most_rows:,} more steps")
    if len(found["series"]) > most_series:
        hidden.append(f"{len(found['series']) - most_series:,} more series")
    if hidden:
        say(f"… and {' of '.join(hidden)} (all with -o or --json)")
    error = found["quantile_error"]
    certain = (
        "" if error is None else f"; quantiles are certain to {100 * error:.1f} % of the spread"
    )
    say(f"{found['num_paths']:,} paths each{certain}")
    if output is not None:
        say(f"quantiles: {output}")


@app.command(help_epilogue=epilogue("sample"))
def sample(
    run: RunFolder,
    /,
    *,
    length: Annotated[
        int | None,
        Parameter(help="Steps; 500 of text, 2 seconds of sound, 200 of a series if not given."),
    ] = None,
    paths: Annotated[int, Parameter(help="How many.")] = 1,
    prompt: Annotated[str, Parameter(help="Text to go on from.", show_default=False)] = "",
    temperature: Annotated[float, Parameter(help="Below 1: bolder choices of symbols.")] = 1.0,
    top_p: Annotated[float, Parameter(help="Keep the likeliest symbols up to this mass.")] = 1.0,
    output: Annotated[
        Path | None,
        Parameter(name=["-o", "--output"], help=".txt, .wav for sound, .csv or .parquet."),
    ] = None,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Draw new sequences: text as it is written, sound to a .wav file, series to a table."""
    from throughtime.display import Working

    with Working(err, "loading", quiet=json_) as working:
        from throughtime.output import Draw, sample_sound, sample_table
        from throughtime.run import load

        loaded = load(run)
        if loaded.kind == "text":
            working.stop()
            found = _sample_text(
                loaded, length or 500, paths, prompt, seed, temperature, top_p, output, json_
            )
            emit(found, json_)
            return
        if prompt:
            raise SettingError("prompt= is for runs of text")
        if loaded.kind == "sound":
            length = length or 2 * loaded.rate
            file = output or Path("sample.wav")
            found = sample_sound(
                loaded, Draw(length, paths, seed, temperature, top_p, file), working
            )
        else:
            file = output or Path("sample.csv")
            found = sample_table(
                loaded, Draw(length or 200, paths, seed, temperature, top_p, file), working
            )
    if emit(found, json_):
        return
    what = f"{found['steps']:,} steps"
    if "seconds" in found:
        what = f"{found['seconds']:.2f} s of sound at {found['rate']:,} Hz"
    say(f"{paths:,} path{'s' if paths > 1 else ''} of {what}: {', '.join(found['files'])}")


def _sample_text(
    loaded: Any,
    length: int,
    paths: int,
    prompt: str,
    seed: int,
    temperature: float,
    top_p: float,
    output: Path | None,
    as_json: bool,
) -> dict[str, Any]:
    """Writes each text to the terminal as it is drawn, unless it is wanted elsewhere."""
    from throughtime.checkpoint import write_text

    shown = not as_json and output is None
    texts = []
    for path in range(paths):
        pieces = [prompt]
        stream = loaded.stream_text(
            length, prompt=prompt, seed=seed, temperature=temperature, top_p=top_p, path=path
        )
        for piece in stream:
            if shown:
                sys.stdout.write(piece if len(pieces) > 1 else prompt + piece)
                sys.stdout.flush()
            pieces.append(piece)
        texts.append("".join(pieces))
        if shown:
            sys.stdout.write("\n" if path == paths - 1 else f"\n{'─' * 20}\n")
    found = {"kind": "text", "paths": paths, "steps": length, "texts": texts}
    if output is not None:
        write_text(output, f"\n{'─' * 20}\n".join(texts))
        found["files"] = [str(output)]
        if not as_json:
            say(f"{paths:,} text{'s' if paths > 1 else ''} of {length:,} steps: {output}")
    return found


@app.command(help_epilogue=epilogue("report"))
def report(run: RunFolder, /, *, json_: Json = False) -> None:
    """Write the run's report.html again and say where it is."""
    from throughtime.report import write

    path = write(run)
    if not emit({"report": str(path)}, json_):
        say(str(path))


@app.command(help_epilogue=epilogue("doctor"))
def doctor(*, json_: Json = False) -> None:
    """Say what runs here (torch, backends, threads, extras) and how to get what is missing."""
    from throughtime.doctor import examine, lines

    found = examine()
    if emit(found, json_):
        return
    for line in lines(found):
        say(line)


@app.command(help_epilogue=epilogue("bench"))
def bench(
    *,
    quick: Annotated[
        bool, Parameter(help="Fewer rounds.", negative=(), show_default=False)
    ] = False,
    only: Annotated[
        str | None, Parameter(help="Comma-separated, of gru, rnn, lstm, step and sample.")
    ] = None,
    rounds: Annotated[int | None, Parameter(help="Measurements of each; 15, quick 5.")] = None,
    threads: Annotated[int | None, Parameter(help="Of each contender; as torch has them.")] = None,
    json_: Json = False,
) -> None:
    """Check the native kernels and time them beside torch, onnxruntime and JAX, on this machine."""
    from throughtime.display import Working

    with Working(err, "loading", quiet=json_) as working:
        from throughtime.bench import measure
        from throughtime.bench.table import page

        found = measure(
            only=only and only.split(","), rounds=rounds, threads=threads, quick=quick,
            on_progress=working,
        )  # fmt: skip
    if not emit(found, json_):
        out.print(page(found), soft_wrap=True)


# ------------------------------------------------------------------------------------ in one line


def main(arguments: list[str] | None = None) -> None:
    """Runs a command; every failure is one line and an exit code."""
    tokens = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]
    try:
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        again = "; the same command goes on where it stopped" if tokens[:1] == ["fit"] else ""
        _fail(f"interrupted{again}", 1)
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None
    except (ThroughtimeError, OSError, MemoryError, RuntimeError) as error:
        message = explained(error)
        if debug or message is None:
            raise
        _fail(message, 2 if isinstance(error, SettingError) else 1)


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    raise SystemExit(code)
