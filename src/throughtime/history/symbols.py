"""Windows of symbols: an n-gram of the last few, and single symbols of long ago.

    P(x | past) ∝ P_ngram(x | last d symbols) · ∏_j (P(x | x_{t-j}) / P(x)) ^ w_j

The n-gram of the highest order holds those of all lower ones. A far lag j enters by the table of
pairs that lie j apart; the weights w are those that make held-out halves most likely, so that what
the n-gram or another lag says already is not counted twice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from scipy.optimize import minimize

from throughtime.history.parts import Floats, Ints, Part
from throughtime.models.ngram import NGram

_HELD = 2_000_000  # probabilities held at once
_KINDS = 16  # symbols told apart by the scan: the most frequent ones


@dataclass(frozen=True)
class SymbolLaw:
    """The distribution of each step given its n-gram and the symbols at far lags."""

    ngram: NGram
    dense: int
    sparse: tuple[int, ...]
    tables: tuple[Floats, ...]  # [V + 1, V] each, log ratios; the last row: nothing there yet
    weights: Floats

    def nats(self, part: Part) -> Floats:
        """Nats of every target, ``[n]``."""
        if not self.sparse and not part.shuffled:
            inside = self.ngram.log_prob(
                torch.from_numpy(part.values), torch.from_numpy(part.offsets), self.dense
            )
            return -inside.numpy()[part.rows] - part.log_det[part.rows]
        found = np.empty(len(part))
        chunk = _at_once(self.ngram.num_symbols)
        for begin in range(0, len(part), chunk):
            piece = slice(begin, begin + chunk)
            distribution = self.log_distribution(part, piece)
            rows = part.rows[piece]
            found[piece] = (
                -distribution[np.arange(len(distribution)), part.values[rows]] - part.log_det[rows]
            )
        return found

    def log_distribution(self, part: Part, piece: slice) -> Floats:
        """log P of every symbol at some targets, ``[n, V]``."""
        distributions = np.log(ngram_distribution(self.ngram, self.dense, part, piece))
        if not self.sparse:
            return distributions
        for lag, table, weight in zip(self.sparse, self.tables, self.weights, strict=True):
            distributions += (
                weight * table[_symbols_before(part, lag, self.ngram.num_symbols)[piece]]
            )
        top = distributions.max(1, keepdims=True)
        return distributions - top - np.log(np.exp(distributions - top).sum(1, keepdims=True))


@dataclass(frozen=True)
class Symbols:
    """Fits distributions of symbols. Windows are described by an order and far lags."""

    learn: Part
    num_symbols: int
    highest: int
    name: str = "n-gram"

    @property
    def most(self) -> int:
        """The longest window in which every lag is used."""
        return self.highest

    def fit(self, dense: int, sparse: tuple[int, ...] = ()) -> SymbolLaw:
        """The distribution given the last `dense` symbols and those at the lags `sparse`."""
        far = tuple(lag for lag in sparse if lag > dense)
        if not far:
            return SymbolLaw(self._whole, dense, (), (), np.zeros(0))
        early, late = self._halves
        tables = [self._table(early, lag) for lag in far]
        weights = self._weights(dense, far, tables, late)
        return SymbolLaw(
            self._whole, dense, far, tuple(self._table(self.learn, lag) for lag in far), weights
        )

    def features(self, part: Part) -> Floats:
        """What the scan looks at of each step: which of the frequent symbols it is."""
        return _one_hot(self._kinds[part.values])

    def unseen(self, dense: int, sparse: tuple[int, ...]) -> tuple[Part, Floats]:
        """Targets and what the distribution of this window, fitted to others, leaves of them."""
        early, late = self._halves
        late = late.latest(_at_once(self.num_symbols))
        far = tuple(lag for lag in sparse if lag > dense)
        tables = [self._table(early, lag) for lag in far]
        weights = self._weights(dense, far, tables, late) if far else np.zeros(0)
        distribution = SymbolLaw(self._half, dense, far, tuple(tables), weights)
        expected = np.exp(distribution.log_distribution(late, slice(None)))
        happened = np.zeros_like(expected)
        happened[np.arange(len(late)), late.values[late.rows]] = 1.0
        left = happened - expected
        grouped = np.zeros((len(left), int(self._kinds.max()) + 1))
        for symbol, kind in enumerate(self._kinds):
            grouped[:, kind] += left[:, symbol]
        return late, grouped

    @cached_property
    def _whole(self) -> NGram:
        values, offsets = _contiguous(self.learn)
        return NGram.fit(values, offsets, self.num_symbols, self.highest)

    @cached_property
    def _half(self) -> NGram:
        values, offsets = _contiguous(self._halves[0])
        return NGram.fit(values, offsets, self.num_symbols, self.highest)

    @cached_property
    def _halves(self) -> tuple[Part, Part]:
        """The earlier and the later half of the targets."""
        cut = len(self.learn) // 2
        rows = self.learn.rows
        early = replace(self.learn, rows=rows[:cut], anchors=rows[:cut])
        late = replace(self.learn, rows=rows[cut:], anchors=rows[cut:])
        return early, late

    @cached_property
    def _kinds(self) -> Ints:
        """The group of each symbol: its own if it is frequent, else one for all the rest."""
        count = np.bincount(self.learn.values, minlength=self.num_symbols)
        kinds = np.full(self.num_symbols, min(_KINDS, self.num_symbols) - 1)
        for place, symbol in enumerate(np.argsort(-count, kind="stable")[: _KINDS - 1]):
            kinds[symbol] = place
        return kinds

    def _table(self, part: Part, lag: int) -> Floats:
        """log P(x | the symbol `lag` before) - log P(x), smoothed towards 0."""
        v = self.num_symbols
        now = part.values[part.rows]
        then = _symbols_before(part, lag, v)
        pairs = np.bincount(then * v + now, minlength=(v + 1) * v).reshape(v + 1, v).astype(float)
        base = (np.bincount(now, minlength=v) + 0.5) / (len(now) + 0.5 * v)
        strength = 2.0  # pseudo-observations of the memoryless distribution
        table = (pairs + strength * base) / (pairs.sum(1, keepdims=True) + strength) / base
        table[v] = 1.0
        return np.log(table)

    def _weights(
        self, dense: int, far: tuple[int, ...], tables: list[Floats], late: Part
    ) -> Floats:
        """How much each far lag adds to the n-gram, most likely on targets it was not fitted to."""
        part = late.thinned(_at_once(self.num_symbols) // 2)
        base = np.log(ngram_distribution(self._half, dense, part, slice(None)))
        v = self.num_symbols
        says = np.stack(
            [t[_symbols_before(part, lag, v)] for lag, t in zip(far, tables, strict=True)]
        )
        now = part.values[part.rows]
        each = np.arange(len(now))

        def objective(weights: Floats) -> tuple[float, Floats]:
            logits = base + np.tensordot(weights, says, 1)
            top = logits.max(1, keepdims=True)
            total = np.log(np.exp(logits - top).sum(1, keepdims=True)) + top
            distribution = np.exp(logits - total)
            gradient = (says * distribution).sum((1, 2)) - says[:, each, now].sum(1)
            return float((total[:, 0] - logits[each, now]).mean()), gradient / len(now)

        found = minimize(
            objective, np.full(len(far), 0.5), jac=True, method="L-BFGS-B",
            bounds=[(0.0, 2.0)] * len(far),
        )  # fmt: skip
        return np.asarray(found.x)


def _at_once(num_symbols: int) -> int:
    """How many distributions over all symbols to hold."""
    return min(20_000, max(100, _HELD // num_symbols))


def ngram_distribution(ngram: NGram, dense: int, part: Part, piece: slice) -> Floats:
    """P of every symbol after the last `dense` of some targets, ``[n, V]``."""
    place, begun = part.before(np.arange(dense, 0, -1))
    context = np.where(begun, part.values[place], -1)[piece]
    distribution = ngram.distribution(torch.from_numpy(np.ascontiguousarray(context)), dense)
    return np.maximum(distribution.numpy(), math.exp(-700))


def _symbols_before(part: Part, lag: int, nothing: int) -> Ints:
    place, begun = part.before(lag)
    return np.where(begun, part.values[place], nothing)


def _one_hot(kinds: Ints) -> Floats:
    return np.eye(int(kinds.max()) + 1)[kinds]


def _contiguous(part: Part) -> tuple[torch.Tensor, torch.Tensor]:
    """The targets as sequences of their own."""
    return torch.from_numpy(part.values[part.rows]), torch.from_numpy(part.bounds)
