"""The headline of the report: key figures and the table of all models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from throughtime.report.axis import nice_step
from throughtime.report.html import (
    NONE,
    Markup,
    count,
    el,
    fixed,
    join,
    megabytes,
    number,
    numbers,
    significant,
)
from throughtime.report.read import Run, mapping, text
from throughtime.wording import duration

FAMILIES = {
    "reference": "simple reference",
    "autoregressive": "finite window",
    "latent": "latent state",
    "blend": "average of models",
    "peer": "peer",
}


@dataclass(frozen=True)
class Difference:
    """A difference to the reference; negative is better."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def reach(self) -> float:
        """How far from zero the difference or its interval gets."""
        return max(abs(end) for end in (self.value, self.low, self.high) if end is not None)

    @property
    def verdict(self) -> str:
        """Whether the interval lies on one side of zero."""
        if self.low is None or self.high is None:
            return "open"
        return "better" if self.high < 0 else "worse" if self.low > 0 else "open"


def difference(model: dict[str, Any]) -> Difference | None:
    """A model's difference to the reference, None where it has none."""
    entry = mapping(model, "difference")
    value = number(entry.get("value"))
    if value is None:
        return None
    interval = numbers(entry.get("interval"))
    low, high = interval if len(interval) == 2 else (None, None)
    return Difference(value, low, high)


def decimals(models: Sequence[dict[str, Any]]) -> int:
    """Decimals with which every interval shows two digits of its width: between 3 and 6."""
    widths = [
        d.high - d.low
        for model in models
        if (d := difference(model)) and d.low is not None and d.high is not None and d.high > d.low
    ]
    if not widths:
        return 4
    return min(6, max(3, 1 - math.floor(math.log10(min(widths)))))


