"""Regularity of time stamps: the name of one step, the gaps, and rows for what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from throughtime.errors import DataError

SECOND = 1_000_000  # time stamps are counted in microseconds
UNITS = (
    ("week", 7 * 86_400 * SECOND),
    ("day", 86_400 * SECOND),
    ("hour", 3_600 * SECOND),
    ("minute", 60 * SECOND),
    ("second", SECOND),
    ("millisecond", 1_000),
    ("microsecond", 1),
)
LISTED = 3  # gaps that a note spells out
MOST = 20  # rows that filling may make of one


@dataclass(frozen=True)
class Grid:
    """How the rows lie in time.

    step: name of one step, "day", "5-minute step"; "step" when irregular or numbered.
    unit: "month", "business day", "us" (microseconds) or "number"; size: units in one step.
    regular: every stamp lies on the grid of its series. rule: which day of its month a stamp is,
    where the unit is a month.
    """

    step: str
    unit: str
    size: float
    regular: bool
    rule: str = ""


def positions(times: np.ndarray, unit: str) -> np.ndarray:
    """Time stamps counted in units: int64 (float64 for numbers with fractions)."""
    if unit == "month":
        return times.astype("datetime64[M]").astype(np.int64)
    if unit == "business day":
        return np.busday_count(np.datetime64("1970-01-01"), times.astype("datetime64[D]"))
    return times.astype(np.int64) if times.dtype.kind == "M" else times


def detect(times: np.ndarray, offsets: np.ndarray) -> Grid:
    """The grid on which the stamps of all the series lie; each series may begin anywhere."""
    inside = np.ones(max(len(times) - 1, 0), dtype=bool)
    inside[offsets[1:-1] - 1] = False
    if not inside.any():
        return Grid("step", "number" if times.dtype.kind != "M" else "us", 1, True)
    if times.dtype.kind != "M":
        size, regular = _mode(np.diff(times)[inside])
        return Grid("step", "number", size, regular)
    microseconds = np.diff(times).astype(np.int64)[inside]
    monthly = _monthly_grid(times, inside, microseconds)
    if monthly is not None:
        return monthly
    if _weekdays_only(times, inside):
        return Grid("business day", "business day", 1, True)
    size, regular = _mode(microseconds)
    if size <= 0:
        return Grid("step", "us", 0, False)
    return Grid(_name(int(size)), "us", size, regular)


def _mode(steps: np.ndarray) -> tuple[float, bool]:
    """The step that half of the steps are, 0 for none, and whether all are multiples of it."""
    if steps.dtype.kind == "f":
        middle = np.median(steps)
        steps = np.round(steps / middle, 6) * middle
    sizes, counts = np.unique(steps, return_counts=True)
    size = sizes[np.argmax(counts)]
    off = np.count_nonzero(_off(steps, size))
    if counts.max() * 2 < len(steps) or off > 0.1 * len(steps):
        return 0, False
    return size, off == 0


def _off(steps: np.ndarray, size: float) -> np.ndarray:
    """Which steps are no multiple of `size`; exact for integers, to one part in 1e5 for floats."""
    if steps.dtype.kind != "f":
        return np.asarray(steps % size != 0)
    return np.abs(steps / size - np.round(steps / size)) > 1e-5


def _monthly_grid(times: np.ndarray, inside: np.ndarray, steps: np.ndarray) -> Grid | None:
    """The grid of stamps that come once in so many months; None where they do not.

    The rule is the first that says the day of every stamp; without one, a stamp a month is enough
    where none is missing and the days vary little (stamps every 28 or 30 days are no months).
    """
    if steps.min() < 25 * 86_400 * SECOND:
        return None
    months = np.diff(positions(times, "month"))[inside]
    size, regular = _mode(months)
    if size < 1 or months.min() < 1:
        return None
    clocks = times - times.astype("datetime64[D]")
    equal = len(steps) > 1 and bool((steps == steps[0]).all())
    rules = RULES[:2] if equal else RULES
    rule = next((rule for rule in rules if (_ruled(times, rule) == times).all()), None)
    if rule is None or bool((clocks != clocks[0]).any()):
        if equal or not regular or (months != size).any() or len(months) < 3:
            return None
        rule = "day"
    names = {1: "month", 3: "quarter", 12: "year"}
    return Grid(names.get(int(size), f"{int(size)}-month step"), "month", size, regular, rule)


RULES = ("day", "end", "last business day", "first business day", "weekday", "last weekday")


def _ruled(times: np.ndarray, rule: str, months: np.ndarray | None = None) -> np.ndarray:
    """The stamps that a rule gives in the months of `times`, or in those asked for.

    "day": the same day of the month, the last where the month has no such day; "weekday": the
    same one of the same week of the month, as the third Friday.
    """
    own = times.astype("datetime64[M]")
    days = times.astype("datetime64[D]")
    first_day = (own if months is None else months).astype("datetime64[D]")
    last_day = ((own if months is None else months) + 1).astype("datetime64[D]") - 1
    clock = times[0] - days[0]
    numbers = (days - own.astype("datetime64[D]")).astype(np.int64)
    if rule == "day":
        usual = int(numbers.max()) if int(numbers.max()) >= 27 else int(np.median(numbers))
        chosen = np.minimum(first_day + usual, last_day)
    elif rule == "end":
        chosen = last_day
    elif rule == "last business day":
        chosen = np.busday_offset(last_day, 0, roll="backward")
    elif rule == "first business day":
        chosen = np.busday_offset(first_day, 0, roll="forward")
    else:
        weekday = int((days[0].astype(np.int64) + 3) % 7)  # 1970-01-01 was a Thursday; Monday is 0
        if rule == "weekday":
            ahead = (weekday - (first_day.astype(np.int64) + 3) % 7) % 7
            chosen = first_day + ahead + 7 * int(numbers[0] // 7)
        else:
            chosen = last_day - ((last_day.astype(np.int64) + 3) % 7 - weekday) % 7
    stamps: np.ndarray = chosen.astype("datetime64[us]") + clock
    return stamps


def regularity(times: np.ndarray, series: np.ndarray) -> float:
    """The share of the rows of a regular grid that are there, 0 for irregular stamps.

    times: sorted within each series; series: int64 [total], which of them each stamp is of.
    """
    cuts = np.flatnonzero(np.diff(series)) + 1
    offsets = np.concatenate([[0], cuts, [len(times)]])
    inside = np.ones(max(len(times) - 1, 0), dtype=bool)
    inside[cuts - 1] = False
    if not inside.any():
        return 0.0
    grid = detect(times, offsets)
    if grid.size <= 0:
        return 0.0
    steps = np.diff(positions(times, grid.unit))[inside]
    return float((steps == grid.size).mean() * len(steps) * grid.size / max(steps.sum(), 1))


def _weekdays_only(times: np.ndarray, inside: np.ndarray) -> bool:
    """Whether most steps lead to the next weekday, some over a weekend, and none ends in one."""
    days = times.astype("datetime64[D]")
    clocks = (times - days).astype(np.int64)
    if (clocks != clocks[0]).any() or not np.is_busday(days).all():
        return False
    next_weekday = np.diff(positions(times, "business day"))[inside] == 1
    over_weekend = next_weekday & (np.diff(days).astype(np.int64)[inside] == 3)
    return bool(next_weekday.sum() * 2 >= len(next_weekday) and over_weekend.any())


def _name(size: int) -> str:
    for name, unit in UNITS:
        if size % unit == 0:
            count = size // unit
            return name if count == 1 else f"{count:,}-{name} step"
    raise AssertionError("every size is a number of microseconds")


def show(time: Any, unit: str) -> str:
    """A stamp as briefly as it is exact: `1999-01-04`, `1999-01`, `2014-04-01 00:05`."""
    if not isinstance(time, np.datetime64):
        return f"{time:,}" if isinstance(time, np.integer) else f"{time:g}"
    text = str(time.astype("datetime64[us]")).replace("T", " ")
    if unit == "month" and text.endswith("-01 00:00:00.000000"):
        return text[:7]
    text = text.removesuffix(".000000")
    return (
        text.removesuffix(" 00:00:00") if text.endswith(" 00:00:00") else text.removesuffix(":00")
    )


def describe(
    grid: Grid, times: np.ndarray, offsets: np.ndarray, names: tuple[str, ...]
) -> tuple[str, ...]:
    """Sentences on what the stamps are: from when to when, gaps with their dates, irregularity."""
    if len(times) < 2:
        return ()
    first, last = show(times.min(), grid.unit), show(times.max(), grid.unit)
    stamps = np.diff(positions(times, grid.unit))
    within = np.ones(len(times) - 1, dtype=bool)
    within[offsets[1:-1] - 1] = False
    if not within.any():
        return ()
    if grid.size == 0:
        typical = np.diff(times)[within]
        if times.dtype.kind != "M":
            span = f"from {typical.min():g} to {typical.max():g}"
        else:
            middle = int(np.median(typical.astype(np.int64)))
            span = (
                f"from {_rough(typical.min().astype(int))} to {_rough(typical.max().astype(int))},"
                f" the median {_rough(middle)}"
            )
        return (
            f"time runs irregularly from {first} to {last}: steps {span}; models count rows, "
            f"not time",
        )
    row = "one row per step" if grid.unit == "number" else f"one row per {grid.step}"
    if grid.unit == "number" and grid.size != 1:
        row = f"one row per {grid.size:g}"
    notes = [f"time runs from {first} to {last}, {row}"]
    off = within & _off(stamps, grid.size)
    if off.any():
        index = int(np.argmax(off))
        notes.append(
            f"{_count(int(off.sum()), 'step')} not a whole number of {grid.step}s, the first "
            f"from {show(times[index], grid.unit)} to {show(times[index + 1], grid.unit)}"
        )
    missing = np.where(within, np.floor(stamps / grid.size + 1e-5) - 1, 0).astype(np.int64)
    notes.extend(_gap_notes(grid, times, missing, offsets, names))
    return tuple(notes)


def _gap_notes(
    grid: Grid,
    times: np.ndarray,
    missing: np.ndarray,
    offsets: np.ndarray,
    names: tuple[str, ...],
) -> list[str]:
    """missing: int64 [total - 1], rows that are missing between one row and the next."""
    notes: list[str] = []
    floor = 0
    if grid.unit == "business day":
        single = int(np.count_nonzero(missing == 1))
        if single:
            days = "day has" if single == 1 else "days have"
            notes.append(f"{single:,} single business {days} no row (a holiday, it seems)")
        floor = 1
    gaps = np.flatnonzero(missing > floor)
    if not len(gaps):
        return notes
    longest = np.sort(gaps[np.argsort(-missing[gaps], kind="stable")][:LISTED])
    listed = []
    for index in longest:
        series = int(np.searchsorted(offsets, index, side="right")) - 1
        where = f" in '{names[series]}'" if len(names) > 1 else ""
        listed.append(
            f"{show(times[index], grid.unit)} and {show(times[index + 1], grid.unit)}{where}"
        )
    total = int(missing[gaps].sum())
    plural = "gap" if len(gaps) == 1 else "gaps"
    more = f" of more than one {grid.step}" if floor else ""
    spelled = " between " if len(listed) == len(gaps) else ", the longest between "
    notes.append(
        f"{len(gaps):,} {plural}{more} ({total:,} row{'' if total == 1 else 's'} missing){spelled}"
        f"{', '.join(listed)}"
    )
    return notes


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun} is" if number == 1 else f"{number:,} {noun}s are"


def _rough(microseconds: int) -> str:
    """A duration in its largest whole-ish unit: `3.5 days`."""
    for name, unit in UNITS[1:]:
        if microseconds >= unit:
            count = microseconds / unit
            return f"{count:.3g} {name}{'' if count == 1 else 's'}"
    return "0 seconds"


def fill(
    grid: Grid, times: np.ndarray, offsets: np.ndarray, values: np.ndarray, label: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Rows of NaN for the stamps that are missing inside each series.

    Returns times, offsets, values [total, D] and the number of rows put in.
    Raises: DataError when the stamps are not regular.
    """
    if not grid.regular:
        raise DataError(f"{label}: gaps='fill' needs regular time stamps, these are irregular")
    place = positions(times, grid.unit)
    new_times, new_values, new_offsets = [], [], [0]
    for start, stop in pairwise(offsets):
        index = np.round((place[start:stop] - place[start]) / grid.size).astype(np.int64)
        length = int(index[-1]) + 1
        if length > MOST * (stop - start) + 10_000:
            raise DataError(
                f"{label}: gaps='fill' would make {length:,} rows of {stop - start:,}; cut the "
                f"series at its long gaps"
            )
        filled = np.full((length, values.shape[1]), np.nan)
        filled[index] = values[start:stop]
        stamps = _stamps(grid, times[start:stop], length)
        stamps[index] = times[start:stop]
        new_times.append(stamps)
        new_values.append(filled)
        new_offsets.append(new_offsets[-1] + length)
    added = new_offsets[-1] - len(times)
    return (
        np.concatenate(new_times),
        np.asarray(new_offsets, dtype=np.int64),
        np.concatenate(new_values),
        added,
    )


