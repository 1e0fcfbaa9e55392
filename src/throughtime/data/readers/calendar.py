"""Series that say when they begin and how far apart their steps are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from throughtime.data.readers.arrays import read_arrays
from throughtime.data.sequences import Sequences

# What programs call the distance of steps: months, or a unit of numpy and how many of it.
UNITS = {
    "s": (1, "s"), "sec": (1, "s"), "second": (1, "s"), "secondly": (1, "s"),
    "t": (1, "m"), "min": (1, "m"), "minute": (1, "m"), "minutely": (1, "m"),
    "h": (1, "h"), "hour": (1, "h"), "hourly": (1, "h"), "halfhourly": (30, "m"),
    "d": (1, "D"), "day": (1, "D"), "daily": (1, "D"), "w": (7, "D"), "week": (7, "D"),
    "weekly": (7, "D"), "b": (1, "B"),
    "m": (1, "M"), "ms": (1, "M"), "me": (1, "M"), "mo": (1, "M"), "month": (1, "M"),
    "monthly": (1, "M"), "q": (3, "M"), "qs": (3, "M"), "qe": (3, "M"), "quarter": (3, "M"),
    "quarterly": (3, "M"), "y": (12, "M"), "a": (12, "M"), "ys": (12, "M"), "ye": (12, "M"),
    "as": (12, "M"), "year": (12, "M"), "yearly": (12, "M"),
}  # fmt: skip
ISO = re.compile(r"[12]\d{3}-\d\d-\d\d(T\d\d(:\d\d(:\d\d(\.\d{1,6})?)?)?)?")
FREQ = re.compile(r"(\d{0,6})[ _]?([A-Za-z_]+?)s?(?:-[A-Za-z]{3})?")


@dataclass(frozen=True)
class Series:
    """values: [T, D]; start, freq: as the file has them, or None."""

    name: str
    values: np.ndarray
    start: str | None = None
    freq: str | None = None


def dated_series(
    series: Sequence[Series], label: str, column: str, notes: Sequence[str] = ()
) -> Sequences:
    """Sequences with times where every series has a beginning and a frequency that are understood.

    Otherwise a note says why times are left out.
    """
    times, said = None, list(notes)
    if any(one.start is not None for one in series):
        found = [stamps(one) for one in series]
        missing = [one for one, stamp in zip(series, found, strict=True) if stamp is None]
        if not missing:
            times = np.concatenate([stamp for stamp in found if stamp is not None])
        else:
            one = missing[0]
            why = (
                f"'{one.name}' begins at '{one.start}' but has no frequency that is known "
                f"({'none is given' if one.freq is None else repr(one.freq)})"
                if one.start is not None
                else f"'{one.name}' does not say when it begins"
            )
            said.append(f"times are left out: {why}")
    return read_arrays(
        [one.values for one in series], [one.name for one in series], label, column, times, said
    )


def stamps(series: Series) -> np.ndarray | None:
    """The times of a series, datetime64[us] [T], or None where they cannot be known."""
    match = FREQ.fullmatch((series.freq or "").strip())
    unit = UNITS.get(match[2].lower().replace("_", "").removesuffix("-")) if match else None
    iso = _iso(series.start or "")
    if match is None or unit is None or not ISO.fullmatch(iso):
        return None
    try:
        start = np.datetime64(iso, "us")
    except ValueError:  # the 30th of February
        return None
    steps = np.arange(len(series.values)) * int(match[1] or 1) * unit[0]
    if unit[1] == "B":
        day = start.astype("datetime64[D]")
        return np.busday_offset(day, steps, roll="forward").astype("datetime64[us]")
    if unit[1] != "M":
        return start + steps.astype(f"timedelta64[{unit[1]}]")
    month = start.astype("datetime64[M]")
    day = start.astype("datetime64[D]").astype("datetime64[us]")
    clock = start - day
    within = day - month.astype("datetime64[us]")
    months = month + steps
    lengths = (months + 1).astype("datetime64[us]") - months.astype("datetime64[us]")
    one = np.timedelta64(1, "D")
    last = within == (month + 1).astype("datetime64[us]") - month.astype("datetime64[us]") - one
    shift = lengths - one if last else np.minimum(within, lengths - one)
    return months.astype("datetime64[us]") + shift + clock


def _iso(text: str) -> str:
    """`1979-01-01 00-00-00`, `2020-01-01 00:00:00Z` and their like as numpy takes them."""
    date, _, clock = text.strip().replace("T", " ").partition(" ")
    clock = clock.strip().removesuffix("Z").removesuffix("+00:00").replace("-", ":")
    return f"{date}T{clock}" if clock else date
