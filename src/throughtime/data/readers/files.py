"""Paths and bytes: finding what the user named, with a sentence when it cannot be read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from throughtime.errors import DataError, ThroughtimeError, nearest

COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".zip")  # endings that stand after the file's own
MOST_NAMES = 12  # in a message
LONGEST_NAME = 60  # characters of a name in a message


def quoted(names: Iterable[str], most: int = MOST_NAMES) -> str:
    """The names in quotes: `'a', 'b'`; of many the first, and how many more there are."""
    given = [str(name) for name in names]
    cut = [n if len(n) <= LONGEST_NAME else n[: LONGEST_NAME - 1] + "…" for n in given]
    listed = ", ".join(f"'{name}'" for name in cut[:most])
    return listed if len(cut) <= most else f"{listed} and {len(cut) - most:,} more"


@dataclass(frozen=True)
class Finding:
    """Something noticed in one place: `what` is the same sentence wherever it is noticed."""

    what: str
    where: str


def gathered(findings: Iterable[Finding], most: int = 3) -> tuple[str, ...]:
    """One note for each kind of finding, with its first few places and how many more there are."""
    places: dict[str, list[str]] = {}
    for finding in findings:
        places.setdefault(finding.what, []).append(finding.where)
    notes = []
    for what, where in places.items():
        more = f" and {len(where) - most:,} more" if len(where) > most else ""
        notes.append(f"{what}: {', '.join(where[:most])}{more}")
    return tuple(notes)


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


def reason(error: BaseException) -> str:
    """What the operating system says, in one line and without the path."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return " ".join(str(text).split())


@contextmanager
def parsing(path: Path | str, what: str, *raised: type[BaseException]) -> Iterator[None]:
    """Turns what a parser raises, by its types, into a DataError that names the file.

    what: with its article, as in `x.npz: not a readable .npz file`.
    """
    try:
        yield
    except ThroughtimeError:
        raise
    except raised as error:
        why = reason(error).rstrip(".")[:120]
        raise DataError(f"{path}: not a readable {what}, damaged or cut short ({why})") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps what libraries in C and Rust print about damaged files from the terminal.

    They write past Python, pages of it; what is wrong is told by the error that they return.
    """
    try:
        kept = os.dup(2)
    except OSError:  # there is no terminal
        yield
        return
    sink = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(sink, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(sink)
        os.close(kept)


def suffix(path: Path) -> str:
    """The extension in lower case, that of the file inside when it is compressed: `.csv`."""
    return Path(_inner_name(path)).suffix.lower()


def stem(path: Path) -> str:
    """The file's name without its extension (and without `.gz` and its like)."""
    return Path(_inner_name(path)).stem


def _inner_name(path: Path) -> str:
    """The name without the ending of a compression: `a.csv` of `a.csv.gz`."""
    return path.stem if path.suffix.lower() in COMPRESSED and path.stem else path.name


def stems(paths: Sequence[Path], folder: Path) -> list[str]:
    """One name per file: its stem, or its path inside `folder` where a stem occurs twice."""
    names = [stem(path) for path in paths]
    if len(set(names)) < len(names):
        names = [(path.parent.relative_to(folder) / stem(path)).as_posix() for path in paths]
    if len(set(names)) < len(names):
        names = [path.relative_to(folder).as_posix() for path in paths]
    return names


def read_bytes(path: Path) -> bytes:
    """The whole content. Raises: DataError for a file that cannot be opened or holds nothing."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}") from error
    if not data:
        raise DataError(f"{path}: the file is empty")
    return data


def read_head(path: Path, size: int) -> bytes:
    """The first bytes. Raises: DataError for a file that cannot be opened or holds nothing."""
    try:
        with path.open("rb") as file:
            data = file.read(size)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {reason(error)}") from error
    if not data:
        raise DataError(f"{path}: the file is empty")
    return data


def free_memory() -> int:
    """Bytes of memory that are free on this machine (a terabyte where it does not say so)."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 1 << 40


def check_memory(path: Path | str, needed: int) -> None:
    """Raises DataError, before anything is allocated, for what does not fit into free memory."""
    free = free_memory()
    if needed > free:
        raise DataError(
            f"{path}: needs {needed / 1e9:,.1f} GB of memory, {free / 1e9:,.1f} GB are free"
        )


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
