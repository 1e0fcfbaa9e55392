"""The sections about time: what the data remember, and how far back the gradient reaches."""

from __future__ import annotations

from collections.abc import Sequence

from throughtime.evaluation.results import GradientRecord, LagCurve, Number
from throughtime.report import lags
from throughtime.report.background import selected_first
from throughtime.report.html import NONE, Markup, count, el, fixed, join, number
from throughtime.report.lags import Row
from throughtime.report.plot import legend
from throughtime.report.read import ReportData
from throughtime.report.sections import details, lead, table

_MOST_ROWS = 40
_DOES = {
    "data": "the data remember",
    "gradient": "the gradient reaches",
    "training": "training allows",
}
_LEAD = "So many steps back hold 95\u00a0% of the gradient while the networks train."


def history(run: ReportData) -> Markup | None:
    """What the data remember: the held-out loss of seeing only so many steps of the past."""
    record = run.scores.certificate
    if record is None:
        return None
    chart = lags.memory(record.memory, run.step, run.scores.unit)
    said = (
        f"What is lost when no more than so many {run.step}s of the past may be seen, measured "
        f"with {record.memory.model}. The band is the 95 % interval of the difference to the best."
    )
    figure = el("figure", chart) if chart is not None else None
    return join(lead(said), el("p", record.verdict, class_="says"), figure)


def gradients(run: ReportData) -> Markup | None:
    """The gradient by lag, its share, the reach in training; all three memories in one picture."""
    record = run.scores.gradients
    trained = _over_training(run, None if record is None else record.k2)
    chart = None if record is None else lags.by_lag(record, run.step)
    if record is None or chart is None:
        return trained and join(lead(_LEAD), trained)
    verdict = record.verdict
    words = " ".join(f"{part.rstrip('.')}." for part in (verdict.sentence, verdict.remedy) if part)
    keys = [("weights", "s0", "")]
    if any(record.state_norm.high):
        spread = "the state, 10 % to 90 % of the steps"
        keys += [("state, median", "s3", ""), (spread, "spread s3", "")]
    drawn = [el("figure", el("figcaption", "Gradient by lag"), legend(keys), chart)]
    if (share := lags.within(record, run.step)) is not None:
        caption = el("figcaption", "How much of it lies within")
        drawn.append(el("figure", caption, share))
    one = " single" if len(drawn) == 1 else ""
    return join(
        lead(_summary(run, record)),
        el("p", el("b", f"{verdict.name}: "), words, class_="says"),
        _one_picture(run, record),
        el("div", *drawn, class_=f"grid{one}"),
        trained,
        details("Every truncation", _truncations(record)),
    )


def _summary(run: ReportData, record: GradientRecord) -> str:
    """What the section shows, with its main figures."""
    said = (
        f"The gradient that {record.model} is trained by, taken apart by how many {run.step}s it "
        "travels back"
    )
    reach = record.reach.get(0.95)
    if reach is None:
        said += f"; {_percent(record.share[-1] if record.share else None)} of it lies within "
        said += f"{count(lags.last_lag(record))} {run.step}s."
    else:
        said += f": 95\u00a0% of it goes back no further than {_steps(reach, run.step)}."
    if record.k2 is None:
        return f"{said} Training truncates it nowhere."
    said += f" Training cuts it off after {_steps(record.k2, run.step)}"
    return f"{said}, and {_percent(record.beyond)} of it lies beyond."


def _steps(number: float, step: str) -> str:
    return f"{count(number)} {step}{'' if number == 1 else 's'}"


def _percent(share: float | None) -> str:
    if share is None:
        return "an unknown part"
    if 0 < share < 0.001:
        return "less than 0.1\u00a0%"
    return f"{fixed(100 * share, 1)}\u00a0%"


