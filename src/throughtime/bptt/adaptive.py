"""Truncation whose bias is controlled: k2 follows the measured decay of the gradient."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from throughtime.bptt.base import Estimate, GradientMethod, Position, settings_text
from throughtime.bptt.truncated import Truncated
from throughtime.errors import NonFiniteError, SettingError
from throughtime.gradflow import Ledger, Loss, Timed, along_time, ledger, parameters
from throughtime.gradflow.batches import Segment
from throughtime.state import State

_FIRST, _MOST = 16, 256  # lags that are measured at first, and at most where max_lag is None
_SHORTEST = 16  # k1, at least
_FARTHEST = 16  # times the most lags that are measured: no K is longer
_SAMPLE = 4  # steps of a sample for each lag that is measured


@dataclass(frozen=True)
class Adaptive(GradientMethod):
    """Truncated backpropagation that reaches as far as the gradient does (Aicher, Foti & Fox 2019).

    A lag ledger of the next steps gives ‖G_k‖, what each lag contributes. K is the smallest lag
    with ``Σ_{k>K} ‖G_k‖ ≤ bias · ‖G‖``, which bounds the relative bias of a gradient that reaches K
    lags; where more lags count than were measured, the tail goes on geometrically at the rate of
    the last ones. K is at most 16 times what is measured: a gradient that has not decayed by then
    is cut there. Unlike theirs, losses stand at every step, T is any, and the bound is on the
    gradient of the weights, not of one state.
    Then ``Truncated(k1, k1 + K)`` with k1 = max(K, 16) is used, all of whose losses reach K back;
    at most two forward and backward passes. A K that grew is in force from the update after next.
    The present estimate is in `Position.estimate`; a gradient that is not finite leaves it as it
    was. Sampling leaves torch's global generator alone; where the loss is a method of a module, the
    module's dropout is off meanwhile.

    Args:
        bias: the relative bias that is allowed.
        max_lag: the most lags measured; None: 256.
        every: updates between two estimates. In between the bound is that of the last one, so
            weights that change fast want a small number.

    Raises:
        SettingError: for a bias that is not positive, max_lag < 1 or every < 1.
    """

    bias: float = 0.05
    max_lag: int | None = None
    every: int = 200

    def __post_init__(self) -> None:
        if not 0 < self.bias < math.inf:
            raise SettingError(f"bias={self.bias}: a positive number, for example 0.05")
        if self.max_lag is not None and self.max_lag < 1:
            raise SettingError(f"max_lag={self.max_lag}: at least 1 lag is needed")
        if self.every < 1:
            raise SettingError(f"every={self.every}: at least 1 update lies between estimates")

    def _advance(self, loss: Loss, batch: Timed, at: Position) -> tuple[Tensor, Position]:
        estimate = at.estimate
        if estimate is None or estimate.updates >= self.every:
            estimate = self._renew(loss, batch, at)
        value, after = truncation(estimate).advance(loss, batch, at)
        used = dataclasses.replace(estimate, updates=estimate.updates + 1)
        return value, dataclasses.replace(after, estimate=used)

    def __str__(self) -> str:
        return "adaptive" if self == Adaptive() else settings_text(self, "bias")

    def truncation(self, loss: Loss, batch: Any, state: State) -> Truncated:
        """What it would choose at the beginning of a batch; arguments as in `backward`."""
        return truncation(self.estimate(loss, batch, Position.start(state)))

    def _renew(self, loss: Loss, batch: Timed, at: Position) -> Estimate:
        """A new estimate; the old one where too few steps are left or nothing is finite."""
        left, old = len(batch) - at.target, at.estimate
        if old is not None and left < min(len(batch), _SAMPLE * max(_FIRST, old.lag)):
            return old
        try:
            return self.estimate(loss, batch, at)
        except NonFiniteError:
            return Estimate(0, math.inf, self.every) if old is None else old

    def estimate(self, loss: Loss, batch: Any, at: Position) -> Estimate:
        """K and the rate of decay, from a ledger of the steps from `at` on.

        As many lags are measured as it takes to see the tail, twice as many each time; and over
        as many steps as it takes to find a loss that says anything, where losses are rare.

        Args:
            loss, batch: as in `backward`.
            at: where the steps begin.
        """
        with _without_dropout(loss):
            return self._measure(loss, along_time(batch), at)

    def _measure(self, loss: Loss, batch: Timed, at: Position) -> Estimate:
        left = len(batch) - at.target
        most = min(_MOST if self.max_lag is None else self.max_lag, left - 1)
        lags, size = min(_FIRST, most), 0
        while True:
            size = min(left, max(size, _SAMPLE * max(lags, _FIRST)))
            sample = Segment(batch, at.target, at.target + size)
            book = ledger(loss, sample, at.state, parameters(loss, sample, at.state), lags)
            if not book.total() and size < left:
                size *= 2
                continue
            longest = min(len(batch), _FARTHEST * max(most, 1) + 1)
            lag, rate = sufficient_lag(book, self.bias, longest)
            if lag <= 3 * lags // 4 or lags == most:
                return Estimate(lag, rate)
            lags = min(2 * lags, most)


@contextmanager
def _without_dropout(loss: Loss) -> Iterator[None]:
    """Within, the module that the loss is a method of, if any, is in evaluation mode.

    The decay hardly depends on dropout, and steps that draw nothing can be folded.
    """
    owner = getattr(loss, "__self__", None)
    changed = [m for m in owner.modules() if m.training] if isinstance(owner, nn.Module) else []
    for module in changed:
        module.training = False
    try:
        yield
    finally:
        for module in changed:
            module.training = True


def truncation(estimate: Estimate) -> Truncated:
    """The truncation whose losses all reach `estimate.lag` steps back."""
    k1 = max(estimate.lag, _SHORTEST)
    return Truncated(k1, k1 + estimate.lag)


def sufficient_lag(book: Ledger, bias: float, length: int) -> tuple[int, float]:
    """The smallest lag whose tail is within the bias, and the rate at which the norms decay.

    length: of the batch, beyond which no lag is. The tails are sums of norms: no cancelling is
    relied upon. A lag k has steps - k losses in the sample; it counts as if it had them all.
    """
    known = book.norms[: book.steps]
    losses = book.steps - torch.arange(len(known), dtype=torch.float64)
    norms = known * (book.steps / losses)
    last, quarter = len(norms) - 1, max(1, len(norms) // 4)
    allowed = bias * book.total()
    recent, earlier = norms[-quarter:], norms[-2 * quarter : -quarter]
    if not float(recent.sum()) or last >= length - 1:
        rate, older = 0.0, 0.0  # nothing is older
    else:
        rate = float(recent.sum() / earlier.sum()) ** (1 / quarter)
        older = math.inf if rate >= 1 else float(recent.max()) * rate / (1 - rate)
    tails = older + torch.cat([norms.flip(0).cumsum(0).flip(0)[1:], norms.new_zeros(1)])
    within = (tails <= allowed).nonzero()
    if len(within):
        return int(within[0]), rate
    if rate >= 1 or not allowed:
        return length - 1, rate
    if not rate:
        return last, rate
    return min(length - 1, last + math.ceil(math.log(allowed / older, rate))), rate
