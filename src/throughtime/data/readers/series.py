"""Time series from tables and arrays: columns chosen, stamps checked, gaps named.

Reading changes nothing that the file says: rows keep their order, missing cells stay missing,
and what cannot be meant (a cell that is no number, a stamp that goes back) is an error with its
line. What was guessed or found stands in the notes of the result.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from throughtime.data import frequency as steps
from throughtime.data.readers.files import files_below, reason, stem, stems, suffix
from throughtime.data.readers.options import Options
from throughtime.data.readers.plan import ReadPlan
from throughtime.data.readers.rows import Rows, read_rows
from throughtime.data.readers.table import frame_table, open_table
from throughtime.data.sequences import Domain, Sequences
from throughtime.errors import DataError, SettingError
from throughtime.wording import some

TABLES = (".csv", ".tsv", ".parquet")


def read_series(path: Path, options: Options) -> Sequences:
    """One .csv, .tsv or .parquet file: one series, or one for each value of the id column."""
    return assemble([read_rows(open_table(path, options), options, stem(path))], options, str(path))


def read_frame(frame: Any, options: Options) -> Sequences:
    """A frame of any library, or a column of one."""
    rows = read_rows(frame_table(frame, options), options, "series")
    return assemble([rows], options, "frame")


def read_series_folder(
    folder: Path,
    options: Options,
    on_progress: Callable[[int, int], None] | None = None,
) -> Sequences:
    """Every table below a folder, all with the same columns; each file is a series by its name."""
    paths = [path for path in files_below(folder) if suffix(path) in TABLES]
    parts: list[Rows] = []
    for path, name in zip(paths, stems(paths, folder), strict=True):
        rows = read_rows(open_table(path, options), options, name)
        if rows.by_id:
            rows = replace(rows, names=tuple(f"{name}/{series}" for series in rows.names))
        first = parts[0] if parts else rows
        if rows.columns != first.columns:
            raise DataError(
                f"{path}: the value is {some(rows.columns)}, but {some(first.columns)} in "
                f"'{paths[0]}'; choose with value="
            )
        if _clock(rows) != _clock(first):
            raise DataError(
                f"{path}: the times are {_clock(rows)}, in '{paths[0]}' {_clock(first)}"
            )
        parts.append(rows)
        if on_progress is not None:
            on_progress(len(parts), len(paths))
    return assemble(parts, options, str(folder))


def read_array(array: np.ndarray, label: str, name: str) -> Sequences:
    """One series from numbers [T] or [T, D]; NaN is a missing value.

    Raises: DataError for other shapes, for what is no number, and for infinities by place.
    """
    if array.dtype.kind not in "biuf":
        raise DataError(f"{label}: the array holds {array.dtype}, not real numbers")
    if array.ndim not in (1, 2) or 0 in array.shape:
        raise DataError(
            f"{label}: the array has the shape {list(array.shape)}; a series is [T] or [T, D]"
        )
    values = array.astype(np.float64).reshape(len(array), -1)
    bad = np.argwhere(np.isinf(values))
    if len(bad):
        row, column = bad[0]
        raise DataError(f"{label}: step {row} (counted from 0), column {column}: not finite")
    width = values.shape[1]
    labels = ("value",) if width == 1 else tuple(f"value{index}" for index in range(width))
    offsets = np.array([0, len(values)])
    no_covariates = np.zeros((len(values), 0))
    rows = Rows(values, no_covariates, None, offsets, (name,), labels, (), False, ReadPlan(), ())
    return assemble([rows], Options(), label)


def read_npy(path: Path) -> Sequences:
    """One series from a .npy file [T] or [T, D]."""
    try:
        array = np.load(path, allow_pickle=False)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}") from error
    except (ValueError, EOFError) as error:
        raise DataError(f"{path}: not a .npy file of numbers") from error
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: holds several arrays; save one with numpy.save")
    return read_array(array, str(path), stem(path))


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
    """Every series from its first value on; one that has none is left out."""
    there = ~np.isnan(rows.values).all(axis=1)
    if there.all() or not there.any():
        return rows
    seen = np.cumsum(there)
    before = np.concatenate([[0], seen])[rows.offsets[:-1]]
    kept = seen - np.repeat(before, np.diff(rows.offsets)) > 0
    if kept.all():
        return rows
    lost = np.add.reduceat(~kept, rows.offsets[:-1])
    lengths = np.diff(rows.offsets)
    empty = [rows.names[i] for i in np.flatnonzero(lost == lengths)]
    late = [rows.names[i] for i in np.flatnonzero((lost > 0) & (lost < lengths))]
    notes = []
    if late:
        count = int(lost[lost < lengths].sum())
        whose = f" of {some(late)}" if len(rows.names) > 1 else ""
        verb = "is" if count == 1 else "are"
        notes.append(
            f"{count:,} row{'' if count == 1 else 's'} before the first value{whose} {verb} left "
            f"out; leading='keep' keeps them"
        )
    if empty:
        notes.append(f"without any value, and left out: {some(empty)}")
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
