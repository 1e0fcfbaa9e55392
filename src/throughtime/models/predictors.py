"""What an autoregressive model predicts from its last τ elements: a line, a network or counts.

A predictor's state has the batch on dim 1, as every state here: the last τ values
``[τ, B, D]`` with how many of them are known ``[1, B]``, or the n-gram's trie nodes
``[1, B, τ + 1]``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from throughtime.data.batching import Batch
from throughtime.data.sequences import Sequences
from throughtime.emissions import Categorical, Distribution, Emission, Normal, StudentT
from throughtime.emissions.categorical import CategoricalDistribution
from throughtime.emissions.normal import NormalDistribution
from throughtime.emissions.student_t import StudentTDistribution
from throughtime.errors import SettingError
from throughtime.models.encoders import encoder, known_covariates
from throughtime.models.linear_ar import LinearAR, fit_normal, fit_student_t
from throughtime.models.ngram import NGram
from throughtime.state import State


class Predictor(nn.Module, ABC):
    """The distribution of X_t given the last `order` elements."""

    order: int
    closed_form = True  # `fit` finds the parameters; otherwise they are trained

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """Before the first element: nothing is known."""

    @abstractmethod
    def distribution(self, batch: Batch, state: State) -> tuple[Distribution, State]:
        """The distributions ``[T, B]`` of a batch, and the state after it."""

    def read(self, batch: Batch, state: State) -> State:
        """The state after a batch, where nobody asks for the distributions."""
        return self.distribution(batch, state)[1]

    @abstractmethod
    def step(
        self, previous: Tensor | None, state: State, covariates: Tensor | None
    ) -> tuple[Distribution, State]:
        """The distribution ``[B]`` of the next element, and the state."""

    @abstractmethod
    def fit(self, train: Sequences) -> None:
        """Fits in closed form what can be; a network starts at the marginal distribution."""

    def tensors(self) -> dict[str, Tensor]:
        """Fitted arrays beside the registered parameters."""
        return {}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Puts back what `tensors` gave."""

    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.parameters())


class FiniteOrder(Predictor):
    """Predictors of real values or symbols from the last τ elements, which are the state."""

    def __init__(
        self, order: int, emission: Emission, covariates: int, num_differencing: int
    ) -> None:
        super().__init__()
        self.order, self.emission, self.covariates = order, emission, covariates
        self.num_differencing = num_differencing  # leading values of another scale: not used
        self.register_buffer("_dtype_of", torch.empty(0), persistent=False)

    def initial_state(self, batch_size: int) -> State:
        tail = () if self.emission.symbols else (self.emission.columns,)
        kind = torch.int64 if self.emission.symbols else self._dtype()
        last = torch.zeros(self.order, batch_size, *tail, dtype=kind)
        return last, torch.zeros(1, batch_size, dtype=torch.int64)

    @abstractmethod
    def from_past(self, past: Tensor, known: Tensor, covariates: Tensor | None) -> Distribution:
        """The distribution given the last ``[..., τ]`` or ``[..., τ, D]``; `known` ones count."""

    def distribution(self, batch: Batch, state: State) -> tuple[Distribution, State]:
        line, count = self._pasts(batch, state)
        # [T, B, τ] or [T, B, D, τ], newest last
        pasts = line.unfold(0, self.order, 1)[1:] if self.order else line.unsqueeze(-1)[..., :0]
        if not self.emission.symbols:
            pasts = pasts.transpose(-1, -2)
        distribution = self.from_past(pasts, self._usable(count), batch.covariates)
        return distribution, self._after(line, count)

    def read(self, batch: Batch, state: State) -> State:
        return self._after(*self._pasts(batch, state))

    def _after(self, line: Tensor, count: Tensor) -> State:
        return line[len(line) - self.order :], self._enough(count[-1:])

    def _pasts(self, batch: Batch, state: State) -> tuple[Tensor, Tensor]:
        """The values before each step, ``[τ + T, B, ...]``, and how many of them are its own."""
        last, known = state
        steps = len(batch)
        line = torch.cat([last, batch.previous.to(last.dtype)])  # [τ + T, B, ...]
        # How many predecessors each step has: counted since its sequence (or piece) began.
        count = torch.arange(1, steps + 1).unsqueeze(1) + known
        since = torch.where(batch.reset, torch.arange(steps).unsqueeze(1), -1).cummax(0).values
        fresh = torch.arange(steps).unsqueeze(1) - since
        begun = batch.start.gather(0, since.clamp(min=0))
        return line, torch.where(since >= 0, fresh + 1 - begun.long(), count)

    def step(
        self, previous: Tensor | None, state: State, covariates: Tensor | None
    ) -> tuple[Distribution, State]:
        last, known = state
        if previous is not None:
            last = torch.cat([last, previous.to(last.dtype).unsqueeze(0)])[1:]
            last = last[len(last) - self.order :]
            known = self._enough(known + 1)
        past = last.movedim(0, 1)
        distribution = self.from_past(past, self._usable(known[0]), covariates)
        return distribution, (last, known)

    def _enough(self, count: Tensor) -> Tensor:
        """No more than makes a difference: however long a past is, its end is its state."""
        return count.clamp(max=self.order + self.num_differencing)

    def _usable(self, count: Tensor) -> Tensor:
        return (count - self.num_differencing).clamp(min=0, max=self.order)

    def _dtype(self) -> torch.dtype:
        dtype_of: Tensor = self._dtype_of  # type: ignore[assignment]
        return dtype_of.dtype


