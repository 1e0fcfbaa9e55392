"""Truncation at random, made up for: an unbiased gradient at the price of truncation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from throughtime import state as states
from throughtime.bptt.base import (
    GradientMethod,
    Position,
    differentiate,
    settings_text,
    whole_number,
)
from throughtime.errors import SettingError
from throughtime.gradflow import Loss, Timed
from throughtime.state import State


@dataclass(frozen=True)
class Randomized(GradientMethod):
    """Unbiased truncation (ARTBP; Tallec & Ollivier 2017, arXiv 1705.08209).

    The batch is cut into segments of random length, with an update after each. l candidate steps
    after the last cut, the next one comes with chance ``c_l = α / ((α - 1) L + l)``; a gradient
    that crosses the place where a cut could have been is multiplied by ``1 / (1 - c_l)``. So the
    gradient of every lag is right on average, and by summation the whole: the mean over the cuts
    is the exact gradient, for any parameters that stay fixed. Its variance grows with the lags
    that matter: a gradient over l steps is multiplied by up to the order of ``(l / L)^α``.

    Args:
        mean_lag: the mean length of a segment in steps, exactly: with ``m = (α - 1) L``, Gauss's
            sum of ``P(length > l) = ∏_{j≤l} (m + j - α) / (m + j)`` over l is ``m / (α - 1) = L``.
            Here L counts candidates, ``mean_lag / every``.
        every: a cut is considered only at every so many steps; one call of the loss covers as many.
        generator: draws the cuts; torch's global one when None (which training saves and restores).
        alpha: how fast long segments become rare, ``P(length > l) ~ l^-α``; above 2 the spread of
            the lengths is finite.

    Raises:
        SettingError: unless 1 <= every <= mean_lag < ∞ and alpha > 1.
    """

    mean_lag: float
    every: int = 1
    generator: torch.Generator | None = field(default=None, compare=False)
    alpha: float = 6.0

    def __post_init__(self) -> None:
        whole_number("every", self.every)
        if not self.every <= self.mean_lag < float("inf"):
            raise SettingError(
                f"mean_lag={self.mean_lag} must be finite and at least every={self.every}: "
                "each segment has at least that many steps"
            )
        if not self.alpha > 1:
            raise SettingError(f"alpha must be above 1 for a finite mean, got {self.alpha}")

    def __str__(self) -> str:
        return settings_text(self, "mean_lag")

    def chance(self, candidate: int) -> float:
        """c_l: of a cut at the l-th candidate (1, 2, …) after the last, given none before it."""
        return self.alpha / ((self.alpha - 1) * self.mean_lag / self.every + candidate)

    def _advance(self, loss: Loss, batch: Timed, at: Position) -> tuple[Tensor, Position]:
        """One segment: the steps up to the next cut, or to the end of the batch."""
        state, stop, candidate = at.state, at.target, 0
        total: Tensor | None = None
        while True:
            begin, stop = stop, min(stop + self.every, len(batch))
            part, state = loss(batch[begin:stop], state)
            total = part if total is None else total + part
            if stop == len(batch):
                break
            candidate += 1
            chance = self.chance(candidate)
            if float(torch.rand((), generator=self.generator, dtype=torch.float64)) < chance:
                break
            state = amplified(state, 1 / (1 - chance))
        return differentiate(total), Position.at(stop, state)


def amplified(state: State, factor: float) -> State:
    """The same state, bit for bit; gradients that pass it are multiplied by `factor`."""
    return states.apply(lambda part: _Amplified.apply(part, factor), state)


class _Amplified(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, part: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return part.view_as(part)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None
