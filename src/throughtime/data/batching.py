"""Ragged sequences packed into lanes: time-major batches that spend no step on padding."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from throughtime.data.sequences import Sequences
from throughtime.errors import SettingError

GOOD = 0.98  # utilisation from which whole sequences in lanes are balanced well enough
_NOWHERE = -(2**62)  # the step of a place that holds none
_BEGIN = 1  # the row of the table of pieces that says where each begins
_PLACES = 2**20  # looked at at once
PIECE = tuple[int, int, int]  # first step and end in `values`, and steps that cannot be cut off


@dataclass(frozen=True)
class Batch:
    """T steps of B lanes, time-major. ``batch[t0:t1]`` slices time; ``len(batch)`` is T.

    Attributes:
        x: the targets X_t, int64 ``[T, B]`` or float ``[T, B, D]``.
        previous: X_{t-1}, of the same shape; 0 where there is none.
        start: bool ``[T, B]``, X_t is the first element of its sequence.
        reset: bool ``[T, B]``, the carried state belongs elsewhere and begins anew before step t
            (true at every start and at every cut).
        weight: float32 ``[T, B]``: 1 scored; 0 padding, past or missing.
        covariates: ``[T, B, C]`` or None.
        series: index in the training set, int64 ``[T, B]``, -1 unknown; or None.
        index: the step in ``sequences.values``, int64 ``[T, B]``, -1 padding.
        initial: bool ``[T, B]``, X_t is an initial value, which is not differenced; None where no
            step is one.
    """

    x: Tensor
    previous: Tensor
    start: Tensor
    reset: Tensor
    weight: Tensor
    covariates: Tensor | None
    series: Tensor | None
    index: Tensor
    initial: Tensor | None = None

    def __len__(self) -> int:
        return self.x.shape[0]

    def __getitem__(self, steps: slice) -> Batch:
        """The same lanes between two times; views, no copies."""
        _contiguous(steps, len(self))
        return self._each(lambda part: part[steps])

    def to(self, device: torch.device | str) -> Batch:
        """The same on another device."""
        return self._each(lambda part: part.to(device))

    def _each(self, function: Callable[[Tensor], Tensor]) -> Batch:
        parts: dict[str, Any] = {}
        for field in fields(self):
            part = getattr(self, field.name)
            parts[field.name] = None if part is None else function(part)
        return Batch(**parts)


class Lanes:
    """A whole pass over the data as one lazily gathered batch of B lanes.

    Each lane holds pieces of sequences one after the other, `reset` at the first step of each.
    Every scored step is in exactly one lane, once. ``lanes[t0:t1]`` gathers a `Batch`;
    ``len(lanes)`` is the number of steps T of the longest lane.

    Sequences are cut only when whole ones leave more than 2 % of the lanes empty, at most
    ``num_lanes`` times, or if `segment` asks for it. A cut piece begins with reset, without start,
    and with the true previous value. The pass takes memory for its pieces, not for its steps.

    Args:
        sequences: to pack.
        num_lanes: B, or fewer where there are fewer pieces.
        segment: cut into pieces of at most so many scored steps.
        generator: draws the order of sequences and the places of cuts; the inside of a sequence is
            never reordered. Without one the packing depends on the data alone: the longest first,
            each to the lane that is free first.
        dtype: of values; symbols stay int64.
        past: steps before the scored part that are kept to condition on, with weight 0; None: all.
        cut: False never cuts, which exact scores need.

    Raises:
        SettingError: for sizes that make no sense.
    """

    def __init__(
        self,
        sequences: Sequences,
        num_lanes: int,
        segment: int | None = None,
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
        past: int | None = None,
        cut: bool = True,
    ) -> None:
        if num_lanes < 1:
            raise SettingError(f"num_lanes={num_lanes}: at least 1 is needed")
        if segment is not None and segment < 1:
            raise SettingError(f"segment={segment}: at least 1 step is needed, None for whole ones")
        if past is not None and past < 0:
            raise SettingError(f"past={past}: 0 or more steps, None for all")
        if segment is not None and not cut:
            raise SettingError("segment asks for cuts and cut=False forbids them: give one")
        lanes = _pack(_pieces(sequences, past, generator), num_lanes, segment, generator, cut)
        self._lay_out(sequences, lanes, dtype)

    @classmethod
    def aligned(
        cls, sequences: Sequences, dtype: torch.dtype = torch.float32, scored_only: bool = False
    ) -> Lanes:
        """A lane for each sequence, all ending together: the state at the end is that of each.

        Args:
            sequences: one or more, none of them empty.
            dtype: of values.
            scored_only: the pasts are left out and no lane is reset, since the states that have
                read them are at hand; the scored parts are of one length then.
        """
        begins = sequences.offsets[:-1] + (sequences.starts if scored_only else 0)
        pieces = zip(begins.tolist(), sequences.offsets[1:].tolist(), strict=True)
        made = object.__new__(cls)
        made._lay_out(sequences, [[(*piece, 1)] for piece in pieces], dtype, at_the_end=True)
        if scored_only:
            made._table[_BEGIN] = _NOWHERE
        return made

    def _lay_out(
        self,
        sequences: Sequences,
        lanes: list[list[PIECE]],
        dtype: torch.dtype,
        at_the_end: bool = False,
    ) -> None:
        """Notes where each piece lies: in which lane, from which time on; lane after lane.

        What follows the last piece of a lane (or comes before one that is to lie at the end) is a
        piece of nothing.
        """
        self.sequences, self.num_lanes, self.dtype = sequences, len(lanes), dtype
        self.device: torch.device | None = None
        sizes = [sum(end - begin for begin, end, _ in lane) for lane in lanes]
        self._length, self._filled = max(sizes, default=0), sum(sizes)
        empty, laid = (_NOWHERE, _NOWHERE), list[tuple[int, int, int]]()
        for i, (lane, size) in enumerate(zip(lanes, sizes, strict=True)):
            time = i * (self._length + 1)
            if at_the_end and size < self._length:
                laid.append((time, *empty))
                time += self._length - size
            for begin, end, _ in lane:
                laid.append((time, begin, time % (self._length + 1)))
                time += end - begin
            laid.append((time, *empty))
        columns = torch.tensor(laid, dtype=torch.int64).reshape(-1, 3).t().contiguous()
        self._keys, begins, heads = columns
        rows = (torch.searchsorted(sequences.offsets, begins, right=True) - 1).clamp_(min=0)
        real, first = begins >= 0, sequences.offsets[rows]
        starts = torch.cat([sequences.starts.long(), torch.zeros(1, dtype=torch.int64)])
        scored = torch.where(real, first + starts[rows], -_NOWHERE)
        shift = torch.where(real, begins - heads, _NOWHERE)
        self._table = torch.stack([shift, begins, torch.where(real, first, _NOWHERE), scored])
        self._known = bool((sequences.identity >= 0).any())
        self._has_initial = bool(sequences.initial.any())
        missing = sequences.missing
        self._missing = missing if bool(missing.any()) else None

    def _places(self, begin: int, end: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Of the places ``[T, B]`` between two times: the step (-1: none), and three flags.

        Whether it is the first of its sequence, whether its lane is reset there, whether it is
        scored.
        """
        times = torch.arange(begin, end).unsqueeze(1)
        lanes = torch.arange(self.num_lanes) * (self._length + 1)
        piece = torch.searchsorted(self._keys, times + lanes, right=True).sub_(1)
        shift, begins, first, scored_from = self._table[:, piece]
        step = shift.add_(times).clamp_(min=-1)
        scored = step >= scored_from
        if self._missing is not None:
            scored &= ~self._missing[step]
        return step, step == first, step == begins, scored

    def __len__(self) -> int:
        return self._length

    @property
    def utilisation(self) -> float:
        """The share of the T * B places that hold a step of the data, pasts included."""
        return self._filled / (self._length * self.num_lanes) if self._filled else 1.0

    def scored(self, begin: int, end: int) -> int:
        """How many scored steps lie between two times of the lanes, `begin` included.

        Args:
            begin, end: from 0 to ``len(lanes)``.
        """
        return sum(int(part.sum()) for part in self._scored(begin, end))

    def scored_steps(self) -> Tensor:
        """The times at which any lane has a scored step, int64, in order."""
        every = [part.any(1) for part in self._scored(0, len(self))]
        return torch.cat(every).nonzero()[:, 0] if every else torch.zeros(0, dtype=torch.int64)

    def _scored(self, begin: int, end: int) -> Iterator[Tensor]:
        """Which places are scored, some times after the other, bool ``[T, B]``."""
        at_once = max(1, _PLACES // self.num_lanes)
        for first in range(begin, end, at_once):
            yield self._places(first, min(end, first + at_once))[3]

    def to(self, device: torch.device | str) -> Lanes:
        """The same pass, whose slices are moved to a device as they are gathered."""
        moved = object.__new__(Lanes)
        moved.__dict__.update(self.__dict__)
        moved.device = torch.device(device)
        return moved

    def chunks(self, steps: int) -> Iterator[Batch]:
        """The pass in consecutive batches of at most `steps` steps."""
        if steps < 1:
            raise SettingError(f"steps={steps}: at least 1 is needed")
        for first in range(0, len(self), steps):
            yield self[first : first + steps]

    def __getitem__(self, steps: slice) -> Batch:
        """The lanes between two times as a `Batch`, gathered from the sequences."""
        _contiguous(steps, len(self))
        s, (begin, end, _) = self.sequences, steps.indices(len(self))
        index, start, reset, scored = self._places(begin, max(begin, end))
        padding = index < 0
        covariates = series = initial = None
        at = index.clamp(min=0)
        if s.covariates is not None:
            covariates = self._values(s.covariates, at, padding)
        if self._known:
            rows = torch.searchsorted(s.offsets, at, right=True) - 1
            series = s.identity[rows].masked_fill_(padding, -1)
        if self._has_initial:
            initial = (s.differencing[at] > 0).masked_fill_(padding, False)
        batch = Batch(
            x=self._values(s.values, at, padding),
            previous=self._values(s.values, (at - 1).clamp_(min=0), padding | start),
            start=start,
            reset=reset,
            weight=scored.to(torch.float32),
            covariates=covariates,
            series=series,
            index=index,
            initial=initial,
        )
        return batch if self.device is None else batch.to(self.device)

    def _values(self, values: Tensor, at: Tensor, nothing: Tensor) -> Tensor:
        """Values [T, B, ...] at these steps; 0 where there is nothing, so that no NaN is let in."""
        # Rows of one column are gathered as plain numbers, twice as fast.
        flat = values[:, 0] if values.shape[1:] == (1,) else values
        gathered = flat.index_select(0, at.flatten()).reshape(*at.shape, *values.shape[1:])
        if not values.is_floating_point():
            return gathered.long().masked_fill_(nothing, 0)
        return gathered.to(self.dtype).masked_fill_(nothing[..., None], 0.0)


def _contiguous(steps: object, length: int) -> None:
    if not isinstance(steps, slice) or steps.indices(length)[2] != 1:
        raise SettingError("batches are sliced along time: batch[t0:t1]")


def _pieces(s: Sequences, past: int | None, generator: torch.Generator | None) -> list[PIECE]:
    """One piece per sequence with scored steps, in the order of the pass.

    The past and the first scored step stay together: a piece of past alone would teach nothing.
    """
    begins = s.offsets[:-1] if past is None else s.offsets[:-1] + (s.starts - past).clamp(min=0)
    first = s.offsets[:-1] + s.starts
    order = torch.arange(len(s))
    if generator is not None:
        order = torch.randperm(len(s), generator=generator)
    order = order[(first < s.offsets[1:])[order]]
    columns = (begins, s.offsets[1:], first - begins + 1)
    return list(zip(*(column[order].tolist() for column in columns), strict=True))


def _pack(
    pieces: list[PIECE],
    num_lanes: int,
    segment: int | None,
    generator: torch.Generator | None,
    cut: bool,
) -> list[list[PIECE]]:
    """The pieces, cut where needed, dealt to the lanes in the order they will be run."""
    shuffled = generator is not None
    if segment is not None:
        pieces = _segments(pieces, segment, generator)
        return _longest_first(pieces, max(1, min(num_lanes, len(pieces))), shuffled)
    lanes = _longest_first(pieces, num_lanes, shuffled)
    if not cut or _balance(lanes) >= GOOD:
        return lanes
    return _wrapped(_turned(pieces, generator), num_lanes)


def _segments(pieces: list[PIECE], segment: int, generator: torch.Generator | None) -> list[PIECE]:
    """Each piece cut into segments, the first of random length when there is a generator."""
    phases = [segment] * len(pieces)
    if generator is not None:
        phases = torch.randint(1, segment + 1, (len(pieces),), generator=generator).tolist()
    result = []
    for (begin, end, tied), phase in zip(pieces, phases, strict=True):
        scored = begin + tied - 1
        if end - scored <= segment:
            result.append((begin, end, tied))
            continue
        cut = scored + phase
        result.append((begin, cut, tied))
        result.extend((c, min(c + segment, end), 1) for c in range(cut, end, segment))
    return result


def _longest_first(pieces: list[PIECE], num_lanes: int, shuffled: bool) -> list[list[PIECE]]:
    """Longest processing time first: each piece, the longest first, to the emptiest lane."""
    order = sorted(range(len(pieces)), key=lambda i: pieces[i][0] - pieces[i][1])
    free = [(0, lane) for lane in range(num_lanes)]
    dealt: list[list[int]] = [[] for _ in range(num_lanes)]
    for i in order:
        filled, lane = free[0]
        dealt[lane].append(i)
        heapq.heapreplace(free, (filled + pieces[i][1] - pieces[i][0], lane))
    if shuffled:
        # Back into the drawn order: otherwise each pass would begin with the long sequences.
        dealt = [sorted(lane) for lane in dealt]
    return [[pieces[i] for i in lane] for lane in dealt]


def _balance(lanes: list[list[PIECE]]) -> float:
    lengths = [sum(end - begin for begin, end, _ in lane) for lane in lanes]
    longest = max(lengths)
    return sum(lengths) / (longest * len(lengths)) if longest else 1.0


def _turned(pieces: list[PIECE], generator: torch.Generator | None) -> list[PIECE]:
    """The same stream of steps begun at a random place, which is the only new cut."""
    if generator is None:
        return pieces
    free = torch.tensor([end - begin - tied + 1 for begin, end, tied in pieces]).cumsum(0)
    place = int(torch.randint(int(free[-1]), (1,), generator=generator))
    i = int(torch.searchsorted(free, place, right=True))
    begin, end, tied = pieces[i]
    # `left` counts from the end, so the past and the first scored step stay in the head.
    left = int(free[i]) - place - 1
    if left == 0:
        return pieces[i + 1 :] + pieces[: i + 1]
    head, tail = (begin, end - left, tied), (end - left, end, 1)
    return [tail, *pieces[i + 1 :], *pieces[:i], head]


def _wrapped(pieces: list[PIECE], num_lanes: int) -> list[list[PIECE]]:
    """Lanes filled one after the other to equal length, cutting where a lane is full.

    This is McNaughton's rule: fewer cuts than lanes, and no idle steps unless long pasts, which
    cannot be cut, force some; then the capacity is the least that suffices, found by bisection.
    """
    total = sum(end - begin for begin, end, _ in pieces)
    low = max(-(-total // num_lanes), max((tied for _, _, tied in pieces), default=0))
    lanes = _filled(pieces, num_lanes, low)
    if lanes is not None:
        return lanes
    high = 2 * low
    best = _filled(pieces, num_lanes, high)
    while best is None:
        high *= 2
        best = _filled(pieces, num_lanes, high)
    while high - low > 1:
        middle = (low + high) // 2
        lanes = _filled(pieces, num_lanes, middle)
        if lanes is None:
            low = middle
        else:
            best, high = lanes, middle
    return best


def _filled(pieces: list[PIECE], num_lanes: int, capacity: int) -> list[list[PIECE]] | None:
    """Lanes of at most `capacity` steps, or None where they do not suffice."""
    lanes: list[list[PIECE]] = [[]]
    room = capacity
    for begin, end, tied in pieces:
        while begin < end:
            if room < tied:
                if len(lanes) == num_lanes:
                    return None
                lanes.append([])
                room = capacity
            stop = min(end, begin + room)
            lanes[-1].append((begin, stop, tied))
            room -= stop - begin
            begin, tied = stop, 1
    return lanes + [[] for _ in range(num_lanes - len(lanes))]
