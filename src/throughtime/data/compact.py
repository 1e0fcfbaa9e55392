"""Integers in as few bytes as hold them, and work on long tensors a block at a time.

A text of 200 MB has as many steps: a tensor of int64 for each thing that is said about a step would
take eight times the file. What is the same at every step takes one number, whatever the length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import Tensor

INTEGERS = (torch.uint8, torch.int16, torch.int32, torch.int64)  # that symbols may be held in
BLOCK = 2**22  # steps
_IN_CACHE = 2**16


def integer_type(largest: int) -> torch.dtype:
    """The smallest type that holds the numbers from 0 to `largest`."""
    return next(kind for kind in INTEGERS if largest <= torch.iinfo(kind).max)


def blocks(total: int) -> Iterator[slice]:
    """The steps 0 … total - 1, some at a time."""
    return (slice(i, min(i + BLOCK, total)) for i in range(0, total, BLOCK))


def by_block(values: Tensor, function: Callable[[Tensor], Tensor], dtype: torch.dtype) -> Tensor:
    """What an elementwise function makes of values ``[total]``, in a type that holds it."""
    result = torch.empty(len(values), dtype=dtype)
    for i in range(0, len(values), _IN_CACHE):
        part = slice(i, i + _IN_CACHE)
        result[part] = function(values[part])
    return result


def counted(values: Tensor, places: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """The running sum of a function of values ``[total]`` before each of some places, int64.

    Args:
        values: one number a step.
        places: from 0 to total.
        function: of some values, int64 of the same shape.
    """
    sums, before = torch.zeros(len(places), dtype=torch.int64), 0
    for part in blocks(len(values)):
        running = function(values[part]).cumsum(0)
        inside = (places > part.start) & (places <= part.stop)
        sums[inside] = before + running[places[inside] - part.start - 1]
        before += int(running[-1])
    return sums


def constant(value: float, total: int, dtype: torch.dtype) -> Tensor:
    """The same number at every step, ``[total]``, in the memory of one."""
    return torch.tensor(value, dtype=dtype).expand(total)


def picked(extra: Tensor, steps: Tensor | slice) -> Tensor:
    """Some steps of what is said about each; what is the same at all stays in the memory of one."""
    if isinstance(steps, Tensor) and extra.stride() == (0,) and len(extra):
        return extra[:1].expand(len(steps))
    return extra[steps]


def compact(points: np.ndarray) -> Tensor:
    """Whole numbers from 0 on as a tensor ``[total]`` of the smallest type that holds them."""
    kind = integer_type(int(points.max()) if len(points) else 0)
    small = points.astype(str(kind).removeprefix("torch."), copy=False)
    return torch.from_numpy(small if small.flags.writeable else small.copy())
