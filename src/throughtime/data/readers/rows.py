"""The series of one table: rows in order, what cannot be used left out with a note.

One bad cell, one row that occurs twice, one empty row does not stop the rest; too many do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from throughtime.data import frequency
from throughtime.data.readers.files import quoted
from throughtime.data.readers.numbers import Numbers
from throughtime.data.readers.options import Options
from throughtime.data.readers.plan import ReadPlan
from throughtime.data.readers.readings import Times
from throughtime.data.readers.roles import Roles, choose, find_id
from throughtime.data.readers.stamps import column_times
from throughtime.data.readers.table import Table
from throughtime.data.readers.times import read_times
from throughtime.errors import DataError

FEW = 0.01  # share of rows with one stamp and different values of which the first is kept
_FAR = 1.0  # a repeated extreme value lies this many ranges away from all the others


@dataclass(frozen=True)
class Rows:
    """values [total, D], covariates [total, C], times [total] or None; offsets [N + 1]."""

    values: np.ndarray
    covariates: np.ndarray
    times: np.ndarray | None
    offsets: np.ndarray
    names: tuple[str, ...]
    columns: tuple[str, ...]
    covariate_columns: tuple[str, ...]
    by_id: bool
    plan: ReadPlan
    notes: tuple[str, ...]

    def take(self, kept: np.ndarray) -> Rows:
        """Only the steps `kept` (bool [total]); series that lose all of them go, too."""
        lengths = np.add.reduceat(kept, self.offsets[:-1]) if len(kept) else np.zeros(0)
        alive = np.flatnonzero(lengths > 0)
        return replace(
            self,
            values=self.values[kept],
            covariates=self.covariates[kept],
            times=None if self.times is None else self.times[kept],
            offsets=np.concatenate([[0], np.cumsum(lengths[alive])]).astype(np.int64),
            names=tuple(self.names[index] for index in alive),
        )

    def noted(self, *notes: str) -> Rows:
        return replace(self, notes=(*self.notes, *notes))

    def decided(
        self, name: str, value: object, evidence: str, passed_over: Sequence[str] = ()
    ) -> Rows:
        return replace(self, plan=self.plan.with_entry(name, value, evidence, tuple(passed_over)))


def read_rows(table: Table, options: Options, name: str) -> Rows:
    """The series of a table.

    name: what a table without an id column is called.
    Raises: DataError naming the line and column of what cannot be used.
    """
    roles = choose(table, options)
    if roles.layout == "rows":
        return _series_in_rows(table, roles, options)
    groups, names = _groups(table, roles.id, name)
    times: Times | None = None
    if roles.time:
        times = read_times(table, roles.time, options.time_format, groups, options.zone)
        roles = roles.decided("time_format", times.form, times.evidence, times.passed_over)
        roles = roles.noted(*times.notes)
        if not roles.id and options.id is None:
            roles, groups, names = _found_id(table, roles, times, groups, names)
    if roles.id:
        roles = roles.decided("id", roles.id, "given" if options.id else "it tells the rows apart")
    columns = [_numbers(table, column, roles) for column in roles.value]
    notes = [note for one, column in zip(columns, roles.value, strict=True)
             for note in _cell_notes(table, column, one)]  # fmt: skip
    for one, column in zip(columns, roles.value, strict=True):
        if one.markers:
            roles = roles.decided("missing", one.markers, f"again and again in '{column}'")
    if table.marks.decimal is not None:
        roles = roles.decided("decimal", table.marks.decimal, table.marks.evidence)
    values = np.stack([one.values for one in columns], axis=1)
    covariates = _covariates(table, roles)
    del columns
    table.forget()
    rows = Rows(
        values, covariates, None, np.array([0, table.height]), names, roles.value,
        roles.covariates, bool(roles.id), roles.plan, (*table.notes, *roles.notes, *notes),
    )  # fmt: skip
    return _in_order(table, rows, roles, groups, times, options)


# ------------------------------------------------------------------------------------------ cells


def _numbers(table: Table, column: str, roles: Roles) -> Numbers:
    """A column of values. Raises: DataError where it is none, or can be read in two ways."""
    numbers = table.numbers(column)
    if numbers.doubt is not None:
        name, mark = ("comma", ",") if "," in numbers.doubt else ("point", ".")
        raise DataError(
            f"{table.label}: column '{column}': the {name} in '{numbers.doubt}' may be a decimal "
            f"or a thousands mark: decimal='{mark}' or thousands='{mark}'"
        )
    bad = int(numbers.bad.sum())
    if bad and not numbers.numeric:
        row = int(np.argmax(numbers.bad))
        cell = str(table.cells(column)[row]).strip()[:60]
        more = f", as {bad - 1:,} others" if bad > 1 else ""
        raise DataError(
            f"{table.where(row)}: column '{column}': '{cell}' is not a number{more}; choose "
            f"another column with value=, or say missing='{cell}' if it means that there is none"
        )
    return numbers


def _cell_notes(table: Table, column: str, numbers: Numbers) -> list[str]:
    """What was repaired or noticed in a column of values."""
    notes = [f"'{column}': {note}" for note in numbers.notes]
    if numbers.markers:
        notes.append(f"{quoted(numbers.markers, 5)} in '{column}' means that a value is missing")
    if numbers.bad.any():
        rows = np.flatnonzero(numbers.bad)
        cells = [str(table.cells(column)[int(row)]).strip()[:30] for row in rows[:3]]
        count = len(rows)
        what = "cell is not a finite number" if count == 1 else "cells are no finite numbers"
        notes.append(
            f"{count:,} {what} in '{column}' and taken for missing: {quoted(cells, 3)} "
            f"({table.places(rows)})"
        )
    notes += _sentinels(column, numbers.values)
    return notes


def _sentinels(column: str, values: np.ndarray) -> list[str]:
    """A value far from all others that occurs again and again may stand for a missing one."""
    known = values[~np.isnan(values)]
    if len(known) < 20:
        return []
    unique, counts = np.unique(known, return_counts=True)
    if len(unique) < 4:
        return []
    notes = []
    for place, near, far in ((0, 1, -1), (-1, -2, 0)):
        value, count = float(unique[place]), int(counts[place])
        spread = abs(float(unique[far]) - float(unique[near]))
        distance = abs(value - float(unique[near]))
        usual = set(f"{abs(value):g}".replace(".", "")) <= {"9"} or value in (-200, -32768, -32767)
        if (
            count >= (2 if usual else 5)
            and value != 0
            and (distance > _FAR * spread or (usual and distance > 0.3 * spread))
        ):
            notes.append(
                f"{value:g} occurs {count:,} times in '{column}', far from all other values; if it "
                f"means that the value is missing: missing='{value:g}'"
            )
    return notes


def _covariates(table: Table, roles: Roles) -> np.ndarray:
    covariates = np.zeros((table.height, len(roles.covariates)))
    for index, column in enumerate(roles.covariates):
        numbers = table.numbers(column)
        if numbers.bad.any():
            row = int(np.argmax(numbers.bad))
            cell = str(table.cells(column)[row]).strip()[:60]
            raise DataError(f"{table.where(row)}: column '{column}': '{cell}' is not a number")
        if np.isnan(numbers.values).any():
            row = int(np.argmax(np.isnan(numbers.values)))
            raise DataError(
                f"{table.where(row)}: column '{column}' is empty, but a covariate must be known at "
                f"every step"
            )
        covariates[:, index] = numbers.values
    return covariates


# ----------------------------------------------------------------------------------------- series


def _groups(
    table: Table, columns: tuple[str, ...], name: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The series of each row, numbered by first appearance, and their names."""
    import polars as pl

    if not columns:
        return np.zeros(table.height, dtype=np.int64), (name,)
    parts = []
    for column in columns:
        cells = table.cells(column).cast(pl.String).str.strip_chars()
        empty = cells.is_null() | (cells == "")
        if empty.any():
            raise DataError(
                f"{table.where(empty.arg_max() or 0)}: column '{column}': the id is empty"
            )
        parts.append(cells)
    joined = parts[0]
    for part in parts[1:]:
        joined = joined + "/" + part
    names = joined.unique(maintain_order=True)
    codes = {name: index for index, name in enumerate(names)}
    groups = joined.replace_strict(codes, return_dtype=pl.Int64).to_numpy()
    return groups, tuple(names)


