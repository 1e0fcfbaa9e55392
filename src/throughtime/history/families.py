"""Models of finite order, of one kind for every choice of lags, fitted to the same targets."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from scipy import stats

from throughtime.emissions import Categorical, StudentT
from throughtime.history.targets import Floats, Ints, Targets
from throughtime.history.work import Work
from throughtime.models.closed_form import ClosedForm
from throughtime.models.exponential_smoothing import ExponentialSmoothing
from throughtime.models.hmm import HiddenMarkov
from throughtime.models.lag_regression import LagRegression
from throughtime.models.sparse_ngram import Counts, SparseNGram, at_once

LONGEST = 40  # lags of which every one is used
STATES = (2, 3, 5)  # of the hidden Markov models
_ALPHABET = 64  # symbols of which one is tried
_KINDS = 16  # symbols distinguished by the scan: the most frequent ones
_SCANNED = 50_000  # targets
_SHARE = 1 / 5000  # of the work of a family: numbers in a design


class Family(Protocol):
    """Models of one kind, by the nearest lags 1 … `dense` and the lags `far` beyond them."""

    @property
    def train(self) -> Targets:
        """What they are fitted to."""

    @property
    def work(self) -> Work:
        """What they may do, and have done."""

    @property
    def name(self) -> str:
        """What to call them."""

    @property
    def most(self) -> int:
        """How many of the nearest lags may be used, all of them."""

    def fit(self, dense: int, far: tuple[int, ...] = ()) -> ClosedForm:
        """The model of these lags."""

    def nats(self, model: ClosedForm, targets: Targets) -> Floats:
        """Nats of targets under a model of the family, ``[n]``; counts as work."""

    def cost(self, dense: int, far: tuple[int, ...]) -> float:
        """Numbers gone through for the nats of one target."""

    def features(self) -> Floats:
        """What the scan looks at of each step of the training data, ``[total, F]``."""

    def unexplained(self, dense: int, far: tuple[int, ...]) -> tuple[Targets, Floats]:
        """Targets and what the model of these lags leaves of them, ``[n, G]``."""

    def latent(self, dense: int, far: tuple[int, ...], seed: int) -> list[tuple[str, ClosedForm]]:
        """The smallest models with a latent state, fitted, by name."""


@dataclass(frozen=True)
class ValueFamily:
    """Regressions of values: `LagRegression` of a shape, "linear" or "additive"."""

    train: Targets
    shape: str = "linear"
    work: Work = field(default_factory=lambda: Work(np.inf))
    fitted: dict[tuple[int, ...], LagRegression] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return f"{self.shape} autoregression"

    @property
    def emission(self) -> StudentT:
        return StudentT(self.train.data.values.shape[1])

    @property
    def most(self) -> int:
        each = LagRegression((1,), emission=self.emission, shape=self.shape).width
        columns = self.emission.columns
        width = each(columns) // columns - 1
        longest = int(self.train.age.max()) if len(self.train) else 0
        return max(0, min(LONGEST, len(self.train) // (10 * width), longest // 4))

    def fit(self, dense: int, far: tuple[int, ...] = ()) -> LagRegression:
        lags = (*range(1, dense + 1), *(lag for lag in far if lag > dense))
        if lags not in self.fitted:
            model = LagRegression(lags, emission=self.emission, shape=self.shape)
            self.fitted[lags] = self._fitted(model)
        return self.fitted[lags]

    def nats(self, model: ClosedForm, targets: Targets) -> Floats:
        assert isinstance(model, LagRegression)
        self.work.spend(len(targets) * _passes(model.width(self.emission.columns)))
        return targets.nats(model)

    def cost(self, dense: int, far: tuple[int, ...]) -> float:
        lags = range(1, 1 + dense + len(far))
        model = LagRegression(lags, emission=self.emission, shape=self.shape)
        return _passes(model.width(self.emission.columns))

    def features(self) -> Floats:
        values = self.train.data.values.numpy()
        near = values.clip(-5, 5)
        size = np.nan_to_num(np.abs(near) - 0.8)
        return np.concatenate([np.nan_to_num(values), size], 1)

    def unexplained(self, dense: int, far: tuple[int, ...]) -> tuple[Targets, Floats]:
        """Residuals as normal scores, and their squares less 1: ``[n, 2 D]``."""
        targets, model = self.train.subsampled(_SCANNED), self.fit(dense, far)
        x = targets.data.values[targets.rows]
        ranks = model.predict(targets.data, targets.rows).cdf(x).numpy()
        z = stats.norm.ppf(ranks.clip(1e-6, 1 - 1e-6)).clip(-3, 3)
        return targets, np.concatenate([z, z**2 - 1], 1)

    def latent(self, dense: int, far: tuple[int, ...], seed: int) -> list[tuple[str, ClosedForm]]:
        models: list[tuple[str, ClosedForm]] = []
        for shape, near in (("linear", 1), (self.shape, min(1, dense)), (self.shape, dense)):
            lags = (*range(1, near + 1), *(lag for lag in far if lag > near))
            model = ExponentialSmoothing(lags, emission=self.emission, shape=shape)
            models.append(("exponential smoothing model", self._fitted(model)))
        return models

    def _fitted(self, model: LagRegression) -> LagRegression:
        numbers = min(8e6, self.work.limit * _SHARE)
        self.work.spend(model.fit(self.train.data, self.train.rows, numbers))
        return model


def _passes(width: int) -> float:
    """Numbers gone through to make a design of that width and use it once."""
    return 4.0 * (width + 30)


@dataclass(frozen=True)
class SymbolFamily:
    """N-grams with far lags: `SparseNGram`. highest: the longest order of all."""

    train: Targets
    num_symbols: int
    highest: int
    work: Work = field(default_factory=lambda: Work(np.inf))
    name: str = "n-gram"

    @property
    def emission(self) -> Categorical:
        return Categorical(self.num_symbols)

    @property
    def most(self) -> int:
        return self.highest

    def fit(self, dense: int, far: tuple[int, ...] = ()) -> SparseNGram:
        far = tuple(lag for lag in far if lag > dense)
        model = SparseNGram(dense, far, emission=self.emission)
        if far:
            held = min(len(self.train), at_once(self.num_symbols)) / 2
            self.work.spend(40 * held * self.num_symbols * len(far))
        model.fit(self.train.data, self._counts)
        return model

    def nats(self, model: ClosedForm, targets: Targets) -> Floats:
        assert isinstance(model, SparseNGram)
        self.work.spend(len(targets) * self.cost(model.nearest, model.far))
        return targets.nats(model)

    def cost(self, dense: int, far: tuple[int, ...]) -> float:
        return 60.0 * (dense + 1) + (4.0 * self.num_symbols * (1 + len(far)) if far else 0.0)

    def features(self) -> Floats:
        """Which of the frequent symbols each step is."""
        kinds = self._kinds[self.train.data.values.numpy()]
        return np.eye(int(self._kinds.max()) + 1)[kinds]

    def unexplained(self, dense: int, far: tuple[int, ...]) -> tuple[Targets, Floats]:
        """What happened less what the model of the earlier half expected, on the later half."""
        rows = self._counts.late[-at_once(self.num_symbols) :]
        data, far = self.train.data, tuple(lag for lag in far if lag > dense)
        self.work.spend(len(rows) * (self.cost(dense, far) + 10 * self.num_symbols))
        half = self.fit(dense, far).halved(data, self._counts)
        left = -half.predict(data, rows).logits.exp().numpy()
        left[np.arange(len(rows)), data.values[rows].numpy()] += 1.0
        grouped = np.zeros((len(left), int(self._kinds.max()) + 1))
        for symbol, kind in enumerate(self._kinds):
            grouped[:, kind] += left[:, symbol]
        return Targets(data, rows), grouped

    def latent(self, dense: int, far: tuple[int, ...], seed: int) -> list[tuple[str, ClosedForm]]:
        models: list[tuple[str, ClosedForm]] = []
        for states in STATES if self.num_symbols <= _ALPHABET else ():
            model = HiddenMarkov(states, emission=self.emission, seed=seed)
            model.begin(self.train.data)
            models.append((f"hidden Markov model of {states} states", model))
        return models

    @cached_property
    def _counts(self) -> Counts:
        self.work.spend(1000.0 * len(self.train) * (self.highest + 1))
        return Counts.of(self.train.data, self.num_symbols, self.highest)

    @cached_property
    def _kinds(self) -> Ints:
        """The group of each symbol: its own if it is frequent, else one for all the rest."""
        values = self.train.data.values
        count = torch.bincount(values, minlength=self.num_symbols).numpy()
        kinds = np.full(self.num_symbols, min(_KINDS, self.num_symbols) - 1)
        for place, symbol in enumerate(np.argsort(-count, kind="stable")[: _KINDS - 1]):
            kinds[symbol] = place
        return kinds
