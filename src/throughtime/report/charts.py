"""The report's charts, each from its values. What cannot be drawn gives None."""

from __future__ import annotations

import base64
import io
import wave
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from throughtime.evaluation.results import (
    Accuracy,
    BacktestResult,
    Fan,
    OrderScore,
    PathsSample,
    RollSample,
    SoundSample,
    Surprisal,
)
from throughtime.report.axis import Axis, clock, linear, padded, places, stride
from throughtime.report.html import Markup, count, fixed, significant
from throughtime.report.plot import SIZE, Plot

COLOURS = 9  # s0, the accent, and eight others
PATHS, PATH_POINTS = 40, 300
Criterion = tuple[str, str, Callable[[OrderScore], float | None]]  # name, class, value


def horizontal(values: Sequence[float], is_clock: bool) -> Axis:
    """An axis over increasing places that ends where they end."""
    return clock(values[0], values[-1]) if is_clock else linear(values[0], values[-1], 7)


def quantile_bands(levels: Iterable[float]) -> list[tuple[float, float, float]]:
    """The pairs of levels that enclose an interval, widest first: (coverage, low, high)."""
    known = {round(level, 6): level for level in levels}
    return [
        (high - low, known[low], known[high])
        for low in sorted(known)
        if low < 0.5 and (high := round(1 - low, 6)) in known
    ]


