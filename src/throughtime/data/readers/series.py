"""Time series from tables and arrays: columns chosen, stamps checked, gaps named.

Reading changes nothing that the file says: rows keep their order, missing cells stay missing,
and what cannot be meant (a cell that is no number, a stamp that goes back) is an error with its
line. What was guessed or found stands in the notes of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from throughtime.data import frequency as steps
from throughtime.data.readers.files import quoted
from throughtime.data.readers.options import Options
from throughtime.data.readers.table import Table, frame_table, open_table
from throughtime.data.readers.times import looks_like_dates, read_times
from throughtime.data.sequences import Domain, Sequences
from throughtime.errors import DataError, SettingError

TIME_NAMES = ("ds", "date", "time", "timestamp", "datetime", "t", "year", "month", "day", "week")
GAPS = ("keep", "fill")


@dataclass(frozen=True)
class Columns:
    """Which column is what; a `None` among the flags of the user means: find out.

    time, id: names or None, time also False: no time at all; value, covariates: names;
    time_format: as in strftime, or "epoch".
    """

    time: Any = None
    value: tuple[str, ...] = ()
    id: Any = None
    covariates: tuple[str, ...] = ()
    time_format: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rows:
    """The series of one table: values [total, D], covariates [total, C], times [total] or None.

    where: the place of a row of this table in a message; order: row of the table of each step.
    """

    values: np.ndarray
    covariates: np.ndarray
    times: np.ndarray | None
    offsets: np.ndarray
    names: tuple[str, ...]
    columns: Columns
    notes: tuple[str, ...]


def read_table(table: Table, options: Options, name: str) -> Sequences:
    """One table: one series called `name`, or one for each value of the id column."""
    return join([(table.label, rows_of(table, options, name))], options, table.label)


def read_frame(frame: Any, options: Options) -> Sequences:
    """A frame of any library, or a column of one."""
    return read_table(frame_table(frame), options, "series")


def open_series(path: Path, options: Options) -> Table:
    """A file of characters as a table."""
    return open_table(path, options.encoding, options.header is not False)


def rows_of(table: Table, options: Options, name: str) -> Rows:
    """The series of a table as the options say."""
    asked = Columns(
        options.time, options.value, options.id, options.covariates, options.time_format
    )
    rows = read_rows(table, asked, name)
    return replace(rows, notes=(*table.notes, *rows.notes))


def join(parts: Sequence[tuple[str, Rows]], options: Options, label: str) -> Sequences:
    """The series of several tables, all with the same columns.

    parts: what each table is called in messages, and its rows.
    """
    place, first = parts[0]
    for name, rows in parts:
        if rows.columns.value != first.columns.value:
            raise DataError(
                f"{name}: the value is {quoted(rows.columns.value)}, but "
                f"{quoted(first.columns.value)} in '{place}'; choose with value="
            )
        if _clock(rows) != _clock(first):
            raise DataError(f"{name}: the times are {_clock(rows)}, in '{place}' {_clock(first)}")
    return _assemble([rows for _, rows in parts], options.gaps, label)


# ------------------------------------------------------------------------------- columns of a table


def choose(table: Table, asked: Columns) -> Columns:
    """The flags with everything found out that they leave open; notes say what was found out.

    Raises: DataError for names that do not exist and for choices that only the user can make.
    """
    chosen = asked
    known = set(table.columns)
    everything = asked.value == ("*",) and "*" not in known
    if everything:
        chosen = replace(chosen, value=())
    if {"ds", "y"} <= known or {"unique_id", "ds"} <= known:  # covariates alone have no y
        chosen = replace(
            chosen,
            time="ds" if chosen.time is None else chosen.time,
            value=chosen.value or (("y",) if "y" in known and not everything else ()),
            id=chosen.id or ("unique_id" if "unique_id" in known else None),
        )
    given = [chosen.time or None, chosen.id, *chosen.value, *chosen.covariates]
    used = [table.check(name) for name in given if name is not None]
    for index, name in enumerate(used):
        if name in used[:index]:
            raise SettingError(f"column '{name}' is named twice among time, id, value, covariates")
    left = [name for name in table.columns if name not in used]
    table.load(table.columns if chosen.time is None or not chosen.value else used)
    if chosen.time is None:
        chosen = _guess_time(table, chosen, left)
    if not chosen.value:
        left = [name for name in left if name != chosen.time]
        chosen = _guess_value(table, chosen, left, everything)
    return replace(chosen, time=chosen.time or None)


def _guess_time(table: Table, chosen: Columns, left: Sequence[str]) -> Columns:
    dated = [name for name in left if looks_like_dates(table.cells(name))]
    if not dated:
        numbered = [name for name in left if name.lower() in TIME_NAMES and table.numeric(name)]
        dated = [name for name in numbered if chosen.id or _increases(table.numbers(name))]
    usual = [name for name in dated if name.lower() in TIME_NAMES]
    if len(dated) > 1 and len(usual) == 1:
        dated = usual
    if len(dated) > 1:
        raise DataError(
            f"{table.label}: {len(dated)} columns hold times: {quoted(dated)}; choose one with "
            f"time="
        )
    if not dated:
        if chosen.time_format is not None:
            raise SettingError("time_format needs time=, the column that it describes")
        return replace(chosen, notes=(*chosen.notes, "no time column: rows in file order"))
    return replace(chosen, time=dated[0], notes=(*chosen.notes, f"time is the column '{dated[0]}'"))


def _increases(numbers: np.ndarray) -> bool:
    return bool((np.diff(numbers) > 0).all())


def _guess_value(table: Table, chosen: Columns, left: Sequence[str], everything: bool) -> Columns:
    numeric = [name for name in left if table.numeric(name)]
    # The first column of a saved frame often counts the rows and has no name.
    if len(numeric) > 1 and numeric[0] == "column_1" and table.columns[0] == "column_1":
        counted = table.numbers("column_1")
        if np.array_equal(counted, np.arange(len(counted))):
            numeric = numeric[1:]
    if not numeric:
        raise DataError(f"{table.label}: no column holds numbers among {quoted(table.columns)}")
    if everything:
        return replace(chosen, value=tuple(numeric))
    if len(numeric) > 1:
        raise DataError(
            f"{table.label}: {len(numeric)} columns hold numbers: {quoted(numeric)}; choose one "
            f"or several with value=, all of them with value='*'"
        )
    return replace(
        chosen, value=(numeric[0],), notes=(*chosen.notes, f"value is the column '{numeric[0]}'")
    )


# --------------------------------------------------------------------------------- rows of a table


def read_rows(table: Table, asked: Columns, name: str) -> Rows:
    """The series of a table, each in the order of its rows.

    name: what a table without an id column is called.
    Raises: DataError naming the line and column of what cannot be used.
    """
    chosen = choose(table, asked)
    groups, names = _groups(table, chosen.id, name)
    times, notes = None, chosen.notes
    if chosen.time:
        stamps = read_times(table, chosen.time, chosen.time_format, groups)
        times, notes = stamps.values, notes + stamps.notes
    order = np.argsort(groups, kind="stable")
    offsets = np.concatenate([[0], np.cumsum(np.bincount(groups))])
    if times is not None:
        times = times[order]
        _check_order(table, chosen, times, offsets, order, names)
    values = np.stack([table.numbers(column) for column in chosen.value], axis=1)[order]
    covariates = np.zeros((table.height, len(chosen.covariates)))
    for index, column in enumerate(chosen.covariates):
        cells = table.numbers(column)
        if np.isnan(cells).any():
            row = int(np.argmax(np.isnan(cells)))
            raise DataError(
                f"{table.where(row)}: column '{column}' is empty, but a covariate must be known at "
                f"every step"
            )
        covariates[:, index] = cells[order]
    return Rows(values, covariates, times, offsets, names, chosen, notes)


def _groups(table: Table, column: str | None, name: str) -> tuple[np.ndarray, tuple[str, ...]]:
    """The series of each row, numbered by first appearance, and their names.

    column: the ids; None for one series, called `name`.
    """
    import polars as pl

    if column is None:
        return np.zeros(table.height, dtype=np.int64), (name,)
    cells = table.cells(column).cast(pl.String).str.strip_chars()
    empty = cells.is_null() | (cells == "")
    if empty.any():
        raise DataError(f"{table.where(empty.arg_max() or 0)}: column '{column}': the id is empty")
    names = cells.unique(maintain_order=True)
    codes = {name: index for index, name in enumerate(names)}
    groups = cells.replace_strict(codes, return_dtype=pl.Int64).to_numpy()
    return groups, tuple(names)


def _check_order(
    table: Table,
    chosen: Columns,
    times: np.ndarray,
    offsets: np.ndarray,
    order: np.ndarray,
    names: tuple[str, ...],
) -> None:
    """Raises DataError where a stamp does not come after the one before it in its series."""
    back = np.diff(times) <= np.zeros(1, dtype=np.diff(times[:1]).dtype)
    back[offsets[1:-1] - 1] = False
    if not back.any():
        return
    step = int(np.argmax(back)) + 1
    row, before = int(order[step]), int(order[step - 1])
    stamp, previous = steps.show(times[step], "us"), steps.show(times[step - 1], "us")
    series = f" of '{names[np.searchsorted(offsets, step, side='right') - 1]}'"
    whose = series if chosen.id is not None else ""
    place = f"{table.where(row)}: column '{chosen.time}': {stamp}{whose}"
    other = "" if chosen.id is not None else _other_id(table, chosen, row, before)
    if times[step] == times[step - 1]:
        advice = other or "; keep one row for each time, or take rows as they come with time=False"
        raise DataError(f"{place} occurs twice, also in {table.line(before)}{advice}")
    advice = other or "; sort the rows by time"
    if chosen.id is None and bool((np.diff(times) < np.diff(times[:1]).sum()).all()):
        advice = "; all rows run backwards, sort them by time"
    raise DataError(f"{place} comes after {previous} in {table.line(before)}{advice}")


def _other_id(table: Table, chosen: Columns, row: int, before: int) -> str:
    """Advice where a column of words changes just where time goes back: it names the series."""
    used = {chosen.time, *chosen.value, *chosen.covariates}
    for name in table.columns:
        if name in used or table.numeric(name) or looks_like_dates(table.cells(name)):
            continue
        cells = table.cells(name)
        if cells[row] != cells[before]:
            return f"; if '{name}' names the series, say id='{name}'"
    return ""


# ---------------------------------------------------------------------------------------- assembly


def _clock(rows: Rows) -> str:
    if rows.times is None:
        return "absent"
    return "dates" if rows.times.dtype.kind == "M" else "numbers"


def _assemble(parts: Sequence[Rows], gaps: str, label: str) -> Sequences:
    """All the series of one or several tables, with what was found about them in the notes."""
    if gaps not in GAPS:
        raise SettingError(f"gaps='{gaps}': use one of {quoted(GAPS)}")
    columns = parts[0].columns
    values = np.concatenate([rows.values for rows in parts])
    covariates = np.concatenate([rows.covariates for rows in parts])
    lengths = np.concatenate([np.diff(rows.offsets) for rows in parts])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    names = tuple(name for rows in parts for name in rows.names)
    notes = list(dict.fromkeys(note for rows in parts for note in rows.notes))
    times, step = None, "step"
    if parts[0].times is not None:
        times = np.concatenate([rows.times for rows in parts if rows.times is not None])
        grid = steps.detect(times, offsets)
        step = grid.step
        notes.extend(steps.describe(grid, times, offsets, names))
    notes.extend(_value_notes(values, columns.value, label))
    if gaps == "fill":
        if times is None:
            raise SettingError("gaps='fill' needs a time column: time=")
        if covariates.shape[1]:
            raise SettingError("gaps='fill' cannot know the covariates of missing rows")
        times, offsets, values, added = steps.fill(grid, times, offsets, values, label)
        if added:
            notes.append(
                f"{added:,} missing row{' is' if added == 1 else 's are'} put in, without values"
            )
            covariates = np.zeros((len(values), 0))
    return Sequences(
        values=torch.from_numpy(np.ascontiguousarray(values)),
        offsets=torch.from_numpy(offsets.astype(np.int64)),
        domain=Domain(
            "real", columns=columns.value, step=step, covariate_columns=columns.covariates
        ),
        names=names,
        times=times,
        covariates=torch.from_numpy(covariates) if covariates.shape[1] else None,
        notes=tuple(notes),
    )


def _value_notes(values: np.ndarray, columns: tuple[str, ...], label: str) -> list[str]:
    """What is missing or constant. Raises: DataError for a column that holds nothing."""
    notes: list[str] = []
    for name, column in zip(columns, values.T, strict=True):
        missing = np.isnan(column)
        count = int(missing.sum())
        if count == len(column):
            raise DataError(f"{label}: column '{name}' holds no number at all")
        if count:
            verb = (
                "is missing; it is kept as a gap"
                if count == 1
                else ("are missing; they are kept as gaps")
            )
            notes.append(
                f"{count:,} of {len(column):,} values of '{name}' {verb}: not scored, models see "
                f"a flag"
            )
        known = column[~missing]
        if len(known) > 1 and (known == known[0]).all():
            notes.append(f"'{name}' is {known[0]:g} in every row")
    return notes
