"""Arrays: of numpy, torch and plain lists, and the files that hold them."""

from __future__ import annotations

import ast
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from throughtime.data.readers.files import (
    check_memory,
    parsing,
    quoted,
    read_bytes,
    stem,
)
from throughtime.data.readers.matlab import load_mat
from throughtime.data.readers.options import Options
from throughtime.data.readers.plan import ReadPlan
from throughtime.data.readers.rows import Rows
from throughtime.data.readers.series import join
from throughtime.data.readers.table import Table, frame_table
from throughtime.data.sequences import Domain, Sequences
from throughtime.errors import DataError, SettingError, nearest

LONGEST_HEADER = 1 << 16
SIMPLE = re.compile(r"[<>|=]?(\?|b1|[iu][1248]|f[248]|f16|c(8|16)|[SU]\d+|[mM]8(\[\d*\w+\])?)")
KEYS = 88  # of a piano roll
LOWEST = 21  # MIDI number of its first


def read_arrays(
    arrays: Sequence[np.ndarray],
    names: Sequence[str],
    label: str,
    column: str = "value",
    times: np.ndarray | None = None,
    notes: Sequence[str] = (),
) -> Sequences:
    """One series from each array of numbers [T] or [T, D], all of one width; NaN is missing.

    times: [total], of all of them one after the other, or None.
    Raises: DataError for other shapes, for what is no number, and for infinities by place.
    """
    values = []
    for array, name in zip(arrays, names, strict=True):
        whose = label if len(arrays) == 1 else f"{label}: '{name}'"
        values.append(_values(array, whose))
        width = values[0].shape[1]
        if values[-1].shape[1] != width:
            raise DataError(
                f"{label}: '{name}' has {values[-1].shape[1]} columns in '{column}', "
                f"'{names[0]}' has {width}"
            )
    labels = (column,) if width == 1 else tuple(f"{column}{index}" for index in range(width))
    whole = np.concatenate(values)
    offsets = np.cumsum([0, *map(len, values)])
    rows = Rows(
        whole, np.zeros((len(whole), 0)), times, offsets, tuple(names), labels, (), False,
        ReadPlan(), tuple(notes),
    )  # fmt: skip
    return join([(label, rows)], Options(), label)


def _values(array: np.ndarray, label: str) -> np.ndarray:
    """float64 [T, D]; masked values are missing."""
    if isinstance(array, np.ma.MaskedArray):
        numbers = array.dtype.kind in "biuf"
        array = np.ma.filled(array.astype(np.float64), np.nan) if numbers else array.data
    if array.dtype.kind not in "biuf":
        raise DataError(f"{label}: the array holds {array.dtype}, not real numbers")
    if array.ndim not in (1, 2) or 0 in array.shape:
        raise DataError(
            f"{label}: the array has the shape {list(array.shape)}; a series is [T] or [T, D]"
        )
    values = array.astype(np.float64).reshape(len(array), -1)
    bad = np.argwhere(np.isinf(values))
    if len(bad):
        row, column = bad[0]
        raise DataError(f"{label}: step {row} (counted from 0), column {column}: not finite")
    return values


def read_object(source: Any) -> Sequences:
    """An array, a tensor, a list of numbers, or a list of arrays, tensors or lists.

    Floats are values. Integers of tensors and of inner lists are symbols, those of arrays and of
    one plain list amounts.
    """
    if isinstance(source, np.ndarray):
        return read_arrays([source], ["series"], "array")
    if isinstance(source, Tensor):
        return _symbols_noted(Sequences.of([source], names=["series"]))
    parts = list(source)
    if any(isinstance(part, str) for part in parts):
        raise SettingError("a list of texts is Sequences.of(texts); a path is given by itself")
    if all(part is None or isinstance(part, (int, float, np.number)) for part in parts):
        numbers = np.array([np.nan if part is None else _float(part) for part in parts])
        return read_arrays([numbers], ["series"], "list")
    if any(isinstance(part, np.ma.MaskedArray) for part in parts):
        parts = [_values(p, f"sequence {i}") if isinstance(p, np.ma.MaskedArray) else p
                 for i, p in enumerate(parts)]  # fmt: skip
    return _symbols_noted(Sequences.of(parts))


def _float(number: Any) -> float:
    try:
        return float(number)
    except OverflowError:  # an integer of more than 308 digits
        return float("inf")


def _symbols_noted(sequences: Sequences) -> Sequences:
    if not sequences.domain.integer:
        return sequences
    return sequences.with_notes(
        f"integers are taken for symbols, 0 to {int(sequences.values.max())}; give floats for "
        "amounts"
    )


# ------------------------------------------------------------------------------------ .npy and .npz


