"""Rounds in which every contender has its turn, so that all meet the machine in the same state."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

_SETTLE = 0.005  # seconds: the threads of other runtimes go on spinning after their work
_LONG = 0.02  # seconds: a call that long needs no other to warm the caches before it


@dataclass(frozen=True)
class Contender:
    """Something to time: `run(n)` makes n calls, one after the other."""

    name: str
    run: Callable[[int], object]


@dataclass(frozen=True)
class Ratio:
    """How many times as long one contender takes as another: median and quartiles over rounds."""

    median: float
    low: float
    high: float


class Race:
    """Contenders that do the same work; `round` times each once."""

    def __init__(self, contenders: Sequence[Contender], least: float) -> None:
        """least: seconds that one measurement lasts at least; short calls are repeated."""
        self.contenders, self.least = list(contenders), least
        self.calls: dict[str, int] = {}
        self.once: dict[str, float] = {}
        self.seconds: dict[str, list[float]] = {one.name: [] for one in self.contenders}

    def warm(self) -> None:
        """Makes the first calls, which load and compile, and finds how many fill a measurement."""
        for one in self.contenders:
            one.run(1)
            taken, calls = _time(one, 1), 1
            while taken < self.least / 2 and calls < 1_000_000:
                calls = max(calls + 1, min(10 * calls, math.ceil(calls * self.least / taken)))
                taken = _time(one, calls)
            self.calls[one.name], self.once[one.name] = calls, taken / calls

    @property
    def cost(self) -> float:
        """Seconds that a round takes, about."""
        return sum(
            _SETTLE + once * (self.calls[name] + (once < _LONG)) for name, once in self.once.items()
        )

    def round(self, first: int = 0) -> None:
        """Times every contender once, beginning with the one of that number."""
        count = len(self.contenders)
        for place in range(count):
            one = self.contenders[(first + place) % count]
            time.sleep(_SETTLE)
            if self.once[one.name] < _LONG:
                one.run(1)
            calls = self.calls[one.name]
            self.seconds[one.name].append(_time(one, calls) / calls)

    def median(self, name: str) -> float:
        """Seconds of one call."""
        return statistics.median(self.seconds[name])

    def ratio(self, name: str, to: str) -> Ratio:
        """One contender's time over another's, round by round."""
        pairs = zip(self.seconds[name], self.seconds[to], strict=True)
        return spread([one / other for one, other in pairs])


def spread(values: Sequence[float]) -> Ratio:
    """Median and quartiles."""
    if len(values) == 1:
        return Ratio(values[0], values[0], values[0])
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Ratio(median, low, high)


def _time(one: Contender, calls: int) -> float:
    with _undisturbed():
        begun = time.perf_counter()
        one.run(calls)
        return time.perf_counter() - begun


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Without the garbage collector, which would charge one contender for another's objects."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()
