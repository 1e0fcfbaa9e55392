"""MATLAB files of versions 4 to 7: matrices of numbers and cell arrays of them.

The layout is that of "MAT-File Format" (The MathWorks). Every size is checked against the bytes
that are there before anything is made of it.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np

from throughtime.data.readers.files import free_memory
from throughtime.errors import DataError

Variable = np.ndarray | list[np.ndarray] | None  # None: what is no matrix of numbers
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
OLD_TYPES = ("f8", "f4", "i4", "i2", "u2", "u1")  # of version 4
MATRIX, COMPRESSED = 14, 15
CELL, FIRST_NUMERIC, LAST_NUMERIC = 1, 6, 15  # classes of arrays
COMPLEX = 0x0800
HEADER = 128
DEEPEST = 4  # cells inside each other


class _Bytes:
    """A run of data elements, of one byte order."""

    def __init__(self, data: bytes, order: str, path: Path) -> None:
        self.data, self.order, self.path = data, order, path
        self.place = 0

    def damaged(self, why: str) -> DataError:
        return DataError(f"{self.path}: not a readable .mat file, damaged or cut short ({why})")

    def element(self) -> tuple[int, bytes]:
        """The type and content of the next element."""
        if len(self.data) - self.place < 8:
            raise self.damaged("an element ends in its first bytes")
        kind, size = struct.unpack_from(f"{self.order}II", self.data, self.place)
        if kind >> 16:  # a small element: its content stands where the size would
            kind, size, start, end = kind & 0xFFFF, kind >> 16, self.place + 4, self.place + 8
            if size > 4:
                raise self.damaged(f"a small element of {size} bytes")
        else:
            start = self.place + 8
            end = start + size + (-size % 8 if kind != COMPRESSED else 0)
        if start + size > len(self.data):
            raise self.damaged(f"an element of {size:,} bytes where {len(self.data) - start:,} are")
        self.place = end
        return int(kind), self.data[start : start + size]

    def numbers(self) -> np.ndarray:
        """The next element, which holds numbers."""
        kind, content = self.element()
        if kind not in TYPES:
            raise self.damaged(f"type {kind} is none of numbers")
        dtype = np.dtype(self.order + TYPES[kind])
        return np.frombuffer(content, dtype, len(content) // dtype.itemsize)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        while self.place < len(self.data):
            yield self.element()


def load_mat(data: bytes, path: Path) -> dict[str, Variable]:
    """The variables of a MATLAB file by name, matrices as their dimensions say.

    Raises: DataError for a file that is damaged.
    """
    mark = data[126:128]
    if mark not in (b"IM", b"MI"):
        return _load_old(data, path)
    order = "<" if mark == b"IM" else ">"
    found: dict[str, Variable] = {}
    for kind, content in _Bytes(data[HEADER:], order, path):
        if kind == COMPRESSED:
            content = _inflated(content, path)
            kind, content = _Bytes(content, order, path).element()
        if kind == MATRIX:
            name, variable = _matrix(_Bytes(content, order, path), 0)
            found[name] = variable
    return found


def _inflated(content: bytes, path: Path) -> bytes:
    room = free_memory() // 4
    unpacker = zlib.decompressobj()
    try:
        plain = unpacker.decompress(content, room)
    except zlib.error as error:
        raise DataError(
            f"{path}: not a readable .mat file, damaged or cut short ({error})"
        ) from error
    if unpacker.unconsumed_tail:
        raise DataError(f"{path}: unpacked it is larger than a quarter of the free memory")
    return plain


def _matrix(elements: _Bytes, depth: int) -> tuple[str, Variable]:
    """The name and content of an array, None where it holds no numbers."""
    if not elements.data:
        return "", np.zeros(0)  # an empty cell
    flags, dimensions = elements.numbers(), elements.numbers().astype(np.int64)
    _, name = elements.element()
    if not len(flags) or len(dimensions) < 2 or (dimensions < 0).any():
        raise elements.damaged("an array without dimensions")
    label, shape = name.decode("utf-8", "replace"), tuple(map(int, dimensions))
    kind, size = int(flags[0]) & 0xFF, prod(shape)
    if kind == CELL:
        if depth == DEEPEST or size * 8 > len(elements.data):
            raise elements.damaged("more cells than bytes")
        cells = [_cell(elements, depth + 1) for _ in range(size)]
        whole = [cell for cell in cells if isinstance(cell, np.ndarray)]
        return label, whole if len(whole) == len(cells) and cells else None
    if not FIRST_NUMERIC <= kind <= LAST_NUMERIC or int(flags[0]) & COMPLEX:
        return label, None
    values = elements.numbers()
    if len(values) != size:
        raise elements.damaged(f"'{label}' is {list(shape)} of {len(values):,} numbers")
    return label, values.reshape(shape, order="F")


def _cell(elements: _Bytes, depth: int) -> Variable:
    kind, content = elements.element()
    if kind != MATRIX:
        raise elements.damaged("a cell that is no array")
    return _matrix(_Bytes(content, elements.order, elements.path), depth)[1]


def _load_old(data: bytes, path: Path) -> dict[str, Variable]:
    """Version 4: matrices one after the other, each with a header of 20 bytes."""
    place, found = 0, dict[str, Variable]()
    while place < len(data):
        if len(data) - place < 20:
            raise DataError(f"{path}: not a readable .mat file, damaged or cut short")
        order = "<" if struct.unpack_from("<I", data, place)[0] < 5000 else ">"
        kind, rows, columns, imaginary, length = struct.unpack_from(f"{order}5I", data, place)
        precision, use = kind // 10 % 10, kind % 10
        if kind >= 5000 or precision >= len(OLD_TYPES) or use > 2 or imaginary > 1:
            raise DataError(f"{path}: not a readable .mat file, damaged or cut short")
        dtype = np.dtype(order + OLD_TYPES[precision])
        start = place + 20 + length
        end = start + rows * columns * dtype.itemsize * (1 + imaginary)
        if end > len(data):
            raise DataError(
                f"{path}: not a readable .mat file, damaged or cut short (a matrix of {rows:,} × "
                f"{columns:,} in {len(data) - place:,} bytes)"
            )
        name = data[place + 20 : start].rstrip(b"\0").decode("latin-1")
        values = np.frombuffer(data, dtype, rows * columns, start)
        plain = use == 0 and not imaginary
        found[name] = values.reshape((rows, columns), order="F") if plain else None
        place = end
    return found
