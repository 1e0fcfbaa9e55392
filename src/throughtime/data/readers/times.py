"""Time stamps: from cells of text or numbers to datetime64[us] or numbers, formats made explicit.

A format is tried on the whole column; a column that two formats fit is read month first and says
so in a note, unless only one of the two leaves the rows in order.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from throughtime.data.readers.table import Table
from throughtime.errors import DataError

if TYPE_CHECKING:
    import polars as pl

# Pattern of one stamp -> formats that may read it. Months by name: %B takes "Jan" and "January".
DATES = (
    (r"\d{4}-\d{1,2}-\d{1,2}", ("%Y-%m-%d",)),
    (r"\d{4}/\d{1,2}/\d{1,2}", ("%Y/%m/%d",)),
    (r"\d{4}\.\d{1,2}\.\d{1,2}", ("%Y.%m.%d",)),
    (r"\d{1,2}/\d{1,2}/\d{4}", ("%m/%d/%Y", "%d/%m/%Y")),
    (r"\d{1,2}/\d{1,2}/\d{2}", ("%m/%d/%y", "%d/%m/%y")),
    (r"\d{1,2}-\d{1,2}-\d{4}", ("%m-%d-%Y", "%d-%m-%Y")),
    (r"\d{1,2}\.\d{1,2}\.\d{4}", ("%d.%m.%Y",)),
    (r"\d{1,2}\.\d{1,2}\.\d{2}", ("%d.%m.%y",)),
    (r"[A-Za-z]{3,9} \d{1,2} \d{4}", ("%B %d %Y",)),
    (r"[A-Za-z]{3,9} \d{1,2}, \d{4}", ("%B %d, %Y",)),
    (r"\d{1,2} [A-Za-z]{3,9} \d{4}", ("%d %B %Y",)),
    (r"\d{1,2}-[A-Za-z]{3,9}-\d{4}", ("%d-%B-%Y",)),
    (r"\d{1,2}-[A-Za-z]{3,9}-\d{2}", ("%d-%B-%y",)),
)
CLOCKS = (
    (r"", ("",)),
    (r" \d{1,2}:\d{2}", (" %H:%M",)),
    (r"T\d{1,2}:\d{2}", ("T%H:%M",)),
    (r" \d{1,2}:\d{2}:\d{2}(\.\d+)?", (" %H:%M:%S", " %H:%M:%S%.f")),
    (r"T\d{1,2}:\d{2}:\d{2}(\.\d+)?", ("T%H:%M:%S", "T%H:%M:%S%.f")),
    (r" \d{1,2}:\d{2} ?[AaPp][Mm]", (" %I:%M %p", " %I:%M%p")),
    (r" \d{1,2}:\d{2}:\d{2} ?[AaPp][Mm]", (" %I:%M:%S %p", " %I:%M:%S%p")),
)
ZONES = ((r"", ""), (r"(Z|[+-]\d{2}:?\d{2})", "%#z"), (r" [+-]\d{2}:?\d{2}", " %#z"))
MONTHS = (
    (r"\d{4}-\d{1,2}", ("%Y-%m",)),
    (r"\d{4}/\d{1,2}", ("%Y/%m",)),
    (r"[A-Za-z]{3,9} \d{4}", ("%B %Y",)),
    (r"[A-Za-z]{3,9}-\d{4}", ("%B-%Y",)),
    (r"[A-Za-z]{3}-\d{2}", ("%B-%y",)),
)
QUARTER = r"\d{4}[ -]?Q[1-4]"
EPOCHS = {"epoch": 1_000_000, "epoch_ms": 1_000}  # microseconds in one
CALENDAR_NAMES = ("year", "date", "ds", "time", "month", "day", "datetime", "timestamp")


@dataclass(frozen=True)
class Times:
    """values [height]: datetime64[us], or int64/float64 for numbered steps; notes: sentences."""

    values: np.ndarray
    notes: tuple[str, ...] = ()


def formats_of(stamp: str) -> list[str]:
    """The formats that a stamp may have; none for one that is no date."""
    if re.fullmatch(QUARTER, stamp):
        return ["quarter"]
    for pattern, formats in MONTHS:
        if re.fullmatch(pattern, stamp):
            return list(formats)
    return [
        day + clock + zone_format
        for date_pattern, days in DATES
        if re.match(date_pattern, stamp)
        for clock_pattern, clocks in CLOCKS
        for zone_pattern, zone_format in ZONES
        if re.fullmatch(date_pattern + clock_pattern + zone_pattern, stamp)
        for day in days
        for clock in clocks
    ]


def looks_like_dates(cells: pl.Series) -> bool:
    """Whether the first cells of a column are dates: by type, or by a format that reads them."""
    import polars as pl

    if cells.dtype in (pl.Date, pl.Datetime):
        return True
    if cells.dtype != pl.String:
        return False
    sample = cells.str.strip_chars().drop_nulls().head(50)
    first = next((stamp for stamp in sample if stamp), "")
    return any(_parse(sample, form).null_count() * 2 < len(sample) for form in formats_of(first))


def read_times(table: Table, name: str, time_format: str | None, groups: np.ndarray) -> Times:
    """The time stamps of a table, one for each row.

    groups: int64 [height], the series of each row; settles day-first against month-first.
    Raises: DataError naming the first stamp that is empty or cannot be read.
    """
    import polars as pl

    cells = table.cells(name)
    if cells.dtype == pl.String:
        cells = cells.str.strip_chars()
        cells = cells.set(cells == "", None)
    if cells.null_count():
        row = int(cells.is_null().arg_max() or 0)
        raise DataError(f"{table.where(row)}: column '{name}': the time is empty")
    if cells.dtype == pl.Date:
        return Times(cells.cast(pl.Datetime("us")).to_numpy())
    if cells.dtype == pl.Datetime:
        zone = getattr(cells.dtype, "time_zone", None)
        values = cells.dt.cast_time_unit("us").dt.replace_time_zone(None)
        if zone is None:
            return Times(values.to_numpy())
        utc = cells.dt.cast_time_unit("us").dt.convert_time_zone("UTC").dt.replace_time_zone(None)
        return Times(utc.to_numpy(), (f"times in column '{name}' are converted to UTC",))
    if time_format in EPOCHS:
        return _epoch(table, name, EPOCHS[time_format])
    if cells.dtype == pl.String:
        if time_format is not None:
            return _choose(table, name, cells, [time_format], groups, asked=True)
        if cells.head(100).cast(pl.Float64, strict=False).null_count():
            return _choose(table, name, cells, formats_of(cells[0]), groups)
    return _numbered(table, name)


def _epoch(table: Table, name: str, size: int) -> Times:
    numbers = _no_gaps(table, name)
    try:
        stamps = np.round(numbers * size).astype(np.int64)
    except (OverflowError, ValueError) as error:
        raise DataError(f"{table.label}: column '{name}' is too large for a time") from error
    return Times(stamps.astype("datetime64[us]"), (f"times in column '{name}' are UTC",))


def _no_gaps(table: Table, name: str) -> np.ndarray:
    numbers = table.numbers(name)
    if np.isnan(numbers).any():
        row = int(np.argmax(np.isnan(numbers)))
        raise DataError(f"{table.where(row)}: column '{name}': the time is empty")
    return numbers


def _numbered(table: Table, name: str) -> Times:
    """Years, YYYYMMDD dates, or plain numbers."""
    import polars as pl

    numbers = _no_gaps(table, name)
    whole = bool((numbers == np.round(numbers)).all())
    if not whole:
        return Times(numbers)
    low, high = numbers.min(), numbers.max()
    calendar = any(word in name.lower() for word in CALENDAR_NAMES)
    if calendar and low >= 1000 and high < 3000:
        years = numbers.astype(np.int64) - 1970
        return Times(
            years.astype("datetime64[Y]").astype("datetime64[us]"),
            (f"column '{name}' is read as years",),
        )
    if calendar and low >= 1000_01_01 and high <= 2999_12_31:
        text = pl.Series(numbers.astype(np.int64)).cast(pl.String)
        stamps = _parse(text, "%Y%m%d")
        if stamps.null_count() == 0:
            return Times(stamps.to_numpy(), (f"column '{name}' is read as dates, YYYYMMDD",))
    notes: tuple[str, ...] = ()
    for form, size in EPOCHS.items():
        if low >= 3e8 * (1_000_000 // size) and high < 4e9 * (1_000_000 // size):
            unit = "seconds" if form == "epoch" else "milliseconds"
            notes = (
                f"column '{name}' is read as plain numbers; time_format='{form}' reads it as "
                f"{unit} since 1970",
            )
    return Times(numbers.astype(np.int64) if abs(high) < 2**53 else numbers, notes)


def _choose(
    table: Table,
    name: str,
    cells: pl.Series,
    formats: list[str],
    groups: np.ndarray,
    asked: bool = False,
) -> Times:
    """Reads the column by the one format that fits all of it."""
    if not formats:
        raise DataError(
            f"{table.where(0)}: column '{name}': '{cells[0]}' is not a time that is recognised; "
            f"say how it is written, for example time_format='%d.%m.%Y'"
        )
    read: dict[str, pl.Series] = {}
    for form in formats:
        read[form] = _parse(cells, form)
        if read[form].null_count() == 0 and not _twin(form, formats):
            break  # no other format can say anything else
    complete = [form for form in read if read[form].null_count() == 0]
    if not complete:
        form = min(read, key=lambda key: read[key].null_count())
        row = int(read[form].is_null().arg_max() or 0)
        wanted = f"a time written as '{form}'" if asked else f"a date like '{cells[0]}'"
        if asked or row == 0:
            wanted = f"a time that '{form}' reads"
        raise DataError(f"{table.where(row)}: column '{name}': '{cells[row]}' is not {wanted}")
    notes: list[str] = []
    chosen = complete[0]
    twin = _twin(chosen, complete)
    if twin is not None:
        ordered = [form for form in (chosen, twin) if _in_order(read[form].to_numpy(), groups)]
        chosen = ordered[0] if ordered else chosen
        other = twin if chosen != twin else complete[0]
        first = "month" if chosen.startswith("%m") else "day"
        notes.append(
            f"dates such as '{cells[0]}' in column '{name}' are read {first} first; "
            f"time_format='{other}' reads them the other way"
        )
    if "%#z" in chosen or "%z" in chosen:
        notes.append(f"times in column '{name}' are converted to UTC")
    return Times(read[chosen].to_numpy().astype("datetime64[us]"), tuple(notes))


def _twin(form: str, formats: list[str]) -> str | None:
    """The same format with day and month exchanged, when it is among `formats`."""
    swap = {"%m": "%d", "%d": "%m"}
    twin = re.sub("%[md]", lambda match: swap[match[0]], form)
    return twin if twin != form and twin in formats else None


def _in_order(stamps: np.ndarray, groups: np.ndarray) -> bool:
    order = np.argsort(groups, kind="stable")
    stamps, groups = stamps[order], groups[order]
    return bool(((np.diff(stamps).astype(np.int64) > 0) | (np.diff(groups) != 0)).all())


def _parse(cells: pl.Series, form: str) -> pl.Series:
    """The column as datetimes without a zone, null where the format does not fit."""
    import polars as pl

    if form == "quarter":
        year, quarter = cells.str.slice(0, 4), cells.str.slice(-1, 1)
        month = (quarter.cast(pl.Int64, strict=False) * 3 - 2).cast(pl.String)
        fits = cells.str.contains(f"^{QUARTER}$")
        cells = pl.select(pl.when(fits).then(year + "-" + month)).to_series()
        form = "%Y-%m"
    if form in ("%Y-%m", "%Y/%m"):
        cells, form = cells + "-1", form + "-%d"  # reads months of one digit, too
    try:
        stamps = cells.str.to_datetime(form, strict=False, time_unit="us")
    except pl.exceptions.PolarsError as error:
        raise DataError(f"time_format='{form}' is not a time format: use %Y, %m, %d, …") from error
    return stamps.dt.replace_time_zone(None)
