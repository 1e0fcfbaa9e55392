"""The head of a symbol model and its loss in one pass over the rows, in C++.

Logits of all steps are never in memory together: each few rows have their loss and its gradients
computed at once. For small alphabets this is faster than three products and a softmax one after the
other; for large ones the products decide, and torch's are as good.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from throughtime.errors import BackendError
from throughtime.kernels import native

MOST_SYMBOLS = 512


@native.mirrors("tt_head")
class _Arguments(ctypes.Structure):
    """A linear head over N rows and the summed, weighted nats of the symbols that came."""

    _fields_ = native.fields(
        ("int", "type N H V threads"),
        ("pointer", "y"),
        ("int", "y_n"),
        ("pointer", "w b target weight total dy dw db"),
    )


def fits(y: Tensor, weight: Tensor) -> bool:
    """Whether `nats` takes this output of a network and this head."""
    return (
        native.available()
        and y.device.type == "cpu"
        and y.dtype in native.TYPES
        and y.dtype == weight.dtype
        and len(weight) <= MOST_SYMBOLS
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )


def nats(y: Tensor, weight: Tensor, bias: Tensor, target: Tensor, scale: Tensor) -> Tensor:
    """The sum over rows of ``scale * -log softmax(y weight^T + bias)[target]``.

    Args:
        y: ``[N, H]``, rows any distance apart.
        weight: ``[V, H]``.
        bias: ``[V]``.
        target: int64 ``[N]``.
        scale: ``[N]``.

    Returns:
        A scalar in nats, with gradients of y, weight and bias.

    Raises:
        BackendError: for second derivatives.
        IndexError: for a target that is not a symbol.
    """
    total: Tensor = _Nats.apply(y, weight, bias, target, scale.to(y.dtype))
    return total


class _Nats(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, y: Tensor, weight: Tensor, bias: Tensor, target: Tensor, scale: Tensor
    ) -> Tensor:
        if y.stride(-1) != 1:
            y = y.contiguous()
        weight, bias = weight.contiguous(), bias.contiguous()
        target, scale = target.contiguous(), scale.contiguous()
        (rows, hidden), symbols = y.shape, len(weight)
        total = ctypes.c_double()
        call = _Arguments(
            native.TYPES[y.dtype], rows, hidden, symbols, torch.get_num_threads(), y.data_ptr(),
            y.stride(0), weight.data_ptr(), bias.data_ptr(), target.data_ptr(), scale.data_ptr(),
            ctypes.addressof(total),
        )  # fmt: skip
        if any(ctx.needs_input_grad):
            span = (rows - 1) * y.stride(0) + hidden if rows else 0
            dy = y.new_empty(span).as_strided(y.shape, y.stride())
            gradients = dy, torch.empty_like(weight), torch.empty_like(bias)
            call.dy, call.dw, call.db = (part.data_ptr() for part in gradients)
            ctx.save_for_backward(*gradients)
        native.check(native.library().tt_categorical(ctypes.byref(call)))
        return y.new_tensor(total.value)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> Any:
        if torch.is_grad_enabled():
            raise BackendError(
                "the fused head gives first derivatives only; use backend='reference' for more"
            )
        gradients = ctx.saved_tensors
        if float(upstream) != 1.0:
            gradients = tuple(part * upstream for part in gradients)
        return *gradients, None, None
