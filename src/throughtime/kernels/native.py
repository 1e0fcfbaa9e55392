"""The native library: where it is, what it runs on, and its arguments as a C struct."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from throughtime.errors import BackendError
from throughtime.kernels.cells import CELLS

FORCE = "THROUGHTIME_INSTRUCTIONS"  # avx512, avx2, neon or baseline: for tests
_LIBRARY = Path(__file__).with_name("_native.so")
TYPES = {torch.float32: 0, torch.float64: 1}  # TT_FLOAT, TT_DOUBLE
STRUCTS: dict[str, type[ctypes.Structure]] = {}  # the mirrors of C's, by their names there
_STEP: list[Any] = [*[ctypes.c_void_p] * 6, ctypes.c_int64]  # arguments of tt_step_layers
_KINDS = {"int": ctypes.c_int64, "double": ctypes.c_double, "pointer": ctypes.c_void_p}

Struct = TypeVar("Struct", bound=type[ctypes.Structure])


def fields(*groups: tuple[str, str]) -> list[tuple[str, Any]]:
    """Of a mirror, from kinds and names in the order of the header: ``("int", "T B I H")``."""
    return [(name, _KINDS[kind]) for kind, names in groups for name in names.split()]


def mirrors(name: str) -> Callable[[Struct], Struct]:
    """Decorates the mirror of a struct of throughtime.h; its size is compared with C's."""

    def register(struct: Struct) -> Struct:
        STRUCTS[name] = struct
        if _library is not None:
            _compare(_library)
        return struct

    return register


_library: ctypes.CDLL | None = None
_wrong = ""  # what is wrong with it


@mirrors("tt_sequence")
class Sequence(ctypes.Structure):
    """One layer in one direction over a batch."""

    _fields_ = fields(
        ("int", "kind type low T B I H reverse threads"),
        ("pointer", "x"),
        ("int", "x_t x_b"),
        ("pointer", "h0 c0 h_restart c_restart w_ih w_hh b_ih b_hh reset lengths"),
        ("pointer", "y h_end c_end reserve dy"),
        ("int", "dy_t dy_b"),
        ("pointer", "dh_end dc_end dx dh0 dc0 dh_restart dc_restart dw_ih dw_hh db_ih db_hh"),
    )


@mirrors("tt_stream")
class Stream(ctypes.Structure):
    """A stack of layers, the `tt_layers` in it spread out, and a state that we leave alone."""

    _fields_ = fields(
        ("int", "kind type layers I H threads"),
        ("pointer", "weights"),
        ("int", "B"),
        ("pointer", "h c y_next h_next c_next"),
    )


REMEDY = (
    "install a C++ compiler (such as g++), then "
    "pip install --force-reinstall --no-deps --no-cache-dir throughtime"
)


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
    opened.tt_step_layers.argtypes = _STEP
    opened.tt_use_openmp.argtypes = [ctypes.c_void_p] * 3
    opened.tt_poison.argtypes = [ctypes.c_int64]
    _compare(opened)
    wanted = os.environ.get(FORCE)
    if not _wrong and wanted and opened.tt_instructions(wanted.encode()) is None:
        _wrong = f"{FORCE}={wanted}: this machine does not run these instructions"
    if not _wrong:
        _share_threads(opened)
        _library = opened


def _compare(opened: ctypes.CDLL) -> None:
    """Gives the library up if C and this package hold different of structs or cells."""
    global _library, _wrong
    sizes = {name: ctypes.sizeof(struct) for name, struct in STRUCTS.items()}
    gates = {cell.kind: len(cell.gates) for cell in CELLS.values()}
    try:
        opened.tt_sizeof.restype, opened.tt_sizeof.argtypes = ctypes.c_int64, [ctypes.c_char_p]
        opened.tt_gates.restype, opened.tt_gates.argtypes = ctypes.c_int64, [ctypes.c_int64]
        built = {name: opened.tt_sizeof(name.encode()) for name in sizes}
        known = {kind: opened.tt_gates(cell.number) for kind, cell in CELLS.items()}
    except AttributeError:  # older than both functions
        built, known = dict.fromkeys(sizes, 0), gates
    pairs = [(f"{name} of {{}} bytes", built[name], size) for name, size in sizes.items()]
    pairs += [(f"{kind} of {{}} gates", known[kind], count) for kind, count in gates.items()]
    for what, there, here in pairs:
        if there != here:
            _library = None
            _wrong = (
                f"backend 'cpu' was built from another version of the sources, with "
                f"{what.format(there)} instead of {here}"
            )
            return


def available() -> bool:
    """Whether the library was built when the package was installed, and can be loaded.

    Raises BackendError where it is asked to run on instructions that this machine lacks.
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


def step_of_layers() -> Callable[..., int]:
    """`tt_step_layers`, called without giving up the interpreter's lock: it takes microseconds."""
    step = ctypes.PyDLL(library()._name).tt_step_layers
    step.argtypes, step.restype = _STEP, ctypes.c_int
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
