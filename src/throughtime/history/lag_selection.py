"""How many lags are needed: nats on held-out data as a function of how much of the past is seen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from throughtime.evaluation.bootstrap import mean_interval
from throughtime.history import lag_scan
from throughtime.history.families import Family
from throughtime.history.targets import Floats, Targets
from throughtime.models.closed_form import ClosedForm

LADDER = (0, 1, 2, 3, 4, 5, 6, 8, 10, 13, 16, 20, 25, 32, 40)
FURTHEST = 1000  # lags that are looked at one by one
FEWEST = 100  # targets that a lag needs to be detectable
SPARSE = 4  # far lags taken up
ENOUGH = 0.01  # of what the past gains in all: less than that is not worth a higher order

Tick = Callable[[str], None]


@dataclass(frozen=True)
class Point:
    """A place of the curve of lags.

    lags: how much of the past is seen. nats: per step. lost: nats per step more than the best of
    the curve needs, paired. interval: its 95 % interval, None where the data are too few for one.
    """

    lags: int
    nats: float
    lost: float
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Selected:
    """The lags of a family that predict the validation data best.

    dense: how many of the nearest; far: those beyond. held: validation and test targets.
    """

    family: Family
    dense: int
    far: tuple[int, ...]
    held: tuple[Targets, Targets]

    @property
    def order(self) -> int:
        """The longest lag."""
        return max((self.dense, *self.far))

    def fit(self) -> ClosedForm:
        """The model."""
        return self.family.fit(self.dense, self.far)

    @property
    def name(self) -> str:
        """What to call the model."""
        lags = f"{self.dense} lag{'' if self.dense == 1 else 's'}"
        if not self.far:
            return f"{self.family.name} of {lags}"
        far = f"lag{'s' * (len(self.far) > 1)} {', '.join(map(str, self.far))}"
        return f"{self.family.name} of {far if self.dense == 0 else f'{lags} and {far}'}"


class Trials:
    """The choices of lags of a family that were tried, with their nats on held-out data."""

    def __init__(self, family: Family, valid: Targets, test: Targets, tick: Tick) -> None:
        self.family, self.held, self.tick = family, (valid, test), tick
        self.nats: dict[tuple[int, tuple[int, ...]], tuple[Floats, Floats]] = {}

    def add(self, dense: int, far: tuple[int, ...] = ()) -> float:
        """Tries a choice; nats per step of the validation data."""
        key = (dense, far)
        if key not in self.nats:
            self.tick(f"{self.family.name}: {max((dense, *far))} lags")
            model = self.family.fit(dense, far)
            valid, test = (self.family.nats(model, targets) for targets in self.held)
            self.nats[key] = (valid, test)
        return float(self.nats[key][0].mean())

    def best(self, least: int = 0) -> Selected:
        """The choice of at least so many lags that predicts the validation data best."""
        known = [key for key in self.nats if max((key[0], *key[1])) >= least] or list(self.nats)
        key = min(known, key=lambda lags: float(self.nats[lags][0].mean()))
        return Selected(self.family, *key, self.held)

    @property
    def score(self) -> float:
        """Nats per step of the validation data under the best choice."""
        best = self.best()
        return self.add(best.dense, best.far)

    def within(self, lags: int) -> Floats:
        """Nats of all held-out targets under the best choice of at most so many lags.

        Cross-fitted: the choice for each half of the data is the best by the other half.
        """
        inside = [nats for (d, far), nats in self.nats.items() if max((d, *far)) <= lags]
        by_test = min(inside, key=lambda nats: float(nats[1].mean()))[0]
        by_valid = min(inside, key=lambda nats: float(nats[0].mean()))[1]
        return np.concatenate([by_test, by_valid])


def explore(family: Family, valid: Targets, test: Targets, tick: Tick) -> Trials:
    """Tries the last few lags, and with them the far ones that the scan finds.

    What is tried follows from training and validation data alone, for as long as the family's work
    lasts; the lowest orders are tried in any case.
    """
    trials = Trials(family, valid, test, tick)
    ladder = [lags for lags in LADDER if lags < family.most] + [family.most]
    for dense in ladder:
        if dense <= 1 or not family.work.over:
            trials.add(dense)
    for near in (-1, 1):
        dense = trials.best().dense + near
        if 0 < dense <= family.most and not family.work.over:
            trials.add(dense)
    start = trials.best().dense
    far: tuple[int, ...] = ()
    while len(far) < SPARSE and not family.work.over:
        longer = _one_more(trials, start, far)
        if longer is None:
            break
        far = longer
        for dense in {0, 1, start}:
            trials.add(dense, tuple(lag for lag in far if lag > dense))
    return trials


def furthest(targets: Targets) -> int:
    """The longest lag that at least `FEWEST` targets have."""
    age = np.sort(targets.age.numpy())
    return min(FURTHEST, int(age[-FEWEST])) if len(age) >= FEWEST else 0


def _one_more(trials: Trials, dense: int, far: tuple[int, ...]) -> tuple[int, ...] | None:
    """With the lag that the model of these lags misses most, if that predicts better."""
    family = trials.family
    trials.tick("looking for far lags")
    targets, scores = family.unexplained(dense, far)
    features = family.features()
    family.work.spend(10 * features.size + 40 * len(scores) * scores.shape[1])
    candidate = lag_scan.strongest(features, scores, targets, furthest(family.train))
    if candidate is None or candidate[0] <= dense or candidate[0] in far:
        return None
    longer = tuple(sorted((*far, candidate[0])))
    return longer if trials.add(dense, longer) < trials.add(dense, far) else None


def curve(trials: Trials, seed: int) -> tuple[list[Point], int]:
    """Nats against lags, every lag about the first that suffices; and that one, the lags needed."""
    bounds, most = joined_bounds(trials.held), trials.family.most
    while True:
        orders = {max((dense, *far)) for dense, far in trials.nats}
        lags = orders | {order - 1 for order in orders if order > most}
        points = compared({k: trials.within(k) for k in lags}, bounds, seed)
        needed = sufficient(points)
        below = max((p.lags for p in points if p.lags < needed), default=needed)
        if needed - below <= 1 or needed > most or trials.family.work.over:
            return points, needed
        middle = (below + needed) // 2
        trials.add(middle, tuple(lag for lag in trials.best().far if lag > middle))
        trials.add(middle)


def compared(nats: dict[int, Floats], bounds: np.ndarray, seed: int) -> list[Point]:
    """The curve's points, each against the best of them on the same steps."""
    best = min(nats, key=lambda lags: float(nats[lags].mean()))
    points = []
    for lags in sorted(nats):
        lost, interval = mean_interval(nats[lags] - nats[best], bounds, seed)
        points.append(Point(lags, float(nats[lags].mean()), lost, interval))
    return points


def sufficient(points: list[Point]) -> int:
    """The fewest lags whose loss is within the interval of the best, or close to it."""
    best = min(point.nats for point in points)
    gained = points[0].nats - best
    for point in points:
        alike = point.interval is None or point.interval[0] <= 0
        if alike or point.lost <= ENOUGH * gained:
            return point.lags
    return points[-1].lags


def joined_bounds(parts: tuple[Targets, ...]) -> np.ndarray:
    """Where the targets of each sequence begin, part after part."""
    joined, shift = [np.zeros(1, dtype=np.int64)], 0
    for part in parts:
        joined.append(part.bounds[1:] + shift)
        shift += len(part)
    return np.concatenate(joined)
