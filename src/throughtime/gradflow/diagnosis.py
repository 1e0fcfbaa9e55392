"""What the numbers of a gradient mean, in words, and what to do about it."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
# Lags inside a window are learnt from all the same, with less weight; half is a lot of that.
DILUTED = 0.5
# Gradients of windows that agree by chance do so once in a hundred times.
CHANCE = 0.01

_CLOSED = ("tanh", "n", "g", "c")  # where to be saturated is never memory


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The numbers that a verdict is made of; lags 0 … K = max_lag.

    state_norm: the mean of ‖∂ℓ_t/∂S_{t-k}‖ by lag, NaN where it is not known. norms: ‖G_k‖ of all
    parameters jointly. rest: the norm of what is older than K. steps: of the batch. truncation: the
    steps a gradient may travel in training (k2); k1: the losses that are used at once there.
    lyapunov: the largest exponent per step.
    saturation: shares by gate, as `saturation` names them. state_growth: the mean growth of log‖S‖
    per step. signal: the probability that the gradients of windows of the batch would agree as
    much as they do if their signs were a matter of chance.
    """

    state_norm: list[float]
    norms: list[float]
    rest: float
    max_lag: int
    steps: int
    gradient_norm: float
    parameter_norm: float
    loss: float
    truncation: int | None = None
    k1: int = 1
    lyapunov: float | None = None
    saturation: dict[str, float] | None = None
    state_growth: float | None = None
    signal: float | None = None

    @property
    def whole(self) -> float:
        """The sum of the norms, older lags included."""
        return sum(self.norms) + self.rest

    def reach(self, share: float = 0.95) -> int | None:
        """The steps that `share` of the gradient comes from (1: lag 0 alone); None: over K + 1."""
        seen = 0.0
        for lag, norm in enumerate(self.norms):
            seen += norm
            if seen >= share * self.whole:
                return lag + 1
        return None

    def beyond(self, steps: int) -> float | None:
        """The share of the gradient that is cut off where it travels `steps` steps; None: > K."""
        if not self.whole:
            return 0.0
        if steps > self.max_lag + 1:
            return None if self.rest else 0.0
        return (sum(self.norms[steps:]) + self.rest) / self.whole

    def lost(self) -> float | None:
        """The share that training with windows (k1, k2) leaves out; None: not known, or not cut.

        Of the losses of a window only the last go back over all of it: a lag k counts for a share
        (k2 - k) / k1 of them, at most all.
        """
        if self.truncation is None or self.beyond(self.truncation) is None or not self.whole:
            return None
        weights = [(self.truncation - lag) / self.k1 for lag in range(len(self.norms))]
        kept = sum(n * max(0.0, min(1.0, w)) for n, w in zip(self.norms, weights, strict=True))
        return 1.0 - kept / self.whole

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
    """name: vanishing, exploding, saturated, chaotic, truncated too short, healthy or nothing to
    learn. sentence: what is the case, with its numbers. remedy: what to do. evidence: by name."""

    name: str
    sentence: str
    remedy: str
    evidence: dict[str, float]

    def __str__(self) -> str:
        return f"{self.name}: {self.sentence}. {self.remedy}."


def diagnose(evidence: Evidence) -> Verdict:
    """The first fault that the numbers show, of those that hide others first.

    A gradient that is not finite or grows (chaotic, exploding) tells nothing else; units that are
    saturated make any gradient vanish; one of pure noise has neither reach nor truncation; what is
    cut off is worth a word before what fades by itself.
    """
    for look in (_grows, _saturated, _nothing, _truncated, _vanishing):
        found = look(evidence)
        if found is not None:
            return found
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
    elif e.signal is not None and e.signal > CHANCE:
        why = (
            f"the gradients of different windows agree no better than chance (p = {e.signal:.2g}), "
            "at no lag: they are noise about a floor, with nothing more to be learnt"
        )
        evidence = {"signal": e.signal, "gradient_norm": e.gradient_norm}
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
    """What lies beyond is not seen at all; what windows dilute is, and is worse than half gone."""
    beyond = None if e.truncation is None else e.beyond(e.truncation)
    lost = e.lost()
    if beyond is None or lost is None or (beyond <= CUT and lost <= DILUTED):
        return None
    reach = e.reach()
    need = f"k2 = k1 + {reach}" if reach is not None else f"k2 above {e.max_lag + 1}"
    return Verdict(
        "truncated too short",
        f"training cuts the gradient after {e.truncation} steps, {_percent(beyond)} of it comes "
        f"from beyond{_diluted(e, beyond)}",
        f"Set {need} (95 % of the gradient), or let tt.bptt.Adaptive find and keep it",
        {"truncation": float(e.truncation or 0), "beyond": beyond}
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
    kept = None if e.truncation is None else e.beyond(e.truncation)
    cut = "" if kept is None else f"; {_percent(kept)} lies beyond the truncation in use"
    cut += "" if kept is None else _diluted(e, kept)
    return Verdict(
        "healthy",
        _decay(e) + cut,
        "Nothing needs to change",
        _decay_evidence(e) | ({} if kept is None else {"beyond": kept}),
    )


def _diluted(e: Evidence, beyond: float) -> str:
    """What the windows leave out beside what lies beyond them, where it is worth a word."""
    lost = e.lost()
    if lost is None or lost - beyond < 0.01:
        return ""
    return f", and its windows of {e.k1} losses leave out {_percent(lost)} in all"


def _decay(e: Evidence) -> str:
    """How the gradient falls, and where it comes from."""
    rate, reach = e.rate(), e.reach()
    if rate < 0 and math.isfinite(rate):
        falls = f"the gradient falls by half every {_steps(math.log(2) / -rate)}"
    elif rate < 0:
        falls = "the gradient ends after one step"
    else:
        falls = "the gradient does not fall on its way back"
    last = "step" if reach == 1 else f"{reach} steps"
    comes = (
        f"more than 5 % of it is older than {e.max_lag} steps"
        if reach is None
        else f"95 % of it comes from the last {last}"
    )
    return f"{falls}; {comes}"


def _decay_evidence(e: Evidence) -> dict[str, float]:
    rate, reach = e.rate(), e.reach()
    found = {"half_life": math.log(2) / -rate} if rate < 0 else {}
    return found | ({} if reach is None else {"reach": float(reach)})


def _steps(count: float) -> str:
    """Such as "3.1 steps", and "step" for one."""
    text = f"{count:.2g}" if count < 99.5 else f"{count:.0f}"
    return "step" if text == "1" else f"{text} steps"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.995 else "100 %"
