"""Frames of any library in, frames of the same library out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import narwhals as nw
import numpy as np
from narwhals import dependencies

from throughtime.data.readers.files import quoted
from throughtime.errors import DataError

if TYPE_CHECKING:
    import polars as pl

POLARS = "polars"


def is_frame(value: Any) -> bool:
    """Whether something is a table, or a column of one, of a library that narwhals knows."""
    known = nw.from_native(value, pass_through=True, allow_series=True)
    return isinstance(known, (nw.DataFrame, nw.LazyFrame, nw.Series))


def library(value: Any) -> str:
    """The library that frames for this value are made in.

    Args:
        value: a frame, a `Sequences` read from one, or anything else: "polars".
    """
    if is_frame(value):
        return nw.from_native(value, allow_series=True).implementation.value
    return str(getattr(value, "library", POLARS))


def build(columns: Mapping[str, Any], like: Any = None) -> Any:
    """A frame in the library of `like`.

    Args:
        columns: lists or arrays of one length, by name.
        like: see `library`.
    """
    import polars as pl

    name = library(like)
    if name == POLARS:
        return pl.DataFrame(dict(columns))
    plain = {key: np.asarray(column) for key, column in columns.items()}
    return nw.from_dict(plain, backend=name).to_native()


def to_polars(frame: Any) -> pl.DataFrame:
    """A frame, or a column of one, in polars; the index of a pandas frame becomes a column.

    Raises:
        DataError: if two columns have the same name.
    """
    if dependencies.is_pandas_like_dataframe(frame) or dependencies.is_pandas_like_series(frame):
        return _from_pandas(frame)  # column by column: pyarrow is not needed, the index is kept
    known = nw.from_native(frame, allow_series=True)
    if isinstance(known, nw.LazyFrame):
        known = known.collect(POLARS)
    if isinstance(known, nw.Series):
        known = known.alias(known.name or "value").to_frame()
    return known.to_polars()


def _from_pandas(frame: Any) -> pl.DataFrame:
    import polars as pl

    if dependencies.is_pandas_like_series(frame):
        frame = frame.to_frame(frame.name if frame.name is not None else "value")
    if type(frame.index).__name__ != "RangeIndex":
        frame = frame.reset_index()
    columns = {str(name): frame.iloc[:, index] for index, name in enumerate(frame.columns)}
    if len(columns) < frame.shape[1]:
        raise DataError(f"frame: two columns have the same name among {quoted(columns)}")
    return pl.DataFrame({name: _pandas_column(name, column) for name, column in columns.items()})


def _pandas_column(name: str, column: Any) -> pl.Series:
    import polars as pl

    dtype = column.dtype
    if getattr(dtype, "tz", None) is not None:
        column = column.dt.tz_convert("UTC").dt.tz_localize(None)
        return pl.Series(name, column.to_numpy("datetime64[us]")).dt.replace_time_zone("UTC")
    if dtype.kind == "M":
        return pl.Series(name, column.to_numpy("datetime64[us]"))
    if dtype.kind in "biuf":
        return pl.Series(name, column.to_numpy("float64", na_value=float("nan")))
    if type(dtype).__name__ == "PeriodDtype":
        return pl.Series(name, column.dt.to_timestamp().to_numpy("datetime64[us]"))
    return pl.Series(name, list(_strings(column)), dtype=pl.String)


def _strings(column: Any) -> Iterator[str | None]:
    for cell, missing in zip(column, column.isna(), strict=True):
        yield None if missing else str(cell)
