"""From a path to `Sequences`: what is packed is unpacked, and each format has its reader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

import numpy as np
import torch

from throughtime.data.readers import sound
from throughtime.data.readers.arrays import read_mat, read_npy, read_npz, read_safetensors
from throughtime.data.readers.columnar import parser_errors, read_arrow, read_excel, read_parquet
from throughtime.data.readers.containers import unpacked
from throughtime.data.readers.files import (
    Finding,
    counts_by_suffix,
    files_below,
    gathered,
    parsing,
    quoted,
    stem,
    stems,
    suffix,
)
from throughtime.data.readers.formats import (
    BY_SUFFIX,
    FORMATS,
    Guess,
    format_of,
    is_text,
    table_width,
)
from throughtime.data.readers.midi import read_midi
from throughtime.data.readers.options import Options
from throughtime.data.readers.records import kind_of_lines, read_json, read_jsonl
from throughtime.data.readers.repositories import read_arff, read_ts, read_tsf
from throughtime.data.readers.rows import Rows
from throughtime.data.readers.series import join, open_series, read_table, rows_of
from throughtime.data.readers.table import Table
from throughtime.data.readers.text import Text, join_texts, text_of
from throughtime.data.sequences import Domain, Sequences
from throughtime.errors import DataError, SettingError

Progress = Callable[[int, int], None] | None
T = TypeVar("T")

KINDS = ("series", "text", "sound")
# Files of each kind that messages name.
USUAL = {
    "series": ".csv .parquet .json .xlsx",
    "text": ".txt .md .jsonl",
    "sound": ".wav .flac .mp3",
}
# Texts about the other files of a folder, by their names without extensions in lower case.
ABOUT = ("readme", "license", "licence", "copying", "changelog", "notice", "authors", "citation")


def _read_table(path: Path, options: Options) -> Table:
    errors = (*parser_errors(), UnicodeError, OverflowError)
    with parsing(path, "table", *errors):
        return open_series(path, options)


# The readers of single files, and the group of options that each takes (see `Options.check`).
READERS: dict[str, tuple[str, Callable[[Path, Options], Table | Sequences]]] = {
    "table": ("series", _read_table),
    "parquet": ("series", read_parquet),
    "arrow": ("series", read_arrow),
    "excel": ("series", read_excel),
    "json": ("records", read_json),
    "jsonl": ("records", read_jsonl),
    "arff": ("series", read_arff),
    "npy": ("series", read_npy),
    "npz": ("series", read_npz),
    "mat": ("array", read_mat),
    "safetensors": ("series", read_safetensors),
    "tsf": ("array", read_tsf),
    "ts": ("array", read_ts),
    "midi": ("array", read_midi),
}


def read_path(path: Path, kind: str | None, options: Options, on_progress: Progress) -> Sequences:
    """A file, a folder, or what an archive holds."""
    with unpacked(path, options.part) as inner:
        rest = replace(options, part=inner.part)
        if inner.path.is_dir():
            result = _read_folder(inner.path, kind, rest, on_progress)
        else:
            result = _read_file(inner.path, kind, rest)
        notes = tuple(inner.say(note) for note in (*inner.notes, *result.notes))
    return replace(result, notes=notes)


def kind_by_name(path: Path) -> str | None:
    """The kind of data that a file's extension promises, or None."""
    name = BY_SUFFIX.get(suffix(path))
    return None if name is None or name in ("json", "jsonl") else FORMATS[name].kind


def is_table(source: object) -> bool:
    """Whether the options of tables say something about a source: a path of no arrays."""
    if not isinstance(source, (str, Path)):
        return False
    return BY_SUFFIX.get(suffix(Path(source))) not in ("npy", "npz", "mat", "safetensors", "midi")


def _guess(path: Path, kind: str | None, options: Options) -> Guess:
    """The format of a file, as far as `kind` leaves it open."""
    if options.encoding == "bytes" or kind == "text":
        lines = BY_SUFFIX.get(suffix(path)) == "jsonl" and options.encoding != "bytes"
        return Guess("jsonl" if lines else "text")
    if kind == "sound":
        named = BY_SUFFIX.get(suffix(path))
        return Guess("media" if named == "media" else "sound")
    guess = format_of(path, options.encoding)
    if kind == "series" and (guess.kind != "series" or guess.note is not None):
        return Guess(guess.name if guess.name in READERS else "table")
    return guess


def _read_file(path: Path, kind: str | None, options: Options) -> Sequences:
    guess = _guess(path, kind, options)
    notes: tuple[str, ...] = () if guess.note is None else (guess.note,)
    if guess.name in ("sound", "media"):
        options.check("sound")
        result = sound.join_recordings([_recording(path, options)], [stem(path)], str(path))
    elif guess.name == "text":
        options.check("text")
        _no_part(options)
        result = join_texts([text_of(path, options.encoding)], [stem(path)], options)
        notes += _like_a_table(path, options) if kind is None else ()
    else:
        result = _series(path, guess.name, options)
    return replace(result, notes=(*notes, *result.notes))


