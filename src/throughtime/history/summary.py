"""What a certificate says, in one paragraph."""

from __future__ import annotations

import math

from throughtime.history.lag_selection import Point
from throughtime.history.latent_gain import LatentGain
from throughtime.history.permutation_test import OrderMatters
from throughtime.history.recommendation import Settings

HALF = 0.5  # of the training of a network, with less of which it says nothing


def verdict(
    step: str, order: OrderMatters, lags: int, curve: tuple[Point, ...], model: str,
    latent: LatentGain, settings: Settings, shown: str,
) -> str:  # fmt: skip
    """The four answers for people. step: what a step is called; shown: how the data are viewed."""
    if not order:
        return (
            f"Order does not matter in these data{shown}: the past of {_a(step)} says nothing "
            f"about it (p = {order.p_value:.2g}; a distribution that looks at it gains "
            f"{_signed(order.gain, order.interval, step)}). A constant distribution is all there "
            "is to learn; a recurrent model would only fit noise."
        )
    sentences = [
        f"Order matters{shown}: the past of {_a(step)} is worth "
        f"{_amount(order.gain, order.interval, step)}, and over a shuffled past "
        f"{order.over_shuffled:.3f} (p = {order.p_value:.2g}).",
        _lags(lags, curve, model, step, settings),
        _latent(latent, step),
        _settings(settings, latent, step),
    ]
    return " ".join(sentences)


def _lags(lags: int, curve: tuple[Point, ...], model: str, step: str, settings: Settings) -> str:
    first = curve[0].nats
    best = min(point.nats for point in curve)
    at = next(point.nats for point in curve if point.lags == lags)
    share = 100 * (first - at) / (first - best) if first > best else 100.0
    carried = f"{min(share, 100):.0f} % of what the past is worth"
    if lags == 0:
        return f"No window of lags makes use of it beyond its error (measured with {_a(model)})."
    if settings.far and lags == settings.order:
        near = f"the last {settings.dense} and " if settings.dense else ""
        far = ", ".join(map(str, settings.far))
        return (
            f"A window must reach {lags} {step}s back; {near}lag{'s' * (len(settings.far) > 1)} "
            f"{far} {'carries' if len(settings.far) == 1 and not near else 'carry'} {carried} "
            f"(measured with {_a(model)})."
        )
    many = "One lag carries" if lags == 1 else f"{lags} lags carry"
    return f"{many} {carried} (measured with {_a(model)})."


def _latent(latent: LatentGain, step: str) -> str:
    amount = _signed(latent.nats, latent.interval, step)
    if latent.wins:
        return (
            f"A finite window is not enough: the latent state of {_a(latent.model)} adds {amount} "
            f"to the best window, the {latent.against}."
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
        return (
            f"A finite window is enough: the {latent.against} is better than the latent state of "
            f"{_a(latent.model)} by {_signed(-latent.nats, _turned(latent.interval), step)}."
        )
    return (
        f"A finite window is enough: the latent state of {_a(latent.model)} differs from the "
        f"{latent.against} by {amount}, nothing that pays."
    )


def _settings(settings: Settings, latent: LatentGain, step: str) -> str:
    if settings.beyond_default:
        return (
            f"The memory of {settings.warmup} {step}s is longer than the default truncation of "
            f"{settings.default_reach}: train with --bptt {settings.bptt}, or nothing that old "
            f"reaches the weights; warm up for {settings.warmup} {step}s before use."
        )
    if latent.wins:
        return (
            f"Train with --bptt {settings.bptt} and warm up for {settings.warmup} {step}s before "
            "use."
        )
    network = f"for a network, --bptt {settings.bptt}"
    if not latent.trained:
        return f"A window needs --order {settings.dense}; {network}."
    if settings.far:
        return f"No dense window of that length pays; {network}."
    return f"Use --model ar --order {settings.order}; {network}."


def _a(name: str) -> str:
    """With an article."""
    return f"{'an' if name[0] in 'aeio' or name.startswith(('n-', 'hour')) else 'a'} {name}"


def _turned(interval: tuple[float, float]) -> tuple[float, float]:
    return -interval[1], -interval[0]


def _amount(value: float, interval: tuple[float, float] | None, step: str) -> str:
    if interval is None:
        return f"{value:.3f} nats per {step}, too few data for an interval"
    places = _places(interval)
    low, high = interval
    return (
        f"{value:.{places}f} nats per {step} (95 % interval {low:.{places}f} to {high:.{places}f})"
    )


def _signed(value: float, interval: tuple[float, float] | None, step: str) -> str:
    if interval is None:
        return f"{value:+.3f} nats per {step} (too few data for an interval)"
    places = _places(interval)
    low, high = interval
    return (
        f"{value:+.{places}f} nats per {step} "
        f"(95 % interval {low:+.{places}f} to {high:+.{places}f})"
    )


def _places(interval: tuple[float, float]) -> int:
    width = interval[1] - interval[0]
    return min(6, max(3, 1 - math.floor(math.log10(width)))) if width > 0 else 3
