"""A loss taken apart into its time steps: what every tool through time is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeAlias

from torch import Tensor

from throughtime.state import State


class Timed(Protocol):
    """Anything that can be cut along time."""

    def __len__(self) -> int: ...
    def __getitem__(self, steps: slice, /) -> Any: ...


Loss: TypeAlias = Callable[[Any, State], tuple[Tensor, State]]
