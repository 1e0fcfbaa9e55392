"""Text: code points (or bytes) of a file, of its lines, of a folder, or of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from throughtime.data.compact import blocks, compact
from throughtime.data.readers.files import (
    decode,
    files_below,
    quoted,
    read_bytes,
    stem,
    stems,
    suffix,
)
from throughtime.data.sequences import Domain, Sequences
from throughtime.errors import DataError, nearest

TEXTS = (".txt", ".text", ".md")
NEWLINE = 10


def text_sequences(
    texts: Sequence[np.ndarray],
    names: Sequence[str],
    step: str,
    lengths: Sequence[np.ndarray] | None = None,
) -> Sequences:
    """Sequences of code points (step "character") or of bytes (step "byte").

    texts: integers [T_i]; lengths: those of the sequences that each text is cut into.
    """
    if lengths is None:
        lengths = [np.array([len(text)]) for text in texts]
    values = compact(texts[0] if len(texts) == 1 else np.concatenate(texts))
    domain = Domain("text", step=step)
    if step == "byte":
        domain = Domain("symbols", num_symbols=256, step=step)
    return Sequences(
        values=values,
        offsets=torch.from_numpy(np.cumsum(np.concatenate([[0], *lengths]), dtype=np.int64)),
        domain=domain,
        names=tuple(names),
    )


def code_points(text: str) -> np.ndarray:
    """The Unicode code points of a text [T], in the smallest type that holds them."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    parts = [
        compact(np.frombuffer(text[part].encode("utf-32-le", "surrogatepass"), dtype=np.uint32))
        for part in blocks(len(text))
    ]
    return torch.cat(parts).numpy()


def read_text(path: Path, encoding: str = "utf-8", lines: bool = False) -> Sequences:
    """One text file as one sequence, or each of its lines as one.

    Newlines are kept, also at the end of each line: the sequences of a file, one after the other,
    are the file, and the end of a line is something that a model predicts.
    encoding: as Python names it, or "bytes" for the bytes as they are.
    """
    return _read_texts([path], [stem(path)], encoding, lines, None)


