"""Autograd over the C++ kernels in src/cpp: one operator runs a layer in one direction.

They give first derivatives; `backend="reference"` gives all of them. The operator is registered
with torch, so torch.compile and torch.func see it; plain eager calls take a shorter way to the same
code.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from threading import get_ident
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from throughtime import state as states
from throughtime.errors import BackendError, SettingError
from throughtime.kernels import native, stack
from throughtime.state import State

if TYPE_CHECKING:
    from throughtime.kernels import Spec

KINDS = {"rnn_tanh": 0, "rnn_relu": 1, "rnn_identity": 2, "gru": 3, "lstm": 4}
TYPES = {torch.float32: 0, torch.float64: 1}
GATES = {KINDS["gru"]: 3, KINDS["lstm"]: 4}
_LSTM = KINDS["lstm"]
_data_ptr = Tensor.data_ptr
_dynamo = torch.compiler.is_dynamo_compiling
_modes, _transforms = torch._C._len_torch_dispatch_stack, torch._C._are_functorch_transforms_active
_AHEAD = 32  # steps of a stream for which there is room
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
    """See `kernels.run`. Raises BackendError in forward mode and for what the kernels do not take.

    Under autocast everything is computed in the type of the weights.
    """
    if torch.autograd.forward_ad._current_level >= 0:
        raise BackendError(_ONCE)
    low = spec.weights == "bfloat16"
    if x.device.type != "cpu":
        raise BackendError(f"backend 'cpu' runs on the CPU, not on {x.device}; use backend='auto'")
    if torch.is_autocast_enabled("cpu"):
        x, state, initial = _cast((x, state, initial), weights[0].dtype)
    if x.dtype not in TYPES or (low and x.dtype != torch.float32):
        taken = "float32 only with weights in bfloat16" if low else "float32 and float64"
        raise BackendError(f"backend 'cpu' computes in {taken}, not in {x.dtype}")

    def scan(
        kind: str, x: Tensor, state: State, w: Sequence[Tensor], reset: Tensor | None,
        initial: State, lengths: Tensor | None, reverse: bool,
    ) -> tuple[Tensor, State]:  # fmt: skip
        return _layer(KINDS[kind], x, state, w, reset, initial, lengths, reverse, low)

    return stack.run(scan, spec, x, state, weights, reset, initial, lengths)


def _cast(state: State, dtype: torch.dtype) -> State:
    return states.apply(lambda part: part.to(dtype), state)


def _layer(
    kind: int, x: Tensor, state: State, w: Sequence[Tensor], reset: Tensor | None, initial: State,
    lengths: Tensor | None, reverse: bool, low: bool,
) -> tuple[Tensor, State]:  # fmt: skip
    h0, c0 = state if kind == _LSTM else (state, None)
    restart = initial if kind == _LSTM and initial is not None else (initial, None)
    batch, hidden = x.shape[1], w[1].shape[1]
    rows = [
        None if part is None else part.expand(batch, hidden).contiguous()
        for part in (h0, c0, *restart)
    ]
    w_ih, w_hh, b_ih, b_hh = [part.contiguous() for part in w] if len(w) == 4 else [
        *(part.contiguous() for part in w), None, None
    ]  # fmt: skip
    if x.stride(-1) != 1:
        x = x.contiguous()
    tensors = [x, *rows, w_ih, w_hh, b_ih, b_hh]
    _check_sizes(kind, x, tensors, reset, lengths)
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    call: Any = _Recur.apply if keep else _forward
    if seen_by_torch():
        call = recur if _recorded() else _TransformedRecur.apply
    y, h, c, _ = call(
        x, *rows, w_ih, w_hh, b_ih, b_hh,
        None if reset is None else reset.contiguous(),
        None if lengths is None else lengths.contiguous(), kind, reverse, low, keep,
    )  # fmt: skip
    return y, (h, c) if kind == _LSTM else h


def _check_sizes(
    kind: int, x: Tensor, tensors: Sequence[Tensor | None], reset: Tensor | None,
    lengths: Tensor | None,
) -> None:  # fmt: skip
    """C reads what it is pointed at: nothing of another size, type or device gets there."""
    steps, batch, inputs = x.shape
    w_ih, w_hh, *biases = tensors[5:]
    hidden = w_hh.shape[1]  # type: ignore[union-attr]
    gates = GATES.get(kind, 1) * hidden
    right = (
        w_ih.shape == (gates, inputs)  # type: ignore[union-attr]
        and w_hh.shape == (gates, hidden)  # type: ignore[union-attr]
        and all(b is None or b.shape == (gates,) for b in biases)
        and (reset is None or (reset.shape == (steps, batch) and reset.dtype == torch.bool))
        and (lengths is None or (lengths.shape == (batch,) and lengths.dtype == torch.int64))
    )
    if not right:
        raise SettingError("weights, reset or lengths do not have the sizes of input and state")
    for tensor in tensors:
        if tensor is not None and tensor.dtype != x.dtype:
            raise SettingError(f"input is {x.dtype}, but a state or weight is {tensor.dtype}")
    for tensor in (*tensors, reset, lengths):
        if tensor is not None and tensor.device.type != "cpu":
            raise SettingError(f"input is on the CPU, but a state or weight on {tensor.device}")


def seen_by_torch() -> bool:
    """Whether something records or transforms the operators that are called."""
    return _dynamo() or _transforms() or _modes() > 0


def _recorded() -> bool:
    return _dynamo() or _modes() > 0


def _forward(
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
    native.check(native.library().tt_forward(ctypes.byref(call)))
    return found


recur = torch.library.custom_op("throughtime::recur", mutates_args=())(_forward)


@recur.register_fake
def _(x: Tensor, h0: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _empty(x, h0, rest[9], rest[12])


def _empty(x: Tensor, h0: Tensor, kind: int, keep: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    steps, batch, _ = x.shape
    hidden = h0.shape[1]
    cell = x.new_empty(batch, hidden) if kind == _LSTM else x.new_empty(0)
    size = 0
    if keep:  # steps and batch may be symbols of torch.compile, which C does not know
        size = steps * batch * native.library().tt_reserve(kind, TYPES[x.dtype], 1, 1, int(hidden))
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


def _no_vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
    raise BackendError(_ONCE)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.kind, ctx.reverse, ctx.low, _ = inputs
    y, _h, _c, reserve = output
    ctx.save_for_backward(*tensors, y, reserve)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Tensor | None, dh: Tensor | None, dc: Tensor | None, _: Any) -> Any:
    wanted = [bool(need) for need in ctx.needs_input_grad[:9]]
    for part in (dy, dh, dc):  # is_grads_batched of torch.autograd.grad, an older kind of vmap
        if part is not None and torch._C._functorch.is_legacy_batchedtensor(part):
            raise BackendError(_ONCE)
    # With gradients of gradients in view, a function that refuses them; else straight on.
    call: Any = _gradients_of
    if torch.is_grad_enabled() or seen_by_torch():
        call = recur_backward if _recorded() else _TransformedGradients.apply
    found = call(
        dy, dh, None if ctx.kind != _LSTM else dc, *ctx.saved_tensors, ctx.kind, ctx.reverse,
        ctx.low, wanted,
    )  # fmt: skip
    gradients = [one if need else None for one, need in zip(found, wanted, strict=True)]
    return *gradients, *(None,) * 6


recur.register_autograd(_backward, setup_context=_keep)
recur.register_vmap(_no_vmap)


class _Recur(torch.autograd.Function):
    """The operator without the dispatcher: about 0.1 ms less for each call with gradients."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Any:
        output = _forward(*inputs)
        _keep(ctx, inputs, output)
        ctx.mark_non_differentiable(output[3])
        return output

    backward = staticmethod(_backward)


