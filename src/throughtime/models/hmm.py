"""A hidden Markov model: a state of a few values, and a distribution of symbols in each.

    H_t ~ A[H_{t-1}],  X_t ~ E[H_t];  P(X_t | past) = Σ_h P(H_t = h | past) E[h, X_t]

Fitted by EM: Baum, Petrie, Soules & Weiss (1970), Annals of Mathematical Statistics 41; forward and
backward passes scaled as in Rabiner (1989), Proceedings of the IEEE 77. Its filter is the exact
conditional distribution.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from throughtime.data.sequences import Sequences
from throughtime.emissions import Categorical
from throughtime.emissions.categorical import CategoricalDistribution
from throughtime.errors import SettingError
from throughtime.models.closed_form import ClosedForm, Unfitted
from throughtime.runtime import out_of_time
from throughtime.state import State

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_PIECE = 200  # steps of a lane in training
_MOST = 20_000  # steps trained on, the latest
_ROUNDS = 60
_GAIN = 1e-5  # nats per step below which EM ends
_PRIOR = 0.1  # pseudo-counts: nothing becomes impossible


@dataclass(frozen=True)
class Parameters:
    """first ``[K]``: distribution of the first state; move ``[K, K]``: of the next one, a row for
    each state; emit ``[K, V]``: of the symbols.
    """

    first: Floats
    move: Floats
    emit: Floats


class HiddenMarkov(ClosedForm):
    """``P(X_t | past)`` of a hidden Markov model of symbols; its state is the filter.

    Args:
        num_states: K.
        emission: Categorical.
        seed: of the distributions that EM starts from.
        num_differencing: 0; symbols are not differenced.
    """

    def __init__(
        self,
        num_states: int = 3,
        *,
        emission: Categorical,
        seed: int = 0,
        num_differencing: int = 0,
    ) -> None:
        if not isinstance(emission, Categorical) or num_differencing:
            raise SettingError(f"a hidden Markov model emits symbols, not {emission}")
        if num_states < 1:
            raise SettingError(f"num_states must be 1 or more, got {num_states}")
        super().__init__(emission)
        self.num_states, self.seed = num_states, seed
        self.parameters_: Parameters | None = None

    def settings(self) -> dict[str, Any]:
        return {
            "kind": "hmm",
            "num_states": self.num_states,
            "emission": self.emission.to_json(),
            "seed": self.seed,
        }

    def begin(self, train: Sequences) -> None:
        """EM on the latest 20,000 steps, from states that last about ten steps."""
        lanes, known = lanes_of(train, _MOST)
        states, symbols = self.num_states, self.emission.num_parameters
        source = np.random.default_rng([self.seed, states])
        count = np.bincount(lanes[known], minlength=symbols) + 0.5
        emit = source.dirichlet(np.full(symbols, 2.0), size=states) * count
        parameters = Parameters(
            np.full(states, 1 / states),
            0.9 * np.eye(states) + 0.1 / states,
            emit / emit.sum(1, keepdims=True),
        )
        before = np.inf
        for _ in range(_ROUNDS):
            parameters, nats = em_round(parameters, lanes, known)
            if before - nats < _GAIN or out_of_time():
                break
            before = nats
        self.parameters_ = parameters

    def predict(self, data: Sequences, rows: Tensor) -> CategoricalDistribution:
        fitted, x = self._fitted(), data.values.numpy()
        lengths = data.lengths.numpy()
        order = np.argsort(-lengths, kind="stable")
        begin = data.offsets[:-1].numpy()[order]
        state = np.tile(fitted.first, (len(order), 1))
        before = np.empty((len(x), self.num_states))
        for t in range(int(lengths.max(initial=0))):  # all sequences that are so long at once
            now = begin[: int((lengths > t).sum()) if len(order) > 1 else 1] + t
            before[now] = state[: len(now)]
            joint = state[: len(now)] * fitted.emit.T[x[now]]
            state[: len(now)] = joint / joint.sum(1, keepdims=True) @ fitted.move
        return CategoricalDistribution(torch.from_numpy(before[rows.numpy()] @ fitted.emit).log())

    def memory(self, rows: int, cut: bool = False) -> State:
        """The filter: P(H_t | X_1 … X_{t-1}), ``[1, B, K]``."""
        return torch.from_numpy(self._fitted().first).expand(1, rows, -1)

    def advance(self, x: Tensor, state: State) -> State:
        fitted = self._fitted()
        joint = state[1] * torch.from_numpy(fitted.emit.T)[x]
        return joint / joint.sum(-1, keepdim=True) @ torch.from_numpy(fitted.move)

    def predictive(self, state: State) -> CategoricalDistribution:
        return CategoricalDistribution((state[1] @ torch.from_numpy(self._fitted().emit)).log())

    def extra_tensors(self) -> dict[str, Tensor]:
        if self.parameters_ is None:
            return {}
        return {name: torch.from_numpy(value) for name, value in vars(self.parameters_).items()}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        if tensors:
            self.parameters_ = Parameters(**{k: v.numpy() for k, v in tensors.items()})

    def num_parameters(self) -> int:
        states, symbols = self.num_states, self.emission.num_parameters
        return (states - 1) + states * (states - 1) + states * (symbols - 1)

    def _fitted(self) -> Parameters:
        if self.parameters_ is None:
            raise Unfitted
        return self.parameters_


def em_round(model: Parameters, lanes: Ints, known: NDArray[np.bool_]) -> tuple[Parameters, float]:
    """One round of EM.

    Args:
        model: the parameters so far.
        lanes: symbols, ``[T, B]``.
        known: which places hold one; the others are padding at the end.

    Returns: the parameters after it, and nats per step before it.
    """
    steps, rows = lanes.shape
    states = len(model.first)
    likelihood = np.where(known[..., None], model.emit.T[lanes], 1.0)  # [T, B, K]
    ahead = np.empty((steps, rows, states))  # P(H_t | X_1 … X_t)
    scale = np.empty((steps, rows))
    state = np.tile(model.first, (rows, 1))
    for t in range(steps):
        joint = state * likelihood[t]
        scale[t] = joint.sum(1)
        ahead[t] = joint / scale[t][:, None]
        state = ahead[t] @ model.move
    back = np.ones((rows, states))
    belief = np.empty_like(ahead)
    moved = np.zeros((states, states))
    for t in range(steps - 1, -1, -1):
        belief[t] = ahead[t] * back
        if t:
            later = likelihood[t] * back / scale[t][:, None] * known[t][:, None]
            moved += ahead[t - 1].T @ later * model.move
            back = np.where(known[t][:, None], later @ model.move.T, 1.0)
    counted, symbols = belief[known], lanes[known]
    emit = _PRIOR + np.array(
        [np.bincount(symbols, counted[:, k], model.emit.shape[1]) for k in range(states)]
    )
    moved += _PRIOR
    begun = belief[0].sum(0) + _PRIOR
    return Parameters(
        begun / begun.sum(), moved / moved.sum(1, keepdims=True), emit / emit.sum(1, keepdims=True)
    ), -float(np.log(scale[known]).mean())


def lanes_of(train: Sequences, most: int) -> tuple[Ints, NDArray[np.bool_]]:
    """The latest scored steps in pieces side by side, ``[T, B]``, and which places hold one."""
    rows = train.scored().nonzero().flatten()[-most:]
    values = train.values[rows].numpy()
    bounds = torch.searchsorted(rows, train.offsets).tolist()
    pieces = [
        values[i : min(i + _PIECE, end)]
        for begin, end in itertools.pairwise(bounds)
        for i in range(begin, end, _PIECE)
    ]
    lanes = np.full((max(map(len, pieces)), len(pieces)), -1)
    for i, piece in enumerate(pieces):
        lanes[: len(piece), i] = piece
    known = lanes >= 0
    return np.where(known, lanes, 0), known
