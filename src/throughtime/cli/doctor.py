"""What runs on this machine, and how to get what does not."""

from __future__ import annotations

import os
import platform
from typing import Any

from throughtime.runtime import version

_EXTRAS = {
    "arch": ("arch", "ARCH and GARCH models beside yours, and demo:prices"),
    "tokenizers": ("bpe", "--symbols tokens (byte-pair encoding of text)"),
    "pandas": ("pandas", "pandas frames as data"),
}


def examine() -> dict[str, Any]:
    """Versions, kernels, threads and extras; for each missing one what installs it."""
    import torch

    from throughtime import __version__, kernels

    extras = []
    for package, (extra, purpose) in _EXTRAS.items():
        installed = version(package)
        install = None if installed else f"pip install 'throughtime[{extra}]'"
        extras.append(
            {"package": package, "version": installed, "for": purpose, "install": install}
        )
    return {
        "throughtime": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.cuda.is_available(),
        "backends": kernels.backends(),
        "kernels": _native(),
        "extras": extras,
    }


def _native() -> dict[str, str | None]:
    """The C++ kernels: their instruction set, or what is wrong and what changes that."""
    from throughtime.kernels import native

    problem, remedy = native.problem(), native.REMEDY
    if problem.startswith(native.FORCE):
        remedy = f"unset {native.FORCE}"
    elif problem:
        problem = f"{problem}, so 'auto' uses torch"
    return {
        "instructions": None if problem else native.instructions(),
        "problem": problem or None,
        "install": remedy if problem else None,
    }


def lines(facts: dict[str, Any]) -> list[str]:
    """What `examine` found, for people."""
    native, ready = facts["kernels"], [name for name, runs in facts["backends"].items() if runs]
    missing = ": ".join(part for part in (native["problem"], native["install"]) if part)
    said = [(key, facts[key]) for key in ("throughtime", "python", "torch", "cpu")]
    said += [
        ("threads", f"{facts['threads']} of {facts['cores']} cores"),
        ("cuda", "yes" if facts["cuda"] else "no"),
        ("backends", ", ".join(ready)),
        ("kernels", native["instructions"] or missing),
    ]
    for extra in facts["extras"]:
        state = extra["version"] or f"missing: {extra['install']}"
        said.append((extra["package"], f"{state}  ({extra['for']})"))
    return [f"{name:<12} {what}" for name, what in said]
