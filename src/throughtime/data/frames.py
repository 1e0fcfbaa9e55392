"""Frames of any library in, results in the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import narwhals as nw
import numpy as np
from narwhals import dependencies

from throughtime.data.readers.files import quoted
from throughtime.errors import DataError, MissingExtra

if TYPE_CHECKING:
    import polars as pl

POLARS = "polars"


def is_frame(value: Any) -> bool:
    """Whether something is a table, or a column of one, of a library that narwhals knows."""
    known = nw.from_native(value, pass_through=True, allow_series=True)
    return isinstance(known, (nw.DataFrame, nw.LazyFrame, nw.Series))


def to_polars(frame: Any) -> pl.DataFrame:
    """A frame, or a column of one, in polars; the index of a pandas frame becomes a column.

    Raises:
        DataError: if two columns have the same name.
    """
    if dependencies.is_pandas_like_dataframe(frame) or dependencies.is_pandas_like_series(frame):
        return _from_pandas(frame)  # column by column: pyarrow is not needed, the index is kept
    known = nw.from_native(frame, allow_series=True)
    if isinstance(known, nw.LazyFrame):
        known = known.collect("polars")
    if isinstance(known, nw.Series):
        known = known.alias(known.name or "value").to_frame()
    return known.to_polars()


def library_of(source: Any, otherwise: str = POLARS) -> str:
    """The library that a frame is of, such as "pandas"; `otherwise` for what is no frame."""
    frame = nw.from_native(source, pass_through=True)
    if not isinstance(frame, (nw.DataFrame, nw.LazyFrame)):
        return otherwise
    return str(frame.implementation.value)


def frame_of(columns: Mapping[str, Any], library: str = POLARS) -> Any:
    """A frame of the library from arrays or lists by name, all of one length.

    Raises:
        MissingExtra: where the library is not installed here.
    """
    plain = {name: _plain(values) for name, values in columns.items()}
    try:
        return nw.from_dict(plain, backend=nw.Implementation.from_backend(library)).to_native()  # type: ignore[arg-type]
    except ImportError as error:
        raise MissingExtra(library, "pandas", f"a frame of {library}") from error


def _plain(values: Any) -> Any:
    """Text as a list: arrays of objects or fixed width are no columns of text everywhere."""
    array = np.asarray(values)
    return array.tolist() if array.dtype.kind in "OUS" else array


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
