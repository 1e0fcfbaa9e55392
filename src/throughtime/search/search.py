"""From data to fitted candidates, top to bottom."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from throughtime.evaluation.results import OrderScore
from throughtime.models.base import SequenceModel
from throughtime.predict.fitted import FittedModel
from throughtime.runtime import until
from throughtime.search import orders, strategies, views
from throughtime.search.artifacts import Artifacts
from throughtime.search.budget import TimeBudget
from throughtime.search.candidates import FittedCandidate
from throughtime.search.defaults import Recommended
from throughtime.search.fitting import Case, Parts
from throughtime.training.config import RunSettings
from throughtime.types import Event

STRATEGIES: tuple[strategies.Strategy, ...] = (
    strategies.naive_baselines,
    strategies.named_baselines,
    strategies.autoregressions,
    strategies.networks,
    strategies.given_models,
    strategies.blend,
)


@dataclass(frozen=True)
class Found:
    """Everything that was fitted, and how the data were looked at."""

    candidates: tuple[FittedCandidate, ...]
    view: views.View
    orders: tuple[OrderScore, ...]


def search(
    parts: Parts,
    settings: RunSettings,
    *,
    models: Sequence[SequenceModel | FittedModel] = (),
    recommended: Recommended | None = None,
    artifacts: Artifacts,
    budget: TimeBudget,
    on_event: Event,
) -> Found:
    """Fits every candidate: baselines, autoregressions, networks or the models given, a blend.

    Args:
        parts: raw data.
        settings: what was asked for.
        models: given by value, in place of those that have names.
        recommended: by the history certificate.
        artifacts: finished pieces of work; an interrupted search goes on from them.
        budget: of time.
        on_event: is told what happens.

    Raises:
        SettingError, DataError: for settings that the data do not allow.
    """
    with until(budget.models_until()):
        return _searched(parts, settings, models, recommended, artifacts, budget, on_event)


def _searched(
    parts: Parts,
    settings: RunSettings,
    models: Sequence[SequenceModel | FittedModel],
    recommended: Recommended | None,
    artifacts: Artifacts,
    budget: TimeBudget,
    on_event: Event,
) -> Found:
    view = views.natural_view(parts.train, parts.valid, settings, budget.closed_form_steps)
    case = Case(parts, settings, view, recommended, artifacts, budget, on_event, tuple(models))
    case = replace(case, orders=tuple(orders.compared(case)))
    fitted: list[FittedCandidate] = []
    for strategy in STRATEGIES:
        fitted.extend(strategy(case, fitted))
    return Found(tuple(fitted), view, case.orders)
