"""How much a state changes those after it: spectral norms and radii of the Jacobians of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from throughtime.errors import SettingError
from throughtime.gradflow._contract import Loss
from throughtime.gradflow._jacobian_products import Product, generator, stackable
from throughtime.gradflow._krylov import largest_eigenvalue, largest_singular
from throughtime.gradflow._passes import states_at
from throughtime.gradflow.batches import along_time
from throughtime.kernels.cells import CELLS
from throughtime.state import State

# Of as many blocks of rows as a cell has gates; a single one needs no name.
_GATES = {len(cell.gates): tuple(f".{gate}" for gate in cell.gates) for cell in CELLS.values()}
_GATES[1] = ("",)


@dataclass(frozen=True)
class NormsByLag:
    """Norms over times and rows at some lags: their mean, and the quantiles 0.1, 0.5 and 0.9."""

    lags: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    median: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class JacobianNorms:
    """The spectral norms ‖∂S_t/∂S_{t-k}‖ over the whole state.

    Attributes:
        lags: the k.
        times: the t.
        values: float64 ``[lags, times, rows]``.
    """

    lags: tuple[int, ...]
    times: tuple[int, ...]
    values: Tensor

    @property
    def by_lag(self) -> NormsByLag:
        """In short: over times and rows."""
        flat = self.values.flatten(1)
        spread = flat.quantile(torch.tensor([0.1, 0.5, 0.9], dtype=flat.dtype), dim=1)
        return NormsByLag(self.lags, *(tuple(v.tolist()) for v in (flat.mean(1), *spread)))


def jacobian_norms(
    loss: Loss,
    batch: Any,
    state: State,
    lags: Sequence[int] | None = None,
    times: int | Sequence[int] = 32,
    seed: int = 0,
    tolerance: float = 1e-6,
) -> JacobianNorms:
    """The norms ‖∂S_t/∂S_{t-k}‖ at some times t, by products with the Jacobians only.

    All times and rows run together; each lag starts from the directions of the one before
    (Golub & Kahan 1965, see `_krylov`).

    Args:
        loss: ``loss(batch, state) -> (summed loss, state)``, without random numbers.
        batch: T steps, see `along_time`.
        state: before the first step.
        lags: the k; None: 1, 2, 4, 8, … up to half the batch.
        times: a number of them, drawn with `seed`, or the t themselves, ``max(lags) <= t <= T``.
        seed: of the times and of the first directions.
        tolerance: relative, of each norm, in float64; rounding limits that of float32 to 1e-5.

    Raises:
        SettingError: for lags or times outside the batch, a loss that draws random numbers, and
            rows that depend on each other.
        NonFiniteError: naming the first step whose loss or state is infinite or NaN.
    """
    batch = along_time(batch)
    length = len(batch)
    chosen = _lags(length) if lags is None else tuple(sorted(set(lags)))
    if not chosen or chosen[0] < 1 or chosen[-1] > length:
        raise SettingError(f"lags must lie in 1 … {length}, the steps of the batch; got {chosen}")
    source = generator(seed)
    at = _times(times, chosen[-1], length, source)
    joined = stackable(loss, batch, state)
    places = [t - lag for t in at for lag in chosen]
    known = states_at(loss, batch, state, places)
    left: Tensor | None = None
    norms = []
    for lag in chosen:
        product = Product(
            loss,
            [batch[t - lag : t] for t in at],
            [known[t - lag] for t in at],
            joined,
        )
        noise = torch.randn(product.shape, generator=source, dtype=torch.float64)
        noise = (noise / noise.norm(dim=1, keepdim=True)).to(product.inputs[0][0])
        start = noise if left is None else left + 0.1 * noise
        value, left = largest_singular(product.jvp, product.vjp, start, tolerance)
        norms.append(value.reshape(len(at), -1))
    return JacobianNorms(chosen, at, torch.stack(norms).cpu())


def step_radius(
    loss: Loss, batch: Any, state: State, times: int | Sequence[int] = 32, seed: int = 0
) -> float:
    """The spectral radius of the mean one-step Jacobian ∂S_t/∂S_{t-1} over times and rows.

    By Arnoldi's iteration. Arguments and errors as for `jacobian_norms`.
    """
    batch = along_time(batch)
    source = generator(seed)
    at = _times(times, 1, len(batch), source)
    joined = stackable(loss, batch, state)
    known = states_at(loss, batch, state, [t - 1 for t in at])
    pieces = [batch[t - 1 : t] for t in at]
    product = Product(loss, pieces, [known[t - 1] for t in at], joined)
    rows, size = product.shape
    start = torch.randn(size, generator=source, dtype=torch.float64).to(product.inputs[0][0])
    return largest_eigenvalue(
        lambda v: product.jvp(v.expand(rows, -1)).mean(0), start, tolerance=1e-6
    )


def spectral_radius(params: Mapping[str, Tensor]) -> dict[str, float]:
    """The largest modulus of an eigenvalue of each recurrent weight matrix (weight_hh…), by name.

    Args:
        params: by name; others than recurrent weights are passed over.

    Returns:
        One radius for each matrix of an RNN, and for each gate of a GRU or LSTM:
        ``{"rnn.weight_hh_l0.z": 0.9}``.
    """
    radii = {}
    for name, weight in params.items():
        blocks = weight.shape[0] / weight.shape[1] if weight.dim() == 2 else 0
        if "weight_hh" in name and blocks in _GATES:
            for gate, block in zip(_GATES[int(blocks)], weight.chunk(int(blocks)), strict=True):
                eigenvalues = torch.linalg.eigvals(block.detach().double())
                radii[name + gate] = float(eigenvalues.abs().max())
    return radii


def _lags(length: int) -> tuple[int, ...]:
    longest = max(1, length // 2)
    return tuple(2**i for i in range(longest.bit_length()))


def _times(
    times: int | Sequence[int], first: int, last: int, source: torch.Generator
) -> tuple[int, ...]:
    if isinstance(times, int):
        if times < 1:
            raise SettingError(f"times must be at least 1, got {times}")
        order = torch.randperm(last - first + 1, generator=source)[:times] + first
        return tuple(sorted(order.tolist()))
    chosen = tuple(sorted(set(times)))
    if not chosen or chosen[0] < first or chosen[-1] > last:
        raise SettingError(
            f"times must lie in {first} … {last}, from the longest lag to the end of the batch; "
            f"got {chosen}"
        )
    return chosen