def _found_id(
    table: Table, roles: Roles, times: Times, groups: np.ndarray, names: tuple[str, ...]
) -> tuple[Roles, np.ndarray, tuple[str, ...]]:
    """The series of a table whose times repeat because it holds several."""
    known = times.values[~times.unread]
    if not _backwards(known, np.zeros(len(known))).any() and bool((known[1:] != known[:-1]).all()):
        return roles, groups, names
    if _distinct(known) * 10 > len(known) * 9:
        return roles, groups, names
    stamps = np.where(times.unread, known[0] if len(known) else 0, times.values)
    columns = find_id(table, roles, stamps)
    if not columns:
        return roles, groups, names
    groups, names = _groups(table, columns, "")
    each = "each time occurs once in each"
    said = " and ".join(f"'{column}'" for column in columns)
    roles = replace(roles, id=columns).noted(
        f"{len(names):,} series are named by the column{'s' if len(columns) > 1 else ''} {said}: "
        f"{each}"
    )
    return roles, groups, names


def _distinct(stamps: np.ndarray) -> int:
    ordered = np.sort(stamps)
    return len(stamps) and 1 + int((ordered[1:] != ordered[:-1]).sum())


def _in_order(
    table: Table,
    rows: Rows,
    roles: Roles,
    groups: np.ndarray,
    times: Times | None,
    options: Options,
) -> Rows:
    """The rows of each series after each other, by time where there is one."""
    kept = np.ones(table.height, dtype=bool)
    if times is not None and times.unread.any():
        unread = np.flatnonzero(times.unread)
        kept[unread] = False
        column = "+".join(roles.time)
        what = "row has" if len(unread) == 1 else "rows have"
        rows = rows.noted(
            f"{len(unread):,} {what} no time in '{column}' that can be read and "
            f"{'is' if len(unread) == 1 else 'are'} left out ({table.places(unread)})"
        )
    index = np.flatnonzero(kept)
    whole = kept.all() and len(rows.names) == 1  # one series of every row: nothing moves by itself
    stamps = None if times is None else times.values
    if stamps is None and options.sort == "reverse":
        index = index[::-1]
        rows = rows.decided("sort", "reverse", "given")
    by_series = index if whole else index[np.argsort(groups[index], kind="stable")]
    order = by_series
    if stamps is not None and options.sort != "keep":
        order, rows = _by_time(table, rows, roles, groups, stamps, by_series)
    elif stamps is not None:
        back = _backwards(stamps[order], groups[order])
        if back.any():
            rows = rows.noted("rows stay as they come: their times do not rise and are not used")
            stamps = None
    counts = np.bincount(groups[order], minlength=len(rows.names))
    place = slice(None) if whole and order is by_series and options.sort != "reverse" else order
    ordered = replace(
        rows,
        values=rows.values[place],
        covariates=rows.covariates[place],
        times=None if stamps is None else stamps[place],
        offsets=np.concatenate([[0], np.cumsum(counts)]),
    )
    if (counts == 0).any():
        ordered = _without_empty(ordered)
    if stamps is None:
        return ordered
    return _without_twins(table, ordered, roles, order, groups[order], options)