class ConstantPredictor(FiniteOrder):
    """The same distribution at every step: the marginal distribution of the training values,
    whatever the past.
    """

    def __init__(
        self, order: int, emission: Emission, covariates: int, num_differencing: int
    ) -> None:
        if order:
            raise SettingError(f"a constant distribution looks at no lags; got order {order}")
        super().__init__(order, emission, covariates, num_differencing)
        self.register_buffer("raw", torch.zeros(emission.num_parameters, dtype=torch.float64))
        self.double()

    def fit(self, train: Sequences) -> None:
        self.raw = self.emission.initial(marginal_values(train))

    def from_past(self, past: Tensor, known: Tensor, covariates: Tensor | None) -> Distribution:
        return self.emission.distribution(self.raw.expand(*known.shape, -1))

    def num_parameters(self) -> int:
        return self.emission.num_parameters


class LinearPredictor(FiniteOrder):
    """Linear in the last τ values, Normal or Student-t noise, in closed form (see `LinearAR`).

    A step with fewer than τ observed predecessors uses the shorter regression fitted beside it.
    """

    def __init__(
        self, order: int, emission: Emission, covariates: int, num_differencing: int
    ) -> None:
        if not isinstance(emission, (Normal, StudentT)) or emission.rank:
            raise SettingError(
                "a linear autoregression has Normal or StudentT noise with rank=0; "
                f"use predictor='mlp' for {emission}"
            )
        super().__init__(order, emission, covariates, num_differencing)
        self.core: LinearAR | None = None
        self.double()

    def fit(self, train: Sequences) -> None:
        lengths = train.lengths.tolist()
        # Undifferenced first values obey another distribution: to the regression they are missing.
        values = torch.where(train.initial.unsqueeze(1), torch.nan, train.values)
        covariates = None
        if self.covariates and train.covariates is not None:
            covariates = train.covariates.split(lengths)
        fit = fit_student_t if isinstance(self.emission, StudentT) else fit_normal
        self.core = fit(values.split(lengths), self.order, covariates=covariates)

    def from_past(self, past: Tensor, known: Tensor, covariates: Tensor | None) -> Distribution:
        if self.core is None:
            raise SettingError("this autoregression has not been fitted; call fit(train) first")
        shape = known.shape
        past = past.double().flatten(0, len(shape) - 1)
        gap = past.isnan().any(-1).flip(-1)  # newest first
        until_gap = torch.where(gap.any(-1), gap.long().argmax(-1) if self.order else 0, self.order)
        count = torch.minimum(known.flatten(), until_gap)
        u = None
        if self.covariates and covariates is not None:
            u = covariates.double().flatten(0, len(shape) - 1)
        given = self.core.mean(past, count, u)
        location, scale = given.location.unflatten(0, shape), given.scale.unflatten(0, shape)
        if given.df is None:
            return NormalDistribution(location, scale)
        return StudentTDistribution(location, scale, given.df.unflatten(0, shape))

    def tensors(self) -> dict[str, Tensor]:
        return {} if self.core is None else self.core.tensors()

    def restore(self, tensors: dict[str, Tensor]) -> None:
        if tensors:
            self.core = LinearAR.from_tensors(tensors, {"num_covariates": self.covariates})

    def num_parameters(self) -> int:
        return 0 if self.core is None else self.core.num_parameters


