"""Batches and states side by side: several pieces of time as the rows of one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


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
