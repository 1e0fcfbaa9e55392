"""The machine that figures belong to, and the most that its arithmetic gives."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from throughtime import __version__
from throughtime.bench.timing import Contender
from throughtime.errors import SettingError
from throughtime.kernels import native

_LIMIT_SIZE = 1536  # rows and columns: 7 billion operations, too large for what comes before it
LIMIT_WORK = 2 * _LIMIT_SIZE**3
LIMIT = "limit"


def describe() -> dict[str, Any]:
    """Processor, instructions, threads and versions."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "instructions": native.instructions(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "python": platform.python_version(),
        "throughtime": __version__,
        "torch": torch.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def limit() -> Contender:
    """torch's product of two large float32 matrices: what the machine reaches at its best."""
    draw = torch.Generator().manual_seed(0)
    a, b = (torch.randn(_LIMIT_SIZE, _LIMIT_SIZE, generator=draw) for _ in range(2))
    out = torch.empty_like(a)

    def run(count: int) -> None:
        for _ in range(count):
            torch.mm(a, b, out=out)

    return Contender(LIMIT, run)


@contextmanager
def threads(count: int | None) -> Iterator[int]:
    """As many of torch's threads as asked for, for a while; those it has if None."""
    before = torch.get_num_threads()
    if count is not None and count < 1:
        raise SettingError(f"threads={count}: it takes at least one")
    torch.set_num_threads(count or before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
