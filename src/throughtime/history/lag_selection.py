"""How many lags are needed: held-out nats as a function of how much of the past a distribution may
see.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from throughtime.evaluation.bootstrap import mean_interval
from throughtime.history import lag_scan
from throughtime.history.parts import Floats, Part

LADDER = (0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40)
FURTHEST = 1000  # lags that are looked at one by one
FEWEST = 100  # targets from which a lag can be told
SPARSE = 4  # far lags taken up
ENOUGH = 0.01  # of what the past gains in all: less than that is not worth a longer window

Tick = Callable[[str], None]


class Law(Protocol):
    """A conditional distribution of finite memory."""

    def nats(self, part: Part) -> Floats:
        """Nats of every target, ``[n]``."""


class Family(Protocol):
    """Distributions of one kind for every window."""

    @property
    def name(self) -> str:
        """What to call them."""

    @property
    def learn(self) -> Part:
        """What they are fitted to."""

    @property
    def most(self) -> int:
        """The longest window in which every lag is used."""

    def fit(self, dense: int, sparse: tuple[int, ...] = ()) -> Law:
        """The distribution given the last `dense` elements and those at the lags `sparse`."""

    def features(self, part: Part) -> Floats:
        """What the scan looks at of each step of the past, ``[total, F]``."""

    def unseen(self, dense: int, sparse: tuple[int, ...]) -> tuple[Part, Floats]:
        """Targets and their scores ``[n, G]`` under the distribution of a window."""


@dataclass(frozen=True)
class Point:
    """A place of the curve: `lags` of the past seen, nats per step, and what is lost to the best.

    lost: nats per step more than the best window needs, paired. interval: its 95 % interval, None
    where the data are too few for one.
    """

    lags: int
    nats: float
    lost: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Window:
    """The best window of a family, by the data to choose by."""

    family: Family
    dense: int
    sparse: tuple[int, ...]
    held: tuple[Part, Part]  # the data to choose by and to judge by, as the family sees them

    @property
    def reach(self) -> int:
        return max((self.dense, *self.sparse))

    def distribution(self) -> Law:
        return self.family.fit(self.dense, self.sparse)


def ladder(family: Family) -> list[int]:
    """The windows to try, in which every lag is used."""
    return [lags for lags in LADDER if lags < family.most] + [family.most]


class Pool:
    """Every window of a family that was tried, with its nats on the data held out."""

    def __init__(
        self, family: Family, choose: Part, judge: Part, tick: Tick, until: float = math.inf
    ) -> None:
        self.family, self.held, self.tick, self.until = family, (choose, judge), tick, until
        self.nats: dict[tuple[int, tuple[int, ...]], tuple[Floats, Floats]] = {}

    @property
    def late(self) -> bool:
        """Whether the time for trying windows is over (by the clock of `time.monotonic`)."""
        return time.monotonic() > self.until

    def add(self, dense: int, sparse: tuple[int, ...] = ()) -> float:
        """Tries a window; nats per step of the data to choose by."""
        key = (dense, sparse)
        if key not in self.nats:
            self.tick(f"{self.family.name}: {max((dense, *sparse))} lags")
            distribution = self.family.fit(dense, sparse)
            choose, judge = (distribution.nats(part) for part in self.held)
            self.nats[key] = (choose, judge)
        return float(self.nats[key][0].mean())

    def best(self, least: int = 0) -> Window:
        """The window of at least so many lags that predicts the data to choose by best."""
        known = [key for key in self.nats if max((key[0], *key[1])) >= least] or list(self.nats)
        key = min(known, key=lambda window: float(self.nats[window][0].mean()))
        return Window(self.family, *key, self.held)

    @property
    def score(self) -> float:
        """Nats per step of the data to choose by, under the best window."""
        best = self.best()
        return self.add(best.dense, best.sparse)

    def within(self, lags: int) -> Floats:
        """Nats of all held-out targets under the best window of at most so many lags.

        Cross-fitted: the window for each half of the data is the best by the other half.
        """
        inside = [nats for (d, sparse), nats in self.nats.items() if max((d, *sparse)) <= lags]
        by_judge = min(inside, key=lambda nats: float(nats[1].mean()))[0]
        by_choose = min(inside, key=lambda nats: float(nats[0].mean()))[1]
        return np.concatenate([by_judge, by_choose])


def explore(family: Family, choose: Part, judge: Part, tick: Tick, until: float = math.inf) -> Pool:
    """Windows of the last few lags, and with the far ones that the scan finds.

    until: when to stop, by `time.monotonic`; the shortest windows are tried in any case. What is
    tried follows from the learning data and the data to choose by alone.
    """
    pool = Pool(family, choose, judge, tick, until)
    for dense in ladder(family):
        if dense <= 1 or not pool.late:
            pool.add(dense)
    for near in (-1, 1):
        dense = pool.best().dense + near
        if 0 < dense <= family.most and not pool.late:
            pool.add(dense)
    start = pool.best().dense
    sparse: tuple[int, ...] = ()
    while len(sparse) < SPARSE and not pool.late:
        longer = _one_more(pool, start, sparse)
        if longer is None:
            break
        sparse = longer
        for dense in {0, 1, start}:
            pool.add(dense, tuple(lag for lag in sparse if lag > dense))
    return pool


def furthest(part: Part) -> int:
    """The longest lag that at least `FEWEST` targets have."""
    age = np.sort(part.rows - part.first[part.rows])
    return min(FURTHEST, int(age[-FEWEST])) if len(age) >= FEWEST else 0


def _one_more(pool: Pool, dense: int, sparse: tuple[int, ...]) -> tuple[int, ...] | None:
    """With the lag that the distribution of a window misses most, if that predicts better."""
    family = pool.family
    pool.tick("looking for far lags")
    part, scores = family.unseen(dense, sparse)
    lags = range(1, furthest(family.learn) + 1)
    found = lag_scan.strongest(family.features(part), scores, part, lags)
    if found is None or found[0] <= dense or found[0] in sparse:
        return None
    longer = tuple(sorted((*sparse, found[0])))
    return longer if pool.add(dense, longer) < pool.add(dense, sparse) else None


def curve(pool: Pool, seed: int) -> tuple[list[Point], int]:
    """Nats against lags, every lag about the first that suffices; and that one, the lags needed."""
    bounds = joined_bounds(pool.held)
    while True:
        reaches = {max((dense, *sparse)) for dense, sparse in pool.nats}
        lags = reaches | {reach - 1 for reach in reaches if reach > pool.family.most}
        points = compared({k: pool.within(k) for k in lags}, bounds, seed)
        needed = sufficient(points)
        below = max((p.lags for p in points if p.lags < needed), default=needed)
        if needed - below <= 1 or needed > pool.family.most or pool.late:
            return points, needed
        middle = (below + needed) // 2
        pool.add(middle, _beyond(pool.best().sparse, middle))
        pool.add(middle)


def _beyond(sparse: tuple[int, ...], dense: int) -> tuple[int, ...]:
    return tuple(lag for lag in sparse if lag > dense)


def compared(nats: dict[int, Floats], bounds: np.ndarray, seed: int) -> list[Point]:
    """The curve's points, each against the best of them on the same steps."""
    best = min(nats, key=lambda lags: float(nats[lags].mean()))
    points = []
    for lags in sorted(nats):
        lost, interval = mean_interval(nats[lags] - nats[best], bounds, seed)
        points.append(Point(lags, float(nats[lags].mean()), lost, interval))
    return points


def sufficient(points: list[Point]) -> int:
    """The smallest window whose loss is within the interval of the best, or close to it."""
    best = min(point.nats for point in points)
    gained = points[0].nats - best
    for point in points:
        alike = point.interval is None or point.interval[0] <= 0
        if alike or point.lost <= ENOUGH * gained:
            return point.lags
    return points[-1].lags


def joined_bounds(parts: tuple[Part, ...]) -> np.ndarray:
    """Where the targets of each sequence begin, part after part."""
    found, shift = [np.zeros(1, dtype=np.int64)], 0
    for part in parts:
        found.append(part.bounds[1:] + shift)
        shift += len(part)
    return np.concatenate(found)
