"""The history certificate: how much of the past the data need, with the evidence."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol

import torch
from pydantic import TypeAdapter, ValidationError

from throughtime.data.loading import Spans, checked_options, label_of, load, plain_options, seconds
from throughtime.data.sequences import Sequences
from throughtime.errors import RunError, SettingError
from throughtime.files import finite
from throughtime.history import latent_gain, summary
from throughtime.history.lag_selection import Point, Selected, Tick, Trials, curve, explore
from throughtime.history.latent_gain import LatentGain
from throughtime.history.networks import CELL, settings_of
from throughtime.history.permutation_test import OrderMatters, order_matters
from throughtime.history.recommendation import Recommendation, recommended
from throughtime.history.study import Study, study
from throughtime.history.work import Work
from throughtime.predict.fitted import FittedModel
from throughtime.runtime import threads, time_left, until
from throughtime.search import views
from throughtime.training.config import RunSettings
from throughtime.types import Event

SCHEMA = 2
_LIMIT = 120.0
_HELD = 0.2  # of the data for validation, and as many for the test
_SHARES = {"orders": 0.2, "order matters": 0.08, "networks": 0.25, "memory": 0.06}  # of the limit
_ORDERS_AT_MOST = 0.5  # of the time that is left, whatever the work was thought to take
_LATE, _LATE_SECONDS = 1.05, 5.0  # of the limit, when even work that was thought to fit ends
_LEAST_SECONDS = 2.0
_SECONDS_FOR = 1 / 200  # seconds per step that networks are trained for, where the limit allows


@dataclass(frozen=True)
class Lags:
    """How many lags are needed, and nats on held-out data as a function of how many are seen.

    needed: the fewest whose loss lies within the interval of the best. model: what it was measured
    with; the state of a latent model has seen no more than so many steps before each target.
    """

    needed: int
    model: str
    curve: tuple[Point, ...]


@dataclass(frozen=True)
class Steps:
    """How many steps there were to train on, to validate on, and to test on."""

    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class Certificate:
    """Four answers about the memory of data, with their evidence; `verdict` says them in words.

    step: what one step is called. seen_as: what of the values is looked at, "" if they themselves.
    finite_order: the curve of finite-order models, `lags` that of the model that won. network: the
    curve of a network trained later that beats them, if there is one (`with_network`). seconds:
    what it took, None where that is not measured.
    """

    order_matters: OrderMatters
    lags: Lags
    finite_order: Lags
    latent_gain: LatentGain
    recommendation: Recommendation
    step: str
    seen_as: str
    steps: Steps
    notes: tuple[str, ...] = ()
    network: Lags | None = None
    seconds: float | None = None

    @property
    def verdict(self) -> str:
        """The answers in one paragraph."""
        return summary.verdict(self)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, as docs/commands.md lists them; None where there is no interval."""
        advice = self.recommendation
        values: dict[str, Any] = finite(
            {
                "schema": SCHEMA,
                "step": self.step,
                "seen_as": self.seen_as,
                "steps": asdict(self.steps),
                "order_matters": asdict(self.order_matters),
                "lags": _with_gains(self.lags),
                "finite_order": _with_gains(self.finite_order),
                "network": None if self.network is None else _with_gains(self.network),
                "latent_gain": asdict(self.latent_gain),
                "recommendation": {
                    **asdict(advice),
                    "bptt": advice.bptt,
                    "beyond_default": advice.beyond_default,
                },
                "verdict": self.verdict,
                "seconds": self.seconds,
                "notes": list(self.notes),
            }
        )
        return values

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Certificate:
        """The certificate that `to_json` wrote.

        Raises:
            RunError: for another schema, or values that are not a certificate.
        """
        if values.get("schema") != SCHEMA:
            raise RunError(
                f"this certificate has the schema {values.get('schema')!r}, not {SCHEMA}: "
                "measure it again"
            )
        try:
            return TypeAdapter(cls).validate_python(values)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise RunError(f"this is no certificate: {place}: {first['msg']}") from None