def _series(path: Path, name: str, options: Options) -> Sequences:
    group, reader = READERS[name]
    if group != "records":
        options.check(group)
    found = reader(path, options)
    return read_table(found, options, stem(path)) if isinstance(found, Table) else found


def _no_part(options: Options) -> None:
    if options.part is not None:
        raise SettingError("part= says nothing about this source; it is for files of several parts")


def _recording(path: Path, options: Options) -> sound.Recording:
    _no_part(options)
    if BY_SUFFIX.get(suffix(path)) != "media":
        return sound.recording_of(path, options.rate)
    with TemporaryDirectory(prefix="throughtime-") as room:
        return replace(
            sound.recording_of(sound.converted(path, Path(room)), options.rate), path=path
        )


def _like_a_table(path: Path, options: Options) -> tuple[str, ...]:
    """A note for text that is a table, where `kind='series'` was seen to open it."""
    if options.encoding == "bytes" or options.lines:
        return ()
    with path.open("rb") as file:
        head = file.read(1 << 16)
    cut = head.rfind(b"\n") + 1
    width = table_width(head[:cut].decode("latin-1"))
    if not width:
        return ()
    shape = f"of {width} columns" if width > 1 else "of one column"
    note = f"{path} looks like a table {shape} and is read letter by letter"
    with TemporaryDirectory(prefix="throughtime-") as room:
        sample = Path(room) / path.name
        sample.write_bytes(head[:cut])
        try:
            table = open_series(sample, options)
            if any(table.numeric(name) for name in table.columns):
                note += "; kind='series' reads the table"
        except DataError:
            return (note,)
    return (note,)


# ----------------------------------------------------------------------------------------- folders


def _read_folder(
    folder: Path, kind: str | None, options: Options, on_progress: Progress
) -> Sequences:
    """Every file of one kind; those of other kinds are named, and `kind` chooses."""
    _no_part(options)
    paths = files_below(folder)
    found = {path: _member_kind(path, kind, options) for path in paths}
    notes: tuple[str, ...] = ()
    if not any(found.values()):
        found = {path: _kind_by_content(path, options) for path in paths}
        notes = (f"{folder}: what the files hold is told by their content, not by their names",)
    if kind == "text":
        texts = [path for path in paths if found[path] is None and is_text(path, options.encoding)]
        found.update(dict.fromkeys(texts, "text"))
    _without_about(found, kind)
    kinds = [name for name in KINDS if name in found.values() and kind in (None, name)]
    if not kinds:
        usual = " ".join(USUAL[name] for name in KINDS if kind in (None, name))
        raise DataError(
            f"{folder}: no file that can be read; the folder holds {counts_by_suffix(paths)}, "
            f"needed are {usual} or others of the guide"
        )
    if len(kinds) > 1:
        raise DataError(
            f"{folder}: holds several kinds of data ({counts_by_suffix(paths)}); choose one with "
            f"kind=, {quoted(kinds)}"
        )
    chosen = [path for path in paths if found[path] == kinds[0]]
    members = Members(folder, chosen, on_progress)
    result = _READ_FOLDER[kinds[0]](members, options)
    left = [path for path in paths if found[path] != kinds[0]]
    notes += members.notes
    if left:
        names = quoted((path.relative_to(folder).as_posix() for path in left), 5)
        notes += (f"{folder}: left out are {counts_by_suffix(left)}: {names}",)
    return result.with_notes(*notes)


def _member_kind(path: Path, asked: str | None, options: Options) -> str | None:
    """The kind that the name of a file promises; JSON lines are looked into."""
    name = BY_SUFFIX.get(suffix(path))
    if name == "jsonl":
        if asked in ("series", "text"):
            return asked
        try:
            with unpacked(path) as inner:
                return kind_of_lines(inner.path, options)
        except DataError:
            return "text"  # reading it says what is wrong
    return None if name is None else FORMATS[name].kind


def _kind_by_content(path: Path, options: Options) -> str | None:
    try:
        with unpacked(path) as inner:
            return None if inner.path.is_dir() else format_of(inner.path, options.encoding).kind
    except DataError:
        return None


def _without_about(found: dict[Path, str | None], asked: str | None) -> None:
    """Takes out files about the others, a README or a .json, where there are others to read."""
    others = any(kind in ("series", "sound") for kind in found.values())
    about = {
        path
        for path, kind in found.items()
        if (kind == "text" and (stem(path).lower() in ABOUT or (others and path.suffix == ".md")))
        or BY_SUFFIX.get(suffix(path)) == "json"
    }
    if any(kind and asked in (None, kind) for path, kind in found.items() if path not in about):
        found.update(dict.fromkeys(about))


