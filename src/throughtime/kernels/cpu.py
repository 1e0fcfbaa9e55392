"""Autograd over the C++ kernels in src/cpp: one operator runs a layer in one direction.

They give first derivatives; those of higher order come from `reference`. The operator is registered
with torch, so whatever records or transforms operators sees it; plain eager calls, which nothing
watches, take a shorter way to the same code.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, get_type_hints

import torch
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from throughtime import state as states
from throughtime.errors import BackendError, SettingError
from throughtime.kernels import native, reference, stack
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
_dynamo = torch.compiler.is_dynamo_compiling
_modes, _transforms = torch._C._len_torch_dispatch_stack, torch._C._are_functorch_transforms_active
_profiled = torch._C._autograd._profiler_enabled
ROWS = 8  # more of them are better served by packed weights, even for one step
_PLAIN = (Tensor, torch.nn.Parameter)
_FORWARD = "backend 'cpu' has no forward mode; use backend='reference', or 'auto'"
_ROUNDED = "weights in bfloat16 have first derivatives only; use weight_dtype='float32'"


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
        raise BackendError(_FORWARD)
    low = spec.weight_dtype == "bfloat16"
    if x.device.type != "cpu":
        raise BackendError(f"backend 'cpu' runs on the CPU, not on {x.device}; use backend='auto'")
    if torch.is_autocast_enabled("cpu"):
        x, state, initial = _cast((x, state, initial), weights[0].dtype)
    if x.dtype not in native.TYPES or (low and x.dtype != torch.float32):
        taken = "float32 only with weights in bfloat16" if low else "float32 and float64"
        raise BackendError(f"backend 'cpu' computes in {taken}, not in {x.dtype}")

    y, state = stack.run(_layer, spec, x, state, weights, reset, initial, lengths)
    if spec.directions == 1 and torch.is_grad_enabled() and (y.requires_grad or _transforms()):
        y = y.clone()  # backward needs what the layer put out, whatever is done to what is given
    return y, state


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
    if seen_by_torch() or any(t is not None and foreign(t) for t in tensors):
        call = _TransformedRecur.apply if _transforms() and not _recorded() else recur
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
    return _dynamo() or _transforms() or _recorded()


def _recorded() -> bool:
    return _dynamo() or _modes() > 0 or _profiled()


def foreign(tensor: Tensor) -> bool:
    """Whether a tensor is of a class of its own, which has to see what is done to it."""
    return not _dynamo() and _modes() == 0 and type(tensor) not in _PLAIN


def _forward(*inputs: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """`LayerArguments` to (y [T, B, H], h [B, H], c [B, H] or empty, what backward needs)."""
    given = LayerArguments(*inputs)
    outputs = _empty(given)
    y, h, c, reserve = outputs
    if len(given.x) == 1 and not given.keep and _is_step(given):
        layers, _table = _layers(given.kind, [(given.w_ih, given.w_hh, given.b_ih, given.b_hh)])
        native.library().tt_step_layers(
            ctypes.byref(layers), given.x.data_ptr(), given.h0.data_ptr(), native.address(given.c0),
            h.data_ptr(), c.data_ptr(), given.x.shape[1],
        )  # fmt: skip
        y.copy_(h)
        return outputs
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


def _is_step(given: LayerArguments) -> bool:
    """Whether it pays to read the weights where they are, for one step of a few rows."""
    return (
        0 < given.x.shape[1] <= ROWS
        and given.reset is None
        and given.lengths is None
        and not given.low
        and given.x.is_contiguous()
    )


def _layers(
    kind: str, weights: Sequence[Sequence[Tensor | None]]
) -> tuple[native.Stream, ctypes.Array[ctypes.c_uint64]]:
    """A stack of layers as C takes it, and the table of addresses that has to stay beside it."""
    flat = [native.address(weight) or 0 for layer in weights for weight in layer]
    table = (ctypes.c_uint64 * len(flat))(*flat)
    w_ih, w_hh = weights[0][:2]
    assert w_ih is not None
    assert w_hh is not None
    return native.Stream(
        CELLS[kind].number, native.TYPES[w_ih.dtype], len(weights), w_ih.shape[1], w_hh.shape[1],
        torch.get_num_threads(), ctypes.addressof(table),
    ), table  # fmt: skip


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


def _one_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """A rule for vmap: one call after the other, whatever is batched."""

    def rule(info: Any, in_dims: Any, *inputs: Any) -> Any:
        pairs = list(zip(inputs, in_dims, strict=True))
        results = [
            function(*(x.select(d, i).contiguous() if isinstance(d, int) else x for x, d in pairs))
            for i in range(info.batch_size)
        ]
        parts = [torch.stack(list(part)) for part in zip(*results, strict=True)]
        kind = type(results[0])
        return kind(parts), kind([0] * len(parts))

    return rule


_is_batched = torch._C._functorch.is_legacy_batchedtensor


def _for_each(function: Callable[..., Any], inputs: Sequence[Any]) -> list[Tensor]:
    """`function` of each of many, as is_grads_batched of torch.autograd.grad has them.

    That is an older kind of vmap, which has no rules to register.
    """
    level = torch._C._vmapmode_increment_nesting() - 1
    torch._C._vmapmode_decrement_nesting()
    many = [isinstance(one, Tensor) and _is_batched(one) for one in inputs]
    plain = [
        torch._remove_batch_dim(one, level, 1, 0) if is_many else one
        for one, is_many in zip(inputs, many, strict=True)
    ]
    count = next(len(one) for one, is_many in zip(plain, many, strict=True) if is_many)
    rule = _one_by_one(function)
    dims = [0 if is_many else None for is_many in many]
    results, _ = rule(SimpleNamespace(batch_size=count), dims, *plain)
    return [torch._add_batch_dim(one, 0, level) for one in results]


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    y, _h, _c, reserve = output
    ctx.options = inputs[len(_TENSORS) :]
    ctx.save_for_backward(*inputs[: len(_TENSORS)], y, reserve)
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, dy: Tensor | None, dh: Tensor | None, dc: Tensor | None, _: Any) -> Any:
    wanted = [bool(need) for need in ctx.needs_input_grad[: len(_WEIGHTED)]]
    *tensors, y, reserve = ctx.saved_tensors
    # With gradients of gradients in view, a function that has them; else straight on.
    call: Any = _gradients_of
    if (
        torch.is_grad_enabled()
        or seen_by_torch()
        or any(t is not None and foreign(t) for t in tensors)
    ):
        call = recur_backward if _recorded() or not _transforms() else _Gradients.apply
    dc = dc if LayerArguments(*tensors, *ctx.options).c0 is not None else None
    inputs = (dy, dh, dc, *tensors, *ctx.options, y, reserve, wanted)
    batched = any(one is not None and _is_batched(one) for one in inputs[:3])
    every = _for_each(call, inputs) if batched else call(*inputs)
    gradients = [one if need else None for one, need in zip(every, wanted, strict=True)]
    return *gradients, *(None,) * (len(LayerArguments._fields) - len(_WEIGHTED))


recur.register_autograd(_backward, setup_context=_keep)
recur.register_vmap(_one_by_one(recur))


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


def _keep_all(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.tensors = [isinstance(one, Tensor) for one in inputs]
    ctx.rest = [None if isinstance(one, Tensor) else one for one in inputs]
    ctx.save_for_backward(*(one for one in inputs if isinstance(one, Tensor)))


def _second(ctx: Any, *upstream: Any) -> Any:
    """The derivative of `_gradients_of`, by the specification."""
    if isinstance(upstream[0], (list, tuple)):  # of an operator that returns a list
        upstream = tuple(upstream[0])
    saved, inputs = iter(ctx.saved_tensors), list(ctx.rest)
    for i, is_tensor in enumerate(ctx.tensors):
        inputs[i] = next(saved) if is_tensor else inputs[i]
    count = 3 + len(_WEIGHTED)
    if LayerArguments(*inputs[3:-3]).low:
        raise BackendError(_ROUNDED)
    known = [i for i in range(count) if inputs[i] is not None]

    def gradients(*values: Tensor) -> tuple[Tensor, ...]:
        given = list(inputs)
        for i, value in zip(known, values, strict=True):
            given[i] = value
        return _specified(given)

    both: Any = torch.func.vjp(gradients, *(inputs[i] for i in known))
    (found, pull), wanted = both, inputs[-1]
    slopes = [u for u, need in zip(upstream, wanted, strict=True) if need]
    parts = zip(slopes, found, strict=True)
    result: list[Any] = [None] * len(inputs)
    for i, slope in zip(
        known, pull(tuple(torch.zeros_like(f) if u is None else u for u, f in parts)), strict=True
    ):
        result[i] = slope
    return tuple(result)


def _specified(inputs: Sequence[Any]) -> tuple[Tensor, ...]:
    """What is wanted of `_gradients_of`, by operators that have derivatives of every order."""
    slopes, wanted = inputs[:3], inputs[-1]
    given = LayerArguments(*inputs[3:-3])
    names = [name for name, need in zip(_WEIGHTED, wanted, strict=True) if need]

    def outputs(*values: Tensor) -> tuple[Tensor, ...]:
        changed: dict[str, Any] = dict(zip(names, values, strict=True))
        y, state = reference.layer(given._replace(**changed))
        return y, *states.leaves(state)

    both: Any = torch.func.vjp(outputs, *(getattr(given, name) for name in names))
    found, pull = both
    parts = zip(found, slopes, strict=False)  # no c without a cell state
    gradients: tuple[Tensor, ...] = pull(
        tuple(torch.zeros_like(f) if slope is None else slope for f, slope in parts)
    )
    return gradients


recur_backward.register_autograd(_second, setup_context=_keep_all)
recur_backward.register_vmap(_one_by_one(recur_backward))


@register_flop_formula(torch.ops.throughtime.recur)
def _(*shapes: Any, **more: Any) -> int:
    return _products(LayerArguments(*shapes))


@register_flop_formula(torch.ops.throughtime.recur_backward)
def _(*shapes: Any, **more: Any) -> int:
    return 2 * _products(LayerArguments(*shapes[3:-3]))


def _products(shapes: LayerArguments) -> int:
    """Floating-point operations of a layer whose tensors are given by their shapes."""
    steps, batch = shapes.x[:2]
    return int(2 * steps * batch * (math.prod(shapes.w_ih) + math.prod(shapes.w_hh)))


class _TransformedRecur(torch.autograd.Function):
    """The operator for torch.func, which cannot differentiate registered ones."""

    forward = staticmethod(_forward)
    backward = staticmethod(_backward)

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        return _one_by_one(_TransformedRecur.apply)(info, in_dims, *inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _keep(ctx, inputs, output)
        ctx.mark_non_differentiable(output[3])


class _Gradients(torch.autograd.Function):
    """Its gradients, for the same."""

    backward = staticmethod(_second)
    setup_context = staticmethod(_keep_all)

    @staticmethod
    def forward(*inputs: Any) -> tuple[Tensor, ...]:
        return tuple(_gradients_of(*inputs))

    @staticmethod
    def vmap(info: Any, in_dims: Any, *inputs: Any) -> Any:
        return _one_by_one(_Gradients.apply)(info, in_dims, *inputs)


class Steps:
    """Single steps of a stack of layers without autograd: everything that stays, made ready.

    weights: contiguous, and nobody else's; their addresses are kept.
    """

    def __init__(self, spec: Spec, weights: Sequence[Tensor]) -> None:
        self.weights, each = list(weights), spec.weights_per_layer
        by_layer = [weights[i : i + each] for i in range(0, len(weights), each)]
        self.layers, self.table = _layers(
            spec.kind, [(*layer, None, None)[:4] for layer in by_layer]
        )
        self.place, self.call = ctypes.addressof(self.layers), native.step_of_layers()

    def __call__(self, x: Tensor, h: Tensor, c: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """The next state, from x ``[B, I]`` and one ``[L, B, H]``, in the type of the weights."""
        after, cell = torch.empty_like(h), None if c is None else torch.empty_like(c)
        self.call(
            self.place, x.data_ptr(), h.data_ptr(), native.address(c), after.data_ptr(),
            native.address(cell), len(x),
        )  # fmt: skip
        return after, cell
