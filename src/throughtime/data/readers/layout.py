"""Where the table lies in a text: its separator, its header, its first row, what is left out."""

from __future__ import annotations

import csv
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np

from throughtime.data.readers.numbers import MISSING, looks_like_number
from throughtime.data.readers.options import Options
from throughtime.data.readers.stamps import column_times, looks_like_stamp
from throughtime.errors import DataError

SEPARATORS = (",", ";", "\t", "|", " ")
SAMPLE = 400  # lines that are looked at
_YEARS = 4  # names of columns that make a row of names
_LONGEST = 30  # lines that one quoted cell may have
NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", " ": "blanks"}
COMMENTS = ("#", "%", "//")
_UNIT = re.compile(
    r"\(.*\)|\[.*\]|\d+[sndSND]|%|°?[CFK]|mm|cm|m|km|kg|g|h|s|min|m/s|km/h|hPa|kPa|Pa|"
    r"k?W/m2|[kMG]?Wh?|UTC|GMT|-|n/a|float|int|string|date|double",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Layout:
    """Lines count from 0 here; messages count from 1.

    separator: " " for any run of blanks; quoting: whether `"` quotes; header: the line of the
    names, or None; first: the first line of data; names: of the columns; skipped: lines above the
    data that are left out, with the reason of each; reasons: evidence for separator and header.
    """

    separator: str
    quoting: bool
    header: int | None
    first: int
    names: tuple[str, ...]
    skipped: tuple[tuple[int, str], ...]
    separator_evidence: str
    header_evidence: str
    notes: tuple[str, ...] = ()


def split(line: str, separator: str, quoting: bool = True) -> list[str]:
    """The cells of one line, blanks around them removed."""
    if separator == " ":
        line = "\t".join(line.split()) if '"' not in line else re.sub(r"[ \t]+", "\t", line.strip())
        separator = "\t"
    if not quoting or '"' not in line:
        return [cell.strip() for cell in line.split(separator)]
    try:
        row = next(csv.reader([line], delimiter=separator, strict=False), [""])
    except csv.Error:
        row = line.split(separator)
    return [cell.strip() for cell in row]


def typed(cell: str) -> str:
    """What a cell looks like: "missing", "number", "time" or "word"."""
    if cell.lower() in MISSING:
        return "missing"
    if looks_like_number(cell):
        return "number"
    return "time" if looks_like_stamp(cell) else "word"


def find_layout(label: str, lines: list[str], options: Options, tab: bool = False) -> Layout:
    """The layout of a table in text.

    lines: the first of the file, without their ends.
    Raises: DataError where no line of data is found.
    """
    skip = options.skip or 0
    notes: list[str] = []
    separator, evidence = options.separator, "given"
    declared = re.fullmatch(r'"?sep=(.)"?', lines[0].strip()) if lines else None
    if separator is None and declared:
        separator, evidence, skip = declared[1], "line 1 says so", max(skip, 1)
    if separator is None and tab:
        separator, evidence = "\t", "the file is called .tsv"
    comments = (options.comment,) if options.comment else COMMENTS
    numbered = [
        (index, line)
        for index, line in _logical(lines)
        if index >= skip and line.strip() and not line.lstrip().startswith(comments)
    ]
    if not numbered:
        raise DataError(f"{label}: there are no rows")
    if separator is None:
        separator, evidence = _separator([line for _, line in numbered])
    elif separator.strip() == "" and "\t" not in separator:
        separator = " "
    quoting = True
    rows = [(index, split(line, separator)) for index, line in numbered]
    return _find_header(
        label, lines, rows, separator, quoting, evidence, options, skip, comments, notes
    )


def _logical(lines: list[str]) -> list[tuple[int, str]]:
    """Rows with the line in which they begin: a quoted cell may go on in the next line."""
    rows: list[tuple[int, str]] = []
    index = 0
    while index < len(lines):
        stop = index + 1
        while sum(line.count('"') for line in lines[index:stop]) % 2 and stop < len(lines):
            stop += 1
        if stop - index > _LONGEST or sum(line.count('"') for line in lines[index:stop]) % 2:
            stop = index + 1  # a quote that is never closed is none
        rows.append((index, "\n".join(lines[index:stop])))
        index = stop
    return rows


def _separator(lines: list[str]) -> tuple[str, str]:
    """The mark that splits most lines into equally many cells that look like something."""
    body = lines[len(lines) // 2 :] if len(lines) > 4 else lines[1:] or lines
    best, best_score, width = ",", 0.0, 1
    for separator in SEPARATORS:
        rows = [split(line, separator) for line in body]
        widths = Counter(map(len, rows))
        common, count = widths.most_common(1)[0]
        if common == 1:
            continue
        cells = [cell for row in rows if len(row) == common for cell in row]
        score = count / len(rows) * float(np.mean([_worth(cell, separator) for cell in cells]))
        if separator == " ":
            score *= 0.8  # a blank is also part of stamps and of words
        if score > best_score + 1e-9:
            best, best_score, width = separator, score, common
    if best_score < 0.3:
        return ",", "no separator occurs in the rows: one column"
    return best, f"it splits the rows into {width} cells that can be read"


def _worth(cell: str, separator: str) -> float:
    if typed(cell) != "word":
        return 1.0
    if any(mark in cell for mark in SEPARATORS[1:4] if mark != separator):
        return 0.0
    # A number with a mark at its end, or the second half of one, was cut by a wrong separator.
    return 0.6 if not re.search(r"\d[,;]\d|^\d+[.:]$", cell) else 0.2


def _find_header(
    label: str,
    lines: list[str],
    rows: list[tuple[int, list[str]]],
    separator: str,
    quoting: bool,
    evidence: str,
    options: Options,
    skip: int,
    comments: tuple[str, ...],
    notes: list[str],
) -> Layout:
    body = rows[len(rows) // 2 :] if len(rows) > 2 else rows[-1:]
    width = Counter(len(row) for _, row in body).most_common(1)[0][0]
    width = _without_tail([row for _, row in rows], width)
    kinds = _column_kinds([row for _, row in body if len(row) >= width], width)
    # Rows of words alone do not tell names from data: the first is taken for the names.
    start = next((place for place, (_, row) in enumerate(rows) if _fits(row, kinds, width)), 0)
    if options.header is False:
        start = _headless_start(label, rows, kinds, width, options)
        header: int | None = None
    else:
        above = _block_above(rows, start, lines)
        header = _header_of(above, rows, width)
        if _counts_times(rows[start][1], kinds):
            header, start = start, start + 1
        if options.header is True:
            header, start = 0, max(start, 1)
        elif all(kind == "word" for kind in kinds):
            header, start = 0, 1  # words all over: only the place tells names from data
    commented = None
    if header is None and options.header is None and start == 0:
        commented = _commented_names(lines, rows[0][0], separator, width, comments)
    if header is None and options.header is None and start:
        _check_above(label, rows, start, width)
    names, reason_given = _names_of(rows, header, commented, width, start, kinds, options)
    if header is not None and width == 2 and len(rows[header][1]) == 1 and separator == ",":
        return _single(rows, header, quoting, skip, lines, notes)
    if start >= len(rows):
        raise DataError(f"{label}: there are column names but no rows")
    used = set[int]()
    if header is not None:  # names may go on in the next lines
        span = sum(cell.count("\n") for cell in rows[header][1])
        used = set(range(rows[header][0], rows[header][0] + span + 1))
    first = rows[start][0]
    skipped = tuple(
        (index, lines[index].strip())
        for index in range(first)
        if index not in used and lines[index].strip()
    )
    return Layout(
        separator, quoting, None if header is None else rows[header][0], first, names, skipped,
        evidence, reason_given, tuple(notes),
    )  # fmt: skip


def _counts_times(row: list[str], kinds: list[str]) -> bool:
    """Whether a row calls columns of numbers by years or dates: each row below is a series."""
    names = [cell for cell, kind in zip(row, kinds, strict=False) if kind in ("number", "missing")]
    times = [name for name in names if len(name) >= 4 and typed(name) in ("number", "time")]
    if len(times) < _YEARS or len(times) * 2 < len(names) or "word" not in kinds:
        return False
    return all("." not in name for name in times) and column_times(times) is not None


def _without_tail(rows: list[list[str]], width: int) -> int:
    """The width without columns at the end that hold nothing and have no name."""
    while width > 1 and not any(any(row[width - 1 :]) for row in rows):
        width -= 1
    return width


def _column_kinds(rows: list[list[str]], width: int) -> list[str]:
    """What most cells of each column are."""
    kinds = []
    for column in range(width):
        counts = Counter(typed(row[column]) for row in rows)
        counts.pop("missing", None)
        kinds.append(counts.most_common(1)[0][0] if counts else "missing")
    return kinds


def _fits(row: list[str], kinds: list[str], width: int) -> bool:
    """Whether a row looks like the rows of the body."""
    if len(row) < width or any(row[width:]):
        return False
    pairs = [(typed(cell), kind) for cell, kind in zip(row, kinds, strict=False) if kind != "word"]
    known = [(found, kind) for found, kind in pairs if found != "missing" and kind != "missing"]
    if not known:
        return not pairs  # nothing but words, or nothing at all
    same = sum(found == kind or {found, kind} == {"number", "time"} for found, kind in known)
    dated = any(found == kind == "time" for found, kind in known)
    return same * 2 > len(known) or same == len(known) or (dated and same * 2 == len(known))


def _block_above(rows: list[tuple[int, list[str]]], start: int, lines: list[str]) -> list[int]:
    """Places of the lines directly above the first row of data, without an empty line between."""
    block: list[int] = []
    below = rows[start][0]
    for place in range(start - 1, -1, -1):
        index = rows[place][0]
        if any(not lines[between].strip() for between in range(index + 1, below)):
            break
        block.insert(0, place)
        below = index
    if not block and start:  # an empty line under the names
        return [*_block_above(rows, start - 1, lines), start - 1] if start > 1 else [0]
    return block


def _header_of(block: list[int], rows: list[tuple[int, list[str]]], width: int) -> int | None:
    """The line that names the columns: as many names as columns, all different, none a unit."""
    best: tuple[float, int] | None = None
    unnamed = _names_rows([row[0] for _, row in rows[block[-1] + 1 :]]) if block else False
    for place in block:
        row = rows[place][1]
        if len(row) == width - 1 and not unnamed:
            continue
        if len(row) not in (width, width - 1) and not (len(row) > width and not any(row[width:])):
            continue
        named = [cell for cell in row[:width] if cell]
        if not named or all(typed(cell) in ("time",) for cell in named):
            continue
        units = sum(bool(_UNIT.fullmatch(cell)) for cell in named) / len(named)
        units = units if units == 1 or "date" not in row[0].lower() else 0  # a name, and a type
        figures = sum(typed(cell) != "word" for cell in named) / len(named)
        score = len(set(named)) / width - units * 0.7 - figures * 0.5
        score -= 0.3 if len(row) < width else 0
        if best is None or score > best[0] + 1e-9:
            best = (score, place)
    if best is not None:
        return best[1]
    # One name above rows of two cells: a comma inside numbers (see `_single`).
    single = [place for place in block if len(rows[place][1]) == 1]
    if single and width == 2 and single[-1] == block[-1]:
        return single[-1]
    return None


def _names_rows(cells: list[str]) -> bool:
    """Whether a first column without a name may be the names of the rows, as R writes them."""
    if len(set(cells)) < len(cells):
        return False
    if all(typed(cell) == "word" for cell in cells):
        return True
    return cells[:50] in (
        [str(k) for k in range(start, start + len(cells[:50]))] for start in (0, 1)
    )


def _check_above(label: str, rows: list[tuple[int, list[str]]], start: int, width: int) -> None:
    """Raises DataError where the line above the data has names, but fewer than cells follow."""
    index, row = rows[start - 1]
    if not 1 < len(row) < width or any(typed(cell) != "word" for cell in row):
        return
    first, cells = rows[start]
    raise DataError(
        f"{label}:{first + 1}: {len(cells)} cells where line {index + 1} names {len(row)} columns; "
        f"a comma inside a number needs quotes around it or another separator, and header=False, "
        f"skip={start} reads the rows without names"
    )


def _headless_start(
    label: str, rows: list[tuple[int, list[str]]], kinds: list[str], width: int, options: Options
) -> int:
    """The first row where the user says that no line has names."""
    first = rows[0][1]
    counted = len(rows) > 2 and first == [str(index) for index in range(width)]
    if counted and options.skip is None and all("." in row[0] for _, row in rows[1:50]):
        raise DataError(
            f"{label}:{rows[0][0] + 1}: '{','.join(first)}' counts the columns, as pandas does "
            f"where they have no names; skip=1 leaves the line out, skip=0 reads it as data"
        )
    return next(place for place, (_, row) in enumerate(rows) if len(row) >= width)


def _commented_names(
    lines: list[str], first: int, separator: str, width: int, comments: tuple[str, ...]
) -> list[str] | None:
    """Names in a comment directly above the data, as numpy.savetxt writes them."""
    above = lines[first - 1].strip() if first else ""
    if not above.startswith(comments):
        return None
    names = split(above.lstrip("#%/ "), separator)
    fits = len(names) == width > 1 and all(typed(name) == "word" for name in names)
    return names if fits and len(set(names)) == width else None


def _names_of(
    rows: list[tuple[int, list[str]]],
    header: int | None,
    commented: list[str] | None,
    width: int,
    start: int,
    kinds: list[str],
    options: Options,
) -> tuple[tuple[str, ...], str]:
    """The names of the columns and what they rest on."""
    if commented is not None:
        return tuple(commented), "the comment above the first row has a name for each column"
    if header is None:
        why = "given" if options.header is False else "no line above the data has a name for each"
        return tuple(f"column_{index + 1}" for index in range(width)), why
    row = rows[header][1]
    line = rows[header][0] + 1
    if len(row) == width - 1:
        return ("column_1", *row), f"line {line}; the first column has no name"
    named = [name or f"column_{index + 1}" for index, name in enumerate(row[:width])]
    return tuple(named), f"line {line} has a name for each column"


def _single(
    rows: list[tuple[int, list[str]]],
    header: int,
    quoting: bool,
    skip: int,
    lines: list[str],
    notes: list[str],
) -> Layout:
    """One name above rows of two cells: the comma is a mark inside the numbers."""
    name = rows[header][1][0] or "column_1"
    first = rows[header + 1][0]
    return Layout(
        "\x00", False, rows[header][0], first, (name,), (),
        "one name stands above the rows: the comma is a mark inside the numbers",
        f"line {rows[header][0] + 1} has one name", tuple(notes),
    )  # fmt: skip
