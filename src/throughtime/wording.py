"""Numbers, intervals, moments and durations as people read them; moments as JSON has them, too."""

from __future__ import annotations

import math
from collections.abc import Iterable
from numbers import Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

MINUS = "\N{MINUS SIGN}"
NONE = "\N{EN DASH}"  # where there is no number


def fixed(value: float | None, decimals: int, sign: bool = False) -> str:
    """A number with so many decimals, a true minus sign and thousands apart; a dash for none."""
    if value is None or not math.isfinite(value):
        return NONE
    if abs(value) >= 1e15:
        return f"{value:.3g}".replace("-", MINUS)
    text = f"{value:{'+' if sign else ''},.{decimals}f}"
    if not any(digit in text for digit in "123456789"):  # no "-0.00"
        text = text.lstrip("+-")
    return text.replace("-", MINUS)


def decimals(intervals: Iterable[tuple[float, float]], otherwise: int = 3) -> int:
    """Decimals with which every interval shows two digits of its width: between 3 and 6."""
    width = min((high - low for low, high in intervals if high > low), default=0.0)
    return min(6, max(3, 1 - math.floor(math.log10(width)))) if width > 0 else otherwise


def estimate(
    value: float, interval: tuple[float, float] | None, unit: str, sign: bool = False
) -> str:
    """`0.161 nats per day (95 % interval 0.140 to 0.182)`; with `sign`, `+0.161 …`."""
    if interval is None:
        return f"{fixed(value, 3, sign)} {unit} (too few data for an interval)"
    places = decimals([interval])
    low, high = (fixed(end, places, sign) for end in interval)
    return f"{fixed(value, places, sign)} {unit} (95 % interval {low} to {high})"


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
