"""Which column is what: time, series, values. What the user leaves open is found out, and said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from throughtime.data.readers.files import quoted
from throughtime.data.readers.numbered import epoch_of
from throughtime.data.readers.numbers import plain
from throughtime.data.readers.options import Options
from throughtime.data.readers.plan import ReadPlan
from throughtime.data.readers.stamps import column_times, parse
from throughtime.data.readers.table import Table
from throughtime.data.readers.times import (
    SHORT_NAMES,
    is_period,
    looks_like_clocks,
    looks_like_times,
    named_like_time,
)
from throughtime.errors import DataError, SettingError

USUAL = ("ds", "date", "datetime", "timestamp", "time", "t")
_PARTS = (
    ("year", "yr", "jahr", "año", "annee", "année"),
    ("month", "mon", "mo", "monat", "mes", "mois"),
    ("day", "dy", "tag", "dia", "día", "jour"),
    ("hour", "hr", "stunde", "hora", "heure"),
    ("minute", "min", "mn"),
    ("second", "sec"),
)
_RANGES = ((1000, 2999), (1, 12), (1, 31), (0, 24), (0, 59), (0, 60))
_COUNTERS = ("id", "index", "idx", "no", "nr", "num", "number", "row", "rownum", "rowid",
             "unnamed: 0", "column_1")  # fmt: skip
_FEWEST = 5  # columns called by dates that make series in rows


@dataclass(frozen=True)
class Roles:
    """time, id: names of columns, several where they belong together; time () for none."""

    time: tuple[str, ...] = ()
    value: tuple[str, ...] = ()
    id: tuple[str, ...] = ()
    covariates: tuple[str, ...] = ()
    layout: Literal["columns", "rows"] = "columns"
    plan: ReadPlan = field(default_factory=ReadPlan)
    notes: tuple[str, ...] = ()

    def noted(self, *notes: str) -> Roles:
        return replace(self, notes=(*self.notes, *notes))

    def decided(
        self, name: str, value: object, evidence: str, passed_over: Sequence[str] = ()
    ) -> Roles:
        return replace(self, plan=self.plan.with_entry(name, value, evidence, tuple(passed_over)))


def choose(table: Table, options: Options) -> Roles:
    """The roles of the columns of a table.

    Raises: DataError for names that do not exist and for choices that only the user can make.
    """
    known = set(table.columns)
    everything = options.value == ("*",) and "*" not in known
    roles = Roles(
        time=_several(options.time, known) if options.time else (),
        value=() if everything else options.value,
        id=_several(options.id, known) if options.id else (),
        covariates=options.covariates,
        plan=table.plan,
    )
    searched = options.time is None
    if {"ds", "y"} <= known or {"unique_id", "ds"} <= known:  # covariates alone have no y
        roles = _long_format(roles, known, searched, everything)
        searched = searched and not roles.time
    used = [table.check(n) for n in (*roles.time, *roles.id, *roles.value, *roles.covariates)]
    for index, name in enumerate(used):
        if name in used[:index]:
            raise SettingError(f"column '{name}' is named twice among time, id, value, covariates")
    left = [name for name in table.columns if name not in used]
    table.load(table.columns if searched or not roles.value else used)
    rows = options.layout == "rows"
    if not rows and options.layout is None and not roles.value and not roles.time:
        rows = _steps_in_columns(table, left) is not None
    if rows:
        return replace(roles, layout="rows")
    if searched:
        roles = _find_time(table, roles, left, options)
    elif roles.time:
        roles = roles.decided("time", roles.time, "given" if options.time else "its name")
    left = [name for name in left if name not in (*roles.time, *roles.id)]
    if not roles.value:
        return _find_value(table, roles, left, everything)
    return roles.decided("value", roles.value, "given" if options.value else "its name")


def _several(given: str | tuple[str, ...], known: set[str]) -> tuple[str, ...]:
    """One name, several, or several in one text: `"date,time"`."""
    if not isinstance(given, str):
        return given
    parts = tuple(part.strip() for part in given.split(","))
    return parts if given not in known and len(parts) > 1 else (given,)


def _long_format(roles: Roles, known: set[str], searched: bool, everything: bool) -> Roles:
    return replace(
        roles,
        time=("ds",) if searched else roles.time,
        value=roles.value or (("y",) if "y" in known and not everything else ()),
        id=roles.id or (("unique_id",) if "unique_id" in known else ()),
    )


# ------------------------------------------------------------------------------------------- time


def _find_time(table: Table, roles: Roles, left: Sequence[str], options: Options) -> Roles:
    """The column of times, or several that make one."""
    dated = [name for name in left if looks_like_times(table.cells(name))]
    usual = [name for name in dated if name.lower() in USUAL]
    if len(dated) > 1:
        dated = usual if len(usual) == 1 else _different(table, dated)
    if len(dated) > 1:
        raise DataError(
            f"{table.label}: {len(dated)} columns hold times: {quoted(dated, 5)}; choose one with "
            f"time="
        )
    if dated:
        return _with_clock(table, roles, dated[0], left)
    parts = _calendar_parts(table, left)
    if parts:
        words = " and ".join(f"'{name}'" for name in parts)
        return replace(roles, time=parts).decided(
            "time", parts, "their names are parts of a date"
        ).noted(f"time is made of the columns {words}")  # fmt: skip
    named = [name for name in left if named_like_time(name)]
    numbered = [name for name in named if table.numeric(name)]
    numbered += [
        name for name in left if name not in named and table.numeric(name) and _compact(table, name)
    ]
    numbered = [name for name in numbered if _whole_or_rising(table, name)]
    if len(numbered) > 1:
        best = [name for name in numbered if name.lower() in (*USUAL, *SHORT_NAMES, "year")]
        numbered = (
            best[:1] or [name for name in numbered if _rises(table, name)][:1] or numbered[:1]
        )
    if numbered and (roles.value or len(left) > 1):
        name = numbered[0]
        return replace(roles, time=(name,)).decided(
            "time", (name,), "its name is that of a time, its cells are numbers"
        ).noted(f"time is the column '{name}'")  # fmt: skip
    unread = [name for name in named if _written_with_digits(table, name)]
    if unread:
        return _unread_time(table, roles, unread[0])
    counter = _evenly_counting(table, left)
    if counter is not None:
        return replace(roles, time=(counter,)).decided(
            "time", (counter,), "the first column, it counts in equal steps"
        ).noted(f"time is the column '{counter}', which counts in equal steps")  # fmt: skip
    if options.time_format is not None:
        raise SettingError("time_format needs time=, the column that it describes")
    return roles.decided("time", None, "no column holds times", left).noted(
        "no time column: rows in file order"
    )


def _unread_time(table: Table, roles: Roles, name: str) -> Roles:
    """A column that is called like a time: its reader says what is wrong with it."""
    return replace(roles, time=(name,)).decided("time", (name,), "its name is that of a time")


def _different(table: Table, dated: list[str]) -> list[str]:
    """Columns of dates that change from row to row, or the only one with a name of a time."""
    changing = [name for name in dated if table.cells(name).n_unique() > 1]
    named = [name for name in changing if named_like_time(name)]
    return named if len(named) == 1 else changing or dated


def _with_clock(table: Table, roles: Roles, date: str, left: Sequence[str]) -> Roles:
    """A date, and the column with its time of day where it has none itself."""
    cells = table.cells(date)
    rest = [name for name in left if name != date]
    clocks = [name for name in rest if looks_like_clocks(table.cells(name))]
    import polars as pl

    bare = cells.dtype == pl.Date or (
        cells.dtype == pl.String
        and not cells.head(50).str.contains(r"\d[:T]\d|\d \d{1,2}[.:]").any()
    )
    repeated = bare and cells.n_unique() < len(cells)
    if bare and not clocks and repeated:
        clocks = [
            name
            for name in rest
            if name.lower() in (*_PARTS[3], "time", "he") and _within(table, name, _RANGES[3])
        ]
    if bare and len(clocks) == 1 and repeated:
        return replace(roles, time=(date, clocks[0])).decided(
            "time", (date, clocks[0]), "a date and a time of day"
        ).noted(f"time is made of the columns '{date}' and '{clocks[0]}'")  # fmt: skip
    return replace(roles, time=(date,)).decided(
        "time", (date,), "its cells are dates"
    ).noted(f"time is the column '{date}'")  # fmt: skip


def _within(table: Table, name: str, bounds: tuple[int, int]) -> bool:
    """Whether a column holds whole numbers between two bounds."""
    if not table.numeric(name):
        return False
    numbers = table.numbers(name).values
    known = numbers[~np.isnan(numbers)]
    low, high = bounds
    return bool(len(known) and (known == np.round(known)).all()) and bool(
        known.min() >= low and known.max() <= high
    )


def _calendar_parts(table: Table, left: Sequence[str]) -> tuple[str, ...]:
    """Columns of years, months, days, … from the year on, as far as there are any."""
    found: list[str] = []
    for names, bounds in zip(_PARTS, _RANGES, strict=True):
        name = next(
            (one for one in left if one.lower() in names and _within(table, one, bounds)), None
        )
        if name is None:
            break
        found.append(name)
    if len(found) == 1:
        found += [name for name in left if is_period(table.cells(name), name)][:1]
    return tuple(found) if len(found) > 1 else ()


def _compact(table: Table, name: str) -> bool:
    """Whether every cell is YYYYMMDD or counts from 1970, as other numbers hardly do by chance."""
    import polars as pl

    numbers = table.numbers(name).values
    known = numbers[~np.isnan(numbers)]
    if not len(known) or (known != np.round(known)).any():
        return False
    if known.min() >= 6e11 and known.max() < 4e18 and (np.diff(known) > 0).all():
        return epoch_of(known) is not None
    if known.min() < 1500_01_01 or known.max() > 2200_12_31:
        return False
    stamps = parse(pl.Series(known.astype(np.int64)).cast(pl.String), "%Y%m%d")
    return not np.isnat(stamps).any() and len(np.unique(stamps)) > 2


def _whole_or_rising(table: Table, name: str) -> bool:
    """Prices and other amounts are no times, whatever they are called."""
    numbers = table.numbers(name).values
    known = numbers[~np.isnan(numbers)]
    steps = np.diff(known)
    return bool((known == np.round(known)).all() or (steps >= 0).all() or (steps <= 0).all())


def _rises(table: Table, name: str) -> bool:
    return bool((np.diff(table.numbers(name).values) > 0).all())


def _written_with_digits(table: Table, name: str) -> bool:
    """Whether a column of text holds digits in most of its cells."""
    import polars as pl

    cells = table.cells(name)
    if cells.dtype != pl.String:
        return False
    stripped, empty = plain(cells.head(500))
    known = stripped.filter(~empty)
    return len(known) > 0 and int(known.str.contains(r"\d").sum()) * 2 > len(known)


def _evenly_counting(table: Table, left: Sequence[str]) -> str | None:
    """The first column, where it has a name, rises in equal steps, and others hold the values."""
    numeric = [name for name in left if table.numeric(name)]
    first = table.columns[0]
    if len(numeric) < 2 or numeric[0] != first or re.fullmatch(r"column_\d+", first):
        return None
    numbers = table.numbers(first).values
    steps = np.diff(numbers)
    if len(steps) < 2 or first.lower() in _COUNTERS or not (steps > 0).all():
        return None
    return first if bool((np.abs(steps - steps[0]) < 1e-6 * abs(steps[0])).all()) else None


# ------------------------------------------------------------------------------------------ value


def _find_value(table: Table, roles: Roles, left: Sequence[str], everything: bool) -> Roles:
    numeric = [name for name in left if table.numeric(name)]
    counters = [name for name in numeric if _counts_rows(table, name)]
    values = [name for name in numeric if name not in counters]
    others = [name for name in left if name not in numeric]
    unclear = [
        name
        for name in others
        if _written_with_digits(table, name)
        and _mostly_unique(table, name)
        and not looks_like_times(table.cells(name))
        and not named_like_time(name)
    ]
    if not values:
        raise DataError(_no_value(table, counters, others))
    unread = [f"'{name}': {_why_not(table, name)}" for name in unclear]
    if everything:
        gone = [*others, *counters]
        roles = roles.decided("value", tuple(values), "every column of numbers", gone)
        if not gone:
            return replace(roles, value=tuple(values))
        return replace(roles, value=tuple(values)).noted(f"left out: {quoted(gone, 12)}")
    if len(values) > 1:
        hint = " (there is no header line)" if _headless(table) else ""
        raise DataError(
            f"{table.label}: {len(values)} columns hold numbers: {quoted(values, 8)}{hint}; choose "
            f"one or several with value=, all of them with value='*'{_or_rows(table, values)}"
        )
    if unread:
        raise DataError(
            f"{table.label}: '{values[0]}' is the only column of plain numbers, but others look "
            f"like values, too ({'; '.join(unread[:3])}); choose with value="
        )
    return replace(roles, value=(values[0],)).decided(
        "value", (values[0],), "the only column of numbers", [*others, *counters]
    ).noted(f"value is the column '{values[0]}'")  # fmt: skip


def _counts_rows(table: Table, name: str) -> bool:
    """Whether a column only counts the rows, as the first of a saved frame or an id does."""
    if name.lower() not in _COUNTERS or _headless(table):
        return False
    numbers = table.numbers(name).values
    whole = bool((numbers == np.round(numbers)).all())
    return len(numbers) > 1 and whole and bool((np.diff(numbers) == 1).all())


def _headless(table: Table) -> bool:
    return all(re.fullmatch(r"column_\d+", name) for name in table.columns)


def _mostly_unique(table: Table, name: str) -> bool:
    cells = table.cells(name)
    return cells.n_unique() * 2 > len(cells) - cells.null_count()


def _why_not(table: Table, name: str) -> str:
    """The first cell of a column that is no number."""
    numbers = table.numbers(name)
    row = int(np.argmax(numbers.bad))
    return f"{table.line(row)} holds {str(table.cells(name)[row]).strip()[:40]!r}"


def _no_value(table: Table, counters: Sequence[str], others: Sequence[str]) -> str:
    text = f"{table.label}: no column holds numbers to model among {quoted(table.columns, 8)}"
    if counters:
        text += f"; {quoted(counters, 5)} only count{'s' if len(counters) == 1 else ''} the rows"
    if others:
        text += f"; in '{others[-1]}' {_first_words(table, others[-1])}"
    return text


def _first_words(table: Table, name: str) -> str:
    cells = table.cells(name)
    if cells.dtype.is_numeric() or not len(cells.drop_nulls()):
        return "stands nothing"
    bad = cells.filter(table.numbers(name).bad) if str(cells.dtype) == "String" else cells
    cells = bad if len(bad) else cells.drop_nulls()
    return f"stands {str(cells[0])[:40]!r}"


def _or_rows(table: Table, values: Sequence[str]) -> str:
    """The other layout, where the table could have it."""
    words = [name for name in table.columns if not table.numeric(name)]
    if len(values) < _FEWEST or not words or table.cells(words[0]).n_unique() < table.height:
        return ""
    return (
        f"; if each row is a series: layout='rows' ({table.height:,} series, named by '{words[0]}')"
    )


def _steps_in_columns(table: Table, left: Sequence[str]) -> np.ndarray | None:
    """The times that the columns of numbers are called by; None where they are not."""
    numeric = [name for name in left if table.numeric(name)]
    dated = [name for name in numeric if column_times([name]) is not None]
    fits = len(dated) >= _FEWEST and len(dated) * 2 > len(numeric)
    return column_times(dated) if fits else None


# ------------------------------------------------------------------------------------------ series


def find_id(table: Table, roles: Roles, times: np.ndarray) -> tuple[str, ...]:
    """The columns that name the series of a table in which times repeat; () for none.

    Each time must occur once in each series. Raises: DataError where different columns would do.
    """
    used = {*roles.time, *roles.value, *roles.covariates}
    names = [name for name in table.columns if name not in used and not _values_like(table, name)]
    codes = {name: _codes(table, name) for name in names}
    names = [name for name in names if 1 < codes[name].max() + 1 <= max(table.height // 2, 2)]
    stamps = np.unique(times, return_inverse=True)[1]

    def separates(key: np.ndarray) -> bool:
        return len(np.unique(key * (stamps.max() + 1) + stamps)) == len(stamps)

    fitting = [name for name in names if separates(codes[name])]
    if fitting:
        counts = {name: int(codes[name].max()) + 1 for name in fitting}
        fewest = min(counts.values())
        coarse = [name for name in fitting if counts[name] == fewest]
        first = codes[coarse[0]]
        if any(len(np.unique(first * fewest + codes[name])) > fewest for name in coarse[1:]):
            raise DataError(
                f"{table.label}: each time occurs several times; the series may be named by any of "
                f"{quoted(coarse, 5)}: choose with id="
            )
        return (coarse[0],)
    for i, one in enumerate(names[:8]):
        for other in names[i + 1 : 8]:
            if separates(codes[one] * (codes[other].max() + 1) + codes[other]):
                return (one, other)
    return ()


def _values_like(table: Table, name: str) -> bool:
    """Numbers with fractions are amounts, not names."""
    if not table.numeric(name):
        return False
    numbers = table.numbers(name).values
    return bool(np.isnan(numbers).any() or (numbers != np.round(numbers)).any())


def _codes(table: Table, name: str) -> np.ndarray:
    import polars as pl

    cells = table.cells(name).cast(pl.String).fill_null("")
    codes: np.ndarray = cells.rank("dense").to_numpy().astype(np.int64) - 1
    return codes
