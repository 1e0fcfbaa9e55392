"""Gradient methods as strings, as settings and command lines name them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from throughtime.bptt.adaptive import Adaptive
from throughtime.bptt.base import GradientMethod
from throughtime.bptt.checkpointed import Checkpointed
from throughtime.bptt.randomized import Randomized
from throughtime.bptt.rtrl import Online
from throughtime.bptt.truncated import Full, Truncated
from throughtime.errors import SettingError

# The first name of a string, and what it makes of the settings that follow.
_NAMED: dict[str, Callable[..., GradientMethod]] = {
    "full": Full,
    "adaptive": Adaptive,
    "bias": Adaptive,
    "memory": Checkpointed,
    "slots": Checkpointed,
    "mean_lag": Randomized,
    "online": lambda online=1: Online(online),
}
_BARE = ("full", "adaptive", "online")  # that need no number


def _count(text: str) -> int:
    if not text.isdecimal():
        raise KeyError(text)
    return int(text)


_READ: dict[str, Callable[[str], Any]] = {
    "bias": float, "mean_lag": float, "alpha": float, "memory": str,
    "slots": _count, "max_lag": _count, "every": _count, "online": _count,
}  # fmt: skip


def parse(text: str | GradientMethod) -> GradientMethod:
    """The gradient method that a string names.

    Args:
        text: one of

            - ``full``: `Full`
            - ``K`` or ``K1,K2``: `Truncated`, such as ``64`` and ``64,128``
            - ``memory=512MB`` or ``slots=32``: `Checkpointed`
            - ``adaptive``, or ``bias=0.05`` with ``max_lag=…`` and ``every=…``: `Adaptive`
            - ``mean_lag=16`` with ``every=…`` and ``alpha=…``: `Randomized`
            - ``online`` or ``online=K1``: `Online`

            Several settings are parted by commas: ``bias=0.05,every=100``. A method is taken as
            it is.

    Returns:
        The method; ``parse(str(method)) == method`` for each of them.

    Raises:
        SettingError: for what names none, and for settings that make no sense.
    """
    if isinstance(text, GradientMethod):
        return text
    if not isinstance(text, str):
        raise SettingError(
            f"bptt= takes a method of tt.bptt or its string form, got {type(text).__name__}"
        )
    parts = [part.strip() for part in text.split(",")]
    if len(parts) <= 2 and all(part.lstrip("-").isdecimal() for part in parts):
        return Truncated(*map(int, parts))
    name = parts[0].partition("=")[0]
    if name not in _NAMED or (name == parts[0] and name not in _BARE):
        raise _unknown(text)
    settings: dict[str, Any] = {}
    for part in parts if "=" in parts[0] else parts[1:]:
        key, _, value = part.partition("=")
        try:
            settings[key] = _READ[key](value)
        except KeyError:
            raise _unknown(text) from None
        except ValueError:
            raise SettingError(f"bptt={text!r} has no number (for example bias=0.05)") from None
    try:
        return _NAMED[name](**settings)
    except TypeError:  # a setting of another method
        raise _unknown(text) from None


def _unknown(text: str) -> SettingError:
    return SettingError(
        f"bptt={text!r} is not full, K or K1,K2 (for example 64 or 64,128), memory=512MB "
        "or adaptive"
    )
