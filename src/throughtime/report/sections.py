"""The report's sections. Each takes the run and gives HTML, or None when its data are absent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from throughtime.report import charts, comparison
from throughtime.report.html import (
    NONE,
    Markup,
    count,
    el,
    fixed,
    join,
    number,
    numbers,
    significant,
)
from throughtime.report.plot import legend
from throughtime.report.read import Run, items, mapping, text

FANS = 6
MEASURES = (
    ("crps", "CRPS"),
    ("mase", "MASE"),
    ("rmse", "RMSE"),
    ("smape", "sMAPE"),
)


@dataclass(frozen=True)
class Section:
    """A part of the page: its anchor, its short name for the navigation, its title and builder."""

    anchor: str
    short: str
    title: str
    build: Callable[[Run], Markup | None]


def lead(sentence: str) -> Markup:
    """The sentence under a title that says what one sees and how to read it."""
    return el("p", sentence, class_="lead")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> Markup:
    """A table whose first column names its rows and whose other columns are numbers."""
    titles = [
        el("th", title, scope="col", class_="num" if i else None) for i, title in enumerate(head)
    ]
    body = [
        el("tr", el("th", row[0], scope="row"), *(el("td", c, class_="num") for c in row[1:]))
        for row in rows
    ]
    return el(
        "div",
        el(
            "table",
            el("caption", caption),
            el("thead", el("tr", *titles)),
            el("tbody", *body),
        ),
        class_="scroll",
        role="region",
        aria_label=caption,
        tabindex="0",
    )


def details(summary: str, *children: Markup | None) -> Markup:
    """Something folded away that opens without a script."""
    return el("details", el("summary", summary), *children)


def models(run: Run) -> Markup | None:
    """The comparison of all models."""
    found = comparison.table(run)
    if found is None:
        return None
    reference = text(run.scores, "reference")
    said = f"Scores are {run.unit} on data no model was fitted to; lower is better."
    if reference and any(comparison.difference(model) for model in run.models):
        said += (
            f" Differences are to {reference}, the best simple reference. A bar is the interval of "
            "that difference: one that stays clear of the middle line is a real difference."
        )
    return join(lead(said), found)


def forecast(run: Run) -> Markup | None:
    """Fan charts."""
    entry = mapping(run.scores, "forecast")
    fans = items(entry, "fans")
    drawn = []
    for fan in fans[:FANS]:
        title = " · ".join(part for part in (text(fan, "series"), text(fan, "column")) if part)
        chart = charts.fan(fan, run.step, title or "Forecast")
        if chart is not None:
            times = mapping(fan, "past").get("times")
            start = f" from {times[-1]}" if isinstance(times, list) and times else ""
            remark = el("span", start, class_="from") if start else None
            caption = el("figcaption", title or "Forecast", remark)
            drawn.append(el("figure", caption, chart, class_="fan"))
    if not drawn:
        return None
    levels = [level for level, _, _ in charts.quantile_bands(mapping(fans[0], "quantiles"))]
    keys = [("past", "past", "")]
    for index, level in enumerate(levels):
        outer = index == 0 and len(levels) > 1
        keys.append((f"{level:.0%} interval", "outer" if outer else "inner", ""))
    keys += [("median", "median", "")]
    if any(numbers(fan.get("truth")) for fan in fans[:FANS]):
        keys.append(("what happened", "truth", ""))
    horizon = number(entry.get("horizon"))
    ahead = f"{count(horizon)} {run.step}s" if horizon else "some way"
    said = (
        f"At the upright line the model saw the past and nothing else, and was asked for {ahead} "
        "ahead. The bands say how sure it was."
    )
    if len(fans) > FANS:
        said += f" Shown are {FANS} of {count(len(fans))} forecasts."
    one = " single" if len(drawn) == 1 else ""
    return join(lead(said), legend(keys), el("div", *drawn, class_=f"grid{one}"))


def accuracy(run: Run) -> Markup | None:
    """Forecast accuracy by horizon, free-running beside one step ahead."""
    entry = mapping(run.scores, "forecast")
    rows, single = items(entry, "free_running"), mapping(entry, "one_step")
    if not rows:
        return None
    levels = [level for level in numbers(entry.get("levels")) if level is not None]
    x_title = f"{run.step}s ahead"
    drawn = [charts.by_horizon(rows, field, title, x_title, single) for field, title in MEASURES][
        :3
    ]
    drawn.append(charts.by_horizon(rows, "coverage", "Coverage", x_title, single, levels))
    shown = [el("figure", chart) for chart in drawn if chart is not None]
    if not shown:
        return None
    keys = [("free-running: the model is fed its own samples", "s0", "")]
    if single:
        keys.append(("one step ahead: it is told the truth each time", "s1 dash", ""))
    origins = number(entry.get("origins"))
    said = "How good the forecasts are the further ahead they look"
    said += f", over {count(origins)} origins." if origins else "."
    said += " Lower is better; coverage should lie on the grey lines."
    return join(
        lead(said),
        legend(keys),
        el("div", *shown, class_="grid"),
        _side_by_side(run, rows, single, levels),
        _every_model(entry, levels),
        details("Every horizon", _every_horizon(rows, levels)),
    )


def _side_by_side(
    run: Run, rows: list[dict[str, Any]], single: dict[str, Any], levels: list[float]
) -> Markup:
    places = sorted({0, len(rows) // 2, len(rows) - 1})
    head = [""] + (["One step"] if single else [])
    head += [f"{text(rows[i], 'horizon') or i + 1} ahead" for i in places]
    shown = ([single] if single else []) + [rows[i] for i in places]
    body = []
    for field, title in MEASURES:
        cells = [significant(row.get(field), 4) for row in shown]
        body.append([title, *cells])
    for level in levels:
        values = [charts.level_of(mapping(row, "coverage"), level) for row in shown]
        cells = [NONE if v is None else f"{v:.1%}" for v in values]
        body.append([f"Inside the {level:.0%} interval", *cells])
    quantiles = sorted({key for row in shown for key in mapping(row, "pinball")})
    for key in quantiles:
        cells = [significant(mapping(row, "pinball").get(key), 4) for row in shown]
        body.append([f"Pinball at {key}", *cells])
    body = [row for row in body if any(cell != NONE for cell in row[1:])]
    return table(head, body, f"One step ahead beside free-running, in {run.step}s ahead")


def _every_model(entry: dict[str, Any], levels: list[float]) -> Markup | None:
    """Every model's forecasts, averaged over the horizon, beside its one-step ones."""
    models = {k: v for k, v in mapping(entry, "models").items() if isinstance(v, dict) and v}
    if not models:
        return None
    head = ["Model", "CRPS", "one step", "MASE", "one step", "RMSE", "one step"]
    head += [f"{level:.0%}" for level in levels]
    body = []
    for name, found in models.items():
        free, single = mapping(found, "free_running"), mapping(found, "one_step")
        cells = [name]
        for field in ("crps", "mase", "rmse"):
            cells += [significant(free.get(field), 4), significant(single.get(field), 4)]
        for level in levels:
            inside = charts.level_of(mapping(free, "coverage"), level)
            cells.append(NONE if inside is None else f"{inside:.1%}")
        body.append(cells)
    caption = "Every model: free-running over the whole horizon, beside one step ahead; coverage"
    return table(head, body, caption)


