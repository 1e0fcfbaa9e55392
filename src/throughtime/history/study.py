"""What a certificate is made from: training, validation and test data, in one view."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from throughtime import emissions
from throughtime.data.domain import Domain
from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Transforms
from throughtime.errors import DataError
from throughtime.history.families import Family, SymbolFamily, ValueFamily
from throughtime.history.lag_selection import FURTHEST
from throughtime.history.targets import Targets
from throughtime.history.work import Work
from throughtime.models.lag_regression import SHAPES
from throughtime.search import views
from throughtime.training.config import RunSettings

PAST = 2 * FURTHEST  # steps kept before validation and test data
STEPS_PER_SECOND = 2000  # of the limit: how many steps are looked at
_MANY = 50  # sequences of which whole ones can be left out
_ALPHABET = 300  # symbols of which a distribution over all can be held for many steps
_FEWEST = 12  # steps to train on
_PROBE = 20  # lags of the autoregressions that choose between levels and changes
_PROBED = 8  # columns that choose for all

Spans = tuple[Sequences, Sequences, Sequences]
Held = tuple[Targets, Targets, Targets]


@dataclass(frozen=True)
class Study:
    """Training, validation and test data: raw, transformed, and as targets.

    targets: the three as the finite-order models see them, once or in two views; the first is that
    of the networks, if they have the same. comparable: whether finite-order models give nats of the
    same distribution as the networks (densities of the same values, or probabilities of the same
    symbols), so that the two can be compared.
    """

    raw: Spans
    transformed: Spans
    view: views.View
    transforms: Transforms
    targets: tuple[Held, ...]
    comparable: bool
    notes: tuple[str, ...] = ()

    @property
    def step(self) -> str:
        """What a step is called."""
        return self.raw[0].domain.step

    @property
    def seen_as(self) -> str:
        """How the data are looked at, where that is not plain."""
        kinds = self.view.transforms.kinds
        if "difference" not in kinds:
            return ""
        return f"changes of the {'logarithm' if 'log' in kinds else 'value'}"

    def seen(self, held: tuple[Sequences, ...]) -> tuple[Targets, Targets]:
        """Validation and test targets in data as a network sees them."""
        first, second = (
            Targets(data, part.rows) for data, part in zip(held, self.targets[0][1:], strict=True)
        )
        return first, second

    def families(self, seconds: float) -> list[tuple[Family, Targets, Targets]]:
        """The kinds of finite-order models for these data, with validation and test targets.

        seconds: what they may take, all together.
        """
        train, *held = self.targets[0]
        if train.data.values.is_floating_point():
            share = seconds / (len(self.targets) * len(SHAPES))
            return [
                (ValueFamily(train, shape, Work.of(share)), valid, test)
                for train, valid, test in self.targets
                for shape in SHAPES
            ]
        kinds = 1 + max(int(part.data.values.max()) for part in self.targets[0])
        highest = min(10 if self.raw[0].domain.kind == "text" else 8, int(train.age.max()))
        family = SymbolFamily(train, max(kinds, 2), highest, Work.of(seconds))
        return [(family, held[0], held[1])]


def study(
    spans: Spans, settings: RunSettings, time_limit: float, view: views.View | None = None
) -> Study:
    """The three spans, as many steps as the time allows, in the view that networks have of them.

    Args:
        spans: training, validation and test data, raw.
        settings: of the fit that the certificate is for.
        time_limit: seconds.
        view: as `views.natural_view` gives it; chosen here if None.

    Raises:
        DataError: where a span is empty or there are too few steps.
    """
    for name, span in zip(("train on", "validate on", "test on"), spans, strict=True):
        if span.steps == 0:
            raise DataError(f"there are no observed values to {name}; give more data")
    whole = spans[0].steps
    if whole < _FEWEST:
        raise DataError(f"{whole} steps to train on are too few to measure memory; give more data")
    columns = 1 if spans[0].domain.integer else spans[0].values.shape[1]
    most = max(1000, round(STEPS_PER_SECOND * time_limit / columns))
    first, second, third = (_latest(span, most).limit_past(PAST) for span in spans)
    notes: tuple[str, ...] = ()
    if first.steps < whole:
        notes = (f"measured on {first.steps:,} of {whole:,} steps, as many as the time allows",)
    chosen = view or settled_view(first, second, settings)
    transforms = views.fitted(chosen.transforms, first)
    raw: Spans = (first, second, third)
    transformed = _each(raw, transforms)
    targets, comparable = _targets(raw, transformed, chosen)
    return Study(raw, transformed, chosen, transforms, targets, comparable, notes)


def settled_view(train: Sequences, valid: Sequences, settings: RunSettings) -> views.View:
    """`views.natural_view`, but changes instead of values only where they predict better.

    For forecasts, changes are the safer choice; but where values do as well, differencing them
    would make a short memory look long.
    """
    if train.domain.kind == "real" and train.values.shape[1] > _PROBED:
        narrow = [_first_columns(span) for span in (train, valid)]
        plain = _without(settled_view(narrow[0], narrow[1], settings).transforms, "standardise")
        if settings.transforms is None:
            settings = settings.model_copy(update={"transforms": plain.to_json()})
        return views.natural_view(train, valid, settings)
    view = views.natural_view(train, valid, settings)
    if not view.num_differencing:
        return view
    undifferenced = _without(view.transforms, "difference")
    distribution = emissions.StudentT(train.values.shape[1])

    def nats(transforms: Transforms) -> float:
        order = max(0, views.highest_order(train, transforms, _PROBE))
        model, known = views.fit_closed(order, distribution, transforms, train)
        return views.held_out(model, valid.transform(known))

    better = nats(undifferenced) <= nats(view.transforms)
    return replace(view, transforms=undifferenced) if better else view


def _without(transforms: Transforms, kind: str) -> Transforms:
    """Transforms that are not fitted, but for those of one kind."""
    return Transforms(tuple(one for one in transforms if one.kind != kind))


def _first_columns(data: Sequences) -> Sequences:
    names = data.domain.columns[:_PROBED]
    return replace(
        data, values=data.values[:, :_PROBED], domain=replace(data.domain, columns=names)
    )


def _latest(data: Sequences, most: int) -> Sequences:
    """The last steps of every sequence, or some sequences of many."""
    if data.steps <= most:
        return data
    if len(data) >= _MANY:
        return data[:: -(-data.steps // most)]
    scored = data.lengths - data.starts
    kept = (scored.double() * (most / data.steps)).ceil().long().clamp(min=1)
    return replace(data, starts=torch.maximum(data.starts, data.lengths - kept))


def _targets(raw: Spans, transformed: Spans, view: views.View) -> tuple[tuple[Held, ...], bool]:
    """What finite-order models see: symbols, or standardised values; and whether nats compare."""
    emission = view.emission
    count = int(getattr(emission, "num_symbols", 0))
    if emission.symbols and (
        raw[0].domain.integer or (raw[0].domain.kind != "sound" and count <= _ALPHABET)
    ):
        return (_held(transformed),), True
    gaps = any(bool(span.missing.any()) for span in raw)
    if emission.kind == "bernoulli" and emission.columns == 1 and not gaps:
        domain = Domain("symbols", num_symbols=2, step=raw[0].domain.step)
        flags = [replace(s, values=s.values[:, 0].long(), domain=domain) for s in transformed]
        return (_held((flags[0], flags[1], flags[2])),), True
    if emission.discrete:
        plain = views.fitted(views.unfitted("standardise"), raw[0])
        return (_held(_each(raw, plain)),), False
    held = [_held(transformed)]
    plainer = _without(view.transforms, "log")
    if len(plainer) < len(view.transforms):
        # What is a line in logarithms need not be one in values.
        held.append(_held(_each(raw, views.fitted(plainer, raw[0]))))
    return tuple(held), True


def _each(raw: Spans, transforms: Transforms) -> Spans:
    train, valid, test = (span.transform(transforms) for span in raw)
    return train, valid, test


def _held(spans: Spans) -> Held:
    train, valid, test = map(Targets.of, spans)
    return train, valid, test
