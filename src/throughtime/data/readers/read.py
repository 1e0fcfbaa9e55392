"""`tt.read`: whatever the user names, as `Sequences`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from throughtime.data import frames
from throughtime.data.readers.arrays import read_object
from throughtime.data.readers.containers import standard_input
from throughtime.data.readers.demo import read_demo
from throughtime.data.readers.dispatch import KINDS, read_path
from throughtime.data.readers.files import locate, quoted
from throughtime.data.readers.options import Options, ReadOptions, Unpack
from throughtime.data.readers.series import read_frame
from throughtime.data.sequences import Sequences
from throughtime.errors import SettingError, nearest
from throughtime.types import STDIN


def read(
    source: Any,
    *,
    kind: str | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    **options: Unpack[ReadOptions],
) -> Sequences:
    """Reads sequences from a file, a folder, a frame, an array, a tensor, or `demo:prices`.

    A folder is read with all that is below it and holds one kind of data. What was guessed, and
    gaps and missing values with their places, stands in `.notes` of the result.

    Args:
        source: a path: tables, JSON, arrays, spreadsheets, text and sound, known by their first
            bytes and their names (the guide lists them), compressed or in an archive too; "-" is
            the standard input. A frame of polars, pandas or another library that narwhals knows. An
            array or tensor ``[T]`` or ``[T, D]``, or a list of them, a sequence each: floats are
            values, integers of tensors and of lists inside a list symbols; a list of plain numbers
            is one series. `demo:prices`, `demo:nasdaq`, `demo:text`, `demo:sound`.
        kind: "series", "text" or "sound", where neither name nor content says it.
        on_progress: called with (files done, files in all) while a folder is read.
        time: column of time stamps, or several that make one (`"date,time"`, or year, month, day,
            hour); False takes rows as they come. What is not given here is found out, and said.
        value: columns of values; "*" is every column of numbers that is left. In `.jsonl`, a field
            of numbers.
        id: column (in `.jsonl`: field) of the names of series, or several.
        covariates: columns that are known before the value of their row.
        layout: "rows" for a table in which each row is a series and columns are its steps.
        time_format: as in strftime ("%d/%m/%Y"), or "epoch", "epoch_ms", "epoch_us", "epoch_ns"
            (since 1970), or "number".
        zone: of stamps without one ("Europe/Berlin"); they become UTC.
        sort: "time" sorts rows, "keep" takes them as they come, "reverse" turns them.
        duplicates: which of several rows with one stamp is kept: "first", "last", their "mean";
            "error" stops.
        gaps: "keep" leaves the rows as they are, "fill" puts a row where a stamp is missing.
        leading: "cut" begins a series at its first value, "keep" leaves what is missing before.
        header: False for a table without a line of column names, which are then `column_1`, …;
            True where the first line has them.
        skip: lines to leave out at the top.
        comment: mark with which lines begin that are left out.
        separator: of cells, " " for any blanks.
        decimal, thousands: marks inside numbers.
        units: texts inside cells of numbers that are left out ("kWh").
        missing: cells that mean "not there" ("-999").
        part: the sheet, member or array to read, where a file holds several.
        encoding: of text files, or "bytes" for raw bytes as symbols.
        text: the field of `.jsonl` that holds text.
        lines: whether each line of a text, its newline included, is a sequence.
        rate: in Hz; sound is resampled to it.

    Returns:
        `Sequences` of raw data, nothing transformed.

    Raises:
        DataError: in one line, for anything in the data that cannot be used.
        SettingError: for options that make no sense.
        MissingExtra: for a demo whose package is absent.
    """
    asked = Options.of(options)
    sequences = _read(source, kind, asked, on_progress)
    if isinstance(source, Sequences):
        return source
    return replace(
        sequences,
        read_options=({} if kind is None else {"kind": kind})
        | ({} if sequences.plan is None else sequences.plan.again())
        | asked.given(),
        library=frames.library_of(source),
    )


def _read(
    source: Any, kind: str | None, options: Options, on_progress: Callable[[int, int], None] | None
) -> Sequences:
    if kind is not None and kind not in KINDS:
        raise SettingError(f"kind='{kind}'{nearest(kind, KINDS) or ';'} use one of {quoted(KINDS)}")
    if isinstance(source, str) and source.startswith("demo:"):
        options.check("demo")
        return read_demo(source[len("demo:") :])
    if not isinstance(source, (str, Path)):
        return _read_object(source, options)
    if isinstance(source, str) and source in ("-", STDIN):
        with standard_input() as path:
            return read_path(path, kind, options, on_progress)
    return read_path(locate(source), kind, options, on_progress)


def _read_object(source: Any, options: Options) -> Sequences:
    """Sequences, a frame, an array or a tensor, or a list of them."""
    if isinstance(source, Sequences):
        options.check("demo")
        return source
    if frames.is_frame(source):
        options.check("series")
        return read_frame(source, options)
    if isinstance(source, (np.ndarray, Tensor)) or (
        isinstance(source, (list, tuple)) and len(source)
    ):
        options.check("array")
        return read_object(source)
    raise SettingError(
        f"cannot read a {type(source).__name__}: give a path, a frame, an array or tensor [T] or "
        "[T, D], or a list of them"
    )
