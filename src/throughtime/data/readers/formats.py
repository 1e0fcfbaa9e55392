"""Which format a file has: by its first bytes, then its name, then what its text looks like."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from throughtime.data.readers.containers import container, zip_kind
from throughtime.data.readers.encodings import decoded
from throughtime.data.readers.files import read_head, suffix
from throughtime.errors import DataError

HEAD = 1 << 16  # bytes that a format is judged by
LINES = 200  # of its first lines


@dataclass(frozen=True)
class Format:
    """title: with its article; kind: what `kind=` calls its data; suffixes: names it goes by."""

    title: str
    kind: str
    suffixes: tuple[str, ...]


FORMATS = {
    "table": Format("a table", "series", (".csv", ".tsv", ".tab", ".psv")),
    "parquet": Format("a Parquet file", "series", (".parquet", ".pq")),
    "arrow": Format("an Arrow file", "series", (".feather", ".arrow", ".ipc")),
    "excel": Format("a spreadsheet", "series", (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")),
    "npy": Format("a .npy file", "series", (".npy",)),
    "npz": Format("an .npz file", "series", (".npz",)),
    "mat": Format("a .mat file", "series", (".mat",)),
    "safetensors": Format("a safetensors file", "series", (".safetensors",)),
    "json": Format("JSON", "series", (".json",)),
    "tsf": Format("a .tsf file", "series", (".tsf",)),
    "ts": Format("a .ts file", "series", (".ts",)),
    "arff": Format("an .arff file", "series", (".arff",)),
    "midi": Format("a MIDI file", "series", (".mid", ".midi")),
    "jsonl": Format("JSON lines", "text", (".jsonl", ".ndjson")),
    "text": Format("text", "text", (".txt", ".text", ".md")),
    "sound": Format(
        "sound", "sound",
        (".wav", ".flac", ".ogg", ".mp3", ".aiff", ".aif", ".opus", ".oga", ".au", ".w64", ".caf"),
    ),
    "media": Format("compressed sound", "sound", (".m4a", ".aac", ".wma", ".mp4", ".webm")),
}  # fmt: skip
BY_SUFFIX = {ending: name for name, form in FORMATS.items() for ending in form.suffixes}

# The first bytes of files, where they stand, and the format that they are of.
MAGIC = (
    (0, b"\x93NUMPY", "npy"),
    (0, b"PAR1", "parquet"),
    (0, b"ARROW1", "arrow"),
    (0, b"\xff\xff\xff\xff", "arrow"),  # the format of streams
    (0, b"MATLAB 5.0", "mat"),
    (0, b"\xd0\xcf\x11\xe0", "excel"),
    (0, b"MThd", "midi"),
    (8, b"WAVE", "sound"),
    (0, b"RF64", "sound"),
    (0, b"fLaC", "sound"),
    (0, b"OggS", "sound"),
    (0, b"ID3", "sound"),
    (8, b"AIFF", "sound"),
    (8, b"AIFC", "sound"),
    (0, b".snd", "sound"),
    (0, b"caff", "sound"),
    (4, b"ftyp", "media"),
)
_NUMPY = "numpy.save('y.npy', y)"
# Formats that are not read: what they are, and what makes one of them a file that is.
REFUSED: dict[str, tuple[str, str]] = {
    "torch": (
        "a PyTorch file, a pickle, which can run any program when it is loaded",
        "save the tensor with safetensors.torch.save_file({'y': y}, 'y.safetensors') or "
        "numpy.save('y.npy', y.numpy())",
    ),
    "pickle": (
        "a pickle, which can run any program when it is loaded",
        f"save a frame with to_parquet('y.parquet'), an array with {_NUMPY}",
    ),
    "hdf5": (
        "an HDF5 file (or a MATLAB file of version 7.3)",
        "from Python: numpy.save('y.npy', h5py.File('x.h5')['y'][:]); from MATLAB: "
        "save('y.mat', 'y', '-v7')",
    ),
    "sqlite": (
        "an SQLite data base",
        "give a frame, pandas.read_sql('select …', sqlite3.connect('x.db'))",
    ),
    "feather1": (
        "a Feather file of version 1",
        "write it again: pandas.read_feather('x.feather').to_parquet('x.parquet')",
    ),
    "7z": ("a 7z archive", "unpack it first: 7z x FILE"),
    "rar": ("a RAR archive", "unpack it first: unrar x FILE"),
    "pdf": ("a PDF document", "save its table as .csv, or its text as .txt"),
    "document": ("a document of an office program", "save its text as .txt, its table as .csv"),
    "picture": ("a picture", "only series, text and sound are read"),
}
REFUSED_MAGIC = (
    (b"\x89HDF", "hdf5"),
    (b"MATLAB 7.3", "hdf5"),
    (b"SQLite format 3", "sqlite"),
    (b"FEA1", "feather1"),
    (b"7z\xbc\xaf", "7z"),
    (b"Rar!", "rar"),
    (b"%PDF", "pdf"),
    (b"\x89PNG", "picture"),
    (b"\xff\xd8\xff", "picture"),
    (b"GIF8", "picture"),
)
PICKLE = re.compile(rb"^\x80[\x02-\x05]")


@dataclass(frozen=True)
class Guess:
    """The format of a file and, where its name does not say so, the note that says it."""

    name: str
    note: str | None = None

    @property
    def kind(self) -> str:
        return FORMATS[self.name].kind


def format_of(path: Path, encoding: str | None = None) -> Guess:
    """The format of a plain file, not of a container.

    Raises: DataError for what is not read, with the way to a file that is.
    """
    head = read_head(path, HEAD)
    named = BY_SUFFIX.get(suffix(path))
    found = _by_magic(path, head)
    if found is not None:
        if FORMATS[found].kind == "sound" and named in ("sound", "media"):
            return Guess(named if found == "sound" else found)
        if found == named or (named is not None and found == "excel" and named == "mat"):
            return Guess(found)
        return Guess(found, f"{path} is {FORMATS[found].title} by its content and read so")
    if named == "ts" and b"@data" not in head.lower():
        named = None  # TypeScript goes by the same name
    if named == "excel":
        named = None  # programs write tables and pages as .xls; there is no other such file
    if named is not None:
        return Guess(named)
    found = _by_text(path, head, encoding)
    note = f"{path} looks like {FORMATS[found].title} and is read so"
    return Guess(found, note if found == "text" else f"{note}; kind='text' reads it as text")


def _by_magic(path: Path, head: bytes) -> str | None:
    """Raises: DataError for formats that are not read."""
    refused = next((name for mark, name in REFUSED_MAGIC if head.startswith(mark)), None)
    if head.startswith(b"PK\x03\x04"):
        packed = zip_kind(path)
        if packed in ("excel", "npz"):
            return packed
        refused = packed
    if refused is None and PICKLE.match(head) and b"\n" not in head[:2]:
        refused = "pickle"
    if refused is not None:
        title, way = REFUSED[refused]
        raise DataError(f"{path}: {title}; {way}")
    for place, mark, name in MAGIC:
        if head[place : place + len(mark)] == mark:
            return name
    # A JSON object after its length: a safetensors file.
    if len(head) > 9 and head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 1 << 32:
        return "safetensors"
    return None


def _by_text(path: Path, head: bytes, encoding: str | None) -> str:
    """The format of a file of characters. Raises: DataError where it holds none."""
    whole = head if len(head) < HEAD else head[: head.rfind(b"\n") + 1] or head
    try:
        text, _ = decoded(whole, path, encoding)
    except DataError as error:
        raise DataError(
            f"{path}: neither its extension '{suffix(path)}' nor its first bytes say what it is; "
            f"kind='sound' reads recordings, kind='text' with encoding='bytes' the bytes themselves"
        ) from error
    lines = [line for line in text.splitlines()[:LINES] if line.strip()]
    lowered = [line.strip().lower() for line in lines]
    if any(line.startswith("@relation") for line in lowered):
        return "arff"
    if any(line.startswith("@data") for line in lowered):
        return "ts" if any(line.startswith("@problemname") for line in lowered) else "tsf"
    if lowered and lowered[0][0] in "[{":
        return _json(lines)
    return "table" if table_width(text) else "text"


def _json(lines: list[str]) -> str:
    """JSON lines where each of two lines is a value of its own."""
    try:
        values = [json.loads(line) for line in lines[:2]]
    except (ValueError, RecursionError):
        return "json" if lines[0].strip()[0] == "[" or lines[0].strip() == "{" else "text"
    return "jsonl" if isinstance(values[0], dict) and len(lines) > 1 else "json"


NUMBER = re.compile(r"[-+]?[$€£]?\d[\d.,:/\-TZeE+%]*( \d\d:[\d:.]+)?$")
SEPARATORS = (",", ";", "\t", "|", None)  # None: blanks


def table_width(text: str) -> int:
    """Columns of a text whose lines have equally many cells, many of them numbers; else 0."""
    lines = [line.strip() for line in text.splitlines()[:LINES] if line.strip()]
    lines = [line for line in lines if line[0] not in "#%"]
    if len(lines) < 3:
        return 0
    for separator in SEPARATORS:
        rows = [line.split(separator) for line in lines]
        widths = [len(row) for row in rows]
        usual = max(set(widths), key=widths.count)
        if usual == 1 or widths.count(usual) < 0.9 * len(rows):
            continue
        cells = [cell.strip().strip('"') for row in rows[1:] if len(row) == usual for cell in row]
        share = sum(bool(NUMBER.match(cell)) for cell in cells) / len(cells)
        if share >= (0.34 if separator is not None else 0.75):
            return usual
    return int(all(NUMBER.match(line) for line in lines[1:]))


def is_text(path: Path, encoding: str | None = None) -> bool:
    """Whether a file holds characters and is no format of its own."""
    try:
        if container(path) is not None or _by_magic(path, read_head(path, HEAD)) is not None:
            return False
        _by_text(path, read_head(path, HEAD), encoding)
    except DataError:
        return False
    return True
