"""AR(τ) for symbols: an interpolated n-gram with modified Kneser-Ney smoothing.

Probability of symbol x after the context c of k symbols, n the count of (c, x), N = Σ_x n::

    P_k(x | c) = (n - D(n)) / N  +  γ(c) P_{k-1}(x | c without its oldest symbol),   P_{-1} = 1 / V
    γ(c) = Σ_x D(n(c, x)) / N,   so that the distribution sums to one whatever the discounts D are

The longest context uses how often (c, x) occurred; every shorter one uses its *continuation
count*, the number of different symbols seen before it (Kneser & Ney 1995), since a shorter context
is asked only where the longer one is at a loss. Chen & Goodman (1998) let D depend on n = 1, 2, 3+
and estimate it from counts of counts. Here D depends on n = 1, 2, 3, 4+ and on how many different
symbols followed c (1, 2-3, 4-7, 8+), and those few numbers per order maximise the likelihood of
held-out steps, with a prior centred on Chen & Goodman's; then the counts of all steps are used.

Contexts that reach back to the beginning of a sequence end in a start marker, which is never
predicted. All contexts form one trie in one sorted array: node 0 is the empty context, entry i
of `keys` is node i + 1, and its key is ``parent node * (V + 1) + symbol`` (V: the start marker).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from throughtime.errors import DataError, RunError, SettingError, VocabularyError

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

COUNTS = 4  # discounts for counts 1, 2, 3 and 4 or more
DIVERSITY = np.array([2, 4, 8])  # contexts followed by 1, 2-3, 4-7, 8+ different symbols
BUCKETS = len(DIVERSITY) + 1
TYPICAL = np.array([0.75, 1.15, 1.4, 1.5])  # discounts where the counts of counts say nothing
MAX_TUNING_STEPS = 100_000
WHOLE_SEQUENCES = 50  # from this many sequences on, whole ones are held out
_RUN = 2**20  # steps scored at once
HIGHEST, LOWER = 0, 1  # the two kinds of count: occurrences, continuations


class NGram:
    """Interpolated modified Kneser-Ney n-gram over the symbols 0 … `num_symbols` - 1.

    Made by `NGram.fit`. One fitted model of order τ contains those of all orders k < τ.
    `heldout_nats[k]`: nats per held-out step of order k, seen while the discounts were tuned (NaN
    where there were too few steps to hold any out).
    """

    def __init__(
        self,
        num_symbols: int,
        order: int,
        trie: _Trie,
        discounts: Floats,
        heldout_nats: Floats,
    ) -> None:
        self.num_symbols = num_symbols
        self.order = order
        self.discounts = discounts  # [2 kinds, order + 1, BUCKETS, COUNTS]
        self.heldout_nats = heldout_nats  # [order + 1]
        self._trie = trie
        weights = [trie.weights(kind, discounts[kind]) for kind in (HIGHEST, LOWER)]
        self._share = [share for share, _ in weights]  # per kind, over the nodes
        self._backoff = [backoff for _, backoff in weights]

    @classmethod
    def fit(
        cls,
        values: Tensor,
        offsets: Tensor,
        num_symbols: int,
        order: int,
        heldout: float = 0.1,
    ) -> NGram:
        """Counts all steps, after tuning the discounts on a `heldout` fraction of them.

        Args:
            values: int64 ``[total]``, sequences one after the other.
            offsets: int64 ``[N + 1]``, where they begin and end.
            num_symbols: V.
            order: the longest context.
            heldout: fraction held out: the last steps of each sequence, or every so-many-th whole
                sequence when there are 50 or more; 0: Chen & Goodman's discounts.

        Raises:
            SettingError: for sizes that make no sense.
            DataError: where there is nothing to count.
            VocabularyError: for other symbols.
        """
        if order < 0 or num_symbols < 1:
            raise SettingError(
                f"n-gram of order {order} over {num_symbols} symbols: "
                "the order must be 0 or more, with at least one symbol"
            )
        if not 0 <= heldout < 1:
            raise SettingError(f"heldout={heldout}: give a fraction of at least 0 and below 1")
        x, bounds = _checked(values, offsets, num_symbols)
        if len(x) == 0:
            raise DataError("no steps to count: the n-gram needs at least one symbol")
        trie = _Trie.count(x, bounds, num_symbols, order)
        discounts = np.stack([trie.estimates(kind) for kind in (HIGHEST, LOWER)])
        nats = np.full(order + 1, np.nan)
        held = _hold_out(bounds, heldout)
        if held.any():
            kept = np.concatenate([[0], np.cumsum(~held)])[bounds]
            part = _Trie.count(x[~held], kept, num_symbols, order)
            chosen = np.flatnonzero(held)
            chosen = chosen[:: -(-len(chosen) // MAX_TUNING_STEPS)]
            discounts, nats = _Tuning(part, x, bounds, chosen).run(discounts)
        return cls(num_symbols, order, trie, discounts, nats)

    @property
    def num_parameters(self) -> int:
        """Numbers that were fitted: one per n-gram seen, and the discounts."""
        return int((self._trie.counts[HIGHEST] > 0).sum()) + self.discounts.size

    def log_prob(self, values: Tensor, offsets: Tensor, order: int | None = None) -> Tensor:
        """Log-probability of each step in nats, float64 ``[total]``, under the nested `order`."""
        nats = [torch.zeros(0, dtype=torch.float64), *self.runs(values, offsets, order)]
        return torch.cat(nats)

    def runs(self, values: Tensor, offsets: Tensor, order: int | None = None) -> Iterator[Tensor]:
        """`log_prob` in consecutive runs of steps, of which no more is held than of one."""
        top = self._nested(order)
        x, bounds = _checked(values, offsets, self.num_symbols)
        for begin in range(0, len(x), _RUN):
            end = min(begin + _RUN, len(x))
            first = max(0, begin - top)  # all that the contexts of the run reach back to
            inside = np.unique(bounds.clip(first, end)) - first
            p = np.full(end - first, 1.0 / self.num_symbols)
            for level, context, gram in self._trie.walk(x[first:end], inside, top):
                kind = HIGHEST if level == top else LOWER
                p *= self._backoff[kind][context]
                p += self._share[kind][gram]
            yield torch.from_numpy(np.log(p[begin - first :]))

    def distribution(self, context: Tensor, order: int | None = None) -> Tensor:
        """The probability of every next symbol.

        Args:
            context: int64 ``[B, C]``, the newest symbol last, -1 before the start of the sequence;
                at least `order` columns, or fewer for a context that is unknown beyond them.
            order: a nested one; None: the longest.

        Returns:
            float64 ``[B, V]``.
        """
        self._check_paths(context)
        nodes = self.unknown(context.shape[0]).numpy()
        for x in context[:, max(0, context.shape[1] - self.order) :].numpy().T:
            nodes = self._advance(nodes, x)
        return self.probabilities(torch.from_numpy(nodes), order)

    def unknown(self, rows: int) -> Tensor:
        """The state of `rows` paths about whose past nothing is known, int64 ``[rows, order + 1]``.

        Column k is the trie node of the last k symbols, -1 where they were never seen.
        """
        nodes = torch.full((rows, self.order + 1), -1, dtype=torch.int64)
        nodes[:, 0] = 0
        return nodes

    def start(self, rows: int) -> Tensor:
        """The state of `rows` paths before their first symbol, int64 ``[rows, order + 1]``."""
        nodes = self.unknown(rows)
        nodes[:, 1:2] = self._trie.start
        return nodes

    def advance(self, nodes: Tensor, symbols: Tensor) -> Tensor:
        """The state after one more symbol on each path, int64 ``[B]``; -1 starts a new one."""
        self._check_paths(symbols)
        return torch.from_numpy(self._advance(nodes.numpy(), symbols.numpy()))

    def probabilities(self, nodes: Tensor, order: int | None = None) -> Tensor:
        """The probability of every next symbol in each state, ``[B, V]``, under a nested order."""
        top, trie = self._nested(order), self._trie
        context = nodes.numpy()[:, : top + 1]
        left = self._backoff[LOWER][context]
        left[:, top] = self._backoff[HIGHEST][context[:, top]]
        weight = np.ones((len(context), top + 2))  # of level -1, 0, …: what those above leave it
        np.cumprod(left[:, ::-1], axis=1, out=weight[:, -2::-1])
        size = trie.size[context]
        rows, level = np.nonzero(size)
        many = size[rows, level]
        shift = trie.first[context[rows, level]] - (np.cumsum(many) - many)
        entry = np.arange(many.sum()) + np.repeat(shift, many)
        highest = np.repeat(level == top, many)
        share = np.where(
            highest, self._share[HIGHEST][entry + 1], self._share[LOWER][entry + 1]
        ) * np.repeat(weight[rows, level + 1], many)
        columns = self.num_symbols + 1  # the start marker's share is zero
        cell = np.repeat(rows * columns, many) + trie.symbol[entry]
        p = np.bincount(cell, share, len(context) * columns).reshape(-1, columns)[:, :-1]
        return torch.from_numpy(p + weight[:, :1] / self.num_symbols)

    def tensors(self) -> dict[str, Tensor]:
        """Everything fitted, for a safetensors file; `from_tensors` reads it."""
        trie = self._trie
        return {
            "keys": torch.from_numpy(trie.keys),
            "levels": torch.from_numpy(trie.levels),
            "counts": torch.from_numpy(trie.counts.astype(np.int32)),
            "discounts": torch.from_numpy(self.discounts),
            "heldout_nats": torch.from_numpy(self.heldout_nats),
        }

    def settings(self) -> dict[str, int]:
        """What `from_tensors` needs besides the tensors; JSON-able."""
        return {"num_symbols": self.num_symbols, "order": self.order}

    @classmethod
    def from_tensors(cls, tensors: dict[str, Tensor], settings: dict[str, int]) -> NGram:
        """The model that `tensors` and `settings` came from. Raises RunError if they do not fit."""
        try:
            arrays = {name: tensors[name].numpy() for name in _TENSORS}
            num_symbols, order = settings["num_symbols"], settings["order"]
        except KeyError as missing:
            raise RunError(f"the stored n-gram lacks {missing}: fit it again") from None
        keys, levels, counts = arrays["keys"], arrays["levels"], arrays["counts"]
        fits = (
            levels.shape == (order + 2,)
            and levels[0] == 0
            and levels[-1] == len(keys)
            and counts.shape == (2, len(keys))
            and arrays["discounts"].shape == (2, order + 1, BUCKETS, COUNTS)
            and bool(np.all(np.diff(keys) > 0))
        )
        if not fits:
            raise RunError(f"the stored n-gram does not fit its order {order}: fit it again")
        trie = _Trie(num_symbols, keys, levels, counts.astype(np.int64))
        return cls(num_symbols, order, trie, arrays["discounts"], arrays["heldout_nats"])

    def _advance(self, before: Ints, x: Ints) -> Ints:
        after = np.zeros_like(before)
        after[:, 1:] = self._trie.find(before[:, :-1], x[:, None])
        fresh = x < 0
        if fresh.any():
            after[fresh] = self.start(1).numpy()
        return after

    def _check_paths(self, symbols: Tensor) -> None:
        if symbols.numel() and (symbols.min() < -1 or symbols.max() >= self.num_symbols):
            raise VocabularyError(
                f"symbols must lie in 0 … {self.num_symbols - 1}, or be -1 before the start"
            )

    def _nested(self, order: int | None) -> int:
        if order is None:
            return self.order
        if not 0 <= order <= self.order:
            raise SettingError(f"order={order}: this n-gram holds the orders 0 to {self.order}")
        return order


_TENSORS = ("keys", "levels", "counts", "discounts", "heldout_nats")


@dataclass
class _Trie:
    """Every context and its counts. Level k: entries ``levels[k] … levels[k + 1]``, (c, x), |c|=k.

    Arrays over nodes are ``len(keys) + 2`` long: the root, the entries, and at -1 a context that
    was never seen, which hence needs no case of its own.
    """

    num_symbols: int
    keys: Ints
    levels: Ints
    counts: Ints  # [2 kinds, entries]

    def __post_init__(self) -> None:
        self.parent, self.symbol = np.divmod(self.keys, self.num_symbols + 1)
        self.size = np.bincount(self.parent, minlength=len(self.keys) + 2)
        self.first = np.cumsum(self.size) - self.size
        self.start = int(self.size[0])  # the marker is the root's last child

    @classmethod
    def count(cls, x: Ints, bounds: Ints, num_symbols: int, order: int) -> _Trie:
        """Counts every step of the sequences `x`, cut at `bounds`, after up to `order` symbols."""
        starts = _starts(bounds)
        context = np.zeros(len(x), dtype=np.int64)
        nodes = np.zeros(len(x), dtype=np.int64)
        keys: list[Ints] = []
        levels = [0]
        occurrences: list[Ints] = []
        continuations: list[Ints] = []
        for level in range(order + 1):
            here = np.flatnonzero(context >= 0)
            key = context[here] * (num_symbols + 1) + x[here]
            if level == 0:
                key = np.append(key, num_symbols)  # the start marker, an entry without a count
            unique, entry, count = np.unique(key, return_inverse=True, return_counts=True)
            if level == 0:
                entry, count[-1] = entry[:-1], 0
            else:
                example = np.empty(len(unique), dtype=np.int64)
                example[entry] = here
                # How many longer entries end in each shorter one. None does where it begins with
                # the start marker: its occurrences stand in.
                shorter = nodes[example] - levels[-2] - 1
                extensions = np.bincount(shorter, minlength=len(occurrences[-1]))
                continuations.append(np.where(extensions > 0, extensions, occurrences[-1]))
            keys.append(unique)
            occurrences.append(count)
            nodes[here] = levels[-1] + entry + 1
            nodes[context < 0] = -1
            levels.append(levels[-1] + len(unique))
            context = _shift(nodes, starts, len(unique) if level == 0 else -1)
        continuations.append(occurrences[-1])
        counts = np.stack([np.concatenate(occurrences), np.concatenate(continuations)])
        return cls(num_symbols, np.concatenate(keys), np.array(levels), counts)

    def find(self, context: Ints, x: Ints, level: int | None = None) -> Ints:
        """The node of (context, x), -1 where it was never seen; faster if the `level` is known."""
        low, high = (0, len(self.keys)) if level is None else self.levels[level : level + 2]
        keys = self.keys[low:high]
        wanted = context * (self.num_symbols + 1) + x
        if len(keys) == 0:  # no sequence is that long
            return np.full(np.shape(wanted), -1)
        entry = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        return np.where(keys[entry] == wanted, entry + (low + 1), -1)

    def walk(self, x: Ints, bounds: Ints, top: int) -> Iterator[tuple[int, Ints, Ints]]:
        """Level by level, the nodes of each step's context and of the context with the step."""
        starts = _starts(bounds)
        context = np.zeros(len(x), dtype=np.int64)
        for level in range(top + 1):
            gram = self.find(context, x, level)
            yield level, context, gram
            context = _shift(gram, starts, self.start if level == 0 else -1)

    def spread(self, kind: int) -> tuple[Floats, Floats]:
        """Per node as a context: the sum of its counts, and how many are 1, 2, 3, 4+ ``[4, …]``."""
        count, nodes = self.counts[kind], len(self.keys) + 2
        total = np.bincount(self.parent, count, nodes).astype(np.float64)
        seen = count > 0
        which = (np.minimum(count, COUNTS) - 1)[seen] * nodes + self.parent[seen]
        classes = np.bincount(which, minlength=COUNTS * nodes).reshape(COUNTS, nodes)
        return total, classes.astype(np.float64)

    def bucket(self) -> Ints:
        """Per node as a context: the class of how many different symbols followed it."""
        return np.searchsorted(DIVERSITY, self.size, side="right")

    def weights(self, kind: int, discounts: Floats) -> tuple[Floats, Floats]:
        """Per node: (n - D) / N as an entry, and γ as a context."""
        count, bucket = self.counts[kind], self.bucket()[self.parent]
        level = np.repeat(np.arange(len(self.levels) - 1), np.diff(self.levels))
        discount = discounts[level, bucket, np.minimum(count, COUNTS) - 1]
        discount[count == 0] = 0.0
        total = np.bincount(self.parent, count, len(self.keys) + 2)
        share = np.zeros(len(total))
        share[1:-1] = (count - discount) / total[self.parent]
        kept_back = np.bincount(self.parent, discount, len(total))
        return share, np.divide(kept_back, total, out=np.ones(len(total)), where=total > 0)

    def estimates(self, kind: int) -> Floats:
        """Chen & Goodman's discounts ``[levels, BUCKETS, COUNTS]``, from the counts of counts."""
        result = np.empty((len(self.levels) - 1, BUCKETS, COUNTS))
        for level, (low, high) in enumerate(zip(self.levels, self.levels[1:], strict=False)):
            n = np.bincount(np.minimum(self.counts[kind, low:high], 5), minlength=6).astype(float)
            ratio = n[1] / max(n[1] + 2 * n[2], 1.0)
            for j in range(1, COUNTS + 1):
                value = j - (j + 1) * ratio * n[j + 1] / max(n[j], 1.0)
                sensible = j < COUNTS and n[j] >= 5 and n[j + 1] >= 1 and 0.05 * j < value
                result[level, :, j - 1] = value if sensible else TYPICAL[j - 1]
        return result


