"""The sections about time: what the data remember, and how far back the gradient reaches."""

from __future__ import annotations

from typing import Any

from throughtime.report import lags
from throughtime.report.background import chosen_first
from throughtime.report.html import NONE, Markup, count, el, fixed, join, number, numbers
from throughtime.report.lags import Gradient, Row
from throughtime.report.plot import legend
from throughtime.report.read import Run, items, mapping, text
from throughtime.report.sections import details, lead, table

_MOST_ROWS = 40
_DOES = {
    "data": "the data remember",
    "gradient": "the gradient reaches",
    "training": "training allows",
}


def history(run: Run) -> Markup | None:
    """What the data remember: the held-out loss of seeing only so many steps of the past."""
    entry = mapping(run.scores, "history")
    chart = lags.memory(entry, run.step, run.unit)
    verdict = text(entry, "verdict")
    if chart is None and not verdict:
        return None
    name = text(lags.remembered(entry), "model")
    said = f"What is lost when no more than so many {run.step}s of the past may be seen"
    said += f", measured with {name}" if name else ""
    said += ". The band is the 95 % interval of the difference to the best."
    figure = el("figure", chart) if chart is not None else None
    return join(lead(said), el("p", verdict, class_="says") if verdict else None, figure)


def gradients(run: Run) -> Markup | None:
    """The gradient by lag, its share, the reach in training; all three memories in one picture."""
    entry = mapping(run.scores, "gradients")
    found = lags.gradient(entry)
    trained = _over_training(run, found.truncation if found else None)
    if found is None:
        return trained and join(lead(_REACH), trained)
    verdict = mapping(entry, "verdict")
    blocks: list[Markup | None] = [lead(_told(run, entry, found))]
    words = [
        f"{told.rstrip('.')}." for key in ("sentence", "remedy") if (told := text(verdict, key))
    ]
    if words:
        name = el("b", f"{text(verdict, 'name')}: ") if text(verdict, "name") else None
        blocks.append(el("p", name, " ".join(words), class_="says"))
    blocks.append(_one_picture(run, found))
    keys = [("weights", "s0", "")]
    if any(found.state[2]):
        spread = "the state, 10 % to 90 % of the steps"
        keys += [("state, median", "s3", ""), (spread, "spread s3", "")]
    drawn = [
        el(
            "figure",
            el("figcaption", "Gradient by lag"),
            legend(keys),
            lags.by_lag(found, run.step),
        )
    ]
    if (share := lags.within(found, run.step)) is not None:
        caption = el("figcaption", "How much of it lies within")
        drawn.append(el("figure", caption, share))
    one = " single" if len(drawn) == 1 else ""
    blocks.append(el("div", *drawn, class_=f"grid{one}"))
    blocks += [trained, details("Every truncation", _truncations(entry, found))]
    return join(*blocks)


_REACH = "So many steps back hold 95\u00a0% of the gradient while the networks learn."


def _told(run: Run, entry: dict[str, Any], found: Gradient) -> str:
    """What the section shows, with its main figures."""
    name = text(entry, "model") or "the network"
    said = (
        f"The gradient that {name} learns from, taken apart by how many {run.step}s it travels back"
    )
    reach = found.reach.get("0.95")
    if reach is None:
        said += f"; {_percent(found.share[-1] if found.share else None)} of it lies within "
        said += f"{count(found.last)} {run.step}s."
    else:
        said += f": 95\u00a0% of it goes back no further than {_steps(reach, run.step)}."
    if found.truncation is None:
        return f"{said} Training truncates it nowhere."
    said += f" Training cuts it off after {_steps(found.truncation, run.step)}"
    return f"{said}, and {_percent(found.beyond)} of it lies beyond."


def _steps(number: float, step: str) -> str:
    return f"{count(number)} {step}{'' if number == 1 else 's'}"


def _percent(share: float | None) -> str:
    if share is None:
        return "an unknown part"
    if 0 < share < 0.001:
        return "less than 0.1\u00a0%"
    return f"{fixed(100 * share, 1)}\u00a0%"


