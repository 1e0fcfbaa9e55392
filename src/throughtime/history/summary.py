"""What a certificate says, in one paragraph."""

from __future__ import annotations

from typing import TYPE_CHECKING

from throughtime.history.latent_gain import LatentGain
from throughtime.history.recommendation import Recommendation
from throughtime.wording import estimate, fixed

if TYPE_CHECKING:
    from throughtime.history.certificate import Certificate, Lags

HALF = 0.5  # of the training of a network, with less of which it says nothing


def verdict(certificate: Certificate) -> str:
    """The four answers for people."""
    order, step, unit = certificate.order_matters, certificate.step, f"nats per {certificate.step}"
    view = f", seen as {certificate.seen_as}" if certificate.seen_as else ""
    if not order:
        sentences = [
            f"Order does not matter in these data{view}: the past of {_a(step)} says nothing "
            f"about it (p = {order.p_value:.2g}; a model that looks at it gains "
            f"{estimate(order.gain, order.interval, unit, sign=True)}). A constant distribution is "
            "all there is to learn; a recurrent model would only fit noise."
        ]
    else:
        sentences = [
            f"Order matters{view}: the past of {_a(step)} is worth "
            f"{estimate(order.gain, order.interval, unit)}, and over a shuffled past "
            f"{fixed(order.over_shuffled, 3)} (p = {order.p_value:.2g}).",
            _lags(certificate.lags, step, certificate.recommendation),
            _latent(certificate.latent_gain, unit),
            _settings(certificate.recommendation, certificate.latent_gain, step),
        ]
    if (network := certificate.network) is not None:
        sentences.append(
            f"The network {network.model} beats the finite order; its state makes use of "
            f"{network.needed} {step}s of the past."
        )
    return " ".join(sentences)


def _lags(lags: Lags, step: str, advice: Recommendation) -> str:
    first = lags.curve[0].nats
    best = min(point.nats for point in lags.curve)
    at = next(point.nats for point in lags.curve if point.lags == lags.needed)
    share = 100 * (first - at) / (first - best) if first > best else 100.0
    carried = f"{min(share, 100):.0f} % of what the past is worth"
    measured = f"(measured with {_a(lags.model)})"
    if lags.needed == 0:
        return f"No lags make use of it beyond their error {measured}."
    if advice.far and lags.needed == advice.order:
        near = f"the last {advice.dense} and " if advice.dense else ""
        far = ", ".join(map(str, advice.far))
        return (
            f"A finite order must go {lags.needed} {step}s back; {near}"
            f"lag{'s' * (len(advice.far) > 1)} {far} "
            f"{'carries' if len(advice.far) == 1 and not near else 'carry'} {carried} {measured}."
        )
    number = "One lag carries" if lags.needed == 1 else f"{lags.needed} lags carry"
    return f"{number} {carried} {measured}."


def _latent(latent: LatentGain, unit: str) -> str:
    amount = estimate(latent.nats, latent.interval, unit, sign=True)
    if latent.wins:
        return (
            f"A finite order is not enough: the latent state of {_a(latent.model)} adds {amount} "
            f"to the best one, the {latent.against}."
        )
    if not latent.tried:
        return "Whether a latent state adds to that is for networks to show."
    if not latent.trained:
        return (
            "Whether a latent state adds to that is for networks to show: that of "
            f"{_a(latent.model)} differs from the {latent.against} by {amount}."
        )
    if latent.trained < HALF:
        return (
            f"Whether a latent state adds to that is open: there was time for "
            f"{100 * latent.trained:.0f} % of the network's training, and so far "
            f"{_a(latent.model)} differs from the {latent.against} by {amount}; give it more time."
        )
    if latent.interval is not None and latent.interval[1] < 0:
        low, high = latent.interval
        lead = estimate(-latent.nats, (-high, -low), unit, sign=True)
        return (
            f"A finite order is enough: the {latent.against} is better than the latent state of "
            f"{_a(latent.model)} by {lead}."
        )
    return (
        f"A finite order is enough: the latent state of {_a(latent.model)} differs from the "
        f"{latent.against} by {amount}, nothing that pays."
    )


def _settings(advice: Recommendation, latent: LatentGain, step: str) -> str:
    if advice.beyond_default:
        return (
            f"The memory of {advice.warmup} {step}s is longer than the default truncation of "
            f"{advice.default_k2}: train with --bptt {advice.bptt}, or nothing that old "
            f"reaches the weights; warm up for {advice.warmup} {step}s before use."
        )
    if latent.wins:
        return (
            f"Train with --bptt {advice.bptt} and warm up for {advice.warmup} {step}s before use."
        )
    network = f"for a network, --bptt {advice.bptt}"
    if not latent.trained:
        return f"A finite order needs --order {advice.dense}; {network}."
    if advice.far:
        return f"Not every lag up to that pays; {network}."
    return f"Use --model ar --order {advice.order}; {network}."


def _a(name: str) -> str:
    """With an article."""
    return f"{'an' if name[0] in 'aeio' or name.startswith(('n-', 'hour')) else 'a'} {name}"
