"""What a comparison says, in a sentence or two."""

from __future__ import annotations

import math

from throughtime.evaluation.results import Comparison, Comparisons, Risk
from throughtime.wording import estimate, fixed

CONSTANT = ("constant", "unigram")  # names of references that are the plain constant


def verdict(best: str, step: str, comparisons: Comparisons, risk: Risk | None = None) -> str:
    """Whether the past matters, whether a finite order is enough, and tomorrow's risk.

    A difference counts only if its 95 % interval excludes zero.

    Args:
        best: the model chosen by validation.
        step: what one step of the data is called.
        comparisons: of the models, as `comparison.compare` gives them.
        risk: of the next value, where there is one.
    """
    past, baseline = comparisons.past, comparisons.baseline
    unit = f"nats per {step}"
    if past is None or past.value is None:
        sentence = f"The best by validation is {best}"
        if past is not None:
            sentence += "; the test data do not allow a comparison"
    else:
        sentence = _past(past, unit)
        if past.side == "better" and comparisons.latent is not None:
            sentence += _latent(comparisons.latent, unit)
    if baseline is not None and baseline.side == "better":
        sentence += f"; the baseline {baseline.model} is better than {baseline.against} by "
        sentence += _amount(baseline, unit)
    return sentence + "." + (f" {_risk(risk, step)}" if risk is not None else "")


def _past(past: Comparison, unit: str) -> str:
    model, against = past.model, past.against
    if past.side == "better":
        return f"The past matters: {model} gains {_amount(past, unit)} over {against}"
    name = "A constant" if against in CONSTANT else against[:1].upper() + against[1:]
    if past.side == "worse":
        return f"{name} is better: {model} loses {_amount(past, unit)} to it"
    if past.interval is None:
        assert past.value is not None
        return (
            f"The test data are too few to tell: {model} differs from {against} "
            f"by {fixed(-past.value, 3, sign=True)} {unit}"
        )
    return f"{name} is as good: {model} differs from it by {_gain(past, unit)}"


def _latent(latent: Comparison, unit: str) -> str:
    model, against = latent.model, latent.against
    if latent.side == "better":
        return (
            f"; a finite order is not enough: the latent state of {model} adds "
            f"{_amount(latent, unit)} over {against}"
        )
    if latent.passes is not None and latent.passes < 1:
        return (
            f"; whether a latent state adds to {against} is open: {model} was trained on "
            f"{100 * latent.passes:.0f} % of the training data only; give it more time"
        )
    if latent.side == "worse":
        return (
            f"; a finite order is enough: {against} beats the latent state of {model} by "
            f"{_amount(latent, unit)}"
        )
    if latent.value is None:
        return ""
    if latent.interval is None:
        return f"; whether a latent state adds to {against} these test data are too few to tell"
    return (
        f"; a finite order is as good: the latent state of {model} differs from {against} by "
        f"{_gain(latent, unit)}"
    )


def _risk(risk: Risk, step: str) -> str:
    """The low quantile of the next value, as a loss where values are prices."""
    share, value, last = risk.level, risk.value, risk.last
    odds = "One" if math.isclose(share, 0.01) else f"{100 * share:g}"
    if value > 0 and last > 0 and value < last:
        return f"{odds} {step} in a hundred falls by more than {100 * (1 - value / last):.1f} %."
    return f"The next {step} lies below {value:.4g} with a probability of {100 * share:g} %."


def _amount(comparison: Comparison, unit: str) -> str:
    """The size of a clear difference, its interval on the same side of zero."""
    assert comparison.value is not None
    assert comparison.interval is not None
    low, high = sorted(map(abs, comparison.interval))
    return estimate(abs(comparison.value), (low, high), unit)


def _gain(comparison: Comparison, unit: str) -> str:
    """The difference with its sign, positive where the model gains."""
    assert comparison.value is not None
    assert comparison.interval is not None
    low, high = comparison.interval
    return estimate(-comparison.value, (-high, -low), unit, sign=True)
