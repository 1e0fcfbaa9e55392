"""Lyapunov exponents: how fast nearby states of a recurrent network part or meet."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from throughtime import state as states
from throughtime.errors import SettingError
from throughtime.gradflow._contract import Loss
from throughtime.gradflow._jacobian_products import Product, generator, stackable, to_vectors
from throughtime.gradflow._passes import states_at
from throughtime.gradflow._unrolled import floating
from throughtime.gradflow.batches import along_time
from throughtime.state import State

_SPREAD = math.log(1e6)  # of the lengths between two orthonormalisations
_LONGEST = 64  # steps between two of them
_BLOCKS = 10  # of time, whose scatter tells the error


@dataclass(frozen=True)
class Lyapunov:
    """The largest exponents of a network along its own states, per unit of time.

    Attributes:
        rows: of each row of the batch, sorted downwards, float64 ``[B, num]``.
        error: the standard error of `exponents`, from the scatter between ten blocks of time,
            ``[num]``; NaN where there are too few steps.
        steps: those that were counted.
    """

    rows: Tensor
    error: Tensor
    steps: int

    @property
    def exponents(self) -> Tensor:
        """``[num]``: the mean over rows."""
        return self.rows.mean(0)

    @property
    def largest(self) -> float:
        """The first; above zero, nearby states part exponentially: the network is chaotic."""
        return float(self.exponents[0])


def lyapunov(
    loss: Loss,
    batch: Any,
    state: State,
    num: int | None = None,
    dt: float = 1.0,
    warmup: int | None = None,
    seed: int = 0,
) -> Lyapunov:
    """The Lyapunov spectrum on the whole state (an LSTM's h and c, all layers) by QR.

    As Benettin et al. (1980), but with cotangents from the end to the beginning, whose lengths grow
    at the same rates (a matrix and its transpose have the same singular values): so backpropagation
    is all that is needed of the loss. They are made orthonormal before their lengths spread by 10⁶;
    the logarithms of the lengths add up. A row that a restart cuts off (its vectors become 0)
    begins anew there; one where nothing ever passes has -inf.

    Args:
        loss: ``loss(batch, state) -> (summed loss, state)``, without random numbers.
        batch: T steps, see `along_time`.
        state: before the first step.
        num: the number of exponents; None: all of them.
        dt: time per step; the result is per unit of it.
        warmup: steps at each end that are not counted; None: a tenth. At the beginning the state
            finds its attractor, at the end the vectors turn into place.
        seed: of the first vectors.

    Raises:
        SettingError: for a `num` that the state does not have, no steps to count, a loss that draws
            random numbers, and rows that depend on each other.
        NonFiniteError: naming the first step whose loss or state is infinite or NaN.
    """
    batch = along_time(batch)
    start, length = states.detach(state), len(batch)
    joined = stackable(loss, batch, start)
    count, size = to_vectors(floating(start)).shape
    num = size if num is None else num
    warmup = length // 10 if warmup is None else warmup
    if not 1 <= num <= size:
        raise SettingError(f"num must be in 1 … {size}, the size of the state; got {num}")
    if not 0 <= 2 * warmup < length:
        raise SettingError(f"warmup must leave some of the {length} steps; got {warmup} a side")
    ends = sorted({warmup, length - warmup, *range(warmup, length, _LONGEST), length})
    known = states_at(loss, batch, start, ends)
    basis = torch.randn(count, size, num, generator=generator(seed), dtype=torch.float64)
    basis = torch.linalg.qr(basis)[0].to(floating(start)[0].device)
    frame, pace, logs, lengths = basis, 1, [], []
    for begin, end in reversed(list(pairwise(ends))):
        cuts = [*range(begin, end, pace), end]
        inner = states_at(loss, batch, known[begin], cuts, first=begin)
        grown, pieces = [], list(pairwise(cuts))[::-1]
        for t0, t1 in pieces:
            product = Product(loss, [batch[t0:t1]] * num, [inner[t0]] * num, joined)
            frame, log = _back(product, frame, basis)
            grown.append(log)
        if end <= length - warmup:
            logs += grown
            lengths += [t1 - t0 for t0, t1 in pieces]
        pace = _pace(torch.stack(grown), pace)
    return _result(torch.stack(logs).cpu(), torch.tensor(lengths), dt)


def _back(product: Product, frame: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """The cotangents ``[B, size, num]`` some steps earlier, orthonormal, and by what they grew.

    The logarithms ``[B, num]`` are NaN for a row that a restart cuts off, which takes up `basis`.
    """
    flat = frame.permute(2, 0, 1).flatten(0, 1)
    moved = product.vjp(flat).unflatten(0, (frame.shape[2], -1)).permute(1, 2, 0).double()
    frame, triangle = torch.linalg.qr(moved)
    cut = (moved == 0).all(2).all(1)
    log = triangle.diagonal(dim1=1, dim2=2).abs().log()
    return (
        torch.where(cut[:, None, None], basis, frame),
        torch.where(cut[:, None], math.nan, log),
    )


def _pace(grown: Tensor, steps: int) -> int:
    """How many steps may follow each other until the lengths have spread by what is allowed.

    grown: logarithms over `steps` steps, ``[pieces, B, num]``.
    """
    finite = torch.where(torch.isfinite(grown), grown, 0.0)
    spread = max(float((finite.amax(2) - finite.amin(2)).max()), float(finite.abs().max())) / steps
    return max(1, min(_LONGEST, 2 * steps, int(_SPREAD / max(spread, 1e-9))))


def _result(logs: Tensor, lengths: Tensor, dt: float) -> Lyapunov:
    """logs: ``[pieces, B, num]``, NaN where a row was cut off; lengths: steps of each piece."""
    counted = torch.where(logs.isnan(), 0.0, lengths[:, None, None].double()).sum(0)
    rows = torch.where(counted > 0, logs.nansum(0) / counted.clamp(min=1) / dt, -math.inf)
    error = torch.full_like(rows[0], math.nan)
    if len(logs) >= 2 * _BLOCKS:
        time = (logs.nan_to_num(0.0), torch.where(logs.isnan(), 0.0, lengths[:, None, None]))
        sums, steps = (
            torch.stack([b.sum((0, 1)) for b in part.tensor_split(_BLOCKS)]) for part in time
        )
        error = (sums / steps / dt).std(0) / math.sqrt(_BLOCKS)
    order = rows.argsort(1, descending=True)
    return Lyapunov(rows.gather(1, order), error, int(lengths.sum()))