def read_npy(path: Path, options: Options) -> Table | Sequences:
    """One series [T] or [T, D], or a table where the array has named fields."""
    array = load_npy(read_bytes(path), str(path))
    return _named_fields(array, path) or read_arrays([array], [stem(path)], str(path))


def read_npz(path: Path, options: Options) -> Table | Sequences:
    """The array that `part` names; columns where all arrays have one length."""
    with (
        parsing(path, ".npz file", zipfile.BadZipFile, zlib.error, EOFError, OSError,
                NotImplementedError, RuntimeError, ValueError, struct.error),
        zipfile.ZipFile(BytesIO(read_bytes(path))) as archive,
    ):  # fmt: skip
        entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
        chosen = _chosen(list(entries), options.part, path) if options.part else list(entries)
        check_memory(path, 2 * sum(entries[name].file_size for name in chosen))
        arrays = {
            name: load_npy(archive.read(entries[name]), f"{path}: '{name}'") for name in chosen
        }
    return read_named(arrays, path, options)


def load_npy(data: bytes, label: str) -> np.ndarray:
    """The array of a .npy file; its header is checked before anything is allocated.

    Raises: DataError for a header that is damaged, holds objects, or does not fit the bytes.
    """
    wide = data[6:7] in (b"\x02", b"\x03")
    start = 12 if wide else 10
    known = data[:6] == b"\x93NUMPY" and data[6:7] in (b"\x01", b"\x02", b"\x03")
    if not known or len(data) < start:
        raise DataError(f"{label}: not a .npy file of numbers")
    size = int(struct.unpack_from("<I" if wide else "<H", data, 8)[0])
    header = data[start : start + size]
    if size > LONGEST_HEADER or len(header) < size:
        raise DataError(f"{label}: not a .npy file of numbers: its header is damaged")
    dtype, fortran, shape = _npy_header(header, label)
    needed, there = prod(shape) * dtype.itemsize, len(data) - start - size
    if needed > there:
        raise DataError(
            f"{label}: cut short, or its header is damaged: the shape {list(shape)} needs "
            f"{needed:,} bytes, {there:,} are there"
        )
    flat = np.frombuffer(data, dtype, prod(shape), start + size)
    return flat.reshape(shape, order="F" if fortran else "C")


def _npy_header(header: bytes, label: str) -> tuple[np.dtype, bool, tuple[int, ...]]:
    damaged = DataError(f"{label}: not a .npy file of numbers: its header is damaged")
    try:
        fields = ast.literal_eval(header.decode("latin-1").strip())
        descr, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError) as error:
        raise damaged from error
    sizes = isinstance(shape, tuple) and all(type(n) is int and 0 <= n < 1 << 62 for n in shape)
    if not sizes or len(shape) > 32 or not isinstance(fortran, bool):
        raise damaged
    if "O" in str(descr):
        raise DataError(f"{label}: holds Python objects, a pickle; save an array of numbers")
    parts = descr if isinstance(descr, list) else [("", descr)]
    for part in parts:
        simple = isinstance(part, tuple) and len(part) == 2 and isinstance(part[0], str)
        if not simple or not isinstance(part[1], str) or not SIMPLE.fullmatch(part[1]):
            raise damaged
    try:
        dtype = np.dtype(descr)
    except (TypeError, ValueError) as error:
        raise damaged from error
    if dtype.itemsize == 0:
        raise damaged
    return dtype, fortran, shape


def _named_fields(array: np.ndarray, path: Path) -> Table | None:
    """An array whose dtype has names as a table."""
    if array.dtype.names is None:
        return None
    if array.ndim != 1:
        raise DataError(f"{path}: the array of records has the shape {list(array.shape)}, not [T]")
    return array_table(
        {name: np.ascontiguousarray(array[name]) for name in array.dtype.names}, path
    )


def array_table(columns: Mapping[str, np.ndarray], path: Path) -> Table:
    """Arrays [T] of one length as the columns of a table."""
    import polars as pl

    cells = {}
    for name, array in columns.items():
        if array.dtype.kind == "M":
            array = array.astype("datetime64[us]")
        elif array.dtype.kind in "SU":
            array = np.char.decode(array, "latin-1") if array.dtype.kind == "S" else array
        elif array.dtype.kind not in "biuf":
            raise DataError(f"{path}: '{name}' holds {array.dtype}, not real numbers")
        elif array.dtype.itemsize in (2, 16) and array.dtype.kind == "f":
            array = array.astype(np.float64)
        native = array.astype(array.dtype.newbyteorder("="))
        cells[name] = pl.Series(name, native.tolist() if native.dtype.kind == "U" else native)
    frame = pl.DataFrame(cells)
    return Table(str(path), list(frame.columns), frame.height, frame.select)


