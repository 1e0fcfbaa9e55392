"""`fit`, the command that makes a run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter
from rich.text import Text

from throughtime.cli.base import Json, app, emit, err, out, say
from throughtime.messages import epilogue

_models = Group("Models", sort_key=1)
_reading = Group("Reading the data", sort_key=2)
_running = Group("Running", sort_key=3)


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
        str,
        Parameter(
            help="Gradient through time: auto, full, K or K1,K2 steps, memory=512MB, or adaptive.",
            group=_models,
        ),
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
