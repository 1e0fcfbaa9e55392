"""`tt.read`: whatever the user names, as `Sequences`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from throughtime.data import frames
from throughtime.data.readers.demo import read_demo
from throughtime.data.readers.files import counts_by_suffix, files_below, locate, quoted, suffix
from throughtime.data.readers.options import Options, ReadOptions, Unpack, as_names
from throughtime.data.readers.series import (
    TABLES,
    read_array,
    read_frame,
    read_npy,
    read_series,
    read_series_folder,
)
from throughtime.data.readers.sound import SOUNDS, read_sound, read_sound_folder
from throughtime.data.readers.text import TEXTS, read_jsonl, read_text, read_text_folder
from throughtime.data.sequences import Sequences
from throughtime.errors import DataError, SettingError, nearest

KINDS = {"series": (*TABLES, ".npy"), "text": (*TEXTS, ".jsonl"), "sound": SOUNDS}
FOLDERS = {"series": TABLES, "text": (".txt",), "sound": SOUNDS}  # what is read from a folder


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
        source: a path: `.csv .tsv .parquet .npy` are series, `.txt .md .jsonl` text, `.wav .flac
            .ogg .mp3` sound; tables, text and JSON lines may be gzipped. A frame of polars, pandas
            or another library that narwhals knows. An array or tensor ``[T]`` or ``[T, D]``, or a
            list of them, a sequence each: floats are values, integers of tensors and of lists
            symbols. `demo:prices`, `demo:nasdaq`, `demo:text`, `demo:sound`.
        kind: "series", "text" or "sound", where the extension does not say it.
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
        order: "time" sorts rows, "keep" takes them as they come, "reverse" turns them.
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
    path = locate(source)
    if path.is_dir():
        return _read_folder(path, kind, options, on_progress)
    return _read_file(path, kind, options)


def _read_object(source: Any, options: Options) -> Sequences:
    """Sequences, a frame, an array or a tensor, or a list of them."""
    if isinstance(source, Sequences):
        options.check("demo")
        return source
    if frames.is_frame(source):
        options.check("series")
        return read_frame(source, options)
    if isinstance(source, np.ndarray):
        options.check("array")
        return read_array(source, "array", "series")
    if isinstance(source, Tensor) or (isinstance(source, (list, tuple)) and len(source)):
        options.check("array")
        return _read_tensors(source)
    raise SettingError(
        f"cannot read a {type(source).__name__}: give a path, a frame, an array or tensor [T] or "
        "[T, D], or a list of them"
    )


def _read_tensors(source: Tensor | Sequence[Any]) -> Sequences:
    """One sequence, or several: floats are values, integers are symbols."""
    parts = [source] if isinstance(source, Tensor) else list(source)
    if any(isinstance(part, str) for part in parts):
        raise SettingError("a list of texts is Sequences.of(texts); a path is given by itself")
    sequences = Sequences.of(parts, names=["series"] if isinstance(source, Tensor) else None)
    if sequences.domain.integer:
        return sequences.with_notes(
            f"integers are taken for symbols, 0 to {int(sequences.values.max())}; give floats for "
            "amounts"
        )
    return sequences


def _read_file(path: Path, kind: str | None, options: Options) -> Sequences:
    extension = suffix(path)
    if kind is None:
        kind = next((name for name, known in KINDS.items() if extension in known), None)
    if kind is None:
        known = " ".join(extension for group in KINDS.values() for extension in group)
        raise DataError(
            f"{path}: the extension '{extension}' is not known; known are {known}; kind= says how "
            f"to read another file"
        )
    if kind == "sound":
        options.check("sound")
        return read_sound(path, options.rate)
    if extension == ".jsonl":
        options.check("jsonl")
        if len(options.value) > 1:
            raise SettingError("value= is one field of a .jsonl file, which may hold lists")
        field = options.value[0] if options.value else None
        return read_jsonl(path, options.text, field, "/".join(as_names(options.id)) or None)
    if kind == "text":
        options.check("text")
        return read_text(path, options.encoding or "utf-8", options.lines)
    if extension == ".npy":
        options.check("array")
        return read_npy(path)
    options.check("series")
    return read_series(path, options)


def _read_folder(
    folder: Path,
    kind: str | None,
    options: Options,
    on_progress: Callable[[int, int], None] | None,
) -> Sequences:
    """Every file of one kind; where a folder holds several kinds, `kind` chooses."""
    paths = files_below(folder)
    kinds = [
        name for name, known in FOLDERS.items() if any(suffix(path) in known for path in paths)
    ]
    usable = " ".join(extension for known in FOLDERS.values() for extension in known)
    if kind is not None:
        usable = " ".join(FOLDERS[kind])
        kinds = [name for name in kinds if name == kind]
    if not kinds:
        raise DataError(
            f"{folder}: no file that can be read; the folder holds {counts_by_suffix(paths)}, "
            f"needed are {usable}"
        )
    if len(kinds) > 1:
        raise DataError(
            f"{folder}: holds several kinds of data ({counts_by_suffix(paths)}); choose one with "
            f"kind=, {quoted(kinds)}"
        )
    options.check(kinds[0])
    if kinds[0] == "sound":
        return read_sound_folder(folder, options.rate, on_progress)
    if kinds[0] == "text":
        return read_text_folder(folder, options.encoding or "utf-8", options.lines, on_progress)
    return read_series_folder(folder, options, on_progress)
