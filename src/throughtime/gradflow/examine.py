"""Everything about the gradient of a loss through time, together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from throughtime.gradflow.diagnosis import Evidence, Verdict, diagnose
from throughtime.gradflow.jacobian_products import states_at, to_vectors
from throughtime.gradflow.jacobians import (
    JacobianNorms,
    jacobian_norms,
    spectral_radius,
    step_radius,
)
from throughtime.gradflow.ledger import Ledger, ledger
from throughtime.gradflow.lyapunov import Lyapunov, lyapunov
from throughtime.gradflow.saturation import saturation
from throughtime.gradflow.signal import signal
from throughtime.gradflow.unrolled import Loss, Timed, Window, floating
from throughtime.state import State

SHARES = (0.5, 0.9, 0.95, 0.99)
_TIMES = 8  # of Jacobian norms, each with all the rows
_DIGITS = 0.03  # a bound on their relative error: a picture shows no more

OnProgress = Callable[[str, float], None]


@dataclass(frozen=True)
class Examination:
    """What `examine` found. lyapunov: per step. radius: of the mean one-step Jacobian.

    truncation: the steps a gradient may travel in training; None is all.
    """

    ledger: Ledger
    jacobian_norms: JacobianNorms
    lyapunov: Lyapunov
    spectral_radius: dict[str, float]
    saturation: dict[str, float]
    signal: float | None
    evidence: Evidence
    verdict: Verdict

    def to_json(self) -> dict[str, Any]:
        """Plain values; None stands where there is no number."""
        book, e, lags = self.ledger, self.evidence, range(self.ledger.max_lag + 1)
        low, median, high = (plain(values.tolist()) for values in book.state_quantiles)
        return {
            "lags": list(lags),
            "norms": plain(e.norms),
            "share": plain(book.share.tolist()),
            "bias": plain([book.bias(lag) for lag in lags]),
            "cosine": plain([book.cosine(lag) for lag in lags]),
            "state_norm": {
                "mean": plain(e.state_norm),
                "low": low,
                "median": median,
                "high": high,
            },
            "reach": {str(share): book.reach(share) for share in SHARES},
            "max_lag": book.max_lag,
            "steps": book.steps,
            "jacobian_norm": {
                "lags": list(self.jacobian_norms.lags),
                "mean": plain(self.jacobian_norms.mean),
                "low": plain(self.jacobian_norms.quantile(0.1)),
                "high": plain(self.jacobian_norms.quantile(0.9)),
            },
            "lyapunov": plain(self.lyapunov.largest),
            "spectral_radius": plain(self.spectral_radius),
            "saturation": plain(self.saturation),
            "signal": self.signal,
            "truncation": e.truncation,
            "k1": None if e.truncation is None else e.k1,
            "beyond": None if e.truncation is None else e.beyond(e.truncation),
            "lost": e.lost(),
            "verdict": {
                "name": self.verdict.name,
                "sentence": self.verdict.sentence,
                "remedy": self.verdict.remedy,
                "evidence": plain(self.verdict.evidence),
            },
        }


def examine(
    loss: Loss,
    batch: Timed,
    state: State,
    params: Mapping[str, Tensor],
    max_lag: int,
    truncation: int | None = None,
    k1: int = 1,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Examination:
    """Ledger, Jacobian norms, Lyapunov exponent, radii, saturation, and the verdict on them.

    loss: ``loss(batch, state) -> (summed loss, state)``, without random numbers. state: before the
    batch. params: by name. max_lag: how far back to look, shorter than the batch. truncation: the
    steps a gradient may travel in training (k2); None is all. k1: the losses used at once there, 1
    for the sliding window. on_progress: called with the name of each part and the share of the
    work that is done.
    Raises SettingError and NonFiniteError as `ledger` does.
    """
    tell = on_progress or (lambda part, done: None)
    tell("ledger", 0.0)
    book = ledger(loss, batch, state, params, max_lag, truncation=truncation)
    tell("signal", 0.3)
    agreed = signal(loss, batch, state, params, max_lag, seed)
    if not floating(state):  # the first step makes the state: look from there
        state = states_at(loss, batch, state, [1])[1]
        batch = Window(batch, 1, len(batch))
    tell("jacobians", 0.6)
    longest = max(1, min(max_lag, len(batch)))
    lags = [2**i for i in range(longest.bit_length())]
    norms = jacobian_norms(loss, batch, state, lags, _TIMES, seed, _DIGITS)
    radii = spectral_radius(params) | {"mean step": step_radius(loss, batch, state, _TIMES, seed)}
    tell("lyapunov", 0.8)
    exponent = lyapunov(loss, batch, state, num=1, seed=seed)
    tell("saturation", 0.9)
    shares = saturation(loss, batch, state, params)
    evidence = replace(
        book.evidence,
        k1=k1,
        lyapunov=exponent.largest,
        saturation=shares,
        state_growth=_growth(loss, batch, state),
        signal=agreed,
    )
    tell("verdict", 1.0)
    return Examination(book, norms, exponent, radii, shares, agreed, evidence, diagnose(evidence))


def _growth(loss: Loss, batch: Timed, state: State) -> float:
    """The mean growth of log‖S‖ per step over the second half of the batch."""
    middle, end = len(batch) // 2, len(batch)
    known = states_at(loss, batch, state, [middle, end])
    first, last = (float(to_vectors(floating(known[t])).double().norm()) for t in (middle, end))
    return math.log(last / first) / (end - middle) if first > 0 and last > 0 else 0.0


def plain(values: Any) -> Any:
    """The same numbers with None for those that are infinite or NaN, which JSON has not."""
    if isinstance(values, dict):
        return {name: plain(value) for name, value in values.items()}
    if isinstance(values, list):
        return [plain(value) for value in values]
    return values if values is None or math.isfinite(values) else None