class Members:
    """The files of a folder, read one after the other; what cannot be read is left out and named.

    Args:
        folder: that the names are relative to.
        paths: of the files.
        on_progress: called with (files done, files in all).
    """

    def __init__(self, folder: Path, paths: Sequence[Path], on_progress: Progress) -> None:
        self.folder = folder
        self.paths = paths
        self.names = stems(paths, folder)
        self.notes: tuple[str, ...] = ()
        self._on_progress = on_progress

    def each(self, read: Callable[[Path, str], T]) -> tuple[list[T], list[str], list[Path]]:
        """What `read` makes of each file, with its name and path.

        Raises: DataError, the first that was met, where half of the files or more fail.
        """
        results, names, paths = [], [], []
        failures: list[DataError] = []
        for done, (path, name) in enumerate(zip(self.paths, self.names, strict=True), start=1):
            try:
                with unpacked(path) as inner:
                    if inner.path.is_dir():
                        raise DataError(f"{path}: an archive of several files inside a folder")
                    results.append(read(inner.path, name))
                names.append(name)
                paths.append(path)
            except DataError as error:
                failures.append(error)
            if self._on_progress is not None:
                self._on_progress(done, len(self.paths))
        if 2 * len(failures) >= len(self.paths):
            if len(failures) > 1:
                count = (
                    f"{len(failures):,} of {len(self.paths):,} files cannot be read, the first: "
                )
                raise DataError(f"{count}{failures[0]}") from failures[0]
            raise failures[0]
        if failures:
            what = f"{len(failures):,} of {len(self.paths):,} files cannot be read and are left out"
            self.notes = gathered([Finding(what, str(error)) for error in failures])
        return results, names, paths


def _sound_folder(members: Members, options: Options) -> Sequences:
    options.check("sound")
    recordings, names, paths = members.each(lambda path, _: _recording(path, options))
    named = [replace(one, path=path) for one, path in zip(recordings, paths, strict=True)]
    return sound.join_recordings(named, names, str(members.folder))


def _text_folder(members: Members, options: Options) -> Sequences:
    lines = [path for path in members.paths if BY_SUFFIX.get(suffix(path)) == "jsonl"]
    if lines and options.encoding != "bytes":
        sets, names, _ = members.each(lambda path, _: _read_file(path, "text", options))
        return concatenated(sets, names, members.folder)
    options.check("text")

    def read(path: Path, name: str) -> tuple[Text, tuple[str, ...]]:
        return text_of(path, options.encoding), _like_a_table(path, options)

    found, names, _ = members.each(read)
    tables = [note for _, notes in found for note in notes]
    result = join_texts([text for text, _ in found], names, options)
    if tables:
        more = f" (and {len(tables) - 1:,} more files)" if len(tables) > 1 else ""
        result = result.with_notes(tables[0] + more)
    return result


def _series_folder(members: Members, options: Options) -> Sequences:
    """Tables are joined as tables, so that their stamps are looked at together."""

    def read(path: Path, name: str) -> Rows | Sequences:
        form = _guess(path, "series", options).name
        group, reader = READERS[form]
        if group != "records":
            options.check(group)
        found = reader(path, options)
        return rows_of(found, options, name) if isinstance(found, Table) else found

    found, names, paths = members.each(read)
    parts: list[tuple[str, Rows]] = []
    sets: list[Sequences] = []
    for part, name, path in zip(found, names, paths, strict=True):
        if isinstance(part, Sequences):
            sets.append(part)
            continue
        if part.by_id:
            part = replace(part, names=tuple(f"{name}/{one}" for one in part.names))
        parts.append((str(path), part))
    if not sets:
        return join(parts, options, str(members.folder))
    sets += [join([part], options, part[0]) for part in parts]
    return concatenated(sets, names, members.folder)


def concatenated(sets: Sequence[Sequences], names: Sequence[str], folder: Path) -> Sequences:
    """Raw sets of sequences as one; a set of one sequence goes by its name here.

    Raises: DataError for sets of different kinds or columns.
    """
    first = sets[0].domain
    for part, name in zip(sets, names, strict=True):
        mine = part.domain
        if (mine.kind, mine.columns, mine.sample_rate) != (
            first.kind, first.columns, first.sample_rate
        ):  # fmt: skip
            raise DataError(
                f"{folder}: '{name}' holds {_described(mine)}, '{names[0]}' {_described(first)}"
            )
    stamped = all(part.times is not None for part in sets)
    kinds = {part.times.dtype.kind for part in sets if part.times is not None}
    known = all(part.covariates is not None for part in sets)
    steps = {part.domain.step for part in sets}
    labels = [
        name if len(part) == 1 else f"{name}/{one}"
        for part, name in zip(sets, names, strict=True)
        for one in part.names
    ]
    lengths = torch.cat([part.lengths for part in sets])
    return Sequences(
        values=torch.cat([part.values for part in sets]),
        offsets=torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)]),
        domain=first if len(steps) == 1 else replace(first, step="step"),
        names=tuple(labels),
        times=np.concatenate([part.times for part in sets if part.times is not None])
        if stamped and len(kinds) == 1
        else None,
        covariates=torch.cat([part.covariates for part in sets if part.covariates is not None])
        if known
        else None,
        notes=tuple(dict.fromkeys(note for part in sets for note in part.notes)),
    )


def _described(domain: Domain) -> str:
    return f"{domain.kind} data" + (f" ({quoted(domain.columns, 4)})" if domain.columns else "")


_READ_FOLDER = {"series": _series_folder, "text": _text_folder, "sound": _sound_folder}
