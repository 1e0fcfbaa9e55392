"""Which models to compare on a view of the data, and how they are trained."""

from __future__ import annotations

from typing import Any

from throughtime import emissions
from throughtime.data.sequences import Sequences
from throughtime.emissions import Emission
from throughtime.errors import DataError
from throughtime.models.autoregressive import natural_predictor
from throughtime.search.defaults import Advice, recipe
from throughtime.search.views import View, highest_order
from throughtime.training.config import Candidate, RunSettings

MODELS = ("auto", "ar", "rnn", "gru", "lstm")
_LONGEST_ORDER = 200  # that is tried on advice
MAX_ORDER = {"text": 10, "sound": 3, "real": 40}  # of the ladder that --order auto tries


def references(view: View, train: Sequences) -> list[Candidate]:
    """The naive models: a constant distribution of the values, of their changes, of their yearly
    changes.
    """
    emission = view.emission
    if emission.symbols or emission.kind in ("bernoulli", "poisson", "negative_binomial"):
        name = "unigram" if emission.symbols else "constant"
        return [_constant(name, list(view.transforms), emission)]
    distribution = emissions.StudentT(emission.columns)
    found = [
        _constant("constant", [{"kind": "standardise"}], distribution),
        _constant("random walk", [{"kind": "difference"}, {"kind": "standardise"}], distribution),
    ]
    if {"kind": "log"} in view.transforms:
        specs: list[dict[str, Any]] = [{"kind": k} for k in ("log", "difference", "standardise")]
        found.append(_constant("geometric random walk", specs, distribution))
    if view.season is not None:
        specs = [{"kind": "difference", "lag": view.season}, {"kind": "standardise"}]
        found.append(_constant("seasonal naive", specs, distribution))
    first, *others = found
    return [first] + [one for one in others if highest_order(train, one.transforms, 0) == 0]


def _constant(name: str, transforms: list[dict[str, Any]], emission: Emission) -> Candidate:
    model: dict[str, Any] = {
        "kind": "autoregressive",
        "order": 0,
        "emission": emission.to_json(),
        "predictor": "constant",
        "num_differencing": sum(
            int(t.get("lag", 1)) for t in transforms if t["kind"] == "difference"
        ),
    }
    return Candidate(name=name, family="reference", transforms=transforms, model=model)


def closed_form_emission(emission: Emission) -> Emission:
    """The distribution of the closed-form autoregression beside the latent models."""
    if emission.kind in ("mixture", "laplace", "student_t"):
        return emissions.StudentT(emission.columns)
    if emission.kind == "normal":
        return emissions.Normal(emission.columns)
    if emission.kind == "discretised_logistic":
        return emissions.from_json({"kind": "categorical", "num_symbols": emission.num_symbols})  # type: ignore[attr-defined]
    return emission


def orders(
    emission: Emission, train: Sequences, asked: int | str, advised: int | None = None
) -> list[int]:
    """The orders τ to try: the one asked for, or a ladder up to what the data can carry.

    advised: one more step of the ladder, where it fits.
    """
    shortest_useful = int(train.lengths.max()) - 1
    if isinstance(asked, int):
        if asked > shortest_useful:
            raise DataError(
                f"order {asked} needs sequences longer than {asked} steps; "
                f"the longest training sequence has {shortest_useful + 1}"
            )
        return [asked]
    if natural_predictor(closed_form_emission(emission)) == "ngram":
        few = train.domain.kind == "sound" or train.chain.kinds[:1] in (("mulaw",), ("linear",))
        ladder = list(range(1, MAX_ORDER["sound" if few else "text"] + 1))
    else:
        ladder = [1, 2, 3, 5, 8, 13, 20, 30, MAX_ORDER["real"]]
        if advised:
            ladder = sorted({*ladder, min(advised, _LONGEST_ORDER)})
    return [k for k in ladder if k <= max(1, shortest_useful // 4)] or [1]


def window_width(train: Sequences, order: int, asked: int | str) -> int:
    """How many lags the network over a window sees: as asked, or the best linear order or more."""
    if isinstance(asked, int):
        return asked
    widest = 32 if train.chain.kinds[:1] == ("mulaw",) else 20
    return max(order, min(widest, max(1, (int(train.lengths.max()) - 1) // 4)))


def latent_candidates(
    view: View,
    train: Sequences,
    valid: Sequences,
    settings: RunSettings,
    advice: Advice | None = None,
) -> list[Candidate]:
    """RNN, GRU and LSTM, or the one asked for."""
    cells = ("rnn", "gru", "lstm") if settings.model == "auto" else (settings.model,)
    if settings.model == "ar":
        return []
    chosen = recipe(train, view.emission, settings, advice)
    covariates = 0 if train.covariates is None else train.covariates.shape[1]
    identities = _identities(train, valid)
    found = []
    for cell in cells:
        model: dict[str, Any] = {
            "kind": "latent",
            "cell": cell,
            "hidden_size": chosen.hidden,
            "num_layers": chosen.layers,
            "emission": view.emission.to_json(),
            "dropout": chosen.dropout,
            "input_dropout": chosen.input_dropout,
            "recurrent_dropout": chosen.recurrent_dropout,
            "members": chosen.members,
            "embedding_size": chosen.embedding,
            "time_scale": chosen.time_scale,
            "covariates": covariates,
            "identities": identities,
            "num_differencing": view.differenced,
        }
        found.append(
            Candidate(
                name=cell,
                family="latent",
                transforms=list(view.transforms),
                model=model,
                train=chosen.train,
            )
        )
    return found


def _identities(train: Sequences, valid: Sequences) -> list[str]:
    """The series that get a learned vector each: some that go on after training, not too many."""
    series = train.domain.kind in ("real", "count", "binary") and 1 < len(train) <= 500
    return list(train.names) if series and bool((valid.starts > 0).any()) else []
