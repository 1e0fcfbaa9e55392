"""What runs on this machine, and how to get what does not."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

_EXTRAS = {
    "arch": ("arch", "ARCH and GARCH models beside yours, and demo:prices"),
    "tokenizers": ("bpe", "--symbols tokens (byte-pair encoding of text)"),
    "pandas": ("pandas", "pandas frames as data"),
}


def version(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def examine() -> dict[str, Any]:
    """Versions, backends, threads and extras; for each missing one the command that installs it."""
    import torch

    from throughtime import __version__, kernels

    extras = []
    for package, (extra, purpose) in _EXTRAS.items():
        found = version(package)
        install = None if found else f"pip install 'throughtime[{extra}]'"
        extras.append({"package": package, "version": found, "for": purpose, "install": install})
    return {
        "throughtime": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "cuda": torch.cuda.is_available(),
        "backends": kernels.backends(),
        "extras": extras,
    }
