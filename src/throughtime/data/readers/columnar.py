"""Files of typed columns: Parquet, Arrow and Feather, and spreadsheets."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from throughtime.data.readers.arrays import read_arrays
from throughtime.data.readers.calendar import Series, dated_series
from throughtime.data.readers.files import check_memory, parsing, quiet, quoted, read_bytes, stem
from throughtime.data.readers.options import Options, as_names
from throughtime.data.readers.records import NAMES, TARGETS
from throughtime.data.readers.table import Table
from throughtime.data.sequences import Sequences
from throughtime.errors import DataError, MissingExtra, SettingError, nearest

if TYPE_CHECKING:
    import polars as pl


FARTHEST = 8000 * 365.0  # days from 1970, in the years that calendars have
PER_DAY = {"ms": 86_400e3, "us": 86_400e6, "ns": 86_400e9}


def read_parquet(path: Path, options: Options) -> Table | Sequences:
    """A table, or a series from each row where a column holds lists."""
    import polars as pl

    return _frame(path, options, "Parquet file", pl.read_parquet)


def read_arrow(path: Path, options: Options) -> Table | Sequences:
    """An Arrow file or stream (Feather is one), read as Parquet is."""
    import polars as pl

    def either(content: BytesIO) -> pl.DataFrame:
        stream = content.getbuffer()[:4] == b"\xff\xff\xff\xff"
        return pl.read_ipc_stream(content) if stream else pl.read_ipc(content)

    return _frame(path, options, "Arrow file", either)


def _frame(
    path: Path, options: Options, what: str, reader: Callable[[Any], pl.DataFrame]
) -> Table | Sequences:
    import polars as pl

    data = read_bytes(path)
    check_memory(path, 2 * len(data))
    with parsing(path, what, *parser_errors(), OSError, ValueError, OverflowError), quiet():
        frame = reader(BytesIO(data))
        _check_dates(frame, path)
    if options.part is not None:
        raise SettingError("part= says nothing about this source; it is for files of several parts")
    frame = frame.unnest([n for n, kind in frame.schema.items() if isinstance(kind, pl.Struct)])
    lists = [n for n, kind in frame.schema.items() if isinstance(kind, (pl.List, pl.Array))]
    for name in options.value:
        if name in lists and name not in _numeric(frame):
            raise DataError(f"{path}: column '{name}' holds {frame.schema[name]}, not numbers")
    if options.value[0] in lists if options.value else _numeric(frame):
        return _series_rows(frame, lists, path, options)
    table = frame.drop(lists)
    if lists and not table.width:
        raise DataError(f"{path}: no column holds numbers or lists of them: {quoted(lists)}")
    result = Table(str(path), list(table.columns), table.height, table.select)
    result.notes = (f"columns of lists left out: {quoted(lists)}",) if lists else ()
    return result


def _numeric(frame: pl.DataFrame) -> list[str]:
    """The columns whose cells are lists of numbers."""
    inner = {name: getattr(kind, "inner", None) for name, kind in frame.schema.items()}
    return [name for name, kind in inner.items() if kind is not None and kind.is_numeric()]


def _check_dates(frame: pl.DataFrame, path: Path) -> None:
    """Raises DataError for a date that no calendar has: polars stops where it meets one."""
    import polars as pl

    for name, kind in frame.schema.items():
        if isinstance(kind, (pl.Date, pl.Datetime)):
            a_day = PER_DAY[kind.time_unit] if isinstance(kind, pl.Datetime) else 1.0
            found = frame[name].to_physical().cast(pl.Float64).abs().max() or 0
            if float(found) > FARTHEST * a_day:  # type: ignore[arg-type]
                raise DataError(f"{path}: column '{name}' holds dates of no calendar")


def parser_errors() -> tuple[type[BaseException], ...]:
    """What polars raises for files that it cannot read."""
    import polars as pl

    return (pl.exceptions.PolarsError, pl.exceptions.PanicException)


def _series_rows(frame: pl.DataFrame, lists: list[str], path: Path, options: Options) -> Sequences:
    """Each row a series: its values in a list, its stamps in another or in `start` and `freq`."""
    import polars as pl

    if len(options.value) > 1:
        raise SettingError("value= is one column where columns hold lists of numbers")
    numeric = _numeric(frame)
    usual = [name for name in (*options.value, *TARGETS) if name in numeric]
    if not usual and len(numeric) != 1:
        raise DataError(
            f"{path}: {len(numeric)} columns hold lists of numbers: {quoted(numeric)}; choose one "
            f"with value="
        )
    value = (usual or numeric)[0]
    ids = _ids(frame, path, options)
    column = frame[value].cast(pl.List(pl.Float64))
    rows = np.flatnonzero(column.list.len().fill_null(0).to_numpy()).tolist()
    if not rows:
        raise DataError(f"{path}: column '{value}' holds no numbers")
    arrays, frame = [column[row].to_numpy() for row in rows], frame[rows]
    names = [f"{stem(path)}:{row}" for row in rows]
    if ids:
        names = ["/".join(map(str, row)) for row in frame.select(ids).iter_rows()]
    notes = [f"each row is a series, the list in '{value}'"]
    if len(rows) < len(column):
        notes.append(f"{len(column) - len(rows):,} rows without values are left out")
    stamped = [n for n in lists if frame.schema[n].inner.is_temporal()]  # type: ignore[attr-defined]
    if len(stamped) == 1:
        times = frame[stamped[0]].explode().cast(pl.Datetime("us"))
        if len(times) == sum(map(len, arrays)) and times.null_count() == 0:
            notes += _left(frame, {value, *ids, stamped[0]})
            return read_arrays(arrays, names, str(path), value, times.to_numpy(), notes)
    notes += _left(frame, {value, *ids, "start", "freq"})
    starts, freqs = _strings(frame, "start"), _strings(frame, "freq")
    series = [Series(*parts) for parts in zip(names, arrays, starts, freqs, strict=True)]
    return dated_series(series, str(path), value, notes)


def _ids(frame: pl.DataFrame, path: Path, options: Options) -> tuple[str, ...]:
    """The columns that name the series: those asked for, or one of a usual name."""
    asked = as_names(options.id)
    for name in asked:
        if name not in frame.columns:
            near = nearest(name, frame.columns) or ";"
            raise DataError(
                f"{path}: no column '{name}'{near} the columns are {quoted(frame.columns)}"
            )
    return asked or tuple(name for name in NAMES if name in frame.columns)[:1]


def _strings(frame: pl.DataFrame, name: str) -> list[str | None]:
    if name not in frame.columns:
        return [None] * frame.height
    return [None if cell is None else str(cell) for cell in frame[name]]


def _left(frame: pl.DataFrame, used: set[str]) -> list[str]:
    left = [name for name in frame.columns if name not in used]
    return [f"columns left out: {quoted(left)}"] if left else []


def read_excel(path: Path, options: Options) -> Table:
    """The sheet that `part` names, or the only one that holds anything."""
    import polars as pl

    try:
        import fastexcel
    except ImportError as error:
        raise MissingExtra("fastexcel", "excel", f"{path}: a spreadsheet") from error
    data = read_bytes(path)
    errors = (*parser_errors(), fastexcel.FastExcelError, ValueError, OSError, TypeError)
    with parsing(path, "spreadsheet", *errors):
        sheets = pl.read_excel(
            BytesIO(data), sheet_id=0, engine="calamine", infer_schema_length=None,
            drop_empty_rows=True, drop_empty_cols=True, raise_if_empty=False,
        )  # fmt: skip
    filled = {name: sheet for name, sheet in sheets.items() if sheet.height}
    if options.part is not None and options.part not in sheets:
        near = nearest(options.part, sheets) or ";"
        raise DataError(f"{path}: no sheet '{options.part}'{near} there are {quoted(sheets)}")
    if options.part is not None:
        filled = {options.part: sheets[options.part]}
    if not filled:
        raise DataError(f"{path}: no sheet holds a table")
    if len(filled) > 1:
        raise DataError(
            f"{path}: {len(filled)} sheets hold tables: {quoted(filled)}; choose one with part="
        )
    name, frame = next(iter(filled.items()))
    return Table(f"{path}: sheet '{name}'", list(frame.columns), frame.height, frame.select)