def future_stamps(times: np.ndarray, count: int) -> np.ndarray:
    """The `count` stamps after the last one of a series, by its grid or its usual step."""
    if len(times) < 2:
        step = np.timedelta64(1, "D") if times.dtype.kind == "M" else 1
        return np.asarray(times[-1] + np.arange(1, count + 1) * step)
    grid = detect(times, np.array([0, len(times)]))
    if grid.size <= 0:
        steps = np.diff(times) if grid.unit == "number" else np.diff(times).astype(np.int64)
        positive = steps[steps > 0]
        usual = float(np.median(positive)) if len(positive) else 1.0
        grid = Grid(grid.step, grid.unit, usual, False)
    # From the last stamp on; all of them tell which day of its month a stamp is.
    return _stamps(grid, np.concatenate([times[-1:], times]), count + 1)[1:]


def _stamps(grid: Grid, known: np.ndarray, length: int) -> np.ndarray:
    """`length` stamps of the grid from the first known one on."""
    count = np.arange(length)
    if grid.unit == "number":
        return np.asarray(known[0] + count * grid.size)
    first = known[0]
    if grid.unit == "us":
        return np.asarray(first + count * np.timedelta64(int(grid.size), "us"))
    day = first.astype("datetime64[D]")
    clock = first - day
    if grid.unit == "business day":
        return np.asarray(np.busday_offset(day, count).astype("datetime64[us]") + clock)
    months = day.astype("datetime64[M]") + count * int(grid.size)
    return _ruled(known, grid.rule, months)
