"""The native library: where it is, what it runs on, and its arguments as a C struct."""

from __future__ import annotations

import ctypes
import functools
import os
from pathlib import Path

import torch
from torch import Tensor

from throughtime.errors import BackendError

FORCE = "THROUGHTIME_INSTRUCTIONS"  # avx512, avx2, neon or baseline: for tests
_LIBRARY = Path(__file__).with_name("_native.so")
_NUMBERS = ("kind", "type", "low", "T", "B", "I", "H", "reverse", "threads")
_FORWARD = (
    "h0", "c0", "h_restart", "c_restart", "w_ih", "w_hh", "b_ih", "b_hh", "reset", "lengths",
    "y", "h_end", "c_end", "reserve", "dy",
)  # fmt: skip
_BACKWARD = (
    "dh_end", "dc_end", "dx", "dh0", "dc0", "dh_restart", "dc_restart",
    "dw_ih", "dw_hh", "db_ih", "db_hh",
)  # fmt: skip


class Sequence(ctypes.Structure):
    """`tt_sequence` of throughtime.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in _NUMBERS),
        ("x", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("x_t", "x_b")),
        *((name, ctypes.c_void_p) for name in _FORWARD),
        *((name, ctypes.c_int64) for name in ("dy_t", "dy_b")),
        *((name, ctypes.c_void_p) for name in _BACKWARD),
    ]


class Step(ctypes.Structure):
    """`tt_layers` of throughtime.h."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in ("kind", "type", "layers", "I", "H", "threads", "weights")
    ]


REMEDY = (
    "install a C++ compiler (such as g++), then "
    "pip install --force-reinstall --no-deps --no-cache-dir throughtime"
)


@functools.cache
def _open() -> tuple[ctypes.CDLL | None, str]:
    """The library, or what is wrong with it."""
    if not _LIBRARY.exists():
        return None, f"backend 'cpu' was not built: {REMEDY}"
    try:
        return ctypes.CDLL(str(_LIBRARY)), ""
    except OSError as error:
        return None, f"backend 'cpu' cannot be loaded ({error}): {REMEDY}"


def available() -> bool:
    """Whether the library was built when the package was installed, and can be loaded."""
    return _open()[0] is not None


@functools.cache
def library() -> ctypes.CDLL:
    """The library, on the process's own threads. Raises BackendError where it does not run."""
    found, wrong = _open()
    if found is None:
        raise BackendError(wrong)
    found.tt_reserve.restype = ctypes.c_int64
    found.tt_reserve.argtypes = [ctypes.c_int64] * 5
    found.tt_instructions.restype = ctypes.c_char_p
    found.tt_instructions.argtypes = [ctypes.c_char_p]
    found.tt_step_layers.argtypes = [ctypes.c_void_p] * 7  # the kind that ctypes passes fastest
    found.tt_use_openmp.argtypes = [ctypes.c_void_p] * 3
    found.tt_poison.argtypes = [ctypes.c_int64]
    wanted = os.environ.get(FORCE)
    if wanted and found.tt_instructions(wanted.encode()) is None:
        raise BackendError(f"{FORCE}={wanted}: this machine does not run these instructions")
    _share_threads(found)
    return found


def instructions() -> str:
    """The instruction set in use: "avx512", "avx2", "neon" or "baseline"."""
    return str(library().tt_instructions(None).decode())


def _share_threads(found: ctypes.CDLL) -> None:
    """Lets the kernels run on the OpenMP threads that torch has; a second pool would compete."""
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        runtime = ctypes.CDLL(str(path))
        names = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
        found.tt_use_openmp(*(ctypes.cast(runtime[name], ctypes.c_void_p) for name in names))
        return


def address(tensor: Tensor | None) -> int | None:
    """Where a tensor's numbers are; None for none."""
    return None if tensor is None else tensor.data_ptr()
