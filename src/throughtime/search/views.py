"""How the data are looked at: transforms, and the family of a step's distribution.

Nothing here looks at test data: transforms are chosen by the likelihood that quick closed-form
models give to the training and validation parts, in the data's own units.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch

from throughtime import emissions
from throughtime.data.sequences import Sequences
from throughtime.data.transforms import (
    Binary,
    Counts,
    Difference,
    MuLaw,
    Standardise,
    Symbols,
    Transform,
    Transforms,
)
from throughtime.emissions import Emission
from throughtime.errors import DataError
from throughtime.models import linear_ar
from throughtime.models.autoregressive import Autoregressive
from throughtime.models.base import SequenceModel
from throughtime.training.config import RunSettings

SEASONS = {"hour": 24, "day": 7, "business day": 5, "week": 52, "month": 12, "quarter": 4}
_VIEWS: tuple[tuple[str, ...], ...] = ((), ("log",), ("difference",), ("log", "difference"))
_RAW_HANDICAP, _SCALE_HANDICAP = 0.02, 0.05  # nats per step
_MANY = 50  # sequences, from which on some are left out rather than the past of each
_PROBE_ORDER = 3  # the quick autoregression that chooses between views


@dataclass(frozen=True)
class View:
    """How the models see the data.

    Attributes:
        transforms: of the raw data; fitted on training data where they are not yet.
        emission: the distribution of a step.
        season: steps, where the data have one.
    """

    transforms: Transforms
    emission: Emission
    season: int | None = None

    @property
    def num_differencing(self) -> int:
        """How many initial values of a sequence are left as they are."""
        return num_differencing(self.transforms)


def num_differencing(transforms: Iterable[Transform]) -> int:
    """How many initial values of a sequence transforms leave undifferenced."""
    return sum(one.lag for one in transforms if isinstance(one, Difference))


def unfitted(*transforms: Transform | str) -> Transforms:
    """Transforms that are not fitted yet, by value or by kind."""
    return Transforms.unfitted(transforms)


def fitted(transforms: Transforms, train: Sequences) -> Transforms:
    """Transforms as they are where they were fitted, else fitted on training data."""
    return transforms if transforms.domain is not None else Transforms.fit(transforms, train)


def natural_view(
    train: Sequences, valid: Sequences, settings: RunSettings, most_steps: int | None = None
) -> View:
    """The view that was asked for, or the natural one by kind and by validation likelihood.

    Args:
        train: raw training data.
        valid: raw validation data.
        settings: with `transforms` and `emission` where they were asked for.
        most_steps: of training data that the choice looks at; None: all.
    """
    asked, kind = settings.asked_emission(), train.domain.kind
    given, family = settings.given_transforms(), _kind_of(asked)
    if kind in ("text", "sound", "symbols"):
        natural = "categorical"
    elif kind in ("binary", "count"):
        natural = {"binary": "bernoulli", "count": "negative_binomial"}[kind]
    elif family == "auto" and _zero_or_one(train):
        natural = "bernoulli"
    else:
        natural = "mixture" if family == "auto" else family
    transforms: Transforms | None = None
    if kind == "text":
        transforms = unfitted(settings.symbols)
    elif kind == "sound":
        transforms = unfitted(MuLaw(bits=8))
    elif kind in ("symbols", "binary", "count"):
        transforms = Transforms((), train.domain)
    elif natural in ("bernoulli", "poisson", "negative_binomial"):
        transforms = unfitted(Binary() if natural == "bernoulli" else Counts())
    elif natural in ("categorical", "discretised_logistic"):
        transforms = unfitted(Symbols(num_symbols=int(train.values.nan_to_num().max()) + 1))
    asked = natural if family == "auto" else asked
    if transforms is not None:
        transforms = transforms if given is None else given
        if not emissions.KINDS[natural].symbols:
            return View(transforms, emissions.parse(asked, columns=train.values.shape[1]))
        known = fitted(transforms, train)
        num_symbols = known.output.num_symbols
        if num_symbols is None:
            raise DataError("these data are not symbols")
        if kind == "text":  # whose symbols stay those of the training data
            transforms = known
        return View(transforms, emissions.parse(asked, num_symbols=num_symbols))
    emission = emissions.parse(asked, columns=train.values.shape[1])
    if given is None:
        given = _best_view(train, valid, most_steps)
    if given.domain is None and given.kinds[-1:] != ("standardise",):
        given = Transforms((*given, Standardise()))
    return View(given, emission, season(train))


def _kind_of(emission: Emission | str) -> str:
    return emission.partition(":")[0] if isinstance(emission, str) else emission.kind


def _zero_or_one(train: Sequences) -> bool:
    values = train.values[~train.values.isnan().any(1)]
    return len(values) > 0 and bool(((values == 0) | (values == 1)).all())


def _best_view(train: Sequences, valid: Sequences, most_steps: int | None) -> Transforms:
    """Raw, logarithms, differences or both: by the likelihood of training and validation data.

    Values and absolute changes of a series that grows leave the range that the networks were
    trained on, which the likelihood of the past cannot show; a view that avoids this is preferred
    unless it costs more than the handicap.
    """
    both = torch.cat([train.values, valid.values])
    low, high = both.nan_to_num(torch.inf).amin(0), both.nan_to_num(-torch.inf).amax(0)
    positive, wide = bool((low > 0).all()), bool((high > 2 * low).all())
    train, valid = at_most(train, most_steps), at_most(valid, most_steps)
    distribution = emissions.StudentT(train.values.shape[1])
    steps = train.steps + valid.steps
    scores: dict[tuple[str, ...], float] = {}
    for view in _VIEWS:
        if "log" in view and not (positive and wide):
            continue
        transforms = unfitted(*view, "standardise")
        order = highest_order(train, transforms, _PROBE_ORDER)
        if order < 0 and view:
            continue
        model, known = fit_closed(max(0, order), distribution, transforms, train)
        nats = [model.step_log_prob(part.transform(known)).sum() for part in (train, valid)]
        handicap = _RAW_HANDICAP * ("difference" not in view)
        handicap += _SCALE_HANDICAP * ("log" not in view)
        scores[view] = handicap - float(sum(nats)) / steps
    return unfitted(*min(scores, key=lambda view: scores[view]))


def at_most(data: Sequences, steps: int | None) -> Sequences:
    """Raw data of which about so many steps are read, pasts included.

    Some of many sequences, or the last steps of each.
    """
    if steps is None or len(data.values) <= steps:
        return data
    share = max(1, steps) / len(data.values)
    if len(data) >= _MANY:
        return data[:: -(-len(data.values) // max(1, steps))]
    kept = (data.lengths - data.starts).double() * share
    scored = data.lengths - kept.ceil().long().clamp(min=1)
    past = (data.starts.double() * share).long()
    return replace(data, starts=torch.maximum(data.starts, scored)).limit_past(int(past.max()))


def season(data: Sequences) -> int | None:
    """The length of the season in steps: by what a step is called, or by the autocorrelation."""
    known = SEASONS.get(data.domain.step)
    shortest = int(data.lengths.min())
    if known is not None:
        return known if shortest > 2 * known else None
    longest = int(data.lengths.argmax())
    x = torch.nan_to_num(data.sequence(longest)[:, 0])
    x = torch.diff(x)[-5000:]
    if len(x) < 50:
        return None
    x = x - x.mean()
    spectrum = torch.fft.rfft(x, n=2 * len(x)).abs() ** 2
    correlation = torch.fft.irfft(spectrum)[: len(x) // 3]
    correlation = correlation / correlation[0].clamp(min=1e-30)
    lags = range(2, len(correlation) - 1)
    peaks = [k for k in lags if correlation[k - 1] < correlation[k] >= correlation[k + 1]]
    best = max(peaks, key=lambda k: float(correlation[k]), default=None)
    strong = best is not None and float(correlation[best]) > 0.4 and shortest > 2 * best
    return best if strong else None


def fit_closed(
    order: int, emission: Emission, transforms: Transforms, train: Sequences
) -> tuple[SequenceModel, Transforms]:
    """An autoregression in closed form on a view of the data, and the transforms, fitted."""
    known = fitted(transforms, train)
    count = num_differencing(known)
    model = Autoregressive(order, emission=emission, num_differencing=count)
    model.begin(train.transform(known))
    return model, known


def held_out(model: SequenceModel, data: Sequences) -> float:
    """Nats per step of transformed data the model was not fitted on, in their own units."""
    return -float(model.step_log_prob(data).sum()) / max(1, data.steps)


def highest_order(train: Sequences, transforms: Transforms, most: int) -> int:
    """The longest order up to `most` of a linear autoregression that gaps in the data leave room
    for, on a view of them; -1 where hardly anything is left to fit.
    """
    unscaled = Transforms(tuple(t for t in transforms if t.kind != "standardise"))
    seen = train.transform(fitted(unscaled, train))
    count = 0 if seen.covariates is None else seen.covariates.shape[1]
    z = torch.where(seen.initial.unsqueeze(1), torch.nan, seen.values)
    return linear_ar.highest_order(z, seen.offsets, count, most)
