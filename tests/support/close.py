"""Comparisons of tensors that say which one differs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor


def assert_same(
    actual: Sequence[Tensor], expected: Sequence[Tensor], names: Iterable[str], **tolerance: float
) -> None:
    """Each tensor equals its counterpart; the first one that does not is named."""
    for one, other, name in zip(actual, expected, names, strict=True):
        torch.testing.assert_close(
            one, other, equal_nan=True, msg=lambda text, name=name: f"{name}: {text}", **tolerance
        )


def output_names(outputs: Sequence[Tensor]) -> list[str]:
    """Of a layer's output and final state."""
    return ["y", "h_end", "c_end"][: len(outputs)]


def gradient_names(inputs: Sequence[Tensor], module: torch.nn.Module) -> list[str]:
    """Of the gradients of a layer's input and initial state (and more), and of its weights."""
    known = ["x", "h0", "c0", *(f"input {i}" for i in range(3, len(inputs)))]
    weights = [name for name, _ in module.named_parameters()]
    return [f"d {name}" for name in (*known[: len(inputs)], *weights)]
