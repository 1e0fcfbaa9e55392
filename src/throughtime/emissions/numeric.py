"""Constraint maps, and numerics that torch lacks: inverse cdfs, CRPS integrals, constant fits."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

LIMIT = 1e10  # raw numbers are cut off here, so that float32 squares and ratios stay finite
FIT_ROWS = 5_000  # a constant model needs no more values than this
EXACT_WIDTH = 1_000  # sums over more counts than this are integrated

Cdf = Callable[[Tensor], Tensor]


class Likelihood(Protocol):
    """Anything that gives the log-likelihood of values [N, D]."""

    def log_prob(self, x: Tensor) -> Tensor: ...


# Constraint maps. Every real number is allowed and gradients stay finite.


def limited(raw: Tensor) -> Tensor:
    """The raw number itself, within ±1e10."""
    return raw.clamp(-LIMIT, LIMIT)


def positive(raw: Tensor, floor: float) -> Tensor:
    """A scale: softplus above a floor. Small scales move by factors, large ones by steps."""
    return floor + functional.softplus(limited(raw))


def positive_raw(value: Tensor, floor: float) -> Tensor:
    """The inverse of `positive`; values at or below the floor come out just above it."""
    excess = (value - floor).clamp_min(1e-3 * floor)
    return excess + torch.log(-torch.expm1(-excess))


def exponential(raw: Tensor, bound: float) -> Tensor:
    """exp(raw), smoothly kept within e^±bound."""
    return torch.exp(bound * torch.tanh(raw / bound))


def exponential_raw(value: Tensor, bound: float) -> Tensor:
    """The inverse of `exponential`; values outside the range come out near its end."""
    return bound * torch.atanh((torch.log(value) / bound).clamp(-0.999, 0.999))


# Special functions and inverse cdfs


def special(name: str, *arguments: Tensor) -> Tensor:
    """The function `name` of scipy.special on each element, without gradient."""
    import scipy.special  # on first use: SciPy is slow to import

    arrays = [argument.detach().cpu().numpy() for argument in arguments]
    return torch.as_tensor(getattr(scipy.special, name)(*arrays)).to(arguments[0].device)


def log_gamma_ratio(a: Tensor, b: Tensor | float) -> Tensor:
    """log Γ(a + b) - log Γ(a), in float64 because the two nearly cancel; in the dtype of a."""
    exact = a.double()
    return (torch.lgamma(exact + b) - torch.lgamma(exact)).to(a.dtype)


def bisect(cdf: Cdf, q: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The x between low and high with cdf(x) = q, to the last bits of the bracket."""
    for _ in range(64):  # a fixed number: no row depends on the others
        middle = (low + high) / 2
        below = cdf(middle) < q
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return (low + high) / 2


