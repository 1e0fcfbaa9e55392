"""Charts over lags: what the data remember, what the gradient reaches, what training allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from throughtime.report.axis import Axis, decades, linear, padded
from throughtime.report.axis import lags as lag_axis
from throughtime.report.html import Markup, count, number, numbers, significant
from throughtime.report.plot import Plot
from throughtime.report.read import items, mapping

_DEEPEST = 1e-8  # of the largest norm: what is smaller runs out at the bottom
_SHARES = ("0.5", "0.9", "0.95", "0.99")


@dataclass(frozen=True)
class Gradient:
    """An examination as the charts need it; only known values.

    norms: of the gradient by lag, 0 first. share: of all of it, up to each lag. state: the low,
    median and high norm of the state's gradient by lag. reach: the lag by share, 0 the step itself.
    truncation: k2.
    """

    norms: list[float]
    share: list[float | None]
    state: tuple[list[float | None], list[float | None], list[float | None]]
    reach: dict[str, float]
    truncation: float | None
    beyond: float | None

    @property
    def last(self) -> float:
        return float(len(self.norms) - 1)


def gradient(entry: dict[str, Any]) -> Gradient | None:
    """The examination in scores.json, or None where it holds nothing that can be drawn."""
    norms = [0.0 if value is None else max(0.0, value) for value in numbers(entry.get("norms"))]
    if len(norms) < 2 or max(norms) <= 0:
        return None
    state, reach = mapping(entry, "state_norm"), mapping(entry, "reach")
    low, middle, high = (numbers(state.get(key)) for key in ("low", "median", "high"))
    known = {key: steps for key in _SHARES if (steps := number(reach.get(key))) is not None}
    share = numbers(entry.get("share"))
    if not len(low) == len(middle) == len(high) == len(norms):
        low = middle = high = []
    cut, beyond = number(entry.get("k2")), number(entry.get("beyond"))
    cut = cut if cut is not None and cut > 0 else None
    return Gradient(
        norms, share if len(share) == len(norms) else [], (low, middle, high), known, cut, beyond
    )


def by_lag(found: Gradient, step: str) -> Markup:
    """The gradient of the weights by lag, and the spread of the state's, each from its largest."""
    largest = max(found.norms)
    weights = [_positive(norm / largest) for norm in found.norms]
    _, middle, high = found.state
    top = max((value for value in high if value), default=None)
    known = [value for value in weights if value]
    if top:
        known += [value / top for value in middle if value]
    floor = max(_DEEPEST, min(known) / 2)
    end = f"{significant(found.norms[-1] / largest, 2)} of the largest at lag {count(found.last)}"
    plot = Plot(
        lag_axis(found.last),
        decades(min(floor, 0.5), 1.5),
        f"Norm of the gradient by lag on logarithmic axes: {end}.",
        f"{step}s back",
        "share of the largest",
        size="tall clip",
        reading=f"{{}} {step}s back",
    )
    xs = [float(lag) for lag in range(len(weights))]
    if top:
        lows, middles, highs = ([_relative(v, top) for v in line] for line in found.state)
        kept = [i for i, value in enumerate(highs) if value is not None]
        bottom = [max(lows[i] or 0.0, floor / 10) for i in kept]
        plot.band([xs[i] for i in kept], bottom, [highs[i] for i in kept], "spread s3")
        plot.line(xs, middles, "s3", "gradient of the state, median")
        plot.readout("from 10 % to 90 % of the steps", "spread s3", xs, lows, highs=highs)
    plot.line(xs, weights, "s0 strong", "gradient of the weights")
    _truncated(plot, found)
    return plot.render()


def within(found: Gradient, step: str) -> Markup | None:
    """The share of the gradient that lies within each lag."""
    if not any(value is not None for value in found.share):
        return None
    xs = [float(lag) for lag in range(len(found.share))]
    told = [f"{float(key):.0%} within {count(steps)}" for key, steps in found.reach.items()]
    plot = Plot(
        lag_axis(found.last),
        linear(0.0, 1.0, 5, True),
        f"Share of the gradient within so many {step}s: {', '.join(told) or 'see the table'}.",
        f"within so many {step}s back",
        "share of the gradient",
        size="tall",
        reading=f"within {{}} {step}s back",
    )
    if found.truncation is not None and found.truncation <= found.last:
        plot.spans([(found.truncation - 0.5, found.last, 0.0, 1.0)], "lost")
    plot.line(xs, found.share, "s0 strong")
    plot.readout("share of the gradient", "s0", xs, found.share, percent=True)
    for key in ("0.5", "0.95"):
        lag = int(found.reach.get(key, -1))
        here = found.share[lag] if 0 <= lag < len(found.share) else None
        if here is not None:
            plot.dots([lag], [here], "s0 large")
            side = "beside" if plot.x.fraction(lag) < 0.75 else "ahead"
            plot.note(lag, here, f"{float(key):.0%}: {count(lag)}", f"{side} s0")
    _truncated(plot, found, 0.12)
    return plot.render()


