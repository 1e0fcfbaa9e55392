"""Which models to compare on which view of the data, and how to train them.

Nothing here looks at test data: transforms are chosen by the likelihood that quick closed-form
models give to the training and validation parts, in the data's own units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from throughtime import emissions
from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Transform, Transforms, transform_from_json
from throughtime.emissions import Emission
from throughtime.errors import DataError
from throughtime.models import linear_ar
from throughtime.models.autoregressive import Autoregressive
from throughtime.models.base import SequenceModel
from throughtime.training.config import RunSettings

SEASONS = {"hour": 24, "day": 7, "business day": 5, "week": 52, "month": 12, "quarter": 4}
_VIEWS: tuple[tuple[str, ...], ...] = ((), ("log",), ("difference",), ("log", "difference"))
_LEVELS_HANDICAP, _SCALE_HANDICAP = 0.02, 0.05  # nats per step
_PROBE_ORDER = 3  # the quick autoregression that chooses between views


@dataclass(frozen=True)
class View:
    """How the data are shown to the networks: raw transforms (unfitted) and the distribution of a
    step.
    """

    transforms: tuple[dict[str, Any], ...]
    emission: Emission
    season: int | None = None

    @property
    def differenced(self) -> int:
        return sum(int(t.get("lag", 1)) for t in self.transforms if t["kind"] == "difference")


def natural_view(train: Sequences, valid: Sequences, settings: RunSettings) -> View:
    """The transforms and emission for the data, by kind and by validation likelihood."""
    kind = train.domain.kind
    if kind == "text":
        symbols = {"kind": settings.symbols}
        chain = fitted([symbols], train)
        return View((symbols,), emissions.Categorical(_num_symbols(chain)))
    if kind == "sound":
        quantised = settings.transforms or [{"kind": "mulaw", "bits": 8}]
        levels = _num_symbols(fitted(quantised, train))
        return View(tuple(quantised), _named(settings.emission, None, levels, "categorical"))
    if kind == "symbols":
        count = _num_symbols(Transforms((), train.domain))
        return View((), _named(settings.emission, None, count, "categorical"))
    columns = train.values.shape[1]
    if kind in ("binary", "count"):
        natural = "bernoulli" if kind == "binary" else "negative_binomial"
        return View((), _named(settings.emission, columns, None, natural))
    values = train.values[~train.values.isnan().any(1)]
    if len(values) and bool(((values == 0) | (values == 1)).all()) and settings.emission == "auto":
        return View(({"kind": "binary"},), emissions.Bernoulli(columns))
    if settings.emission == "bernoulli":
        return View(({"kind": "binary"},), emissions.Bernoulli(columns))
    if settings.emission in ("poisson", "negative_binomial"):
        return View(({"kind": "counts"},), _named(settings.emission, columns, None, ""))
    if settings.emission in ("categorical", "discretised_logistic"):
        num_symbols = int(values.max()) + 1
        view = ({"kind": "symbols", "num_symbols": num_symbols},)
        return View(view, _named(settings.emission, None, num_symbols, ""))
    emission = _named(settings.emission, columns, None, "mixture")
    transforms = _best_view(train, valid, settings)
    return View((*transforms, {"kind": "standardise"}), emission, season(train))


def _best_view(
    train: Sequences, valid: Sequences, settings: RunSettings
) -> tuple[dict[str, Any], ...]:
    """Raw, logarithms, differences or both: by the likelihood of the data seen so far.

    Levels and absolute changes of a series that grows leave the range that the networks have
    seen, which the likelihood of the past cannot show; a view that avoids this is preferred
    unless it costs more than the handicap.
    """
    if settings.transforms is not None:
        return tuple(settings.transforms)
    seen = torch.cat([train.values, valid.values])
    low, high = seen.nan_to_num(torch.inf).amin(0), seen.nan_to_num(-torch.inf).amax(0)
    positive, wide = bool((low > 0).all()), bool((high > 2 * low).all())
    distribution = emissions.StudentT(train.values.shape[1])
    steps = train.steps + valid.steps
    scores: dict[tuple[str, ...], float] = {}
    for view in _VIEWS:
        if "log" in view and not (positive and wide):
            continue
        chain = [{"kind": name} for name in view] + [{"kind": "standardise"}]
        order = highest_order(train, chain, _PROBE_ORDER)
        if order < 0 and view:
            continue
        model, found = fit_closed(max(0, order), distribution, chain, train)
        nats = [model.step_log_prob(part.transform(found)).sum() for part in (train, valid)]
        handicap = _LEVELS_HANDICAP * ("difference" not in view)
        handicap += _SCALE_HANDICAP * ("log" not in view)
        scores[view] = handicap - float(sum(nats)) / steps
    return tuple({"kind": name} for name in min(scores, key=lambda view: scores[view]))


def _named(name: str, columns: int | None, num_symbols: int | None, natural: str) -> Emission:
    """The emission that was asked for, or the natural one, for data of this size."""
    asked = natural if name == "auto" else name
    return emissions.parse(asked, columns=columns, num_symbols=num_symbols)


def _num_symbols(chain: Transforms) -> int:
    count = chain.output.num_symbols
    if count is None:
        raise DataError("these data are not symbols")
    return count


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


def fitted(specs: list[dict[str, Any]], train: Sequences) -> Transforms:
    """The chain that unfitted descriptions become on training data."""
    transforms: list[Transform | str] = [
        spec["kind"] if len(spec) == 1 else transform_from_json(spec) for spec in specs
    ]
    return Transforms.fit(transforms, train)


def fit_closed(
    order: int, emission: Emission, specs: list[dict[str, Any]], train: Sequences
) -> tuple[SequenceModel, Transforms]:
    """An autoregression in closed form on a view of the data."""
    chain = fitted(specs, train)
    shown = train.transform(chain)
    num_differencing = sum(
        int(spec.get("lag", 1)) for spec in specs if spec["kind"] == "difference"
    )
    model = Autoregressive(order, emission=emission, num_differencing=num_differencing)
    model.begin(shown)
    return model, chain


def held_out(model: SequenceModel, shown: Sequences) -> float:
    """Nats per step of data the model was not fitted on, in their own units."""
    return -float(model.step_log_prob(shown).sum()) / max(1, shown.steps)


def highest_order(train: Sequences, specs: list[dict[str, Any]], most: int) -> int:
    """The longest order up to `most` of a linear autoregression that gaps in the data leave room
    for, on a view of them; -1 where hardly anything is left to see.
    """
    shown = train.transform(fitted([s for s in specs if s["kind"] != "standardise"], train))
    count = 0 if shown.covariates is None else shown.covariates.shape[1]
    z = torch.where(shown.initial.unsqueeze(1), torch.nan, shown.values)
    return linear_ar.highest_order(z, shown.offsets, count, most)