def read_text_folder(
    folder: Path,
    encoding: str = "utf-8",
    lines: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Sequences:
    """Every .txt file below a folder, sorted by path."""
    paths = [path for path in files_below(folder) if suffix(path) == ".txt"]
    return _read_texts(paths, stems(paths, folder), encoding, lines, on_progress)


def _read_texts(
    paths: Sequence[Path],
    stems: Sequence[str],
    encoding: str,
    lines: bool,
    on_progress: Callable[[int, int], None] | None,
) -> Sequences:
    texts: list[np.ndarray] = []
    lengths: list[np.ndarray] = []
    names: list[str] = []
    for path, name in zip(paths, stems, strict=True):
        text = _content(path, encoding)
        cuts = _line_lengths(text) if lines else np.array([len(text)])
        texts.append(text)
        lengths.append(cuts)
        names.extend([f"{name}:{line + 1}" for line in range(len(cuts))] if lines else [name])
        if on_progress is not None:
            on_progress(len(texts), len(paths))
    return text_sequences(texts, names, "byte" if encoding == "bytes" else "character", lengths)


def _line_lengths(text: np.ndarray) -> np.ndarray:
    """Lengths of the lines, their newlines included; the last may have none."""
    ends = np.flatnonzero(text == NEWLINE) + 1
    if not len(ends) or ends[-1] != len(text):
        ends = np.append(ends, len(text))
    return np.diff(ends, prepend=0)


def _content(path: Path, encoding: str) -> np.ndarray:
    data = read_bytes(path)
    if encoding == "bytes":
        return np.frombuffer(data, dtype=np.uint8)
    text = decode(data, path, encoding)
    if not text:
        raise DataError(f"{path}: the file is empty")
    return code_points(text)


# --------------------------------------------------------------------------------------- JSON lines


def read_jsonl(
    path: Path, field: str = "text", value: str | None = None, id: str | None = None
) -> Sequences:
    """One JSON object a line, one sequence each: text in `field`, or numbers in `value`.

    value: a field that holds a list [T] of numbers (null: missing) or a list [T, D] of lists.
    id: the field that names the sequence; without it `file:line` does.
    Raises: DataError naming the line.
    """
    text = decode(read_bytes(path), path)
    names: list[str] = []
    texts: list[np.ndarray] = []
    arrays: list[np.ndarray] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        item = _object(line, where)
        names.append(f"{stem(path)}:{number}" if id is None else str(_field(item, id, where)))
        if value is not None:
            arrays.append(_numbers(_field(item, value, where), value, where))
            continue
        content = _field(item, field, where)
        if not isinstance(content, str) or not content:
            problem = "is empty" if content == "" else f"holds {_type(content)}, not text"
            hint = f"; value='{field}' reads numbers" if isinstance(content, list) else ""
            raise DataError(f"{where}: field '{field}' {problem}{hint}")
        texts.append(code_points(content))
    if not names:
        raise DataError(f"{path}: the file is empty")
    if value is None:
        return text_sequences(texts, names, "character")
    return _array_sequences(path, arrays, names, value)


def _array_sequences(
    path: Path, arrays: list[np.ndarray], names: list[str], value: str
) -> Sequences:
    width = arrays[0].shape[1]
    for array, name in zip(arrays, names, strict=True):
        if array.shape[1] != width:
            raise DataError(
                f"{path}: '{name}' has {array.shape[1]} columns in '{value}', '{names[0]}' has "
                f"{width}"
            )
    labels = (value,) if width == 1 else tuple(f"{value}{index}" for index in range(width))
    sequences = Sequences.of(
        [torch.from_numpy(array) for array in arrays], Domain("real", columns=labels), names
    )
    missing = int(sequences.missing.sum())
    if not missing:
        return sequences
    return sequences.with_notes(
        f"{missing:,} of {len(sequences.values):,} steps of '{value}' have missing values, kept as "
        f"gaps: not scored, models see a flag"
    )


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        item = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON, at character {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise DataError(f"{where}: JSON nested too deeply") from error
    if not isinstance(item, dict):
        raise DataError(f"{where}: holds {_type(item)}; each line is one JSON object")
    return item


def _field(item: dict[str, Any], name: str, where: str) -> Any:
    if name not in item:
        near = nearest(name, item) or ";"
        raise DataError(f"{where}: no field '{name}'{near} the fields are {quoted(item)}")
    return item[name]


def _numbers(content: Any, field: str, where: str) -> np.ndarray:
    """A list of numbers or of lists of numbers as float64 [T, D]."""
    if not isinstance(content, list) or not content:
        raise DataError(f"{where}: field '{field}' holds {_type(content)}, not a list of numbers")
    rows = [step if isinstance(step, list) else [step] for step in content]
    for index, row in enumerate(rows):
        if len(row) != len(rows[0]) or not row:
            raise DataError(
                f"{where}: field '{field}', step {index} (counted from 0): {len(row)} numbers "
                f"where the first step has {len(rows[0])}"
            )
        for cell in row:
            number = isinstance(cell, (int, float)) and not isinstance(cell, bool)
            if cell is not None and not number:
                raise DataError(
                    f"{where}: field '{field}', step {index} (counted from 0): "
                    f"{json.dumps(cell)} is not a number"
                )
    array = np.array([[_float(cell) for cell in row] for row in rows])
    if np.isinf(array).any():
        step = int(np.argwhere(np.isinf(array))[0][0])
        raise DataError(f"{where}: field '{field}', step {step} (counted from 0): not finite")
    return array


def _float(cell: float | None) -> float:
    if cell is None:
        return float("nan")
    try:
        return float(cell)
    except OverflowError:  # an integer of more than 308 digits
        return float("inf")


def _type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false"}
    if value is None:
        return "null"
    return names.get(type(value), "a number")
