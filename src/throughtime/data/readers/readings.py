"""Columns read as times: the value, how plausible one reading is, and how many may fail."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from throughtime.data import frequency
from throughtime.data.readers.stamps import today
from throughtime.data.readers.table import Table
from throughtime.errors import DataError

if TYPE_CHECKING:
    import polars as pl

MOST_UNREAD = 0.1  # share of stamps that may fail


@dataclass(frozen=True)
class Times:
    """A column read as times.

    values: [height], datetime64[us] or numbers, NaT and NaN where a stamp cannot be read;
    form: the `time_format` that reads it so again; evidence: what that rests on; passed_over:
    other readings; notes: sentences.
    """

    values: np.ndarray
    form: str
    evidence: str = ""
    passed_over: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def unread(self) -> np.ndarray:
        return np.isnat(self.values) if self.values.dtype.kind == "M" else np.isnan(self.values)


def check_unread(
    table: Table, label: str, cells: pl.Series, values: np.ndarray, wanted: str
) -> None:
    """Raises DataError where too many stamps cannot be read to leave them out."""
    empty = cells.is_null().to_numpy()
    if empty.sum() > MOST_UNREAD * len(values):
        row = int(np.argmax(empty))
        raise DataError(f"{table.where(row)}: column '{label}': the time is empty")
    unread = np.isnat(values) & ~empty
    if unread.sum() <= MOST_UNREAD * max(len(values) - cells.null_count(), 1):
        return
    row = int(np.argmax(unread))
    count = int(unread.sum())
    more = "" if count == 1 else f"; nor are {count - 1:,} others"
    raise DataError(
        f"{table.where(row)}: column '{label}': '{cells[row]}' is not {wanted}{more}; say how it "
        f"is written with time_format=, or take rows as they come with time=False"
    )


def quality(values: np.ndarray, groups: np.ndarray) -> tuple[float, ...]:
    """How plausible a reading is; the smaller the better, the first difference counts.

    Shares of stamps that fail, lie outside 1600 to 2200, occur twice in a series; whether they
    neither rise nor fall throughout; share of steps of another length than the usual one; share
    after today.
    """
    known = ~np.isnat(values)
    unread = 1 - float(known.mean())
    stamps, series = values[known], groups[known]
    if not len(stamps):
        return (1.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    years = stamps.astype("datetime64[Y]").astype(np.int64) + 1970
    odd = float(((years < 1600) | (years > 2200)).mean())
    inside = np.diff(series) == 0
    steps = np.diff(stamps).astype(np.int64)[inside]
    monotone = not len(steps) or bool((steps >= 0).all() or (steps <= 0).all())
    if not monotone or (steps < 0).any() or (np.diff(series) < 0).any():
        order = np.lexsort((stamps, series))
        stamps, series = stamps[order], series[order]
    same = (np.diff(stamps).astype(np.int64) == 0) & (np.diff(series) == 0)
    kept = np.concatenate([[True], ~same])
    twice = 1 - float(kept.mean())
    late = float((values[known] > today() + np.timedelta64(366, "D")).mean())
    irregular = 1 - frequency.regularity(stamps[kept], series[kept])
    return (round(unread, 3), round(odd, 3), round(twice, 2), float(not monotone), irregular, late)
