"""A loss taken apart into its time steps: what every tool through time is made of.

Step t maps the state S_{t-1} to (ℓ_t, S_t). Given all the states, the steps no longer depend on
each other, so products with all their Jacobians ∂S_t/∂S_{t-1} are taken at once: where a batch can
be folded, time becomes part of the rows, and T steps of B rows run as one step of T·B rows.

All that runs along time is *stacked*: a list with one tensor ``[T, *shape of the leaf]`` for each
floating leaf of the state.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils.rnn import PackedSequence

from throughtime import state as states
from throughtime.gradflow._contract import Loss, agree, alike, scalar
from throughtime.gradflow.batches import Timed, fold
from throughtime.state import State

Stacked: TypeAlias = list[Tensor]


@contextmanager
def outputs_of_states() -> Iterator[None]:
    """Within, a recurrent layer's output of a single step *is* its new state.

    torch.nn returns the two as separate results; only so is ∂ℓ_t/∂S_t to be had from autograd.
    """

    def hook(module: nn.Module, inputs: Any, output: Any) -> Any:
        if not isinstance(module, nn.RNNBase) or module.bidirectional:
            return None
        y, state = output
        if isinstance(y, PackedSequence) or y.shape[-2 if y.dim() == 2 else _time(module)] != 1:
            return None
        last = (state[0] if isinstance(state, tuple) else state)[-1:]
        return (last.transpose(0, 1) if y.dim() == 3 and module.batch_first else last), state

    handle = register_module_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def _time(module: nn.RNNBase) -> int:
    return 1 if module.batch_first else 0


def graph_inputs(state: State) -> State:
    """The same values as the beginning of a graph: real and complex numbers require gradients."""
    return states.apply(
        lambda leaf: leaf.detach().requires_grad_(leaf.is_floating_point() or leaf.is_complex()),
        state,
    )


def floating(state: State) -> list[Tensor]:
    """The leaves of a state that can have a gradient."""
    return [leaf for leaf in states.leaves(state) if leaf.is_floating_point()]


def with_floating(state: State, values: Sequence[Tensor]) -> State:
    """The state with its floating leaves replaced, in order."""
    left = iter(values)
    return states.apply(lambda leaf: next(left) if leaf.is_floating_point() else leaf, state)


def norms(stacked: Stacked) -> Tensor:
    """The norm of the whole state at each step, ``[T]``, or of each row, ``[T, B]``.

    Leaves ``[T, L, B, H]`` have rows; where any leaf is of another kind, the whole state counts.
    """
    if all(leaf.dim() == 4 for leaf in stacked):
        parts = [torch.linalg.vector_norm(leaf, dim=(1, 3)) for leaf in stacked]
    else:
        parts = [torch.linalg.vector_norm(leaf.flatten(1), dim=1) for leaf in stacked]
    return torch.linalg.vector_norm(torch.stack(parts), dim=0) if len(parts) > 1 else parts[0]


def apart(after: State, before: State) -> State:
    """The state after a step, where no part is a tensor that was there before the step.

    A part that is handed on as it is, as are past states or a learned first one, becomes a place
    of its own, so that its gradient is what comes from later steps only.
    """
    taken = {id(leaf) for leaf in states.leaves(before)}

    def own(leaf: Tensor) -> Tensor:
        if leaf.is_leaf or id(leaf) in taken:
            return leaf.view_as(leaf)
        taken.add(id(leaf))
        return leaf

    return states.apply(own, after)


class Steps:
    """T steps of a loss, each with its graph from S_{t-1} to (ℓ_t, S_t), ready for products.

    loss: ``loss(batch, state) -> (summed loss, state)``. batch: T steps. state: before the first.
    params: by name, those whose gradients are wanted. Where the batch and the loss allow it, the
    steps are folded into rows of one (`fold`); the two ways give the same numbers.
    total: the sum of the ℓ_t; scale: of their sizes, which says how exactly it is known.
    Raises SettingError where a step's loss is not a scalar.
    """

    def __init__(
        self, loss: Loss, batch: Timed, state: State, params: Mapping[str, Tensor] | None = None
    ) -> None:
        self.loss, self.batch, self.length = loss, batch, len(batch)
        self.params = dict(params or {})
        self.total, self.scale, self.folded = 0.0, 0.0, False
        start = states.detach(state)
        if self.length < 2 or not has_rows(start) or not self._fold(start):
            self._unroll(start)

    @property
    def states(self) -> list[State]:
        """S_0 … S_T."""
        return [self.state(t) for t in range(self.length + 1)]

    def state(self, t: int) -> State:
        """S_t."""
        if not self.folded:
            return self._listed[t]
        return states.apply(lambda leaf: leaf[t], self._known)

    # How the graphs come about

    def _fold(self, start: State) -> bool:
        """Runs all the steps as one; False where that is not the same as one after the other."""
        whole, first = self.batch[0 : self.length], self.batch[0:1]
        rows = fold(whole, first, slice(None))
        known = None if rows is None else self._trace(start, whole, first)
        if known is None:
            return False
        inside = states.apply(lambda leaf: _as_rows(leaf[:-1]).clone(), known)
        inputs = [leaf.requires_grad_() for leaf in floating(inside)]
        with torch.enable_grad(), outputs_of_states():
            result = _attempt(self.loss, rows, inside)
        if result is None or not _alike(result[1], inside):
            return False
        value, after = result[0], floating(apart(result[1], inside))
        expected = [_as_rows(leaf[1:]) for leaf in floating(known)]
        if not alike([leaf.detach() for leaf in after], expected, recut=True):
            return False
        if value.dim() != 0 or not agree(
            float(value.detach()), self.total, self.scale, value.dtype
        ):
            return False
        self.folded, self.rows, self.inside = True, rows, inside
        self.inputs, self.outputs, self.values = inputs, after, [value]
        self._known = known
        return True

    @torch.no_grad()
    def _trace(self, start: State, whole: Any, first: Any) -> State:
        """S_0 … S_T, stacked, in about 2 √T calls of the loss; None if rows do not stack.

        A first pass in √T pieces finds the state before each; a second runs them side by side.
        """
        size = math.isqrt(self.length - 1) + 1
        before, self.total, self.scale = [start], 0.0, 0.0
        for begin in range(0, self.length, size):
            value, after = self.loss(self.batch[begin : begin + size], before[-1])
            if value.dim() != 0 or not _alike(after, start):
                return None
            self.total += float(value)
            self.scale += abs(float(value))
            before.append(after)
        now = states.concatenate(before[:-1])
        known = states.apply(lambda leaf: leaf.new_empty(self.length + 1, *leaf.shape), start)
        states.apply(lambda leaf, last: leaf[-1].copy_(last), known, before[-1])
        width = next(states.leaves(start)).shape[1]
        for j in range(size):
            count = len(range(j, self.length, size))  # the last piece may be a short one
            now = states.index(now, slice(0, count * width))
            for leaf, one in zip(states.leaves(known), states.leaves(now), strict=True):
                leaf[j:-1:size] = _as_steps(one, width)
            result = _attempt(self.loss, fold(whole, first, slice(j, None, size)), now)
            if result is None or not _alike(result[1], now):
                return None  # rows of another number than this loss was made for
            now = result[1]
        return known

    def _unroll(self, start: State) -> None:
        """A graph for each step, one after the other."""
        self.inputs, self.outputs, self.values, self._listed = [], [], [], [start]
        before = start
        with torch.enable_grad(), outputs_of_states():
            for t in range(self.length):
                before = graph_inputs(before)
                value, after = self.loss(self.batch[t : t + 1], before)
                scalar(value)
                leaves = floating(apart(after, before))
                # Where there is no state before the first step, nothing depends on it.
                self.inputs += floating(before) or [
                    torch.zeros_like(leaf).requires_grad_() for leaf in leaves
                ]
                self.outputs += leaves
                self.values.append(value)
                before = states.detach(after)
                self._listed.append(before)
        losses = [float(value.detach()) for value in self.values]
        self.total, self.scale = sum(losses), sum(map(abs, losses))

    # Products with the Jacobians

    def immediate(self) -> tuple[Stacked, dict[str, Tensor]]:
        """``∂ℓ_t/∂S_{t-1}`` of each step, stacked, and ``Σ_t ∂⁺ℓ_t/∂W`` of each parameter."""
        return self._vjp([(value, torch.ones_like(value)) for value in self.values])

    def vjp(self, cotangents: Stacked) -> tuple[Stacked, dict[str, Tensor]]:
        """``(∂S_t/∂S_{t-1})ᵀ δ_t`` of each step, stacked, and ``Σ_t δ_t ∂⁺S_t/∂W``.

        cotangents: δ_t, stacked like the states.
        """
        return self._vjp(list(zip(self.outputs, self._flat(cotangents), strict=True)))

    def own(self) -> Stacked | None:
        """``∂ℓ_t/∂S_t`` of each step, stacked; None where autograd cannot tell.

        It can where the loss of a step is computed from the state that the step returns, which
        holds for the layers of torch.nn and of this package.
        """
        used = [value for value in self.values if value.requires_grad]
        wanted = [o for o in self.outputs if o.requires_grad]
        if not wanted or not used:
            return None
        gradients_of = torch.autograd.grad(used, wanted, retain_graph=True, allow_unused=True)
        if all(one is None for one in gradients_of):
            return None
        given = iter(gradients_of)
        whole = [next(given) if o.requires_grad else None for o in self.outputs]
        return self._stack([_or_zeros(g, o) for g, o in zip(whole, self.outputs, strict=True)])

    def sweep(self, cotangents: list[Tensor]) -> tuple[list[Tensor], dict[str, Tensor]]:
        """One whole backward: ``dL/dS_0`` and ``dL/dW``, of the losses here and of later ones.

        cotangents: of the floating leaves of S_T, from the losses that come after.
        """
        names = [name for name, p in self.params.items() if p.requires_grad]
        if self.folded:
            start = graph_inputs(states.clone(self.state(0)))
            with torch.enable_grad():
                value, after = self.loss(self.batch[0 : self.length], start)
            inputs, after = [floating(start)], apart(after, start)
            outputs, values = [floating(after)], [value]
        else:
            count = len(cotangents)
            parts = [slice(t * count, (t + 1) * count) for t in range(self.length)]
            inputs = [self.inputs[part] for part in parts]
            outputs, values = [self.outputs[part] for part in parts], self.values
        total = {name: torch.zeros_like(self.params[name]) for name in names}
        wanted = [self.params[name] for name in names]
        for before, after, value in reversed(list(zip(inputs, outputs, values, strict=True))):
            pairs = [(value, torch.ones_like(value)), *zip(after, cotangents, strict=True)]
            products = gradients(pairs, [*before, *wanted])
            cotangents = products[: len(before)]
            for name, gradient in zip(names, products[len(before) :], strict=True):
                total[name] += gradient
        return cotangents, total

    def _vjp(self, pairs: list[tuple[Tensor, Tensor]]) -> tuple[Stacked, dict[str, Tensor]]:
        names = [name for name, p in self.params.items() if p.requires_grad]
        products = gradients(pairs, [*self.inputs, *(self.params[name] for name in names)])
        count = len(self.inputs)
        return self._stack(products[:count]), dict(zip(names, products[count:], strict=True))

    # Between the layout of the graphs and stacked leaves

    def _flat(self, stacked: Stacked) -> list[Tensor]:
        if self.folded:
            return [_as_rows(leaf) for leaf in stacked]
        return [leaf[t] for t in range(self.length) for leaf in stacked]

    def _stack(self, flat: list[Tensor]) -> Stacked:
        if self.folded:
            return [_as_steps(leaf, leaf.shape[1] // self.length) for leaf in flat]
        count = len(flat) // self.length
        return [torch.stack(flat[i::count]) for i in range(count)]


def _as_rows(leaf: Tensor) -> Tensor:
    """``[T, L, B, H]`` as ``[L, T * B, H]``."""
    return leaf.transpose(0, 1).flatten(1, 2)


def _as_steps(leaf: Tensor, rows: int) -> Tensor:
    """``[L, T * B, H]`` as ``[T, L, B, H]``."""
    return leaf.unflatten(1, (-1, rows)).transpose(0, 1)


def has_rows(state: State) -> bool:
    """Whether a state is laid out as those of layers are, ``[L, B, H]``."""
    leaves = list(states.leaves(state))
    return bool(leaves) and all(leaf.dim() == 3 for leaf in leaves)


def _alike(state: State, other: State) -> bool:
    """Whether two states have the same parts, of the same shapes and types."""
    if isinstance(state, tuple) and isinstance(other, tuple) and len(state) == len(other):
        return all(_alike(*pair) for pair in zip(state, other, strict=True))
    if isinstance(state, Tensor) and isinstance(other, Tensor):
        return state.shape == other.shape and state.dtype == other.dtype
    return state is None and other is None


def _attempt(loss: Loss, rows: Any, state: State) -> tuple[Tensor, State] | None:
    """The loss of rows of another number; None where it was not made for that."""
    try:
        return loss(rows, state)
    except (RuntimeError, ValueError, IndexError):
        return None


def gradients(pairs: list[tuple[Tensor, Tensor]], wanted: list[Tensor]) -> list[Tensor]:
    """The products of (output, cotangent) with the Jacobians of `wanted`; 0 for independent ones.

    The graphs are kept.
    """
    used = [(output, cotangent) for output, cotangent in pairs if output.requires_grad]
    sources = [one for one in wanted if one.requires_grad]
    if not used or not sources:
        return [torch.zeros_like(one) for one in wanted]
    outputs, cotangents = zip(*used, strict=True)
    products = torch.autograd.grad(
        outputs, sources, cotangents, retain_graph=True, allow_unused=True
    )
    given = iter(products)
    return [_or_zeros(next(given) if one.requires_grad else None, one) for one in wanted]


def _or_zeros(product: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if product is None else product
