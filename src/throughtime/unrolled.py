"""A loss taken apart into its time steps: what every tool through time is made of.

Step t maps the state S_{t-1} to (ℓ_t, S_t). Given all the states, the steps no longer depend on
each other, so products with all their Jacobians ∂S_t/∂S_{t-1} are taken at once: where a batch can
be folded, time becomes part of the rows, and T steps of B rows run as one step of T·B rows.

All that runs along time is *stacked*: a list with one tensor ``[T, *shape of the leaf]`` for each
floating leaf of the state.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils.rnn import PackedSequence

from throughtime import state as states
from throughtime.errors import SettingError
from throughtime.state import State


class Timed(Protocol):
    """Anything that can be cut along time."""

    def __len__(self) -> int: ...
    def __getitem__(self, steps: slice, /) -> Any: ...


Loss: TypeAlias = Callable[[Any, State], tuple[Tensor, State]]
Stacked: TypeAlias = list[Tensor]

_ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-4}


@contextmanager
def _outputs_of_states() -> Iterator[None]:
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


def side_by_side(batches: Sequence[Any]) -> Any:
    """Batches of one length as the rows of one, or None where they are of no known kind.

    Known are tensors ``[T, B, ...]`` and tuples, lists, dicts and dataclasses of them.
    """
    first = batches[0]
    if first is None:
        return None
    if isinstance(first, Tensor):
        return torch.cat(list(batches), 1) if first.dim() > 1 else None
    if dataclasses.is_dataclass(first) and not isinstance(first, type):
        names = [f.name for f in dataclasses.fields(first) if f.init]
        parts = _parts([{n: getattr(b, n) for n in names} for b in batches])
        return None if parts is None else dataclasses.replace(first, **parts)
    if isinstance(first, dict):
        return _parts(batches)
    if isinstance(first, (tuple, list)):
        found = _parts([dict(enumerate(b)) for b in batches])
        return None if found is None else type(first)(found.values())
    return None


def _parts(batches: Sequence[dict[Any, Any]]) -> dict[Any, Any] | None:
    found = {}
    for name, value in batches[0].items():
        found[name] = side_by_side([b[name] for b in batches])
        if found[name] is None and value is not None:
            return None
    return found


def floating(state: State) -> list[Tensor]:
    """The leaves of a state that can have a gradient."""
    return [leaf for leaf in states.leaves(state) if leaf.is_floating_point()]


def with_floating(state: State, values: Sequence[Tensor]) -> State:
    """The state with its floating leaves replaced, in order."""
    left = iter(values)
    return states.apply(lambda leaf: next(left) if leaf.is_floating_point() else leaf, state)


def norms(stacked: Stacked) -> Tensor:
    """The norm of the whole state at each step, ``[T]``, or of each row, ``[T, B]``.

    Leaves ``[T, L, B, H]`` have rows; of others the whole leaf counts.
    """
    return sum(_squares(leaf) for leaf in stacked).sqrt()  # type: ignore[union-attr]


def _squares(leaf: Tensor) -> Tensor:
    return leaf.square().sum((1, 3)) if leaf.dim() == 4 else leaf.square().flatten(1).sum(1)


class Steps:
    """T steps of a loss, each with its graph from S_{t-1} to (ℓ_t, S_t), ready for products.

    loss: ``loss(batch, state) -> (summed loss, state)``. batch: T steps. state: before the first.
    params: by name, those whose gradients are wanted. Where the batch and the loss allow it, the
    steps are folded into rows of one (`folded`); the two ways give the same numbers.
    states: S_0 … S_T, of every step. losses: float64, the sum of the ℓ_t.
    Raises SettingError where a step's loss is not a scalar.
    """

    def __init__(
        self, loss: Loss, batch: Timed, state: State, params: dict[str, Tensor] | None = None
    ) -> None:
        self.loss, self.batch, self.length = loss, batch, len(batch)
        self.params = dict(params or {})
        self.folded = False
        start = states.detach(state)
        pieces = None
        if self.length > 1 and _has_rows(start):
            pieces = self._trace(start)
        if pieces is None or not self._fold(pieces):
            self._unroll(start)

    # How the graphs come about

    def _trace(self, start: State) -> list[State] | None:
        """S_0 … S_T without a graph, in about 2 √T calls of the loss; None if rows do not stack.

        A first pass in √T pieces finds the state before each; a second runs them side by side.
        """
        size = math.isqrt(self.length - 1) + 1
        begins = range(0, self.length, size)
        before, self.total = [start], 0.0
        with torch.no_grad():
            for begin in begins:
                value, after = self.loss(self.batch[begin : begin + size], before[-1])
                self.total += float(value)
                before.append(states.detach(after))
            if not all(_has_rows(s) for s in before[1:]):
                return None
            found: list[State] = [None] * self.length
            now = before[:-1]
            for j in range(size):
                places = [b + j for b in begins if b + j < self.length]
                now = now[: len(places)]
                for place, one in zip(places, now, strict=True):
                    found[place] = one
                rows = side_by_side([self.batch[t : t + 1] for t in places])
                if rows is None:
                    return None
                try:
                    _, after = self.loss(rows, states.concatenate(now))
                except (RuntimeError, ValueError, IndexError):
                    return None  # rows of another number than this loss was made for
                now = _split(after, now)
        return [*found, before[-1]]

    def _fold(self, pieces: list[State]) -> bool:
        """Runs all the steps as one; False where that is not the same as one after the other."""
        rows = side_by_side([self.batch[t : t + 1] for t in range(self.length)])
        inside = states.concatenate(pieces[:-1])
        leaves = [leaf.requires_grad_() for leaf in floating(inside)]
        try:
            with torch.enable_grad(), _outputs_of_states():
                value, after = self.loss(rows, inside)
        except (RuntimeError, ValueError, IndexError):
            return False
        known = floating(states.concatenate(pieces[1:]))
        found = floating(after)
        if [f.shape for f in found] != [k.shape for k in known] or not all(
            _same(f.detach(), k) for f, k in zip(found, known, strict=True)
        ):
            return False
        if abs(float(value.detach()) - self.total) > _rounding(value) * max(1.0, abs(self.total)):
            return False
        self.folded, self.rows = True, rows
        self.inputs, self.outputs, self.values = leaves, found, [value]
        self.states, self.inside = pieces, inside
        return True

    def _unroll(self, start: State) -> None:
        """A graph for each step, one after the other."""
        self.inputs, self.outputs, self.values, self.states = [], [], [], [start]
        before = start
        with torch.enable_grad(), _outputs_of_states():
            for t in range(self.length):
                before = states.apply(
                    lambda leaf: leaf.detach().requires_grad_(leaf.is_floating_point()), before
                )
                value, after = self.loss(self.batch[t : t + 1], before)
                if value.dim() != 0:
                    raise SettingError(
                        "loss(batch, state) must return a scalar, then the state; "
                        f"got shape {list(value.shape)}"
                    )
                self.inputs += floating(before)
                self.outputs += floating(after)
                self.values.append(value)
                before = states.detach(after)
                self.states.append(before)
        self.total = sum(float(value.detach()) for value in self.values)

    # Products with the Jacobians

    def immediate(self) -> tuple[Stacked, dict[str, Tensor]]:
        """``∂ℓ_t/∂S_{t-1}`` of each step, stacked, and ``Σ_t ∂⁺ℓ_t/∂W`` of each parameter."""
        values = [value for value in self.values if value.requires_grad]
        return self._pull(values, [torch.ones_like(value) for value in values])

    def back(self, cotangents: Stacked) -> tuple[Stacked, dict[str, Tensor]]:
        """``(∂S_t/∂S_{t-1})ᵀ δ_t`` of each step, stacked, and ``Σ_t δ_t ∂⁺S_t/∂W``.

        cotangents: δ_t, stacked like the states.
        """
        flat = self._flat(cotangents)
        pairs = [(o, c) for o, c in zip(self.outputs, flat, strict=True) if o.requires_grad]
        return self._pull([o for o, _ in pairs], [c for _, c in pairs])

    def own(self) -> Stacked | None:
        """``∂ℓ_t/∂S_t`` of each step, stacked; None where autograd cannot tell.

        It can where the loss of a step is computed from the state that the step returns, which
        holds for the layers of torch.nn and of this package.
        """
        wanted = [o for o in self.outputs if o.requires_grad]
        values = [value for value in self.values if value.requires_grad]
        if not wanted or not values:
            return None
        found = torch.autograd.grad(values, wanted, retain_graph=True, allow_unused=True)
        if all(one is None for one in found):
            return None
        given = iter(found)
        whole = [next(given) if o.requires_grad else None for o in self.outputs]
        return self._stack([_or_zeros(g, o) for g, o in zip(whole, self.outputs, strict=True)])

    def forward(self, tangents: Stacked) -> Stacked:
        """``(∂S_t/∂S_{t-1}) v_t`` of each step, stacked, by forward mode.

        Raises SettingError where the loss has operators without forward mode.
        """
        flat = self._flat(tangents)
        found: list[Tensor] = []
        per_step = len(flat) // len(self._calls())
        with torch.no_grad(), forward_ad.dual_level():
            for i, (rows, before) in enumerate(self._calls()):
                here = flat[i * per_step : (i + 1) * per_step]
                leaves = [leaf.detach() for leaf in floating(before)]
                duals = [forward_ad.make_dual(a, v) for a, v in zip(leaves, here, strict=True)]
                try:
                    _, after = self.loss(rows, with_floating(before, duals))
                except NotImplementedError as error:
                    raise SettingError(
                        "an operator of this loss has no forward mode "
                        f"({' '.join(str(error).split())[:80]}); call tt.accelerate on the module, "
                        "or use float64"
                    ) from error
                for leaf in floating(after):
                    tangent = forward_ad.unpack_dual(leaf).tangent
                    found.append(torch.zeros_like(leaf) if tangent is None else tangent.clone())
        return self._stack(found)

    def _calls(self) -> list[tuple[Any, State]]:
        if self.folded:
            return [(self.rows, self.inside)]
        return [(self.batch[t : t + 1], self.states[t]) for t in range(self.length)]

    def _pull(
        self, outputs: list[Tensor], cotangents: list[Tensor]
    ) -> tuple[Stacked, dict[str, Tensor]]:
        names = [name for name, p in self.params.items() if p.requires_grad]
        wanted = [*self.inputs, *(self.params[name] for name in names)]
        found: Sequence[Tensor | None] = [None] * len(wanted)
        if outputs and wanted:
            found = torch.autograd.grad(
                outputs, wanted, cotangents, retain_graph=True, allow_unused=True
            )
        filled = [_or_zeros(g, w) for g, w in zip(found, wanted, strict=True)]
        count = len(self.inputs)
        return self._stack(filled[:count]), dict(zip(names, filled[count:], strict=True))

    # Between the layout of the graphs and stacked leaves

    def _flat(self, stacked: Stacked) -> list[Tensor]:
        if self.folded:
            return [leaf.transpose(0, 1).flatten(1, 2) for leaf in stacked]
        return [leaf[t] for t in range(self.length) for leaf in stacked]

    def _stack(self, flat: list[Tensor]) -> Stacked:
        if self.folded:
            return [leaf.unflatten(1, (self.length, -1)).transpose(0, 1) for leaf in flat]
        count = len(flat) // self.length
        return [torch.stack(flat[i::count]) for i in range(count)]


def _has_rows(state: State) -> bool:
    """Whether a state is laid out as those of layers are, ``[L, B, H]``."""
    found = list(states.leaves(state))
    return bool(found) and all(leaf.dim() == 3 for leaf in found)


def _split(state: State, like: list[State]) -> list[State]:
    counts = [next(states.leaves(one)).shape[1] for one in like]
    ends = torch.tensor(counts).cumsum(0).tolist()
    return [
        states.index(states.detach(state), slice(end - n, end))
        for end, n in zip(ends, counts, strict=True)
    ]


def _same(found: Tensor, known: Tensor) -> bool:
    scale = float(known.abs().max()) if known.numel() else 0.0
    return bool(((found - known).abs() <= _rounding(known) * max(1.0, scale)).all())


def _rounding(value: Tensor) -> float:
    return _ROUNDING.get(value.dtype, 1e-2)


def _or_zeros(found: Tensor | None, like: Tensor) -> Tensor:
    return torch.zeros_like(like) if found is None else found
