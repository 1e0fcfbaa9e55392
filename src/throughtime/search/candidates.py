"""What is fitted and compared: candidates, and what they become."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from throughtime import emissions, files
from throughtime.data.readers.plan import plan_json, plan_of
from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Transforms
from throughtime.emissions import Emission
from throughtime.errors import DataError
from throughtime.evaluation.results import Family
from throughtime.models import registry
from throughtime.models.autoregressive import Autoregressive, natural_predictor
from throughtime.models.base import SequenceModel
from throughtime.models.latent import LatentAutoregressive
from throughtime.predict.fitted import FittedModel
from throughtime.search.defaults import Recommended, recipe
from throughtime.search.views import View, fitted
from throughtime.training.config import RunSettings, TrainSettings

_LONGEST_ORDER = 200  # that is tried where it is recommended
_MOST_IDENTITIES = 500
MAX_ORDER = {"text": 10, "sound": 3, "real": 40}  # of the ladder that --order auto tries


@dataclass(frozen=True)
class Candidate:
    """A model to fit.

    Attributes:
        name: in comparisons.
        family: see `ModelScores`.
        make: the model, not fitted; what is drawn for it comes from torch's generator.
        transforms: of the raw data, fitted on training data where they are not yet.
        train: how it is trained; None for a closed form.
        warm: its weights are where training begins.
    """

    name: str
    family: Family
    make: Callable[[], SequenceModel]
    transforms: Transforms
    train: TrainSettings | None = None
    warm: bool = False


@dataclass(frozen=True)
class FittedCandidate:
    """A candidate that has been fitted, with what it cost and how it did on validation data.

    Attributes:
        fitted: the model.
        family: of the candidate.
        valid: nats per step of validation data, in the data's own units.
        valid_nats: log-probability of each validation step before any refit, float64 ``[total]``.
        seconds: of fitting.
        peak_memory_mb: while fitting.
        passes: through the training data; None for closed forms.
        blended: the names and weights of the models of a blend.
    """

    fitted: FittedModel
    family: Family
    valid: float
    valid_nats: Tensor
    seconds: float
    peak_memory_mb: float
    passes: float | None = None
    blended: tuple[tuple[str, float], ...] = ()

    @property
    def name(self) -> str:
        return self.fitted.name

    @property
    def model(self) -> SequenceModel:
        return self.fitted.model


def save_fitted(path: Path, one: FittedCandidate) -> None:
    """Writes a fitted candidate, weights and all, as one file; `parse_fitted` reads it."""
    training = one.fitted.training
    values = {
        "name": one.name,
        "family": one.family,
        "model": one.model.settings(),
        "transforms": one.fitted.transforms.to_json(),
        "read_options": dict(one.fitted.read_options),
        "plan": plan_json(one.fitted.plan),
        "library": one.fitted.library,
        "training": None if training is None else training.model_dump(mode="json"),
        "valid": one.valid,
        "seconds": one.seconds,
        "peak_memory_mb": one.peak_memory_mb,
        "passes": one.passes,
    }
    tensors = {**registry.tensors_of(one.model), "valid_nats": one.valid_nats}
    files.write_tensors(path, tensors, values)


def parse_fitted(tensors: dict[str, Tensor], values: Any) -> FittedCandidate:
    """The candidate in what `save_fitted` wrote."""
    training = values["training"]
    fitted = FittedModel(
        values["name"],
        registry.restored(values["model"], tensors),
        Transforms.from_json(values["transforms"]),
        read_options=values["read_options"],
        plan=plan_of(values["plan"]),
        training=None if training is None else TrainSettings(**training),
        library=values["library"],
    )
    numbers = (values[key] for key in ("seconds", "peak_memory_mb", "passes"))
    return FittedCandidate(
        fitted, values["family"], values["valid"], tensors["valid_nats"], *numbers
    )


def closed_form_emission(emission: Emission) -> Emission:
    """The distribution of the closed-form autoregression beside the networks."""
    if emission.kind in ("mixture", "laplace", "student_t"):
        return emissions.StudentT(emission.columns)
    if emission.kind == "normal":
        return emissions.Normal(emission.columns)
    if isinstance(emission, emissions.DiscretisedLogistic):
        return emissions.Categorical(emission.num_symbols)
    return emission


def orders(
    emission: Emission, train: Sequences, asked: int | str, recommended: int | None = None
) -> list[int]:
    """The orders τ to try: the one asked for, or a ladder up to what the data can carry.

    Args:
        emission: of the autoregression.
        train: transformed training data.
        asked: an order, or "auto".
        recommended: one more step of the ladder, where it fits.

    Raises:
        DataError: for an order that no sequence is long enough for.
    """
    longest_useful = int(train.lengths.max()) - 1
    if isinstance(asked, int):
        if asked > longest_useful:
            raise DataError(
                f"order {asked} needs sequences longer than {asked} steps; "
                f"the longest training sequence has {longest_useful + 1}"
            )
        return [asked]
    if natural_predictor(emission) == "ngram":
        quantised = train.domain.kind == "sound" or train.chain.kinds[:1] in (
            ("mulaw",), ("linear",),
        )  # fmt: skip
        ladder = list(range(1, MAX_ORDER["sound" if quantised else "text"] + 1))
    else:
        ladder = [1, 2, 3, 5, 8, 13, 20, 30, MAX_ORDER["real"]]
        if recommended:
            ladder = sorted({*ladder, min(recommended, _LONGEST_ORDER)})
    return [k for k in ladder if k <= max(1, longest_useful // 4)] or [1]


def lag_network_order(train: Sequences, order: int, asked: int | str) -> int:
    """How many lags a network of finite order sees: as asked, or the best linear order or more."""
    if isinstance(asked, int):
        return asked
    most = 32 if train.chain.kinds[:1] == ("mulaw",) else 20
    return max(order, min(most, max(1, (int(train.lengths.max()) - 1) // 4)))


def autoregression(
    name: str,
    order: int,
    view: View,
    train: Sequences,
    emission: Emission | None = None,
    training: TrainSettings | None = None,
) -> Candidate:
    """A model of finite order: in closed form, or a network where there is a training.

    Args:
        name: in comparisons.
        order: how many lags it sees.
        view: of the data.
        train: transformed training data.
        emission: of a step; that of the view if not given.
        training: of a network.
    """
    emission = emission or view.emission
    predictor = "auto" if training is None else "mlp"
    counts = training is None and natural_predictor(emission) == "ngram"
    make = partial(
        Autoregressive,
        order,
        emission=emission,
        predictor=predictor,
        covariates=0 if train.covariates is None or counts else train.covariates.shape[1],
        num_differencing=view.num_differencing,
    )
    return Candidate(name, "autoregressive", make, view.transforms, training)


def latent_candidates(
    view: View,
    train: Sequences,
    valid: Sequences,
    settings: RunSettings,
    recommended: Recommended | None = None,
) -> list[Candidate]:
    """RNN, GRU and LSTM, or those asked for.

    Args:
        view: of the data.
        train: raw training data.
        valid: raw validation data.
        settings: what was asked for.
        recommended: by the history certificate.
    """
    cells = [family for family in settings.families if family != "ar"]
    if not cells:
        return []
    chosen = recipe(train, view.emission, settings, recommended)
    make = partial(
        LatentAutoregressive,
        hidden_size=chosen.hidden,
        num_layers=chosen.layers,
        emission=view.emission,
        dropout=chosen.dropout,
        members=chosen.members,
        embedding_size=chosen.embedding,
        time_scale=chosen.time_scale,
        covariates=0 if train.covariates is None else train.covariates.shape[1],
        identities=_identities(train, valid),
        num_differencing=view.num_differencing,
    )
    return [
        Candidate(cell, "latent", partial(make, cell), view.transforms, chosen.train)
        for cell in cells
    ]


def _identities(train: Sequences, valid: Sequences) -> tuple[str, ...]:
    """The series that get a trained vector each: some that go on after training, not too many."""
    series = train.domain.kind in ("real", "count", "binary")
    some = series and 1 < len(train) <= _MOST_IDENTITIES
    return train.names if some and bool((valid.starts > 0).any()) else ()


def begun(
    candidate: Candidate,
    data: Sequences,
    settings: RunSettings,
    transforms: Transforms | None = None,
) -> FittedModel:
    """A candidate as it is before training: transforms and marginal distribution fitted to `data`.

    Args:
        candidate: what is to be fitted.
        data: raw.
        settings: with the seed of what is drawn.
        transforms: to keep; None: the candidate's, fitted on the data.
    """
    torch.manual_seed(settings.seed)
    model = candidate.make()
    known = fitted(candidate.transforms, data) if transforms is None else transforms
    found = FittedModel(
        candidate.name,
        model,
        known,
        read_options={**data.read_options, **settings.data.options},
        plan=data.plan,
        training=candidate.train,
        library=data.library,
    )
    if not candidate.warm:
        model.begin(found.transformed(data))
    return found
