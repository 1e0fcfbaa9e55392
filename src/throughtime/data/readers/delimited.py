"""Text with separators as a table: rows that polars reads, what does not fit repaired and named."""

from __future__ import annotations

import csv
import io
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from throughtime.data.readers.encodings import decoded
from throughtime.data.readers.files import gathered, quoted, read_bytes, reason, suffix
from throughtime.data.readers.layout import COMMENTS, NAMES, SAMPLE, Layout, find_layout, split
from throughtime.data.readers.options import Options
from throughtime.data.readers.plan import ReadPlan
from throughtime.data.readers.table import Table, distinct
from throughtime.errors import DataError

if TYPE_CHECKING:
    import polars as pl

_TRIED = 2_000  # cells of a long column that show whether it holds numbers
_LISTED = 3  # places that a note spells out


def open_table(path: Path, options: Options) -> Table:
    """A table in a file of characters."""
    text, findings = decoded(read_bytes(path), path, options.encoding)
    table = text_table(str(path), text, options, tab=suffix(path) == ".tsv")
    table.notes += gathered(findings)
    return table


def text_table(label: str, text: str, options: Options, tab: bool = False) -> Table:
    """The table in a text.

    Raises: DataError where there is none, or where its rows do not fit its columns.
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = text.rstrip("\n")
    if not text.strip():
        raise DataError(f"{label}: the file is empty")
    layout = find_layout(label, _first_lines(text), options, tab)
    notes = list(layout.notes) + _layout_notes(layout)
    body, rows, more = _body(label, text, layout, options)
    notes += more
    names = distinct(layout.names, notes)

    def load(wanted: list[str]) -> pl.DataFrame:
        return _load(label, body, layout, names, wanted, len(rows))

    table = Table(label, names, len(rows), load, lambda row: rows[row], notes, options=options)
    table.plan = _layout_plan(layout)
    return table


def _first_lines(text: str) -> list[str]:
    """The lines from which the layout is found."""
    lines: list[str] = []
    start = 0
    while len(lines) < SAMPLE and start <= len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        lines.append(text[start:end])
        start = end + 1
    return lines


def _layout_notes(layout: Layout) -> list[str]:
    notes = []
    above = [(index, line) for index, line in layout.skipped]
    if above:
        listed = ", ".join(f"{index + 1} '{line[:40]}'" for index, line in above[:_LISTED])
        more = f", … ({len(above)} in all)" if len(above) > _LISTED else ""
        notes.append(f"left out above the data: line{'s' if len(above) > 1 else ''} {listed}{more}")
    if layout.header is None and layout.header_evidence != "given":
        notes.append(
            f"no line has names: the columns are called {quoted(layout.names, 3)}; header=True "
            f"takes the first line for them"
        )
    return notes


def _layout_plan(layout: Layout) -> ReadPlan:
    name = NAMES.get(layout.separator, repr(layout.separator))
    mark = None if layout.separator == "\x00" else layout.separator
    plan = ReadPlan().with_entry("separator", mark, layout.separator_evidence)
    header = layout.header is not None
    plan = plan.with_entry("header", header, layout.header_evidence)
    reasons = tuple(f"line {index + 1}: {line[:60]}" for index, line in layout.skipped)
    first = f"the data begin in line {layout.first + 1}"
    return plan.with_entry(
        "skip", len(layout.skipped), f"{first}; cells are split by {name}", reasons
    )


@dataclass
class _Repairs:
    """Rows that do not fit their columns, by what is wrong with them (numbers of lines)."""

    blank: list[int]
    short: list[int]
    long: list[int]
    headers: list[int]
    tails: int = 0


def _body(
    label: str, text: str, layout: Layout, options: Options
) -> tuple[bytes, Sequence[int], list[str]]:
    """The rows of data as bytes that polars reads, the line of each, and what was repaired."""
    start = 0
    for _ in range(layout.first):
        start = text.find("\n", start) + 1
    width = len(layout.names)
    comments = (options.comment,) if options.comment else COMMENTS
    quoted = layout.quoting and text.find('"', start) >= 0
    if layout.separator not in (" ", "\x00") and not quoted:
        again = layout.header is not None and f"\n{_line_above(text, start)}\n" in text
        body = b"" if again else text[start:].encode()
        regular = None if again else _regular(body, layout.separator, width, comments)
        if regular is not None:
            return body, range(layout.first + 1, layout.first + 1 + regular), []
    return _repaired(label, text[start:], layout, comments, quoted)


def _line_above(text: str, start: int) -> str:
    """The line before the one that begins at `start`."""
    return text[text.rfind("\n", 0, start - 1) + 1 : start - 1] if start else "\0"


def _regular(body: bytes, separator: str, width: int, comments: tuple[str, ...]) -> int | None:
    """How many rows there are, if every line is one with as many cells as there are columns."""
    if any(b"\n" + mark.encode() in body or body.startswith(mark.encode()) for mark in comments):
        return None
    nothing = separator.encode() * (width - 1)
    if b"\n" + nothing + b"\n" in body or body.endswith(b"\n" + nothing):
        return None  # rows without any cell
    data = np.frombuffer(body, dtype=np.uint8)
    if width == 1:
        return int((data == 10).sum()) + 1
    # Line ends and separators in their order: so many separators, an end, and again.
    marks = data[(data == 10) | (data == ord(separator))] == 10
    height, rest = divmod(len(marks) + 1, width)
    if rest:
        return None
    rows = np.append(marks, True).reshape(height, width)
    return height if rows[:, -1].all() and not rows[:, :-1].any() else None


def _repaired(
    label: str, content: str, layout: Layout, comments: tuple[str, ...], quoted: bool
) -> tuple[bytes, Sequence[int], list[str]]:
    """Rows made to fit: blank ones left out, short ones filled, what is too much named."""
    separator = "," if layout.separator == "\x00" else layout.separator
    width = len(layout.names)
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, "utf-8", newline="", write_through=True)
    writer = csv.writer(out, delimiter="\t" if separator == " " else separator, lineterminator="\n")
    lines = array("q")
    repairs = _Repairs([], [], [], [])
    for number, cells in _rows(label, content, layout, separator, quoted):
        if not any(cells) or (len(cells) == 1 and not cells[0].strip()):
            if width > 1 or len(cells) > 1:
                repairs.blank.append(number)
                continue
            cells = [""]
        elif cells[0].startswith(comments):
            continue
        elif layout.header is not None and tuple(c.strip() for c in cells) == layout.names:
            repairs.headers.append(number)
            continue
        if layout.separator == "\x00":
            cells = [separator.join(cells)]
        if len(cells) > width:
            if not any(cell.strip() for cell in cells[width:]):
                repairs.tails += 1
                cells = cells[:width]
            else:
                repairs.long.append(number)
                cells = [""] * width
        elif len(cells) < width:
            repairs.short.append(number)
            cells = cells + [""] * (width - len(cells))
        writer.writerow(cells)
        lines.append(number)
    _check_repairs(label, repairs, len(lines), width, layout)
    out.flush()
    return raw.getvalue(), lines, _repair_notes(repairs)


def _rows(
    label: str, content: str, layout: Layout, separator: str, quoted: bool
) -> Iterator[tuple[int, list[str]]]:
    """Line number (from 1) and cells of each row."""
    first = layout.first + 1
    if not quoted or separator == " ":
        for index, line in enumerate(_lines(content)):
            line = line.removesuffix("\n")
            blanks = separator == " "
            yield first + index, split(line, " ", quoted) if blanks else line.split(separator)
        return
    reader = csv.reader(_lines(content), delimiter=separator, strict=True)
    start = 0
    try:
        for row in reader:
            yield first + start, row
            start = reader.line_num
    except csv.Error as error:
        raise DataError(
            f"{label}:{first + start}: a quoted cell is not closed properly ({reason(error)})"
        ) from error


def _lines(text: str) -> Iterator[str]:
    """The lines with their ends, one at a time: a long text is not copied for them."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start : end + 1]
        start = end + 1
    yield text[start:]