def _every_horizon(rows: list[dict[str, Any]], levels: list[float]) -> Markup:
    fields = [(f, t) for f, t in MEASURES if any(number(r.get(f)) is not None for r in rows)]
    head = ["Horizon", *(title for _, title in fields), *(f"{level:.0%}" for level in levels)]
    body = []
    for index in charts.stride(len(rows), 200):
        row = rows[index]
        inside = [charts.level_of(mapping(row, "coverage"), level) for level in levels]
        body.append(
            [
                text(row, "horizon") or str(index + 1),
                *(significant(row.get(field), 4) for field, _ in fields),
                *(NONE if value is None else f"{value:.1%}" for value in inside),
            ]
        )
    return table(head, body, "Accuracy and coverage of the free-running forecast by horizon")


def calibration(run: Run) -> Markup | None:
    """PIT histogram and coverage against the nominal level."""
    entry = mapping(run.scores, "calibration")
    pit = [value for value in numbers(entry.get("pit")) if value is not None and value >= 0]
    predicted = mapping(run.scores, "forecast")
    levels = [level for level in numbers(predicted.get("levels")) if level is not None]
    single = mapping(mapping(predicted, "one_step"), "coverage")
    rows = [mapping(row, "coverage") for row in items(predicted, "free_running")]
    measured = []
    for name, class_, tables in (
        ("one step ahead", "s0", [single] if single else []),
        ("free-running, mean over horizons", "s1", rows),
    ):
        points = []
        for level in levels:
            inside = [v for t in tables if (v := charts.level_of(t, level)) is not None]
            if inside:
                points.append((level, sum(inside) / len(inside)))
        if points:
            measured.append((name, class_, points))
    if len(pit) < 2 or sum(pit) <= 0:
        return None
    steps = number(entry.get("count")) or number(mapping(run.data, "steps").get("test"))
    histogram = el(
        "figure",
        el("figcaption", "Where the truth fell in the predicted distribution"),
        legend([("steps", "s0 block", ""), ("uniform", "uniform", "")]),
        charts.pit_histogram(pit, steps),
    )
    keys = [("one step ahead", "s0", ""), ("ideal", "diagonal", "")]
    keys += [(name, f"{class_} dot", "") for name, class_, _ in measured if class_ != "s0"]
    curve = el(
        "figure",
        el("figcaption", "Share of values inside the interval, against what was promised"),
        legend(keys),
        charts.coverage_curve(pit, measured),
    )
    band = " The shaded strip is what chance alone would do." if steps else ""
    said = (
        "A forecaster who says 80 % should be right 80 % of the time. Were the model perfectly "
        f"calibrated, all bars would reach the dashed line.{band} Bars high at both ends mean that "
        "the model is too sure of itself, a hump in the middle that it is too timid."
    )
    return join(lead(said), el("div", histogram, curve, class_="grid"))


