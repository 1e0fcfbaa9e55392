"""One recurrence, several backends.

``run`` is the only dispatcher. Every backend computes what `reference.py` specifies: the same
outputs, final state and gradients, with rows restarted wherever `reset` says so.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from throughtime.errors import BackendError
from throughtime.kernels import aten, cpu, native, reference
from throughtime.kernels.cells import CELLS, Cell
from throughtime.kernels.native import available
from throughtime.state import State

_BACKENDS = {"cpu": cpu, "torch": aten, "reference": reference}
_NATIVE = (torch.float32, torch.float64)


@dataclass(frozen=True)
class Spec:
    """What is recurred: the cell and how its layers are stacked.

    Attributes:
        kind: of `cells.CELLS`.
        num_layers: layers on top of each other.
        bias: whether there are biases.
        bidirectional: whether each layer runs in both directions.
        dropout: between layers, already 0 when not training.
        weight_dtype: "float32", or "bfloat16" to use weights rounded to 8 bits of precision on
            backend "cpu": large layers then fit the cache. With torch's initial weights (16 to 512
            units, up to 1,000 steps) outputs then differ by 0.2 % of their spread and gradients by
            0.2 % of their norm, for those with a relu by 4 %; less than 0.3 % and 5 % is tested.
    """

    kind: str
    num_layers: int = 1
    bias: bool = True
    bidirectional: bool = False
    dropout: float = 0.0
    weight_dtype: str = "float32"

    @property
    def cell(self) -> Cell:
        return CELLS[self.kind]

    @property
    def directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def weights_per_layer(self) -> int:
        return 4 if self.bias else 2


def backends() -> dict[str, bool]:
    """The kernel backends of this version, and whether each runs here."""
    return {"cpu": not native.problem(), "torch": True, "reference": True}


def check(backend: str) -> str:
    """The backend's name if it exists here.

    Raises:
        BackendError: if it does not, with what is missing.
    """
    if backend == "cpu":
        native.require()  # says what is missing
    elif backend != "auto" and backend not in _BACKENDS:
        known = ", ".join(["auto", *_BACKENDS])
        raise BackendError(f"backend '{backend}' does not run here; choose one of: {known}")
    return backend


def choose(
    kind: str, backend: str = "auto", x: Tensor | None = None, weights: Iterable[Tensor | None] = ()
) -> str:
    """The backend that "auto" means for a cell and its input; a named one runs it or raises.

    Args:
        kind: of `cells.CELLS`.
        backend: "auto" or a name of `backends`.
        x: the input, if it is known: its device and type decide as well.
        weights: of the layer; tensors of classes of their own go to torch's operators.

    Raises:
        BackendError: if the named backend does not run here or has no such cell.
    """
    in_torch = CELLS[kind].torch_layer is not None
    if check(backend) == "auto":
        if torch.autograd.forward_ad._current_level >= 0:
            return "reference"  # the only one that has forward mode for every cell
        own = any(t is not None and cpu.foreign(t) for t in (x, *weights))
        if available() and not own and not _recorded() and (x is None or _is_native(kind, x)):
            return "cpu"
        return "torch" if in_torch else "reference"
    if backend == "cpu" and _recorded():
        raise BackendError(
            "torch.jit and torch.onnx do not know backend 'cpu'; use backend='auto', or "
            "tt.restore(module), which puts torch's own layers back"
        )
    if backend == "torch" and not in_torch:
        raise BackendError(f"backend 'torch' has no {kind}; use backend='reference'")
    return backend


def _recorded() -> bool:
    """Whether what runs becomes a program for torch.jit or ONNX, which know torch's operators."""
    if torch.compiler.is_exporting():
        return _to_onnx()
    return not torch.compiler.is_dynamo_compiling() and torch.jit.is_tracing()


def _to_onnx() -> bool:
    loaded = "torch.onnx._internal.exporter._flags" in sys.modules
    return loaded and torch.onnx.is_in_onnx_export()


def _is_native(kind: str, x: Tensor) -> bool:
    """Whether the C++ kernels are the best for an input: not for oneDNN's bfloat16 LSTM."""
    if x.device.type != "cpu":
        return False
    if torch.is_autocast_enabled("cpu"):
        return kind != "lstm"
    return x.dtype in _NATIVE


def run(
    spec: Spec,
    x: Tensor,
    state: State,
    weights: Sequence[Tensor],
    reset: Tensor | None = None,
    initial: State = None,
    backend: str = "auto",
    lengths: Tensor | None = None,
) -> tuple[Tensor, State]:
    """Runs a stack of recurrent layers over a time-major batch.

    Args:
        spec: the cell and the stack: L layers in D directions.
        x: ``[T, B, I]``.
        state: ``[L*D, B, H]``, or a pair (h, c) of them for a cell with two parts of a state.
        weights: flat, in torch.nn's order.
        reset: bool ``[T, B]``; True puts that row's state back to `initial` before step t.
        initial: what rows restart from, broadcastable to the state; zeros if None.
        backend: "auto" or a name of `backends`.
        lengths: int64 ``[B]``; a row that has ended puts out zeros and keeps its state (not on
            backend "torch").

    Returns:
        The output ``[T, B, D*H]`` and the state after the last step.

    Raises:
        BackendError: if the named backend does not run here or does not take such a call.
        SettingError: if sizes or types do not fit together.
    """
    more = () if lengths is None else (lengths,)
    chosen = _BACKENDS[choose(spec.kind, backend, x)]
    result: tuple[Tensor, State] = chosen.run(spec, x, state, weights, reset, initial, *more)
    return result
