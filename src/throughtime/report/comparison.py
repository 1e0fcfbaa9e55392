"""The headline of the report: key figures and the table of all models."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from throughtime.evaluation.results import Difference, Family, ModelScores
from throughtime.report.axis import nice_step
from throughtime.report.html import (
    NONE,
    Markup,
    count,
    el,
    fixed,
    join,
    megabytes,
    significant,
)
from throughtime.report.read import ReportData
from throughtime.wording import decimals, duration

FAMILIES: dict[Family, str] = {
    "reference": "simple reference",
    "autoregressive": "finite order",
    "latent": "latent state",
    "blend": "average of models",
    "baseline": "baseline",
}


def places(models: Sequence[ModelScores]) -> int:
    """Decimals with which every interval shows two digits of its width."""
    known = [row.difference for row in models if row.difference is not None]
    return decimals([d.interval for d in known if d.interval is not None], otherwise=4)


def farthest(d: Difference) -> float:
    """How far from zero the difference or its interval gets."""
    return max(abs(end) for end in (d.value or 0.0, *(d.interval or ())))


def scale(differences: Sequence[Difference], selected: Difference | None = None) -> float:
    """The end of the symmetric scale on which intervals are drawn.

    The selected model and those about as near the reference must be readable, and one hopeless
    model must not squeeze them into a line: what goes three times further is cut off, and marked.
    """
    ends = sorted(end for d in differences if (end := farthest(d)) > 0)
    if not ends:
        return 1.0
    base = max(ends[len(ends) // 4], farthest(selected) if selected else 0.0)
    limit = max(end for end in ends if end <= 3 * base)
    return nice_step(limit / 5) * math.ceil(limit / nice_step(limit / 5) - 1e-9)


def bar(d: Difference, end: float) -> Markup:
    """The interval as a small bar on a scale from -end to end, zero in the middle."""

    def place(value: float) -> float:
        return 500 + 500 * min(1.0, max(-1.0, value / end))

    value = d.value or 0.0
    low, high = d.interval or (value, value)
    marks = [("M500 0V100", "zero")]
    if d.interval is not None:
        marks.append((f"M{place(low):.1f} 50H{place(high):.1f}", f"range {d.side}"))
    if abs(value) <= end:
        marks.append((f"M{place(value):.1f} 50h0", f"point {d.side}"))
    drawing = el(
        "svg",
        *(el("path", d=p, class_=c, vector_effect="non-scaling-stroke") for p, c in marks),
        viewBox="0 0 1000 100",
        preserveAspectRatio="none",
        focusable="false",
    )
    arrows = []
    if max(value, high) > end:
        arrows.append(el("span", "›", class_="beyond right"))
    if min(value, low) < -end:
        arrows.append(el("span", "‹", class_="beyond left"))
    return el("div", drawing, *arrows, class_="interval", aria_hidden="true")


def figures(run: ReportData) -> Markup | None:
    """The key figures under the headline."""
    model, scores = run.selected, run.scores
    if model is None:
        return None
    digits = places(scores.models)
    tiles = [_tile("Selected model", model.name, model.description, "word")]
    if model.nats_per_step is not None:
        tiles.append(_tile("On held-out data", fixed(model.nats_per_step, digits), scores.unit))
    if (d := known(model)) is not None:
        between = f" ({_ends(d.interval, digits)})" if d.interval is not None else ""
        difference = fixed(d.value, digits, True)
        tiles.append(_tile(f"Against {scores.reference}", difference, f"nats{between}", d.side))
    if scores.data.kind != "real":
        for value, title, remark in (
            (model.bits_per_character, "Bits per character", "what one character costs to store"),
            (model.perplexity, "Perplexity", f"equally likely choices at each {run.step}"),
        ):
            if value is not None:
                tiles.append(_tile(title, significant(value, 4), remark))
    parameters = f"{count(model.parameters)} parameters"
    tiles.append(_tile("Trained in", duration(model.seconds), parameters))
    return el("dl", *tiles[:5], class_="figures")


def known(model: ModelScores | None) -> Difference | None:
    """A model's difference to the reference, None where it has none or it is no number."""
    result = None if model is None else model.difference
    return None if result is None or result.value is None else result