def fan(result: Fan, step: str, title: str) -> Markup:
    """A forecast's past, its quantile bands, its median and what then happened."""
    columns, bands = result.quantiles, quantile_bands(result.quantiles)
    length = max(map(len, columns.values()))
    truth = list(result.truth[:length])
    start = max(0, len(result.past.values) - max(5 * length // 2, 40))
    past = list(result.past.values[start:])
    times = None
    if result.past.times is not None and result.times is not None:
        times = places([*result.past.times[start:], *result.times], len(past) + length)
    xs, is_clock = times or ([float(i - len(past) + 1) for i in range(len(past) + length)], False)
    ahead = xs[len(past) :]
    if is_clock:
        axis, x_title = clock(xs[0], xs[-1], 5), ""
    else:
        axis, x_title = horizontal(xs, False), "" if times else f"{step}s from the origin"
    plot = Plot(
        axis,
        padded([*past, *truth, *(value for column in columns.values() for value in column)]),
        f"Forecast fan chart. {title}: {count(length)} {step}s ahead.",
        x_title,
        size="tall",
        reading=f"{{}} {x_title}".strip(),
    )
    # At the origin itself the value is known, so the bands open from there.
    joint = [past[-1]] if past and past[-1] is not None else []
    spread = ([xs[len(past) - 1]] if joint else []) + ahead
    widest = bands[0][0] if len(bands) > 1 else 1.0
    for coverage, low, high in bands:
        level = "inner" if coverage < widest else "outer"
        plot.band(spread, [*joint, *columns[low]], [*joint, *columns[high]], level)
        plot.readout(f"{coverage:.0%} interval", level, ahead, columns[low], highs=columns[high])
    if past:
        plot.rule("origin", x=xs[len(past) - 1])
        plot.line(xs[: len(past)], past, "past", "past")
    if 0.5 in columns:
        plot.line(spread, [*joint, *columns[0.5]], "median")
        plot.readout("median", "median", ahead, columns[0.5])
    if any(value is not None for value in truth):
        plot.line(spread, [*joint, *truth], "truth", None)
        plot.readout("what happened", "truth", ahead, truth)
        if length <= 60:
            plot.dots(ahead, truth, "truth")
    return plot.render()


def curves(
    lines: Sequence[tuple[str, str, str, list[tuple[float, float]]]], x_title: str, unit: str
) -> Markup | None:
    """Training curves: (name, part, class, points (place, score)) of each."""
    drawn = [line for line in lines if len(line[3]) > 1]
    if not drawn:
        return None
    # The first steps of a training are far above all that follows: the frame ends a little above
    # where most of each line lies, and the start runs out at the top.
    tops, bottoms = [], []
    for _, _, _, points in drawn:
        scores = sorted(score for _, score in points)
        tops.append(scores[int(0.9 * (len(scores) - 1))])
        bottoms.append(scores[0])
    low, high = min(bottoms), max(tops)
    air = (high - low) * 0.08 or 1.0
    right = max(points[-1][0] for _, _, _, points in drawn)
    left = min(0.0, *(points[0][0] for _, _, _, points in drawn))
    names = list(dict.fromkeys(line[0] for line in drawn))
    plot = Plot(
        linear(left, right, 8),
        linear(low - air, high + air, 6),
        f"Training curves of {len(names)} models, {unit} against {x_title}: {', '.join(names)}.",
        x_title,
        unit,
        size="tall clip",
        reading="{} seconds" if x_title == "seconds" else "step {}",
    )
    for name, part, class_, points in drawn:
        xs, ys = [x for x, _ in points], [y for _, y in points]
        said = f"{name}, training" if part == "train" else name
        plot.line(xs, ys, f"{class_} {part}", said, key=name)
    return plot.render()


@dataclass(frozen=True)
class Measure:
    """A measure of accuracy, and how to take it."""

    title: str
    of: Callable[[Accuracy], float | None]


def by_horizon(result: BacktestResult, measure: Measure, x_title: str) -> Markup | None:
    """A measure of the free-running forecast by horizon, the one-step figure as a rule."""
    ys, once = [measure.of(row) for row in result.free_running], measure.of(result.one_step)
    if all(y is None for y in ys):
        return None
    plot = _of_horizons(result, measure.title, ys, padded([*ys, once], zero=True), x_title)
    xs = _horizons(result)
    if once is not None:
        plot.rule("s1 dash", y=once)
        plot.readout("one step ahead", "s1", xs, [once] * len(xs))
    _by_horizon(plot, "free-running", xs, ys)
    return plot.render()


def coverage_by_horizon(result: BacktestResult, x_title: str) -> Markup | None:
    """A line for the coverage of each level by horizon, beside its nominal value."""
    lines = [
        (level, [row.coverage.get(level) for row in result.free_running]) for level in result.levels
    ]
    lines = [(level, ys) for level, ys in lines if any(y is not None for y in ys)]
    if not lines:
        return None
    low = min(y for y in (*result.levels, *(y for _, ys in lines for y in ys)) if y is not None)
    axis = linear(min(0.5, low - 0.02), 1.0, 4, True)
    plot, xs = _of_horizons(result, "Coverage", lines[0][1], axis, x_title), _horizons(result)
    for level in result.levels:
        plot.rule("nominal", y=level)
        if (once := result.one_step.coverage.get(level)) is not None:
            plot.rule("s1 dash", y=once)
            plot.readout(f"{level:.0%}, one step ahead", "s1", xs, [once] * len(xs), percent=True)
    for level, ys in lines:
        if ys[-1] is not None:
            plot.note(xs[-1], ys[-1], f"{level:.0%}", "end s0")
        _by_horizon(plot, f"{level:.0%}", xs, ys, percent=True)
    return plot.render()


def _horizons(result: BacktestResult) -> list[float]:
    return [float(row.horizon) for row in result.free_running]


def _of_horizons(
    result: BacktestResult, title: str, ys: Sequence[float | None], axis: Axis, x_title: str
) -> Plot:
    xs, known = _horizons(result), [y for y in ys if y is not None]
    return Plot(
        linear(xs[0], xs[-1], 6),
        axis,
        f"{title} of the free-running forecast by horizon: {significant(known[0], 3)} at first, "
        f"{significant(known[-1], 3)} at the last.",
        x_title,
        title,
        reading=f"{{}} {x_title}",
    )


def _by_horizon(
    plot: Plot, name: str, xs: Sequence[float], ys: Sequence[float | None], percent: bool = False
) -> None:
    plot.line(xs, ys, "s0")
    plot.readout(name, "s0", xs, ys, percent=percent)
    if len(xs) <= 30:
        plot.dots(xs, ys, "s0")


def pit_histogram(fractions: Sequence[float], steps: int) -> Markup:
    """The PIT histogram with the uniform line, and where its bars lie by chance alone."""
    bins = len(fractions)
    uniform = 1 / bins
    spread = 1.96 * (uniform * (1 - uniform) / steps) ** 0.5 if steps else 0.0
    top = max(max(fractions), uniform + spread)
    plot = Plot(
        linear(0.0, 1.0, 5),
        linear(0.0, top * 1.12, 6, top * 100 > 4),
        f"PIT histogram of {bins} bars between {min(fractions):.1%} and {max(fractions):.1%}; "
        f"a calibrated model has {uniform:.1%} in each.",
        "probability the model gave to a value this low or lower",
        "share of the steps",
    )
    edges = [i / bins for i in range(bins + 1)]
    low, high = max(0.0, uniform - spread), uniform + spread
    if spread:
        plot.band([0.0, 1.0], [low] * 2, [high] * 2, "chance")
    plot.bars(edges, fractions, "s0")
    if spread:
        plot.rule("edge", y=low)
        plot.rule("edge", y=high)
    plot.rule("uniform", y=uniform)
    centres = [(i + 0.5) / bins for i in range(bins)]
    spans = [f"{i / bins:.2f} to {(i + 1) / bins:.2f}" for i in range(bins)]
    plot.readout("share", "s0", centres, fractions, spans, percent=True)
    return plot.render()


def coverage_curve(
    pit: Sequence[float], measured: Sequence[tuple[str, str, list[tuple[float, float]]]]
) -> Markup:
    """Coverage against its nominal level: from the PIT the whole curve, from forecasts the dots."""
    plot = Plot(
        linear(0.0, 1.0, 5, True),
        linear(0.0, 1.0, 5, True),
        "Share of the values inside the central interval, against the interval's nominal level; "
        "a calibrated model lies on the diagonal.",
        "nominal level of the interval",
        "values inside it",
    )
    plot.segment((0, 1), (0, 1), "diagonal")
    half = len(pit) // 2
    if half and len(pit) % 2 == 0:
        xs = [2 * k / len(pit) for k in range(half + 1)]
        ys: list[float | None] = [sum(pit[half - k : half + k]) for k in range(half + 1)]
        plot.line(xs, ys, "s0")
        labels = [f"{x:.0%} interval" for x in xs]
        plot.readout("one step ahead", "s0", xs, ys, labels, percent=True)
    for _, class_, points in measured:
        plot.dots([x for x, _ in points], [y for _, y in points], f"{class_} large")
    return plot.render()


def surprisal(result: Surprisal, step: str, marks: Sequence[tuple[int, str]]) -> Markup | None:
    """Surprisal over time; `marks` are (index, label) of the places to point at."""
    nats = result.nats
    if sum(value is not None for value in nats) < 2:
        return None
    times = places(result.times, len(nats)) or places(result.position, len(nats))
    xs, is_clock = times or ([float(i) for i in range(len(nats))], False)
    axis = horizontal(xs, is_clock)
    low = min(value for value in nats if value is not None)
    high = max(value for value in nats if value is not None)
    low = min(low, 0.0) if low < 0.25 * high else low - 0.08 * (high - low)
    peak = f"highest {significant(high, 3)} nats"
    plot = Plot(
        axis,
        linear(low, high + (high - low) * 0.14, 5),
        f"Surprisal of each {step} of the test part, {peak}.",
        "" if is_clock else step,
        "nats",
        size="tall",
        reading="{}" if is_clock else f"{step} {{}}",
    )
    plot.line(xs, nats, "trace", "surprisal", limit=1600)
    plot.dots([xs[i] for i, _ in marks], [nats[i] for i, _ in marks], "peak")
    labelled: list[float] = []
    for index, label in marks:
        value, place = nats[index], axis.fraction(xs[index])
        if value is not None and all(abs(place - other) > 0.025 for other in labelled):
            labelled.append(place)  # of neighbours only the first, the most surprising, has room
            plot.note(xs[index], value, label, "peak")
    return plot.render()


def orders(rows: Sequence[OrderScore], criteria: Sequence[Criterion]) -> Markup | None:
    """Criteria by order, each smallest value marked."""
    xs = [float(row.order) for row in rows]
    series = [(name, class_, [of(row) for row in rows]) for name, class_, of in criteria]
    series = [entry for entry in series if sum(y is not None for y in entry[2]) > 1]
    if len(xs) < 2 or not series:
        return None
    best = []
    for name, _, ys in series:
        low = min(y for y in ys if y is not None)
        best.append(f"{name} is lowest at order {xs[ys.index(low)]:.0f}")
    axis = padded([y for _, _, ys in series for y in ys], pad=0.14)
    plot = Plot(linear(xs[0], xs[-1], 8), axis, f"{'; '.join(best)}.", "order", reading="order {}")
    for name, class_, ys in series:
        plot.line(xs, ys, class_)
        plot.readout(name, class_, xs, ys)
        low = min(y for y in ys if y is not None)
        if len(xs) <= 40:
            plot.dots(xs, ys, class_)
        at = ys.index(low)
        plot.dots([xs[at]], [low], f"{class_} large")
        plot.note(xs[at], low, f"{xs[at]:.0f}", f"below {class_}")
    return plot.render()


def paths(sample: PathsSample, step: str, title: str) -> Markup | None:
    """Sampled paths of a real series, thin lines over each other."""
    lines = [line for line in sample.values if len(line) > 1]
    drawn = [lines[i] for i in stride(len(lines), PATHS)]
    drawn = [line for line in drawn if any(y is not None for y in line)]
    if not drawn:
        return None
    length = max(len(line) for line in drawn)
    label = f"{title}: {len(drawn)} sampled paths of {count(length)} {step}s."
    every = [y for line in drawn for y in line]
    axis, reading = linear(1.0, float(length), 8), f"{step} {{}}"
    plot = Plot(axis, padded(every), label, f"{step}s", size="tall", reading=reading)
    for index, line in enumerate(drawn):
        xs = [float(i + 1) for i in range(len(line))]
        style = "path bright" if index < 3 else "path"
        plot.line(xs, line, style, f"path {index + 1}" if index < 3 else None, limit=PATH_POINTS)
    return plot.render()


def roll(sample: RollSample, step: str) -> Markup | None:
    """Columns of 0 and 1 as a piano roll; runs of a column are drawn as one bar."""
    rows = sample.values[:2000]
    active = [[i for i, cell in enumerate(row) if cell] for row in rows]
    notes = sorted({note for row in active for note in row})
    if not notes:
        return None
    low, high = notes[0], notes[-1] + 1
    label = f"Piano roll of {count(len(rows))} {step}s, notes {low} to {high - 1}."
    y_axis = linear(float(low), float(high), 5)
    plot = Plot(linear(0.0, float(len(rows)), 8), y_axis, label, f"{step}s", "note", size="tall")
    pieces = []
    unit_x, unit_y = SIZE / len(rows), SIZE / (high - low)
    sounding: dict[int, int] = {}
    for place, row in enumerate([*active, []]):
        for note in [note for note in sounding if note not in row]:
            start = sounding.pop(note)
            left, right = start * unit_x, place * unit_x
            top = (high - note - 1) * unit_y
            pieces.append(f"M{left:.1f} {top:.1f}H{right:.1f}v{unit_y * 0.84:.1f}H{left:.1f}Z")
        for note in row:
            sounding.setdefault(note, place)
    plot.path("".join(pieces), "bars s0")
    return plot.render()


def waveform(wav: bytes, title: str) -> Markup | None:
    """The envelope of 8- or 16-bit PCM sound, None for anything else."""
    try:
        with wave.open(io.BytesIO(wav)) as sound:
            width, channels, rate = sound.getsampwidth(), sound.getnchannels(), sound.getframerate()
            raw = sound.readframes(sound.getnframes())
    except (wave.Error, EOFError, ValueError):
        return None
    if width not in (1, 2) or rate <= 0:
        return None
    raw = raw[: len(raw) // (width * channels) * width * channels]
    if width == 2:
        samples = np.frombuffer(raw, "<i2").reshape(-1, channels)[:, 0] / 32768.0
    else:
        samples = np.frombuffer(raw, np.uint8).reshape(-1, channels)[:, 0] / 128.0 - 1.0
    if len(samples) < 2:
        return None
    seconds = len(samples) / rate
    peak = float(np.abs(samples).max()) or 1.0
    pieces = np.array_split(samples, min(500, len(samples)))
    xs = [(i + 0.5) * seconds / len(pieces) for i in range(len(pieces))]
    label = f"Waveform of {title}: {fixed(seconds, 1)} seconds, peak {peak:.0%} of full scale."
    plot = Plot(linear(0.0, seconds, 6), Axis(-peak, peak, ()), label, "seconds", size="strip")
    plot.rule("zero", y=0.0)
    low = [float(piece.min()) for piece in pieces]
    high = [float(piece.max()) for piece in pieces]
    plot.band(xs, low, high, "wave", limit=500)
    return plot.render()


def decode(sample: SoundSample) -> bytes | None:
    """The sound of a sample, or None when it is no RIFF/WAVE in base64."""
    try:
        wav = base64.b64decode(sample.wav_base64, validate=True)
    except ValueError:
        return None
    return wav if wav[:4] == b"RIFF" and wav[8:12] == b"WAVE" else None
