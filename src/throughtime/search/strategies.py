"""What is tried on a case: one function per family of models, each with the same signature."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, count

import torch

from throughtime import emissions
from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Difference, Transforms
from throughtime.emissions import Emission
from throughtime.evaluation.results import Family
from throughtime.models.autoregressive import Autoregressive, natural_predictor
from throughtime.models.base import SequenceModel
from throughtime.models.baselines import BASELINES, unsuited
from throughtime.models.closed_form import ClosedForm, NotConverged
from throughtime.models.ensemble import Blend, blend_weights, cross_fitted
from throughtime.predict.fitted import FittedModel
from throughtime.predict.train import adapted, name_of
from throughtime.runtime import version
from throughtime.search import candidates, defaults, orders, views
from throughtime.search.candidates import Candidate, FittedCandidate
from throughtime.search.fitting import Case, TooLittleTime, finished, fit

Strategy = Callable[[Case, Sequence[FittedCandidate]], list[FittedCandidate]]
_WEIGHTS = {"rnn": 1.0, "gru": 2.0, "lstm": 3.0}  # shares of the time left, where it is limited
_SYMBOL_WEIGHTS = {"rnn": 0.5, "gru": 1.0, "lstm": 12.0}  # a wide LSTM is best on text, and slow


def naive_baselines(case: Case, before: Sequence[FittedCandidate]) -> list[FittedCandidate]:
    """A constant distribution of the values, of their changes, of their seasonal changes."""
    view, emission, train = case.view, case.view.emission, case.parts.train
    if emission.symbols or emission.kind in ("bernoulli", "poisson", "negative_binomial"):
        name = "unigram" if emission.symbols else "constant"
        return [fit(case, _constant(name, view.transforms, emission))]
    kinds: dict[str, Transforms] = {
        "constant": views.unfitted("standardise"),
        "random walk": views.unfitted("difference", "standardise"),
    }
    if "log" in view.transforms.kinds:
        kinds["geometric random walk"] = views.unfitted("log", "difference", "standardise")
    if view.season is not None:
        seasonal = Difference(lag=view.season)
        kinds["seasonal naive"] = views.unfitted(seasonal, "standardise")
    sample = case.sample(train)
    distribution = emissions.StudentT(emission.columns)
    return [
        fit(case, _constant(name, transforms, distribution))
        for name, transforms in kinds.items()
        if name == "constant" or views.highest_order(sample, transforms, 0) == 0
    ]


def _constant(name: str, transforms: Transforms, emission: Emission) -> Candidate:
    make = partial(
        Autoregressive,
        0,
        emission=emission,
        predictor="constant",
        num_differencing=views.num_differencing(transforms),
    )
    return Candidate(name, "reference", make, transforms)


def named_baselines(case: Case, before: Sequence[FittedCandidate]) -> list[FittedCandidate]:
    """The classical models that were asked for by name, and volatility models where they apply."""
    asked, made, found = case.settings.baselines, dict[str, ClosedForm](), list[FittedCandidate]()
    usual = ("garch",) if case.parts.train.domain.kind == "real" and version("arch") else ()
    train = _seen(case) if asked or usual else None
    for name in dict.fromkeys((*asked, *usual)):
        assert train is not None
        models = BASELINES[name].make(case.view.emission, train, case.view.num_differencing)
        if not models and name in asked:
            raise unsuited(name)
        made |= models
    for title, model in made.items():
        make = partial(copy.deepcopy, model)
        try:
            found.append(fit(case, Candidate(title, "baseline", make, case.view.transforms)))
        except NotConverged as error:
            case.on_event({"event": "note", "model": title, "message": str(error)})
    return found


def autoregressions(case: Case, before: Sequence[FittedCandidate]) -> list[FittedCandidate]:
    """Models of finite order: the best order in closed form, and a network that sees some lags."""
    settings, view = case.settings, case.view
    if "ar" not in settings.families:
        return []
    emission, order = candidates.closed_form_emission(view.emission), orders.selected(case)
    train, found = _seen(case), []
    if natural_predictor(emission) != "mlp":
        candidate = candidates.autoregression(f"ar({order})", order, view, train, emission)
        found.append(fit(case, candidate))
    if case.parts.train.domain.kind != "text":
        width = candidates.lag_network_order(train, order, settings.order)
        training = defaults.lag_network_training(case.parts.train, view.emission, settings)
        name = f"mlp({width})"
        candidate = candidates.autoregression(name, width, view, train, training=training)
        found += _in_time(case, candidate, case.budget.lag_network(name))
    return found


def networks(case: Case, before: Sequence[FittedCandidate]) -> list[FittedCandidate]:
    """The recurrent networks."""
    left = candidates.latent_candidates(
        case.view, case.parts.train, case.parts.valid, case.settings, case.recommended
    )
    return _each_with_its_share(case, left)


def _each_with_its_share(case: Case, left: Sequence[Candidate]) -> list[FittedCandidate]:
    table = _SYMBOL_WEIGHTS if case.view.emission.symbols else _WEIGHTS
    weights = [table.get(candidate.name, 1.0) for candidate in left]
    found = []
    for i, candidate in enumerate(left):
        found += _in_time(case, candidate, case.budget.network(candidate.name, weights[i:]))
    return found


def _in_time(case: Case, candidate: Candidate, seconds: float | None) -> list[FittedCandidate]:
    """A network, or nothing where there is too little time and nobody asked for it by name."""
    try:
        if seconds == 0.0 and case.settings.model == "auto":
            raise TooLittleTime
        return [fit(case, candidate, seconds)]
    except TooLittleTime:
        message = "the time limit leaves too little to train it"
        case.on_event({"event": "note", "model": candidate.name, "message": message})
        return []


def given_models(case: Case, before: Sequence[FittedCandidate]) -> list[FittedCandidate]:
    """The models that the user gave, each trained as it is."""
    found, taken = [], set[str]()
    for given in case.models:
        plain = given.name if isinstance(given, FittedModel) else name_of(given)
        names = chain([plain], (f"{plain} {i}" for i in count(2)))
        name = next(name for name in names if name not in taken)
        taken.add(name)
        found.append(_given(case, name, given))
    return _each_with_its_share(case, found)


def _given(case: Case, name: str, given: SequenceModel | FittedModel) -> Candidate:
    """A candidate that is a copy of the model given."""
    model = given.model if isinstance(given, FittedModel) else given
    settings, warm = case.settings, isinstance(given, FittedModel)
    family: Family = "autoregressive" if _finite_order(model) else "latent"
    if isinstance(given, FittedModel):
        transforms, training = given.transforms, given.training
    else:
        view = _view_for(case, model.emission)
        transforms, training = view.transforms, None
        model = adapted(model, transforms)
    if model.closed_form:
        training = None
    elif isinstance(model, Autoregressive):
        training = defaults.lag_network_training(case.parts.train, model.emission, settings)
    else:
        usual = defaults.recipe(case.parts.train, model.emission, settings, case.recommended).train
        training = usual if training is None else defaults.overridden(training, settings)
    return Candidate(name, family, partial(copy.deepcopy, model), transforms, training, warm)


def _finite_order(model: SequenceModel) -> bool:
    return isinstance(model, Autoregressive) or model.closed_form


def _view_for(case: Case, emission: Emission) -> views.View:
    """The view of the data for a model with an emission of its own."""
    usual = case.view.emission
    if (emission.symbols, emission.discrete) == (usual.symbols, usual.discrete):
        return replace(case.view, emission=emission)
    settings = case.settings.model_copy(update={"emission": emission.to_json()})
    train, valid = case.parts.train, case.parts.valid
    return views.natural_view(train, valid, settings, case.budget.closed_form_steps)


def blend(case: Case, before: Sequence[FittedCandidate]) -> list[FittedCandidate]:
    """The trained models that see the data alike as one, weighted by validation; or nothing.

    Weights come from the validation steps, under the models as they were before any refit.
    """
    latent = [one for one in before if one.family == "latent"]
    if not latent:
        return []
    leader = min(latent, key=lambda one: one.valid)
    alike = [
        one
        for one in before
        if one.family in ("latent", "autoregressive")
        and one.fitted.transforms == leader.fitted.transforms
        and math.isfinite(one.valid)
    ]
    scored = leader.fitted.transformed(case.held).scored()
    nats = torch.stack([one.valid_nats[scored] for one in alike])
    weights = blend_weights(nats)
    used = [(one, float(w)) for one, w in zip(alike, weights, strict=True) if w > 0]
    if len(used) < 2:
        return []
    total = sum(w for _, w in used)
    model = Blend([one.model for one, _ in used], [w for _, w in used])
    held = torch.zeros(len(scored), dtype=torch.float64)
    held[scored] = cross_fitted(nats)
    fitted = replace(leader.fitted, name="blend", model=model, training=None)
    seconds = sum(one.seconds for one, _ in used)
    found = finished(case, "blend", fitted, held, seconds)
    return [replace(found, blended=tuple((one.name, w / total) for one, w in used))]


def _seen(case: Case) -> Sequences:
    """The training data as the models of the view see them."""
    train = case.sample(case.parts.train)
    return train.transform(case.vocabulary or views.fitted(case.view.transforms, train))
