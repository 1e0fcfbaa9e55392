"""What a certificate is made from: data to learn from, to choose by, to judge by, in one view."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from throughtime import emissions
from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Transforms
from throughtime.errors import DataError
from throughtime.history.lag_selection import FURTHEST, Family
from throughtime.history.parts import Part
from throughtime.history.symbols import Symbols
from throughtime.history.values import SHAPES, Values
from throughtime.search import views
from throughtime.training.config import RunSettings

PAST = 2 * FURTHEST  # steps kept before what is judged
_MANY = 50  # sequences of which whole ones can be left out
_ALPHABET = 300  # symbols of which a distribution over all can be held for many steps
_FEWEST = 12  # steps to learn from
_PROBE = 20  # lags of the autoregressions that choose between levels and changes


@dataclass(frozen=True)
class Study:
    """Three spans of raw data, how they are shown, and the same as targets for the windows.

    targets: the spans as the windows see them; the first as the networks do, if they can.
    comparable: whether the windows give nats of the same distribution as the networks (densities of
    the same values, or probabilities of the same symbols), so that the two can be compared.
    """

    raw: tuple[Sequences, Sequences, Sequences]
    shown: tuple[Sequences, Sequences, Sequences]
    view: views.View
    chain: Transforms
    targets: tuple[tuple[Part, Part, Part], ...]
    comparable: bool
    notes: tuple[str, ...] = ()

    @property
    def step(self) -> str:
        return self.raw[0].domain.step

    @property
    def parts(self) -> tuple[Part, Part, Part]:
        """The targets in the networks' view."""
        return self.targets[0]

    def families(self, work: float) -> list[tuple[Family, Part, Part]]:
        """The kinds of window distributions for these data, with the data to choose and to judge
        by.

        work: numbers in a design matrix, at most.
        """
        learn = self.parts[0]
        if learn.values.dtype.kind == "f":
            return [
                (Values(learn, shape, work), choose, judge)
                for learn, choose, judge in self.targets
                for shape in SHAPES
            ]
        longest = int((learn.rows - learn.first[learn.rows]).max(initial=0))
        kinds = int(max(part.values.max(initial=0) for part in self.parts)) + 1
        highest = 10 if self.raw[0].domain.kind == "text" else 8
        return [(Symbols(learn, max(kinds, 2), max(0, min(highest, longest))), *self.parts[1:])]


def study(
    learn: Sequences,
    choose: Sequences,
    judge: Sequences,
    settings: RunSettings,
    most: int,
    view: views.View | None = None,
) -> Study:
    """The three spans, at most `most` steps of each, in the view that the networks have of them.

    view: as `views.natural_view` gives it; chosen here if None. Raises DataError where a span is
    empty.
    """
    spans = {"learn from": learn, "choose by": choose, "judge by": judge}
    for name, span in spans.items():
        if span.steps == 0:
            raise DataError(f"there are no observed values to {name}; give more data")
    whole = learn.steps
    if whole < _FEWEST:
        raise DataError(
            f"{whole} steps to learn from are too few to measure memory; give more data"
        )
    raw = tuple(_latest(span, most).limit_past(PAST) for span in spans.values())
    notes: tuple[str, ...] = ()
    if raw[0].steps < whole:
        notes = (f"measured on {raw[0].steps:,} of {whole:,} steps, as many as the time allows",)
    chosen = view or settled_view(raw[0], raw[1], settings)
    chain = views.fitted(chosen.transforms, raw[0])
    shown = tuple(span.transform(chain) for span in raw)
    targets, comparable = _targets(raw, shown, chosen)
    return Study(raw, shown, chosen, chain, targets, comparable, notes)  # type: ignore[arg-type]


def settled_view(train: Sequences, valid: Sequences, settings: RunSettings) -> views.View:
    """`views.natural_view`, but changes instead of levels only where they predict better.

    For forecasts, changes are the safer choice; but where levels do as well, differencing them
    would make a short memory look long.
    """
    view = views.natural_view(train, valid, settings)
    if not view.num_differencing:
        return view
    levels = Transforms(tuple(t for t in view.transforms if t.kind != "difference"))
    distribution = emissions.StudentT(train.values.shape[1])

    def nats(transforms: Transforms) -> float:
        order = max(0, views.highest_order(train, transforms, _PROBE))
        model, chain = views.fit_closed(order, distribution, transforms, train)
        return views.held_out(model, valid.transform(chain))

    return replace(view, transforms=levels) if nats(levels) <= nats(view.transforms) else view


def _latest(data: Sequences, most: int) -> Sequences:
    """The last steps of every sequence, or some sequences of many."""
    if data.steps <= most:
        return data
    if len(data) >= _MANY:
        return data[:: -(-data.steps // most)]
    scored = data.lengths - data.starts
    kept = (scored.double() * (most / data.steps)).ceil().long().clamp(min=1)
    return replace(data, starts=torch.maximum(data.starts, data.lengths - kept))


def _targets(
    raw: tuple[Sequences, ...], shown: tuple[Sequences, ...], view: views.View
) -> tuple[tuple[tuple[Part, ...], ...], bool]:
    """What the windows see: symbols, or standardised values; and whether nats are comparable."""
    distribution = view.emission
    if (
        distribution.symbols
        and raw[0].domain.kind != "sound"
        and _symbols_of(distribution) <= _ALPHABET
    ):
        return (_each(shown),), True
    if (
        distribution.kind == "bernoulli"
        and distribution.columns == 1
        and not any(bool(s.missing.any()) for s in raw)
    ):
        parts = [Part.of(span) for span in shown]
        whole = [replace(p, values=p.values[:, 0].astype(np.int64)) for p in parts]
        return (tuple(whole),), True
    if distribution.symbols and raw[0].domain.integer:
        return (_each(shown),), True
    if distribution.symbols or distribution.discrete:
        chain = views.fitted(views.unfitted("standardise"), raw[0])
        return (_each(tuple(span.transform(chain) for span in raw)),), False
    found = [_each(shown)]
    plain = Transforms(tuple(t for t in view.transforms if t.kind != "log"))
    if len(plain) < len(view.transforms):  # what is a line in logarithms need not be one in values
        chain = views.fitted(plain, raw[0])
        found.append(_each(tuple(span.transform(chain) for span in raw)))
    return tuple(found), True


def _each(spans: tuple[Sequences, ...]) -> tuple[Part, ...]:
    return tuple(Part.of(span) for span in spans)


def _symbols_of(distribution: emissions.Emission) -> int:
    return int(getattr(distribution, "num_symbols", 0))
