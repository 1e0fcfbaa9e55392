"""torch.nn.RNN, GRU and LSTM of somebody's own model, made fast in place."""

from __future__ import annotations

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


def accelerate(module: Module, backend: str = "auto") -> Module:
    """Makes every torch.nn.RNN, GRU and LSTM in a module (or the module itself) run on our kernels.

    In place: the same module objects with the same names, parameters, buffers, hooks and training
    flag, so optimisers, `state_dict` and references of your own go on working; outputs and
    gradients are the same numbers up to rounding. They gain `step` and the argument `reset`.
    Parametrised ones (such as weight_norm) are swapped too. Subclasses of your own and the cells
    (RNNCell, GRUCell, LSTMCell) stay as they are.

    Args:
        module: one of torch.nn's recurrent layers, or anything that holds some.
        backend: as for `tt.GRU`. With "auto", what the kernels do not run (CUDA, proj_size, no
            compiled library) stays torch's own code. Second derivatives, forward mode and vmap need
            backend="reference".

    Returns:
        The module itself.

    Raises:
        BackendError: if a named backend does not run here.
    """
    kernels.check(backend)
    for part in module.modules():
        kind = type(part)
        if kind in _SWAPS:
            part.__class__ = _SWAPS[kind]
        elif parametrize.is_parametrized(part) and kind.__bases__[0] in _SWAPS:
            part.__class__ = _parametrised(kind)
        elif not isinstance(part, _Swapped):
            continue
        part.backend = backend  # type: ignore[assignment]
    return module


def _parametrised(kind: type) -> type:
    """The class that torch made of a layer when it was parametrised, on our layer instead."""
    own = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
    return type(kind.__name__, (_SWAPS[kind.__bases__[0]],), own)