def _without_empty(rows: Rows) -> Rows:
    lengths = np.diff(rows.offsets)
    gone = [rows.names[index] for index in np.flatnonzero(lengths == 0)]
    alive = np.flatnonzero(lengths > 0)
    return replace(
        rows,
        offsets=np.concatenate([[0], np.cumsum(lengths[alive])]),
        names=tuple(rows.names[index] for index in alive),
    ).noted(f"without any row that can be used, and left out: {quoted(gone, 5)}")


def _backwards(stamps: np.ndarray, groups: np.ndarray) -> np.ndarray:
    steps = np.diff(stamps)
    return np.asarray((steps < np.zeros(1, dtype=steps.dtype)) & (np.diff(groups) == 0))


def _by_time(
    table: Table,
    rows: Rows,
    roles: Roles,
    groups: np.ndarray,
    stamps: np.ndarray,
    order: np.ndarray,
) -> tuple[np.ndarray, Rows]:
    """The rows sorted by time inside each series; a note where they were not."""
    back = _backwards(stamps[order], groups[order])
    if not back.any():
        return order, rows
    inside = np.diff(groups[order]) == 0
    steps = np.diff(stamps[order])[inside]
    zero = np.zeros(1, dtype=steps.dtype)
    column = "+".join(roles.time)
    if bool((steps <= zero).all()):
        evidence = f"all rows run backwards in '{column}'"
        # Rows with one stamp keep the order in which they then follow each other.
        turned = order[::-1]
        turned = turned[np.lexsort((stamps[turned], groups[turned]))]
        note = f"rows run backwards in '{column}', the newest first: they are turned"
        return turned, rows.noted(note).decided("sort", "time", evidence)
    place = int(np.argmax(back))
    count = int(back.sum())
    what = "row goes" if count == 1 else "rows go"
    note = (
        f"{count:,} {what} back in '{column}' (first at {table.line(order[place + 1])}): rows are "
        f"sorted by time"
    )
    sorted_order = order[np.lexsort((stamps[order], groups[order]))]
    return sorted_order, rows.noted(note).decided("sort", "time", "some times go back")


