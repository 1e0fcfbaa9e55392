"""Where sequences are cut into training, validation and test parts, and forecast origins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from throughtime.data.readers.files import quoted
from throughtime.errors import DataError, SettingError

MANY = 50  # from here on whole sequences can be spared for validation and test
WAYS = ("auto", "time", "sequence", "spread")
LABELS = ("training", "validation", "test")
GOLDEN = 0.6180339887498949  # multiples of it, mod 1, fill the interval evenly


class Timed(Protocol):
    """What a split reads of a set of sequences."""

    @property
    def offsets(self) -> Tensor: ...
    @property
    def starts(self) -> Tensor: ...
    @property
    def lengths(self) -> Tensor: ...
    @property
    def names(self) -> tuple[str, ...]: ...
    @property
    def times(self) -> np.ndarray | None: ...


@dataclass(frozen=True)
class Part:
    """One part: the sequences `keep`, and for all N sequences the scored steps [starts, stops)."""

    keep: Tensor
    starts: Tensor
    stops: Tensor


@dataclass(frozen=True)
class Plan:
    """Training, validation and test, and what people should know about them."""

    parts: tuple[Part, Part, Part]
    notes: tuple[str, ...] = ()


def plan(s: Timed, valid: float, test: float, by: str, gap: int) -> Plan:
    """How to cut; see `Sequences.split`."""
    if by not in WAYS:
        raise SettingError(f"split by '{by}': use one of {', '.join(WAYS)}")
    if not (0 <= valid < 1 and 0 <= test < 1 and valid + test < 1):
        raise SettingError(f"valid={valid} and test={test}: fractions that leave a training part")
    if len(s.starts) == 0:
        raise DataError("there are no sequences to split")
    if gap < 0:
        raise SettingError(f"gap={gap}: a number of steps, 0 or more")
    if by == "auto":
        by = "spread" if _many_short(s) else "time"
    if by in ("sequence", "spread"):
        return _by_sequence(s, valid, test, spread=by == "spread")
    if shared(s):
        return _by_instant(s, valid, test, gap)
    return _by_fraction(s, valid, test, gap)


def _many_short(s: Timed) -> bool:
    """Many sequences, none of them most of the data, and no common clock that links them."""
    if len(s.starts) < MANY or shared(s):
        return False
    return int(s.lengths.max()) <= int(s.lengths.sum()) // 4


def shared(s: Timed) -> bool:
    """True where several series have mostly the same time stamps."""
    if s.times is None or len(s.starts) < 2 or len(s.times) == 0:
        return False
    return len(np.unique(s.times)) <= 0.75 * len(s.times)


def _by_fraction(s: Timed, valid: float, test: float, gap: int) -> Plan:
    scored = s.lengths - s.starts
    # The small addition keeps 0.9 * 10 from falling to 8 by rounding.
    first = s.starts + (scored * (1 - valid - test) + 1e-6).floor().long()
    second = s.starts + (scored * (1 - test) + 1e-6).floor().long()
    if valid == 0:
        second = first
    everyone = torch.arange(len(s.starts))
    nobody = everyone[:0]
    validation = Part(everyone if valid else nobody, first + gap, second)
    tested = Part(everyone if test else nobody, second + gap, s.lengths)
    parts, notes = [], []
    for label, part in zip(
        LABELS, (Part(everyone, s.starts, first), validation, tested), strict=True
    ):
        empty = part.stops[part.keep] <= part.starts[part.keep]
        kept = part.keep[~empty]
        if len(part.keep) and not len(kept):
            i = int(scored.argmax())
            raise DataError(
                f"series '{s.names[i]}' has {int(scored[i])} steps; its {label} part would be "
                f"empty with valid={valid:g}, test={test:g}, gap={gap}: use larger fractions or "
                "split by sequence"
            )
        if bool(empty.any()):
            names = [s.names[int(i)] for i in part.keep[empty]]
            notes.append(_absent(names, len(everyone), label))
        parts.append(Part(kept, part.starts, part.stops))
    return Plan((parts[0], parts[1], parts[2]), tuple(notes))


def _absent(names: list[str], count: int, label: str) -> str:
    """A note on series that are too short to have steps in a part."""
    verb = "has" if len(names) == 1 else "have"
    return f"{len(names)} of {count} series {verb} no steps in the {label} part: {quoted(names, 5)}"


def _by_instant(s: Timed, valid: float, test: float, gap: int) -> Plan:
    """The same instants for every series; a series without steps in a part is left out of it."""
    assert s.times is not None
    count = len(s.starts)
    rows = np.repeat(np.arange(count), s.lengths.numpy())
    place = np.arange(len(s.times)) - s.offsets.numpy()[rows]
    instants = np.unique(s.times[place >= s.starts.numpy()[rows]])
    cuts = _instant_cuts(len(instants), valid, test, gap)

    def before(cut: int) -> Tensor:
        """How many steps of each series lie before an instant."""
        if cut >= len(instants):
            return s.lengths
        earlier = np.bincount(rows[s.times < instants[cut]], minlength=count)
        return torch.from_numpy(earlier)

    parts, notes = [], []
    for label, (begin, stop) in zip(("training", "validation", "test"), cuts, strict=True):
        stops = before(stop)
        starts = s.starts if label == "training" else torch.maximum(before(begin), s.starts)
        keep = (stops > starts).nonzero()[:, 0] if stop > begin else torch.arange(0)
        parts.append(Part(keep, starts, stops))
        absent = sorted(set(range(count)) - set(keep.tolist()))
        if stop > begin and len(keep) == 0:
            raise DataError(f"no series has steps in the {label} part: use larger fractions")
        if stop > begin and absent:
            notes.append(_absent([s.names[i] for i in absent], count, label))
    return Plan((parts[0], parts[1], parts[2]), tuple(notes))


def _instant_cuts(total: int, valid: float, test: float, gap: int) -> list[tuple[int, int]]:
    first = int(total * (1 - valid - test) + 1e-6)
    second = int(total * (1 - test) + 1e-6) if valid else first
    cuts = [(0, first), (first + gap, second), (second + gap, total)]
    wanted = (True, valid > 0, test > 0)
    for label, asked, (begin, stop) in zip(
        ("training", "validation", "test"), wanted, cuts, strict=True
    ):
        if asked and stop <= begin:
            raise DataError(
                f"the series share {total} time stamps; the {label} part would be empty with "
                f"valid={valid:g}, test={test:g}, gap={gap}: use larger fractions"
            )
    return [cut if asked else (0, 0) for cut, asked in zip(cuts, wanted, strict=True)]


def _by_sequence(s: Timed, valid: float, test: float, spread: bool) -> Plan:
    count = len(s.starts)
    first = int(count * (1 - valid - test) + 1e-6)
    second = int(count * (1 - test) + 1e-6) if valid else first
    order = torch.arange(count)
    if spread:
        # A place in the file decides alone, so nothing random and no other file is needed; the
        # golden ratio keeps out of step with any regular order (digits, speakers, week days).
        order = ((order.double() + 1) * GOLDEN % 1.0).argsort(stable=True)
    chosen = (order[:first], order[first:second], order[second:])
    asked = (True, valid > 0, test > 0)
    for label, keep, want in zip(("training", "validation", "test"), chosen, asked, strict=True):
        if want and len(keep) == 0:
            raise DataError(
                f"{count} sequences are too few to split by sequence with valid={valid:g} and "
                f"test={test:g}: the {label} part would be empty; split by time"
            )
    parts = [Part(keep.sort().values, s.starts, s.lengths) for keep in chosen]
    return Plan((parts[0], parts[1], parts[2]))


def origins(s: Timed, horizon: int, count: int) -> list[tuple[Tensor, Tensor]]:
    """For each origin: which sequences have it, and for all N the number of steps before it."""
    if horizon < 1 or count < 1:
        raise SettingError(f"horizon={horizon} and count={count}: both are 1 or more")
    # An origin needs a step to look back on; in a set with pasts the first one may be at a start.
    first = s.starts.clamp(min=1)
    last = s.lengths - horizon
    room = last - first
    if bool((room < 0).all()):
        longest = int(s.lengths.max()) if len(s.lengths) else 0
        raise DataError(
            f"no series is long enough for a horizon of {horizon}: the longest has {longest} steps"
        )
    result = []
    for k in range(count):
        # Counted back from the end: the last origin of every series is its latest possible one.
        back = (count - 1 - k) * (room + 1) // count
        later = (count - 2 - k) * (room + 1) // count
        # A series with fewer possible origins than `count` has each of them once.
        keep = (room >= 0) & ((back != later) | (k == count - 1))
        result.append((keep.nonzero()[:, 0], (last - back).clamp(min=0)))
    return [pair for pair in result if len(pair[0])]
