"""Parts of a training checkpoint: carried states and the optimiser, as tensors and JSON."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from throughtime.state import State


def pack(state: State, name: str, tensors: dict[str, Tensor]) -> Any:
    """Puts a state's tensors into `tensors` under `name`; returns its structure as JSON."""
    if state is None:
        return None
    if isinstance(state, tuple):
        return [pack(part, f"{name}.{i}", tensors) for i, part in enumerate(state)]
    tensors[name] = state
    return name


def unpack(structure: Any, tensors: dict[str, Tensor]) -> State:
    """The state that `pack` took apart."""
    if structure is None:
        return None
    if isinstance(structure, list):
        return tuple(unpack(part, tensors) for part in structure)
    return tensors[structure]


def pack_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> Any:
    """Puts an optimiser's tensors into `tensors`; returns the rest of its state as JSON."""
    whole = optimiser.state_dict()
    rest: dict[str, Any] = {}
    for index, entries in whole["state"].items():
        for key, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{index}.{key}"] = value
            else:
                rest[f"{index}.{key}"] = value
    return rest


def unpack_optimiser(
    optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor], rest: dict[str, Any]
) -> None:
    """Puts back what `pack_optimiser` took apart."""
    states: dict[int, dict[str, Any]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".", 2)
            states.setdefault(int(index), {})[key] = value
    for name, scalar in rest.items():
        index, key = name.split(".", 1)
        states.setdefault(int(index), {})[key] = scalar
    whole = optimiser.state_dict()
    whole["state"] = states
    optimiser.load_state_dict(whole)
