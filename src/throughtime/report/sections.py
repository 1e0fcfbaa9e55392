"""The report's sections. Each takes a run's values and gives HTML, or None where it has none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from throughtime.evaluation.results import (
    Accuracy,
    BacktestResult,
    Place,
    Surprisal,
    mean,
)
from throughtime.report import charts, comparison
from throughtime.report.charts import Measure
from throughtime.report.html import (
    NONE,
    Markup,
    count,
    el,
    fixed,
    join,
    percent,
    significant,
)
from throughtime.report.plot import legend
from throughtime.report.read import ReportData

FANS = 6
MEASURES = (
    Measure("CRPS", lambda row: row.crps),
    Measure("MASE", lambda row: row.mase),
    Measure("RMSE", lambda row: row.rmse),
    Measure("sMAPE", lambda row: row.smape),
)


@dataclass(frozen=True)
class Section:
    """A part of the page: its anchor, its short name for the navigation, its title and builder."""

    anchor: str
    short: str
    title: str
    build: Callable[[ReportData], Markup | None]


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


def models(run: ReportData) -> Markup | None:
    """The comparison of all models."""
    result = comparison.table(run)
    if result is None:
        return None
    said = f"Scores are {run.scores.unit} on data no model was fitted to; lower is better."
    reference = run.scores.reference
    if reference and any(comparison.known(model) for model in run.scores.models):
        said += (
            f" Differences are to {reference}, the best simple reference. A bar is the interval of "
            "that difference: one that stays clear of the middle line is a real difference."
        )
    return join(lead(said), result)


def forecast(run: ReportData) -> Markup | None:
    """Fan charts."""
    result = run.scores.backtest
    if result is None or not result.fans:
        return None
    drawn = []
    for fan in result.fans[:FANS]:
        title = " · ".join(part for part in (fan.series, fan.column) if part) or "Forecast"
        remark = None
        if fan.past.times:
            remark = el("span", f" from {fan.past.times[-1]}", class_="from")
        caption = el("figcaption", title, remark)
        drawn.append(el("figure", caption, charts.fan(fan, run.step, title), class_="fan"))
    levels = [level for level, _, _ in charts.quantile_bands(result.fans[0].quantiles)]
    keys = [("past", "past", "")]
    for index, level in enumerate(levels):
        outer = index == 0 and len(levels) > 1
        keys.append((f"{level:.0%} interval", "outer" if outer else "inner", ""))
    keys += [("median", "median", "")]
    if any(fan.truth for fan in result.fans[:FANS]):
        keys.append(("what happened", "truth", ""))
    said = (
        "At the upright line the model saw the past and nothing else, and was asked for "
        f"{count(result.horizon)} {run.step}s ahead. The bands say how sure it was."
    )
    if len(result.fans) > FANS:
        said += f" Shown are {FANS} of {count(len(result.fans))} forecasts."
    one = " single" if len(drawn) == 1 else ""
    return join(lead(said), legend(keys), el("div", *drawn, class_=f"grid{one}"))


def accuracy(run: ReportData) -> Markup | None:
    """Forecast accuracy by horizon, free-running beside one step ahead."""
    result = run.scores.backtest
    if result is None:
        return None
    x_title = f"{run.step}s ahead"
    drawn = [charts.by_horizon(result, measure, x_title) for measure in MEASURES][:3]
    drawn.append(charts.coverage_by_horizon(result, x_title))
    figures = [el("figure", chart) for chart in drawn if chart is not None]
    if not figures:
        return None
    keys = [
        ("free-running: the model is fed its own samples", "s0", ""),
        ("one step ahead: it is given the truth each time", "s1 dash", ""),
    ]
    said = (
        "How good the forecasts are the further ahead they look, over "
        f"{count(result.origins)} origins. Lower is better; coverage should lie on the grey lines."
    )
    return join(
        lead(said),
        legend(keys),
        el("div", *figures, class_="grid"),
        _side_by_side(run, result),
        _every_model(result),
        details("Every horizon", _every_horizon(result)),
    )


def _side_by_side(run: ReportData, result: BacktestResult) -> Markup:
    rows = result.free_running
    ahead = [rows[i] for i in sorted({0, len(rows) // 2, len(rows) - 1})]
    head = ["", "One step", *(f"{row.horizon} ahead" for row in ahead)]
    columns: list[Accuracy] = [result.one_step, *ahead]
    body = [[m.title, *(significant(m.of(row)) for row in columns)] for m in MEASURES]
    for level in result.levels:
        inside = [percent(row.coverage.get(level)) for row in columns]
        body.append([f"Inside the {level:.0%} interval", *inside])
    for level in sorted({level for row in columns for level in row.pinball}):
        cells = [significant(row.pinball.get(level)) for row in columns]
        body.append([f"Pinball at {level:g}", *cells])
    body = [row for row in body if any(cell != NONE for cell in row[1:])]
    return table(head, body, f"One step ahead beside free-running, in {run.step}s ahead")


def _every_model(result: BacktestResult) -> Markup | None:
    """Every model's forecasts, averaged over the horizon, beside its one-step ones."""
    if not result.models:
        return None
    head = ["Model", "CRPS", "one step", "MASE", "one step", "RMSE", "one step"]
    head += [f"{level:.0%}" for level in result.levels]
    body = []
    for name, model in result.models.items():
        cells = [name]
        for measure in MEASURES[:3]:
            cells += [significant(measure.of(r)) for r in (model.free_running, model.one_step)]
        cells += [percent(model.free_running.coverage.get(level)) for level in result.levels]
        body.append(cells)
    caption = "Every model: free-running over the whole horizon, beside one step ahead; coverage"
    return table(head, body, caption)


