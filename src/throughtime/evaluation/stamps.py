"""Time stamps as people and JSON read them."""

from __future__ import annotations

from typing import Any

import numpy as np

from throughtime.data.sequences import Sequences


def stamp(value: Any) -> str | float:
    """A moment as "2008-10-13" or "2008-10-13 09:30:00"; a number as itself."""
    if isinstance(value, np.datetime64):
        text = str(value.astype("datetime64[us]"))
        return text.removesuffix(".000000").removesuffix("T00:00:00").replace("T", " ")
    return float(value)


def stamps(raw: Sequences, steps: Any) -> list[str | float] | None:
    """The times of some steps (a slice or an index array), or None where the data have none."""
    return None if raw.times is None else [stamp(value) for value in raw.times[steps]]
