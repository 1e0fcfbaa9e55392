"""How settings and command lines name gradient methods."""

from __future__ import annotations

from throughtime.bptt.base import GradientMethod
from throughtime.bptt.windows import Full, Truncated
from throughtime.errors import SettingError


def parse(text: str) -> GradientMethod:
    """The method that a command line names: "full", "K" or "K1,K2"."""
    if text == "full":
        return Full()
    try:
        steps = [int(part) for part in text.split(",")]
    except ValueError:
        steps = []
    if len(steps) not in (1, 2):
        raise SettingError(f"--bptt {text!r} is not full, K or K1,K2 (for example 64 or 64,128)")
    return Truncated(*steps)


def describe(method: GradientMethod) -> str:
    """What `parse` reads back."""
    if isinstance(method, Truncated):
        return f"{method.k1},{method.reach}"
    return "full"
