"""The native library: where it is, what it runs on, and its arguments as a C struct."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from throughtime.errors import BackendError
from throughtime.kernels.cells import CELLS

FORCE = "THROUGHTIME_INSTRUCTIONS"  # avx512, avx2, neon or baseline: for tests
_LIBRARY = Path(__file__).with_name("_native.so")
TYPES = {torch.float32: 0, torch.float64: 1}  # TT_FLOAT, TT_DOUBLE
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


class Head(ctypes.Structure):
    """`tt_head` of throughtime.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("type", "N", "H", "V", "threads")),
        ("y", ctypes.c_void_p),
        ("y_n", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("w", "b", "target", "weight", "total")),
        *((name, ctypes.c_void_p) for name in ("dy", "dw", "db")),
    ]


class Stream(ctypes.Structure):
    """`tt_stream` of throughtime.h, the `tt_layers` in it spread out."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("kind", "type", "layers", "I", "H", "threads")),
        ("weights", ctypes.c_void_p),
        ("B", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("h", "c", "y_next", "h_next", "c_next")),
    ]


class Sampler(ctypes.Structure):
    """`tt_sampler` of throughtime.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("kind", "type", "layers", "members", "H")),
        *((name, ctypes.c_int64) for name in ("encoder", "symbols", "coded")),
        *((name, ctypes.c_int64) for name in ("covariates", "identity")),
        *(
            (name, ctypes.c_int64)
            for name in ("distribution", "columns", "components", "parameters")
        ),
        *((name, ctypes.c_int64) for name in ("threads", "paths")),
        *((name, ctypes.c_double) for name in ("min_scale", "temperature", "top_p")),
        *((name, ctypes.c_void_p) for name in ("weights", "codes", "head_w", "head_b", "initial")),
        ("packed", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("begin", "end", "step", "steps", "fresh", "root")),
        ("covariate", ctypes.c_void_p),
        ("covariate_path", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("identities", "previous", "h", "c", "out")),
        ("out_path", ctypes.c_int64),
    ]


STRUCTS = {"tt_sequence": Sequence, "tt_head": Head, "tt_stream": Stream, "tt_sampler": Sampler}
REMEDY = (
    "install a C++ compiler (such as g++), then "
    "pip install --force-reinstall --no-deps --no-cache-dir throughtime"
)


_library: ctypes.CDLL | None = None
_wrong = ""  # what is wrong with it


def load(path: Path = _LIBRARY) -> None:
    """Opens the library, on the process's own threads, or notes what is wrong with it.

    Done on import: torch.compile can read what was loaded, but not follow how.
    """
    global _library, _wrong
    _library, _wrong = None, ""
    if not path.exists():
        _wrong = "backend 'cpu' was not built"
        return
    try:
        opened = ctypes.CDLL(str(path))
    except OSError as error:
        _wrong = f"backend 'cpu' cannot be loaded ({error})"
        return
    opened.tt_reserve.restype = ctypes.c_int64
    opened.tt_reserve.argtypes = [ctypes.c_int64] * 5
    opened.tt_sampler_size.restype = ctypes.c_int64
    opened.tt_instructions.restype = ctypes.c_char_p
    opened.tt_instructions.argtypes = [ctypes.c_char_p]
    opened.tt_use_openmp.argtypes = [ctypes.c_void_p] * 3
    opened.tt_poison.argtypes = [ctypes.c_int64]
    _wrong = _mismatch(opened)
    if _wrong:
        return
    wanted = os.environ.get(FORCE)
    if wanted and opened.tt_instructions(wanted.encode()) is None:
        _wrong = f"{FORCE}={wanted}: this machine does not run these instructions"
        return
    _share_threads(opened)
    _library = opened


def _mismatch(opened: ctypes.CDLL) -> str:
    """What C and this package hold different of each other; empty where they agree."""
    was = "backend 'cpu' was built from another version of the sources"
    if not hasattr(opened, "tt_sizeof"):
        return was
    opened.tt_sizeof.restype, opened.tt_sizeof.argtypes = ctypes.c_int64, [ctypes.c_char_p]
    opened.tt_gates.restype, opened.tt_gates.argtypes = ctypes.c_int64, [ctypes.c_int64]
    for name, struct in STRUCTS.items():
        here, there = ctypes.sizeof(struct), opened.tt_sizeof(name.encode())
        if here != there:
            return f"{was} ({name} has {there} bytes in it, {here} here)"
    for cell in CELLS.values():
        here, there = len(cell.gates), opened.tt_gates(cell.number)
        if here != there:
            return f"{was} ({cell.kind} has {there} gates in it, {here} here)"
    return ""


def available() -> bool:
    """Whether the library was built when the package was installed, and can be loaded.

    Raises BackendError where it is told to run on instructions that this machine lacks.
    """
    if _wrong.startswith(FORCE):
        raise BackendError(_wrong)
    return not _wrong


def problem() -> str:
    """Why the library does not run here, without the remedy; empty where it runs."""
    return _wrong


def require() -> None:
    """Raises BackendError where the library does not run."""
    library()


def library() -> ctypes.CDLL:
    """The library. Raises BackendError where it does not run."""
    if _library is None:
        raise BackendError(_wrong if _wrong.startswith(FORCE) else f"{_wrong}: {REMEDY}")
    return _library


def stream_step() -> Callable[[int, int], None]:
    """`tt_stream_step`, called without giving up the interpreter's lock: it takes microseconds."""
    step = ctypes.PyDLL(library()._name).tt_stream_step
    step.argtypes, step.restype = [ctypes.c_void_p] * 2, None
    return step


def instructions() -> str:
    """The instruction set in use: "avx512", "avx2", "neon" or "baseline"."""
    return str(library().tt_instructions(None).decode())


def _share_threads(opened: ctypes.CDLL) -> None:
    """Lets the kernels run on the OpenMP threads that torch has; a second pool would compete."""
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        runtime = ctypes.CDLL(str(path))
        names = ("GOMP_parallel", "omp_get_thread_num", "omp_get_num_threads")
        opened.tt_use_openmp(*(ctypes.cast(runtime[name], ctypes.c_void_p) for name in names))
        return


def check(code: int) -> None:
    """Raises what a call of the library returned, if it is not 0."""
    if code == 1:
        raise MemoryError("there is not enough memory for the kernels' workspace")
    if code == 2:
        raise IndexError("a symbol is not one of those that the head has a row for")


def address(tensor: Tensor | None) -> int | None:
    """Where a tensor's numbers are; None for none."""
    return None if tensor is None else tensor.data_ptr()


load()
