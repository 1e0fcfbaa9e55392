"""Gate saturation: the share of activations so far out that hardly a gradient passes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import (
    _global_forward_hooks_with_kwargs,
    register_module_forward_hook,
)
from torch.nn.utils.rnn import PackedSequence

from throughtime import state as states
from throughtime.gradflow._contract import Loss, Places, check
from throughtime.gradflow._passes import blocks
from throughtime.gradflow._unrolled import Steps
from throughtime.gradflow.batches import along_time
from throughtime.kernels.cells import CELLS, Cell
from throughtime.state import State

FLAT = 0.01  # of the steepest slope
_BY_MODE = {cell.mode: cell for cell in reversed(CELLS.values())}


def saturation(
    loss: Loss, batch: Any, state: State, params: Mapping[str, Tensor] | None = None
) -> dict[str, float]:
    """The share of saturated activations of each gate of each layer, over steps, rows and units.

    Saturated is an activation whose derivative is below a hundredth of its largest: a sigmoid
    outside 0.0025 … 0.9975, a tanh beyond ±0.995, a ReLU that is off. Of an RNN these are its
    units, of a GRU r, z, n, of an LSTM i, f, g, o and the c of ``tanh(c)``. A sigmoid's saturation
    can be memory (an LSTM's f near 1, a GRU's z near 1); that of tanh never is.

    Args:
        loss: ``loss(batch, state) -> (summed loss, state)``, calling any torch.nn.RNN, GRU or LSTM,
            or this package's.
        batch: T steps, see `along_time`.
        state: before the first step.
        params: by name, if the layers shall have theirs.

    Returns:
        The shares by name, such as ``{"rnn.l0.z": 0.02}``; without a name a layer is called by its
        class and number.

    Raises:
        SettingError, NonFiniteError: as `ledger` does.
    """
    batch = along_time(batch)
    check(loss, batch, state, Places.first(batch, 1))
    owner = {id(p): n.rpartition("weight_hh_l0")[0] for n, p in (params or {}).items()}
    names: dict[int, str] = {}
    flat: dict[str, list[Tensor]] = {}  # of each gate: how many were saturated, and how many not

    def see(module: nn.RNNBase, x: Tensor, before: State, after: State) -> None:
        if id(module) not in names:
            number = sum(1 for m in names.values() if m.startswith(module.mode))
            plain = f"{module.mode}{number}."
            names[id(module)] = owner.get(id(module.weight_hh_l0), plain)
        for layer in range(module.num_layers):
            h, *c = (part[layer] for part in states.leaves(before))
            for gate, mask in _flat_of(module, layer, x, h, *c).items():
                counted = torch.stack([mask.sum(), (~mask).sum()])
                flat.setdefault(f"{names[id(module)]}l{layer}.{gate}", []).append(counted)
            x = next(states.leaves(after))[layer]

    for segment, before in blocks(loss, batch, state):
        steps = Steps(loss, segment, before)
        calls = [(steps.rows, steps.inside)] if steps.folded else _one_by_one(steps)
        with torch.no_grad(), _seen(see):
            for rows, inside in calls:
                loss(rows, inside)
    totals = {name: torch.stack(counts).sum(0).tolist() for name, counts in flat.items()}
    return {name: on / (on + off) for name, (on, off) in totals.items()}


def _one_by_one(steps: Steps) -> list[tuple[Any, State]]:
    return [(steps.batch[t : t + 1], steps.state(t)) for t in range(steps.length)]


@contextmanager
def _seen(see: Callable[[nn.RNNBase, Tensor, State, State], None]) -> Iterator[None]:
    """Within, `see` is given each single step of a recurrent layer: x ``[B, I]``, the states."""

    def hook(module: nn.Module, inputs: Any, named: Any, output: Any) -> None:
        if not isinstance(module, nn.RNNBase) or module.bidirectional:
            return
        given = dict(zip(("input", "hx", "reset", "initial"), inputs, strict=False)) | named
        x, before, reset = given["input"], given.get("hx"), given.get("reset")
        if isinstance(x, PackedSequence):
            return
        time = 1 if module.batch_first and x.dim() == 3 else 0
        after = output[1]
        if x.dim() == 2:
            x = x.unsqueeze(1)
            after, before = (states.apply(lambda p: p.unsqueeze(1), s) for s in (after, before))
            reset = None if reset is None else reset.unsqueeze(1)
        if x.shape[time] != 1:
            return
        if before is None:
            before = states.zeros_like(after) if given.get("initial") is None else given["initial"]
        if reset is not None:
            before = states.reset(before, reset.select(time, 0), given.get("initial"))
        see(module, x.select(time, 0), before, after)

    handle = register_module_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()
        _global_forward_hooks_with_kwargs.pop(handle.id, None)  # torch forgets this, and then warns


def _flat_of(
    module: nn.RNNBase, layer: int, x: Tensor, h: Tensor, c: Tensor | None = None
) -> dict[str, Tensor]:
    """Of one layer and step: which of each gate's activations are saturated, ``[B, H]``."""
    ends = ("ih", "hh")
    weights = [getattr(module, f"weight_{end}_l{layer}") for end in ends]
    biases = [getattr(module, f"bias_{end}_l{layer}") if module.bias else None for end in ends]
    given, carried = (F.linear(*parts) for parts in zip((x, h), weights, biases, strict=True))
    cell: Cell = getattr(module, "cell", _BY_MODE[module.mode])
    count = len(cell.gates)
    pre = dict(zip(cell.gates, (given + carried).chunk(count, -1), strict=True))
    if cell.kind == "gru":  # its reset gate comes after the product
        pre["n"] = given.chunk(3, -1)[2] + torch.sigmoid(pre["r"]) * carried.chunk(3, -1)[2]
    flat = {gate: _FLAT[cell.gates[gate]](part) for gate, part in pre.items()}
    if c is not None:
        held = torch.sigmoid(pre["f"]) * c + torch.sigmoid(pre["i"]) * torch.tanh(pre["g"])
        flat["c"] = _tanh(held)
    return flat if count > 1 else {cell.gates["s"]: flat["s"]}


def _tanh(pre: Tensor) -> Tensor:
    """Where 1 - tanh² < FLAT."""
    return 1 - torch.tanh(pre).square() < FLAT


def _sigmoid(pre: Tensor) -> Tensor:
    """Where σ (1 - σ) < FLAT / 4."""
    gate = torch.sigmoid(pre)
    return gate * (1 - gate) < FLAT / 4


_FLAT: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": _sigmoid,
    "tanh": _tanh,
    "relu": lambda pre: pre <= 0,
    "identity": lambda pre: torch.zeros_like(pre, dtype=torch.bool),
}
