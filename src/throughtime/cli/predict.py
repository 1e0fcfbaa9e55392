"""The commands that use a run or a saved model: `score`, `forecast`, `update`, `sample`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from throughtime.cli.base import Json, RunFolder, Seed, app, emit, err, out, say
from throughtime.cli.messages import epilogue
from throughtime.errors import SettingError


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
    from throughtime.cli.display import Working, score_table

    with Working(err, "loading", quiet=json_) as working:
        from throughtime.cli.output import check_table, write_frame
        from throughtime.runs.run import load_model

        check_table(steps)
        fitted = load_model(run)
        scores = fitted.score(data, unknown=unknown, on_progress=working)
        result = scores.to_json()
        if steps is not None:
            write_frame(scores.frame(fitted.transforms), steps)
            result["steps_file"] = str(steps)
    if emit(result, json_):
        return
    total = f"{result['nats_per_step']:.4f} {result['unit']} over {result['steps']:,} steps"
    bits = [f"{result[k]:.4f} {k.replace('_', ' ')}" for k in result if k.startswith("bits_per")]
    say("; ".join([total, *bits]))
    if len(result["sequences"]) > 1:
        out.print(score_table(result, 20))
    if len(result["sequences"]) > 20:
        say(f"… and {len(result['sequences']) - 20:,} more (all with --json)")
    if steps is not None:
        say(f"each step: {steps}")


@app.command(help_epilogue=epilogue("forecast"))
def forecast(
    run: RunFolder,
    data: Annotated[
        str | None, Parameter(help="Go on from these data instead of those it was fitted on.")
    ] = None,
    /,
    *,
    horizon: Annotated[int, Parameter(help="Steps ahead.")] = 20,
    series: Annotated[
        list[str] | None, Parameter(help="Only this series (again for more).", negative=())
    ] = None,
    quantiles: Annotated[str, Parameter(help="Comma-separated.")] = "0.025,0.1,0.5,0.9,0.975",
    future: Annotated[
        Path | None,
        Parameter(
            name=["--future", "--covariates"],
            help="Table of the covariates after the end of the data.",
        ),
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
    """Forecast what comes next, after the data of the run or any other: quantiles of paths."""
    from throughtime.cli.display import Working

    try:
        levels = tuple(float(q) for q in quantiles.split(","))
    except ValueError:
        raise SettingError(
            f"quantiles={quantiles}: numbers between 0 and 1, for example 0.1,0.5,0.9"
        ) from None
    with Working(err, "loading", quiet=json_) as working:
        from throughtime.cli.output import check_table, write_frame
        from throughtime.runs.run import load_model

        check_table(output, paths_output)
        prediction = load_model(run).forecast(
            horizon, data=data, future=future, series=series, quantiles=levels,
            num_paths=paths, tolerance=tolerance, seed=seed, on_progress=working,
        )  # fmt: skip
    if output is not None:
        write_frame(prediction.frame(), output)
    if paths_output is not None:
        write_frame(prediction.path_frame(), paths_output)
    if not emit(prediction.to_json(), json_):
        _show_forecast(prediction.to_json(), output)


@app.command(help_epilogue=epilogue("update"))
def update(
    run: RunFolder,
    data: Annotated[str, Parameter(help="New rows; those after the end of the data count.")],
    /,
    *,
    json_: Json = False,
) -> None:
    """Move the end of a run's data on by new rows; nothing is fitted again, weights stay."""
    from throughtime.cli.display import Working

    with Working(err, "loading", quiet=json_):
        from throughtime.runs.run import update as move

        moved = move(run, data)
    if emit(moved, json_):
        return
    last = "" if moved["end"] is None else f", the end is at {moved['end']} now"
    dropped = f" ({moved['passed_over']:,} were known already)" if moved["passed_over"] else ""
    say(f"{moved['rows']:,} new rows of {moved['series']:,} series{dropped}{last}")


def _show_forecast(prediction: dict[str, Any], output: Path | None) -> None:
    from throughtime.cli.display import forecast_tables

    most_rows, most_series = 40, 10
    for table in forecast_tables(prediction, most_rows, most_series):
        out.print(table)
    hidden = []
    if prediction["horizon"] > most_rows:
        hidden.append(f"{prediction['horizon'] - most_rows:,} more steps")
    if len(prediction["series"]) > most_series:
        hidden.append(f"{len(prediction['series']) - most_series:,} more series")
    if hidden:
        say(f"… and {' of '.join(hidden)} (all with -o or --json)")
    error = prediction["quantile_error"]
    certain = (
        "" if error is None else f"; quantiles are certain to {100 * error:.1f} % of the spread"
    )
    say(f"{prediction['num_paths']:,} paths each{certain}")
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
    temperature: Annotated[
        float, Parameter(help="Of symbols: above 1 more even, below 1 sharper.")
    ] = 1.0,
    top_p: Annotated[float, Parameter(help="Keep the likeliest symbols up to this mass.")] = 1.0,
    output: Annotated[
        Path | None,
        Parameter(name=["-o", "--output"], help=".txt, .wav for sound, .csv or .parquet."),
    ] = None,
    seed: Seed = 0,
    json_: Json = False,
) -> None:
    """Draw new sequences: text as it is written, sound to a .wav file, series to a table."""
    from throughtime.cli.display import Working

    with Working(err, "loading", quiet=json_) as working:
        from throughtime.cli.output import Draw, sample_sound, sample_table
        from throughtime.runs.run import load_model

        fitted = load_model(run)
        kind = fitted.domain.kind
        if kind == "text":
            working.stop()
            drawn = _sample_text(
                fitted, length or 500, paths, prompt, seed, temperature, top_p, output, json_
            )
            emit(drawn, json_)
            return
        if prompt:
            raise SettingError("prompt= is for runs of text")
        if kind == "sound":
            length = length or 2 * int(fitted.domain.sample_rate or 8000)
            file = output or Path("sample.wav")
            drawn = sample_sound(
                fitted, Draw(length, paths, seed, temperature, top_p, file), working
            )
        else:
            file = output or Path("sample.csv")
            drawn = sample_table(
                fitted, Draw(length or 200, paths, seed, temperature, top_p, file), working
            )
    if emit(drawn, json_):
        return
    what = f"{drawn['steps']:,} steps"
    if "seconds" in drawn:
        what = f"{drawn['seconds']:.2f} s of sound at {drawn['rate']:,} Hz"
    say(f"{paths:,} path{'s' if paths > 1 else ''} of {what}: {', '.join(drawn['files'])}")


def _sample_text(
    fitted: Any,
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
    from throughtime.files import write_text

    to_terminal = not as_json and output is None
    texts = []
    for path in range(paths):
        pieces = [prompt]
        stream = fitted.stream_text(
            length, prompt=prompt, seed=seed, temperature=temperature, top_p=top_p, path=path
        )
        for piece in stream:
            if to_terminal:
                sys.stdout.write(piece if len(pieces) > 1 else prompt + piece)
                sys.stdout.flush()
            pieces.append(piece)
        texts.append("".join(pieces))
        if to_terminal:
            sys.stdout.write("\n" if path == paths - 1 else f"\n{'─' * 20}\n")
    result = {"kind": "text", "paths": paths, "steps": length, "texts": texts}
    if output is not None:
        write_text(output, f"\n{'─' * 20}\n".join(texts))
        result["files"] = [str(output)]
        if not as_json:
            say(f"{paths:,} text{'s' if paths > 1 else ''} of {length:,} steps: {output}")
    return result
