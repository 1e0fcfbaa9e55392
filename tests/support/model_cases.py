"""Small models of every kind on small data of every family, for the model tests."""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from throughtime import emissions
from throughtime.data.sequences import Domain, Sequences
from throughtime.emissions import Distribution, Emission
from throughtime.models.autoregressive import Autoregressive
from throughtime.models.base import SequenceModel
from throughtime.models.ensemble import Blend
from throughtime.models.exponential_smoothing import ExponentialSmoothing
from throughtime.models.garch import VOLATILITIES, Garch
from throughtime.models.hmm import HiddenMarkov
from throughtime.models.lag_regression import LagRegression
from throughtime.models.latent import LatentAutoregressive
from throughtime.models.sparse_ngram import SparseNGram

LENGTHS = (9, 1, 14, 4, 7)
EMISSIONS: dict[str, Emission] = {
    "categorical": emissions.Categorical(5),
    "discretised_logistic": emissions.DiscretisedLogistic(6, 3),
    "bernoulli": emissions.Bernoulli(2),
    "poisson": emissions.Poisson(2),
    "negative_binomial": emissions.NegativeBinomial(1),
    "normal": emissions.Normal(2),
    "student_t": emissions.StudentT(2, 1),
    "skew_student_t": emissions.SkewStudentT(2),
    "laplace": emissions.Laplace(1),
    "mixture": emissions.Mixture("student_t", 3, 2),
}


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def values_of(emission: Emission, total: int, seed: int = 0, missing: bool = True) -> Tensor:
    """Values that the emission could have emitted, a few of them missing."""
    chance = generator(seed)
    if emission.symbols:
        return torch.randint(0, emission.num_symbols, (total,), generator=chance)  # type: ignore[attr-defined]
    noise = torch.randn(total, emission.columns, dtype=torch.float64, generator=chance)
    if emission.kind == "bernoulli":
        noise = (noise > 0.3).double()
    elif emission.kind in ("poisson", "negative_binomial"):
        noise = (2 * noise.abs()).floor()
    if missing:
        noise[4, 0] = torch.nan  # one column
        noise[12] = torch.nan  # a whole step
        noise[total - 1] = torch.nan  # the last of all
    return noise


def sequences_of(
    emission: Emission,
    lengths: tuple[int, ...] = LENGTHS,
    seed: int = 0,
    covariates: int = 0,
    missing: bool = True,
) -> Sequences:
    """Ragged sequences of a family; the series are called a, b, c, …"""
    total = sum(lengths)
    domain = None
    if emission.symbols:
        domain = Domain("symbols", num_symbols=emission.num_symbols)  # type: ignore[attr-defined]
    known = torch.randn(total, covariates, dtype=torch.float64, generator=generator(seed + 1))
    return Sequences(
        values_of(emission, total, seed, missing),
        torch.tensor([0, *lengths]).cumsum(0),
        domain=domain,  # type: ignore[arg-type]
        names=tuple("abcdefghij"[: len(lengths)]),
        covariates=known if covariates else None,
    )


def shaken(model: SequenceModel, seed: int = 0, size: float = 0.6) -> SequenceModel:
    """The model in float64 with weights far from where they start, so that it has a memory."""
    model = model.double()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, dtype=torch.float64, generator=generator(seed))
            weight += size * noise * (weight.shape[-1] ** -0.5 if weight.dim() > 1 else 0.5)
            part = name.removeprefix("recurrent.")
            if isinstance(model, LatentAutoregressive) and part != name and model.members > 1:
                weight.copy_(model._blocks(part, weight))
    return model.eval()


@dataclass(frozen=True)
class Case:
    """A fitted model and data that it has the distribution of (in its own view)."""

    model: SequenceModel
    data: Sequences


@functools.cache
def case_of(name: str) -> Case:
    """The case of a name, made once: tests leave it as it is."""
    return CASES[name]()


def made(model: SequenceModel, data: Sequences) -> Case:
    model.begin(data)
    return Case(shaken(model), data)


def _plain(kind: str, options: dict[str, object], emission: Emission) -> Callable[[], Case]:
    def make() -> Case:
        model: SequenceModel = (
            LatentAutoregressive(emission=emission, **options)  # type: ignore[arg-type]
            if kind == "latent"
            else Autoregressive(emission=emission, **options)  # type: ignore[arg-type]
        )
        return made(model, sequences_of(emission))

    return make


def differenced(*kinds: str, lengths: tuple[int, ...] = LENGTHS) -> Sequences:
    """Positive series with a trend, differenced; two columns, a gap in one."""
    parts = []
    for i, length in enumerate(lengths):
        steps = torch.randn(length, 2, dtype=torch.float64, generator=generator(20 + i))
        parts.append((0.1 * steps.cumsum(0) + 1.0 + i).exp())
    parts[2][6, 1] = torch.nan
    return Sequences.of(parts, names=list("abcde")).transform(kinds)


def _differenced(
    model: Callable[[], SequenceModel], *kinds: str, lengths: tuple[int, ...] = LENGTHS
) -> Callable[[], Case]:
    return lambda: made(model(), differenced(*kinds, lengths=lengths))


