"""Frames of any library: which one data came in, and results in the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import narwhals as nw
import numpy as np

from throughtime.errors import MissingExtra

POLARS = "polars"


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
