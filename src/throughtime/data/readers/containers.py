"""Compressed files and archives, known by their content: unpacked into a temporary folder.

What is read is always a plain file or a plain folder, so that no reader knows of compression.
Messages and notes name what the user named.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import shutil
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

from throughtime.data.readers.files import files_below, free_memory, quoted, read_head, reason
from throughtime.errors import DataError, MissingExtra, ThroughtimeError, nearest

MARKS = {
    "gzip": b"\x1f\x8b",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ\x00",
    "zstd": b"\x28\xb5\x2f\xfd",
    "zip": b"PK\x03\x04",
}
ENDINGS = {
    "gzip": (".gz", ".tgz"),
    "bzip2": (".bz2",),
    "xz": (".xz",),
    "zstd": (".zst",),
    "zip": (".zip",),
}
DEEPEST = 3  # containers inside each other
BLOCK = 1 << 20
TAR_MARK = slice(257, 262)
# What unpackers raise for a file that is damaged, cut short, locked, or packed by another method.
FAILURES = (
    OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile, tarfile.TarError,
    RuntimeError, NotImplementedError, ValueError,
)  # fmt: skip


@dataclass
class Budget:
    """Bytes that may still be unpacked: half of the memory, and of the disk, that is free."""

    path: Path
    left: int

    @classmethod
    def of(cls, path: Path, room: Path) -> Budget:
        return cls(path, min(free_memory(), shutil.disk_usage(room).free) // 2)

    def take(self, size: int) -> None:
        """Raises DataError once more would be unpacked than there is room for."""
        self.left -= size
        if self.left < 0:
            raise DataError(
                f"{self.path}: unpacked it is larger than this machine has room for (half of the "
                f"free memory and disk); unpack it and give a part of it"
            )


@dataclass(frozen=True)
class Unpacked:
    """A plain file or folder to read, and how messages call it.

    part: what is still to be chosen inside; notes: what was noticed on the way.
    """

    path: Path
    part: str | None = None
    renamed: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def say(self, text: str) -> str:
        """A message with the user's name for what lies in a temporary folder."""
        for inner, outer in self.renamed:
            text = text.replace(inner, outer)
        return text


@contextmanager
def unpacked(path: Path, part: str | None = None) -> Iterator[Unpacked]:
    """The file itself, or what it holds where it is compressed or an archive.

    While it lasts, errors that pass through name what the user named.

    Args:
        path: a file or a folder; a pipe is read to its end.
        part: the member of an archive to read alone, or None.

    Raises:
        DataError: for what is damaged, locked, too large or packed too often.
    """
    with ExitStack() as stack:
        result = Unpacked(path, part)
        try:
            for _ in range(DEEPEST + 1):
                form = container(result.path)
                if form is None:
                    break
                room = Path(stack.enter_context(TemporaryDirectory(prefix="throughtime-")))
                result = _unpack(form, result, room)
            else:
                raise DataError(f"{path}: packed more than {DEEPEST} times; unpack it first")
            yield result
        except ThroughtimeError as error:
            error.args = (result.say(str(error)),)
            raise


@contextmanager
def standard_input() -> Iterator[Path]:
    """A file with all that comes from the standard input; errors call it `stdin`."""
    with TemporaryDirectory(prefix="throughtime-") as folder:
        copy = Path(folder) / "stdin"
        try:
            yield _copy(_read(sys.stdin.buffer), copy, Budget.of(Path("stdin"), copy.parent))
        except ThroughtimeError as error:
            error.args = (str(error).replace(str(copy), "stdin"),)
            raise


def container(path: Path) -> str | None:
    """What a file is packed as ("gzip", "zip", …), or None, also for formats that are zips."""
    if path.is_dir():
        return None
    if not path.is_file():
        return "pipe"
    head = read_head(path, 512)
    for form, mark in MARKS.items():
        if head.startswith(mark):
            return None if form == "zip" and zip_kind(path) is not None else form
    if head[TAR_MARK] == b"ustar":
        return "tar"
    for form, endings in ENDINGS.items():
        if path.suffix.lower() in endings:
            raise DataError(f"{path}: the {form} file is damaged or cut short")
    return None


