"""A table whose cells can be named: columns are read when they are asked for.

CSV cells stay text until they are parsed here, so that every failure knows its line.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from throughtime.data import frames
from throughtime.data.readers.encodings import decoded
from throughtime.data.readers.files import gathered, quoted, read_bytes, reason, suffix
from throughtime.errors import DataError, nearest

if TYPE_CHECKING:
    import polars as pl

MISSING = ("", "na", "n/a", "#n/a", "nan", "null", "none")  # lower case
SEPARATORS = (",", ";", "\t", "|")


class Table:
    """Named columns of one file or frame.

    `cells(name)` is a column as read; `numbers(name)` the same as float64 with NaN where a cell
    is missing; `where(row)` says in a message where a row (counted from 0) stands.
    """

    def __init__(
        self,
        label: str,
        columns: list[str],
        height: int,
        load: Callable[[list[str]], pl.DataFrame],
        line: Callable[[int], int] | None = None,
    ) -> None:
        self.label = label
        self.columns = columns
        self.height = height
        self._load = load
        self._line = line
        self.notes: tuple[str, ...] = ()  # what was noticed when the file was opened
        self._cells: dict[str, pl.Series] = {}
        for index, name in enumerate(columns):
            if name in columns[:index]:
                raise DataError(f"{label}: two columns are called '{name}'")
        if height == 0:
            raise DataError(f"{label}: there are column names but no rows")

    def where(self, row: int) -> str:
        if self._line is not None:
            return f"{self.label}:{self._line(int(row))}"
        return f"{self.label}: row {int(row)} (counted from 0)"

    def line(self, row: int) -> str:
        """The row inside a sentence: `line 17` or `row 15`."""
        return f"row {int(row)}" if self._line is None else f"line {self._line(int(row))}"

    def check(self, name: str) -> str:
        """The name itself. Raises: DataError with the nearest name and all the columns."""
        if name not in self.columns:
            near = nearest(name, self.columns) or ";"
            raise DataError(
                f"{self.label}: no column '{name}'{near} the columns are {quoted(self.columns)}"
            )
        return name

    def load(self, names: Iterable[str]) -> None:
        """Reads several columns in one pass."""
        wanted = [name for name in dict.fromkeys(names) if name not in self._cells]
        if wanted:
            frame = self._load(wanted)
            self._cells.update({name: frame[name] for name in wanted})

    def cells(self, name: str) -> pl.Series:
        self.load([name])
        return self._cells[name]

    def numbers(self, name: str) -> np.ndarray:
        """The column as float64 [height], NaN where a cell is missing.

        Raises: DataError naming the first cell that is no number, or is infinite.
        """
        number, bad = self._parse(name)
        if bad.any():
            row = int(np.argmax(bad))
            cell = str(self.cells(name)[row]).strip()
            hint = ""
            if "," in cell and _is_number(cell.replace(",", ".")):
                hint = "; write decimals with a point"
            raise DataError(f"{self.where(row)}: column '{name}': '{cell}' is not a number{hint}")
        infinite = np.isinf(number)
        if infinite.any():
            row = int(np.argmax(infinite))
            cell = str(self.cells(name)[row]).strip()
            raise DataError(f"{self.where(row)}: column '{name}': '{cell}' is not finite")
        return number

    def numeric(self, name: str) -> bool:
        """Whether the column is meant as numbers: nine in ten of its cells that hold something."""
        import polars as pl

        dtype = self.cells(name).dtype
        if dtype != pl.String:
            return dtype.is_numeric() or dtype == pl.Boolean
        number, bad = self._parse(name)
        good = int(np.count_nonzero(~np.isnan(number)))
        return good > 0 and int(np.count_nonzero(bad)) * 9 <= good

    def _parse(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Numbers (NaN where missing or bad) and bool [height]: cells that are not numbers."""
        import polars as pl

        cells = self.cells(name)
        if cells.dtype == pl.String:
            stripped = cells.str.strip_chars()
            missing = stripped.is_null() | stripped.str.to_lowercase().is_in(list(MISSING))
            parsed = stripped.cast(pl.Float64, strict=False)
            bad = (parsed.is_null() & ~missing).to_numpy()
            return parsed.fill_null(float("nan")).to_numpy(), bad
        if cells.dtype.is_numeric() or cells.dtype in (pl.Boolean, pl.Null):
            parsed = cells.cast(pl.Float64)
            return parsed.fill_null(float("nan")).to_numpy(), np.zeros(len(cells), dtype=bool)
        raise DataError(f"{self.label}: column '{name}' holds {cells.dtype}, not numbers")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


