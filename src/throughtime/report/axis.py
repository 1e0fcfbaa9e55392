"""Axes: where a value lies between two ends, and which values get a label."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from itertools import pairwise

from throughtime.wording import MINUS, stamp

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_DAY = 86400.0
_SECONDS = (1, 2, 5, 15, 30, 60, 120, 300, 900, 1800, 3600, 7200, 10800, 21600, 43200)
_DAYS = (1, 2, 7, 14)
_MONTHS = (1, 2, 3, 6, 12, 24, 60, 120, 240, 600, 1200, 2400)


@dataclass(frozen=True)
class Axis:
    """An interval of values with labelled ticks. `clock` says that values are seconds of time.

    shift: None, or the axis is that of log(value + shift).
    """

    low: float
    high: float
    ticks: tuple[tuple[float, str], ...]
    clock: bool = False
    shift: float | None = None

    def fraction(self, value: float) -> float:
        """Where a value lies, 0 at the low end and 1 at the high end."""
        if self.shift is None:
            return (value - self.low) / (self.high - self.low)
        low, high, here = (math.log(v + self.shift) for v in (self.low, self.high, value))
        return (here - low) / (high - low)


def linear(low: float, high: float, count: int = 6, percent: bool = False) -> Axis:
    """An axis from `low` to `high` with about `count` round ticks."""
    if not high > low:
        pad = abs(low) * 0.05 or 1.0
        low, high = low - pad, high + pad
    step = nice_step((high - low) / max(1, count))
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    ticks = [(i * step, tick_label(i * step, step, percent)) for i in range(first, last + 1)]
    return Axis(low, high, tuple(ticks))


def padded(values: Sequence[float | None], zero: bool = False, pad: float = 0.06) -> Axis:
    """A vertical axis that holds all values with a little air; with `zero`, from zero upwards."""
    known = [value for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    air = (high - low) * pad or abs(high) * pad or 1.0
    if zero and low >= 0:
        return linear(0.0, high + air, 5)
    return linear(low - air, high + air, 5)


def lags(high: float) -> Axis:
    """A logarithmic axis of steps back, with room for 0: it goes by log(lag + 1)."""
    rounds = [f * 10**power for power in range(9) for f in (1, 2, 5)]
    high = max(high, 1.0)
    ticks = [(float(v), f"{v:,}") for v in (0, *rounds) if v <= high * (1 + 1e-9)]
    return Axis(0.0, high, tuple(ticks), shift=1.0)


def decades(low: float, high: float, count: int = 6) -> Axis:
    """A logarithmic axis between two positive values, with ticks at powers of ten."""
    first, last = math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9)
    step = max(1, -(-(last - first) // count))
    ticks = tuple((10.0**power, _power(power)) for power in range(last, first - 1, -step))
    return Axis(low, high, ticks[::-1], shift=0.0)


def _power(power: int) -> str:
    if -4 < power < 4:
        return f"{10.0**power:g}"
    return "10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def uncrowded(axis: Axis, width: float = 420.0) -> list[tuple[float, str]]:
    """The ticks without a last label that would run into its neighbour.

    Labels at the very ends are set flush with the edge. `width` is that of a narrow chart in
    pixels, of which a character takes about seven.
    """
    ticks = list(axis.ticks)
    if len(ticks) > 1 and axis.fraction(ticks[-1][0]) > 0.97:
        last, previous = (7 * len(label) / width for _, label in (ticks[-1], ticks[-2]))
        if axis.fraction(ticks[-2][0]) + previous / 2 > 1 - last - 0.02:
            ticks.pop()
    return ticks


def nice_step(rough: float) -> float:
    """The smallest of 1, 2, 5 times a power of ten that is not below `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    for factor in (1.0, 2.0, 5.0):
        if factor * power >= rough * (1 - 1e-9):
            return factor * power
    return 10.0 * power


def tick_label(value: float, step: float, percent: bool = False) -> str:
    """A tick's value with as many decimals as its step needs; thousands as k, M, G."""
    if percent:
        return f"{value * 100:.0f}%"
    if abs(value) < step * 1e-6:
        return "0"
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            size = 1e3 if letter == "k" else size
            decimals = max(0, -math.floor(math.log10(step / size) + 1e-9))
            return f"{value / size:,.{decimals}f}{letter}".replace("-", MINUS)
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    if decimals > 6:
        return f"{value:.1e}".replace("-", MINUS)
    return f"{value:,.{decimals}f}".replace("-", MINUS)


def seconds_of(value: str | float) -> float | None:
    """Seconds since 1970 of an ISO date or time (without a zone: UTC), or None."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value[:-1] + "+00:00" if value.endswith("Z") else value)
    except ValueError:
        return None
    if not 1 < moment.year < 9999:  # the axis needs room on both sides
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return (moment - _EPOCH).total_seconds()


def places(times: Sequence[str | float] | None, length: int) -> tuple[list[float], bool] | None:
    """The times of `length` values as increasing numbers, and whether they are clock time.

    None when there are none that an axis can use (missing, unreadable, running backwards).
    """
    if times is None or len(times) != length:
        return None
    clock = any(isinstance(time, str) for time in times)
    numbers = [seconds_of(time) if clock else float(time) for time in times]
    known = [time for time in numbers if time is not None]
    if len(known) != length or any(b < a for a, b in pairwise(known)):
        return None
    return known, clock


def moment_label(seconds: float) -> str | float:
    """A moment (seconds since 1970) written out."""
    return stamp(_EPOCH + timedelta(seconds=round(seconds)))


def clock(low: float, high: float, count: int = 7) -> Axis:
    """An axis of clock time (seconds since 1970) with ticks at round moments."""
    if not high > low:
        low, high = low - _DAY, high + _DAY
    rough = (high - low) / max(1, count)
    for step in (*_SECONDS, *(days * _DAY for days in _DAYS)):
        if step >= rough:
            first, last = math.ceil(low / step), math.floor(high / step)
            values = [index * step for index in range(first, last + 1)]
            form = "%-d %b" if step >= _DAY else "%H:%M" if step >= 60 else "%H:%M:%S"
            return Axis(low, high, tuple((v, _format(v, form)) for v in values), clock=True)
    months = rough / (30.4 * _DAY)
    stride = next((size for size in _MONTHS if size >= months * 0.95), _MONTHS[-1])
    return Axis(low, high, tuple(_month_ticks(low, high, stride)), clock=True)


def _month_ticks(low: float, high: float, stride: int) -> list[tuple[float, str]]:
    first, last = (_EPOCH + timedelta(seconds=end) for end in (low, high))
    month = (first.year * 12 + first.month - 1) // stride * stride
    ticks = []
    while month <= last.year * 12 + last.month - 1:
        year, index = divmod(month, 12)
        if 1 <= year <= 9999:
            moment = datetime(year, index + 1, 1, tzinfo=timezone.utc)
            seconds = (moment - _EPOCH).total_seconds()
            if low <= seconds <= high:
                form = "%Y" if stride % 12 == 0 else "%b %Y"
                ticks.append((seconds, f"{moment:{form}}"))
        month += stride
    return ticks


def _format(seconds: float, form: str) -> str:
    moment = _EPOCH + timedelta(seconds=seconds)
    if form == "%-d %b":  # %-d is not portable
        return f"{moment.day} {moment:%b}"
    if form == "%H:%M" and moment.hour == moment.minute == 0:
        return f"{moment.day} {moment:%b}"
    return f"{moment:{form}}"


def thin(xs: Sequence[float], ys: Sequence[float | None], limit: int) -> list[int]:
    """Indices of about `limit` points at most that keep the extremes of each stretch."""
    if len(xs) <= limit:
        return list(range(len(xs)))
    kept = {0, len(xs) - 1}
    buckets = max(1, limit // 2)
    for bucket in range(buckets):
        span = range(bucket * len(xs) // buckets, (bucket + 1) * len(xs) // buckets)
        known = [(value, index) for index in span if (value := ys[index]) is not None]
        if known:
            kept |= {min(known)[1], max(known)[1]}
        elif span:
            kept.add(span[0])  # a gap stays a gap
    return sorted(kept)


def stride(length: int, limit: int) -> list[int]:
    """Indices of at most `limit` places, evenly spread, both ends kept."""
    if length <= limit:
        return list(range(length))
    return sorted({round(i * (length - 1) / (limit - 1)) for i in range(limit)})
