"""Batches: what can be cut along time, and how it is cut, folded into rows and joined."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence
from torch.utils import _pytree as pytree

from throughtime.errors import SettingError


class Timed(Protocol):
    """What can be cut along time: ``len(batch)`` is T, ``batch[t0:t1]`` the steps t0 … t1 - 1."""

    def __len__(self) -> int: ...
    def __getitem__(self, steps: slice, /) -> Any: ...


def along_time(batch: Any) -> Timed:
    """A batch of any kind as one that has a length and slices along time.

    Args:
        batch: a tensor ``[T, ...]``; a tuple, named tuple, list or dict, however nested (any pytree
            of torch), of tensors ``[T, ...]`` and None, whose slices are of the same structure; or
            anything with ``len(batch) == T`` and ``batch[t0:t1]``, such as a
            `torch.utils.data.TensorDataset`. Time comes first: ``[T, B, ...]``.

    Returns:
        The batch itself where it has a length and slices, else a view of its tensors.

    Raises:
        SettingError: for tensors of different lengths, parts that are no tensors, and objects
            without a length or slices.
    """
    if isinstance(batch, PackedSequence):
        raise SettingError(
            "a PackedSequence cannot be cut along time; unpack it first, with "
            "torch.nn.utils.rnn.pad_packed_sequence"
        )
    if not pytree.tree_is_leaf(batch):
        return _Tree.of(batch)
    sliced = hasattr(batch, "__len__") and hasattr(batch, "__getitem__")
    if not sliced or isinstance(batch, (str, bytes, Mapping)):
        raise SettingError(
            f"a batch of type {type(batch).__name__} cannot be cut along time: give a tensor "
            "[T, B, ...], a tuple, list or dict of such, or an object with len(batch) == T and "
            "batch[t0:t1]"
        )
    if isinstance(batch, Tensor) and not batch.dim():
        raise SettingError("the batch is a tensor without dimensions; time is dim 0: [T, B, ...]")
    return batch


@dataclasses.dataclass(frozen=True)
class _Tree:
    """A pytree of tensors ``[T, ...]`` and None, cut along time tensor by tensor."""

    leaves: list[Tensor | None]
    structure: pytree.TreeSpec
    length: int

    @classmethod
    def of(cls, batch: Any) -> _Tree:
        paths, structure = pytree.tree_flatten_with_path(batch)
        lengths = {}
        for path, leaf in paths:
            name = f"batch{pytree.keystr(path)}"
            if isinstance(leaf, Tensor) and leaf.dim():
                lengths[name] = len(leaf)
            elif leaf is not None:
                what = "a tensor without dimensions" if isinstance(leaf, Tensor) else _kind(leaf)
                raise SettingError(
                    f"{name} is {what}, which cannot be cut along time: every part of a batch is a "
                    "tensor [T, ...] or None; bind what all steps share to the loss instead"
                )
        if not lengths:
            raise SettingError("the batch holds no tensors; there is nothing to cut along time")
        (first, steps), *others = lengths.items()
        for name, length in others:
            if length != steps:
                raise SettingError(
                    f"the parts of the batch differ in length: {first} has {steps} steps along dim "
                    f"0, {name} has {length}; time is dim 0 of each"
                )
        return cls([leaf for _, leaf in paths], structure, steps)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, steps: slice) -> Any:
        cut = [None if leaf is None else leaf[steps] for leaf in self.leaves]
        return pytree.tree_unflatten(cut, self.structure)


def _kind(leaf: Any) -> str:
    name = type(leaf).__name__
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"


@dataclasses.dataclass(frozen=True)
class Segment:
    """The steps of a batch from `begin` up to `end`, as a batch of their own."""

    batch: Timed
    begin: int
    end: int

    def __post_init__(self) -> None:
        outer = self.batch
        if isinstance(outer, Segment):  # so that `begin` always counts from the very first step
            object.__setattr__(self, "batch", outer.batch)
            object.__setattr__(self, "begin", outer.begin + self.begin)
            object.__setattr__(self, "end", outer.begin + self.end)

    def __len__(self) -> int:
        return self.end - self.begin

    def __getitem__(self, steps: slice) -> Any:
        first, last, _ = steps.indices(len(self))
        return self.batch[self.begin + first : self.begin + last]


class _UnknownKindError(Exception):
    """A part of a batch that is no tensor with time and rows."""


def fold(batch: Any, one: Any, steps: slice) -> Any | None:
    """The chosen steps of a cut batch as the rows of one step; None where that is not known.

    batch: a tensor ``[T, B, ...]``, or pytrees and dataclasses of them. one: its first step, which
    shows what is cut along time.
    """

    def rows(part: Tensor, first: Tensor) -> Tensor:
        if part.dim() < 2 or first.shape != (1, *part.shape[1:]):
            raise _UnknownKindError
        return part[steps].flatten(0, 1).unsqueeze(0)

    return _each(rows, batch, one)


def join(batches: Sequence[Any]) -> Any | None:
    """Cut batches of one length as the rows of one; None where they are of no known kind."""

    def rows(*parts: Tensor) -> Tensor:
        if parts[0].dim() < 2:
            raise _UnknownKindError
        return torch.cat(parts, 1)

    return _each(rows, *batches)


def tensors(batch: Any) -> list[Tensor]:
    """The tensors of a cut batch; none where it is of no known kind."""
    leaves: list[Tensor] = []
    _each(lambda part: leaves.append(part) or part, batch)  # type: ignore[func-returns-value]
    return leaves


def _each(function: Callable[..., Tensor], *batches: Any) -> Any | None:
    """`function` of the matching tensors of batches; None where a part is of no known kind."""

    def one(*parts: Any) -> Any:
        first = parts[0]
        if dataclasses.is_dataclass(first) and not isinstance(first, type):
            names = [field.name for field in dataclasses.fields(first) if field.init]
            inner = [{name: getattr(part, name) for name in names} for part in parts]
            return dataclasses.replace(first, **pytree.tree_map(one, *inner))
        if first is None:
            return None
        if not all(isinstance(part, Tensor) for part in parts):
            raise _UnknownKindError
        return function(*parts)

    try:
        return pytree.tree_map(one, *batches)
    except (_UnknownKindError, ValueError):  # ValueError: of another structure
        return None
