"""Autograd over the C++ kernels in src/cpp: one operator runs a layer in one direction.

They give first derivatives; `backend="reference"` gives all of them. The operator is registered
with torch, so torch.compile and torch.func see it; plain eager calls take a shorter way to the same
code.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from threading import get_ident
from typing import TYPE_CHECKING, Any, get_type_hints

import torch
from torch import Tensor

from throughtime import state as states
from throughtime.errors import BackendError, SettingError
from throughtime.kernels import native, stack
from throughtime.kernels.cells import CELLS
from throughtime.kernels.stack import LayerArguments
from throughtime.state import State

if TYPE_CHECKING:
    from throughtime.kernels import Spec

_TENSORS = LayerArguments._fields[: LayerArguments._fields.index("kind")]
_WEIGHTED = _TENSORS[: _TENSORS.index("reset")]  # those that have gradients
_SCHEMA_TYPES = {Tensor: "Tensor", Tensor | None: "Tensor?", str: "str", bool: "bool"}
_SCHEMA = ", ".join(
    f"{_SCHEMA_TYPES[kind]} {name}" for name, kind in get_type_hints(LayerArguments).items()
)  # of torch's operators
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
    low = spec.weight_dtype == "bfloat16"
    if x.device.type != "cpu":
        raise BackendError(f"backend 'cpu' runs on the CPU, not on {x.device}; use backend='auto'")
    if torch.is_autocast_enabled("cpu"):
        x, state, initial = _cast((x, state, initial), weights[0].dtype)
    if x.dtype not in native.TYPES or (low and x.dtype != torch.float32):
        taken = "float32 only with weights in bfloat16" if low else "float32 and float64"
        raise BackendError(f"backend 'cpu' computes in {taken}, not in {x.dtype}")

    return stack.run(_layer, spec, x, state, weights, reset, initial, lengths)


def _cast(state: State, dtype: torch.dtype) -> State:
    return states.apply(lambda part: part.to(dtype), state)


def _layer(given: LayerArguments) -> tuple[Tensor, State]:
    batch, hidden = given.x.shape[1], given.w_hh.shape[1]
    rows = (given.h0, given.c0, given.h_restart, given.c_restart)
    others = (given.w_ih, given.w_hh, given.b_ih, given.b_hh, given.reset, given.lengths)
    tensors = [
        given.x if given.x.stride(-1) == 1 else given.x.contiguous(),
        *(None if part is None else part.expand(batch, hidden).contiguous() for part in rows),
        *(None if part is None else part.contiguous() for part in others),
    ]
    keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    laid_out = (*tensors, given.kind, given.reverse, given.low, keep)
    _check_sizes(LayerArguments(*laid_out))  # type: ignore[arg-type]
    call: Any = _Recur.apply if keep else _forward
    if seen_by_torch():
        call = recur if _recorded() else _TransformedRecur.apply
    y, h, c, _ = call(*laid_out)
    return y, h if given.c0 is None else (h, c)


def _check_sizes(given: LayerArguments) -> None:
    """C reads what it is pointed at: nothing of another size, type or device gets there."""
    steps, batch, inputs = given.x.shape
    hidden = given.w_hh.shape[1]
    gates = len(CELLS[given.kind].gates) * hidden
    reset, lengths = given.reset, given.lengths
    right = (
        given.w_ih.shape == (gates, inputs)
        and given.w_hh.shape == (gates, hidden)
        and all(b is None or b.shape == (gates,) for b in (given.b_ih, given.b_hh))
        and (reset is None or (reset.shape == (steps, batch) and reset.dtype == torch.bool))
        and (lengths is None or (lengths.shape == (batch,) and lengths.dtype == torch.int64))
    )
    if not right:
        raise SettingError("weights, reset or lengths do not have the sizes of input and state")
    for name in _TENSORS:
        tensor = getattr(given, name)
        if tensor is not None and name in _WEIGHTED and tensor.dtype != given.x.dtype:
            raise SettingError(f"input is {given.x.dtype}, but a state or weight is {tensor.dtype}")
        if tensor is not None and tensor.device.type != "cpu":
            raise SettingError(f"input is on the CPU, but a state or weight on {tensor.device}")


def seen_by_torch() -> bool:
    """Whether something records or transforms the operators that are called."""
    return _dynamo() or _transforms() or _modes() > 0


def _recorded() -> bool:
    return _dynamo() or _modes() > 0


def _forward(*inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`LayerArguments` to (y [T, B, H], h [B, H], c [B, H] or empty, what backward needs)."""
    given = LayerArguments(*inputs)
    outputs = _empty(given)
    y, h, c, reserve = outputs
    call = _sequence(given)
    call.y, call.h_end, call.c_end = y.data_ptr(), h.data_ptr(), c.data_ptr()
    call.reserve = reserve.data_ptr() if given.keep and reserve.numel() else None
    native.check(native.library().tt_forward(ctypes.byref(call)))
    return outputs