def scale(differences: Sequence[Difference], chosen: Difference | None = None) -> float:
    """The end of the symmetric scale on which intervals are drawn.

    The chosen model and those about as near the reference must be readable, and one hopeless model
    must not squeeze them into a line: what reaches three times further is cut off, and marked so.
    """
    reach = sorted(d.reach for d in differences if d.reach > 0)
    if not reach:
        return 1.0
    base = max(reach[len(reach) // 4], chosen.reach if chosen else 0.0)
    limit = max(end for end in reach if end <= 3 * base)
    return nice_step(limit / 5) * math.ceil(limit / nice_step(limit / 5) - 1e-9)


def bar(d: Difference, end: float) -> Markup:
    """The interval as a small bar on a scale from -end to end, zero in the middle."""

    def place(value: float) -> float:
        return 500 + 500 * min(1.0, max(-1.0, value / end))

    marks = [("M500 0V100", "zero")]
    if d.low is not None and d.high is not None:
        marks.append((f"M{place(d.low):.1f} 50H{place(d.high):.1f}", f"range {d.verdict}"))
    if abs(d.value) <= end:
        marks.append((f"M{place(d.value):.1f} 50h0", f"point {d.verdict}"))
    drawing = el(
        "svg",
        *(el("path", d=p, class_=c, vector_effect="non-scaling-stroke") for p, c in marks),
        viewBox="0 0 1000 100",
        preserveAspectRatio="none",
        focusable="false",
    )
    arrows = []
    if max(d.value, d.high if d.high is not None else d.value) > end:
        arrows.append(el("span", "›", class_="beyond right"))
    if min(d.value, d.low if d.low is not None else d.value) < -end:
        arrows.append(el("span", "‹", class_="beyond left"))
    return el("div", drawing, *arrows, class_="interval", aria_hidden="true")


def figures(run: Run) -> Markup | None:
    """The key figures under the headline."""
    model = run.selected
    if not model:
        return None
    places = decimals(run.models)
    tiles = [_tile("Selected model", text(model, "name"), text(model, "description"), "word")]
    score = number(model.get("nats_per_step"))
    if score is not None:
        tiles.append(_tile("On held-out data", fixed(score, places), run.unit))
    d = difference(model)
    reference = text(run.scores, "reference")
    if d is not None and reference != text(model, "name"):
        between = ""
        if d.low is not None and d.high is not None:
            between = f" ({fixed(d.low, places, True)} to {fixed(d.high, places, True)})"
        sign = fixed(d.value, places, True)
        tiles.append(_tile(f"Against {reference}", sign, f"nats{between}", d.verdict))
    for field, title, remark in (
        ("bits_per_character", "Bits per character", "what one character costs to store"),
        ("perplexity", "Perplexity", f"equally likely choices at each {run.step}"),
    ):
        value = number(model.get(field))
        if value is not None and run.data.get("kind") != "real":
            tiles.append(_tile(title, significant(value, 4), remark))
    if number(model.get("seconds")) is not None:
        parameters = number(model.get("parameters"))
        remark = f"{count(parameters)} parameters" if parameters is not None else ""
        tiles.append(_tile("Trained in", duration(model["seconds"]), remark))
    return el("dl", *tiles[:5], class_="figures")


def _tile(title: str, value: str, remark: str, class_: str = "") -> Markup:
    return el(
        "div",
        el("dt", title),
        el("dd", value, class_=f"value {class_}".strip()),
        el("dd", remark, class_="remark") if remark else None,
    )


@dataclass(frozen=True)
class Column:
    """A numeric column: its title, its remark, the cell of a model."""

    title: str
    remark: str
    cell: Callable[[dict[str, Any]], str]


def columns(run: Run) -> list[Column]:
    """The columns that have data, without those that would only repeat another."""
    models, places = run.models, decimals(run.models)

    def has(field: str) -> bool:
        return any(number(model.get(field)) is not None for model in models)

    def fixed_of(field: str, digits: int) -> Callable[[dict[str, Any]], str]:
        return lambda model: fixed(model.get(field), digits)

    found = []
    if has("valid_nats_per_step"):
        cell = fixed_of("valid_nats_per_step", places)
        found.append(Column("Validation", "same unit", cell))
    if has("bits_per_character"):
        cell = fixed_of("bits_per_character", 3)
        found.append(Column("Bits", "per character", cell))
    same = all(
        abs((m.get("bits_per_step") or 0.0) - (m.get("bits_per_character") or 0.0)) < 1e-9
        for m in models
    )
    if has("bits_per_step") and not same and run.data.get("kind") != "real":
        found.append(Column("Bits", f"per {run.step}", fixed_of("bits_per_step", 3)))
    if has("perplexity"):
        found.append(Column("Perplexity", "", lambda m: significant(m.get("perplexity"), 4)))
    if has("parameters"):
        found.append(Column("Parameters", "", lambda m: count(m.get("parameters"))))
    if has("seconds"):
        found.append(Column("Time", "to fit", _took))
    if has("peak_memory_mb"):
        found.append(Column("Memory", "at most", lambda m: megabytes(m.get("peak_memory_mb"))))
    return found


def _took(model: dict[str, Any]) -> str:
    seconds = number(model.get("seconds"))
    return NONE if seconds is None else duration(seconds)


def table(run: Run) -> Markup | None:
    """All models, the best first, each with its difference to the reference as a bar."""
    models = run.models
    if not models:
        return None
    differences = [d for model in models if (d := difference(model)) is not None]
    extra = columns(run)
    end = scale(differences, difference(run.selected))
    head = [
        el("th", "Model", scope="col", class_="model"),
        el("th", "Held-out", el("small", run.unit), scope="col", class_="num"),
    ]
    if differences:
        ends = el(
            "span",
            el("span", "better", class_="start"),
            el("span", "worse", class_="end"),
            class_="ends",
            aria_hidden="true",
        )
        span = f"bars reach ±{fixed(end, 9).rstrip('0').rstrip('.')}"
        head.append(el("th", "Difference", el("small", span), ends, scope="col", class_="diff"))
    head += [
        el("th", column.title, el("small", column.remark or " "), scope="col", class_="num")
        for column in extra
    ]
    chosen = run.selected
    rows = [
        _row(run, model, extra, end if differences else None, model is chosen) for model in models
    ]
    return el(
        "div",
        el(
            "table",
            el("caption", "All models, the best on held-out data first", class_="hidden"),
            el("thead", el("tr", *head)),
            el("tbody", *rows),
            class_="models",
        ),
        class_="scroll",
        role="region",
        aria_label="Table of all models",
        tabindex="0",
    )


def _row(
    run: Run, model: dict[str, Any], extra: Sequence[Column], end: float | None, chosen: bool
) -> Markup:
    name, places = text(model, "name"), decimals(run.models)
    family = text(model, "family")
    is_reference = name == text(run.scores, "reference")
    badges = [
        el("span", "selected", class_="badge chosen") if chosen else None,
        el("span", "reference", class_="badge") if is_reference else None,
    ]
    about = " · ".join(
        part for part in (FAMILIES.get(family, family), text(model, "description")) if part
    )
    cells = [
        el(
            "th",
            el("span", name, class_="name"),
            join(*badges),
            el("small", about) if about else None,
            scope="row",
            class_="model",
        ),
        el("td", fixed(model.get("nats_per_step"), places), class_="num score"),
    ]
    if end is not None:
        cells.append(_difference_cell(difference(model), end, places, is_reference))
    cells += [el("td", column.cell(model), class_="num") for column in extra]
    return el("tr", *cells, class_="chosen" if chosen else None)


def _difference_cell(d: Difference | None, end: float, places: int, reference: bool) -> Markup:
    if d is None or reference:
        zero = bar(Difference(0.0), end) if reference else None
        shown = el("span", "0" if reference else "–", class_="value")
        blank = el("span", "\N{NO-BREAK SPACE}", class_="between")
        return el("td", el("div", shown, blank, zero, class_="cell"), class_="diff")
    between = el("span", "\N{NO-BREAK SPACE}", class_="between")
    if d.low is not None and d.high is not None:
        span = f"{fixed(d.low, places, True)} to {fixed(d.high, places, True)}"
        between = el("span", span, class_="between")
    shown = el("span", fixed(d.value, places, True), class_=f"value {d.verdict}")
    return el("td", el("div", shown, between, bar(d, end), class_="cell"), class_="diff")
