"""The commands that show something: of a run, of how gradients behave, of this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.text import Text

from throughtime.cli.base import Json, RunFolder, Seed, app, emit, err, out, say
from throughtime.cli.messages import epilogue


@app.command(help_epilogue=epilogue("report"))
def report(run: RunFolder, /, *, json_: Json = False) -> None:
    """Write the run's report.html again and say where it is."""
    from throughtime.report import write

    path = write(run)
    if not emit({"report": str(path)}, json_):
        say(str(path))


@app.command(help_epilogue=epilogue("gradients"))
def gradients(
    run: RunFolder,
    /,
    *,
    max_lag: Annotated[
        int | None, Parameter(help="Look back so many steps; as many as fit did if not given.")
    ] = None,
    json_: Json = False,
) -> None:
    """Show how far back the gradient of a run's network reaches, and what truncation leaves out."""
    from throughtime.cli.display import Working

    with Working(err, "loading", quiet=json_) as working:
        from throughtime.runs.run import load_run

        reach = load_run(run).gradients(max_lag=max_lag, on_progress=working)
    if not emit({"run": str(run), **reach.to_json()}, json_):
        from throughtime.report.picture import gradient

        out.print(gradient(reach.record()), width=min(80, out.width))


@app.command(help_epilogue=epilogue("demo"))
def demo(
    what: Annotated[Literal["gradients"], Parameter(help="What to show.")] = "gradients",
    /,
    *,
    seed: Seed = 0,
    output: Annotated[
        Path, Parameter(name=["-o", "--output"], help="Where to write the page.")
    ] = Path("gradients.html"),
    json_: Json = False,
) -> None:
    """Show the vanishing gradient of a plain recurrent network, and what cures it."""
    from throughtime.cli.display import Working

    with Working(err, "loading", quiet=json_) as working:
        from throughtime.cli.gradient_demo import demonstrate
        from throughtime.report import save
        from throughtime.report.cures import cures as page

        measured = demonstrate(seed, working).to_json()
        save(page(measured), output)
    if emit({**measured, "page": str(output)}, json_):
        return
    from throughtime.report.picture import cures

    out.print(cures(measured))
    out.print()
    out.print(Text(measured["verdict"]), width=min(80, out.width))
    say(f"in one picture: {output}")


@app.command(help_epilogue=epilogue("doctor"))
def doctor(*, json_: Json = False) -> None:
    """Say what runs here (torch, backends, threads, extras) and how to get what is missing."""
    from throughtime.cli.doctor import examine, lines

    facts = examine()
    if emit(facts, json_):
        return
    for line in lines(facts):
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
    from throughtime.cli.display import Working

    with Working(err, "loading", quiet=json_) as working:
        from throughtime.bench import measure
        from throughtime.bench.table import page

        measured = measure(
            only=only and only.split(","), rounds=rounds, threads=threads, quick=quick,
            on_progress=working,
        )  # fmt: skip
    if not emit(measured, json_):
        out.print(page(measured), soft_wrap=True)
