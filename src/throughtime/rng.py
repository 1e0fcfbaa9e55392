"""Uniform numbers tied to what they are for, not to the order in which they are drawn.

The number for (seed, series, path, step, draw) is a hash of those integers, so a sampled path is
the same whatever else is in the batch, and in whatever order paths are made. The mixing function
is SplitMix64's finaliser (Steele, Lea & Flood 2014).
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX1 = _signed(0xBF58476D1CE4E5B9)
_MIX2 = _signed(0x94D049BB133111EB)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift of int64."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = x + _GOLDEN
    x = (x ^ _shift(x, 30)) * _MIX1
    x = (x ^ _shift(x, 27)) * _MIX2
    return x ^ _shift(x, 31)


def root(seed: int, series: str = "") -> int:
    """What the streams of all paths of a named series follow from, an int64."""
    return _derive(seed, series)


def streams(root: int, paths: Tensor) -> Tensor:
    """One stream (int64) per path index, ``[...]`` like `paths`."""
    return _mix(_mix(paths.to(torch.int64)) ^ root)


def uniforms(stream: Tensor, step: int, count: int) -> Tensor:
    """float64 ``[..., count]`` strictly inside (0, 1) for one step of each stream."""
    draw = torch.arange(count, device=stream.device) + (step << 16)
    bits = _mix(stream.unsqueeze(-1) ^ _mix(draw))
    return (_shift(bits, 11).to(torch.float64) + 0.5) * 2.0**-53


def _derive(seed: int, name: str) -> int:
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "little", signed=True)


def generator(seed: int, *name: object) -> torch.Generator:
    """A torch.Generator derived from the one seed by name."""
    return torch.Generator().manual_seed(_derive(seed, "/".join(map(str, name))) & (2**63 - 1))
