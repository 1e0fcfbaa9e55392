"""Columns of time stamps: the reading under which the data are regular, and where two are, asked.

A stamp such as 03/04/2021, 2019365 or 49 can be read in more than one way. Every way is tried on
the whole column; the one in which the fewest stamps fail, repeat or go back, and most follow each
other at one distance, is taken. Source of the formats: strftime, ISO 8601.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from throughtime.data import frequency
from throughtime.data.readers.numbers import plain
from throughtime.data.readers.stamps import (
    DIGITS,
    EPOCH_NAMES,
    EPOCHS,
    formats_of,
    from_numbers,
    looks_like_clock,
    looks_like_stamp,
    parse,
    shape,
    tidied,
    today,
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
CALENDAR_WORDS = ("year", "date", "ds", "time", "month", "day", "stamp", "quarter", "period",
                  "jahr", "datum", "monat", "zeit", "fecha", "yyyymm")  # fmt: skip
MOST_UNREAD = 0.1  # share of stamps that may fail
_SHAPES = 6  # different writings in one column


@dataclass(frozen=True)
class Times:
    """A column read as times.

    values: [height], datetime64[us] or numbers, NaT and NaN where a stamp cannot be read;
    form: the `time_format` that reads it so again; evidence: what that rests on; passed_over:
    other readings; notes: sentences.
    """

    values: np.ndarray
    form: str
    evidence: str = ""
    passed_over: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def unread(self) -> np.ndarray:
        return np.isnat(self.values) if self.values.dtype.kind == "M" else np.isnan(self.values)


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
        return _numbered(table, label, cells.cast(pl.Float64), time_format, groups)
    stripped, empty = plain(cells)
    stripped = pl.select(pl.when(~empty).then(stripped)).to_series()
    if stripped.null_count() == len(stripped):
        raise DataError(f"{table.label}: column '{label}' is empty: it has no times")
    plain_numbers = stripped.cast(pl.Float64, strict=False)
    if time_format in (*EPOCHS, "number", "excel"):
        return _numbered(table, label, plain_numbers, time_format, groups)
    zeros = _with_zeros(stripped)
    if time_format is None and zeros in (6, 8):
        form = "%y%m%d" if zeros == 6 else "%d%m%Y"
        if int(np.isnat(parse(stripped, form)).sum()) == stripped.null_count():
            return _written(table, label, stripped, None, groups, zone)
    if time_format is None and plain_numbers.null_count() <= stripped.null_count():
        return _numbered(table, label, plain_numbers, None, groups)
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
    tidy, ahead = tidied(cells)
    known = tidy.drop_nulls()
    if time_format is not None:
        forms = time_format.split("|")
        values = _by_all(tidy, forms)
        if np.isnat(values).all() and ahead is not None and re.search("%#?z", time_format):
            # The zone is cut off already: what is left of the format reads the rest.
            values = _by_all(tidy, [re.sub(r" ?%#?z", "", form) for form in forms])
        reading = _Reading(time_format, values, ())
        evidence, passed = "given", tuple[str, ...]()
        _check_unread(table, label, cells, values, f"a time that '{time_format}' reads")
    else:
        readings = _readings(tidy, known, groups)
        if not readings:
            raise DataError(_not_understood(table, label, cells))
        reading, evidence, passed = _best(readings, table, label, known[0])
        _check_unread(table, label, cells, reading.values, f"a time like '{known[0]}'")
    values, notes = reading.values, list[str]()
    if passed and evidence != "given":
        notes.append(
            f"times such as '{known[0]}' in column '{label}' are read as '{reading.form}', "
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


def _check_unread(
    table: Table, label: str, cells: pl.Series, values: np.ndarray, wanted: str
) -> None:
    """Raises DataError where too many stamps cannot be read to leave them out."""
    empty = cells.is_null().to_numpy()
    if empty.sum() > MOST_UNREAD * len(values):
        row = int(np.argmax(empty))
        raise DataError(f"{table.where(row)}: column '{label}': the time is empty")
    unread = np.isnat(values) & ~empty
    if unread.sum() <= MOST_UNREAD * max(len(values) - cells.null_count(), 1):
        return
    row = int(np.argmax(unread))
    count = int(unread.sum())
    more = "" if count == 1 else f"; nor are {count - 1:,} others"
    raise DataError(
        f"{table.where(row)}: column '{label}': '{cells[row]}' is not {wanted}{more}; say how it "
        f"is written with time_format=, or take rows as they come with time=False"
    )


def _readings(cells: pl.Series, known: pl.Series, groups: np.ndarray) -> list[_Reading]:
    """Every reading of a column that reads most of it."""
    readings = []
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
            readings.append(_Reading("|".join(forms), values, quality(values, groups)))
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


def quality(values: np.ndarray, groups: np.ndarray) -> tuple[float, ...]:
    """How plausible a reading is; the smaller the better, the first difference counts.

    Shares of stamps that fail, lie outside 1600 to 2200, occur twice in a series; whether they
    neither rise nor fall throughout; share of steps of another length than the usual one; share
    after today.
    """
    known = ~np.isnat(values)
    unread = 1 - float(known.mean())
    stamps, series = values[known], groups[known]
    if not len(stamps):
        return (1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    years = stamps.astype("datetime64[Y]").astype(np.int64) + 1970
    odd = float(((years < 1600) | (years > 2200)).mean())
    inside = np.diff(series) == 0
    steps = np.diff(stamps).astype(np.int64)[inside]
    monotone = not len(steps) or bool((steps >= 0).all() or (steps <= 0).all())
    order = np.lexsort((stamps, series))
    stamps, series = stamps[order], series[order]
    same = (np.diff(stamps).astype(np.int64) == 0) & (np.diff(series) == 0)
    kept = np.concatenate([[True], ~same])
    twice = 1 - float(kept.mean())
    late = float((values[known] > today() + np.timedelta64(366, "D")).mean())
    irregular = 1 - frequency.regularity(stamps[kept], series[kept])
    return (round(unread, 3), round(odd, 3), round(twice, 2), float(not monotone), irregular, late)


def _best(
    readings: Sequence[_Reading], table: Table, label: str, example: str
) -> tuple[_Reading, str, tuple[str, ...]]:
    """The best reading, what speaks for it, and the others.

    Raises: DataError where two different readings are equally plausible.
    """
    ordered = sorted(readings, key=lambda reading: reading.key)
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


# ------------------------------------------------------------------------------------ numbers


def _numbered(
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
        _check_unread(table, label, text, values, f"a time that '{form}' reads")
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
