"""Frames of any library are read, and what comes back is of the same one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import throughtime as tt
from throughtime.data.frames import frame_of, is_frame, library_of, to_polars
from throughtime.errors import DataError

COLUMNS: dict[str, Any] = {"ds": ["2020-01-01", "2020-01-02", "2020-01-03"], "y": [1.5, 2.5, 4.0]}
MAKERS = {
    "polars": pl.DataFrame,
    "pandas": pd.DataFrame,
    "pyarrow": pa.table,
}


@pytest.mark.parametrize("name", MAKERS)
def test_each_library_in_and_out(name: str) -> None:
    frame = MAKERS[name](COLUMNS)
    assert is_frame(frame)
    assert library_of(frame) == name
    assert to_polars(frame).to_dict(as_series=False) == COLUMNS
    made = frame_of(COLUMNS, name)
    assert type(made) is type(frame)
    assert to_polars(made).to_dict(as_series=False) == COLUMNS
    data = tt.read(frame)
    assert data.sequence(0)[:, 0].tolist() == COLUMNS["y"]
    assert data.times is not None


def test_lazy_frames_and_columns_are_read() -> None:
    assert tt.read(pl.DataFrame(COLUMNS).lazy()).steps == 3
    for column in (pl.Series([1.0, 2.0]), pd.Series([1.0, 2.0]), pa.chunked_array([[1.0, 2.0]])):
        assert is_frame(column)
        assert tt.read(column).values[:, 0].tolist() == [1.0, 2.0]


def test_what_is_no_frame() -> None:
    for value in (np.zeros(3), [1.0], "prices.csv", None, tt.Sequences.of([np.zeros(3)])):
        assert not is_frame(value)
        assert library_of(value, "none") == "none"


def test_two_columns_of_one_name() -> None:
    frame = pd.DataFrame([[1.0, 2.0]], columns=["a", "a"])
    with pytest.raises(DataError, match="two columns have the same name"):
        to_polars(frame)
