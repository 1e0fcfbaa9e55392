"""Symbols by an n-gram of the last few, and single symbols of long ago.

    P(x | past) ∝ P_ngram(x | last d symbols) · ∏_j (P(x | x_{t-j}) / P(x)) ^ w_j

The n-gram is the interpolated one of `ngram` (Kneser & Ney 1995; Chen & Goodman 1998). A far lag j
enters by the table of pairs that lie j apart, smoothed towards the symbols' own frequencies; the
weights w are those that make the later half of the training data most likely under an n-gram and
tables of the earlier half, so that what one of them says already is not counted twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from throughtime.data.sequences import Sequences
from throughtime.emissions import Categorical
from throughtime.emissions.categorical import CategoricalDistribution
from throughtime.errors import SettingError
from throughtime.models.closed_form import ClosedForm, Unfitted
from throughtime.models.lag_regression import subsampled
from throughtime.models.ngram import NGram
from throughtime.state import State

Floats = NDArray[np.float64]

_HELD = 2_000_000  # probabilities held at once
_LEAST = -700.0  # of a log-probability: one that underflows is still possible
_STRENGTH = 2.0  # pseudo-observations of the symbols' own frequencies in each table


class Counts(NamedTuple):
    """N-grams of the training data, which models of several lags share.

    whole: of all of it; half: of the earlier half of its steps. early, late: those halves, int64.
    """

    whole: NGram
    half: NGram | None
    early: Tensor
    late: Tensor

    @classmethod
    def of(cls, train: Sequences, num_symbols: int, order: int, halves: bool = True) -> Counts:
        """Counts up to `order`; the half only where `halves` asks for it."""
        rows = train.scored().nonzero().flatten()
        early, late = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        whole = NGram.fit(*_contiguous(train, rows), num_symbols, order)
        half = NGram.fit(*_contiguous(train, early), num_symbols, order) if halves else None
        return cls(whole, half, early, late)


class SparseNGram(ClosedForm):
    """``P(X_t | last `order` symbols, and those at the lags `far`)``: see above.

    Args:
        order: of the n-gram.
        far: lags beyond it, ascending.
        emission: Categorical.
        num_differencing: 0; symbols are not differenced.
    """

    def __init__(
        self,
        order: int,
        far: Sequence[int] = (),
        *,
        emission: Categorical,
        num_differencing: int = 0,
    ) -> None:
        if not isinstance(emission, Categorical) or num_differencing:
            raise SettingError(f"an n-gram counts symbols; it cannot emit {emission}")
        if list(far) != sorted(set(far)) or min(far, default=order + 1) <= order:
            raise SettingError(
                f"far lags {tuple(far)} must lie beyond the order {order} and ascend"
            )
        super().__init__(emission)
        self.num_symbols = emission.num_symbols
        self.nearest, self.far = order, tuple(far)
        self.core: NGram | None = None
        self.tables = torch.zeros(len(far), emission.num_symbols + 1, emission.num_symbols).double()
        self.weights = torch.zeros(len(far)).double()

    @property
    def order(self) -> int:
        """The longest lag."""
        return max((self.nearest, *self.far))

    def settings(self) -> dict[str, Any]:
        return {
            "kind": "sparse_ngram",
            "order": self.nearest,
            "far": list(self.far),
            "emission": self.emission.to_json(),
        }

    def begin(self, train: Sequences) -> None:
        """Counts the training data, and fits the weights of the far lags."""
        self.fit(train, Counts.of(train, self.num_symbols, self.nearest, bool(self.far)))

    def fit(self, train: Sequences, counts: Counts) -> None:
        """Fits the model with counts that may belong to longer orders too."""
        self.core = counts.whole
        if not self.far:
            return
        tables = np.stack([self._table(train, counts.early, lag) for lag in self.far])
        self.weights = torch.from_numpy(self._weights(train, counts, tables))
        rows = torch.cat([counts.early, counts.late])
        self.tables = torch.from_numpy(np.stack([self._table(train, rows, j) for j in self.far]))

    def halved(self, train: Sequences, counts: Counts) -> SparseNGram:
        """The same of the earlier half of the training data, but for its weights."""
        assert counts.half is not None
        half = SparseNGram(self.nearest, self.far, emission=self.emission)  # type: ignore[arg-type]
        half.core = counts.half
        if self.far:
            tables = np.stack([self._table(train, counts.early, lag) for lag in self.far])
            half.tables, half.weights = torch.from_numpy(tables), self.weights
        return half

    def predict(self, data: Sequences, rows: Tensor) -> CategoricalDistribution:
        lags = range(self.nearest, 0, -1)
        context = torch.stack([before(data, rows, j, -1) for j in lags], 1) if lags else None
        if context is None:
            context = torch.empty(len(rows), 0, dtype=torch.int64)
        table = self._core().distribution(context, self.nearest).log().clamp(min=_LEAST)
        far = [before(data, rows, lag, self.num_symbols) for lag in self.far]
        return self._tilted(table, far)

    def log_prob_at(self, data: Sequences, rows: Tensor) -> Tensor:
        if self.far or 20 * len(rows) < len(data.values):
            return super().log_prob_at(data, rows)
        return self._core().log_prob(data.values, data.offsets, self.nearest)[rows]

    def memory(self, rows: int, cut: bool = False) -> State:
        """Trie nodes ``[1, B, order + 1]``, and the symbols as far back as is looked."""
        core = self._core()
        nodes = core.unknown(rows) if cut else core.start(rows)
        furthest = max(self.far, default=0)
        last = torch.full((1, rows, furthest), self.num_symbols, dtype=torch.int64)
        return nodes.unsqueeze(0), last

    def advance(self, x: Tensor, state: State) -> State:
        nodes, last = state[1]
        after = self._core().advance(nodes[0], x).unsqueeze(0)
        if not self.far:
            return after, last
        return after, torch.cat([last[..., 1:], x.reshape(1, -1, 1)], -1)

    def predictive(self, state: State) -> CategoricalDistribution:
        nodes, last = state[1]
        shape = nodes.shape[:2]
        near = self._core().probabilities(nodes.flatten(0, 1), self.nearest)
        table = near.log().clamp(min=_LEAST)
        tilted = self._tilted(table, [last[..., -lag].flatten() for lag in self.far])
        return CategoricalDistribution(tilted.logits.unflatten(0, shape))

    def extra_tensors(self) -> dict[str, Tensor]:
        if self.core is None:
            return {}
        return {"tables": self.tables, "weights": self.weights, **self.core.tensors()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        if tensors:
            self.tables, self.weights = tensors["tables"], tensors["weights"]
            order = len(tensors["levels"]) - 2
            sizes = {"num_symbols": self.num_symbols, "order": order}
            self.core = NGram.from_tensors(tensors, sizes)

    def num_parameters(self) -> int:
        pairs = self.tables.numel() + self.weights.numel()
        return pairs + (0 if self.core is None else self.core.num_parameters)

    def _core(self) -> NGram:
        if self.core is None:
            raise Unfitted
        return self.core

    def _tilted(self, table: Tensor, far: list[Tensor]) -> CategoricalDistribution:
        """log P ``[n, V]`` under the n-gram, changed by the symbols at the far lags, ``[n]``."""
        for symbols, pairs, weight in zip(far, self.tables, self.weights, strict=True):
            table = table + weight * pairs[symbols]
        return CategoricalDistribution(torch.log_softmax(table, -1) if far else table)

    def _table(self, train: Sequences, rows: Tensor, lag: int) -> Floats:
        """log P(x | the symbol `lag` before) - log P(x), smoothed towards 0; last: none there."""
        v = self.num_symbols
        now, then = train.values[rows].numpy(), before(train, rows, lag, v).numpy()
        pairs = np.bincount(then * v + now, minlength=(v + 1) * v).reshape(v + 1, v).astype(float)
        base = (np.bincount(now, minlength=v) + 0.5) / (len(now) + 0.5 * v)
        table = (pairs + _STRENGTH * base) / (pairs.sum(1, keepdims=True) + _STRENGTH) / base
        table[v] = 1.0
        return np.log(table)

    def _weights(self, train: Sequences, counts: Counts, tables: Floats) -> Floats:
        """How much each far lag adds to the n-gram, most likely on steps not counted before."""
        assert counts.half is not None
        rows = subsampled(counts.late, at_once(self.num_symbols) // 2)
        alone = SparseNGram(self.nearest, emission=self.emission)  # type: ignore[arg-type]
        alone.core = counts.half
        near = alone.predict(train, rows).logits.numpy()
        v = self.num_symbols
        says = np.stack(
            [t[before(train, rows, j, v).numpy()] for j, t in zip(self.far, tables, strict=True)]
        )
        now, each = train.values[rows].numpy(), np.arange(len(rows))

        def objective(weights: Floats) -> tuple[float, Floats]:
            logits = near + np.tensordot(weights, says, 1)
            top = logits.max(1, keepdims=True)
            total = np.log(np.exp(logits - top).sum(1, keepdims=True)) + top
            expected = np.exp(logits - total)
            gradient = (says * expected).sum((1, 2)) - says[:, each, now].sum(1)
            return float((total[:, 0] - logits[each, now]).mean()), gradient / len(now)

        optimum = minimize(
            objective, np.full(len(self.far), 0.5), jac=True, method="L-BFGS-B",
            bounds=[(0.0, 2.0)] * len(self.far),
        )  # fmt: skip
        return np.asarray(optimum.x)


def at_once(num_symbols: int) -> int:
    """How many distributions over all symbols to hold."""
    return min(20_000, max(100, _HELD // num_symbols))


def before(data: Sequences, rows: Tensor, lag: int, nothing: int) -> Tensor:
    """The symbol `lag` steps before each of some steps; `nothing` where its sequence begins."""
    first = data.offsets[torch.searchsorted(data.offsets, rows, right=True) - 1]
    place = rows - lag
    return torch.where(place >= first, data.values[place.clamp(min=0)].long(), nothing)


def _contiguous(data: Sequences, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Some steps as sequences of their own."""
    return data.values[rows], torch.searchsorted(rows, data.offsets)