class NetworkPredictor(FiniteOrder):
    """A multilayer perceptron over the last τ elements, each encoded as in the latent models."""

    closed_form = False

    def __init__(
        self,
        order: int,
        emission: Emission,
        covariates: int,
        num_differencing: int,
        hidden_size: int = 128,
        embedding_size: int = 16,
    ) -> None:
        super().__init__(order, emission, covariates, num_differencing)
        self.encoder = encoder(emission, embedding_size)
        self.hidden_size = hidden_size
        self.inner = nn.Linear(max(1, order) * self.encoder.size + covariates, hidden_size)
        self.second = nn.Linear(hidden_size, hidden_size)
        self.outer = nn.Linear(hidden_size, emission.num_parameters)

    @torch.no_grad()
    def fit(self, train: Sequences) -> None:
        self.outer.weight.mul_(0.1)
        self.outer.bias.copy_(self.emission.initial(marginal_values(train)))

    def from_past(self, past: Tensor, known: Tensor, covariates: Tensor | None) -> Distribution:
        lag = torch.arange(self.order, 0, -1)
        absent = lag > known.unsqueeze(-1)
        encoded = self.encoder(past, absent).flatten(-2)
        if self.order == 0:
            encoded = encoded.new_zeros(*known.shape, self.encoder.size)
        if self.covariates:
            known_now = known_covariates(self.covariates, covariates, encoded)
            encoded = torch.cat([encoded, known_now], -1)
        hidden = F.gelu(self.inner(encoded))
        hidden = hidden + F.gelu(self.second(hidden))
        return self.emission.distribution(self.outer(hidden))


class CountPredictor(Predictor):
    """Symbols by an interpolated n-gram with modified Kneser-Ney smoothing (see `NGram`)."""

    def __init__(
        self, order: int, emission: Emission, covariates: int, num_differencing: int
    ) -> None:
        super().__init__()
        if not isinstance(emission, Categorical):
            raise SettingError(f"an n-gram counts symbols; it cannot emit {emission}")
        if covariates:
            raise SettingError("an n-gram takes no covariates; use predictor='mlp'")
        self.order, self.num_symbols = order, emission.num_symbols
        self.core: NGram | None = None

    def fit(self, train: Sequences) -> None:
        self.core = NGram.fit(train.values, train.offsets, self.num_symbols, self.order)

    def _core(self) -> NGram:
        if self.core is None:
            raise SettingError("this n-gram has not been fitted; call fit(train) first")
        return self.core

    def initial_state(self, batch_size: int) -> State:
        return self._core().start(batch_size).unsqueeze(0)

    def distribution(self, batch: Batch, state: State) -> tuple[Distribution, State]:
        core, every = self._core(), list(self._nodes(batch, state))
        tables = [core.probabilities(nodes).log() for nodes in every]
        return CategoricalDistribution(torch.stack(tables)), every[-1].unsqueeze(0)

    def read(self, batch: Batch, state: State) -> State:
        for nodes in self._nodes(batch, state):
            state = nodes.unsqueeze(0)
        return state

    def _nodes(self, batch: Batch, state: State) -> Iterator[Tensor]:
        """The trie nodes before each step."""
        core, nodes = self._core(), state[0]
        for t in range(len(batch)):
            nodes = core.advance(nodes, torch.where(batch.start[t], -1, batch.previous[t]))
            cut = batch.reset[t] & ~batch.start[t]
            if bool(cut.any()):
                alone = core.advance(core.unknown(len(nodes)), batch.previous[t])
                nodes = torch.where(cut.unsqueeze(-1), alone, nodes)
            yield nodes

    def step(
        self, previous: Tensor | None, state: State, covariates: Tensor | None
    ) -> tuple[Distribution, State]:
        nodes = state[0]
        if previous is not None:
            nodes = self._core().advance(nodes, previous)
        return CategoricalDistribution(self._core().probabilities(nodes).log()), nodes.unsqueeze(0)

    def tensors(self) -> dict[str, Tensor]:
        return {} if self.core is None else self.core.tensors()

    def restore(self, tensors: dict[str, Tensor]) -> None:
        if tensors:
            settings = {"num_symbols": self.num_symbols, "order": self.order}
            self.core = NGram.from_tensors(tensors, settings)

    def num_parameters(self) -> int:
        return 0 if self.core is None else self.core.num_parameters


def marginal_values(train: Sequences) -> Tensor:
    """The values whose marginal distribution a model starts from: without the initial values of
    differenced series.
    """
    return train.values if train.domain.integer else train.values[~train.initial]


PREDICTORS: dict[str, Any] = {
    "constant": ConstantPredictor,
    "linear": LinearPredictor,
    "mlp": NetworkPredictor,
    "ngram": CountPredictor,
}
