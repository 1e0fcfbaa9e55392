"""The lag ledger: the exact gradient of a loss, split by how many steps back it reaches.

``G_k = Σ_t δ_t⁽ᵏ⁾ ∂⁺S_t/∂W`` with ``δ_t⁽⁰⁾ = ∂ℓ_t/∂S_t`` and
``δ_t⁽ᵏ⁾ = (∂S_{t+1}/∂S_t)ᵀ δ_{t+1}⁽ᵏ⁻¹⁾``: what the losses say about the work of the weights
exactly k steps before. Σ_k G_k is the gradient; Σ_{k≤K} G_k is what ``Truncated(1, K + 1)`` gives.
The adjoints of all steps move back one lag in one product, a block of time at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from throughtime.errors import NonFiniteError, RunError, SettingError, known_options
from throughtime.files import finite
from throughtime.gradflow import _rng_state as rng_state
from throughtime.gradflow._contract import (
    CHECKED,
    Loss,
    Places,
    check,
    check_finite,
    check_segment_sum,
)  # fmt: skip
from throughtime.gradflow._passes import blocks
from throughtime.gradflow._unrolled import Stacked, Steps, norms
from throughtime.gradflow.batches import Segment, along_time
from throughtime.gradflow.diagnosis import SHARES, Evidence, Verdict, diagnose
from throughtime.gradflow.jacobians import JacobianNorms, jacobian_norms
from throughtime.gradflow.parameters import parameters
from throughtime.state import State

SCHEMA = 1  # of the JSON of ledgers, examinations and what is made of them
QUANTILES = {"low": 0.1, "median": 0.5, "high": 0.9}
_LONGEST = 200  # lags where none are asked for
_FIRST = 64  # steps in whose graph parameters are looked for


@dataclass(frozen=True)
class ByLag:
    """The gradient of one parameter, or of all jointly, by lag k = 0 … K.

    Attributes:
        norms: ‖G_k‖, float64 ``[K + 1]``.
        bias: ‖Σ_{j>k} G_j‖ / ‖G‖, older lags than K included, float64 ``[K + 1]``; 0 where G is 0.
        cosine: between Σ_{j≤k} G_j and G, float64 ``[K + 1]``; 1 where both are 0, 0 where one is.
        rest: ‖Σ_{j>K} G_j‖.
        total: ‖G‖.
    """

    norms: Tensor
    bias: Tensor
    cosine: Tensor
    rest: float
    total: float

    @classmethod
    def of(cls, sums: Tensor) -> ByLag:
        """From what `_sums` gives, of one parameter or added up over several."""
        (norms, tail, kept), dot, total = sums[:3].sqrt(), sums[3], float(sums[4, 0].sqrt())
        lengths = kept * total
        cosine = torch.where(lengths > 0, (dot / lengths).clamp(-1, 1), (kept == total).double())
        bias = tail / total if total else torch.zeros_like(tail)
        return cls(norms, bias, cosine, float(tail[-1]), total)

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> ByLag:
        """What `to_json` wrote."""
        norms, bias, cosine = (_tensor(entry[name]) for name in ("norms", "bias", "cosine"))
        return cls(norms, bias, cosine, number(entry["rest"]), number(entry["total"]))

    def to_json(self) -> dict[str, Any]:
        """The attributes as JSON values."""
        return {n: v.tolist() if isinstance(v, Tensor) else v for n, v in vars(self).items()}


def _sums(parts: Tensor, total: Tensor) -> Tensor:
    """float64 ``[5, K + 1]``: ‖G_k‖², ‖Σ_{j>k} G_j‖², ‖Σ_{j≤k} G_j‖², ⟨Σ_{j≤k} G_j, G⟩ and ‖G‖².

    parts: G_0 … G_K, flat ``[K + 1, n]``; overwritten. total: G ``[n]``.
    """
    each = _square(parts)
    kept = parts.cumsum_(0)
    squares, dot = _square(kept), (kept @ total).double()
    return torch.stack(
        [each, _square(kept.sub_(total)), squares, dot, _square(total).expand_as(dot)]
    )


def _square(rows: Tensor) -> Tensor:
    return torch.linalg.vector_norm(rows, dim=-1, dtype=torch.float64).square()


@dataclass(frozen=True)
class Ledger:
    """The gradient of a loss by lag k = 0 … K; lag 0 is the step itself.

    Attributes:
        max_lag: K.
        steps: T, of the batch.
        k1: the losses that the training in use backpropagates at once.
        k2: the steps over which it lets a gradient travel; None: all.
        loss: of the whole batch.
        parameter_norm: of all the parameters jointly.
        state_norm: the mean of ‖∂ℓ_t/∂S_{t-k}‖ over the rows and the t ≥ k, float64 ``[K + 1]``;
            NaN at k = 0 where the loss is not computed from the state that comes back, and where
            k > T.
        state_quantiles: the quantiles 0.1, 0.5 and 0.9 of the same, float64 ``[3, K + 1]``.
        joint: the gradient of all the parameters as one vector.
        parameters: that of each, by name.
        gradients: G_0 … G_K of each, ``[K + 1, *shape]``, where they were asked for.
        jacobian_norms: ‖∂S_t/∂S_{t-k}‖, where they were asked for.
    """

    max_lag: int
    steps: int
    k1: int
    k2: int | None
    loss: float
    parameter_norm: float
    state_norm: Tensor
    state_quantiles: Tensor
    joint: ByLag
    parameters: dict[str, ByLag]
    gradients: dict[str, Tensor] | None = None
    jacobian_norms: JacobianNorms | None = None

    def gradient(self, name: str) -> Tensor:
        """G_0 … G_K of a parameter, ``[K + 1, *shape]``.

        Raises:
            SettingError: for an unknown name, and where the ledger kept norms only.
        """
        self._of(name)
        if self.gradients is None:
            raise SettingError("this ledger kept norms only; ask for ledger(..., tensors=True)")
        return self.gradients[name]

    def norm(self, name: str) -> Tensor:
        """‖G_k‖ of one parameter, float64 ``[K + 1]``. Raises SettingError for an unknown name."""
        return self._of(name).norms

    @property
    def norms(self) -> Tensor:
        """‖G_k‖ of all the parameters jointly, float64 ``[K + 1]``."""
        return self.joint.norms

    def total(self, name: str | None = None) -> float:
        """‖G‖, the norm of the full gradient, of one parameter or of all."""
        return self._of(name).total

    @property
    def rest(self) -> float:
        """‖Σ_{k>K} G_k‖: the part of the gradient that is older than max_lag."""
        return self.joint.rest

    @property
    def share(self) -> Tensor:
        """Σ_{j≤k}‖G_j‖ / (Σ_{j≤K}‖G_j‖ + rest), float64 ``[K + 1]``; 1 if all is 0."""
        return torch.tensor(self.evidence.share, dtype=torch.float64)

    def bias(self, lag: int, name: str | None = None) -> float:
        """‖Σ_{k>lag} G_k‖ / ‖G‖: what truncation after `lag` loses, relative.

        Args:
            lag: 0 … max_lag, and more where nothing older is left.
            name: of one parameter; None: of all jointly.

        Raises:
            SettingError: for another lag or name.
        """
        return float(self._of(name).bias[self._lag(lag)])

    def cosine(self, lag: int, name: str | None = None) -> float:
        """The cosine between the gradient truncated after `lag` and the full one.

        1 where both are 0, 0 where one is. Arguments and errors as for `bias`.
        """
        return float(self._of(name).cosine[self._lag(lag)])

    def reach(self, share: float = 0.95) -> int | None:
        """The smallest lag within which `share` of the sum of the norms lies.

        Args:
            share: 0 < share <= 1.

        Returns:
            The lag, 0 being the step itself; None where it lies beyond max_lag.

        Raises:
            SettingError: for another share.
        """
        return self.evidence.reach(share)

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
            k1=self.k1,
            k2=self.k2,
        )

    @property
    def verdict(self) -> Verdict:
        """What the lags mean, in words, with a remedy; `examine` knows more."""
        return diagnose(self.evidence)

    def to_json(self) -> dict[str, Any]:
        """Everything but `gradients` and `jacobian_norms` as JSON values; None for no number.

        The names are those of docs/commands.md under `gradients`; "parameters" holds what `ByLag`
        has of each.
        """
        evidence = self.evidence
        entry = {
            "schema": SCHEMA,
            "lags": list(range(self.max_lag + 1)),
            "norms": evidence.norms,
            "share": evidence.share,
            "bias": self.joint.bias.tolist(),
            "cosine": self.joint.cosine.tolist(),
            "state_norm": {"mean": evidence.state_norm}
            | dict(zip(QUANTILES, self.state_quantiles.tolist(), strict=True)),
            "reach": {str(share): evidence.reach(share) for share in SHARES},
            "max_lag": self.max_lag,
            "steps": self.steps,
            "loss": self.loss,
            "gradient_norm": self.joint.total,
            "parameter_norm": self.parameter_norm,
            "rest": self.rest,
            "k1": None if self.k2 is None else self.k1,
            "k2": self.k2,
            "beyond": evidence.beyond,
            "lost": evidence.lost,
            "verdict": self.verdict.to_json(),
            "parameters": {name: one.to_json() for name, one in self.parameters.items()},
        }
        plain: dict[str, Any] = finite(entry)
        return plain

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> Ledger:
        """The ledger that `to_json` wrote; NaN where there was no number.

        Raises:
            RunError: for JSON of another schema.
        """
        check_schema(entry)
        spread = entry["state_norm"]
        return cls(
            max_lag=entry["max_lag"],
            steps=entry["steps"],
            k1=entry["k1"] or 1,
            k2=entry["k2"],
            loss=number(entry["loss"]),
            parameter_norm=number(entry["parameter_norm"]),
            state_norm=_tensor(spread["mean"]),
            state_quantiles=torch.stack([_tensor(spread[name]) for name in QUANTILES]),
            joint=ByLag.from_json({**entry, "total": entry["gradient_norm"]}),
            parameters={n: ByLag.from_json(e) for n, e in entry.get("parameters", {}).items()},
        )

    def _of(self, name: str | None) -> ByLag:
        if name is None:
            return self.joint
        if name not in self.parameters:
            raise SettingError(
                f"no parameter '{name}' in this ledger; it has: {', '.join(self.parameters)}"
            )
        return self.parameters[name]

    def _lag(self, lag: int) -> int:
        if 0 <= lag <= self.max_lag:
            return lag
        if lag >= self.steps - 1 and self.max_lag >= self.steps - 1:
            return self.max_lag  # there is nothing older
        raise SettingError(f"lag {lag} is not among 0 … {self.max_lag} of this ledger")


def check_schema(entry: Mapping[str, Any]) -> None:
    """Raises RunError for JSON that another version wrote."""
    if entry.get("schema") != SCHEMA:
        raise RunError(
            f"what is known of a gradient has schema {entry.get('schema')}, this version reads "
            f"{SCHEMA}; take it again"
        )


def number(value: float | None) -> float:
    """A number of JSON; NaN for None."""
    return math.nan if value is None else float(value)


def _tensor(values: Iterable[float | None]) -> Tensor:
    return torch.tensor([number(value) for value in values], dtype=torch.float64)


@known_options
def ledger(
    loss: Loss,
    batch: Any,
    state: State,
    params: Mapping[str, Tensor] | None = None,
    max_lag: int | None = None,
    tensors: bool = False,
    k1: int = 1,
    k2: int | None = None,
    jacobians: int = 0,
) -> Ledger:
    """The exact gradient of ``loss(batch, state) -> (summed loss, state)``, split by lag.

    Costs about as much as (max_lag + 2) passes forward and backward, memory for max_lag + 1
    gradients, and no more graph than a block of time has. Leaves torch's global generator as it
    was; a loss that draws from it (dropout) is split by lag for the numbers drawn. `batch` is
    sliced one step at a time, which is slow, where its parts are not tensors ``[T, B, ...]`` that
    can be folded into rows.

    Args:
        loss: of any module; as in every gradient method, no gradient flows into `state`.
        batch: T steps, see `along_time`.
        state: before the first step.
        params: by name; those that require a gradient are looked at. None: those that `parameters`
            finds in the first steps, by number.
        max_lag: K; None: all the lags of the batch, 200 at most.
        tensors: keep every G_k, not only the norms.
        k1, k2: of the truncation in use, for the verdict; k2 None: not truncated.
        jacobians: at how many times ‖∂S_t/∂S_{t-k}‖ is taken too, at the lags 1, 2, 4, … up to
            max_lag, which costs more; see `jacobian_norms`.

    Raises:
        SettingError: for arguments that make no sense, a batch that cannot be cut along time, a
            loss that is not a sum over time, a module that keeps state inside.
        NonFiniteError: naming the step or lag.
    """
    batch = along_time(batch)
    if params is None:
        params = parameters(loss, Segment(batch, 0, min(_FIRST, len(batch))), state)
    wanted = {name: p for name, p in params.items() if p.requires_grad}
    if not wanted:
        raise SettingError("params has no parameter that requires a gradient; nothing to split")
    if max_lag is not None and max_lag < 0:
        raise SettingError(f"max_lag={max_lag}: 0 or more lags, None for all (200 at most)")
    with rng_state.forked():
        check(loss, batch, state, Places.first(batch, CHECKED))
        lags = min(len(batch) - 1, _LONGEST) if max_lag is None else max_lag
        book = _Book(wanted, lags, len(batch))
        for segment, before in blocks(loss, batch, state):
            book.enter(loss, segment, before)
        result = book.close(tensors, k1, k2)
        if not jacobians:
            return result
        powers = [1 << i for i in range(min(lags, len(batch)).bit_length())]
        products = jacobian_norms(loss, batch, state, powers, jacobians)
        return replace(result, jacobian_norms=products)


class _Book:
    """A ledger in the making: sums over the blocks seen so far, the last one first."""

    def __init__(self, params: Mapping[str, Tensor], max_lag: int, length: int) -> None:
        self.params, self.max_lag, self.length, self.loss = params, max_lag, length, 0.0
        self.parts = {n: p.new_zeros(max_lag + 1, p.numel()) for n, p in params.items()}
        self.total = {n: p.new_zeros(p.shape) for n, p in params.items()}
        self.seen: list[list[Tensor]] = [[] for _ in range(max_lag + 1)]
        self.later: list[Stacked] = []  # the first adjoints of the block after, by lag
        self.sweep: list[Tensor] = []  # dL/dS after the block

    def enter(self, loss: Loss, segment: Segment, before: State) -> None:
        """Adds a block: what its losses and those of the later blocks have to say about it."""
        steps = Steps(loss, segment, before, self.params)
        if not math.isfinite(steps.total):
            check_finite(loss, segment.batch, before, segment.begin, segment.end)
        if not steps.folded:
            check_segment_sum(loss, segment, before, steps.total, steps.scale)
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
            real = self.length - lag + 1 - segment.begin
            if real > 0:
                self.seen[lag].append(norms([leaf[:real] for leaf in delta]).flatten())
            here.append([leaf[:1].clone() for leaf in delta])
            ends = [torch.zeros_like(leaf[:1]) for leaf in delta] if last else self.later[lag - 1]
            moved = [torch.cat([a[1:], b]) for a, b in zip(delta, ends, strict=True)]
            delta, gradient = steps.vjp(moved)
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

    def close(self, tensors: bool, k1: int, k2: int | None) -> Ledger:
        """The ledger."""
        for name in self.params:
            self._check(name)
        kept = None
        if tensors:
            kept = {n: self.parts[n].clone().unflatten(1, p.shape) for n, p in self.params.items()}
        sums = {n: _sums(self.parts[n], self.total[n].flatten()) for n in self.params}
        sizes = [float(p.detach().double().norm()) for p in self.params.values()]
        mean, quantiles = self._state_norms()
        return Ledger(
            max_lag=self.max_lag,
            steps=self.length,
            k1=k1,
            k2=k2,
            loss=self.loss,
            parameter_norm=math.hypot(*sizes),
            state_norm=mean,
            state_quantiles=quantiles,
            joint=ByLag.of(torch.stack(list(sums.values())).sum(0)),
            parameters={name: ByLag.of(one) for name, one in sums.items()},
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
                quantiles[:, lag] = torch.from_numpy(np.quantile(values, list(QUANTILES.values())))
        return mean, quantiles
