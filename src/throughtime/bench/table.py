"""The figures for people, on 80 columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from throughtime.bench.words import times
from throughtime.wording import measured

_TITLES = {
    "training": "{cell}, forward and backward",
    "forward": "{cell}, forward alone",
    "step": "{cell}, one step",
    "sample": "{cell}, sampling symbols (B texts of T)",
    "forecast": "{cell}, forecasting with a Student-t distribution (B paths of T steps)",
}


def page(result: dict[str, Any]) -> Group:
    """Everything that `throughtime bench` prints."""
    parts: list[Table | Text] = [Text(line) for line in _heading(result)]
    for table in _tables(result):
        parts += [Text(), table]
    return Group(*parts, Text(), *map(Text, (*result["notes"], result["sentence"])))


def _heading(result: dict[str, Any]) -> list[str]:
    m = result["machine"]
    lines = [
        f"{m['cpu']}, {m['instructions']}, {m['threads']} of {m['cores']} cores, float32",
        f"throughtime {m['throughtime']}, torch {m['torch']}, Python {m['python']}",
    ]
    for baseline in result["installed"]:
        lines.append(
            f"{baseline['name']} {baseline['version']}"
            if baseline["version"]
            else f"{baseline['name']}: not installed ({baseline['install']})"
        )
    if result["limit_gflops"]:
        lines.append(f"limit: {result['limit_gflops']:,.0f} GFLOP/s, a large matrix product")
    rounds = result["rounds"]
    lines += [
        "",
        "Each baseline's time over ours: above 1 ours is faster. Median of "
        f"{rounds} round{'s' if rounds > 1 else ''},",
        "± half the width of the middle half of the rounds.",
    ]
    return lines


def _tables(result: dict[str, Any]) -> Iterator[Table]:
    """One for each cell and task; cases that lose are red."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in result["rows"]:
        groups.setdefault((row["task"], row["cell"]), []).append(row)
    for (task, cell), rows in groups.items():
        title = Text(_TITLES[task].format(cell=cell.upper()), "bold")
        table = Table(title=title, box=None, pad_edge=False, padding=(0, 2, 0, 0))
        table.title_justify = "left"
        names = list(
            dict.fromkeys(baseline["name"] for row in rows for baseline in row["baselines"])
        )
        table.add_column("B, T, I, H", no_wrap=True, min_width=17)
        table.add_column("ours", justify="right", no_wrap=True, min_width=8)
        if any(row["limit"] is not None for row in rows):
            table.add_column("of limit", justify="right", no_wrap=True)
        for name in names:
            table.add_column(name, justify="right", no_wrap=True, min_width=11)
        for row in rows:
            table.add_row(*_cells(row, names))
        yield table


def _cells(row: dict[str, Any], names: list[str]) -> Iterator[Text]:
    yield Text(", ".join(str(row[key]) for key in ("batch", "steps", "inputs", "hidden")))
    yield Text(measured(row["seconds"]))
    if row["limit"] is not None:
        yield Text(f"{100 * row['limit']:.{1 if row['limit'] < 0.0995 else 0}f} %")
    by_name = {baseline["name"]: baseline for baseline in row["baselines"]}
    for name in names:
        yield _ratio(by_name[name]) if name in by_name else Text("–")


def _ratio(baseline: dict[str, Any]) -> Text:
    half = (baseline["high"] - baseline["low"]) / 2 / baseline["ratio"]
    said = f"{times(baseline['ratio'])} ±{100 * half:.0f} %"
    return Text(said, "bold red" if baseline["ratio"] < 1 else "")
