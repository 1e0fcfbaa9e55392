"""The commands that fit to data: `fit` makes a run, `history` measures how much past they need."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter
from rich.text import Text

from throughtime.cli.base import Json, app, emit, err, out, say
from throughtime.cli.messages import epilogue
from throughtime.cli.reading import Data, Reading

_models = Group("Models", sort_key=1)
_running = Group("Running", sort_key=3)
_AS_IT_IS = Reading()
Seed = Annotated[int, Parameter(help="The one seed of everything random.", group=_running)]
Split = Annotated[
    Literal["auto", "time", "sequence", "spread"],
    Parameter(help="Where the shares are cut off: at the end, or sequences.", group=_running),
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Models:
    """What `fit` fits."""

    model: Annotated[
        Literal["auto", "ar", "rnn", "gru", "lstm"],
        Parameter(help="One family, or all of them.", group=_models),
    ] = "auto"
    order: Annotated[
        str, Parameter(help="Lags of the autoregression: auto or a number.", group=_models)
    ] = "auto"
    hidden: Annotated[int | None, Parameter(help="Units of each network.", group=_models)] = None
    layers: Annotated[int | None, Parameter(help="Layers of each network.", group=_models)] = None
    bptt: Annotated[
        str,
        Parameter(
            help="Gradient through time: auto, full, K or K1,K2 steps, memory=512MB, or adaptive.",
            group=_models,
        ),
    ] = "auto"
    emission: Annotated[
        str,
        Parameter(
            help="Distribution of a step: auto, student_t, normal, poisson, … with options: "
            "student_t:rank=2.",
            group=_models,
        ),
    ] = "auto"
    baselines: Annotated[
        str,
        Parameter(
            help="Classical models beside the naive ones: hmm, exponential_smoothing, garch.",
            group=_models,
        ),
    ] = ""
    from_: Annotated[
        Path | None,
        Parameter(
            name="--from", help="Go on training the model of this run folder.", group=_models
        ),
    ] = None
    symbols: Annotated[
        Literal["characters", "bytes", "tokens"],
        Parameter(help="What text is made of.", group=_models),
    ] = "characters"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Running:
    """How `fit` runs."""

    valid: Annotated[float, Parameter(help="Share of the data for validation.", group=_running)] = (
        0.1
    )
    test: Annotated[
        float, Parameter(help="Share to test on, never seen before.", group=_running)
    ] = 0.1
    split: Split = "auto"
    time_limit: Annotated[
        str | None, Parameter(help="For example 90s, 5m or 1h.", group=_running)
    ] = None
    steps: Annotated[int | None, Parameter(help="Updates of each network.", group=_running)] = None
    name: Annotated[
        str | None, Parameter(help="What to call the data in the report.", group=_running)
    ] = None
    out: Annotated[
        Path | None,
        Parameter(name=["-o", "--output"], help="Run folder; runs/NAME.", group=_running),
    ] = None


@app.command(help_epilogue=epilogue("fit"))
def fit(
    data: Data,
    /,
    *,
    models: Models = Models(),
    running: Running = Running(),
    seed: Seed = 0,
    json_: Annotated[Json, Parameter(group=_running)] = False,
    reading: Reading = _AS_IT_IS,
) -> None:
    """Fit models of sequences, compare them on untouched data, keep the best in a run folder.

    The same command on an interrupted run goes on where it stopped.
    """
    from throughtime.cli.display import FitDisplay, comparison

    options = {**asdict(models), **asdict(running), **reading.options()}
    with FitDisplay(err, quiet=json_) as display:
        from throughtime.runs.fit import default_folder
        from throughtime.runs.fit import fit as fit_models
        from throughtime.runs.run import load_trained

        if (trained := options.pop("from_")) is not None:
            options["model"] = load_trained(trained)
        options["out"] = running.out or default_folder(data)
        run = fit_models(data, seed=seed, on_event=display, **options)
    if emit(_fitted(run), json_):
        return
    out.print(comparison(run.scores))
    out.print()
    out.print(Text(run.verdict))
    assert run.folder is not None
    say(f"report: {run.folder / 'report.html'}")


def _fitted(run: Any) -> dict[str, Any]:
    """What fit --json prints."""
    models = []
    fields = {
        "name", "family", "parameters", "nats_per_step", "bits_per_step", "bits_per_character",
        "seconds",
    }  # fmt: skip
    for row in run.scores.models:
        against = row.difference
        models.append(
            {
                **row.model_dump(mode="json", include=fields),
                "difference": None if against is None else against.value,
                "interval": None if against is None else against.interval,
            }
        )
    return {
        "run": str(run.folder),
        "best": run.best.name,
        "reference": run.scores.reference,
        "unit": run.scores.unit,
        "verdict": run.verdict,
        "report": str(run.folder / "report.html"),
        "models": models,
    }


@app.command(help_epilogue=epilogue("history"))
def history(
    data: Data,
    /,
    *,
    split: Split = "auto",
    time_limit: Annotated[
        str, Parameter(help="For example 30s or 5m; small data take seconds.", group=_running)
    ] = "2m",
    seed: Seed = 0,
    json_: Annotated[Json, Parameter(group=_running)] = False,
    reading: Reading = _AS_IT_IS,
) -> None:
    """Measure how much of the past data need: whether order matters, how many lags, what to set."""
    from throughtime.cli.display import Working

    with Working(err, "loading", quiet=json_) as working:
        from throughtime.history import certificate
        from throughtime.history.picture import picture

        def on_event(event: dict[str, Any]) -> None:
            about = event.get("about", f"reading {data}")
            working(event.get("done", 0), event.get("total", 0), about)

        measured = certificate(data, time_limit, seed, on_event, split=split, **reading.options())
    if emit(measured.to_json(), json_):
        return
    if measured.order_matters:
        for line in picture(measured):
            say(line)
        say("")
    out.print(Text(measured.verdict), width=min(80, out.width))
    for note in measured.notes:
        out.print(Text(f"note: {note}", "dim"), width=min(80, out.width))
