"""Charts over lags: what the data remember, what the gradient reaches, what training allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from throughtime.evaluation.results import GradientRecord, LagCurve
from throughtime.report.axis import Axis, decades, linear, padded
from throughtime.report.axis import lags as lag_axis
from throughtime.report.html import Markup, count, significant
from throughtime.report.plot import Plot

_DEEPEST = 1e-8  # of the largest norm: what is smaller runs out at the bottom


def last_lag(record: GradientRecord) -> float:
    """The longest lag that was looked at."""
    return float(len(record.norms) - 1)


def by_lag(record: GradientRecord, step: str) -> Markup | None:
    """The gradient of the weights by lag, and the spread of the state's, each from its largest."""
    norms = [norm or 0.0 for norm in record.norms]
    largest, last = max(norms), last_lag(record)
    if last < 1 or largest <= 0:
        return None
    weights = [_positive(norm / largest) for norm in norms]
    state = record.state_norm
    top = max((value for value in state.high if value), default=None)
    known = [value for value in weights if value]
    if top:
        known += [value / top for value in state.median if value]
    floor = max(_DEEPEST, min(known) / 2)
    end = f"{significant(norms[-1] / largest, 2)} of the largest at lag {count(last)}"
    plot = Plot(
        lag_axis(last),
        decades(min(floor, 0.5), 1.5),
        f"Norm of the gradient by lag on logarithmic axes: {end}.",
        f"{step}s back",
        "share of the largest",
        size="tall clip",
        reading=f"{{}} {step}s back",
    )
    xs = [float(lag) for lag in range(len(weights))]
    if top:
        lines = (state.low, state.median, state.high)
        lows, middles, highs = ([_relative(v, top) for v in line] for line in lines)
        kept = [i for i, value in enumerate(highs) if value is not None]
        bottom = [max(lows[i] or 0.0, floor / 10) for i in kept]
        plot.band([xs[i] for i in kept], bottom, [highs[i] for i in kept], "spread s3")
        plot.line(xs, middles, "s3", "gradient of the state, median")
        plot.readout("from 10 % to 90 % of the steps", "spread s3", xs, lows, highs=highs)
    plot.line(xs, weights, "s0 strong", "gradient of the weights")
    _truncated(plot, record)
    return plot.render()


def within(record: GradientRecord, step: str) -> Markup | None:
    """The share of the gradient that lies within each lag."""
    if not any(value is not None for value in record.share):
        return None
    last = last_lag(record)
    xs = [float(lag) for lag in range(len(record.share))]
    known = {share: lag for share, lag in record.reach.items() if lag is not None}
    shares = [f"{share:.0%} within {count(lag)}" for share, lag in known.items()]
    plot = Plot(
        lag_axis(last),
        linear(0.0, 1.0, 5, True),
        f"Share of the gradient within so many {step}s: {', '.join(shares) or 'see the table'}.",
        f"within so many {step}s back",
        "share of the gradient",
        size="tall",
        reading=f"within {{}} {step}s back",
    )
    if record.k2 is not None and record.k2 <= last:
        plot.spans([(record.k2 - 0.5, last, 0.0, 1.0)], "lost")
    plot.line(xs, record.share, "s0 strong")
    plot.readout("share of the gradient", "s0", xs, record.share, percent=True)
    for share in (0.5, 0.95):
        lag = known.get(share, len(xs))
        here = record.share[lag] if lag < len(xs) else None
        if here is not None:
            plot.dots([lag], [here], "s0 large")
            side = "beside" if plot.x.fraction(lag) < 0.75 else "ahead"
            plot.note(lag, here, f"{share:.0%}: {count(lag)}", f"{side} s0")
    _truncated(plot, record, 0.12)
    return plot.render()


def _truncated(plot: Plot, record: GradientRecord, height: float | None = None) -> None:
    """The rule at the truncation: gradients travel over fewer steps than that."""
    if record.k2 is not None and record.k2 <= last_lag(record):
        plot.mark(record.k2 - 0.5, f"truncated at {count(record.k2)}", "cut", height)


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


def memory(record: LagCurve, step: str, unit: str) -> Markup | None:
    """What is lost when no more than so many lags may be seen, with its interval."""
    points = sorted(record.curve, key=lambda point: point.lags)
    if len(points) < 2:
        return None
    xs, ys = [float(point.lags) for point in points], [point.lost for point in points]
    kept = [(x, *point.interval) for x, point in zip(xs, points, strict=True) if point.interval]
    places, lows, highs = ([row[i] for row in kept] for i in range(3))
    plot = Plot(
        lag_axis(xs[-1]),
        padded([*ys, *lows, *highs, 0.0]),
        f"Held-out nats lost by seeing only so many {step}s of the past; "
        f"{count(record.needed)} are enough.",
        f"{step}s of the past seen",
        f"{unit} lost",
        size="tall",
        reading=f"{{}} {step}s seen",
    )
    plot.band(places, lows, highs, "spread s0")
    plot.rule("uniform", y=0.0)
    plot.line(xs, ys, "s0 strong")
    plot.dots(xs, ys, "s0")
    plot.readout("lost", "s0", xs, ys)
    plot.readout("95 % interval", "spread s0", places, lows, highs=highs)
    if record.needed <= xs[-1]:
        plot.mark(record.needed, f"{count(record.needed)} needed", "need")
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
