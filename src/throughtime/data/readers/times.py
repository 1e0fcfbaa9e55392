"""Columns of time stamps: the reading under which the data are regular, and where two are, asked.

A stamp such as 03/04/2021, 2019365 or 49 can be read in more than one way. Every way is tried on
the whole column; the one in which the fewest stamps fail, repeat or go back, and most follow each
other at one distance, is taken. Source of the formats: strftime, ISO 8601.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from throughtime.data import frequency
from throughtime.data.readers.numbered import read_numbered
from throughtime.data.readers.numbers import plain
from throughtime.data.readers.readings import Times, check_unread, quality
from throughtime.data.readers.stamps import (
    EPOCHS,
    formats_of,
    looks_like_clock,
    looks_like_stamp,
    parse,
    shape,
    tidied,
)
from throughtime.data.readers.table import Table
from throughtime.errors import DataError, SettingError

if TYPE_CHECKING:
    import polars as pl

TIME_WORDS = ("time", "date", "ds", "day", "month", "year", "week", "quarter", "hour", "stamp",
              "datum", "zeit", "tag", "monat", "jahr", "fecha", "mes", "ano", "año", "heure",
              "annee", "année", "mois", "jour", "dia", "día", "hora", "period",
              "epoch")  # fmt: skip
SHORT_NAMES = ("t", "ts", "dt", "yr", "yyyymm", "yyyymmdd")
_SHAPES = 6  # different writings in one column


@dataclass(frozen=True)
class _Reading:
    form: str
    values: np.ndarray
    key: tuple[float, ...]


def named_like_time(name: str) -> bool:
    """Whether a column is called like one of times."""
    lowered = name.lower().strip()
    words = re.split(r"[^a-zäöüñé]+", re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower())
    return lowered in SHORT_NAMES or any(
        word == one
        or (len(one) > 3 and word.endswith(one))
        or (len(one) > 3 and word.startswith(one))
        for word in words
        for one in TIME_WORDS
    )


def looks_like_times(cells: pl.Series) -> bool:
    """Whether a column holds dates: by its type, or by most of its cells."""
    import polars as pl

    if cells.dtype in (pl.Date, pl.Datetime):
        return True
    if cells.dtype != pl.String:
        return False
    stripped, empty = plain(cells.head(2_000))
    sample = stripped.filter(~empty).head(200).to_list()
    if any(re.match(r"\d{1,2}\.00\.|00?\.\d{2}\.", cell) for cell in sample):
        return False  # 18.00.00 is a time of day
    return bool(sample) and sum(map(looks_like_stamp, sample)) * 10 >= len(sample) * 8


def looks_like_clocks(cells: pl.Series) -> bool:
    """Whether a column holds times of day without a date."""
    import polars as pl

    if cells.dtype == pl.Time:
        return True
    if cells.dtype != pl.String:
        return False
    sample = [cell for cell in cells.drop_nulls().head(200).to_list() if cell.strip()]
    if not any(re.search(r":|\..*\.|^0\d", cell.strip()) for cell in sample):
        return False  # 12.30 alone is a number, 08.30 is none
    return bool(sample) and all(map(looks_like_clock, sample))


def read_times(
    table: Table,
    names: Sequence[str],
    time_format: str | None,
    groups: np.ndarray,
    zone: str | None,
) -> Times:
    """The time stamps of a table, one for each row.

    names: the column, or several that make one stamp; groups: int64 [height], the series of each
    row; zone: of stamps that do not say one.
    Raises: DataError where it cannot be read, or can be read in two ways.
    """
    import polars as pl

    label = "+".join(names)
    cells = table.cells(names[0]) if len(names) == 1 else _joined(table, names)
    if cells.dtype == pl.Date:
        return Times(cells.cast(pl.Datetime("us")).to_numpy(), "date", "its type is a date")
    if cells.dtype == pl.Datetime:
        return _typed(cells, label, zone)
    if cells.dtype == pl.Null:
        raise DataError(f"{table.label}: column '{label}' is empty: it has no times")
    if cells.dtype != pl.String:
        return read_numbered(table, label, cells.cast(pl.Float64), time_format, groups)
    stripped, empty = plain(cells)
    if empty.any():
        stripped = pl.select(pl.when(~empty).then(stripped)).to_series()
    if stripped.null_count() == len(stripped):
        raise DataError(f"{table.label}: column '{label}' is empty: it has no times")
    plain_numbers = stripped.cast(pl.Float64, strict=False)
    if time_format in (*EPOCHS, "number", "excel"):
        return read_numbered(table, label, plain_numbers, time_format, groups)
    zeros = _with_zeros(stripped)
    if time_format is None and zeros in (6, 8):
        form = "%y%m%d" if zeros == 6 else "%d%m%Y"
        if int(np.isnat(parse(stripped, form)).sum()) == stripped.null_count():
            return _written(table, label, stripped, None, groups, zone)
    if time_format is None and plain_numbers.null_count() <= stripped.null_count():
        return read_numbered(table, label, plain_numbers, None, groups)
    return _written(table, label, stripped, time_format, groups, zone)


def _with_zeros(cells: pl.Series) -> int:
    """How many digits all cells have, where some begin with 0; else 0."""
    widths = cells.str.len_chars().drop_nulls().unique().to_list()
    zeros = bool(cells.str.contains(r"^0\d+$").any())
    return widths[0] if zeros and len(widths) == 1 else 0


def _typed(cells: pl.Series, label: str, zone: str | None) -> Times:
    values = cells.dt.cast_time_unit("us")
    own = getattr(cells.dtype, "time_zone", None)
    if own is None:
        stamps = values.to_numpy()
        if zone is not None:
            stamps, notes = _from_zone(stamps, zone, label)
            return Times(stamps, "date", "its type is a time", (), notes)
        return Times(stamps, "date", "its type is a time")
    utc = values.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    note = f"times in column '{label}' are converted to UTC"
    return Times(utc.to_numpy(), "date", f"its type is a time in {own}", (), (note,))


# ------------------------------------------------------------------------------ several columns


def _joined(table: Table, names: Sequence[str]) -> pl.Series:
    """One stamp from several columns: date and clock, or year, month, day, hour, minute, second."""
    import polars as pl

    columns = [table.cells(name) for name in names]
    if is_period(columns[-1], names[-1]):
        return _period_texts(columns, names)
    if any(looks_like_clocks(column) for column in columns[1:]) or not all(
        column.cast(pl.Float64, strict=False).null_count() <= column.null_count() + 1
        for column in columns
    ):
        texts = [column.cast(pl.String).str.strip_chars() for column in columns]
        joined = texts[0]
        for text in texts[1:]:
            joined = joined + " " + text
        return joined
    marks = ("", "-", "-", " ", ":", ":")
    if len(columns) > len(marks):
        raise SettingError(f"time= takes up to six columns, year to second, not {len(columns)}")
    joined = pl.Series([""]).new_from_index(0, table.height)
    for mark, column, width in zip(marks, columns, (4, 2, 2, 2, 2, 2), strict=False):
        number = column.cast(pl.Float64, strict=False).cast(pl.Int64, strict=False)
        joined = joined + mark + number.cast(pl.String).str.zfill(width)
    if len(columns) == 4:
        joined = joined + ":00"  # an hour alone
    return joined


def is_period(cells: pl.Series, name: str) -> str | None:
    """What a column beside one of years holds: "month" by name, "quarter", "week", "doy"."""
    import polars as pl

    words = cells.cast(pl.String).drop_nulls().unique().to_list()
    lowered = name.lower()
    if 1 < len(words) <= 12 and all(re.fullmatch(r"\s*[Qq][1-4]\s*", word) for word in words):
        return "quarter"
    dated = pl.Series([f"{word.strip()} 2000" for word in words], dtype=pl.String)
    if 1 < len(words) <= 12 and not np.isnat(parse(tidied(dated)[0], "%B %Y")).any():
        return "month"
    for kind, named, last in (
        ("quarter", ("quarter", "qtr", "quartal", "trimestre", "q"), 4),
        ("week", ("week", "kw", "woche", "semaine", "isoweek", "semana"), 53),
        ("doy", ("doy", "dayofyear", "day_of_year", "yday", "julian"), 366),
    ):
        numbers = [int(word) for word in words if re.fullmatch(r"\d{1,3}", word.strip())]
        if lowered in named and len(numbers) == len(words) and max(numbers, default=999) <= last:
            return kind if min(numbers) >= 1 else None
    return None


def _period_texts(columns: Sequence[pl.Series], names: Sequence[str]) -> pl.Series:
    """A year and a month by name, a quarter, a week or a day of the year as one stamp."""
    import polars as pl

    year, part = (column.cast(pl.String).str.strip_chars() for column in columns)
    kind = is_period(columns[1], names[1])
    if kind == "week":
        return year + "-W" + part.str.zfill(2)
    if kind == "doy":
        return year + "-" + part.str.zfill(3)
    return (part if kind == "month" else "Q" + part.str.strip_chars_start("Qq")) + " " + year


# --------------------------------------------------------------------------------- written stamps


def _written(
    table: Table,
    label: str,
    cells: pl.Series,
    time_format: str | None,
    groups: np.ndarray,
    zone: str | None,
) -> Times:
    ahead: np.ndarray | None = None
    evidence, passed = "given", tuple[str, ...]()
    example = cells.drop_nulls()[0]
    if time_format is not None:
        tidy, ahead = tidied(cells)
        reading = _Reading(time_format, _by_given(tidy, time_format, ahead is not None), ())
        check_unread(table, label, cells, reading.values, f"a time that '{time_format}' reads")
    else:
        readings = _complete(cells)
        if not readings:
            tidy, ahead = tidied(cells)
            example = tidy.drop_nulls()[0]
            readings = _readings(tidy)
        if not readings:
            raise DataError(_not_understood(table, label, cells))
        reading, evidence, passed = _best(readings, groups, table, label, example)
        check_unread(table, label, cells, reading.values, f"a time like '{example}'")
    values, notes = reading.values, list[str]()
    if passed and evidence != "given":
        notes.append(
            f"times such as '{example}' in column '{label}' are read as '{reading.form}', "
            f"{evidence}; time_format='{passed[0]}' reads them otherwise"
        )
    if "%y" in reading.form and time_format is None:
        first = frequency.show(np.nanmin(values), "us")[:4]
        notes.append(
            f"years of two digits in column '{label}' begin in {first}: no date lies after today; "
            f"another century: time_format='{_other_century(reading.form, first)}'"
        )
    if ahead is not None:
        values = values - ahead * np.timedelta64(60_000_000, "us")
        notes.append(f"times in column '{label}' are converted to UTC")
    elif zone is not None:
        values, more = _from_zone(values, zone, label)
        notes += more
    return Times(values, reading.form, evidence, passed, tuple(notes))


def _not_understood(table: Table, label: str, cells: pl.Series) -> str:
    """Why a column that should hold times is not read."""
    row = int(cells.is_not_null().arg_max() or 0)
    if looks_like_clocks(cells):
        return (
            f"{table.where(row)}: column '{label}': '{cells[row]}' is a time of day without a "
            f"date; name both columns, time='DATE,{label}', or take rows as they come with "
            f"time=False"
        )
    return (
        f"{table.where(row)}: column '{label}': '{cells[row]}' is not a time that is recognised; "
        f"say how it is written, for example time_format='%d.%m.%Y', or take rows as they come "
        f"with time=False"
    )


def _by_given(cells: pl.Series, time_format: str, zoned: bool) -> np.ndarray:
    """The column by the format that the user gave, or by several with a bar between."""
    forms = time_format.split("|")
    values = _by_all(cells, forms)
    if zoned and np.isnat(values).all() and re.search("%#?z", time_format):
        # The zone is cut off already: what is left of the format reads the rest.
        values = _by_all(cells, [re.sub(r" ?%#?z", "", form) for form in forms])
    return values


def _complete(cells: pl.Series) -> list[_Reading]:
    """The readings of every cell as it stands: nothing needs tidying where there are some."""
    readings = []
    for form in formats_of(cells.drop_nulls()[0]):
        for variant in _centuries(form):
            values = parse(cells, variant)
            if int(np.isnat(values).sum()) == cells.null_count():
                readings.append(_Reading(variant, values, ()))
    return readings


def _readings(cells: pl.Series) -> list[_Reading]:
    """Every reading of a tidied column."""
    readings = []
    known = cells.drop_nulls()
    others: list[str] | None = None
    for form in formats_of(known[0]) or _formats_of_most(known):
        for variant in _centuries(form):
            values = parse(cells, variant)
            if np.isnat(values).all():
                continue
            forms = [variant]
            if int(np.isnat(values).sum()) > cells.null_count():
                others = _other_shapes(known) if others is None else others
                values, forms = _filled(cells, values, forms, others)
            readings.append(_Reading("|".join(forms), values, ()))
    return readings


def _formats_of_most(known: pl.Series) -> list[str]:
    """Formats of the first cell that has any: the very first may be damaged."""
    return next((forms for cell in known.head(50) if (forms := formats_of(cell))), [])


def _centuries(form: str) -> list[str]:
    return (
        [form, form.replace("%y", "20%y"), form.replace("%y", "19%y")] if "%y" in form else [form]
    )


def _century_free(form: str) -> str:
    return re.sub("(19|20)%y", "%y", form)


def _other_century(form: str, first: str) -> str:
    return form.replace("%y", f"{'19' if first.startswith('20') else '20'}%y")


def _other_shapes(known: pl.Series) -> list[str]:
    """One cell of each of the most frequent writings."""
    import polars as pl

    frame = pl.DataFrame({"cell": known, "shape": shape(known)})
    counted = frame.group_by("shape").agg(pl.first("cell"), pl.len()).sort("len", descending=True)
    return list(counted["cell"].head(_SHAPES))


def _filled(
    cells: pl.Series, values: np.ndarray, forms: list[str], examples: list[str]
) -> tuple[np.ndarray, list[str]]:
    """Cells of other writings read by a format that has day and month in the same order."""
    order = _day_first(forms[0])
    for example in examples:
        if not np.isnat(values).any():
            break
        others = formats_of(example)
        if forms[0] in others:
            continue  # written alike: another order of day and month would read anything
        others.sort(key=lambda form: _day_first(form) not in (order, None))
        for form in others[:1]:
            more = parse(cells, form)
            if (np.isnat(values) & ~np.isnat(more)).any():
                values = np.where(np.isnat(values), more, values)
                forms = [*forms, form]
    return values, forms


def _day_first(form: str) -> bool | None:
    day, month = form.find("%d"), form.find("%m")
    return None if min(day, month) < 0 else day < month


def _by_all(cells: pl.Series, forms: Sequence[str]) -> np.ndarray:
    values = parse(cells, forms[0])
    for form in forms[1:]:
        values = np.where(np.isnat(values), parse(cells, form), values)
    return values


def _best(
    readings: Sequence[_Reading], groups: np.ndarray, table: Table, label: str, example: str
) -> tuple[_Reading, str, tuple[str, ...]]:
    """The best reading, what speaks for it, and the others.

    Raises: DataError where two different readings are equally plausible.
    """
    if len(readings) == 1:
        return readings[0], "the only reading of all of it", ()
    judged = [replace(one, key=quality(one.values, groups)) for one in readings]
    ordered = sorted(judged, key=lambda reading: reading.key)
    best = ordered[0]
    others = [
        reading
        for reading in ordered[1:]
        if not np.array_equal(reading.values, best.values, equal_nan=True)
        # The century of two digits is not asked for: it is said.
        and _century_free(reading.form) != _century_free(best.form)
    ]
    if not others:
        return best, "the only reading of all of it", ()
    other = others[0]
    aspects = ("more stamps are read", "the years are plausible", "no stamp occurs twice",
               "they run in order", "they are regular", "none lies after today")  # fmt: skip
    for place, (mine, theirs) in enumerate(zip(best.key, other.key, strict=True)):
        if abs(mine - theirs) > (0.1 if place == 4 else 0.0):
            whole = [one.form for one in others if one.key[0] <= best.key[0]]
            return best, f"so {aspects[place]}", tuple(whole)
    raise DataError(
        f"{table.label}: column '{label}': '{example}' can be read in two ways under which the "
        f"data are equally regular: time_format='{best.form}' or time_format='{other.form}'"
    )


# -------------------------------------------------------------------------------------- zones


def _from_zone(values: np.ndarray, zone: str, label: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """Local stamps as UTC: the hour that occurs twice in autumn is the earlier one first."""
    import polars as pl

    frame = pl.DataFrame({"stamp": values})
    seen = frame.select(pl.int_range(pl.len()).over("stamp") > 0).to_series()
    sides = pl.select(
        pl.when(seen).then(pl.lit("latest")).otherwise(pl.lit("earliest"))
    ).to_series()
    try:
        local = (
            frame.with_columns(sides.alias("side"))
            .select(
                pl.col("stamp").dt.replace_time_zone(
                    zone, ambiguous=pl.col("side"), non_existent="null"
                )
            )
            .to_series()
        )
    except (pl.exceptions.PolarsError, ValueError) as error:
        raise SettingError(f"zone='{zone}' is no time zone; one is 'Europe/Berlin'") from error
    gone = int(local.null_count() - np.isnat(values).sum())
    notes = [f"times in column '{label}' are taken for {zone} and converted to UTC"]
    if gone:
        notes.append(
            f"{gone:,} times do not exist in {zone} (clocks went forward) and are left out"
        )
    utc = local.dt.convert_time_zone("UTC").dt.replace_time_zone(None)
    return utc.to_numpy(), tuple(notes)
