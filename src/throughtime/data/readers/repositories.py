"""The text formats of the public repositories of series: .tsf (Monash), .ts (UEA, UCR), .arff."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from throughtime.data.readers.arrays import read_arrays
from throughtime.data.readers.calendar import Series, dated_series
from throughtime.data.readers.encodings import decoded
from throughtime.data.readers.files import gathered, quoted, read_bytes, reason, stem
from throughtime.data.readers.options import Options
from throughtime.data.readers.table import Table
from throughtime.data.sequences import Sequences
from throughtime.errors import DataError

Lines = list[tuple[int, str]]  # numbers and contents of the lines that hold data


def _sections(path: Path, options: Options) -> tuple[Lines, Lines, tuple[str, ...]]:
    """The lines before `@data` that begin with @, those after it, and what was noticed."""
    text, findings = decoded(read_bytes(path), path, options.encoding)
    lines = [(n, line.strip()) for n, line in enumerate(text.split("\n"), start=1)]
    lines = [(n, line) for n, line in lines if line and line[0] not in "#%"]
    start = next((i for i, (_, line) in enumerate(lines) if line.lower() == "@data"), None)
    if start is None:
        raise DataError(f"{path}: no line '@data'")
    if start + 1 == len(lines):
        raise DataError(f"{path}: nothing comes after '@data'")
    header = [(n, line) for n, line in lines[:start] if line[0] == "@"]
    return header, lines[start + 1 :], gathered(findings)


def _value(header: Lines, name: str) -> str | None:
    """What follows `@name` in the header, or None."""
    for _, line in header:
        word, _, rest = line.partition(" ")
        if word.lower() == f"@{name}":
            return rest.strip()
    return None


def _cells(text: str, where: str) -> np.ndarray:
    """Numbers between commas, `?` and nothing where one is missing."""
    cells = []
    for place, cell in enumerate(text.split(",")):
        cell = cell.strip()
        try:
            cells.append(np.nan if cell in ("?", "", "NaN") else float(cell))
        except ValueError:
            raise DataError(
                f"{where}: step {place} (counted from 0): '{cell[:40]}' is not a number"
            ) from None
    return np.array(cells)


# --------------------------------------------------------------------------------------------- .tsf


def read_tsf(path: Path, options: Options) -> Sequences:
    """A series a line, with times from its start and the frequency of the file."""
    header, lines, notes = _sections(path, options)
    attributes = [line.split() for _, line in header if line.lower().startswith("@attribute")]
    names = [words[1] for words in attributes if len(words) > 2]
    kinds = [words[2].lower() for words in attributes if len(words) > 2]
    freq, series = _value(header, "frequency"), []
    for number, line in lines:
        *fields, values = line.split(":")
        if len(fields) != len(names):
            raise DataError(
                f"{path}:{number}: {len(fields)} attributes before the values, the header has "
                f"{len(names)}: {quoted(names)}"
            )
        starts = [f for f, kind in zip(fields, kinds, strict=True) if kind == "date"]
        words = [f for f, kind in zip(fields, kinds, strict=True) if kind != "date"]
        array = _cells(values, f"{path}:{number}")
        name = "/".join(words) or f"{stem(path)}:{number}"
        series.append(Series(name, array, starts[0] if starts else None, freq if starts else None))
    return dated_series(series, str(path), "value", notes)


# ---------------------------------------------------------------------------------------------- .ts


def read_ts(path: Path, options: Options) -> Sequences:
    """A sequence a line, its dimensions between colons; class labels are left out with a note."""
    header, lines, notes = _sections(path, options)
    stamped = (_value(header, "timestamps") or "").lower() == "true"
    label = (_value(header, "classlabel") or _value(header, "targetlabel") or "").lower()
    classed = label.startswith("true") or (not label and _last_is_word(lines[0][1]))
    arrays, labels = [], []
    for number, line in lines:
        where, parts = f"{path}:{number}", line.split(":")
        if stamped:
            parts = _untimed(line, where)
        if classed:
            labels.append(parts.pop().strip())
        columns = [_cells(part, where) for part in parts]
        if len({len(column) for column in columns}) != 1:
            sizes = ", ".join(str(len(column)) for column in columns[:8]) or "no"
            raise DataError(f"{where}: dimensions of different lengths ({sizes} steps)")
        arrays.append(np.stack(columns, axis=1))
    said = list(notes)
    if labels:
        said.append(f"the class labels {quoted(sorted(set(labels)), 6)} are left out")
    if stamped:
        said.append("the time stamps inside the sequences are left out")
    names = [f"{stem(path)}:{number}" for number, _ in lines]
    return read_arrays(arrays, names, str(path), notes=said)


def _last_is_word(line: str) -> bool:
    """Whether the last dimension of an unlabelled file is one word: a class label all the same."""
    last = line.rpartition(":")[2].strip()
    return ":" in line and "," not in last and bool(re.search(r"[A-Za-z]", last))


def _untimed(line: str, where: str) -> list[str]:
    """Dimensions of pairs `(stamp,value),(stamp,value)` as values between commas."""
    parts: list[str] = []
    for part in re.split(r":(?=\(|[^():,]*$)", line):
        pairs = re.findall(r"\(([^()]*)\)", part)
        parts.append(",".join(pair.rpartition(",")[2] for pair in pairs) if pairs else part)
    if not parts:
        raise DataError(f"{where}: no pairs of a stamp and a value")
    return parts


# -------------------------------------------------------------------------------------------- .arff


def read_arff(path: Path, options: Options) -> Table:
    """A table: attributes are columns, a line is a row."""
    import polars as pl

    header, lines, notes = _sections(path, options)
    names, kinds = [], []
    for number, line in header:
        match = re.match(r"@attribute\s+('[^']*'|\"[^\"]*\"|\S+)\s+(.+)", line, re.IGNORECASE)
        if match is not None:
            names.append(match[1].strip("'\""))
            kinds.append(match[2].strip().lower())
        elif line.lower().startswith("@attribute"):
            raise DataError(f"{path}:{number}: an attribute needs a name and a type")
    if "relational" in kinds:
        raise DataError(f"{path}: attributes that are relations are not read; write the .ts format")
    rows = list(_rows(path, lines, len(names)))
    columns = [
        pl.Series(name, [row[index] for row in rows], dtype=pl.String)
        for index, name in enumerate(names)
    ]
    if len(set(names)) < len(names):
        raise DataError(f"{path}: two attributes have the same name among {quoted(names)}")
    frame = pl.DataFrame(columns)
    table = Table(str(path), names, frame.height, frame.select, lambda row: lines[row][0])
    table.notes = notes
    return table


def _rows(path: Path, lines: Lines, width: int) -> Iterator[Sequence[str | None]]:
    for number, line in lines:
        if line[0] == "{":
            raise DataError(f"{path}:{number}: sparse rows are not read; write every cell")
        quote = '"' if '"' in line else "'"
        try:
            cells = next(csv.reader([line], quotechar=quote, skipinitialspace=True))
        except csv.Error as error:
            raise DataError(
                f"{path}:{number}: not cells between commas: {reason(error)}"
            ) from error
        if len(cells) != width:
            raise DataError(f"{path}:{number}: {len(cells)} cells where the attributes are {width}")
        yield [None if cell.strip() == "?" else cell.strip() for cell in cells]
