"""Several fitted models as one: their distributions averaged step by step with fixed weights."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from throughtime.data.batching import Batch
from throughtime.data.sequences import Sequences
from throughtime.emissions import Distribution, weighted_mixture
from throughtime.errors import SettingError
from throughtime.models.base import SequenceModel
from throughtime.state import State
from throughtime.types import Counted, uncounted

_ROUNDS = 500
_SMALLEST = 0.02  # components with less weight than this are left out


class Blend(SequenceModel):
    """``P(X_t | past) = Σ_i w_i P_i(X_t | past)``: a distribution like any other, the past's
    included.

    models: fitted, of one view of the data. weights: positive, made to sum to 1. Its state is the
    tuple of their states.
    """

    def __init__(self, models: Sequence[SequenceModel], weights: Sequence[float]) -> None:
        if len(models) != len(weights) or len(models) == 0 or min(weights) <= 0:
            raise SettingError("a blend needs one positive weight for each of its models")
        super().__init__(models[0].emission)
        self.models = torch.nn.ModuleList(models)
        shares = torch.tensor(list(weights), dtype=torch.float64)
        self.register_buffer("weights", shares / shares.sum())
        self.identities = max((m.identities for m in models), key=len)
        self.covariates = max(m.covariates for m in models)

    def parts(self) -> list[SequenceModel]:
        """The models, in order."""
        return [part for part in self.models if isinstance(part, SequenceModel)]

    def settings(self) -> dict[str, Any]:
        weights: Tensor = self.weights  # type: ignore[assignment]
        return {
            "kind": "blend",
            "models": [part.settings() for part in self.parts()],
            "weights": weights.tolist(),
        }

    def begin(self, train: Sequences) -> None:
        for part in self.parts():
            part.begin(train)

    def initial_state(self, batch_size: int) -> State:
        return tuple(part.initial_state(batch_size) for part in self.parts())

    def members_distribution(self, batch: Batch, state: State) -> tuple[Distribution, State]:
        predicted = [part(batch, s) for part, s in zip(self.parts(), state, strict=True)]
        return self._blend(predicted)

    def members_step(
        self,
        previous: Tensor | None,
        state: State,
        covariates: Tensor | None,
        series: Tensor | None,
    ) -> tuple[Distribution, State]:
        predicted = [
            part.step(previous, s, covariates, series)
            for part, s in zip(self.parts(), state, strict=True)
        ]
        return self._blend(predicted)

    def runs(self, data: Sequences, on_steps: Counted = uncounted) -> Iterator[Tensor]:
        weights: Tensor = self.weights  # type: ignore[assignment]
        parts, left = self.parts(), 0.0

        def shared(done: int) -> None:
            nonlocal left
            left += done / len(parts)
            on_steps(int(left))
            left -= int(left)

        for each in _side_by_side([part.runs(data, shared) for part in parts]):
            yield torch.logsumexp(each + weights.log().unsqueeze(-1), 0)

    def extra_tensors(self) -> dict[str, Tensor]:
        return {
            f"{i}.{name}": value
            for i, part in enumerate(self.parts())
            for name, value in part.extra_tensors().items()
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        for i, part in enumerate(self.parts()):
            mine = f"{i}."
            part.restore(
                {k.removeprefix(mine): v for k, v in tensors.items() if k.startswith(mine)}
            )

    def num_parameters(self) -> int:
        return sum(part.num_parameters() for part in self.parts())

    def _blend(self, predicted: list[tuple[Distribution, State]]) -> tuple[Distribution, State]:
        weights: Tensor = self.weights  # type: ignore[assignment]
        return weighted_mixture([distribution for distribution, _ in predicted], weights), tuple(
            state for _, state in predicted
        )


def _side_by_side(streams: list[Iterator[Tensor]]) -> Iterator[Tensor]:
    """Runs of the same steps from several models, ``[K, n]``, cut where any of them ends one."""
    held = [next(stream, None) for stream in streams]
    while all(run is not None for run in held):
        runs = [run for run in held if run is not None]
        count = min(map(len, runs))
        if count:
            yield torch.stack([run[:count] for run in runs])
        held = [
            run[count:] if len(run) > count else next(stream, None)
            for run, stream in zip(runs, streams, strict=True)
        ]


def blend_weights(nats: Tensor) -> Tensor:
    """The weights that make held-out steps likeliest, by EM (Dempster, Laird & Rubin 1977).

    nats: log-probabilities ``[K, n]`` of the same steps under K models. Returns ``[K]``, 0 for
    those that are left out.
    """
    if nats.shape[1] == 0:
        raise SettingError("blending needs held-out steps")
    nats = nats.double()
    weights = torch.full((len(nats),), 1.0 / len(nats), dtype=torch.float64)
    for _ in range(_ROUNDS):
        joint = nats + weights.log().unsqueeze(-1)
        share = (joint - joint.amax(0)).exp()  # torch.softmax wakes every thread for a few numbers
        weights = (share / share.sum(0)).mean(1)
        weights = torch.where(weights < _SMALLEST, 0.0, weights)
        weights = weights / weights.sum()
    return weights


def cross_fitted(nats: Tensor) -> Tensor:
    """Log-probability ``[n]`` of each step under the blend whose weights the other half chose.

    What `blend_weights` of all the steps would score on the same steps flatters the blend.
    """
    half = nats.shape[1] // 2
    if half == 0:
        return torch.logsumexp(nats - math.log(len(nats)), 0)
    parts = []
    for own, other in ((nats[:, :half], nats[:, half:]), (nats[:, half:], nats[:, :half])):
        parts.append(torch.logsumexp(own + blend_weights(other).log().unsqueeze(-1), 0))
    return torch.cat(parts)
