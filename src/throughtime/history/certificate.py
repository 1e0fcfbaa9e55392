"""The history certificate: how much of the past the data need, with the evidence."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass, field
from typing import Any

from throughtime.data.loading import label_of, load, plain_options, seconds
from throughtime.data.sequences import Sequences
from throughtime.errors import SettingError
from throughtime.files import finite
from throughtime.history import latent_gain
from throughtime.history.lag_selection import Point, Pool, Tick, Window, curve, explore
from throughtime.history.latent_gain import LatentGain
from throughtime.history.networks import CELL, settings_of
from throughtime.history.permutation_test import OrderMatters, order_matters
from throughtime.history.recommendation import Settings, recommended
from throughtime.history.study import Study, study
from throughtime.history.summary import verdict
from throughtime.models.base import SequenceModel
from throughtime.search import views
from throughtime.training.config import RunSettings
from throughtime.types import Event

SCHEMA = 1
_LIMIT = 120.0
_HELD = 0.2  # of the data to choose by, and as many to judge by
_SHARES = {"windows": 0.3, "order": 0.1}  # of the time
_NETWORKS_BY = 0.65  # of the time: when networks are trained; the rest is for restarting them
_STEPS_PER_SECOND = 2000  # of the limit: how many steps are looked at
_FLOATS_PER_SECOND = 120_000  # in the design of one window distribution
_LEAST_SECONDS = 2.0
_SECONDS_FOR = 1 / 200  # seconds per step that networks are trained for, where the limit allows


@dataclass(frozen=True)
class Lags:
    """How many lags are needed, and held-out nats as a function of how many may be seen.

    needed: the smallest window whose loss lies within the interval of the best. model: what it was
    measured with; a latent model's state was restarted so many steps before each target.
    """

    needed: int
    model: str
    curve: tuple[Point, ...]


@dataclass(frozen=True)
class Certificate:
    """Four answers about the memory of data, with their evidence; `verdict` says them in words.

    step: what one step is called. steps: how many were learned from, chosen by and judged by.
    windows: the curve of finite windows, `lags` that of the model that won.
    """

    order_matters: OrderMatters
    lags: Lags
    windows: Lags
    latent_gain: LatentGain
    settings: Settings
    verdict: str
    step: str
    steps: tuple[int, int, int]
    seconds: float
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, as docs/commands.md lists them; None where there is no interval."""
        learn, choose, judge = self.steps
        found: dict[str, Any] = finite(
            {
                "schema": SCHEMA,
                "step": self.step,
                "steps": {"learn": learn, "choose": choose, "judge": judge},
                "order_matters": asdict(self.order_matters),
                "lags": _plain_lags(self.lags),
                "windows": _plain_lags(self.windows),
                "latent_gain": asdict(self.latent_gain),
                "settings": {
                    **asdict(self.settings),
                    "bptt": self.settings.bptt,
                    "beyond_default": self.settings.beyond_default,
                },
                "verdict": self.verdict,
                "seconds": round(self.seconds, 3),
                "notes": list(self.notes),
            }
        )
        return found


def _plain_lags(lags: Lags) -> dict[str, Any]:
    points = [{**asdict(point), "gain": lags.curve[0].nats - point.nats} for point in lags.curve]
    return {"needed": lags.needed, "model": lags.model, "curve": points}


def certificate(
    data: Any,
    time_limit: float | str | None = "2m",
    seed: int = 0,
    on_event: Event = lambda event: None,
    *,
    split: str = "auto",
    **read_options: Any,
) -> Certificate:
    """How much of the past these data need: measured, with intervals, within a time limit.

    data: as `tt.fit` takes them; the tuple (learn, choose, judge) of `Sequences` where the split is
    given. time_limit: seconds, or "90s", "2m"; small data take a few seconds. split: as in
    `Sequences.split`: three fifths are learned from, a fifth each chosen and judged by.
    read_options go to `tt.read`. on_event gets progress. Raises what `tt.fit` raises for bad data.
    """
    limit = seconds(time_limit)
    label = label_of(data)
    begun = time.monotonic()
    _, spans = load(data, label, _HELD, _HELD, split, plain_options(read_options), on_event)
    limit = _LIMIT if limit is None else limit
    left = max(_LEAST_SECONDS, limit - (time.monotonic() - begun)) if limit > 0 else limit
    return measured(*spans, time_limit=min(limit, left), seed=seed, on_event=on_event)


def certificate_of(
    parts: Any,
    settings: RunSettings | None = None,
    *,
    view: views.View | None = None,
    time_limit: float = _LIMIT,
    seed: int = 0,
    on_event: Event = lambda event: None,
    networks: bool = True,
) -> Certificate:
    """The certificate from the parts that a fit has, without a look at its test part.

    parts: anything with `train` and `valid`, raw `Sequences`: the validation part judges, and the
    end of the training part chooses. settings, view: of the fit, if it has any already. networks:
    as for `measured`.
    """
    learn, choose, _ = parts.train.split(valid=0.15, test=0.0)
    return measured(
        learn, choose, parts.valid, settings, view, time_limit, seed, on_event, networks
    )


