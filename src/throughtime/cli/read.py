"""The command that says what a file is taken for, before anything is made of it."""

from __future__ import annotations

from typing import Any

from rich.table import Table
from rich.text import Text

from throughtime.cli.base import Json, app, emit, err, out, say
from throughtime.cli.messages import as_flags, epilogue
from throughtime.cli.reading import Data, Reading

_AS_IT_IS = Reading()
_SHOWN = 3  # steps that are shown of the first series


@app.command(help_epilogue=epilogue("read"))
def read(data: Data, /, *, reading: Reading = _AS_IT_IS, json_: Json = False) -> None:
    """Say what a file is taken for, on what evidence, and what was passed over; nothing is fitted.

    Each line is called like the option that says it otherwise.
    """
    from throughtime.cli.display import Working

    with Working(err, "reading", quiet=json_):
        from throughtime.data.readers.read import read as read_sequences

        given = {key: value for key, value in reading.options().items() if value is not None}
        sequences = read_sequences(data, **given)
    if emit(_summary(data, sequences), json_):
        return
    say(repr(sequences).removeprefix("Sequences(").removesuffix(")"))
    plan = sequences.plan
    if plan is not None:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for column in ("option", "value", "because"):
            table.add_column(column, overflow="fold")
        for entry in plan.entries:
            over = f"; not {', '.join(entry.passed_over[:5])}" if entry.passed_over else ""
            table.add_row(
                "--" + entry.name.replace("_", "-"), _plain(entry.value), entry.evidence + over
            )
        out.print(table)
    for note in sequences.notes:
        out.print(Text("note: " + as_flags(note)))


def _plain(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return {"\t": "tab", " ": "blanks"}.get(str(value), str(value))


def _summary(data: str, sequences: Any) -> dict[str, Any]:
    """What `--json` prints."""
    from throughtime.wording import stamps

    times = None if sequences.times is None else stamps(sequences.times, slice(0, _SHOWN))
    plan = sequences.plan
    return {
        "source": data,
        "kind": sequences.domain.kind,
        "series": len(sequences),
        "steps": sequences.steps,
        "step": sequences.domain.step,
        "columns": list(sequences.domain.columns),
        "covariates": list(sequences.domain.covariate_columns),
        "missing": int(sequences.missing.sum()),
        "first_times": times,
        "first_values": sequences.values[:_SHOWN].tolist(),
        "plan": [] if plan is None else plan.to_json()["entries"],
        "notes": list(sequences.notes),
    }