class Parts(Protocol):
    """Raw training and validation data, as a fit has them."""

    @property
    def train(self) -> Sequences: ...

    @property
    def valid(self) -> Sequences: ...


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

    The limit bounds the work, and the same limit and seed give the same answers on any machine that
    has the time for it; on a slower one less is looked at.

    Args:
        data: as `tt.fit` takes them; the tuple (train, validation, test) of `Sequences` where the
            split is given.
        time_limit: seconds, or "90s", "2m"; small data take a few seconds.
        seed: of everything random.
        on_event: gets progress.
        split: as in `Sequences.split`: three fifths to train on, a fifth each for validation and
            test.
        read_options: go to `tt.read`.

    Raises:
        DataError, SettingError: as `tt.fit` for bad data.
    """
    limit, label = seconds(time_limit), label_of(data)
    options = plain_options(checked_options(read_options, certificate))
    limit, begun = _LIMIT if limit is None else limit, time.monotonic()
    _, spans = load(data, label, _HELD, _HELD, split, options, on_event)
    with until(begun + _LATE * limit + _LATE_SECONDS):
        return measured(spans, time_limit=limit, seed=seed, on_event=on_event)


def certificate_of(
    parts: Parts,
    settings: RunSettings | None = None,
    *,
    view: views.View | None = None,
    time_limit: float = _LIMIT,
    seed: int = 0,
    on_event: Event = lambda event: None,
    networks: bool = True,
) -> Certificate:
    """The certificate from the parts that a fit has, without a look at its test part.

    Args:
        parts: `train` and `valid`, raw; the validation part is tested on, and the end of the
            training part is validated on.
        settings, view: of the fit, if it has any already.
        time_limit: seconds.
        seed: of everything random.
        on_event: gets progress.
        networks: train some too; else closed forms alone.

    Raises:
        DataError, SettingError: where there is too little to measure.
    """
    train, valid, _ = parts.train.split(valid=0.15, test=0.0)
    return measured(
        (train, valid, parts.valid), settings, view, time_limit, seed, on_event, networks
    )


def measured(
    spans: Spans,
    settings: RunSettings | None = None,
    view: views.View | None = None,
    time_limit: float = _LIMIT,
    seed: int = 0,
    on_event: Event = lambda event: None,
    networks: bool = True,
) -> Certificate:
    """The certificate from training, validation and test data; arguments as `certificate_of`.

    Models are fitted, chosen and tested each on their own span.
    """
    if not time_limit >= _LEAST_SECONDS:
        raise SettingError(
            f"time_limit={time_limit:g}: a certificate takes {_LEAST_SECONDS:g} s or more"
        )
    begun = time.monotonic()

    def tick(about: str) -> None:
        spent = {"seconds": time.monotonic() - begun, "limit": time_limit}
        on_event({"event": "history", "about": about, **spent})

    # Steps are too short to be shared out among cores, above all where others work too.
    with threads(1), torch.random.fork_rng(devices=[]):
        tick("choosing how to look at the data")
        case = study(spans, settings or settings_of(seed), time_limit, view)
        certificate = _measured(case, time_limit, seed, networks, tick)
    notes = (*case.notes, *spans[0].notes)
    return replace(certificate, notes=notes, seconds=round(time.monotonic() - begun, 3))


def _measured(case: Study, limit: float, seed: int, networks: bool, tick: Tick) -> Certificate:
    with until(time.monotonic() + time_left() * _ORDERS_AT_MOST):
        trials = _orders(case, _SHARES["orders"] * limit, tick)
    selected = trials.best()
    tick("whether order matters")
    # A model that sees nothing has nothing to lose: one that sees a lag is tested.
    work = Work.of(_SHARES["order matters"] * limit)
    order = order_matters(trials.best(least=1), seed, work)
    points, needed = curve(trials, seed)
    orders = Lags(needed if order else 0, selected.name, tuple(points))
    latent, lags = latent_gain.untried(selected, CELL.upper()), orders
    if order:
        latent, lags = _latent(case, selected, orders, seed, limit, networks, tick)
    train, valid, test = map(len, case.targets[0])
    return Certificate(
        order_matters=order,
        lags=lags,
        finite_order=orders,
        latent_gain=latent,
        recommendation=recommended(case, selected, orders.needed, lags.needed),
        step=case.step,
        seen_as=case.seen_as,
        steps=Steps(train, valid, test),
    )


def _latent(
    case: Study, selected: Selected, orders: Lags, seed: int, limit: float, networks: bool,
    tick: Tick,
) -> tuple[LatentGain, Lags]:  # fmt: skip
    """What a latent state adds, and the lags of the model that wins."""
    worth = orders.curve[0].nats - min(point.nats for point in orders.curve)
    enough = min(10.0 + case.raw[0].steps * _SECONDS_FOR, max(1.0, _SHARES["networks"] * limit))
    budget = enough if networks else None
    latent, model = latent_gain.compare(case, selected, worth, seed, budget, tick)
    if not latent.wins or model is None:
        return latent, orders
    work = Work.of(_SHARES["memory"] * limit)
    iid = latent_gain.iid_baseline(case, selected).test_nats
    points, memory = latent_gain.memory_curve(model, iid, seed, tick, work)
    return latent, Lags(memory, latent.model, tuple(points))


def with_network(
    certificate: Certificate, network: FittedModel, train: Sequences, test: Sequences, seed: int
) -> Certificate:
    """The certificate with the memory of a trained network that beats its finite-order models.

    Args:
        certificate: of the same data.
        network: with its name.
        train, test: raw data; its state has seen no more than k steps before each test step, for
            ever more k.
        seed: of the intervals.
    """
    points, needed = latent_gain.memory_of(network, train, test, seed)
    return replace(certificate, network=Lags(needed, network.name, tuple(points)))


def _orders(case: Study, limit: float, tick: Callable[[str], None]) -> Trials:
    """The kind of finite-order model that predicts the validation data best, with all trials."""
    trials = [explore(*family, tick) for family in case.families(limit)]
    return min(trials, key=lambda one: one.score)


def _with_gains(lags: Lags) -> dict[str, Any]:
    points = [{**asdict(point), "gain": lags.curve[0].nats - point.nats} for point in lags.curve]
    return {"needed": lags.needed, "model": lags.model, "curve": points}