@dataclass(frozen=True)
class _Clock:
    """The time there is, in seconds. networks: without any, nothing is cut short by the clock."""

    limit: float
    networks: bool
    begun: float = field(default_factory=time.monotonic)

    @property
    def spent(self) -> float:
        return time.monotonic() - self.begun

    @property
    def end(self) -> float:
        """When it is over, by `time.monotonic`."""
        return self.begun + self.limit if self.networks else math.inf

    def share(self, part: str) -> float:
        return _SHARES[part] * self.limit if self.networks else math.inf

    def for_networks(self, case: Study) -> float | None:
        """What networks may take; None: there are to be none."""
        if not self.networks:
            return None
        few = 10.0 + case.raw[0].steps * _SECONDS_FOR
        return min(few, max(1.0, _NETWORKS_BY * self.limit - self.spent))


def measured(
    learn: Sequences,
    choose: Sequences,
    judge: Sequences,
    settings: RunSettings | None = None,
    view: views.View | None = None,
    time_limit: float = _LIMIT,
    seed: int = 0,
    on_event: Event = lambda event: None,
    networks: bool = True,
) -> Certificate:
    """The certificate from three spans of raw data: to learn from, to choose by, to judge by.

    Fits, choices and judgements are each made on their own span. networks: train some too, for as
    long as there is time. Without them the time limit only says how much work is done, and the
    answer is the same however fast the machine is. Raises SettingError, DataError.
    """
    if not time_limit >= _LEAST_SECONDS:
        raise SettingError(
            f"time_limit={time_limit:g}: a certificate takes {_LEAST_SECONDS:g} s or more"
        )
    clock = _Clock(time_limit, networks)

    def tick(about: str) -> None:
        spent = {"seconds": clock.spent, "limit": time_limit}
        on_event({"event": "history", "about": about, **spent})

    tick("choosing how to look at the data")
    asked = settings or settings_of(seed)
    case = study(learn, choose, judge, asked, round(_STEPS_PER_SECOND * time_limit), view)
    pool = _windows(case, clock, tick)
    window = pool.best()
    tick("whether order matters")
    tested = pool.best(least=1)  # a distribution that sees nothing has nothing to lose
    order = order_matters(
        tested.distribution(), tested.family.fit(0), tested.reach, tested.held[1],
        latent_gain.named(tested), seed, clock.share("order"),
    )  # fmt: skip
    points, needed = curve(pool, seed)
    windows = Lags(needed if order else 0, latent_gain.named(window), tuple(points))
    untried = LatentGain(False, 0.0, None, CELL.upper(), latent_gain.named(window), tried=False)
    latent, lags = (untried, windows)
    if order:
        latent, lags = _latent(case, window, windows, seed, clock, tick)
    advice = recommended(case, window, windows.needed, lags.needed)
    shown = _view_in_words(case)
    said = verdict(
        case.step, order, lags.needed, lags.curve, lags.model, latent, advice, shown
    )  # fmt: skip
    return Certificate(
        order_matters=order,
        lags=lags,
        windows=windows,
        latent_gain=latent,
        settings=advice,
        verdict=said,
        step=case.step,
        steps=(len(case.parts[0]), len(case.parts[1]), len(case.parts[2])),
        seconds=clock.spent,
        notes=(*case.notes, *learn.notes),
    )


def _latent(
    case: Study, window: Window, windows: Lags, seed: int, clock: _Clock, tick: Tick
) -> tuple[LatentGain, Lags]:
    """What a latent state adds, and the lags of the model that wins."""
    worth = windows.curve[0].nats - min(point.nats for point in windows.curve)
    latent, model = latent_gain.compare(case, window, worth, seed, clock.for_networks(case), tick)
    if not latent.wins or model is None:
        return latent, windows
    steps, memory = latent_gain.restarted(
        model, latent_gain.constant(case).judge, seed, tick, clock.end
    )
    return latent, Lags(memory, latent.model, tuple(steps))


def with_network(
    found: dict[str, Any], model: SequenceModel, name: str, learn: Sequences, judge: Sequences,
    seed: int,
) -> dict[str, Any]:  # fmt: skip
    """A certificate as JSON with the memory of a network that beat its windows.

    learn, judge: as the network sees them; its state is restarted k steps before each target.
    """
    points, needed = latent_gain.memory_of(model, name, learn, judge, seed, lambda about: None)
    steps = f"{needed} {found['step']}s"
    said = f" The network {name} beats that window; its state makes use of {steps} of the past."
    lags: dict[str, Any] = finite(_plain_lags(Lags(needed, name, tuple(points))))
    return {**found, "lags": lags, "verdict": found["verdict"] + said}


def _windows(case: Study, clock: _Clock, tick: Tick) -> Pool:
    """The kind of window distribution that predicts the data to choose by best, with all its
    windows.
    """
    families = case.families(_FLOATS_PER_SECOND * _SHARES["windows"] * clock.limit)
    begun, pools = time.monotonic(), []
    for i, family in enumerate(families, 1):
        share = clock.share("windows") * i / len(families)
        pools.append(explore(*family, tick, begun + share))
    return min(pools, key=lambda pool: pool.score)


def _view_in_words(case: Study) -> str:
    """How the data are looked at, where that is not plain."""
    kinds = case.view.transforms.kinds
    if "difference" not in kinds:
        return ""
    return f", seen as changes of the {'logarithm' if 'log' in kinds else 'value'}"
