"""What the numbers of a gradient mean, in words, and what to do about it."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from itertools import accumulate
from typing import Any

from throughtime.errors import SettingError

# Over the lags looked at, a factor of ten is what an optimiser notices: Adam's step and clipping
# at the usual norms even out less than that.
GROWN = 10.0
# A gradient a thousand times smaller than that of the nearest steps is below the noise of any
# minibatch; what lies where it arrives is not learnt.
LOST = 1e-3
# Half of the units of a kind let less than a hundredth through: the typical path is closed.
FLAT = 0.5
# Stochastic gradients of a relative bias of a tenth still go downhill (Aicher, Foti & Fox 2020).
CUT = 0.1
# Lags within k2 are learnt from all the same, with less weight; half is a lot of that.
DILUTED = 0.5
# Gradients of segments that agree by chance do so once in a hundred times.
CHANCE = 0.01

SHARES = (0.5, 0.9, 0.95, 0.99)  # of the gradient, whose reach is reported
_CLOSED = ("tanh", "n", "g", "c")  # where to be saturated is never memory


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The numbers that a verdict is made of; lags 0 … K, K being `max_lag`.

    Attributes:
        state_norm: the mean of ‖∂ℓ_t/∂S_{t-k}‖ by lag, NaN where it is not known.
        norms: ‖G_k‖ of all parameters jointly, by lag.
        rest: ‖Σ_{k>K} G_k‖, the norm of what is older than K.
        max_lag: K.
        steps: T, of the batch.
        gradient_norm: ‖G‖.
        parameter_norm: the norm of all parameters jointly.
        loss: of the whole batch, in nats.
        k1: the losses that training uses at once.
        k2: the steps over which training lets a gradient travel; None: all.
        lyapunov: the largest exponent per step, or None.
        saturation: shares by gate, as `saturation` names them, or None.
        state_growth: the mean growth of log‖S‖ per step, or None.
        sign_flip_p: the p-value of `sign_flip_test`, or None.
    """

    state_norm: list[float]
    norms: list[float]
    rest: float
    max_lag: int
    steps: int
    gradient_norm: float
    parameter_norm: float
    loss: float
    k1: int = 1
    k2: int | None = None
    lyapunov: float | None = None
    saturation: dict[str, float] | None = None
    state_growth: float | None = None
    sign_flip_p: float | None = None

    @property
    def share(self) -> list[float]:
        """By lag: (Σ_{j≤k} ‖G_j‖) / (Σ_{j≤K} ‖G_j‖ + rest); 1 where all is 0."""
        whole = sum(self.norms) + self.rest
        return [part / whole if whole else 1.0 for part in accumulate(self.norms)]

    def reach(self, share: float = 0.95) -> int | None:
        """The smallest lag within which `share` of the gradient lies.

        Args:
            share: of the sum of the norms, 0 < share <= 1.

        Returns:
            The lag, counted from 0 (the step itself); None where it lies beyond `max_lag`.

        Raises:
            SettingError: for another share.
        """
        if not 0 < share <= 1:
            raise SettingError(f"share={share}: a part of the gradient lies in (0, 1]")
        return next((lag for lag, part in enumerate(self.share) if part >= share - 1e-12), None)

    @property
    def beyond(self) -> float | None:
        """The share of the gradient at the lags k2, k2 + 1, …; None: not known, or no k2."""
        if self.k2 is None or (self.k2 > self.max_lag + 1 and self.rest):
            return None
        whole = sum(self.norms) + self.rest
        return (sum(self.norms[self.k2 :]) + self.rest) / whole if whole else 0.0

    @property
    def lost(self) -> float | None:
        """The share that training with k1 and k2 leaves out; None as for `beyond`, or no gradient.

        Of k1 losses only the last go back over all k2 steps: a lag k counts for a share
        (k2 - k) / k1 of them, at most all.
        """
        whole = sum(self.norms) + self.rest
        if self.k2 is None or self.beyond is None or not whole:
            return None
        weights = [(self.k2 - lag) / self.k1 for lag in range(len(self.norms))]
        kept = sum(n * max(0.0, min(1.0, w)) for n, w in zip(self.norms, weights, strict=True))
        return 1.0 - kept / whole

    @property
    def horizon(self) -> int:
        """The longest lag that `state_norm` is believed at: half the batch. Beyond, fewer and fewer
        steps have such a past, and where losses are rare (at the end only) their mean rises."""
        return min(self.max_lag, self.steps // 2)

    @property
    def falling(self) -> list[tuple[int, float]]:
        """The lags up to the horizon whose `state_norm` is known, with it."""
        known = enumerate(self.state_norm[: self.horizon + 1])
        return [(lag, norm) for lag, norm in known if not math.isnan(norm)]

    def rate(self) -> float:
        """The slope of the logarithm of `state_norm`, per step: the line from its first value that
        fits the others best. -inf where these are all 0; 0 where nothing is known."""
        (first, start), *others = self.falling or [(0, 0.0)]
        if not others or start <= 0:
            return 0.0
        rises = [(k - first, math.log(v / start)) for k, v in others if v > 0]
        if not rises:
            return -math.inf
        return sum(k * rise for k, rise in rises) / sum(k * k for k, _ in rises)


@dataclass(frozen=True)
class Verdict:
    """What the numbers of a gradient mean.

    Attributes:
        name: vanishing, exploding, saturated, chaotic, truncated too short, healthy or nothing to
            learn.
        sentence: what is the case, with its numbers.
        remedy: what to do.
        evidence: the numbers behind it, by name.
    """

    name: str
    sentence: str
    remedy: str
    evidence: dict[str, float]

    def __str__(self) -> str:
        return f"{self.name}: {self.sentence}. {self.remedy}."

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)