def _gradients_of(
    dy: Tensor | None, dh: Tensor | None, dc: Tensor | None,
    x: Tensor, h0: Tensor, c0: Tensor | None, h_restart: Tensor | None, c_restart: Tensor | None,
    w_ih: Tensor, w_hh: Tensor, b_ih: Tensor | None, b_hh: Tensor | None, reset: Tensor | None,
    lengths: Tensor | None, y: Tensor, reserve: Tensor, kind: int, reverse: bool, low: bool,
    wanted: list[bool],
) -> list[Tensor]:  # fmt: skip
    """The gradients of the first nine arguments of `recur`; empty where not wanted."""
    found = _targets(x, h0, c0, h_restart, c_restart, w_ih, w_hh, b_ih, b_hh, wanted)
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
    native.check(native.library().tt_backward(ctypes.byref(call)))
    return found


def _targets(*sources: Any) -> list[Tensor]:
    *tensors, wanted = sources
    x = tensors[0]
    always = (False, True, True, False, False, True, True, False, False)  # what C has no null for
    return [
        x.new_empty(0 if t is None or not (need or must) else t.shape)
        for t, need, must in zip(tensors, wanted, always, strict=True)
    ]


recur_backward = torch.library.custom_op("throughtime::recur_backward", mutates_args=())(
    _gradients_of
)


