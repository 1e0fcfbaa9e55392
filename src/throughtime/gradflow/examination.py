"""Everything about the gradient of a loss through time, together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor

from throughtime.files import finite
from throughtime.gradflow._contract import Loss
from throughtime.gradflow._jacobian_products import to_vectors
from throughtime.gradflow._passes import states_at
from throughtime.gradflow._unrolled import floating
from throughtime.gradflow.batches import Segment, Timed, along_time
from throughtime.gradflow.diagnosis import Evidence, Verdict, diagnose
from throughtime.gradflow.jacobians import (
    NormsByLag,
    jacobian_norms,
    spectral_radius,
    step_radius,
)
from throughtime.gradflow.ledger import Ledger, ledger, number
from throughtime.gradflow.lyapunov import lyapunov
from throughtime.gradflow.saturation import saturation
from throughtime.gradflow.sign_flip_test import sign_flip_test
from throughtime.state import State

_TIMES = 8  # of Jacobian norms, each with all the rows
_DIGITS = 0.03  # a bound on their relative error: a picture shows no more

OnProgress = Callable[[str, float], None]


@dataclass(frozen=True)
class Examination:
    """What `examine` measures.

    Attributes:
        ledger: the gradient by lag.
        jacobian_norm: ‖∂S_t/∂S_{t-k}‖ at the lags 1, 2, 4, …
        lyapunov: the largest exponent, per step.
        spectral_radius: of each recurrent matrix, by name, and of the "mean step".
        saturation: the share of saturated activations, by layer and gate.
        state_growth: the mean growth of log‖S‖ per step.
        sign_flip_p: the p-value of `sign_flip_test`; None where the batch is too short for it.
        learned: the module is known to predict better than without a past; then it is no fault that
            the gradients of its losses cancel.
    """

    ledger: Ledger
    jacobian_norm: NormsByLag
    lyapunov: float
    spectral_radius: dict[str, float]
    saturation: dict[str, float]
    state_growth: float
    sign_flip_p: float | None
    learned: bool = False

    @property
    def evidence(self) -> Evidence:
        """All that a verdict is made of."""
        return replace(
            self.ledger.evidence,
            lyapunov=self.lyapunov,
            saturation=self.saturation,
            state_growth=self.state_growth,
            sign_flip_p=None if self.learned else self.sign_flip_p,
        )

    @property
    def verdict(self) -> Verdict:
        """What all this means, in words, with a remedy."""
        return diagnose(self.evidence)

    def to_json(self) -> dict[str, Any]:
        """JSON values, None for no number: those of the ledger, parameters jointly, and more."""
        book = self.ledger.to_json()
        del book["parameters"]
        more: dict[str, Any] = finite({n: v for n, v in vars(self).items() if n != "ledger"})
        spread = finite(asdict(self.jacobian_norm))
        return book | more | {"jacobian_norm": spread, "verdict": finite(self.verdict.to_json())}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Examination:
        """The examination that `to_json` wrote. Raises RunError for JSON of another schema."""
        spread = {name: tuple(map(number, v)) for name, v in entry["jacobian_norm"].items()}
        named = {
            name: {key: number(value) for key, value in entry[name].items()}
            for name in ("spectral_radius", "saturation")
        }
        return cls(
            ledger=Ledger.from_json(entry),
            jacobian_norm=NormsByLag(**{**spread, "lags": tuple(entry["jacobian_norm"]["lags"])}),
            lyapunov=number(entry["lyapunov"]),
            state_growth=number(entry["state_growth"]),
            sign_flip_p=entry["sign_flip_p"],
            learned=entry["learned"],
            **named,
        )


def examine(
    loss: Loss,
    batch: Any,
    state: State,
    params: Mapping[str, Tensor],
    max_lag: int,
    k1: int = 1,
    k2: int | None = None,
    learned: bool = False,
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Examination:
    """Ledger, Jacobian norms, Lyapunov exponent, radii, saturation, and the verdict on them.

    Args:
        loss: ``loss(batch, state) -> (summed loss, state)``, without random numbers.
        batch: T steps, see `along_time`.
        state: before the first step.
        params: by name.
        max_lag: how far back to look, shorter than the batch.
        k1, k2: of the truncation in use, see `bptt.Truncated`; k2 None: not truncated.
        learned: see `Examination`.
        seed: of the times, directions and entries that are drawn.
        on_progress: called with the name of each part and the share of the work that is done.

    Raises:
        SettingError, NonFiniteError: as `ledger` does.
    """
    tell = on_progress or (lambda part, done: None)
    batch = along_time(batch)
    tell("ledger", 0.0)
    book = ledger(loss, batch, state, params, max_lag, k1=k1, k2=k2)
    tell("sign-flip test", 0.3)
    p_value = sign_flip_test(loss, batch, state, params, max_lag, seed)
    if not floating(state):  # the first step makes the state: look from there
        state = states_at(loss, batch, state, [1])[1]
        batch = Segment(batch, 1, len(batch))
    tell("jacobians", 0.6)
    longest = max(1, min(max_lag, len(batch)))
    lags = [2**i for i in range(longest.bit_length())]
    norms = jacobian_norms(loss, batch, state, lags, _TIMES, seed, _DIGITS)
    radii = spectral_radius(params) | {"mean step": step_radius(loss, batch, state, _TIMES, seed)}
    tell("lyapunov", 0.8)
    exponent = lyapunov(loss, batch, state, num=1, seed=seed).largest
    tell("saturation", 0.9)
    shares = saturation(loss, batch, state, params)
    growth = _growth(loss, batch, state)
    tell("verdict", 1.0)
    return Examination(book, norms.by_lag, exponent, radii, shares, growth, p_value, learned)


def _growth(loss: Loss, batch: Timed, state: State) -> float:
    """The mean growth of log‖S‖ per step over the second half of the batch."""
    middle, end = len(batch) // 2, len(batch)
    known = states_at(loss, batch, state, [middle, end])
    first, last = (float(to_vectors(floating(known[t])).double().norm()) for t in (middle, end))
    return math.log(last / first) / (end - middle) if first > 0 and last > 0 else 0.0