def bisect_integer(cdf: Cdf, q: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The smallest whole number k in [low, high] with cdf(k) >= q; cdf(high) >= q must hold."""
    while bool((low < high).any()):
        middle = torch.floor((low + high) / 2)
        below = cdf(middle) < q
        low, high = torch.where(below, middle + 1, low), torch.where(below, high, middle)
    return high


# Scores

_HALF = [1e-9, 1e-7, 1e-5, 1e-3, 0.02, 0.1, 0.3]
_LEVELS = [*_HALF, 0.5, *(1 - p for p in _HALF[::-1])]


def crps_continuous(cdf: Cdf, icdf: Cdf, x: Tensor) -> Tensor:
    """CRPS, to about six digits, by Gauss-Legendre quadrature between quantiles and x.

    Between neighbouring quantiles the cdf changes little, however spiky or heavy-tailed the
    distribution.
    """
    cuts = _cuts(icdf, x)
    x = x.expand(cuts.shape[1:])
    nodes, weights = _gauss_legendre(16, x)
    total = torch.zeros_like(x)
    for left, right in pairwise(cuts):  # one at a time: bounded memory
        y = left + (right - left) * nodes
        total += (right - left) * (weights * (cdf(y) - (y >= x).double()) ** 2).sum(0)
    return total


def _cuts(icdf: Cdf, x: Tensor) -> Tensor:
    """Quantiles at _LEVELS and x itself, in order: [16, …]."""
    levels = torch.tensor(_LEVELS, dtype=x.dtype, device=x.device)
    cuts = icdf(levels.reshape(-1, *[1] * x.dim()))
    return torch.cat([cuts, x.expand(cuts.shape[1:])[None]]).sort(0).values


def _gauss_legendre(count: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """Nodes and weights on [0, 1], each [count, 1, …] to broadcast against x."""
    import numpy as np

    pair = np.polynomial.legendre.leggauss(count)
    nodes, weights = (torch.as_tensor(part).to(x).reshape(-1, *[1] * x.dim()) for part in pair)
    return (nodes + 1) / 2, weights / 2


def crps_count(cdf: Cdf, icdf: Cdf, x: Tensor) -> Tensor:
    """CRPS of a distribution on 0, 1, 2, …: the sum of (cdf(k) - [x <= k])^2 over k.

    Exact to 1e-9 of the mass; to about five digits where counts reach over EXACT_WIDTH numbers.
    """
    cuts = _cuts(icdf, x)
    x = x.expand(cuts.shape[1:])
    width = int((cuts[-1] - cuts[0]).nan_to_num().max()) + 1
    if width > EXACT_WIDTH:
        return _crps_wide_count(cdf, cuts, x)
    total = torch.where(x.isnan(), x, 0)
    block = max(1, 2**20 // max(1, x.numel()))
    for start in range(0, width, block):
        offsets = torch.arange(start, min(start + block, width), dtype=x.dtype, device=x.device)
        k = cuts[0] + offsets.reshape(-1, *[1] * x.dim())
        total += ((cdf(k) - (x <= k).double()) ** 2).sum(0)
    return total


def _crps_wide_count(cdf: Cdf, cuts: Tensor, x: Tensor) -> Tensor:
    """The sum between cuts as an integral of the cdf made piecewise linear, plus its ends."""
    nodes, weights = _gauss_legendre(16, x)
    total = torch.where(x.isnan(), x, 0)
    for left, right in pairwise(cuts):
        step = (left >= x).double()  # of all k from left to right - 1
        y = left + (right - left) * nodes
        whole = y.floor()
        first, second = (cdf(whole) - step) ** 2, (cdf(whole + 1) - step) ** 2
        between = first + (second - first) * (y - whole)
        ends = (cdf(left) - step) ** 2 - (cdf(right) - step) ** 2  # the trapezoid rule's halves
        total += (right - left) * (weights * between).sum(0) + 0.5 * ends
    return total


# Constant fits


def maximise(distribution: Callable[[Tensor], Likelihood], values: Tensor, start: Tensor) -> Tensor:
    """The raw parameters, near `start`, that make the standardised `values` [N, D] likeliest.

    Two more values, -1 and 1, keep the scale of a handful of values away from zero.
    """
    values = some_rows(values)
    anchors = torch.ones(2, values.shape[-1], dtype=values.dtype)
    anchors[0] = -1
    values = torch.cat([values, anchors])
    return climb(lambda raw: distribution(raw).log_prob(values).mean(), start)


def climb(objective: Callable[[Tensor], Tensor], start: Tensor) -> Tensor:
    """The point near `start` at which `objective` is greatest, by L-BFGS."""
    import numpy as np
    from scipy.optimize import minimize

    def negative(point: np.ndarray) -> tuple[float, np.ndarray]:
        raw = torch.tensor(point, requires_grad=True)
        value = -objective(raw)
        (gradient,) = torch.autograd.grad(value, raw)
        return value.item(), gradient.numpy()

    with torch.enable_grad():
        options = {"maxiter": 200, "ftol": 1e-7}  # nats, relative: far below sampling error
        result = minimize(negative, start.numpy(), jac=True, method="L-BFGS-B", options=options)
    return torch.as_tensor(result.x)


def some_rows(values: Tensor) -> Tensor:
    """At most FIT_ROWS rows with anything observed, chosen evenly and always alike."""
    values = values[~values.isnan().all(-1)]
    if len(values) <= FIT_ROWS:
        return values
    generator = torch.Generator().manual_seed(0)
    return values[torch.randperm(len(values), generator=generator)[:FIT_ROWS]]


def nanquantile(values: Tensor, q: float) -> Tensor:
    """The quantile of each column [D] of values [N, D], of any N (torch stops at 2^24)."""
    import numpy as np

    return torch.as_tensor(np.nanquantile(values.numpy(), q, axis=0))


def nanstd(values: Tensor) -> Tensor:
    """The standard deviation (divided by N) of each column [D] of values [N, D]."""
    return ((values - values.nanmean(0)) ** 2).nanmean(0).sqrt()
