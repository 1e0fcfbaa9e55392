"""What a comparison says, in a sentence or two."""

from __future__ import annotations

import math
from typing import Any

MEMORYLESS = ("constant", "unigram")  # names of references that are the plain constant


def verdict(scores: dict[str, Any]) -> str:
    """Whether the past matters, whether a finite window is enough, and tomorrow's risk.

    scores: as `table` gives them ("step", "best", "comparisons"), with "risk" as `next_risk`
    gives it, or None. A difference counts only if its 95 % interval excludes zero.
    """
    step = scores["step"]
    found = scores["comparisons"]
    past = found["past"]
    if past is None or past["value"] is None:
        sentence = f"The best by validation is {scores['best']}"
        if past is not None:
            sentence += "; the test data do not allow a comparison"
    else:
        sentence = _past(past, step)
        if _side(past) == "better" and found["latent"] is not None:
            sentence += _latent(found["latent"], step)
    if found["peer"] is not None and _side(found["peer"]) == "better":
        peer = found["peer"]
        sentence += f"; the peer {peer['model']} is better than {peer['against']} by "
        sentence += _amount(peer, step)
    risk = scores.get("risk")
    return sentence + "." + (f" {_risk(risk, step)}" if risk is not None else "")


def _side(comparison: dict[str, Any]) -> str:
    interval = comparison["interval"]
    if interval is None:
        return "open"
    low, high = interval
    return "better" if high < 0 else "worse" if low > 0 else "open"


def _past(past: dict[str, Any], step: str) -> str:
    model, against = past["model"], past["against"]
    side = _side(past)
    if side == "better":
        return f"The past matters: {model} gains {_amount(past, step)} over {against}"
    name = "A constant" if against in MEMORYLESS else _upper(against)
    if side == "worse":
        return f"{name} is better: {model} loses {_amount(past, step)} to it"
    if past["interval"] is None:
        return (
            f"The test data are too few to tell: {model} differs from {against} "
            f"by {_signed(past, step)}"
        )
    return f"{name} is as good: {model} differs from it by {_signed(past, step)}"


def _latent(latent: dict[str, Any], step: str) -> str:
    model, against = latent["model"], latent["against"]
    side = _side(latent)
    if side == "better":
        return (
            f"; a finite window is not enough: the latent state of {model} adds "
            f"{_amount(latent, step)} over {against}"
        )
    passes = latent.get("passes")
    if passes is not None and passes < 1:
        return (
            f"; whether a latent state adds to {against} is open: {model} was trained on "
            f"{100 * passes:.0f} % of the training data only; give it more time"
        )
    if side == "worse":
        return (
            f"; a finite window is enough: {against} beats the latent state of {model} by "
            f"{_amount(latent, step)}"
        )
    if latent["value"] is None:
        return ""
    if latent["interval"] is None:
        return f"; whether a latent state adds to {against} these test data are too few to tell"
    return (
        f"; a finite window is as good: the latent state of {model} differs from {against} by "
        f"{_signed(latent, step)}"
    )


def _risk(risk: dict[str, Any], step: str) -> str:
    """The low quantile of the next value, as a loss where values are prices."""
    share, value, last = risk["level"], risk["value"], risk["last"]
    odds = "One" if math.isclose(share, 0.01) else f"{100 * share:g}"
    if value > 0 and last > 0 and value < last:
        return f"{odds} {step} in a hundred falls by more than {100 * (1 - value / last):.1f} %."
    return f"The next {step} lies below {value:.4g} with a probability of {100 * share:g} %."


def _upper(name: str) -> str:
    return name[:1].upper() + name[1:]


def _amount(comparison: dict[str, Any], step: str) -> str:
    """The size of a clear difference, its interval on the same side of zero."""
    low, high = sorted(abs(end) for end in comparison["interval"])
    places = _places(low, high)
    value = abs(comparison["value"])
    return (
        f"{value:.{places}f} nats per {step} (95 % interval {low:.{places}f} to {high:.{places}f})"
    )


def _signed(comparison: dict[str, Any], step: str) -> str:
    """The difference with its sign, positive where the model gains."""
    gain, interval = -comparison["value"], comparison["interval"]
    if interval is None:
        return f"{_sign(gain, 3)} nats per {step}"
    low, high = -interval[1], -interval[0]
    places = _places(low, high)
    return (
        f"{_sign(gain, places)} nats per {step} "
        f"(95 % interval {_sign(low, places)} to {_sign(high, places)})"
    )


def _sign(value: float, places: int) -> str:
    text = f"{value:+.{places}f}"
    return text[1:] if float(text) == 0 else text.replace("-", "−")


def _places(low: float, high: float) -> int:
    """Decimals that show two digits of the interval's width, between 3 and 6."""
    width = high - low
    return min(6, max(3, 1 - math.floor(math.log10(width)))) if width > 0 else 3