# --------------------------------------------------------------------------- files of named arrays


def read_named(arrays: Mapping[str, Any], path: Path, options: Options) -> Table | Sequences:
    """One array, one of several by `part`, or columns where all have one length.

    A list of arrays is a sequence each.
    """
    if not arrays:
        raise DataError(f"{path}: holds no array")
    if options.part is not None:
        arrays = {name: arrays[name] for name in _chosen(list(arrays), options.part, path)}
    if len(arrays) == 1:
        name, array = next(iter(arrays.items()))
        if isinstance(array, list):
            return _pieces(array, name, path)
        return _named_fields(array, path) or read_arrays([array], [stem(path)], str(path), name)
    flat = [a for a in arrays.values() if isinstance(a, np.ndarray) and a.ndim == 1]
    if len(flat) == len(arrays) and len({len(array) for array in flat}) == 1:
        return array_table(arrays, path)
    listed = [
        f"'{name}' {f'({len(a)} sequences)' if isinstance(a, list) else list(a.shape)}"
        for name, a in arrays.items()
    ]
    more = f" and {len(listed) - 8} more" if len(listed) > 8 else ""
    raise DataError(
        f"{path}: holds {len(listed)} arrays: {', '.join(listed[:8])}{more}; choose one with part="
    )


def _pieces(arrays: list[np.ndarray], name: str, path: Path) -> Sequences:
    """A sequence each; those of 88 columns of 0 and 1 are piano rolls."""
    names = [f"{name}{index}" for index in range(len(arrays))]
    numbers = all(array.dtype.kind in "biuf" for array in arrays)
    if numbers and all(a.ndim == 2 and a.shape[1] == KEYS and len(a) for a in arrays) and all(
        ((a == 0) | (a == 1)).all() for a in arrays
    ):  # fmt: skip
        return piano_rolls(arrays, names)
    return read_arrays(arrays, names, str(path), name)


def piano_rolls(rolls: Sequence[np.ndarray], names: Sequence[str]) -> Sequences:
    """Sequences of 88 keys, 1 while one sounds, [T, 88] each."""
    columns = tuple(f"note {LOWEST + key}" for key in range(KEYS))
    tensors = [torch.from_numpy(np.asarray(roll, dtype=np.float64)) for roll in rolls]
    return Sequences.of(tensors, Domain("binary", columns=columns, step="frame"), list(names))


def _chosen(names: list[str], part: str, path: Path) -> list[str]:
    if part not in names:
        raise DataError(
            f"{path}: no part '{part}'{nearest(part, names) or ';'} there are {quoted(names)}"
        )
    return [part]


def read_mat(path: Path, options: Options) -> Table | Sequences:
    """The variable of a MATLAB file that `part` names; a cell array is a sequence each."""
    data = read_bytes(path)
    check_memory(path, 4 * len(data))
    found = load_mat(data, path)
    arrays = {name: _vectors(one) for name, one in found.items() if one is not None and len(one)}
    if not arrays:
        raise DataError(
            f"{path}: holds no real matrix, only structures, texts or others ({quoted(found)}); "
            f"in MATLAB save a field on its own: y = s.field; save('y.mat', 'y')"
        )
    return read_named(arrays, path, options)


def _vectors(variable: np.ndarray | list[np.ndarray]) -> np.ndarray | list[np.ndarray]:
    """Matrices of one row or one column as [T]."""
    if isinstance(variable, list):
        return [_vectors(one) for one in variable]  # type: ignore[misc]
    vector = variable.ndim == 2 and 1 in variable.shape
    return variable.ravel() if vector else variable


def read_safetensors(path: Path, options: Options) -> Table | Sequences:
    """The tensor that `part` names, or columns where all have one length."""
    from safetensors import SafetensorError, safe_open

    check_memory(path, 2 * path.stat().st_size)
    with (
        parsing(path, "safetensors file", SafetensorError, OSError, ValueError, RuntimeError),
        safe_open(str(path), "pt") as file,
    ):
        names = list(file.keys())
        chosen = _chosen(names, options.part, path) if options.part else names
        tensors = {name: file.get_tensor(name) for name in chosen}
    arrays = {}
    for name, tensor in tensors.items():
        if tensor.is_complex():
            raise DataError(f"{path}: '{name}' holds {tensor.dtype}, not real numbers")
        arrays[name] = tensor.double().numpy() if tensor.is_floating_point() else tensor.numpy()
    return read_named(arrays, path, options)


__all__ = ["frame_table", "read_arrays", "read_object"]
