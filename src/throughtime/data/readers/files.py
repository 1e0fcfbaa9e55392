"""Paths, bytes and characters: opening what the user named, with a sentence when it cannot be."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from throughtime.errors import DataError, SettingError, nearest


def quoted(names: Iterable[str]) -> str:
    """The names in quotes, separated by commas: `'a', 'b'`."""
    return ", ".join(f"'{name}'" for name in names)


def locate(source: str | Path) -> Path:
    """The path, which exists.

    Raises: DataError with the nearest name beside it, or with the folder that is missing.
    """
    path = Path(source)
    try:
        if path.exists():
            return path
        parent = path.parent
        if not parent.is_dir():
            raise DataError(f"{path}: no such file: there is no folder '{parent}'")
        beside = [entry.name for entry in parent.iterdir() if not entry.name.startswith(".")]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}") from error
    raise DataError(f"{path}: no such file{nearest(path.name, beside)}")


def reason(error: Exception) -> str:
    """What the operating system says, in one line and without the path."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


def suffix(path: Path) -> str:
    """The extension in lower case, that of the file inside when it is gzipped: `.csv`."""
    suffixes = [part.lower() for part in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def stem(path: Path) -> str:
    """The file's name without its extension (and without `.gz`)."""
    name = path.name[:-3] if path.name.lower().endswith(".gz") else path.name
    return Path(name).stem


def stems(paths: Sequence[Path], folder: Path) -> list[str]:
    """One name per file: its stem, or its path inside `folder` where a stem occurs twice."""
    names = [stem(path) for path in paths]
    if len(set(names)) == len(names):
        return names
    return [(path.parent.relative_to(folder) / stem(path)).as_posix() for path in paths]


def read_bytes(path: Path) -> bytes:
    """The whole content, decompressed when the name ends in `.gz`.

    Raises: DataError for a file that cannot be opened, is damaged, or holds nothing.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}") from error
    if path.name.lower().endswith(".gz") and data:
        try:
            data = gzip.decompress(data)
        except (EOFError, zlib.error, OSError) as error:
            raise DataError(f"{path}: the gzip file is damaged or cut short") from error
    if not data:
        raise DataError(f"{path}: the file is empty")
    return data


def decode(data: bytes, path: Path, encoding: str = "utf-8") -> str:
    """The bytes as characters; a byte order mark is removed, newlines stay as they are.

    Raises: DataError naming the byte and the line that are not `encoding`; SettingError for an
    encoding that does not exist.
    """
    try:
        text = data.decode(encoding)
    except LookupError as error:
        raise SettingError(
            f"encoding='{encoding}': no such encoding; the usual one is utf-8"
        ) from (error)
    except UnicodeError as error:
        start = int(getattr(error, "start", 0))
        line = data.count(b"\n", 0, start) + 1
        hint = "; if it is another encoding name it, for example encoding='latin-1'"
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            hint = "; it looks like UTF-16: encoding='utf-16'"
        raise DataError(
            f"{path}:{line}: byte {start:,} (0x{data[start]:02x}) is not {encoding}{hint}"
        ) from error
    return text.removeprefix("\ufeff")


def files_below(folder: Path) -> list[Path]:
    """Every file in the folder and below it, sorted by path; hidden ones are left out.

    Raises: DataError for a folder that cannot be listed.
    """
    try:
        paths = [
            path
            for path in folder.rglob("*")
            if path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        ]
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {reason(error)}") from error
    return sorted(paths, key=lambda path: path.relative_to(folder).as_posix())


def counts_by_suffix(paths: Iterable[Path]) -> str:
    """What a folder holds, in words: `3 .csv files, 1 .md file`; `nothing` for no file."""
    counts: dict[str, int] = {}
    for path in paths:
        kind = suffix(path)
        counts[kind] = counts.get(kind, 0) + 1
    words = [
        f"{count:,} {kind or 'unnamed-type'} file{'s' if count > 1 else ''}"
        for kind, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    ]
    return ", ".join(words) or "nothing"
