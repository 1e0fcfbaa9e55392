"""Time series from tables and arrays: columns chosen, stamps checked, gaps named.

Reading changes nothing that the file says: rows keep their order, missing cells stay missing,
and what cannot be meant (a cell that is no number, a stamp that goes back) is an error with its
line. What was guessed or found stands in the notes of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from throughtime.data import frequency as steps
from throughtime.data.readers.delimited import open_table
from throughtime.data.readers.files import quoted
from throughtime.data.readers.options import Options
from throughtime.data.readers.rows import Rows, read_rows
from throughtime.data.readers.table import Table, frame_table
from throughtime.data.sequences import Domain, Sequences
from throughtime.errors import DataError, SettingError


def read_table(table: Table, options: Options, name: str) -> Sequences:
    """One table: one series called `name`, or one for each value of the id column."""
    return join([(table.label, rows_of(table, options, name))], options, table.label)


def read_frame(frame: Any, options: Options) -> Sequences:
    """A frame of any library, or a column of one."""
    return read_table(frame_table(frame), options, "series")


def open_series(path: Path, options: Options) -> Table:
    """A file of characters as a table."""
    return open_table(path, options)


def rows_of(table: Table, options: Options, name: str) -> Rows:
    """The series of a table as the options say."""
    table.options = options
    return read_rows(table, options, name)


def join(parts: Sequence[tuple[str, Rows]], options: Options, label: str) -> Sequences:
    """The series of several tables, all with the same columns.

    parts: what each table is called in messages, and its rows.
    """
    place, first = parts[0]
    for name, rows in parts:
        if rows.columns != first.columns:
            raise DataError(
                f"{name}: the value is {quoted(rows.columns, 5)}, but {quoted(first.columns, 5)} "
                f"in '{place}'; choose with value="
            )
        if _clock(rows) != _clock(first):
            raise DataError(f"{name}: the times are {_clock(rows)}, in '{place}' {_clock(first)}")
    return assemble([rows for _, rows in parts], options, label)


# ---------------------------------------------------------------------------------------- assembly


def _clock(rows: Rows) -> str:
    if rows.times is None:
        return "absent"
    return "dates" if rows.times.dtype.kind == "M" else "numbers"


def assemble(parts: Sequence[Rows], options: Options, label: str) -> Sequences:
    """All the series of one or several tables, with what was found about them in the notes."""
    rows = _joined(parts)
    if options.leading == "cut":
        rows = _from_first_value(rows, label)
    notes = list(dict.fromkeys(rows.notes))
    values, offsets, times, covariates = rows.values, rows.offsets, rows.times, rows.covariates
    step = "step"
    if times is not None:
        grid = steps.detect(times, offsets)
        step = grid.step
        notes.extend(steps.describe(grid, times, offsets, rows.names))
    notes.extend(_value_notes(values, rows.columns, label))
    notes.extend(_odd_shape(values, rows.names))
    if options.gaps == "fill":
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
    plan = rows.plan.with_entry("gaps", options.gaps, f"one row per {step}", ())
    return Sequences(
        values=torch.from_numpy(np.ascontiguousarray(values)),
        offsets=torch.from_numpy(offsets.astype(np.int64)),
        domain=Domain(
            "real", columns=rows.columns, step=step, covariate_columns=rows.covariate_columns
        ),
        names=rows.names,
        times=times,
        covariates=torch.from_numpy(covariates) if covariates.shape[1] else None,
        notes=tuple(notes),
        plan=plan,
    )


def _joined(parts: Sequence[Rows]) -> Rows:
    """Several tables as one."""
    first = parts[0]
    if len(parts) == 1:
        return first
    lengths = np.concatenate([np.diff(rows.offsets) for rows in parts])
    times = [rows.times for rows in parts if rows.times is not None]
    return replace(
        first,
        values=np.concatenate([rows.values for rows in parts]),
        covariates=np.concatenate([rows.covariates for rows in parts]),
        times=np.concatenate(times) if times else None,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        names=tuple(name for rows in parts for name in rows.names),
        notes=tuple(note for rows in parts for note in rows.notes),
    )


def _from_first_value(rows: Rows, label: str) -> Rows:
    """Every series from its first value on; one that has none is left out.

    A series of several columns begins where each has had a value, if half of it is left then.
    """
    known = ~np.isnan(rows.values)
    lengths = np.diff(rows.offsets)
    if known.all() or not known.any() or not lengths.all():
        return rows
    seen = np.cumsum(known, axis=0)
    before = np.concatenate([np.zeros((1, known.shape[1])), seen])[rows.offsets[:-1]]
    begun = seen > np.repeat(before, lengths, axis=0)
    whole = np.add.reduceat(begun.all(axis=1), rows.offsets[:-1]) * 2 >= lengths
    kept = np.where(np.repeat(whole, lengths), begun.all(axis=1), begun.any(axis=1))
    if kept.all():
        return rows
    lost = np.add.reduceat(~kept, rows.offsets[:-1])
    empty = [rows.names[i] for i in np.flatnonzero(lost == lengths)]
    late = [rows.names[i] for i in np.flatnonzero((lost > 0) & (lost < lengths))]
    notes = []
    if late:
        count = int(lost[lost < lengths].sum())
        whose = f" of {quoted(late, 5)}" if len(rows.names) > 1 else ""
        verb = "is" if count == 1 else "are"
        notes.append(
            f"{count:,} row{'' if count == 1 else 's'} before the first value{whose} {verb} left "
            f"out; leading='keep' keeps them"
        )
    if empty:
        notes.append(f"without any value, and left out: {quoted(empty, 5)}")
    return rows.take(kept).noted(*notes)


def _odd_shape(values: np.ndarray, names: tuple[str, ...]) -> list[str]:
    """A table that is nearly as wide as it is long is hardly one series."""
    height, width = values.shape
    if width < 20 or len(names) > 1 or height > 3 * width:
        return []
    return [
        f"{width:,} columns of {height:,} steps are read as one series of that many values a step; "
        f"if each column or row is a series of its own, give them in the long format or with "
        f"layout='rows'"
    ]


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
