"""torch.nn.RNN, GRU and LSTM of somebody's own model, made fast in place."""

from __future__ import annotations

import warnings
from typing import Any, TypeVar

from torch import nn
from torch.nn.utils import parametrize

from throughtime import kernels
from throughtime.layers import recurrent

Module = TypeVar("Module", bound=nn.Module)


class _Swapped:
    """What was a torch.nn layer goes on being one: isinstance, pickling and copies hold."""

    backend: str
    parent: type[nn.RNNBase]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.parent.__init__(self, *args, **kwargs)  # type: ignore[arg-type]
        self.backend = "auto"


class RNN(_Swapped, recurrent.RNN, nn.RNN):  # type: ignore[misc]
    """A torch.nn.RNN that runs on throughtime's kernels."""


class GRU(_Swapped, recurrent.GRU, nn.GRU):  # type: ignore[misc]
    """A torch.nn.GRU that runs on throughtime's kernels."""


class LSTM(_Swapped, recurrent.LSTM, nn.LSTM):  # type: ignore[misc]
    """A torch.nn.LSTM that runs on throughtime's kernels."""


_SWAPS: dict[type, type] = {nn.RNN: RNN, nn.GRU: GRU, nn.LSTM: LSTM}
_OWN = {
    **{ours: theirs for theirs, ours in _SWAPS.items()},
    recurrent.RNN: nn.RNN, recurrent.GRU: nn.GRU, recurrent.LSTM: nn.LSTM,
}  # fmt: skip


def accelerate(module: Module, backend: str = "auto") -> Module:
    """Makes every torch.nn.RNN, GRU and LSTM in a module (or the module itself) run on our kernels.

    In place: the same module objects with the same names, parameters, buffers, hooks and training
    flag, so optimisers, `state_dict` and references of your own go on working; outputs and
    gradients are the same numbers up to rounding. They gain `step` and the argument `reset`.
    Parametrised ones (such as weight_norm) are swapped too. Subclasses of your own and the cells
    (RNNCell, GRUCell, LSTMCell) stay as they are.

    Where torch itself has to see its own operators (torch.jit, ONNX, tensors of other classes) they
    run as torch.nn does; `restore` undoes it all. Warns where there is nothing to swap.

    Args:
        module: one of torch.nn's recurrent layers, or anything that holds some.
        backend: as for `tt.GRU`. With "auto", what the kernels do not run (CUDA, proj_size, no
            compiled library) stays torch's own code.

    Returns:
        The module itself.

    Raises:
        BackendError: if a named backend does not run here.
    """
    kernels.check(backend)
    ours = 0
    for part in module.modules():
        kind = type(part)
        if kind in _SWAPS:
            part.__class__ = _SWAPS[kind]
        elif parametrize.is_parametrized(part) and kind.__bases__[0] in _SWAPS:
            part.__class__ = _parametrised(kind, _SWAPS)
        elif not isinstance(part, recurrent._Recurrent):
            continue
        ours += 1
        if isinstance(part, _Swapped):
            part.backend = backend
    if not ours:
        warnings.warn(
            f"there is no torch.nn.RNN, GRU or LSTM in this {type(module).__name__} to accelerate; "
            "subclasses and cells stay as they are",
            stacklevel=2,
        )
    return module


def restore(module: Module) -> Module:
    """Puts torch's own layers back wherever ours are: what `accelerate` swapped, and `tt.RNN` etc.

    In place, with the same parameters and hooks. For tools that know layers by their class, such as
    quantisation. Layers that torch does not have (`tt.LiGRU`, `tt.MinGRU`, the identity as
    nonlinearity) stay, and so do subclasses of your own.

    Args:
        module: anything that holds some, or one of them.

    Returns:
        The module itself.
    """
    for part in module.modules():
        kind = type(part)
        if kind in _OWN and isinstance(part, recurrent._Recurrent):
            if part.cell.torch_layer is None:
                continue
            part.__class__ = _OWN[kind]
        elif parametrize.is_parametrized(part) and kind.__bases__[0] in _OWN:
            part.__class__ = _parametrised(kind, _OWN)
        else:
            continue
        for name in ("backend", "weight_dtype"):
            part.__dict__.pop(name, None)
    return module


def _parametrised(kind: type, classes: dict[type, type]) -> type:
    """The class that torch made of a layer when it was parametrised, on another layer."""
    own = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
    return type(kind.__name__, (classes[kind.__bases__[0]],), own)
