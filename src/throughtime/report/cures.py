"""The page of `throughtime demo gradients`: the vanishing gradient and its cures."""

from __future__ import annotations

from typing import Any

from throughtime.report import page
from throughtime.report.axis import decades, linear
from throughtime.report.html import Markup, count, el, fixed, join, significant
from throughtime.report.plot import Plot, legend
from throughtime.report.sections import lead, table

_DEEPEST = 1e-8  # of the gradient: what is smaller runs out at the bottom


def cures(demo: dict[str, Any]) -> str:
    """The page of a demonstration, from its JSON values."""
    lag, rows = demo["lag"], demo["networks"]
    keys = [
        (row["name"], f"s{i}", "learned" if row["learned"] else "") for i, row in enumerate(rows)
    ]
    before = (
        f"A number is shown, {count(lag)} steps of noise follow, and the number is asked for. This "
        "is what each network learns from, before it has learned anything: the share of its "
        "gradient by how many steps it travels back. Only what arrives at the right edge comes "
        "from the number."
    )
    after = (
        f"Nats of an answer over {count(demo['updates'])} updates, the same batches for all; "
        f"{fixed(demo['guess'], 3)} is a guess."
    )
    rest = [
        [row["name"], count(row["k2"]), count(row["reach"]), significant(row["arrives"], 2),
         fixed(row["loss"][-1], 3)]
        for row in rows
    ]  # fmt: skip
    head = ["network", "gradient cut after", "95 % within lag", f"share at lag {lag}", "nats"]
    figures = table(head, rest, "Steps, shares and nats of every network")
    return page(
        "The vanishing gradient",
        "demo gradients",
        demo["verdict"],
        None,
        [
            ("gradient", "Gradient", "How far back the gradient reaches",
             join(lead(before), legend(keys, toggles=True), el("figure", _by_lag(demo)))),
            ("learning", "Learning", "Who learns",
             join(lead(after), legend(keys, toggles=True), el("figure", _learning(demo)))),
            ("figures", "Figures", "The figures", figures),
        ],
        "throughtime demo gradients",
    )  # fmt: skip


def _by_lag(demo: dict[str, Any]) -> Markup:
    lag = demo["lag"]
    plot = Plot(
        linear(0.0, float(lag), 8),
        decades(_DEEPEST, 1.5),
        f"Share of the gradient by lag, 0 to {lag}, of each network, on a logarithmic scale.",
        "steps back",
        "share of the gradient",
        size="tall clip",
        reading="{} steps back",
    )
    xs = [float(k) for k in range(lag + 1)]
    for i, row in enumerate(demo["networks"]):
        ys = [value if value and value > 0 else None for value in row["by_lag"]]
        plot.line(xs, ys, f"s{i}", row["name"], key=row["name"])
    plot.mark(float(demo["short"]), f"truncated at {demo['short']}", "cut")
    return plot.render()


def _learning(demo: dict[str, Any]) -> Markup:
    rows = demo["networks"]
    parts = len(rows[0]["loss"])
    each = demo["updates"] / parts
    top = max(value for row in rows for value in row["loss"])
    plot = Plot(
        linear(each, float(demo["updates"]), 8),
        linear(0.0, 1.15 * top, 5),
        "Nats of an answer over the updates, of each network.",
        "updates",
        "nats",
        size="tall",
        reading="after {} updates",
    )
    xs = [each * (i + 1) for i in range(parts)]
    plot.rule("uniform", y=demo["guess"])
    for i, row in enumerate(rows):
        plot.line(xs, row["loss"], f"s{i}", row["name"], key=row["name"])
    return plot.render()
