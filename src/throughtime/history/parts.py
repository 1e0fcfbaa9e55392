"""What the windows are fitted to and judged by: targets, and where the past of each one lies."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from throughtime.data.sequences import Sequences

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Targets of a span of sequences, and the steps before them.

    values: int64 ``[total]`` or float64 ``[total, D]`` (NaN: missing). log_det ``[total]``: what
    the transforms add to each step's log-likelihood, so that nats are in the data's own units.
    first, int64 ``[total]``: where the sequence of each step begins. rows, int64 ``[n]``: the
    targets. anchors, int64 ``[n]``: the step whose past each target is given; its own, unless they
    are shuffled.
    """

    values: np.ndarray
    log_det: Floats
    offsets: Ints
    first: Ints
    rows: Ints
    anchors: Ints

    @classmethod
    def of(cls, shown: Sequences, past: int | None = None) -> Part:
        """Every scored step of transformed sequences, with at most `past` steps before them."""
        data = shown if past is None else shown.limit_past(past)
        offsets = data.offsets.numpy()
        values = data.values.numpy()
        if values.dtype.kind == "f" and bool(data.initial.any()):
            values = np.where(data.initial.numpy()[:, None], np.nan, values)
        rows = np.flatnonzero((data.scored() & ~data.initial).numpy())
        first = np.repeat(offsets[:-1], np.diff(offsets))
        return cls(values, data.log_det.numpy(), offsets, first, rows, rows)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shuffled(self) -> bool:
        """Whether the targets are given other pasts than their own."""
        return not np.array_equal(self.rows, self.anchors)

    @property
    def bounds(self) -> Ints:
        """Where the targets of each sequence begin among all targets, ``[N + 1]``."""
        return np.searchsorted(self.rows, self.offsets)

    def thinned(self, most: int) -> Part:
        """At most so many targets, spread evenly; the past of each stays whole."""
        if len(self) <= most:
            return self
        kept = np.linspace(0, len(self) - 1, most).astype(np.int64)
        return replace(self, rows=self.rows[kept], anchors=self.anchors[kept])

    def latest(self, most: int) -> Part:
        """The last so many targets."""
        return replace(self, rows=self.rows[-most:], anchors=self.anchors[-most:])

    def only(self, chosen: Ints) -> Part:
        """Some of the targets."""
        return replace(self, rows=self.rows[chosen], anchors=self.anchors[chosen])

    def with_past_of(self, order: Ints) -> Part:
        """Target i is given the past of target ``order[i]``."""
        return replace(self, anchors=self.rows[order])

    def reordered(self, order: Ints) -> Part:
        """The targets' values in another order, those before them as they are."""
        values = self.values.copy()
        values[self.rows] = self.values[self.rows[order]]
        return replace(self, values=values)

    def before(self, lag: int | Ints) -> tuple[Ints, NDArray[np.bool_]]:
        """The step `lag` before each target, and whether its sequence had begun by then."""
        place = self.anchors[..., None] - lag if isinstance(lag, np.ndarray) else self.anchors - lag
        start = self.first[self.anchors]
        begun = place >= (start[:, None] if place.ndim == 2 else start)
        return np.where(begun, place, 0), begun