@recur_backward.register_fake
def _(dy: Any, dh: Any, dc: Any, *rest: Any) -> list[Tensor]:
    return _targets(*rest[:9], rest[-1])


def _no_second(ctx: Any, *gradients: Any) -> Any:
    raise BackendError(_ONCE)


recur_backward.register_autograd(_no_second, setup_context=lambda ctx, inputs, output: None)
recur_backward.register_vmap(_no_vmap)


class _TransformedRecur(torch.autograd.Function):
    """The operator for torch.func, which cannot differentiate registered ones."""

    forward = staticmethod(_forward)
    backward = staticmethod(_backward)
    vmap = staticmethod(_no_vmap)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _keep(ctx, inputs, output)
        ctx.mark_non_differentiable(output[3])


class _TransformedGradients(torch.autograd.Function):
    """Its gradients, which have none."""

    backward = staticmethod(_no_second)
    vmap = staticmethod(_no_vmap)

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        return tuple(_gradients_of(*inputs))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        pass


class Stream:
    """Single steps of a stack of layers without autograd: everything that stays, made ready.

    weights: all the parameters of a module. Made for one thread, one batch size and the weights
    where they are now. States and outputs are places in arrays of _AHEAD steps, because
    making a tensor takes longer than the step of a small layer.
    """

    def __init__(self, spec: Spec, weights: Sequence[Tensor], batch: int) -> None:
        self.addresses = [w.data_ptr() for w in weights]
        per_layer = 4 if spec.bias else 2
        table = [0] * (4 * spec.num_layers)
        for i, address in enumerate(self.addresses):
            table[i // per_layer * 4 + i % per_layer] = address
        self.table = (ctypes.c_uint64 * len(table))(*table)
        self.owner, self.lstm = get_ident(), spec.kind == "lstm"
        self.threads, self.dtype = torch.get_num_threads(), weights[0].dtype
        self.inference = torch.is_inference_mode_enabled()
        hidden, inputs = weights[1].shape[1], weights[0].shape[1]
        self.x_shape = torch.Size((batch, inputs))
        self.h_shape = torch.Size((spec.num_layers, batch, hidden))
        self.arguments = native.Stream(
            KINDS[spec.kind], TYPES[self.dtype], spec.num_layers, inputs, hidden, self.threads,
            ctypes.addressof(self.table), batch,
        )  # fmt: skip
        self.place = ctypes.addressof(self.arguments)
        self.call = native.stream_step()
        self.ready: list[tuple[Tensor, State]] = []
        self.last: State = None

    def __reduce__(self) -> tuple[Any, ...]:
        return type(None), ()  # a copied or saved layer makes its own

    def step(
        self, parameters: dict[str, Any], x: Tensor, state: State
    ) -> tuple[Tensor, State] | None:
        """The output and the next state; None if this was not made for such a call."""
        if (
            list(map(_data_ptr, parameters.values())) != self.addresses
            or x.shape != self.x_shape
            or x.dtype is not self.dtype
            or not x.is_cpu
            or not x.is_contiguous()
            or get_ident() != self.owner
            or torch.get_num_threads() != self.threads
            or torch.is_inference_mode_enabled() is not self.inference
            or (state is not self.last and not self._continue(state))
        ):
            return None
        if not self.ready:
            self._prepare()
        self.call(self.place, x.data_ptr())
        found = self.ready.pop()
        self.last = found[1]
        return found

    def _continue(self, state: State) -> bool:
        """Takes up a state that is not the last one; False if it is not of the right kind."""
        h, c = state if isinstance(state, tuple) else (state, None)
        for part in (h, c) if self.lstm else (h,):
            if (
                not isinstance(part, Tensor) or part.shape != self.h_shape
                or part.dtype is not self.dtype or not part.is_cpu or not part.is_contiguous()
            ):  # fmt: skip
                return False
        self.arguments.h, self.arguments.c = _address(h), _address(c) if self.lstm else None
        return True

    def _prepare(self) -> None:
        """Makes the places of the next steps, the last one first in the list."""
        y = torch.empty(_AHEAD, *self.x_shape[:1], self.h_shape[2], dtype=self.dtype)
        h = torch.empty(_AHEAD, *self.h_shape, dtype=self.dtype)
        states: list[State] = list(h.unbind())
        arguments = self.arguments
        arguments.y_next, arguments.h_next = y.data_ptr(), h.data_ptr()
        if self.lstm:
            c = torch.empty_like(h)
            arguments.c_next = c.data_ptr()
            states = list(zip(h.unbind(), c.unbind(), strict=True))
        self.ready = list(zip(y.unbind(), states, strict=True))[::-1]


def _address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()