def _without_twins(
    table: Table, rows: Rows, roles: Roles, order: np.ndarray, groups: np.ndarray, options: Options
) -> Rows:
    """One row for each time of a series.

    order: the row of the table of each step. Raises: DataError where too many differ.
    """
    times = rows.times
    if times is None:
        return rows
    steps = np.diff(times)
    again = np.concatenate([[False], (steps == np.zeros(1, steps.dtype)) & (np.diff(groups) == 0)])
    if not again.any():
        return rows
    cells = np.concatenate([rows.values, rows.covariates], axis=1)
    alike = np.concatenate([[False], _equal_rows(cells[1:], cells[:-1])])
    same = again & alike
    differing = again & ~alike
    if same.any():
        what = "row occurs" if same.sum() == 1 else "rows occur"
        rows = rows.noted(
            f"{int(same.sum()):,} {what} twice with equal cells; one of each is kept "
            f"({table.places(order[same])})"
        )
    if not differing.any():
        return rows.take(~again)
    way = options.duplicates
    place = int(np.argmax(differing))
    stamp = frequency.show(times[place], "us")
    where = f"{stamp} in '{'+'.join(roles.time)}'"
    if rows.by_id:
        where += f" of '{rows.names[int(np.searchsorted(rows.offsets, place, side='right')) - 1]}'"
    count = int(differing.sum())
    if way == "error" or (way is None and count > max(3, FEW * len(order))):
        raise DataError(_too_many(table, rows, order, place, count, where))
    change = _clock_change(times, differing)
    kept, rows = _resolved(rows, again, way or "first")
    return rows.take(kept).noted(
        f"{count:,} time{' occurs' if count == 1 else 's occur'} again with other values, first "
        f"{where} ({table.places(order[differing])}): {_KEPT[way or 'first']}"
        f"{change}"
    )


_KEPT = {
    "first": "the first row is kept; duplicates='last' or 'mean' takes the others",
    "last": "the last row is kept",
    "mean": "their mean is taken",
}


