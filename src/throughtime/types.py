"""Aliases that several parts of the package share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

Event: TypeAlias = Callable[[dict[str, Any]], None]  # takes what happens in a fit, as JSON values
Counted: TypeAlias = Callable[[int], None]  # takes how many more steps are done
Progress: TypeAlias = Callable[[int, int, str], None]  # done, in all, what it is about


def unheard(event: dict[str, Any]) -> None:
    """An event that nobody listens to."""


def uncounted(done: int) -> None:
    """Progress in steps that nobody watches."""


def silent(done: int, total: int, about: str) -> None:
    """Progress that nobody watches."""


STDIN = "stdin:"  # the standard input as a source; also "-", which looks like an option