def _known(model: Callable[[], SequenceModel], missing: bool = True) -> Callable[[], Case]:
    def make() -> Case:
        data = sequences_of(emissions.Normal(2), covariates=3, missing=missing)
        return made(model(), data.with_identity(["c", "a", "d"]))

    return make


def _garch(volatility: str, *kinds: str) -> Callable[[], Case]:
    """Of the third of five series of one column, the others short; fitted by arch."""

    def make() -> Case:
        noise = torch.randn(420, dtype=torch.float64, generator=generator(5))
        size = (0.3 * noise.roll(1) + 0.2).exp()
        path = (0.02 * (noise * size).cumsum(0)).exp() if kinds else noise * size
        parts = [path[10 * i : 10 * i + length] for i, length in enumerate(LENGTHS)]
        data = Sequences.of([*parts[:2], path, *parts[3:]], names=list("abcde"))
        train = data[2].transform(kinds)
        model = Garch(volatility, num_differencing=kinds.count("difference"))
        model.begin(train)
        data = data.transform(train.chain)
        values = data.values.clone()
        values[-3] = torch.nan  # a gap, which it goes over
        return Case(model.eval(), replace(data, values=values))

    return make


def _blend(emission: Emission, *predictors: str) -> Callable[[], Case]:
    def make() -> Case:
        finite_orders: list[SequenceModel] = [
            Autoregressive(2, emission=emission, predictor=kind) for kind in predictors
        ]
        latent = LatentAutoregressive("gru", 3, emission=emission, members=2)
        model = Blend([*finite_orders, latent], [0.5, 0.2, 0.3][: len(finite_orders) + 1])
        return made(model, sequences_of(emission))

    return make


_NORMAL, _STUDENT = emissions.Normal(2), emissions.StudentT(2)
_CHANGES = ("log", "difference", "standardise")
_THREE = emissions.Categorical(3)
_LONGER = (29, 1, 34, 14, 17)
SYMBOLS: dict[str, Callable[[], Case]] = {
    f"{cell}-{members}x{size}-{layers}": _plain(
        "latent",
        {"cell": cell, "members": members, "hidden_size": size, "num_layers": layers},
        emissions.Categorical(3),
    )
    for cell, members, size, layers in (
        ("rnn", 1, 5, 1),
        ("gru", 1, 5, 2),
        ("lstm", 1, 5, 1),
        ("gru", 2, 3, 1),
        ("lstm", 2, 3, 2),
        ("rnn_relu", 1, 4, 1),
        ("rnn_identity", 1, 4, 1),
        ("li_gru", 2, 4, 2),
    )
}
SYMBOLS |= {
    f"ngram-{order}": _plain("ar", {"order": order}, emissions.Categorical(3))
    for order in (0, 1, 2, 5)
}
SYMBOLS |= {
    f"mlp-{order}": _plain("ar", {"order": order, "predictor": "mlp"}, emissions.Categorical(3))
    for order in (0, 1, 3)
}
SYMBOLS |= {
    "hmm-3": lambda: made(HiddenMarkov(3, emission=_THREE), sequences_of(_THREE, _LONGER)),
    "hmm-1": lambda: made(HiddenMarkov(1, emission=_THREE), sequences_of(_THREE, _LONGER)),
    "sparse-ngram": lambda: made(
        SparseNGram(2, (4, 6), emission=_THREE), sequences_of(_THREE, _LONGER)
    ),
    "sparse-ngram-0": lambda: made(
        SparseNGram(0, (3,), emission=_THREE), sequences_of(_THREE, _LONGER)
    ),
}
CASES: dict[str, Callable[[], Case]] = dict(SYMBOLS)
for _name, _emission in EMISSIONS.items():
    for _members in (1, 2):
        CASES[f"gru-{_members}-{_name}"] = _plain(
            "latent", {"cell": "gru", "hidden_size": 3, "members": _members}, _emission
        )
    CASES[f"mlp-{_name}"] = _plain("ar", {"order": 3, "predictor": "mlp"}, _emission)
