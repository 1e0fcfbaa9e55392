"""A table whose cells can be named: columns are read when they are asked for.

Cells of a text stay text until they are parsed here, so that every failure knows its line.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from throughtime.data import frames
from throughtime.data.readers.files import quoted
from throughtime.data.readers.numbers import (
    Marks,
    Numbers,
    lone_thousands,
    looks_like_number,
    marks_of,
    plain,
    read_numbers,
    shows_decimal_point,
)
from throughtime.data.readers.options import Options
from throughtime.data.readers.plan import ReadPlan
from throughtime.data.readers.stamps import looks_like_stamp
from throughtime.errors import DataError, nearest

if TYPE_CHECKING:
    import polars as pl

_TRIED = 2_000  # cells of a long column that show whether it holds numbers
_LISTED = 3  # places that a note spells out


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
        notes: Iterable[str] = (),
        plan: ReadPlan | None = None,
        options: Options | None = None,
    ) -> None:
        self.label = label
        self.height = height
        self.notes = tuple(notes)
        self.plan = plan or ReadPlan()
        self.options = options or Options()
        self._line = line
        self._cells: dict[str, pl.Series] = {}
        self._numbers: dict[str, Numbers] = {}
        self._marks: Marks | None = None
        self.columns = columns
        self._load = load
        if height == 0:
            raise DataError(f"{label}: there are column names but no rows")

    def where(self, row: int) -> str:
        if self._line is not None:
            return f"{self.label}:{self._line(int(row))}"
        return f"{self.label}: row {int(row)} (counted from 0)"

    def line(self, row: int) -> str:
        """The row inside a sentence: `line 17` or `row 15`."""
        return f"row {int(row)}" if self._line is None else f"line {self._line(int(row))}"

    def places(self, rows: np.ndarray) -> str:
        """The first few rows inside a sentence: `lines 17, 20, 31, …`."""
        listed = [self.line(row) for row in rows[:_LISTED]]
        word = listed[0].split()[0]
        numbers = ", ".join(one.split()[1] for one in listed)
        plural = "s" if len(rows) > 1 else ""
        return f"{word}{plural} {numbers}{', …' if len(rows) > _LISTED else ''}"

    def check(self, name: str) -> str:
        """The name itself. Raises: DataError with the nearest name and the columns."""
        if name not in self.columns:
            near = nearest(name, self.columns) or ";"
            raise DataError(
                f"{self.label}: no column '{name}'{near} the columns are {quoted(self.columns, 20)}"
            )
        return name

    def load(self, names: Iterable[str]) -> None:
        """Reads several columns in one pass."""
        wanted = [name for name in dict.fromkeys(names) if name not in self._cells]
        if wanted:
            frame = self._load(wanted)
            self._cells.update(dict(zip(wanted, frame.get_columns(), strict=True)))

    def cells(self, name: str) -> pl.Series:
        self.load([name])
        return self._cells[name]

    def forget(self) -> None:
        """Lets go of what was read, when the columns are understood; it is read again if asked."""
        self._cells.clear()
        self._numbers.clear()

    @property
    def marks(self) -> Marks:
        """Decimal and thousands mark of the file, from the cells that leave no doubt."""
        if self._marks is None:
            self._marks = self._find_marks()
        return self._marks

    def _find_marks(self) -> Marks:
        import polars as pl

        asked = self.options
        if asked.decimal is not None:
            return Marks(asked.decimal, asked.thousands, "given")
        found = []
        for name in self.columns:
            cells = self.cells(name)
            if cells.dtype == pl.String:
                stripped, empty = plain(cells.head(3_000))
                known = stripped.filter(~empty)
                if known.cast(pl.Float64, strict=False).null_count() == 0:
                    cell = shows_decimal_point(known.to_list())
                    if cell is not None:
                        found.append(Marks(".", None, f"'{cell}'"))
                    continue
                marks = marks_of(known.to_list())
                if marks.decimal is not None and _mostly_written(known):
                    found.append(marks)
        commas = [marks for marks in found if marks.decimal == ","]
        points = [marks for marks in found if marks.decimal == "."]
        if commas and not points:
            return Marks(",", asked.thousands or commas[0].thousands, commas[0].evidence)
        if points and not commas:
            return Marks(".", asked.thousands or points[0].thousands, points[0].evidence)
        return Marks(None, asked.thousands, "")

    def numbers(self, name: str) -> Numbers:
        """The column as numbers.

        Raises: DataError for types that are none.
        """
        if name not in self._numbers:
            self._numbers[name] = self._parse(name)
        return self._numbers[name]

    def numeric(self, name: str) -> bool:
        """Whether the column is meant as numbers: nine in ten of its cells that hold something."""
        import polars as pl

        dtype = self.cells(name).dtype
        if dtype != pl.String:
            return dtype.is_numeric() or dtype == pl.Boolean
        return self._has_numbers(name) and self.numbers(name).numeric

    def _has_numbers(self, name: str) -> bool:
        """Whether any of some cells is a number: a long column of words is not read in full."""
        cells = self.cells(name)
        if name in self._numbers or len(cells) < 10 * _TRIED:
            return True
        tried = cells.gather_every(len(cells) // _TRIED)
        found = read_numbers(tried, self.marks, self.options.missing, self.options.units)
        return found.known > 0 or not found.bad.any()

    def _parse(self, name: str) -> Numbers:
        import polars as pl

        cells = self.cells(name)
        if cells.dtype == pl.String:
            marks = self.marks
            found = read_numbers(cells, marks, self.options.missing, self.options.units)
            # Where semicolons part cells, a comma is the usual decimal mark.
            comma_likely = marks == Marks() and self.plan.value("separator") == ";"
            if comma_likely and found.doubt is None:
                sample = cells.drop_nulls().head(200).to_list()
                return replace(found, doubt=lone_thousands(sample))
            return found
        if cells.dtype.is_numeric() or cells.dtype in (pl.Boolean, pl.Null):
            values = cells.cast(pl.Float64).fill_null(float("nan")).to_numpy()
            wanted = [float(one) for one in self.options.missing if _is_number(one)]
            if wanted:
                values = np.where(np.isin(values, wanted), np.nan, values)
            bad = np.isinf(values)
            return Numbers(np.where(bad, np.nan, values), bad)
        raise DataError(f"{self.label}: column '{name}' holds {cells.dtype}, not numbers")


def _mostly_written(known: pl.Series) -> bool:
    """Whether most cells are numbers in some writing: free text with figures says nothing."""
    sample = known.head(200).to_list()
    numbers = [cell for cell in sample if looks_like_number(cell) and not looks_like_stamp(cell)]
    return len(numbers) * 10 >= len(sample) * 8


def distinct(columns: Iterable[str], notes: list[str]) -> list[str]:
    """Names that differ: the second 'x' is 'x_2'."""
    columns = list(columns)
    seen: Counter[str] = Counter()
    result: list[str] = []
    for name in columns:
        seen[name] += 1
        fresh = name if seen[name] == 1 else f"{name}_{seen[name]}"
        while fresh in result:
            seen[name] += 1
            fresh = f"{name}_{seen[name]}"
        result.append(fresh)
    renamed = [new for new, old in zip(result, columns, strict=True) if new != old]
    if renamed:
        notes.append(f"names that occur twice are told apart: {quoted(renamed, 5)}")
    return result


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def frame_table(frame: Any) -> Table:
    """A frame of any library (or a column of one) as a Table; a pandas index becomes a column."""
    table = frames.to_polars(frame)
    return Table("frame", list(table.columns), table.height, table.select)