recur = torch.library.custom_op(
    "throughtime::recur", _forward, mutates_args=(),
    schema=f"({_SCHEMA}) -> (Tensor, Tensor, Tensor, Tensor)",
)  # fmt: skip


@recur.register_fake
def _(*inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _empty(LayerArguments(*inputs))


def _empty(given: LayerArguments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x, (steps, batch, _), hidden = given.x, given.x.shape, given.h0.shape[1]
    cell = x.new_empty(0) if given.c0 is None else x.new_empty(batch, hidden)
    size = 0
    if given.keep:  # steps and batch may be symbols of torch.compile, which C does not know
        number = CELLS[given.kind].number
        row = native.library().tt_reserve(number, native.TYPES[x.dtype], 1, 1, int(hidden))
        size = steps * batch * row
    return x.new_empty(steps, batch, hidden), x.new_empty(batch, hidden), cell, x.new_empty(size)


def _sequence(given: LayerArguments) -> native.Sequence:
    """The arguments as C takes them, its tensors under the same names."""
    x, (steps, batch, inputs) = given.x, given.x.shape
    call = native.Sequence(
        CELLS[given.kind].number, native.TYPES[x.dtype], given.low, steps, batch, inputs,
        given.h0.shape[1], given.reverse, torch.get_num_threads(),
    )  # fmt: skip
    call.x_t, call.x_b = x.stride(0), x.stride(1)
    for name in _TENSORS:
        setattr(call, name, native.address(getattr(given, name)))
    return call


def _no_vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
    raise BackendError(_ONCE)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    y, _h, _c, reserve = output
    ctx.options = inputs[len(_TENSORS) :]
    ctx.save_for_backward(*inputs[: len(_TENSORS)], y, reserve)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Tensor | None, dh: Tensor | None, dc: Tensor | None, _: Any) -> Any:
    wanted = [bool(need) for need in ctx.needs_input_grad[: len(_WEIGHTED)]]
    for part in (dy, dh, dc):  # is_grads_batched of torch.autograd.grad, an older kind of vmap
        if part is not None and torch._C._functorch.is_legacy_batchedtensor(part):
            raise BackendError(_ONCE)
    # With gradients of gradients in view, a function that refuses them; else straight on.
    call: Any = _gradients_of
    if torch.is_grad_enabled() or seen_by_torch():
        call = recur_backward if _recorded() else _TransformedGradients.apply
    *tensors, y, reserve = ctx.saved_tensors
    dc = dc if LayerArguments(*tensors, *ctx.options).c0 is not None else None
    every = call(dy, dh, dc, *tensors, *ctx.options, y, reserve, wanted)
    gradients = [one if need else None for one, need in zip(every, wanted, strict=True)]
    return *gradients, *(None,) * (len(LayerArguments._fields) - len(_WEIGHTED))


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


def _gradients_of(*inputs: Any) -> list[Tensor]:
    """The gradients of the weighted arguments of `recur`; empty where not wanted.

    inputs: those of y, h and c, the `LayerArguments`, y, what forward kept, and which are wanted.
    """
    dy, dh, dc, *arguments, y, reserve, wanted = inputs
    given = LayerArguments(*arguments)
    gradients = _targets(given, wanted)
    call = _sequence(given)
    if dy is not None:
        dy = dy if dy.stride(-1) == 1 else dy.contiguous()
        call.dy, call.dy_t, call.dy_b = dy.data_ptr(), dy.stride(0), dy.stride(1)
    ends = [None if part is None else part.contiguous() for part in (dh, dc)]
    call.dh_end, call.dc_end = map(native.address, ends)
    call.y, call.reserve = y.data_ptr(), reserve.data_ptr() if reserve.numel() else None
    for name, tensor in zip(_WEIGHTED, gradients, strict=True):
        setattr(call, f"d{name}", tensor.data_ptr() if tensor.numel() else None)
    native.check(native.library().tt_backward(ctypes.byref(call)))
    return gradients


def _targets(given: LayerArguments, wanted: Sequence[bool]) -> list[Tensor]:
    always = ("h0", "c0", "w_ih", "w_hh")  # what C has no null for
    return [
        given.x.new_empty(0 if (t := getattr(given, name)) is None else t.shape)
        if need or name in always
        else given.x.new_empty(0)
        for name, need in zip(_WEIGHTED, wanted, strict=True)
    ]


recur_backward = torch.library.custom_op(
    "throughtime::recur_backward", _gradients_of, mutates_args=(),
    schema=f"(Tensor? dy, Tensor? dh, Tensor? dc, {_SCHEMA}, Tensor kept_y, Tensor reserve, "
    "bool[] wanted) -> Tensor[]",
)  # fmt: skip


@recur_backward.register_fake
def _(*inputs: Any) -> list[Tensor]:
    _dy, _dh, _dc, *arguments, _y, _reserve, wanted = inputs
    return _targets(LayerArguments(*arguments), wanted)


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
        per_layer = spec.weights_per_layer
        table = [0] * (4 * spec.num_layers)
        for i, address in enumerate(self.addresses):
            table[i // per_layer * 4 + i % per_layer] = address
        self.table = (ctypes.c_uint64 * len(table))(*table)
        self.owner, self.pair = get_ident(), len(spec.cell.parts) == 2
        self.threads, self.dtype = torch.get_num_threads(), weights[0].dtype
        self.inference = torch.is_inference_mode_enabled()
        hidden, inputs = weights[1].shape[1], weights[0].shape[1]
        self.x_shape = torch.Size((batch, inputs))
        self.h_shape = torch.Size((spec.num_layers, batch, hidden))
        self.arguments = native.Stream(
            spec.cell.number, native.TYPES[self.dtype], spec.num_layers, inputs, hidden,
            self.threads, ctypes.addressof(self.table), batch,
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
        ready = self.ready.pop()
        self.last = ready[1]
        return ready

    def _continue(self, state: State) -> bool:
        """Takes up a state that is not the last one; False if it is not of the right kind."""
        h, c = state if isinstance(state, tuple) else (state, None)
        for part in (h, c) if self.pair else (h,):
            if (
                not isinstance(part, Tensor) or part.shape != self.h_shape
                or part.dtype is not self.dtype or not part.is_cpu or not part.is_contiguous()
            ):  # fmt: skip
                return False
        self.arguments.h = native.address(h)
        self.arguments.c = native.address(c) if self.pair else None
        return True

    def _prepare(self) -> None:
        """Makes the places of the next steps, the last one first in the list."""
        y = torch.empty(_AHEAD, *self.x_shape[:1], self.h_shape[2], dtype=self.dtype)
        h = torch.empty(_AHEAD, *self.h_shape, dtype=self.dtype)
        states: list[State] = list(h.unbind())
        arguments = self.arguments
        arguments.y_next, arguments.h_next = y.data_ptr(), h.data_ptr()
        if self.pair:
            c = torch.empty_like(h)
            arguments.c_next = c.data_ptr()
            states = list(zip(h.unbind(), c.unbind(), strict=True))
        self.ready = list(zip(y.unbind(), states, strict=True))[::-1]
