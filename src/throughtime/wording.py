"""Moments and durations as people and JSON read them."""

from __future__ import annotations

from numbers import Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def stamp(moment: object) -> str | float:
    """A datetime(64) as "2008-10-13" or "2008-10-13 09:30:00", UTC; a number as itself."""
    if isinstance(moment, Real):
        return float(moment)
    text = str(moment).replace("T", " ").removesuffix("+00:00").removesuffix(".000000")
    return text.removesuffix(" 00:00:00")


def stamps(times: np.ndarray | None, steps: Any) -> list[str | float] | None:
    """Those of some steps (a slice or an index array), or None where there are no times."""
    return None if times is None else [stamp(moment) for moment in times[steps]]


def duration(seconds: float) -> str:
    """How long something takes: 0.3 s, 42 s, 3:05 min, 2:10 h."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 59.5:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"


def measured(seconds: float) -> str:
    """A measurement: three digits and a unit, 1.42 ms."""
    units = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
    size, unit = next((one for one in units if seconds >= one[0]), units[-1])
    value = seconds / size
    return f"{value:.{2 if value < 9.995 else 1 if value < 99.95 else 0}f} {unit}"
