"""Models whose every distribution is known in closed form, and data from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from throughtime.data.batching import Batch
from throughtime.data.transforms import Transforms
from throughtime.emissions import Distribution, Normal
from throughtime.emissions.normal import NormalDistribution
from throughtime.models.base import SequenceModel
from throughtime.predict.fitted import FittedModel
from throughtime.state import State


def fitted(model: SequenceModel, transforms: Transforms | None = None) -> FittedModel:
    """A model as if it had been fitted, on data as they are or after transforms."""
    return FittedModel("known", model, transforms or Transforms())


class KnownAR(SequenceModel):
    """x_t = phi x_{t-1} + sigma e_t, in float64, stationary from its first value on."""

    def __init__(self, phi: float, sigma: float) -> None:
        super().__init__(Normal(1))
        self.phi, self.sigma = phi, sigma

    def initial_state(self, batch_size: int) -> State:
        return torch.zeros(1, batch_size, 1, dtype=torch.float64)

    def members_distribution(self, batch: Batch, state: State) -> tuple[Distribution, State]:
        return self.distribution(batch.previous.double(), batch.start), state

    def members_step(
        self,
        previous: Tensor | None,
        state: State,
        covariates: Tensor | None,
        series: Tensor | None,
    ) -> tuple[Distribution, State]:
        rows = state.shape[1]
        start = torch.full((rows,), previous is None)
        known = torch.zeros(rows, 1) if previous is None else previous
        return self.distribution(known.double(), start), state

    def distribution(self, previous: Tensor, start: Tensor) -> Distribution:
        stationary = self.sigma / (1 - self.phi**2) ** 0.5
        scale = torch.where(start, stationary, self.sigma).double().unsqueeze(-1)
        return NormalDistribution(torch.where(start.unsqueeze(-1), 0.0, self.phi * previous), scale)

    def settings(self) -> dict[str, Any]:
        return {"kind": "known"}


def ar_path(length: int, phi: float, seed: int) -> np.ndarray:
    """A stationary AR(1) path with unit innovations, [length]."""
    from scipy.signal import lfilter

    noise = np.random.default_rng(seed).normal(size=length)
    noise[0] /= (1 - phi**2) ** 0.5
    path: np.ndarray = lfilter([1.0], [1.0, -phi], noise)
    return path
