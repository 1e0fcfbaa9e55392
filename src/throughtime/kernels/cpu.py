"""Autograd over the C++ kernels in src/cpp: one operator runs a layer in one direction.

The operators are registered with torch, so torch.compile sees them without a graph break. They
give first derivatives; `backend="reference"` gives all of them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from throughtime.errors import BackendError
from throughtime.kernels import native, stack
from throughtime.state import State

if TYPE_CHECKING:
    from throughtime.kernels import Spec

KINDS = {"rnn_tanh": 0, "rnn_relu": 1, "rnn_identity": 2, "gru": 3, "lstm": 4}
TYPES = {torch.float32: 0, torch.float64: 1}
_LSTM = KINDS["lstm"]
_ONCE = (
    "backend 'cpu' gives first derivatives only; use backend='reference' for second derivatives, "
    "forward mode and vmap"
)


def run(
    spec: Spec,
    x: Tensor,
    state: State,
    weights: Sequence[Tensor],
    reset: Tensor | None = None,
    initial: State = None,
    lengths: Tensor | None = None,
) -> tuple[Tensor, State]:
    """See `kernels.run`. Raises BackendError in forward mode."""
    if torch.autograd.forward_ad._current_level >= 0:
        raise BackendError(_ONCE)
    if x.dtype != weights[0].dtype and torch.is_autocast_enabled(x.device.type):
        x = x.to(weights[0].dtype)
    low = spec.weights == "bfloat16"
    if x.dtype not in TYPES or (low and x.dtype != torch.float32):
        raise BackendError(f"backend 'cpu' computes in float32 and float64, not in {x.dtype}")

    def scan(
        kind: str, x: Tensor, state: State, w: Sequence[Tensor], reset: Tensor | None,
        initial: State, lengths: Tensor | None, reverse: bool,
    ) -> tuple[Tensor, State]:  # fmt: skip
        return _layer(KINDS[kind], x, state, w, reset, initial, lengths, reverse, low)

    return stack.run(scan, spec, x, state, weights, reset, initial, lengths)


def _layer(
    kind: int, x: Tensor, state: State, w: Sequence[Tensor], reset: Tensor | None, initial: State,
    lengths: Tensor | None, reverse: bool, low: bool,
) -> tuple[Tensor, State]:  # fmt: skip
    h0, c0 = state if kind == _LSTM else (state, None)
    restart = initial if kind == _LSTM and initial is not None else (initial, None)
    rows = [
        None if part is None else part.to(x.dtype).expand(x.shape[1], -1).contiguous()
        for part in (h0, c0, *restart)
    ]
    w_ih, w_hh = w[0].contiguous(), w[1].contiguous()
    b_ih, b_hh = w[2:] if len(w) > 2 else (None, None)
    if x.stride(-1) != 1:
        x = x.contiguous()
    tensors = [x, *rows, w_ih, w_hh, b_ih, b_hh]
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    y, h, c, _ = recur(
        x, *rows, w_ih, w_hh, b_ih, b_hh,
        None if reset is None else reset.contiguous(), lengths, kind, reverse, low, keep,
    )  # fmt: skip
    return y, (h, c) if kind == _LSTM else h


@torch.library.custom_op("throughtime::recur", mutates_args=())
def recur(
    x: Tensor, h0: Tensor, c0: Tensor | None, h_restart: Tensor | None, c_restart: Tensor | None,
    w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None, reset: Tensor | None,
    lengths: Tensor | None, kind: int, reverse: bool, low: bool, keep: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """A layer in one direction: (y [T, B, H], h [B, H], c [B, H] or empty, what backward needs)."""
    found = _empty(x, h0, kind, keep)
    y, h, c, reserve = found
    call = _arguments(
        x, h0, c0, h_restart, c_restart, w_ih, w_hh, b_ih, b_hh, reset, lengths, kind, reverse, low
    )
    call.y, call.h_end, call.c_end = y.data_ptr(), h.data_ptr(), c.data_ptr()
    call.reserve = reserve.data_ptr() if keep and reserve.numel() else None
    _check(native.library().tt_forward(ctypes.byref(call)))
    return found


@recur.register_fake
def _(x: Tensor, h0: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _empty(x, h0, rest[9], rest[12])


def _empty(x: Tensor, h0: Tensor, kind: int, keep: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    steps, batch, _ = x.shape
    hidden = h0.shape[1]
    cell = x.new_empty(batch, hidden) if kind == _LSTM else x.new_empty(0)
    size = 0
    if keep:
        size = native.library().tt_reserve(kind, TYPES[x.dtype], steps, batch, hidden)
    return x.new_empty(steps, batch, hidden), x.new_empty(batch, hidden), cell, x.new_empty(size)


def _arguments(
    x: Tensor, h0: Tensor, c0: Tensor | None, h_restart: Tensor | None, c_restart: Tensor | None,
    w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None, reset: Tensor | None,
    lengths: Tensor | None, kind: int, reverse: bool, low: bool,
) -> native.Sequence:  # fmt: skip
    return native.Sequence(
        kind, TYPES[x.dtype], low, *x.shape, h0.shape[1], reverse, torch.get_num_threads(),
        x.data_ptr(), x.stride(0), x.stride(1),
        *map(native.address, (h0, c0, h_restart, c_restart)),
        *map(native.address, (w_ih, w_hh, b_ih, b_hh, reset, lengths)),
    )  # fmt: skip


def _check(code: int) -> None:
    if code:
        raise MemoryError("there is not enough memory for the recurrence's workspace")


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.kind, ctx.reverse, ctx.low, _ = inputs
    y, _h, _c, reserve = output
    ctx.save_for_backward(*tensors, y, reserve)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Tensor | None, dh: Tensor | None, dc: Tensor | None, _: Any) -> Any:
    wanted = [bool(need) for need in ctx.needs_input_grad[:9]]
    found = recur_backward(
        dy, dh, None if ctx.kind != _LSTM else dc, *ctx.saved_tensors, ctx.kind, ctx.reverse,
        ctx.low, wanted,
    )  # fmt: skip
    gradients = [one if need else None for one, need in zip(found, wanted, strict=True)]
    return *gradients, *(None,) * 6


recur.register_autograd(_backward, setup_context=_keep)


@torch.library.custom_op("throughtime::recur_backward", mutates_args=())
def recur_backward(
    dy: Tensor | None, dh: Tensor | None, dc: Tensor | None,
    x: Tensor, h0: Tensor, c0: Tensor | None, h_restart: Tensor | None, c_restart: Tensor | None,
    w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None, reset: Tensor | None,
    lengths: Tensor | None, y: Tensor, reserve: Tensor, kind: int, reverse: bool, low: bool,
    wanted: list[bool],
) -> list[Tensor]:  # fmt: skip
    """The gradients of the first nine arguments of `recur`; empty where not wanted."""
    found = _gradients(x, h0, c0, h_restart, c_restart, w_ih, w_hh, b_ih, b_hh, wanted)
    call = _arguments(
        x, h0, c0, h_restart, c_restart, w_ih, w_hh, b_ih, b_hh, reset, lengths, kind, reverse, low
    )
    if dy is not None:
        dy = dy if dy.stride(-1) == 1 else dy.contiguous()
        call.dy, call.dy_t, call.dy_b = dy.data_ptr(), dy.stride(0), dy.stride(1)
    ends = [None if part is None else part.contiguous() for part in (dh, dc)]
    call.dh_end, call.dc_end = map(native.address, ends)
    call.y, call.reserve = y.data_ptr(), reserve.data_ptr() if reserve.numel() else None
    names = ("dx", "dh0", "dc0", "dh_restart", "dc_restart", "dw_ih", "dw_hh", "db_ih", "db_hh")
    for name, tensor in zip(names, found, strict=True):
        setattr(call, name, tensor.data_ptr() if tensor.numel() else None)
    _check(native.library().tt_backward(ctypes.byref(call)))
    return found


def _gradients(*sources: Any) -> list[Tensor]:
    *tensors, wanted = sources
    x = tensors[0]
    always = (False, True, True, False, False, True, True, False, False)  # what C has no null for
    return [
        x.new_empty(0 if t is None or not (need or must) else t.shape)
        for t, need, must in zip(tensors, wanted, always, strict=True)
    ]


@recur_backward.register_fake
def _(dy: Any, dh: Any, dc: Any, *rest: Any) -> list[Tensor]:
    return _gradients(*rest[:9], rest[-1])


def _no_second(ctx: Any, *gradients: Any) -> Any:
    raise BackendError(_ONCE)


recur_backward.register_autograd(_no_second, setup_context=lambda ctx, inputs, output: None)


class Stream:
    """Single steps of a stack of layers without autograd: everything that stays, made ready.

    names: of the weights among a module's parameters. Made for one batch size and the weights
    where they are now; `fits` tells whether that still holds. A step takes a few microseconds, of
    which torch needs most for its two or three new tensors.
    """

    def __init__(
        self, spec: Spec, names: Sequence[str], weights: Sequence[Tensor], batch: int
    ) -> None:
        addresses = [w.data_ptr() for w in weights]
        self.places = list(zip(names, addresses, strict=True))
        per_layer = 4 if spec.bias else 2
        table = [0] * (4 * spec.num_layers)
        for i, address in enumerate(addresses):
            table[i // per_layer * 4 + i % per_layer] = address
        self.table = (ctypes.c_uint64 * len(table))(*table)
        self.batch, self.threads, self.dtype = batch, torch.get_num_threads(), weights[0].dtype
        hidden, inputs = weights[1].shape[1], weights[0].shape[1]
        self.x_shape = torch.Size((batch, inputs))
        self.h_shape = torch.Size((spec.num_layers, batch, hidden))
        self.arguments = native.Step(
            KINDS[spec.kind], TYPES[self.dtype], spec.num_layers, inputs, hidden, self.threads,
            ctypes.addressof(self.table),
        )  # fmt: skip
        self.place = ctypes.addressof(self.arguments)
        self.call = native.library().tt_step_layers

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # a copied or saved layer makes its own

    def fits(self, parameters: dict[str, Any], x: Tensor, h: Tensor) -> bool:
        """Whether weights, shapes and layouts are those that this was made for."""
        for name, address in self.places:
            weight = parameters.get(name)
            if weight is None or weight.data_ptr() != address:
                return False
        return (
            x.shape == self.x_shape and h.shape == self.h_shape
            and x.dtype == self.dtype and h.dtype == self.dtype
            and x.is_contiguous() and h.is_contiguous()
            and torch.get_num_threads() == self.threads
        )  # fmt: skip

    def hidden(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """A step of an RNN or GRU that `fits`: the output and the next state."""
        after = torch.empty_like(h)
        self.call(self.place, x.data_ptr(), h.data_ptr(), None, after.data_ptr(), None, self.batch)
        return after[-1], after

    def memory(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, State]:
        """A step of an LSTM that `fits`."""
        h, c = state
        after, memory = torch.empty_like(h), torch.empty_like(h)
        self.call(
            self.place, x.data_ptr(), h.data_ptr(), c.data_ptr(), after.data_ptr(),
            memory.data_ptr(), self.batch,
        )  # fmt: skip
        return after[-1], (after, memory)