def diagnose(evidence: Evidence) -> Verdict:
    """The first fault that the numbers show, of those that hide others first.

    A gradient that is not finite or grows (chaotic, exploding) tells nothing else; units that are
    saturated make any gradient vanish; one of pure noise has neither reach nor truncation; what is
    cut off is worth a word before what fades by itself.

    Args:
        evidence: what is known; parts that are None are not looked at.

    Returns:
        One verdict, "healthy" where there is no fault.
    """
    for look in (_grows, _saturated, _nothing, _truncated, _vanishing):
        verdict = look(evidence)
        if verdict is not None:
            return verdict
    return _healthy(evidence)


def _grows(e: Evidence) -> Verdict | None:
    """Chaotic where nearby states part though the state stays bounded; exploding otherwise."""
    numbers = [*e.norms, e.rest, e.gradient_norm, e.loss]
    if not all(map(math.isfinite, numbers)) or any(map(math.isinf, e.state_norm)):
        return Verdict(
            "exploding",
            f"the loss or the gradient is not finite within {e.steps} steps",
            "Clip the gradient to a norm of 1, lower the learning rate, start from orthogonal "
            "recurrent weights",
            {"loss": e.loss, "gradient_norm": e.gradient_norm},
        )
    lyapunov = e.lyapunov or 0.0
    bounded = e.state_growth is None or e.state_growth < lyapunov / 2
    if lyapunov * e.max_lag > math.log(GROWN) and bounded:
        double = math.log(2) / lyapunov
        return Verdict(
            "chaotic",
            f"nearby states part, twice as far every {_steps(double)} (Lyapunov exponent "
            f"{lyapunov:+.3g} per step) while the state stays bounded; beyond "
            f"{_steps(math.log(1e3) / lyapunov)} the gradient says nothing",
            f"Truncate after about {max(1, round(1 / lyapunov))} steps, scale the recurrent "
            "weights down until the exponent is 0 or less, or feed true values in training",
            {"lyapunov": lyapunov, "doubling": double},
        )
    known = e.falling
    if len(known) < 2 or known[0][1] <= 0 or known[-1][1] < GROWN * known[0][1]:
        return None
    growth, steps = known[-1][1] / known[0][1], known[-1][0] - known[0][0]
    return Verdict(
        "exploding",
        f"the gradient doubles every {_steps(math.log(2) * steps / math.log(growth))} on its way "
        f"back: after {steps} steps it is {growth:.2g} times as large",
        "Clip the gradient to a norm of 1, start from orthogonal recurrent weights or scale them "
        "to a spectral radius of 1, or use a GRU or LSTM",
        {"growth_per_step": growth ** (1 / steps), "growth": growth},
    )


def _saturated(e: Evidence) -> Verdict | None:
    shares = {n: s for n, s in (e.saturation or {}).items() if n.rpartition(".")[2] in _CLOSED}
    if not shares:
        return None
    name = max(shares, key=lambda n: shares[n])
    if shares[name] <= FLAT:
        return None
    return Verdict(
        "saturated",
        f"{_percent(shares[name])} of the activations '{name}' are so far out that less than a "
        "hundredth of a gradient passes them",
        "Standardise the inputs, start from smaller weights, lower the learning rate; clip the "
        "gradient so that no update throws the weights out again",
        {name: shares[name]},
    )


