"""Everything that throughtime raises on purpose::

    ThroughtimeError
    ├── DataError            a file, a cell, a time stamp or a series that cannot be used
    │   └── VocabularyError  symbols that the model has never been given
    ├── SettingError         an option or argument that makes no sense (also a ValueError)
    ├── RunError             a run folder that is incomplete, damaged or too new
    ├── BackendError         a kernel backend that cannot run here
    ├── MissingExtra         an optional package that is not installed
    └── NonFiniteError       a loss or gradient that stays infinite or NaN

Each message is one line: what is wrong, where, and what to do about it.
"""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])


class ThroughtimeError(Exception):
    """Base of every error that throughtime raises on purpose."""


class DataError(ThroughtimeError):
    """A file, a cell, a time stamp or a series that cannot be used."""


class VocabularyError(DataError):
    """Symbols that the model has never been given."""


class SettingError(ThroughtimeError, ValueError):
    """An option or argument that makes no sense."""


class RunError(ThroughtimeError):
    """A run folder that is incomplete, damaged or newer than this version."""


class BackendError(ThroughtimeError):
    """A kernel backend that cannot run here."""


class MissingExtra(ThroughtimeError, ImportError):
    """An optional package that is not installed; the message holds the command that installs it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}': pip install 'throughtime[{extra}]'"
        )


class NonFiniteError(ThroughtimeError):
    """A loss or gradient that stays infinite or NaN."""


def known_options(function: Function) -> Function:
    """Decorates what users call: an option that it does not have is refused by its name.

    Raises:
        SettingError: in place of Python's TypeError, with the nearest option.
    """
    parameters = [
        name for name in inspect.signature(function).parameters if name not in ("self", "cls")
    ]
    owner = function.__qualname__.removesuffix(".__init__").rpartition(".")[2]

    @functools.wraps(function)
    def checked(*args: Any, **options: Any) -> Any:
        for name in options:
            if name not in parameters:
                near = nearest(name, parameters) or ";"
                raise SettingError(
                    f"{owner} has no option '{name}'{near} it has {', '.join(parameters)}"
                )
        return function(*args, **options)

    return checked  # type: ignore[return-value]


def nearest(name: str, names: Iterable[str]) -> str:
    """`; did you mean 'x'?` with the name closest to `name`, or an empty string."""
    lowered: dict[str, str] = {}
    for known in names:
        lowered.setdefault(known.lower(), known)
    matches = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.6)
    return f"; did you mean '{lowered[matches[0]]}'?" if matches else ""
