"""The lag ledger: the exact gradient of a loss, split by how many steps back it reaches.

``G_k = Σ_t δ_t⁽ᵏ⁾ ∂⁺S_t/∂W`` with ``δ_t⁽⁰⁾ = ∂ℓ_t/∂S_t`` and
``δ_t⁽ᵏ⁾ = (∂S_{t+1}/∂S_t)ᵀ δ_{t+1}⁽ᵏ⁻¹⁾``: what the losses say about the work of the weights
exactly k steps before. Σ_k G_k is the gradient; Σ_{k≤K} G_k is what ``Truncated(1, K + 1)`` gives.
The adjoints of all steps move back one lag in one product, a block of time at a time.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from throughtime.errors import NonFiniteError, SettingError
from throughtime.gradflow.blocks import blocks, check, check_sum, raise_at
from throughtime.gradflow.diagnosis import Evidence, Verdict, diagnose
from throughtime.gradflow.found import parameters
from throughtime.gradflow.jacobians import JacobianNorms, jacobian_norms
from throughtime.gradflow.unrolled import Loss, Stacked, Steps, Timed, Window, norms
from throughtime.state import State

QUANTILES = (0.1, 0.5, 0.9)
_LONGEST = 200  # lags unless told
_FIRST = 64  # steps in whose graph parameters are looked for


@dataclass(frozen=True)
class Lags:
    """What a ledger holds of one parameter, or of all jointly: float64 tensors ``[K + 1]``.

    norm: ‖G_k‖. tail: ‖Σ_{j>k} G_j‖, older lags than K included. kept: ‖Σ_{j≤k} G_j‖. dot:
    ⟨Σ_{j≤k} G_j, G⟩. total: ‖G‖.
    """

    norm: Tensor
    tail: Tensor
    kept: Tensor
    dot: Tensor
    total: float

    @classmethod
    def of(cls, parts: Tensor, total: Tensor) -> Lags:
        """parts: G_0 … G_K, flat ``[K + 1, n]``; overwritten. total: G ``[n]``."""
        norm = _norm(parts)
        kept = parts.cumsum_(0)
        lengths, dot = _norm(kept), (kept @ total).double()
        return cls(norm, _norm(kept.sub_(total)), lengths, dot, float(_norm(total[None])))

    @classmethod
    def joint(cls, each: list[Lags]) -> Lags:
        """Of all the parameters as one vector."""
        norm, tail, kept = (
            torch.stack([getattr(one, name) for one in each]).square().sum(0).sqrt()
            for name in ("norm", "tail", "kept")
        )
        dot = torch.stack([one.dot for one in each]).sum(0)
        return cls(norm, tail, kept, dot, math.hypot(*(one.total for one in each)))


def _norm(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=1, dtype=torch.float64)


@dataclass(frozen=True)
class Ledger:
    """The gradient of a loss by lag; K is `max_lag`, T is `steps`.

    state_norm: the mean of ‖∂ℓ_t/∂S_{t-k}‖ over the rows and the t ≥ k, float64 ``[K + 1]``; NaN
    at k = 0 where the loss is not computed from the state that comes back, and where k > T.
    state_quantiles: the quantiles 0.1, 0.5 and 0.9 of the same, ``[3, K + 1]``. truncation: the
    steps that the training in use lets a gradient travel (k2), or None. loss: of the whole batch.
    """

    max_lag: int
    steps: int
    truncation: int | None
    loss: float
    parameter_norm: float
    state_norm: Tensor
    state_quantiles: Tensor
    blocks: dict[str, Lags]
    joint: Lags
    gradients: dict[str, Tensor] | None
    jacobian_norms: JacobianNorms | None = None  # where they were asked for

    def gradient(self, name: str) -> Tensor:
        """G_0 … G_K of a parameter, ``[K + 1, *shape]``. Raises SettingError without tensors."""
        self._block(name)
        if self.gradients is None:
            raise SettingError("this ledger kept norms only; ask for ledger(..., tensors=True)")
        return self.gradients[name]

    def norm(self, name: str) -> Tensor:
        """‖G_k‖ of one parameter, float64 ``[K + 1]``."""
        return self._block(name).norm

    @property
    def norms(self) -> Tensor:
        """‖G_k‖ of all the parameters jointly, float64 ``[K + 1]``."""
        return self.joint.norm

    def total(self, name: str | None = None) -> float:
        """‖G‖, the norm of the full gradient, of one parameter or of all."""
        return self._block(name).total

    @property
    def rest(self) -> float:
        """‖Σ_{k>K} G_k‖: the part of the gradient that is older than max_lag."""
        return float(self.joint.tail[-1])

    @property
    def share(self) -> Tensor:
        """Σ_{j≤k}‖G_j‖ / (Σ_{j≤K}‖G_j‖ + rest), float64 ``[K + 1]``; 1 if all is 0."""
        whole = float(self.norms.sum()) + self.rest
        return self.norms.cumsum(0) / whole if whole else torch.ones_like(self.norms)

    def bias(self, lag: int, name: str | None = None) -> float:
        """‖Σ_{k>lag} G_k‖ / ‖G‖: what truncation after `lag` loses, relative; 0 where G is 0."""
        block, lag = self._block(name), self._lag(lag)
        return float(block.tail[lag]) / block.total if block.total else 0.0

    def cosine(self, lag: int, name: str | None = None) -> float:
        """The cosine between the gradient truncated after `lag` and the full one.

        1 where both are 0, 0 where one is.
        """
        block, lag = self._block(name), self._lag(lag)
        lengths = float(block.kept[lag]) * block.total
        if not lengths:
            return float(block.total == float(block.kept[lag]))
        return max(-1.0, min(1.0, float(block.dot[lag]) / lengths))

    def reach(self, share: float = 0.95) -> int | None:
        """The smallest lag whose cumulative share is at least `share`.

        None where that lag lies beyond max_lag. Raises SettingError unless 0 < share <= 1.
        """
        if not 0 < share <= 1:
            raise SettingError(f"share={share}: a part of the gradient lies in (0, 1]")
        found = (self.share >= share - 1e-12).nonzero()
        return int(found[0]) if len(found) else None

    @property
    def evidence(self) -> Evidence:
        """What the ledger by itself has to say to a verdict."""
        return Evidence(
            state_norm=self.state_norm.tolist(),
            norms=self.norms.tolist(),
            rest=self.rest,
            max_lag=self.max_lag,
            steps=self.steps,
            gradient_norm=self.total(),
            parameter_norm=self.parameter_norm,
            loss=self.loss,
            truncation=self.truncation,
        )

    @property
    def verdict(self) -> Verdict:
        """What the lags mean, in words, with a remedy; `examine` knows more."""
        return diagnose(self.evidence)

    def to_json(self) -> dict[str, Any]:
        """Everything but the tensors as JSON values; None stands where there is no number."""
        return {
            "max_lag": self.max_lag,
            "steps": self.steps,
            "truncation": self.truncation,
            "loss": self.loss,
            "gradient_norm": self.joint.total,
            "parameter_norm": self.parameter_norm,
            "norms": self.norms.tolist(),
            "rest": self.rest,
            "share": self.share.tolist(),
            "bias": [self.bias(lag) for lag in range(self.max_lag + 1)],
            "cosine": [self.cosine(lag) for lag in range(self.max_lag + 1)],
            "reach": self.reach(),
            "state_norm": _plain(self.state_norm),
            "state_quantiles": {
                str(q): _plain(values)
                for q, values in zip(QUANTILES, self.state_quantiles, strict=True)
            },
            "parameters": {
                name: {"norm": block.norm.tolist(), "total": block.total}
                for name, block in self.blocks.items()
            },
        }

    def _block(self, name: str | None) -> Lags:
        if name is None:
            return self.joint
        if name not in self.blocks:
            raise SettingError(
                f"no parameter '{name}' in this ledger; it has: {', '.join(self.blocks)}"
            )
        return self.blocks[name]

    def _lag(self, lag: int) -> int:
        if 0 <= lag <= self.max_lag:
            return lag
        if lag >= self.steps - 1 and self.max_lag >= self.steps - 1:
            return self.max_lag  # there is nothing older
        raise SettingError(f"lag {lag} is not among 0 … {self.max_lag} of this ledger")


def _plain(values: Tensor) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values.tolist()]


def ledger(
    loss: Loss,
    batch: Timed,
    state: State,
    params: Mapping[str, Tensor] | None = None,
    max_lag: int | None = None,
    tensors: bool = False,
    truncation: int | None = None,
    jacobians: int = 0,
) -> Ledger:
    """The exact gradient of ``loss(batch, state) -> (summed loss, state)``, split by lag.

    params: by name; those that require a gradient are looked at. None: those that `parameters`
    finds in the first steps, by number. max_lag: None for all the lags of the batch, 200 at most.
    tensors: keep every G_k, not only the norms. truncation: k2 of the training in use, for the
    verdict. jacobians: at how many times the norms ‖∂S_t/∂S_{t-k}‖ are taken too, at the lags
    1, 2, 4, … up to max_lag, which costs more; see `jacobian_norms`. As in every gradient method,
    no gradient flows into `state`.
    Costs about as much as (max_lag + 2) passes forward and backward, memory for max_lag + 1
    gradients, and no more graph than a block of time has. Leaves torch's global generator as it
    was; a loss that draws from it (dropout) is split by lag for the numbers drawn. `batch` is
    sliced one step at a time where its parts cannot be folded into rows, which is slow; see
    `unrolled.folded`.
    Raises SettingError for arguments that make no sense, a loss that is not a sum over time, a
    module that keeps state inside; NonFiniteError naming the step or lag.
    """
    if params is None:
        params = parameters(loss, Window(batch, 0, min(_FIRST, len(batch))), state)
    wanted = {name: p for name, p in params.items() if p.requires_grad}
    if not wanted:
        raise SettingError("params has no parameter that requires a gradient; nothing to split")
    if max_lag is not None and max_lag < 0:
        raise SettingError(f"max_lag={max_lag}: 0 or more lags, None for all (200 at most)")
    with torch.random.fork_rng(devices=[]):
        check(loss, batch, state)
        lags = min(len(batch) - 1, _LONGEST) if max_lag is None else max_lag
        book = _Book(wanted, lags, len(batch))
        for window, before in blocks(loss, batch, state):
            book.enter(loss, window, before)
        found = book.close(tensors, truncation)
        if not jacobians:
            return found
        powers = [1 << i for i in range(min(lags, len(batch)).bit_length())]
        norms = jacobian_norms(loss, batch, state, powers, jacobians)
        return dataclasses.replace(found, jacobian_norms=norms)


class _Book:
    """A ledger in the making: sums over the blocks seen so far, the last one first."""

    def __init__(self, params: Mapping[str, Tensor], max_lag: int, length: int) -> None:
        self.params, self.max_lag, self.length, self.loss = params, max_lag, length, 0.0
        self.parts = {n: p.new_zeros(max_lag + 1, p.numel()) for n, p in params.items()}
        self.total = {n: p.new_zeros(p.shape) for n, p in params.items()}
        self.seen: list[list[Tensor]] = [[] for _ in range(max_lag + 1)]
        self.later: list[Stacked] = []  # the first adjoints of the block after, by lag
        self.sweep: list[Tensor] = []  # dL/dS after the block

    def enter(self, loss: Loss, window: Window, before: State) -> None:
        """Adds a block: what its losses and those of the later blocks have to say about it."""
        steps = Steps(loss, window, before, self.params)
        if not math.isfinite(steps.total):
            raise_at(loss, window, before)
        if not steps.folded:
            check_sum(loss, window, before, steps.total, steps.scale)
        self.loss += steps.total
        last = not self.later
        delta, gradient = steps.immediate()
        self._add(0, gradient)
        own = steps.own()
        if own is not None:
            self.seen[0].append(norms(own).flatten())
        here = []
        # Without a state nothing is older than lag 0.
        for lag in range(1, min(self.max_lag, self.length) + 1 if delta else 1):
            real = self.length - lag + 1 - window.begin
            if real > 0:
                self.seen[lag].append(norms([leaf[:real] for leaf in delta]).flatten())
            here.append([leaf[:1].clone() for leaf in delta])
            ends = [torch.zeros_like(leaf[:1]) for leaf in delta] if last else self.later[lag - 1]
            moved = [torch.cat([a[1:], b]) for a, b in zip(delta, ends, strict=True)]
            delta, gradient = steps.back(moved)
            self._add(lag, gradient)
        self.later = here
        if not self.sweep:
            self.sweep = [leaf.new_zeros(leaf.shape[1:]) for leaf in delta]
        self.sweep, gradient = steps.sweep(self.sweep)
        for name, one in gradient.items():
            self.total[name] += one

    def _add(self, lag: int, gradient: dict[str, Tensor]) -> None:
        for name, one in gradient.items():
            self.parts[name][lag] += one.flatten()

    def close(self, tensors: bool, truncation: int | None) -> Ledger:
        """The ledger."""
        for name in self.params:
            self._check(name)
        kept = None
        if tensors:
            kept = {n: self.parts[n].clone().unflatten(1, p.shape) for n, p in self.params.items()}
        found = {n: Lags.of(self.parts[n], self.total[n].flatten()) for n in self.params}
        sizes = [float(p.detach().double().norm()) for p in self.params.values()]
        mean, quantiles = self._state_norms()
        return Ledger(
            max_lag=self.max_lag,
            steps=self.length,
            truncation=truncation,
            loss=self.loss,
            parameter_norm=math.hypot(*sizes),
            state_norm=mean,
            state_quantiles=quantiles,
            blocks=found,
            joint=Lags.joint(list(found.values())),
            gradients=kept,
        )

    def _check(self, name: str) -> None:
        broken = (~torch.isfinite(self.parts[name]).all(1)).nonzero()
        if len(broken):
            raise NonFiniteError(
                f"the gradient of '{name}' at lag {int(broken[0])} is not finite: it explodes; "
                "ask for fewer lags, or use float64"
            )
        if not bool(torch.isfinite(self.total[name]).all()):
            raise NonFiniteError(
                f"the gradient of '{name}' is not finite beyond lag {self.max_lag}: it explodes; "
                "look at a shorter batch, or use float64"
            )

    def _state_norms(self) -> tuple[Tensor, Tensor]:
        mean = torch.full((self.max_lag + 1,), math.nan, dtype=torch.float64)
        quantiles = torch.full((len(QUANTILES), self.max_lag + 1), math.nan, dtype=torch.float64)
        for lag, blocks_of in enumerate(self.seen):
            if blocks_of:
                values = torch.cat(blocks_of).double().numpy(force=True)
                mean[lag] = values.mean()
                quantiles[:, lag] = torch.from_numpy(np.quantile(values, QUANTILES))
        return mean, quantiles