def zip_kind(path: Path) -> str | None:
    """The format of a file that is a zip inside ("excel", "npz", "torch", "document") or None."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            kind = archive.open("mimetype").read(80) if "mimetype" in names else b""
    except FAILURES:
        return None  # a damaged zip: unpacking it says what is wrong
    if any(name.startswith("xl/") for name in names) or b"opendocument.spreadsheet" in kind:
        return "excel"
    if any(name.endswith("data.pkl") for name in names):
        return "torch"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    return "document" if kind or "[Content_Types].xml" in names else None


def _unpack(form: str, outer: Unpacked, room: Path) -> Unpacked:
    """One layer less, in the folder `room`."""
    path, part, notes = outer.path, outer.part, outer.notes
    budget = Budget.of(path, room)
    try:
        if form in ENDINGS and form != "zip":
            inner = _copy(_blocks(form, path), room / _inside(path, form), budget)
            if path.suffix.lower() not in ENDINGS[form]:
                notes += (f"{path} is {form}-compressed, though its name does not say so",)
        elif form == "pipe":
            with path.open("rb") as source:
                inner = _copy(_read(source), room / (path.name or "pipe"), budget)
        else:
            with path.open("rb") as file:
                members = _zip(file) if form == "zip" else _tar(file)
                part = _members(path, members, room, budget, part)
            inner = room
    except FAILURES as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise DataError(f"{path}: cannot be unpacked: {reason(error)}") from error
        if "encrypted" in str(error) or "password" in str(error):
            raise DataError(f"{path}: locked with a password; unpack it first") from error
        raise DataError(f"{path}: the {form} file is damaged or cut short") from error
    if inner == room:
        below = files_below(room)
        if not below:
            raise DataError(f"{path}: the archive holds no file")
        inner = below[0] if len(below) == 1 else room
    replaced = room if form in ("zip", "tar") else inner
    return Unpacked(inner, part, ((str(replaced), str(path)), *outer.renamed), notes)


def _inside(path: Path, form: str) -> str:
    """The name of a compressed file without its compression: `a.csv` of `a.csv.gz`."""
    if path.suffix.lower() == ".tgz":
        return f"{path.stem}.tar"
    return path.stem if path.suffix.lower() in ENDINGS[form] else path.name


Member = tuple[str, Callable[[], BinaryIO]]


def _zip(file: BinaryIO) -> list[Member]:
    archive = zipfile.ZipFile(file)
    return [
        (entry.filename, lambda entry=entry: archive.open(entry))  # type: ignore[misc]
        for entry in archive.infolist()
        if not entry.is_dir()
    ]


def _tar(file: BinaryIO) -> list[Member]:
    archive = tarfile.open(fileobj=file)  # noqa: SIM115 - closed with the file
    return [
        (entry.name, lambda entry=entry: archive.extractfile(entry))  # type: ignore[misc]
        for entry in archive
        if entry.isfile()
    ]


def _members(
    path: Path, members: Iterable[Member], room: Path, budget: Budget, part: str | None
) -> str | None:
    """Unpacks all members but hidden ones, or the one that is named; the part not used up."""
    plain = []
    for given, opened in members:
        parts = [p for p in PurePosixPath(given.replace("\\", "/")).parts if p not in ("/", "..")]
        if parts and not any(p.startswith(".") or p == "__MACOSX" for p in parts):
            plain.append((PurePosixPath(*parts), opened))
    chosen = [member for member in plain if part in (str(member[0]), member[0].name)]
    if part is not None and not chosen and len(plain) > 1:
        names = [str(member) for member, _ in plain]
        raise DataError(
            f"{path}: no member '{part}'{nearest(part, names) or ';'} there are {quoted(names)}"
        )
    for name, opened in chosen or plain:
        target = room / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with opened() as source:
            _copy(_read(source), target, budget)
    return None if chosen else part


def _copy(blocks: Iterable[bytes], target: Path, budget: Budget) -> Path:
    with target.open("wb") as file:
        for block in blocks:
            budget.take(len(block))
            file.write(block)
    return target


def _read(source: Any) -> Iterator[bytes]:
    """The content of an open file, block by block."""
    while block := source.read(BLOCK):
        yield block


def _blocks(form: str, path: Path) -> Iterator[bytes]:
    """The content of a compressed file, block by block."""
    openers: dict[str, Any] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}
    if form == "zstd":
        yield from _zstd(path)
        return
    with openers[form](path) as source:
        yield from _read(source)


def _zstd(path: Path) -> Iterator[bytes]:
    """The content of a zstd file. Raises: EOFError where it is damaged or cut short."""
    try:
        import zstandard
    except ImportError as error:
        raise MissingExtra("zstandard", "zstd", f"{path}: a zstd file") from error
    with path.open("rb") as file:
        frame = zstandard.ZstdDecompressor().decompressobj()
        # A little at a time: a thousand bytes can hold thirty million.
        while packed := file.read(1 << 10):
            while packed:
                if frame.eof:
                    frame = zstandard.ZstdDecompressor().decompressobj()
                try:
                    yield frame.decompress(packed)
                except zstandard.ZstdError as error:
                    raise EOFError(str(error)) from error
                packed = frame.unused_data
        if not frame.eof:
            raise EOFError("the last frame is not whole")