class _Tuning:
    """Maximum a posteriori discounts on the steps `chosen`, by L-BFGS with the exact gradient.

    A discount of count j is ``j · sigmoid(b)``; b has a Normal(estimate, 1) prior. The likelihood
    is the mean over the nested orders, each with discounts of its own for its longest context.
    """

    def __init__(self, trie: _Trie, x: Ints, bounds: Ints, chosen: Ints) -> None:
        self.steps, self.num_symbols = len(chosen), trie.num_symbols
        spread = [trie.spread(kind) for kind in (HIGHEST, LOWER)]
        bucket = trie.bucket()
        self.data: list[list[tuple[Floats, Ints, Floats, Ints, Floats]]] = [[], []]
        for _, context, gram in trie.walk(x, bounds, len(trie.levels) - 2):
            at, node = context[chosen], gram[chosen]
            for kind, (total, classes) in enumerate(spread):
                count = np.where(node > 0, trie.counts[kind][node - 1], 0)
                n = total[at]
                scale = np.divide(1.0, n, out=np.zeros(len(n)), where=n > 0)
                cell = bucket[at] * (COUNTS + 1) + np.minimum(count, COUNTS)
                self.data[kind].append(
                    (count * scale, cell, classes[:, at] * scale, bucket[at], scale)
                )

    def run(self, estimates: Floats) -> tuple[Floats, Floats]:
        """Discounts like `estimates`, ``[2, levels, BUCKETS, COUNTS]``; nats per step by order."""
        sizes = np.arange(1, COUNTS + 1)
        fraction = np.clip(estimates / sizes, 0.01, 0.99)
        centre = np.log(fraction / (1 - fraction)).ravel()

        def objective(b: Floats) -> tuple[float, Floats]:
            s = 1 / (1 + np.exp(-b))
            nats, gradient = self.evaluate((s.reshape(estimates.shape)) * sizes)
            slope = gradient.ravel() * (s * (1 - s)) * np.tile(sizes, b.size // COUNTS)
            prior = 0.5 * float(((b - centre) ** 2).sum()) / self.steps
            return float(nats.mean()) + prior, slope + (b - centre) / self.steps

        best = minimize(
            objective,
            centre,
            jac=True,
            method="L-BFGS-B",
            bounds=[(-9.0, 9.0)] * centre.size,
            options={"maxiter": 60},
        )
        discounts = (1 / (1 + np.exp(-best.x))).reshape(estimates.shape) * sizes
        return discounts, self.evaluate(discounts)[0]

    def evaluate(self, discounts: Floats) -> tuple[Floats, Floats]:
        """Nats per step of each nested order, and the gradient of their mean by the discounts."""
        levels = discounts.shape[1]
        p = [np.full(self.steps, 1.0 / self.num_symbols)]  # P_{k-1} with continuation counts
        backoff: list[list[Floats]] = [[], []]
        whole = []
        for level in range(levels):
            distributions = []
            for kind in (HIGHEST, LOWER):
                ratio, cell, classes, bucket, scale = self.data[kind][level]
                table = discounts[kind, level]
                taken = np.pad(table, ((0, 0), (1, 0))).ravel()[cell]
                left = np.where(scale > 0, np.einsum("jn,nj->n", classes, table[bucket]), 1.0)
                backoff[kind].append(left)
                distributions.append(ratio - taken * scale + left * p[level])
            whole.append(distributions[HIGHEST])
            p.append(distributions[LOWER])
        gradient = np.zeros(discounts.shape)
        onward = np.zeros(self.steps)  # d objective / d P_k with continuation counts
        for level in range(levels - 1, -1, -1):
            slopes = (-1 / (whole[level] * (self.steps * levels)), onward)
            onward = np.zeros(self.steps)
            for kind, slope in enumerate(slopes):
                _, cell, classes, bucket, scale = self.data[kind][level]
                onward = onward + slope * backoff[kind][level]
                cells = np.bincount(cell, -slope * scale, BUCKETS * (COUNTS + 1))
                gradient[kind, level] = cells.reshape(BUCKETS, -1)[:, 1:]
                for j in range(COUNTS):
                    gradient[kind, level, :, j] += np.bincount(
                        bucket, slope * classes[j] * p[level], BUCKETS
                    )
        return np.array([-np.log(distribution).mean() for distribution in whole]), gradient


def _checked(values: Tensor, offsets: Tensor, num_symbols: int) -> tuple[Ints, Ints]:
    x, bounds = values.numpy(), offsets.numpy()
    if bounds.ndim != 1 or bounds[0] != 0 or bounds[-1] != len(x) or np.any(np.diff(bounds) < 0):
        raise DataError(f"offsets must rise from 0 to the number of steps, {len(x)}")
    outside = np.flatnonzero((x < 0) | (x >= num_symbols))
    if len(outside):
        raise VocabularyError(
            f"symbol {x[outside[0]]} at step {outside[0]}: "
            f"the n-gram knows the symbols 0 … {num_symbols - 1}"
        )
    return x, bounds


def _starts(bounds: Ints) -> Ints:
    """Where each sequence that is not empty begins."""
    return bounds[:-1][np.diff(bounds) > 0]


def _shift(nodes: Ints, starts: Ints, at_start: int) -> Ints:
    """Each step's context, one symbol longer: the previous step's n-gram of the same sequence."""
    context = np.empty_like(nodes)
    context[1:] = nodes[:-1]
    context[starts] = at_start
    return context


def _hold_out(bounds: Ints, fraction: float) -> NDArray[np.bool_]:
    """The steps to hold out: whole sequences if there are many, else the end of each."""
    lengths = np.diff(bounds)
    if fraction and (lengths > 0).sum() >= WHOLE_SEQUENCES:
        every = max(2, round(1 / fraction))
        return np.repeat(np.arange(len(lengths)) % every == every - 1, lengths)
    place = np.arange(bounds[-1]) - np.repeat(bounds[:-1], lengths)
    return place >= np.repeat(lengths - np.floor(fraction * lengths), lengths)