def _nothing(e: Evidence) -> Verdict | None:
    if e.gradient_norm == 0:
        why, evidence = "the gradient is exactly zero", {"gradient_norm": 0.0}
    elif e.sign_flip_p is not None and e.sign_flip_p > CHANCE:
        why = (
            "the gradients of different segments agree no better than chance "
            f"(p = {e.sign_flip_p:.2g}), at no lag: they are noise about a floor, with nothing "
            "more to be learnt"
        )
        evidence = {"sign_flip_p": e.sign_flip_p, "gradient_norm": e.gradient_norm}
    else:
        return None
    return Verdict(
        "nothing to learn",
        why,
        "Stop here; a longer reach or a larger network will not help unless the data hold more "
        "than the network is given (other inputs, more data)",
        evidence,
    )


def _truncated(e: Evidence) -> Verdict | None:
    """What lies beyond k2 is not seen at all; what k1 dilutes is, and is worse than half gone."""
    beyond, lost = e.beyond, e.lost
    if beyond is None or lost is None or (beyond <= CUT and lost <= DILUTED):
        return None
    reach = e.reach()
    need = f"k2 = k1 + {reach}" if reach is not None else f"k2 above k1 + {e.max_lag}"
    return Verdict(
        "truncated too short",
        f"training cuts the gradient after {e.k2} steps, {_percent(beyond)} of it comes "
        f"from beyond{_diluted(e, beyond)}",
        f"Set {need} (95 % of the gradient), or let tt.bptt.Adaptive find and keep it",
        {"k2": float(e.k2 or 0), "beyond": beyond}
        | ({"reach": float(reach)} if reach is not None else {}),
    )


def _vanishing(e: Evidence) -> Verdict | None:
    half, known = e.horizon // 2, e.falling
    far = [v for k, v in known if k > half]
    if half < 1 or not far or max(far) >= LOST * max(v for _, v in known):
        return None
    return Verdict(
        "vanishing",
        f"{_decay(e)}; less than a thousandth of it gets further than {half} steps",
        f"If the data remember longer: a GRU or LSTM with chrono initialisation for {e.max_lag} "
        "steps, or orthogonal recurrent weights",
        _decay_evidence(e) | {"left": max(far) / max(v for _, v in known)},
    )


def _healthy(e: Evidence) -> Verdict:
    beyond = e.beyond
    cut = "" if beyond is None else f"; {_percent(beyond)} lies beyond the truncation in use"
    cut += "" if beyond is None else _diluted(e, beyond)
    return Verdict(
        "healthy",
        _decay(e) + cut,
        "Nothing needs to change",
        _decay_evidence(e) | ({} if beyond is None else {"beyond": beyond}),
    )


def _diluted(e: Evidence, beyond: float) -> str:
    """What segments leave out beside what lies beyond k2, where it is worth a word."""
    lost = e.lost
    if lost is None or lost - beyond < 0.01:
        return ""
    return f", and using {e.k1} losses at once leaves out {_percent(lost)} in all"


def _decay(e: Evidence) -> str:
    """How the gradient falls, and where it comes from."""
    rate, reach = e.rate(), e.reach()
    if rate < 0 and math.isfinite(rate):
        falls = f"the gradient falls by half every {_steps(math.log(2) / -rate)}"
    elif rate < 0:
        falls = "the gradient ends after one step"
    else:
        falls = "the gradient does not fall on its way back"
    comes = (
        f"more than 5 % of it lies beyond lag {e.max_lag}"
        if reach is None
        else f"95 % of it lies within lag {reach}"
    )
    return f"{falls}; {comes}"


def _decay_evidence(e: Evidence) -> dict[str, float]:
    rate, reach = e.rate(), e.reach()
    numbers = {"half_life": math.log(2) / -rate} if rate < 0 else {}
    return numbers | ({} if reach is None else {"reach": float(reach)})


def _steps(count: float) -> str:
    """Such as "3.1 steps", and "step" for one."""
    text = f"{count:.2g}" if count < 99.5 else f"{count:.0f}"
    return "step" if text == "1" else f"{text} steps"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else "100 %"
