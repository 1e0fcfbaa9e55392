"""A hidden Markov chain: the smallest latent state of symbols, fitted by EM.

    H_t ~ A[H_{t-1}],  X_t ~ E[H_t];  P(X_t | past) = Σ_h P(H_t = h | past) E[h, X_t]

Baum, Petrie, Soules & Weiss (1970). Its filter is the exact conditional distribution, so it needs
far fewer data than a network to make use of a state that lasts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from throughtime.history.parts import Floats, Ints, Part

STATES = (2, 3, 5)
_PIECE = 200  # steps of a lane in training
_MOST = 20_000  # steps trained on
_ROUNDS = 60
_GAIN = 1e-5  # nats per step below which EM ends


@dataclass(frozen=True)
class HiddenChain:
    """begin ``[K]``: distribution of the first state; move ``[K, K]``, of the next; emit ``[K,
    V]``.
    """

    begin: Floats
    move: Floats
    emit: Floats

    @property
    def name(self) -> str:
        return f"hidden Markov chain of {len(self.begin)} states"

    def nats(self, part: Part) -> Floats:
        """Nats of every target, ``[n]``."""
        found = np.empty(len(part.values))
        for begin, end in zip(part.offsets[:-1], part.offsets[1:], strict=True):
            state = self.begin
            for t in range(begin, end):
                joint = state * self.emit[:, part.values[t]]
                likelihood = joint.sum()
                found[t] = -np.log(likelihood)
                state = (joint / likelihood) @ self.move
        return found[part.rows] - part.log_det[part.rows]

    def restarted(self, part: Part, chosen: Ints, steps: int) -> Floats:
        """Nats of some targets by a filter that has seen the last `steps` symbols only."""
        rows, first = part.rows[chosen], part.first[part.rows[chosen]]
        state = np.tile(self.begin, (len(rows), 1))
        for back in range(steps, 0, -1):
            there = rows - back >= first
            seen = part.values[np.maximum(rows - back, 0)]
            joint = state * self.emit[:, seen].T
            after = joint / joint.sum(1, keepdims=True) @ self.move
            state = np.where(there[:, None], after, state)
        found: Floats = -np.log((state * self.emit[:, part.values[rows]].T).sum(1))
        return found - part.log_det[rows]


def fitted(learn: Part, num_symbols: int, states: int, seed: int) -> HiddenChain:
    """The chain that EM finds from a start in which states last about ten steps."""
    lanes, known = _lanes(learn.latest(_MOST))
    source = np.random.default_rng([seed, states])
    count = np.bincount(lanes[known], minlength=num_symbols) + 0.5
    distributions = source.dirichlet(np.full(num_symbols, 2.0), size=states) * count
    chain = HiddenChain(
        np.full(states, 1 / states),
        0.9 * np.eye(states) + 0.1 / states,
        distributions / distributions.sum(1, keepdims=True),
    )
    before = np.inf
    for _ in range(_ROUNDS):
        chain, nats = _one_round(chain, lanes, known)
        if before - nats < _GAIN:
            break
        before = nats
    return chain


def _one_round(chain: HiddenChain, lanes: Ints, known: np.ndarray) -> tuple[HiddenChain, float]:
    """One step of EM, and the nats per step before it."""
    steps, rows = lanes.shape
    states = len(chain.begin)
    seen = np.where(known[..., None], chain.emit.T[lanes], 1.0)  # [T, B, K]
    ahead = np.empty((steps, rows, states))  # P(H_t | X_1 … X_t)
    scale = np.empty((steps, rows))
    state = np.tile(chain.begin, (rows, 1))
    for t in range(steps):
        joint = state * seen[t]
        scale[t] = joint.sum(1)
        ahead[t] = joint / scale[t][:, None]
        state = ahead[t] @ chain.move
    back = np.ones((rows, states))
    belief = np.empty_like(ahead)
    moved = np.zeros((states, states))
    for t in range(steps - 1, -1, -1):
        belief[t] = ahead[t] * back
        if t:
            pull = seen[t] * back / scale[t][:, None] * known[t][:, None]
            moved += ahead[t - 1].T @ pull * chain.move
            back = np.where(known[t][:, None], pull @ chain.move.T, 1.0)
    counted = belief[known]
    emit = 0.1 + np.array(
        [np.bincount(lanes[known], counted[:, k], chain.emit.shape[1]) for k in range(states)]
    )
    moved += 0.1
    begun = belief[0].sum(0) + 0.1
    nats = -float(np.log(scale[known]).mean())
    return HiddenChain(
        begun / begun.sum(), moved / moved.sum(1, keepdims=True), emit / emit.sum(1, keepdims=True)
    ), nats


def _lanes(part: Part) -> tuple[Ints, np.ndarray]:
    """Pieces of sequences side by side, int64 ``[T, B]``, and which places hold a symbol."""
    pieces: list[Ints] = []
    bounds = part.bounds
    for begin, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        values = part.values[part.rows[begin:end]]
        pieces += [values[i : i + _PIECE] for i in range(0, len(values), _PIECE)]
    longest = max(len(piece) for piece in pieces)
    lanes = np.full((longest, len(pieces)), -1)
    for i, piece in enumerate(pieces):
        lanes[: len(piece), i] = piece
    known = lanes >= 0
    return np.where(known, lanes, 0), known