def _ends(interval: tuple[float, float], digits: int) -> str:
    return " to ".join(fixed(end, digits, True) for end in interval)


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
    cell: Callable[[ModelScores], str]


def columns(run: ReportData) -> list[Column]:
    """The columns that have data, without those that would only repeat another."""
    models, digits = run.scores.models, places(run.scores.models)
    result = []
    if any(m.validation_nats_per_step is not None for m in models):
        result.append(
            Column("Validation", "same unit", lambda m: fixed(m.validation_nats_per_step, digits))
        )
    if any(m.bits_per_character is not None for m in models):
        result.append(Column("Bits", "per character", lambda m: fixed(m.bits_per_character, 3)))
    repeated = all(
        abs((m.bits_per_step or 0.0) - (m.bits_per_character or 0.0)) < 1e-9 for m in models
    )
    if not repeated and run.scores.data.kind != "real":
        result.append(Column("Bits", f"per {run.step}", lambda m: fixed(m.bits_per_step, 3)))
    if any(m.perplexity is not None for m in models):
        result.append(Column("Perplexity", "", lambda m: significant(m.perplexity, 4)))
    result.append(Column("Parameters", "", lambda m: count(m.parameters)))
    result.append(Column("Time", "to fit", lambda m: duration(m.seconds)))
    if any(m.peak_memory_mb is not None for m in models):
        result.append(Column("Memory", "at most", lambda m: megabytes(m.peak_memory_mb)))
    return result


def table(run: ReportData) -> Markup | None:
    """All models, the best first, each with its difference to the reference as a bar."""
    models = run.scores.ranked
    if not models:
        return None
    differences = [d for model in models if (d := known(model)) is not None]
    extra = columns(run)
    end = scale(differences, known(run.selected)) if differences else None
    head = [
        el("th", "Model", scope="col", class_="model"),
        el("th", "Held-out", el("small", run.scores.unit), scope="col", class_="num"),
    ]
    if end is not None:
        ends = el(
            "span",
            el("span", "better", class_="start"),
            el("span", "worse", class_="end"),
            class_="ends",
            aria_hidden="true",
        )
        span = f"bars go to ±{fixed(end, 9).rstrip('0').rstrip('.')}"
        head.append(el("th", "Difference", el("small", span), ends, scope="col", class_="diff"))
    head += [
        el("th", column.title, el("small", column.remark or " "), scope="col", class_="num")
        for column in extra
    ]
    return el(
        "div",
        el(
            "table",
            el("caption", "All models, the best on held-out data first", class_="hidden"),
            el("thead", el("tr", *head)),
            el("tbody", *(_row(run, model, extra, end) for model in models)),
            class_="models",
        ),
        class_="scroll",
        role="region",
        aria_label="Table of all models",
        tabindex="0",
    )


def _row(run: ReportData, model: ModelScores, extra: Sequence[Column], end: float | None) -> Markup:
    digits = places(run.scores.models)
    is_reference = model.name == run.scores.reference
    badges = [
        el("span", "selected", class_="badge chosen") if model.selected else None,
        el("span", "reference", class_="badge") if is_reference else None,
    ]
    about = " · ".join(part for part in (FAMILIES[model.family], model.description) if part)
    cells = [
        el(
            "th",
            el("span", model.name, class_="name"),
            join(*badges),
            el("small", about),
            scope="row",
            class_="model",
        ),
        el("td", fixed(model.nats_per_step, digits), class_="num score"),
    ]
    if end is not None:
        cells.append(_difference_cell(known(model), end, digits, is_reference))
    cells += [el("td", column.cell(model), class_="num") for column in extra]
    return el("tr", *cells, class_="chosen" if model.selected else None)


def _difference_cell(d: Difference | None, end: float, digits: int, reference: bool) -> Markup:
    span = "\N{NO-BREAK SPACE}"
    drawn = None
    if reference:
        number, drawn = el("span", "0", class_="value"), bar(Difference(value=0.0), end)
    elif d is None:
        number = el("span", NONE, class_="value")
    else:
        number = el("span", fixed(d.value, digits, True), class_=f"value {d.side}")
        span, drawn = _ends(d.interval, digits) if d.interval else span, bar(d, end)
    between = el("span", span, class_="between")
    return el("td", el("div", number, between, drawn, class_="cell"), class_="diff")
