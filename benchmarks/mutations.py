"""Damage to files, seeded: what disks, transfers, editors and ill will do to them.

A `Target` is something that reads files. `soak.py` damages its files for as long as it is told.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Target:
    """A reader of files, to be given damaged ones.

    Attributes:
        name: in the table, and in what repeats a case.
        make: puts whole files into a folder and returns those that are to be damaged, one at a
            time. The same files each time, as far as can be.
        read: of the folder and the file in it that was damaged; returns what was read, which is
            compared with what the whole file gave.
        vouched: what is read is what was written, or it is refused: anything else is a fault.
    """

    name: str
    make: Callable[[Path], Sequence[Path]]
    read: Callable[[Path, Path], Any]
    vouched: bool = False


def damaged(content: bytes, chance: random.Random) -> tuple[bytes, str]:
    """Other content than this, and what was done to it."""
    while True:
        kind = chance.choice(list(MUTATIONS))
        made = bytearray(content)
        for _ in range(chance.choice((1, 1, 1, 2, 5))):
            made = MUTATIONS[kind](made, chance)
        if made != content:
            return bytes(made), kind


def _flip(content: bytearray, chance: random.Random) -> bytearray:
    if content:
        content[_place(content, chance)] ^= 1 << chance.randrange(8)
    return content


def _byte(content: bytearray, chance: random.Random) -> bytearray:
    if content:
        content[_place(content, chance)] = chance.choice((0, 9, 10, 13, 32, 34, 44, 127, 255))
    return content


def _truncate(content: bytearray, chance: random.Random) -> bytearray:
    return content[: chance.choice((0, 1, 8, _place(content, chance), len(content) - 1))]


def _insert(content: bytearray, chance: random.Random) -> bytearray:
    at = _place(content, chance)
    return content[:at] + chance.randbytes(chance.choice((1, 2, 8, 1000))) + content[at:]


def _delete(content: bytearray, chance: random.Random) -> bytearray:
    at = _place(content, chance)
    return content[:at] + content[at + chance.choice((1, 2, 8, 512)) :]


def _zeros(content: bytearray, chance: random.Random) -> bytearray:
    at, size = _place(content, chance), chance.choice((4, 16, 512, 4096))
    part = content[at : at + size]
    return content[:at] + bytes(len(part)) + content[at + size :]


def _duplicate(content: bytearray, chance: random.Random) -> bytearray:
    at, size = _place(content, chance), chance.choice((1, 8, 100, 4096))
    return content[: at + size] + content[at : at + size] + content[at + size :]


def _swap(content: bytearray, chance: random.Random) -> bytearray:
    a, b, c = sorted(_place(content, chance) for _ in range(3))
    return content[:a] + content[b:c] + content[a:b] + content[c:]


def _digit(content: bytearray, chance: random.Random) -> bytearray:
    places = [match.start() for match in re.finditer(rb"[0-9]", content[:100_000])]
    if places:
        content[chance.choice(places)] = chance.choice(b"0123456789-.eE")
    return content


def _number(content: bytearray, chance: random.Random) -> bytearray:
    """A number that is too large, too small, or none."""
    numbers = list(re.finditer(rb"-?[0-9][0-9.]*", content[:100_000]))
    if not numbers:
        return content
    found = chance.choice(numbers)
    other = chance.choice(
        (b"-1", b"0", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'""', b"2147483648",
         b"9223372036854775807", b"-9223372036854775809", b"1" + 400 * b"0", 9999 * b"9")
    )  # fmt: skip
    return content[: found.start()] + other + content[found.end() :]


def _header(content: bytearray, chance: random.Random) -> bytearray:
    """A size in a binary header, which may lie."""
    width = chance.choice((2, 4, 8))
    at = chance.randrange(0, min(64, max(1, len(content))))
    value = chance.choice((0, 1, 2**15, 2 ** (8 * width - 1) - 1, 2 ** (8 * width) - 1, 10**9))
    order = chance.choice(("little", "big"))
    content[at : at + width] = (value % 2 ** (8 * width)).to_bytes(width, order)  # type: ignore[arg-type]
    return content


def _deep(content: bytearray, chance: random.Random) -> bytearray:
    """Brackets without end where a value stands."""
    depth = chance.choice((150, 5_000, 200_000))
    deep = chance.choice((b"[" * depth, b'{"a":' * depth, b"[" * depth + b"]" * depth))
    places = [match.end() for match in re.finditer(rb"[:\[,] ?", content[:100_000])]
    at = chance.choice(places) if places else 0
    return content[:at] + deep + content[at:]


def _field(content: bytearray, chance: random.Random) -> bytearray:
    """A name that is not what it was."""
    names = list(re.finditer(rb'"[a-z_]+"', content[:100_000]))
    if not names:
        return content
    found = chance.choice(names)
    other = chance.choice((b'"x"', b"3", b"null", b'"__class__"', b'"\\ud800"', b'"kind"'))
    return content[: found.start()] + other + content[found.end() :]


def _place(content: bytearray, chance: random.Random) -> int:
    """Often near the start, where headers are, or the end."""
    size = len(content)
    low, high = chance.choice(((0, size), (0, min(size, 200)), (max(0, size - 200), size)))
    return chance.randrange(low, high) if high > low else 0


MUTATIONS: dict[str, Callable[[bytearray, random.Random], bytearray]] = {
    "flipped bits": _flip,
    "other bytes": _byte,
    "cut off": _truncate,
    "put in": _insert,
    "left out": _delete,
    "zeros": _zeros,
    "twice": _duplicate,
    "swapped": _swap,
    "digits": _digit,
    "numbers": _number,
    "header sizes": _header,
    "brackets": _deep,
    "names": _field,
}