def _one_picture(run: Run, found: Gradient) -> Markup | None:
    """Data memory, gradient reach and truncation, where at least two of them are known."""
    rows = []
    curve = lags.remembered(mapping(run.scores, "history"))
    needed = number(curve.get("needed"))
    if needed is not None and needed >= 0:
        ends = (*_gained(items(curve, "curve"), needed), needed)
        rows.append(Row("data", "s2", ends, count(needed)))
    reaches = [steps for key, steps in found.reach.items() if key in ("0.5", "0.9", "0.95")]
    if reaches:
        rows.append(Row("gradient", "s0", tuple(reaches), _reads(found)))
    if found.truncation is not None:
        rows.append(Row("training", "s1", (found.truncation,), count(found.truncation)))
    if len(rows) < 2:
        return None
    told = "Each bar goes back from now. Of the gradient, the shades hold 50, 90 and 95\u00a0%"
    if needed is not None:
        told += (
            "; of the data, half and 90\u00a0% of what the past is worth, and all that can be told"
        )
    return el(
        "figure",
        el("figcaption", f"What {', what '.join(_DOES[row.name] for row in rows)}"),
        lags.side_by_side(rows, run.step),
        el("p", f"{told}.", class_="remark"),
        class_="one",
    )


def _reads(found: Gradient) -> str:
    reach = found.reach.get("0.95")
    if reach is None:
        return f"beyond {count(found.last)}"
    return count(reach)


def _gained(curve: list[dict[str, Any]], needed: float) -> tuple[float, ...]:
    """The lags that give half, and 90 %, of what the past is worth."""
    points = [(number(p.get("lags")), number(p.get("gain"))) for p in curve]
    known = sorted((lag, gain) for lag, gain in points if lag is not None and gain is not None)
    whole = max((gain for lag, gain in known if lag <= needed), default=0.0)
    if whole <= 0:
        return ()
    found = (next((lag for lag, g in known if g >= part * whole), None) for part in (0.5, 0.9))
    return tuple(lag for lag in found if lag is not None and 0 < lag < needed)


def _truncations(entry: dict[str, Any], found: Gradient) -> Markup:
    """What each truncation leaves of the gradient."""
    places = sorted({0, *(2**i for i in range(30)), found.last, (found.truncation or 1.0) - 1})
    lost, alike = numbers(entry.get("bias")), numbers(entry.get("cosine"))

    def cell(values: list[float | None], at: int, scale: float, decimals: int, unit: str) -> str:
        value = values[at] if at < len(values) else None
        return NONE if value is None else f"{fixed(scale * value, decimals)}{unit}"

    body = []
    for lag in (int(place) for place in places if 0 <= place <= found.last):
        share = [None if s is None else 1.0 - s for s in found.share]
        body.append(
            [
                f"{lag + 1:,}",
                cell(share, lag, 100, 2, " %"),
                cell(lost, lag, 100, 2, " %"),
                cell(alike, lag, 1, 4, ""),
            ]
        )
    head = ["Steps", "Share beyond", "Relative bias", "Cosine"]
    caption = "What a truncation after so many steps leaves out, and how its direction agrees"
    return table(head, body[:_MOST_ROWS], caption)


def _over_training(run: Run, truncation: float | None) -> Markup | None:
    """The reach of every network as its training went on, from the log."""
    points: dict[str, dict[float, tuple[float, float]]] = {}
    events = [event for event in run.log if number(event.get("reach")) is not None]
    timed = all(number(event.get("seconds")) is not None for event in events)
    place = "seconds" if timed else "step"
    for event in events:
        x, reach, step = (number(event.get(key)) for key in (place, "reach", "step"))
        if x is not None and reach is not None and reach >= 0:
            points.setdefault(text(event, "model"), {})[step or 0.0] = (x, reach)
    lines = [
        (name, f"s{colour}", sorted(points[name].values()))
        for name, colour in chosen_first(run, list(points))
    ]
    x_title = "seconds" if timed else "steps"
    chart = lags.over_training(lines, x_title, run.step, truncation)
    if chart is None:
        return None
    keys = [(n, c, f"{p[-1][1]:,.0f}") for n, c, p in lines if len(p) > 1]
    caption = el("figcaption", "Reach of the gradient while the networks learned")
    return el("figure", caption, legend(keys, toggles=True), chart)
