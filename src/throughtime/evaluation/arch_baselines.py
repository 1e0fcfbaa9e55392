"""Models of changing volatility from the package `arch`, as named peers of our own.

Their distribution is that of the transformed values (returns, mostly); the log-Jacobian of the
transforms puts the likelihood into the data's own units, so they stand beside the other models.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Transforms
from throughtime.errors import MissingExtra
from throughtime.evaluation.comparison import Entry, StepScores

_LEAST = 200  # steps below which so many parameters of the spread cannot be told apart
_WIDE = (1e-8, 1e8)  # bounds of the conditional variance, in units of the overall one


@dataclass(frozen=True)
class Spec:
    """A volatility model as `arch.univariate` builds it."""

    name: str
    description: str
    volatility: str
    p: int
    o: int
    q: int
    distribution: str


SPECS = (
    Spec("arch(5)-t", "AR(1) mean, ARCH(5), Student-t", "ARCH", 5, 0, 0, "t"),
    Spec("garch(1,1)-t", "AR(1) mean, GARCH(1,1), Student-t", "GARCH", 1, 0, 1, "t"),
    Spec(
        "gjr-garch(1,1)-skew-t",
        "AR(1) mean, GJR-GARCH(1,1), Hansen's skewed Student-t",
        "GARCH",
        1,
        1,
        1,
        "skewt",
    ),
)


@dataclass(frozen=True)
class _Fitted:
    """Parameters of a spec, and what the recursion starts from; values are divided by `scale`."""

    model: Any
    parameters: np.ndarray
    first: int
    backcast: float
    scale: float
    converged: bool


def peers(
    raw_valid: Sequences,
    raw_test: Sequences,
    chain: Transforms,
    specs: tuple[Spec, ...] = SPECS,
) -> list[Entry]:
    """An `Entry` for each spec; [] where they do not apply.

    raw_valid, raw_test: one series of one column each, everything before `starts` as its past.
    chain: the transforms under which the values have a steady mean, such as log and difference.
    Validation nats come from parameters fitted on the training steps alone, test nats from
    parameters fitted on everything before the test span; they stay fixed while the conditional
    variance follows the data. They do not apply to several series or columns, to missing values
    in between, to constant series and to fewer than 200 training steps. Raises MissingExtra
    without the package arch.
    """
    library = _library()
    fits = _suited(raw_valid, chain) and _suited(raw_test, chain)
    return [_entry(library, spec, raw_valid, raw_test, chain) for spec in specs] if fits else []


def _library() -> Any:
    try:
        from arch import univariate
    except ImportError as error:
        raise MissingExtra("arch", "arch", "comparing with GARCH models") from error
    return univariate


def _suited(raw: Sequences, chain: Transforms) -> bool:
    if raw.domain.integer or len(raw) != 1 or raw.values.shape[1] != 1:
        return False
    if chain.domain is not None and chain.output.kind != "real":
        return False
    seen = raw.transform(chain)
    start = int(seen.starts[0])
    before = seen.values[:start][~seen.initial[:start]]
    enough = len(before) >= _LEAST and bool((before != before[0]).any())
    return enough and not bool(seen.missing.any())


def _entry(
    library: Any, spec: Spec, raw_valid: Sequences, raw_test: Sequences, chain: Transforms
) -> Entry:
    begun = time.monotonic()
    scores, fitted = [], []
    for raw in (raw_valid, raw_test):
        seen = raw.transform(chain)
        found = _fit(library, spec, seen)
        log_prob = torch.from_numpy(_log_prob(found, seen))
        log_prob = torch.where(seen.scored(), log_prob + seen.log_det, 0.0)
        scores.append(StepScores.aligned(log_prob, seen, raw))
        fitted.append(found)
    converged = all(found.converged for found in fitted)
    note = "" if converged else " (its optimiser did not converge)"
    return Entry(
        name=spec.name,
        family="peer",
        description=f"{spec.description}, fitted by arch{note}",
        parameters=len(fitted[1].parameters),
        test=scores[1],
        valid=scores[0].nats_per_step,
        seconds=time.monotonic() - begun,
    )


def _fit(library: Any, spec: Spec, seen: Sequences) -> _Fitted:
    """Fits a spec on the steps before `starts`, without the initial value of differencing."""
    first, start = int(seen.initial.sum()), int(seen.starts[0])
    before = seen.values[first:start, 0].numpy()
    # arch's optimiser wants values of order one, and warns about others.
    scale = float(before.std())
    model = library.arch_model(
        before / scale,
        mean="AR",
        lags=1,
        vol=spec.volatility,
        p=spec.p,
        o=spec.o,
        q=spec.q,
        dist=spec.distribution,
        rescale=False,
    )
    # Convergence is read from the result instead of from a warning.
    result = model.fit(disp="off", show_warning=False)
    parameters = np.asarray(result.params, dtype=np.float64)
    residuals = _residuals(before / scale, parameters)
    backcast = float(model.volatility.backcast(residuals))
    return _Fitted(model, parameters, first, backcast, scale, result.convergence_flag == 0)


def _residuals(values: np.ndarray, parameters: np.ndarray) -> np.ndarray:
    """What is left of values [n] after the mean, for all but the first: [n - 1]."""
    constant, slope = parameters[:2]
    rest: np.ndarray = values[1:] - constant - slope * values[:-1]
    return rest


def _log_prob(fitted: _Fitted, seen: Sequences) -> np.ndarray:
    """Log-likelihood of each transformed step, [total]; 0 for the first ones, never scored."""
    values = seen.values[fitted.first :, 0].numpy() / fitted.scale
    residuals = _residuals(values, fitted.parameters)
    volatility, distribution = fitted.model.volatility, fitted.model.distribution
    of_volatility = fitted.parameters[2 : 2 + volatility.num_params]
    of_distribution = fitted.parameters[2 + volatility.num_params :]
    variance = np.empty_like(residuals)
    bounds = np.tile(np.array(_WIDE), (len(residuals), 1))
    volatility.compute_variance(of_volatility, residuals, variance, fitted.backcast, bounds)
    nats = distribution.loglikelihood(of_distribution, residuals, variance, individual=True)
    skipped = np.zeros(fitted.first + 1)
    return np.concatenate([skipped, nats - math.log(fitted.scale)])
