"""The process that a model runs in: threads, memory, versions of packages."""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import os
import random
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np


def version(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


@contextmanager
def threads(count: int | None) -> Iterator[None]:
    """Runs a block on so many threads of torch and of BLAS; None leaves them as they are.

    Steps of small networks are too short to be shared out: waiting for each other costs more,
    and very much more where another process uses one of the cores.
    """
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(before if count is None else min(count, before))
    try:
        with threadpool_limits(count, user_api="blas"):
            yield
    finally:
        torch.set_num_threads(before)


_until: ContextVar[float] = ContextVar("until", default=math.inf)


@contextmanager
def until(moment: float | None) -> Iterator[None]:
    """Runs a block whose loops end early, with what they have, once a moment has come.

    A limit is kept by work that is sized before it begins; this is what still holds where the
    machine turns out slower than it was. A moment that never comes changes nothing.

    Args:
        moment: of `time.monotonic`; None, and any later than one around it, change nothing.
    """
    token = _until.set(min(_until.get(), math.inf if moment is None else moment))
    try:
        yield
    finally:
        _until.reset(token)


def time_left() -> float:
    """Seconds until the moment has come; infinite where there is none."""
    moment = _until.get()
    return math.inf if moment == math.inf else moment - time.monotonic()


def out_of_time() -> bool:
    """Whether the moment has come until which work may go on."""
    return time_left() <= 0


@contextmanager
def isolated() -> Iterator[None]:
    """Leaves the caller's random generators, threads, warnings and environment as they were."""
    import torch

    numbers, chance = np.random.get_state(), random.getstate()
    environment, count = dict(os.environ), torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        try:
            yield
        finally:
            torch.set_num_threads(count)
            np.random.set_state(numbers)
            random.setstate(chance)
            if os.environ != environment:
                os.environ.clear()
                os.environ.update(environment)


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Runs a block with the products of numpy and scipy on one thread.

    Those of the fits here are small; threads of BLAS wait for each other by spinning, and where
    another process uses one of the cores that takes a hundred times longer than the products.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1, user_api="blas"):
        yield


def reset_peak_memory() -> None:
    """Resets `peak_memory_mb` where the system can (Linux)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory_mb() -> float | None:
    """The most memory used since `reset_peak_memory`, else since the process began, in MB.

    None where unknown (Windows).
    """
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024.0
    try:
        import resource
    except ImportError:
        return None
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size / (1024.0 * 1024.0 if sys.platform == "darwin" else 1024.0)
