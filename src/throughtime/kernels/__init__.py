"""One recurrence, several backends.

``run`` is the only dispatcher. Every backend computes what `reference.py` specifies: the same
outputs, final state and gradients, with rows restarted wherever `reset` says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from throughtime.errors import BackendError
from throughtime.kernels import aten, reference
from throughtime.state import State

_BACKENDS = {"torch": aten, "reference": reference}


@dataclass(frozen=True)
class Spec:
    """What is recurred: the cell and how its layers are stacked.

    kind: "rnn_tanh", "rnn_relu", "rnn_identity", "gru" or "lstm".
    """

    kind: str
    num_layers: int = 1
    bias: bool = True
    bidirectional: bool = False
    dropout: float = 0.0  # between layers, already 0 when not training


def backends() -> dict[str, bool]:
    """The kernel backends of this version, and whether each runs here."""
    return dict.fromkeys(_BACKENDS, True)


def check(backend: str) -> str:
    """The backend's name if it exists here. Raises BackendError otherwise."""
    if backend != "auto" and backend not in _BACKENDS:
        known = ", ".join(["auto", *_BACKENDS])
        raise BackendError(f"backend '{backend}' does not run here; choose one of: {known}")
    return backend


def choose(kind: str, backend: str = "auto") -> str:
    """The backend that "auto" means for a cell; a named backend runs the cell or raises."""
    if check(backend) == "auto":
        return "torch" if kind in aten.KINDS else "reference"
    if backend == "torch" and kind not in aten.KINDS:
        raise BackendError(f"backend 'torch' has no {kind}; use backend='reference'")
    return backend


def run(
    spec: Spec,
    x: Tensor,
    state: State,
    weights: Sequence[Tensor],
    reset: Tensor | None = None,
    initial: State = None,
    backend: str = "auto",
) -> tuple[Tensor, State]:
    """Runs a stack of recurrent layers over a time-major batch.

    x: ``[T, B, I]``. state: ``[L*D, B, H]`` (LSTM: the pair (h, c)), D directions. weights: flat,
    in torch.nn's order. reset: bool ``[T, B]``; True puts that row's state back to `initial` (zeros
    if None; broadcastable to the state) before step t.
    Returns the output ``[T, B, D*H]`` and the state after the last step.
    """
    return _BACKENDS[choose(spec.kind, backend)].run(spec, x, state, weights, reset, initial)