def _every_horizon(result: BacktestResult) -> Markup:
    rows = result.free_running
    measures = [m for m in MEASURES if any(m.of(row) is not None for row in rows)]
    head = ["Horizon", *(m.title for m in measures), *(f"{level:.0%}" for level in result.levels)]
    body = [
        [
            str(row.horizon),
            *(significant(m.of(row)) for m in measures),
            *(percent(row.coverage.get(level)) for level in result.levels),
        ]
        for row in (rows[i] for i in charts.stride(len(rows), 200))
    ]
    return table(head, body, "Accuracy and coverage of the free-running forecast by horizon")


def calibration(run: ReportData) -> Markup | None:
    """PIT histogram and coverage against the nominal level."""
    result, forecasts = run.scores.calibration, run.scores.backtest
    if result is None or len(result.pit) < 2 or sum(result.pit) <= 0:
        return None
    measured = []
    if forecasts is not None:
        for name, class_, rows in (
            ("one step ahead", "s0", [forecasts.one_step]),
            ("free-running, mean over horizons", "s1", list(forecasts.free_running)),
        ):
            points = [
                (level, inside)
                for level in forecasts.levels
                if (inside := mean(row.coverage.get(level) for row in rows)) is not None
            ]
            if points:
                measured.append((name, class_, points))
    histogram = el(
        "figure",
        el("figcaption", "Where the truth fell in the predicted distribution"),
        legend([("steps", "s0 block", ""), ("uniform", "uniform", "")]),
        charts.pit_histogram(result.pit, result.count),
    )
    keys = [("one step ahead", "s0", ""), ("ideal", "diagonal", "")]
    keys += [(name, f"{class_} dot", "") for name, class_, _ in measured if class_ != "s0"]
    curve = el(
        "figure",
        el("figcaption", "Share of values inside the interval, against what was promised"),
        legend(keys),
        charts.coverage_curve(result.pit, measured),
    )
    said = (
        "A forecaster who says 80 % should be right 80 % of the time. Were the model perfectly "
        "calibrated, all bars would come up to the dashed line. The shaded strip is what chance "
        "alone would do. Bars high at both ends mean that the model is too sure of itself, a hump "
        "in the middle that it is too timid."
    )
    return join(lead(said), el("div", histogram, curve, class_="grid"))


def surprisal(run: ReportData) -> Markup | None:
    """Surprisal over time, and the places that surprised the model most."""
    result = run.scores.surprisal
    if result is None:
        return None
    top = result.top[:12]
    chart = charts.surprisal(result, run.step, _marks(result, top))
    if chart is None and not top:
        return None
    rows = [
        el(
            "li",
            el("span", _where(run, place), class_="where"),
            el("span", f"{fixed(place.nats, 2)} nats", class_="nats"),
            el("q", place.quote, class_="quote") if place.quote else None,
        )
        for place in top
    ]
    said = (
        f"How unexpected each {run.step} was, given all before it. High points are where the model "
        "did not see it coming."
    )
    listed = None
    if rows:
        listed = join(el("h3", "What surprised it most"), el("ol", *rows, class_="top"))
    return join(lead(said), el("figure", chart) if chart is not None else None, listed)


def _where(run: ReportData, place: Place) -> str:
    """The name of a place; a bare position is said with its step."""
    where = place.where
    return f"{run.step} {int(where):,}" if where.isdecimal() and len(where) < 16 else where


def _marks(result: Surprisal, top: Sequence[Place]) -> list[tuple[int, str]]:
    """Where the listed places are on the chart: by their name, else by their surprisal."""
    names = [str(name) for name in result.times or result.position]
    marks: list[tuple[int, str]] = []
    taken: set[int] = set()
    for rank, place in enumerate(top):
        size = place.nats
        if size is None:
            continue
        close = [
            (names[i : i + 1] != [place.where], abs(value - size), i)
            for i, value in enumerate(result.nats)
            if value is not None and i not in taken and abs(value - size) <= 1e-3 * abs(size)
        ]
        if close:
            index = min(close)[2]
            taken.add(index)
            marks.append((index, str(rank + 1)))
    return marks


def order(run: ReportData) -> Markup | None:
    """Held-out score, AIC and BIC by order."""
    rows = sorted(run.scores.orders, key=lambda row: row.order)[:500]
    score: list[charts.Criterion] = [(run.scores.unit, "s0", lambda row: row.nats_per_step)]
    criteria: list[charts.Criterion] = [
        ("AIC", "s1", lambda row: row.aic),
        ("BIC", "s2", lambda row: row.bic),
    ]
    drawn, columns = [], []
    for group in (score, criteria):
        known = [one for one in group if any(one[2](row) is not None for row in rows)]
        chart = charts.orders(rows, known)
        columns += known
        if chart is not None:
            drawn.append(el("figure", legend([(n, c, "") for n, c, _ in known]), chart))
    if not drawn:
        return None
    said = (
        f"How many past {run.step}s a finite-order model needs. The marked order is the best by "
        "each measure: AIC and BIC ask for a gain that pays for the added parameters."
    )
    body = [[str(row.order), *(significant(of(row), 6) for _, _, of in columns)] for row in rows]
    listed = table(["Order", *(name for name, _, _ in columns)], body, "Measures by order")
    one = " single" if len(drawn) == 1 else ""
    return join(lead(said), el("div", *drawn, class_=f"grid{one}"), details("Every order", listed))