CASES |= {
    f"linear-{order}-{distribution.kind}": _plain("ar", {"order": order}, distribution)
    for order in (0, 1, 3)
    for distribution in (_NORMAL, _STUDENT)
}
CASES |= {
    "constant": _plain("ar", {"order": 0, "predictor": "constant"}, EMISSIONS["student_t"]),
    "constant-symbols": _plain(
        "ar", {"order": 0, "predictor": "constant"}, EMISSIONS["discretised_logistic"]
    ),
    "lstm-differenced": _differenced(
        lambda: LatentAutoregressive("lstm", 3, emission=_STUDENT, num_differencing=1), *_CHANGES
    ),
    "gru-2-differenced-mixture": _differenced(
        lambda: LatentAutoregressive(
            "gru", 3, emission=EMISSIONS["mixture"], num_differencing=1, members=2
        ),
        *_CHANGES,
    ),
    "linear-differenced": _differenced(
        lambda: Autoregressive(2, emission=_STUDENT, num_differencing=1), *_CHANGES
    ),
    "linear-twice-differenced": _differenced(
        lambda: Autoregressive(2, emission=_NORMAL, num_differencing=2), "difference", *_CHANGES[1:]
    ),
    "mlp-differenced": _differenced(
        lambda: Autoregressive(
            2, emission=EMISSIONS["mixture"], num_differencing=1, predictor="mlp"
        ),
        *_CHANGES,
    ),
    "gru-covariates": _known(
        lambda: LatentAutoregressive(
            "gru", 3, emission=_NORMAL, covariates=3, identities=("c", "a", "d"), members=2
        )
    ),
    "mlp-covariates": _known(
        lambda: Autoregressive(2, emission=_NORMAL, predictor="mlp", covariates=3)
    ),
    "blend": _blend(_NORMAL, "linear", "mlp"),
    "blend-symbols": _blend(emissions.Categorical(3), "ngram"),
    "blend-counts": _blend(EMISSIONS["poisson"], "mlp"),
    "lag-regression-linear": lambda: made(
        LagRegression((1, 2, 5), emission=_STUDENT, shape="linear"), sequences_of(_STUDENT, _LONGER)
    ),
    "lag-regression": lambda: made(
        LagRegression((1, 2, 3, 4, 7), emission=_STUDENT), sequences_of(_STUDENT, _LONGER)
    ),
    "lag-regression-many": lambda: made(
        LagRegression((2,), emission=emissions.StudentT(9)),
        sequences_of(emissions.StudentT(9), _LONGER),
    ),
    "lag-regression-differenced": _differenced(
        lambda: LagRegression((1, 3), emission=_STUDENT, num_differencing=1),
        *_CHANGES,
        lengths=_LONGER,
    ),
    "smoothing": lambda: made(
        ExponentialSmoothing((1, 2, 6), emission=_STUDENT), sequences_of(_STUDENT, _LONGER)
    ),
    "smoothing-alone": lambda: made(
        ExponentialSmoothing((), emission=_STUDENT, shape="linear"), sequences_of(_STUDENT, _LONGER)
    ),
    "smoothing-differenced": _differenced(
        lambda: ExponentialSmoothing((1,), emission=_STUDENT, num_differencing=1),
        *_CHANGES,
        lengths=_LONGER,
    ),
    "linear-covariates": _known(lambda: Autoregressive(2, emission=_NORMAL, covariates=3)),
}

GARCH = {name: _garch(name) for name in VOLATILITIES}
GARCH["garch-differenced"] = _garch("gjr-garch(1,1)-skew-t", *_CHANGES)
if importlib.util.find_spec("arch"):
    CASES |= GARCH


def distributions_by_step(
    model: SequenceModel, one: Sequences
) -> Iterator[tuple[int, Distribution, Tensor]]:
    """(t, the distribution of X_t, X_t) of one sequence by `step` alone."""
    kind = torch.float64
    values = one.values if one.domain.integer else one.values.to(kind)
    series = one.identity if bool((one.identity >= 0).any()) else None
    previous, state = None, None
    for t in range(len(values)):
        known = None if one.covariates is None else one.covariates[t : t + 1].to(kind)
        distribution, state = model.step(previous, state, known, series)
        previous = values[t : t + 1]
        yield t, distribution, previous


def nats_by_step(model: SequenceModel, data: Sequences) -> Tensor:
    """What `step_log_prob` should be: the chain rule over `step`, one sequence at a time."""
    result = []
    for one in data:
        scored = one.scored()
        nats = [
            distribution.log_prob(x)[0] + one.log_det[t]
            if scored[t]
            else torch.zeros((), dtype=kind)
            for kind in (torch.float64,)
            for t, distribution, x in distributions_by_step(model, one)
        ]
        result.append(torch.stack(nats))
    return torch.cat(result)


def with_pasts(data: Sequences) -> tuple[Sequences, Sequences]:
    """(the steps before each sequence's middle, the whole with only the rest scored)."""
    middle = data.lengths // 2
    keep = middle > 0
    rest = replace(data, starts=middle)[keep]
    parts = [data[i] for i in keep.nonzero().flatten().tolist()]
    before = [
        replace(
            part,
            values=part.values[:m],
            offsets=torch.tensor([0, m]),
            log_det=part.log_det[:m],
            differencing=part.differencing[:m],
            covariates=None if part.covariates is None else part.covariates[:m],
        )
        for part, m in zip(parts, middle[keep].tolist(), strict=True)
    ]
    return joined(before), rest


def joined(parts: list[Sequences]) -> Sequences:
    """Several sets as one."""
    covariates = [part.covariates for part in parts if part.covariates is not None]
    return replace(
        parts[0],
        values=torch.cat([part.values for part in parts]),
        offsets=torch.tensor([0, *(len(part.values) for part in parts)]).cumsum(0),
        starts=torch.cat([part.starts for part in parts]),
        names=tuple(name for part in parts for name in part.names),
        log_det=torch.cat([part.log_det for part in parts]),
        differencing=torch.cat([part.differencing for part in parts]),
        covariates=torch.cat(covariates) if covariates else None,
        identity=torch.cat([part.identity for part in parts]),
    )
