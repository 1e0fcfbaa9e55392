"""Numbers as times: years, dates without marks, times since 1970, days as Excel counts them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from throughtime.data import frequency
from throughtime.data.readers.readings import MOST_UNREAD, Times, check_unread, quality
from throughtime.data.readers.stamps import (
    DIGITS,
    EPOCH_NAMES,
    EPOCHS,
    from_numbers,
    parse,
)
from throughtime.data.readers.table import Table
from throughtime.errors import DataError

if TYPE_CHECKING:
    import polars as pl

CALENDAR_WORDS = ("year", "date", "ds", "time", "month", "day", "stamp", "quarter", "period",
                  "jahr", "datum", "monat", "zeit", "fecha", "yyyymm")  # fmt: skip


def read_numbered(
    table: Table, label: str, cells: pl.Series, time_format: str | None, groups: np.ndarray
) -> Times:
    """Years, dates written as numbers, epochs, days as Excel counts them, or plain numbers."""
    numbers = cells.fill_null(float("nan")).to_numpy().astype(np.float64)
    numbers = np.where(np.isinf(numbers), np.nan, numbers)
    if np.isnan(numbers).sum() > MOST_UNREAD * len(numbers):
        row = int(np.argmax(np.isnan(numbers)))
        cell = table.cells(label)[row] if label in table.columns else None
        empty = cell is None or not str(cell).strip()
        problem = "the time is empty" if empty else f"'{str(cell).strip()}' is not a time"
        raise DataError(f"{table.where(row)}: column '{label}': {problem}")
    known = numbers[np.isfinite(numbers)]
    if not len(known):
        raise DataError(f"{table.label}: column '{label}' is empty: it has no times")
    if time_format in EPOCHS or time_format == "excel":
        values = from_numbers(numbers, time_format)
        _check_years(table, label, numbers, values, time_format)
        return Times(values, time_format, "given", (), (f"times in column '{label}' are UTC",))
    if time_format == "number":
        return Times(_whole(numbers), "number", "given")
    whole = bool((known == np.round(known)).all())
    if time_format is not None:
        return _digits(table, label, numbers, time_format, strict=True)
    calendar = any(word in label.lower() for word in CALENDAR_WORDS)
    epoch = epoch_of(known)
    if epoch is not None and (whole or calendar):
        return _as_epoch(table, label, numbers, epoch)
    _check_units(table, label, numbers)
    if not whole:
        return Times(numbers, "number", "plain numbers")
    for form in _digit_forms(known, calendar):
        times = _digits(table, label, numbers, form, strict=False)
        if np.isnat(times.values).sum() > MOST_UNREAD * len(numbers):
            continue
        values = times.values[~np.isnat(times.values)]
        sorted_key = quality(times.values, groups)
        named = calendar or form == "%Y%m%d"
        if sorted_key[1] == 0 and len(values) and (named or sorted_key[4] < 0.1):
            return times
    recent = 30_000 <= known.max() < 55_000  # 1982 to 2050; SAS and R count from other days
    if calendar and known.min() >= 20_000 and recent and "date" in label.lower():
        values = from_numbers(numbers, "excel")
        note = f"column '{label}' is read as days since 1899-12-30, as Excel counts them"
        return Times(values, "excel", "its name is that of a date", ("number",), (note,))
    return Times(_whole(numbers), "number", "plain numbers")


def _whole(numbers: np.ndarray) -> np.ndarray:
    """As integers where they are such and none is missing."""
    exact = np.isfinite(numbers).all() and (np.abs(numbers) < 2**53).all()
    return numbers.astype(np.int64) if exact and (numbers == np.round(numbers)).all() else numbers


def _digit_forms(known: np.ndarray, calendar: bool) -> list[str]:
    """Formats by the number of digits, where all have as many."""
    low, high = len(f"{known.min():.0f}"), len(f"{known.max():.0f}")
    if low != high or known.min() < 0 or (low == 4 and not calendar):
        return []
    if low == 4 and not (known.min() >= 1000 and known.max() < 3000):
        return []
    return [form for form in DIGITS.get(low, ()) if form not in EPOCHS]


def _digits(table: Table, label: str, numbers: np.ndarray, form: str, strict: bool) -> Times:
    """Numbers that are dates without marks: 2019, 201912, 20191231."""
    import polars as pl

    exact = np.where(np.isfinite(numbers), numbers, -1).astype(np.int64)
    text = pl.Series(exact).cast(pl.String)
    values = parse(text, form)
    if strict:
        check_unread(table, label, text, values, f"a time that '{form}' reads")
    names = {"%Y": "years", "%Y%m": "months, YYYYMM", "%Y%m%d": "dates, YYYYMMDD",
             "%Y%j": "days of the year, YYYYDDD"}  # fmt: skip
    note = f"column '{label}' is read as {names.get(form, f'times, {form}')}"
    return Times(values, form, "its digits are dates", ("number",), (note,))


def epoch_of(known: np.ndarray) -> str | None:
    """The unit in which numbers are times of our day: seconds from 1989 to 2096, and so on."""
    for form, size in EPOCHS.items():
        seconds = known * size / 1e6
        if seconds.min() >= 6e8 and seconds.max() < 4e9:
            return form
    return None


def _check_units(table: Table, label: str, numbers: np.ndarray) -> None:
    """Raises DataError for times since 1970 whose unit changes on the way."""
    unit = np.full(len(numbers), -1)
    for place, size in enumerate(EPOCHS.values()):
        seconds = numbers * size / 1e6
        unit[(seconds >= 6e8) & (seconds < 4e9)] = place
    if (unit < 0).any():
        return
    names = list(EPOCH_NAMES.values())
    row = int(np.argmax(unit != unit[0]))
    raise DataError(
        f"{table.where(row)}: column '{label}': {numbers[row]:.0f} is in {names[unit[row]]} since "
        f"1970, the rows before are in {names[unit[0]]}: bring them into one unit"
    )


def _as_epoch(table: Table, label: str, numbers: np.ndarray, form: str) -> Times:
    values = from_numbers(numbers, form)
    digits = len(f"{np.nanmax(numbers):.0f}")
    if digits in (10, 12) and form == "epoch":
        dated = parse(_texts(numbers), "%Y%m%d%H")
        if (
            not np.isnat(dated).any()
            and quality(dated, np.zeros(len(dated)))[3:]
            < quality(values, np.zeros(len(values)))[3:]
        ):
            note = f"column '{label}' is read as times, %Y%m%d%H"
            return Times(dated, "%Y%m%d%H", "its digits are dates", (form,), (note,))
    first = frequency.show(np.nanmin(values), "us")
    note = (
        f"column '{label}' is read as {EPOCH_NAMES[form]} since 1970, the first {first} (UTC); "
        f"time_format='number' keeps plain numbers"
    )
    return Times(values, form, f"so the first is {first}", ("number",), (note,))


def _texts(numbers: np.ndarray) -> pl.Series:
    import polars as pl

    return pl.Series(np.where(np.isfinite(numbers), numbers, -1).astype(np.int64)).cast(pl.String)


def _check_years(
    table: Table, label: str, numbers: np.ndarray, values: np.ndarray, form: str
) -> None:
    """Raises DataError where a unit puts stamps into years that nobody means."""
    years = values.astype("datetime64[Y]").astype(np.int64) + 1970
    odd = np.isfinite(numbers) & (np.isnat(values) | (years < 1900) | (years > 2200))
    early = (years < 1975) & (years > 1969)
    if early.all() and epoch_of(numbers[np.isfinite(numbers)]) is not None:
        odd = early  # in another unit they lie in our day
    if form == "excel" or not odd.any():
        return
    row = int(np.argmax(odd))
    year = 1970 + numbers[row] * EPOCHS[form] / 1e6 / 31_556_952
    fitting = epoch_of(numbers[row : row + 1])
    hint = ""
    if fitting is not None:
        year_then = str(from_numbers(numbers[row : row + 1], fitting)[0])[:4]
        hint = f"; time_format='{fitting}' makes it {year_then}"
        if not odd.all():
            hint = f"; it is in {EPOCH_NAMES[fitting]}, the rows before are in {EPOCH_NAMES[form]}"
    raise DataError(
        f"{table.where(row)}: column '{label}': {numbers[row]:.0f} {EPOCH_NAMES[form]} since 1970 "
        f"is the year {year:,.0f}{hint}"
    )