# ---------------------------------------------------------------------------------------- sources


def open_table(path: Path, encoding: str | None = None, header: bool = True) -> Table:
    """A file of characters as a Table."""
    text, findings = decoded(read_bytes(path), path, encoding)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    separator = "\t" if suffix(path) == ".tsv" else _separator(text)
    table = _csv(str(path), text.rstrip("\n"), separator, header)
    table.notes = gathered(findings)
    return table


def frame_table(frame: Any) -> Table:
    """A frame of any library (or a column of one) as a Table; a pandas index becomes a column."""
    table = frames.to_polars(frame)
    return Table("frame", list(table.columns), table.height, table.select)


def _separator(text: str) -> str:
    """The separator that occurs most often in the first line outside quotes."""
    first = text.split("\n", 1)[0]
    outside = "".join(first.split('"')[::2])
    return max(SEPARATORS, key=lambda mark: (outside.count(mark), -SEPARATORS.index(mark)))


def _csv(label: str, text: str, separator: str, header: bool) -> Table:
    import polars as pl

    if not text.strip():
        raise DataError(f"{label}: the file is empty")
    top, _, rest = text.partition("\n")
    try:
        first = next(csv.reader([top], delimiter=separator, strict=True))
    except csv.Error as error:
        raise DataError(f"{label}:1: cannot be split into columns: {reason(error)}") from error
    if header:
        names = [name.strip() or f"column_{index + 1}" for index, name in enumerate(first)]
        if all(_is_number(name) for name in first):
            raise DataError(
                f"{label}:1: the first line holds numbers, not column names; header=False reads "
                f"it as data"
            )
    else:
        names, rest = [f"column_{index + 1}" for index in range(len(first))], text
    skipped = 1 if header else 0
    height, lines = _check_rows(label, rest, separator, len(names), skipped) if rest else (0, None)
    body = rest.encode()

    def load(wanted: list[str]) -> pl.DataFrame:
        indices = sorted(names.index(name) for name in wanted)
        try:
            frame = pl.read_csv(
                io.BytesIO(body),
                has_header=False,
                columns=indices,
                separator=separator,
                infer_schema=False,
            )
        except pl.exceptions.PolarsError as error:
            raise DataError(f"{label}: the quotes in this file do not match up") from error
        if frame.height != height:
            raise DataError(f"{label}: the quotes in this file do not match up")
        frame.columns = [names[index] for index in indices]
        return frame

    def line(row: int) -> int:
        return row + 1 + skipped if lines is None else int(lines[row])

    return Table(label, names, height, load, line)


def _check_rows(
    label: str, body: str, separator: str, width: int, skipped: int
) -> tuple[int, np.ndarray | None]:
    """Number of rows and, where quotes allow rows of several lines, the first line of each.

    Raises: DataError naming the first row that has too few or too many cells.
    """
    if '"' in body:
        cells, starts = _quoted_rows(label, body, separator, skipped)
        if width == 1:
            cells = np.maximum(cells, 1)  # an empty line of a single column is a missing cell
    else:
        data = np.frombuffer(body.encode() + b"\n", dtype=np.uint8)
        ends = np.flatnonzero(data == 10)
        marks = np.flatnonzero(data == ord(separator))
        cells = np.diff(np.searchsorted(marks, ends), prepend=0) + 1
        if width == 1:
            return len(cells), None
        # An empty line has one cell, and none of a table that has several columns.
        cells[np.diff(ends, prepend=-1) == 1] = 0
        starts = np.arange(len(cells)) + 1 + skipped
    wrong = cells != width
    if wrong.any():
        row = int(np.argmax(wrong))
        problem = (
            f"{cells[row]} cell{'' if cells[row] == 1 else 's'}" if cells[row] else "empty line"
        )
        raise DataError(f"{label}:{starts[row]}: {problem} where the columns are {width}")
    return len(cells), starts if '"' in body else None


def _quoted_rows(
    label: str, body: str, separator: str, skipped: int
) -> tuple[np.ndarray, np.ndarray]:
    """Cells in each row and its first physical line, for a body that contains quotes."""
    reader = csv.reader(io.StringIO(body, newline=""), delimiter=separator, strict=True)
    cells: list[int] = []
    starts: list[int] = []
    start = 1 + skipped
    try:
        for row in reader:
            cells.append(len(row))
            starts.append(start)
            start = reader.line_num + 1 + skipped
    except csv.Error as error:
        raise DataError(
            f"{label}:{start}: a quoted cell is not closed properly ({reason(error)})"
        ) from error
    return np.asarray(cells), np.asarray(starts)