def _equal_rows(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return np.asarray(((one == other) | (np.isnan(one) & np.isnan(other))).all(axis=1))


def _too_many(
    table: Table, rows: Rows, order: np.ndarray, place: int, count: int, where: str
) -> str:
    """What to do about times that repeat throughout."""
    row, before = int(order[place]), int(order[place - 1])
    more = "" if count == 1 else f", as {count - 1:,} others do"
    return (
        f"{table.where(row)}: {where} occurs twice with other values, also in {table.line(before)}"
        f"{more}: name the column of the series with id=, or choose a row with duplicates='first' "
        f"('last', 'mean'), or take rows as they come with time=False"
    )


def _resolved(rows: Rows, again: np.ndarray, way: str) -> tuple[np.ndarray, Rows]:
    """Which steps stay, and the rows with means where those are asked for."""
    if way == "first":
        return ~again, rows
    if way == "last":
        return np.concatenate([~again[1:], [True]]), rows
    run = np.cumsum(~again) - 1
    counts = np.bincount(run)

    def mean(cells: np.ndarray) -> np.ndarray:
        known = ~np.isnan(cells)
        result = np.empty_like(cells)
        for column in range(cells.shape[1]):
            sums = np.bincount(run, np.where(known[:, column], cells[:, column], 0))
            number = np.bincount(run, known[:, column], len(counts))
            result[:, column] = np.divide(
                sums, number, out=np.full(len(counts), np.nan), where=number > 0
            )[run]
        return result

    return ~again, replace(rows, values=mean(rows.values), covariates=mean(rows.covariates))


def _clock_change(times: np.ndarray, differing: np.ndarray) -> str:
    """A hint where what repeats is the hour at which clocks go back."""
    if times.dtype.kind != "M":
        return ""
    stamps = times[differing]
    days = stamps.astype("datetime64[D]")
    hours = (stamps - days).astype("timedelta64[h]").astype(int)
    months = stamps.astype("datetime64[M]").astype(int) % 12 + 1
    sundays = (days.astype(int) + 3) % 7 == 6
    if not (sundays & np.isin(months, (3, 4, 10, 11)) & (hours <= 3)).all():
        return ""
    return "; it is the hour at which clocks go back: zone='Europe/Berlin' (or yours) keeps both"


# ----------------------------------------------------------------------------------- other layout


def _series_in_rows(table: Table, roles: Roles, options: Options) -> Rows:
    """A table in which each row is a series and the columns are its steps."""
    used = {*roles.id, *roles.covariates}
    left = [name for name in table.columns if name not in used]
    steps = [n for n in roles.value or filter(table.numeric, left) if n not in used]
    dated = [name for name in roles.value or left if column_times([name]) is not None]
    if column_times(dated) is not None and len(dated) * 2 > len(steps):
        steps = dated  # those that hold nothing, too
    if len(steps) < 2:
        raise DataError(f"{table.label}: layout='rows' needs columns of numbers, one for each step")
    others = [name for name in table.columns if name not in steps]
    others.sort(key=table.numeric)  # words name better than numbers
    ids = roles.id or _row_names(table, others)
    stamps = column_times(steps)
    values = np.stack([_numbers(table, name, roles).values for name in steps], axis=1)
    _, names = _groups(table, ids, "") if ids else (None, tuple(map(str, range(table.height))))
    total = values.size
    times = None if stamps is None else np.tile(stamps, table.height)
    rows = Rows(
        values.reshape(-1, 1), np.zeros((total, 0)), times,
        np.arange(table.height + 1) * len(steps), names, ("value",), (), True, roles.plan,
        (*table.notes, *roles.notes),
    )  # fmt: skip
    ends = np.where(~np.isnan(values), np.arange(values.shape[1]), -1).max(axis=1)
    kept = (np.arange(values.shape[1]) <= ends[:, None]).reshape(-1)
    evidence = "given" if options.layout else "the columns of numbers are called by their times"
    rows = rows.take(kept).decided("layout", "rows", evidence)
    gone = table.height - len(rows.names)
    more = f"; {gone:,} without any value are left out" if gone else ""
    return rows.noted(
        f"each row is a series: {len(rows.names):,} of up to {len(steps):,} steps, from "
        f"'{steps[0]}' to '{steps[-1]}'{more}"
    )


def _row_names(table: Table, names: Sequence[str]) -> tuple[str, ...]:
    """The fewest columns that tell every row from the others."""
    for name in names:
        if table.cells(name).n_unique() == table.height and not table.cells(name).null_count():
            return (name,)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            groups, _ = _groups(table, (one, other), "")
            if groups.max() + 1 == table.height:
                return (one, other)
    return ()
