"""How much a state changes those after it: spectral norms and radii of the Jacobians of steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from throughtime.errors import SettingError
from throughtime.gradflow.jacobian_products import Product, generator, stackable, states_at
from throughtime.gradflow.krylov import largest_eigenvalue, largest_singular
from throughtime.gradflow.unrolled import Loss, Timed
from throughtime.state import State

_GATES = {1: ("",), 3: (".r", ".z", ".n"), 4: (".i", ".f", ".g", ".o")}


@dataclass(frozen=True)
class JacobianNorms:
    """The spectral norms ‖∂S_t/∂S_{t-k}‖ over the whole state.

    lags: the k. times: the t. values: float64 ``[lags, times, rows]``.
    """

    lags: tuple[int, ...]
    times: tuple[int, ...]
    values: Tensor

    @property
    def mean(self) -> list[float]:
        """By lag, over times and rows."""
        return [float(norms.mean()) for norms in self.values]

    def quantile(self, share: float) -> list[float]:
        """By lag: what `share` of the times and rows stay below."""
        return [float(norms.flatten().quantile(share)) for norms in self.values]


def jacobian_norms(
    loss: Loss,
    batch: Timed,
    state: State,
    lags: Sequence[int] | None = None,
    times: int | Sequence[int] = 32,
    seed: int = 0,
    tolerance: float = 1e-6,
) -> JacobianNorms:
    """The norms ‖∂S_t/∂S_{t-k}‖ at some times t, by products with the Jacobians only.

    loss: ``loss(batch, state) -> (summed loss, state)``, without random numbers. state: before the
    batch. lags: 1, 2, 4, 8, … up to half the batch where None. times: a number of them, drawn with
    `seed`, or the t themselves, ``max(lags) <= t <= T``. tolerance: relative, of each norm, in
    float64; rounding limits that of float32 to about 1e-5. All times and rows run together; each
    lag starts from the directions found for the one before.
    Raises SettingError for lags or times outside the batch.
    """
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
    found = []
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
        value, left = largest_singular(product.forward, product.back, start, tolerance)
        found.append(value.reshape(len(at), -1))
    return JacobianNorms(chosen, at, torch.stack(found).cpu())


def step_radius(
    loss: Loss, batch: Timed, state: State, times: int | Sequence[int] = 32, seed: int = 0
) -> float:
    """The spectral radius of the mean one-step Jacobian ∂S_t/∂S_{t-1} over times and rows."""
    source = generator(seed)
    at = _times(times, 1, len(batch), source)
    joined = stackable(loss, batch, state)
    known = states_at(loss, batch, state, [t - 1 for t in at])
    pieces = [batch[t - 1 : t] for t in at]
    product = Product(loss, pieces, [known[t - 1] for t in at], joined)
    rows, size = product.shape
    start = torch.randn(size, generator=source, dtype=torch.float64).to(product.inputs[0][0])
    return largest_eigenvalue(
        lambda v: product.forward(v.expand(rows, -1)).mean(0), start, tolerance=1e-6
    )


def spectral_radius(params: Mapping[str, Tensor]) -> dict[str, float]:
    """The largest modulus of an eigenvalue of each recurrent weight matrix (weight_hh…), by name.

    Those of a GRU and an LSTM are one for each gate: ``rnn.weight_hh_l0.z``.
    """
    found = {}
    for name, weight in params.items():
        blocks = weight.shape[0] / weight.shape[1] if weight.dim() == 2 else 0
        if "weight_hh" in name and blocks in _GATES:
            for gate, block in zip(_GATES[int(blocks)], weight.chunk(int(blocks)), strict=True):
                eigenvalues = torch.linalg.eigvals(block.detach().double())
                found[name + gate] = float(eigenvalues.abs().max())
    return found


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