def surprisal(run: Run) -> Markup | None:
    """Surprisal over time, and the places that surprised the model most."""
    entry = mapping(run.scores, "surprisal")
    top = items(entry, "top")[:12]
    marks = _marks(entry, top)
    chart = charts.surprisal(entry, run.step, marks)
    if chart is None and not top:
        return None
    rows = []
    for place in top:
        rows.append(
            el(
                "li",
                el("span", _where(run, place), class_="where"),
                el("span", f"{fixed(place.get('nats'), 2)} nats", class_="nats"),
                el("q", text(place, "quote"), class_="quote") if text(place, "quote") else None,
            )
        )
    said = (
        f"How unexpected each {run.step} was, given all before it. High points are where the model "
        "did not see it coming."
    )
    listed = None
    if rows:
        listed = join(el("h3", "What surprised it most"), el("ol", *rows, class_="top"))
    return join(lead(said), el("figure", chart) if chart is not None else None, listed)


def _where(run: Run, place: dict[str, Any]) -> str:
    """The name of a place; a bare position is said with its step."""
    where = text(place, "where")
    return f"{run.step} {int(where):,}" if where.isdecimal() and len(where) < 16 else where


def _marks(entry: dict[str, Any], top: list[dict[str, Any]]) -> list[tuple[int, str]]:
    """Where the listed places are on the chart: by their name, else by their surprisal."""
    nats, times = numbers(entry.get("nats")), entry.get("times")
    names = times if isinstance(times, list) else entry.get("position")
    names = [str(name) for name in names] if isinstance(names, list) else []
    found: list[tuple[int, str]] = []
    taken: set[int] = set()
    for rank, place in enumerate(top):
        size, where = number(place.get("nats")), text(place, "where")
        if size is None:
            continue
        close = [
            (names[i : i + 1] != [where], abs(value - size), i)
            for i, value in enumerate(nats)
            if value is not None and i not in taken and abs(value - size) <= 1e-3 * abs(size)
        ]
        if close:
            index = min(close)[2]
            taken.add(index)
            found.append((index, str(rank + 1)))
    return found


def order(run: Run) -> Markup | None:
    """Held-out score, AIC and BIC by order."""
    rows = [row for row in items(run.scores, "orders") if number(row.get("order")) is not None]
    rows = sorted(rows, key=lambda row: float(row["order"]))[:500]
    score = [("nats_per_step", run.unit, "s0")]
    criteria = [("aic", "AIC", "s1"), ("bic", "BIC", "s2")]
    drawn = []
    for fields in (score, criteria):
        chart = charts.orders(rows, fields)
        if chart is not None:
            has = [f for f in fields if any(number(row.get(f[0])) is not None for row in rows)]
            keys = [(name, style, "") for _, name, style in has]
            drawn.append(el("figure", legend(keys), chart))
    if not drawn:
        return None
    fields = [f for f in score + criteria if any(number(r.get(f[0])) is not None for r in rows)]
    body = []
    for row in rows:
        cells = [significant(row.get(name), 6) for name, _, _ in fields]
        body.append([text(row, "order"), *cells])
    said = (
        f"How many past {run.step}s a finite window needs. The marked order is the best by each "
        "measure: AIC and BIC ask for a gain that pays for the added parameters."
    )
    listed = table(["Order", *(title for _, title, _ in fields)], body, "Measures by order")
    one = " single" if len(drawn) == 1 else ""
    return join(lead(said), el("div", *drawn, class_=f"grid{one}"), details("Every order", listed))
