"""How settings and command lines name gradient methods."""

from __future__ import annotations

from throughtime.bptt.adaptive import Adaptive
from throughtime.bptt.base import GradientMethod
from throughtime.bptt.checkpointed import Checkpointed
from throughtime.bptt.truncated import Full, Truncated
from throughtime.errors import SettingError


def parse(text: str) -> GradientMethod:
    """The method that a command line names.

    "full", "K", "K1,K2", "memory=512MB", "slots=32", "adaptive" or "bias=0.05".
    """
    if text == "full":
        return Full()
    if text == "adaptive":
        return Adaptive()
    name, _, amount = text.partition("=")
    if name == "bias":
        return Adaptive(_number(text))
    if name == "memory":
        return Checkpointed(memory=amount)
    if name == "slots" and amount.isdecimal():
        return Checkpointed(slots=int(amount))
    try:
        steps = [int(part) for part in text.split(",")]
    except ValueError:
        steps = []
    if len(steps) not in (1, 2):
        raise SettingError(
            f"--bptt {text!r} is not full, K or K1,K2 (for example 64 or 64,128), memory=512MB "
            "or adaptive"
        )
    return Truncated(*steps)


def _number(text: str) -> float:
    """What stands behind "name="."""
    try:
        return float(text.partition("=")[2])
    except ValueError:
        raise SettingError(f"--bptt {text!r} has no number (for example bias=0.05)") from None