def _one_picture(run: ReportData, record: GradientRecord) -> Markup | None:
    """Data memory, gradient reach and truncation, where at least two of them are known."""
    rows = []
    needed = None
    if run.scores.certificate is not None:
        memory = run.scores.certificate.memory
        needed = memory.needed
        rows.append(Row("data", "s2", (*_gained(memory), needed), count(needed)))
    reaches = [lag for share in (0.5, 0.9, 0.95) if (lag := record.reach.get(share)) is not None]
    if reaches:
        reach = record.reach.get(0.95)
        said = f"beyond {count(lags.last_lag(record))}" if reach is None else count(reach)
        rows.append(Row("gradient", "s0", tuple(reaches), said))
    if record.k2 is not None:
        rows.append(Row("training", "s1", (record.k2,), count(record.k2)))
    if len(rows) < 2:
        return None
    said = "Each bar goes back from now. Of the gradient, the shades hold 50, 90 and 95\u00a0%"
    if needed is not None:
        said += "; of what the past of the data is worth, half, 90\u00a0% and all that is measured"
    return el(
        "figure",
        el("figcaption", f"What {', what '.join(_DOES[row.name] for row in rows)}"),
        lags.side_by_side(rows, run.step),
        el("p", f"{said}.", class_="remark"),
        class_="one",
    )


def _gained(memory: LagCurve) -> tuple[float, ...]:
    """The lags that give half, and 90 %, of what the past is worth."""
    known = sorted((point.lags, point.gain) for point in memory.curve if point.gain is not None)
    whole = max((gain for lag, gain in known if lag <= memory.needed), default=0.0)
    if whole <= 0:
        return ()
    parts = (next((lag for lag, g in known if g >= part * whole), None) for part in (0.5, 0.9))
    return tuple(lag for lag in parts if lag is not None and 0 < lag < memory.needed)


def _truncations(record: GradientRecord) -> Markup:
    """What each truncation leaves of the gradient."""
    last = int(lags.last_lag(record))
    places = sorted({0, *(2**i for i in range(30)), last, (record.k2 or 1) - 1})

    def cell(values: Sequence[Number], at: int, scale: float, decimals: int, unit: str) -> str:
        value = values[at] if at < len(values) else None
        return NONE if value is None else f"{fixed(scale * value, decimals)}{unit}"

    beyond = [None if share is None else 1.0 - share for share in record.share]
    body = [
        [
            f"{lag + 1:,}",
            cell(beyond, lag, 100, 2, " %"),
            cell(record.bias, lag, 100, 2, " %"),
            cell(record.cosine, lag, 1, 4, ""),
        ]
        for lag in places
        if lag <= last
    ]
    head = ["Steps", "Share beyond", "Relative bias", "Cosine"]
    caption = "What a truncation after so many steps leaves out, and how its direction agrees"
    return table(head, body[:_MOST_ROWS], caption)


def _over_training(run: ReportData, truncation: float | None) -> Markup | None:
    """The reach of every network as its training went on, from the log."""
    points: dict[str, dict[float, tuple[float, float]]] = {}
    events = [event for event in run.log if number(event.get("reach")) is not None]
    timed = all(number(event.get("seconds")) is not None for event in events)
    place = "seconds" if timed else "step"
    for event in events:
        x, reach, step = (number(event.get(key)) for key in (place, "reach", "step"))
        if x is not None and reach is not None and reach >= 0:
            points.setdefault(str(event.get("model", "")), {})[step or 0.0] = (x, reach)
    lines = [
        (name, f"s{colour}", sorted(points[name].values()))
        for name, colour in selected_first(run, list(points))
    ]
    x_title = "seconds" if timed else "steps"
    chart = lags.over_training(lines, x_title, run.step, truncation)
    if chart is None:
        return None
    keys = [(n, c, f"{p[-1][1]:,.0f}") for n, c, p in lines if len(p) > 1]
    caption = el("figcaption", "Reach of the gradient while the networks trained")
    return el("figure", caption, legend(keys, toggles=True), chart)