def _truncated(plot: Plot, found: Gradient, height: float | None = None) -> None:
    """The rule at the truncation: gradients travel over fewer steps than that."""
    if found.truncation is not None and found.truncation <= found.last:
        text = f"truncated at {count(found.truncation)}"
        plot.mark(found.truncation - 0.5, text, "cut", height)


def over_training(
    lines: Sequence[tuple[str, str, list[tuple[float, float]]]],
    x_title: str,
    step: str,
    truncation: float | None,
) -> Markup | None:
    """The reach of each network as its training goes on: (name, class, points) of each."""
    drawn = [line for line in lines if len(line[2]) > 1]
    if not drawn:
        return None
    reaches = [reach for _, _, points in drawn for _, reach in points]
    reaches += [] if truncation is None else [truncation]
    first, last = (points[at][1] for at in (0, -1) for _, _, points in drawn[:1])
    high = max(x for _, _, points in drawn for x, _ in points)
    plot = Plot(
        linear(0.0, high, 8),
        lag_axis(1.15 * max(reaches)),
        f"How far back the gradient of {len(drawn)} networks reached during training; that of "
        f"{drawn[0][0]} went from {significant(first, 3)} to {significant(last, 3)} {step}s.",
        x_title,
        f"{step}s back that hold 95 % of the state's gradient",
        size="tall",
        reading="{} seconds" if x_title == "seconds" else "step {}",
    )
    if truncation is not None:
        plot.rule("cut", y=truncation)
        plot.note(0.0, truncation, f"truncated at {count(truncation)}", "beside cut")
    for name, class_, points in drawn:
        xs, ys = [x for x, _ in points], [reach for _, reach in points]
        plot.line(xs, ys, class_, name, key=name)
        plot.dots(xs, ys, class_)
    return plot.render()


def remembered(entry: dict[str, Any]) -> dict[str, Any]:
    """The curve of a certificate: of a network that beats the rest, or of the best of the rest."""
    return mapping(entry, "network") or mapping(entry, "lags")


def memory(entry: dict[str, Any], step: str, unit: str) -> Markup | None:
    """What is lost when no more than so many lags may be seen, with its interval."""
    curve = remembered(entry)
    points = []
    for point in items(curve, "curve"):
        lag, lost = number(point.get("lags")), number(point.get("lost"))
        if lag is not None and lost is not None:
            ends = numbers(point.get("interval"))
            points.append((lag, lost, *(ends if len(ends) == 2 else (None, None))))
    points.sort(key=lambda point: point[0])
    if len(points) < 2:
        return None
    xs, ys, lows, highs = (list(column) for column in zip(*points, strict=True))
    needed = number(curve.get("needed"))
    told = "" if needed is None else f"; {count(needed)} are enough"
    plot = Plot(
        lag_axis(xs[-1]),
        padded([*ys, *lows, *highs, 0.0]),
        f"Held-out nats lost by seeing only so many {step}s of the past{told}.",
        f"{step}s of the past seen",
        f"{unit} lost",
        size="tall",
        reading=f"{{}} {step}s seen",
    )
    kept = [i for i in range(len(xs)) if lows[i] is not None and highs[i] is not None]
    plot.band([xs[i] for i in kept], [lows[i] for i in kept], [highs[i] for i in kept], "spread s0")
    plot.rule("uniform", y=0.0)
    plot.line(xs, ys, "s0 strong")
    plot.dots(xs, ys, "s0")
    plot.readout("lost", "s0", xs, ys)
    plot.readout("95 % interval", "spread s0", xs, lows, highs=highs)
    if needed is not None and needed <= xs[-1]:
        plot.mark(needed, f"{count(needed)} needed", "need")
    return plot.render()


@dataclass(frozen=True)
class Row:
    """A row of the one picture: bars from now back to each place, the last one the longest."""

    name: str
    class_: str
    ends: tuple[float, ...]
    text: str


def side_by_side(rows: Sequence[Row], step: str) -> Markup:
    """Memory of the data, reach of the gradient, truncation of the training: on one axis."""
    last = max(row.ends[-1] for row in rows)
    names = tuple((len(rows) - i - 0.5, row.name) for i, row in enumerate(rows))
    plot = Plot(
        lag_axis(3.0 * last),
        Axis(0.0, float(len(rows)), names),
        "; ".join(f"{row.name}: {row.text}" for row in rows) + f", in {step}s back.",
        f"{step}s back",
        size="rows",
    )
    for (middle, _), row in zip(names, rows, strict=True):
        for end in reversed(row.ends):
            plot.spans([(0.0, end, middle - 0.27, middle + 0.27)], f"{row.class_} layer")
        plot.note(row.ends[-1], middle, row.text, f"reads {row.class_}")
    return plot.render()


def _positive(value: float | None) -> float | None:
    return value if value is not None and value > 0 else None


def _relative(value: float | None, whole: float) -> float | None:
    return None if value is None else _positive(value / whole)
