"""The states of random generators: captured, put back, watched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Generators = tuple[torch.Generator, ...]


@dataclass(frozen=True)
class RngState:
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

    def equals(self, other: RngState) -> bool:
        return len(self.parts) == len(other.parts) and all(
            torch.equal(one, two) for one, two in zip(self.parts, other.parts, strict=True)
        )


def capture(given: Generators = ()) -> RngState:
    """The states of torch's generators and of the given ones."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return RngState(torch.get_rng_state(), tuple(cuda), tuple(g.get_state() for g in given))


def restore(state: RngState, given: Generators = ()) -> None:
    """Sets the generators to where they stood when `state` was captured."""
    torch.set_rng_state(state.cpu)
    for device, part in enumerate(state.cuda):
        torch.cuda.set_rng_state(part, device)
    for generator, part in zip(given, state.given, strict=True):
        generator.set_state(part)


@contextmanager
def forked(given: Generators = ()) -> Iterator[RngState]:
    """Whatever a block draws, the generators stand afterwards where they stood before."""
    before = capture(given)
    try:
        yield before
    finally:
        restore(before, given)


class Watched(TorchFunctionMode):
    """Within, notes where each generator stood that is handed to torch from outside."""

    def __init__(self) -> None:
        super().__init__()
        self.first: dict[torch.Generator, Tensor] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        for value in (*args, *kwargs.values()):
            if isinstance(value, torch.Generator) and value not in self.first:
                self.first[value] = value.get_state()
        return func(*args, **kwargs)

    def restore(self) -> None:
        """Sets these generators to where they stood."""
        for generator, state in self.first.items():
            generator.set_state(state)


@contextmanager
def uncached_autocast() -> Iterator[None]:
    """Autocast would hand weights that it rounded without a graph to later runs that need one."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)
