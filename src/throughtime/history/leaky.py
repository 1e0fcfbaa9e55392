"""Leaky averages of the past: the smallest latent state of values.

    H_t = λ H_{t-1} + (1 - λ) φ(x_{t-1}),  φ(x) = x and x², at five rates λ

Location and log-scale of the next value are linear in the averages of x and in the logarithms of
those of x², beside the lags of the best window: exponential smoothing and GARCH's variance are of
this kind. It is a recurrent state, which no finite window holds, fitted by maximum likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import lfilter

from throughtime.history.parts import Floats, Ints, Part
from throughtime.history.values import (
    FLOOR,
    Values,
    designs,
    law_nats,
    most_likely,
    seen_columns,
    squares,
)

HALF_LIVES = (2.0, 6.0, 18.0, 54.0, 160.0)  # steps
NAME = "set of leaky averages"


@dataclass(frozen=True)
class LeakyLaw:
    """A window's distribution with leaky averages of all that came before."""

    lags: tuple[int, ...]
    shape: str
    columns: tuple[tuple[Floats, Floats, float], ...]  # weights of location and log-scale, df
    name: str = NAME

    def nats(self, part: Part) -> Floats:
        """Nats of every target, ``[n]``."""
        return self._nats(part, None)

    def restarted(self, part: Part, chosen: Ints, steps: int) -> Floats:
        """Nats of some targets where the state and the lags reach back `steps` steps only."""
        return self._nats(part.only(chosen), steps)

    def _nats(self, part: Part, steps: int | None) -> Floats:
        distributions = []
        for i, (location, scale, df) in enumerate(self.columns):
            f, g = _designs(part, self.lags, self.shape, i, steps)
            distributions.append((f @ location, g @ scale, df))
        return law_nats(part, distributions)


def fitted(values: Values, dense: int, sparse: tuple[int, ...]) -> LeakyLaw:
    """The most likely distribution given a window and the averages."""
    lags = (*range(1, dense + 1), *(lag for lag in sparse if lag > dense))
    part = values.learn.thinned(max(1000, int(values.work) // (20 + 4 * len(lags))))
    columns = []
    for i in range(part.values.shape[1]):
        f, g = _designs(part, lags, values.shape, i, None)
        column = most_likely(f, g, part.values[part.rows, i])
        columns.append((column.location, column.scale, column.df))
    return LeakyLaw(lags, values.shape, tuple(columns))


def _designs(
    part: Part, lags: tuple[int, ...], shape: str, column: int, steps: int | None
) -> tuple[Floats, Floats]:
    """What location and log-scale are linear in; `steps`: nothing older than that is seen."""
    f, g = designs(part, lags, shape, column, steps)
    x = np.nan_to_num(part.values)
    square = squares(part.values)
    d = x.shape[1]
    of_level = range(d) if seen_columns(part) == d else [column]
    levels = [_averages(part, x[:, i], 0.0, steps) for i in of_level]
    spread = np.log(_averages(part, square[:, column], 1.0, steps) + FLOOR)
    return np.concatenate([f, *levels], 1), np.concatenate([g, spread], 1)


def _averages(part: Part, x: Floats, empty: float, steps: int | None) -> Floats:
    """Leaky averages of what lies before each target, a column a rate; they begin as `empty`."""
    rows, first = part.rows, part.first[part.rows]
    age = rows - first
    reach = age if steps is None else np.minimum(age, steps)
    found = np.empty((len(rows), len(HALF_LIVES)))
    for i, half in enumerate(HALF_LIVES):
        keep = 0.5 ** (1.0 / half)
        running = np.empty(len(x))
        for begin, end in zip(part.offsets[:-1], part.offsets[1:], strict=True):
            running[begin:end] = lfilter([1.0 - keep], [1.0, -keep], x[begin:end])
        before = np.where(age > 0, running[np.maximum(rows - 1, 0)], 0.0)
        if steps is not None:
            older = rows - 1 - steps
            gone = np.where(older >= first, running[np.maximum(older, 0)], 0.0)
            before = before - keep**steps * gone
        found[:, i] = before + keep**reach * empty
    return found