def _check_repairs(label: str, repairs: _Repairs, kept: int, width: int, layout: Layout) -> None:
    """Raises DataError where so many rows do not fit that the layout must be another."""
    many = len(repairs.long)
    if many * 10 > kept:
        comma = layout.separator == ","
        hint = (
            "; a comma inside numbers needs another separator or quotes around the number"
            if comma
            else ""
        )
        raise DataError(
            f"{label}:{repairs.long[0]}: more cells than the {width} columns, as in "
            f"{many:,} of {kept:,} rows{hint}; separator= says what divides the cells"
        )
    if len(repairs.short) * 2 > kept and width > 1:
        raise DataError(
            f"{label}:{repairs.short[0]}: fewer cells than the {width} columns, as in "
            f"{len(repairs.short):,} of {kept:,} rows; separator= says what divides the cells"
        )


def _repair_notes(repairs: _Repairs) -> list[str]:
    notes = []

    def note(lines: list[int], what: str) -> None:
        if lines:
            listed = ", ".join(map(str, lines[:_LISTED])) + (", …" if len(lines) > _LISTED else "")
            plural = "s" if len(lines) > 1 else ""
            notes.append(f"{len(lines):,} {what} (line{plural} {listed})")

    more = "s are repeated and" if len(repairs.headers) > 1 else " is repeated and"
    note(repairs.headers, f"line{more} left out: the names of the columns")
    note(repairs.blank, f"empty row{'s' if len(repairs.blank) > 1 else ''} left out")
    short = "rows have" if len(repairs.short) > 1 else "row has"
    note(repairs.short, f"{short} too few cells; the rest is missing")
    long = "rows have" if len(repairs.long) > 1 else "row has"
    note(repairs.long, f"{long} too many cells and taken for missing")
    if repairs.tails:
        notes.append(f"an empty last cell in {repairs.tails:,} rows is left out")
    return notes


def _load(
    label: str, body: bytes, layout: Layout, names: list[str], wanted: list[str], height: int
) -> pl.DataFrame:
    """The wanted columns of the body as text."""
    import polars as pl

    indices = sorted(names.index(name) for name in wanted)
    separator = {" ": "\t", "\x00": ","}.get(layout.separator, layout.separator)
    try:
        frame = pl.read_csv(
            io.BytesIO(body),
            has_header=False,
            columns=indices,
            separator=separator,
            infer_schema=False,
            quote_char='"',
        )
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{label}: cannot be split into columns ({reason(error)[:80]})") from error
    if frame.height != height:
        raise DataError(
            f"{label}: {frame.height:,} rows where {height:,} lines have cells; a quote is not "
            f"closed"
        )
    frame.columns = [names[index] for index in indices]
    return frame.select(wanted)
