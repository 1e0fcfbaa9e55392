"""Running a loss again: generators put back, nothing left behind that changes later runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

Generators = tuple[torch.Generator, ...]


@dataclass(frozen=True)
class Randomness:
    """Where torch's own generators and some others stand.

    cpu: uint8, 5056 bytes. cuda: one per device where CUDA has been initialised. given: of the
    listed ones, in their order.
    """

    cpu: Tensor
    cuda: tuple[Tensor, ...]
    given: tuple[Tensor, ...]

    @property
    def parts(self) -> tuple[Tensor, ...]:
        return (self.cpu, *self.cuda, *self.given)

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for part in self.parts)

    def equals(self, other: Randomness) -> bool:
        return len(self.parts) == len(other.parts) and all(
            torch.equal(one, two) for one, two in zip(self.parts, other.parts, strict=True)
        )


def take(given: Generators = ()) -> Randomness:
    """The states of torch's generators and of the given ones."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return Randomness(torch.get_rng_state(), tuple(cuda), tuple(g.get_state() for g in given))


def put(randomness: Randomness, given: Generators = ()) -> None:
    """Sets the generators to where they stood when `randomness` was taken."""
    torch.set_rng_state(randomness.cpu)
    for device, part in enumerate(randomness.cuda):
        torch.cuda.set_rng_state(part, device)
    for generator, part in zip(given, randomness.given, strict=True):
        generator.set_state(part)


@contextmanager
def uncached() -> Iterator[None]:
    """Autocast would hand weights that it rounded without a graph to later runs that need one."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


@contextmanager
def forked(given: Generators = ()) -> Iterator[Randomness]:
    """Whatever a block draws, the generators stand afterwards where they stood before."""
    before = take(given)
    try:
        yield before
    finally:
        put(before, given)
