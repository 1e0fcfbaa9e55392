"""JSON: records, columns, numbers and texts, as one value or one to a line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from throughtime.data.readers.arrays import read_arrays
from throughtime.data.readers.calendar import Series, dated_series
from throughtime.data.readers.encodings import decoded, mended
from throughtime.data.readers.files import Finding, gathered, quoted, read_bytes, read_head, stem
from throughtime.data.readers.options import Options, as_names
from throughtime.data.readers.table import Table
from throughtime.data.readers.text import code_points, text_sequences
from throughtime.data.sequences import Sequences
from throughtime.errors import DataError, SettingError, nearest

TARGETS = ("target", "values", "y")  # fields that hold a series, most usual first
NAMES = ("item_id", "unique_id", "id", "name", "series_id")
MOST_BAD = 10  # one line in so many may be left out

Record = dict[str, Any]
HALVES = "halves of surrogate pairs are read as U+FFFD"
Where = Sequence[str]  # the place of each record in a message


def read_jsonl(path: Path, options: Options) -> Table | Sequences:
    """One JSON object a line: texts, series, or the rows of a table.

    A line that cannot be used is left out with a note while nine in ten can.
    Raises: DataError naming the line.
    """
    text, findings = decoded(read_bytes(path), path, options.encoding)
    records: list[Record] = []
    where: list[str] = []
    failures: list[DataError] = []
    bare = ""  # what each line is, where the first is no object
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}:{number}"
        try:
            bare = bare if records else _bare(line)
            record, halves = _object(line if not bare else f'{{"{bare}": {line}}}', place)
        except DataError as error:
            failures.append(error)
            continue
        records.append(record)
        where.append(place)
        findings += (Finding(HALVES, place),) if halves else ()
    if not records and not failures:
        raise DataError(f"{path}: the file is empty")
    result = _records(records, where, failures, path, options)
    return _noted(result, gathered(findings))


def read_json(path: Path, options: Options) -> Table | Sequences:
    """An array of records, numbers, series or texts, or an object of columns."""
    text, findings = decoded(read_bytes(path), path, options.encoding)
    first, _, rest = text.lstrip().partition("\n")
    value, halves = _parsed(text, path)
    if value is _SEVERAL:
        if first.strip() and rest.strip():
            return read_jsonl(path, options)
        _object(text, str(path))
    findings += (Finding(HALVES, str(path)),) if halves else ()
    return _noted(_value(value, path, options), gathered(findings))


def kind_of_lines(path: Path, options: Options) -> str:
    """Whether JSON lines hold "text" or "series", by the first of them."""
    head = read_head(path, 1 << 20)
    line = next((line for line in head.split(b"\n") if line.strip()), b"")
    try:
        first = json.loads(line)
    except (ValueError, RecursionError):
        return "text"  # reading it says what is wrong
    texts = isinstance(first, dict) and _is_text(first, options) and not options.value
    return "text" if texts or not isinstance(first, dict) else "series"


_SEVERAL = object()


def _loaded(text: str) -> tuple[Any, bool]:
    """A JSON value, and whether it had halves of surrogate pairs, which become U+FFFD."""
    value = json.loads(text)
    if "\\u" not in text:
        return value, False
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return _whole(value), True
    return value, False


def _whole(value: Any) -> Any:
    if isinstance(value, str):
        return mended(value)[0]
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {mended(name)[0]: _whole(item) for name, item in value.items()}
    return value


def _parsed(text: str, path: Path) -> tuple[Any, bool]:
    """`_loaded`, or `_SEVERAL` for several values one after the other."""
    try:
        return _loaded(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":
            return _SEVERAL, False
        raise DataError(
            f"{path}:{error.lineno}: not JSON, at character {error.colno}: {error.msg}"
        ) from error
    except RecursionError as error:
        raise DataError(f"{path}: JSON nested too deeply") from error
    except ValueError as error:  # an integer of thousands of digits
        raise DataError(f"{path}: not JSON that can be read: a number is too long") from error


def _value(value: Any, path: Path, options: Options) -> Table | Sequences:
    if isinstance(value, dict):
        return _from_object(value, path, options)
    if not isinstance(value, list) or not value:
        raise DataError(f"{path}: holds {_type(value)}, no records and no list of numbers")
    if all(isinstance(item, dict) for item in value):
        where = [f"{path}: record {index} (counted from 0)" for index in range(len(value))]
        return _records(value, where, [], path, options)
    if all(isinstance(item, str) for item in value):
        pairs = [(item, f"{stem(path)}:{i}") for i, item in enumerate(value) if item]
        return _texts([text for text, _ in pairs], [name for _, name in pairs], path)
    if all(isinstance(item, list) for item in value):
        return _lists(value, path)
    return read_arrays([numbers(value, "array", str(path))], [stem(path)], str(path))


def _lists(value: list[list[Any]], path: Path) -> Sequences:
    """Lists inside a list: a sequence each where their lengths differ, else rows of columns."""
    deep = any(isinstance(cell, list) for item in value for cell in item[:1])
    if deep or len({len(item) for item in value}) > 1:
        arrays = [numbers(item, "array", f"{path}: {i}") for i, item in enumerate(value)]
        return read_arrays(arrays, [f"{stem(path)}:{i}" for i in range(len(arrays))], str(path))
    array = numbers(value, "array", str(path))
    if len(array) < array.shape[1]:
        raise DataError(
            f"{path}: {len(array):,} lists of {array.shape[1]:,} numbers: more columns than steps; "
            f'write series that lie in rows as {{"name": [numbers], …}}'
        )
    note = f"{path}: each of {len(array):,} lists is one step of {array.shape[1]} columns"
    return read_arrays([array], [stem(path)], str(path), notes=[note])


def _from_object(value: Record, path: Path, options: Options) -> Table | Sequences:
    """An object: of columns (also as pandas writes them), or with one field that holds data."""
    if options.part is not None:
        if options.part not in value:
            near = nearest(options.part, value) or ";"
            raise DataError(f"{path}: no part '{options.part}'{near} there are {quoted(value)}")
        return _value(value[options.part], path, options)
    if {"columns", "data"} <= set(value) and isinstance(value["columns"], list):
        names, rows = [str(name) for name in value["columns"]], value["data"]
        if isinstance(rows, list) and all(
            isinstance(row, list) and len(row) == len(names) for row in rows
        ):
            return _table({name: [row[i] for row in rows] for i, name in enumerate(names)}, path)
    inner = list(value.values())
    if inner and all(isinstance(cells, dict) and cells for cells in inner):
        return _keyed(value, path)
    if inner and all(isinstance(cells, list) and cells for cells in inner):
        scalars = all(not isinstance(c, (list, dict)) for cells in inner for c in cells)
        if scalars and len({len(cells) for cells in inner}) == 1:
            return _table(value, path)
        if scalars:
            arrays = [numbers(cells, name, str(path)) for name, cells in value.items()]
            return read_arrays(arrays, list(value), str(path))
    held = [name for name, cells in value.items() if isinstance(cells, list) and len(cells) > 1]
    if len(held) == 1:
        left = [name for name in value if name != held[0]]
        note = f"{path}: the data are the field '{held[0]}'; left out: {quoted(left)}"
        return _noted(_value(value[held[0]], path, options), (note,))
    raise DataError(
        f"{path}: an object with the fields {quoted(value)}; choose with part= the one that holds "
        f"records or numbers"
        if held
        else f"{path}: an object with the fields {quoted(value)}, none of them a list"
    )


def _keyed(value: dict[str, Record], path: Path) -> Table:
    """Objects by name: columns of cells by row, or rows of cells by column."""
    keys = list(next(iter(value.values())))
    if any(list(cells) != keys for cells in value.values()):
        raise DataError(f"{path}: objects of different fields by name; write an array of records")
    outer_counts = [str(i) for i in range(len(value))] == list(value)
    if outer_counts and [str(i) for i in range(len(keys))] != keys:
        return _table({key: [cells[key] for cells in value.values()] for key in keys}, path)
    columns = {name: [cells[key] for key in keys] for name, cells in value.items()}
    if keys != [str(i) for i in range(len(keys))]:
        columns = {"index": list(keys), **columns}
    return _table(columns, path)


def _noted(result: Table | Sequences, notes: Sequence[str]) -> Table | Sequences:
    if isinstance(result, Table):
        result.notes = (*result.notes, *notes)
        return result
    return result.with_notes(*notes)


# ------------------------------------------------------------------------------------------ records


def _records(
    records: list[Record],
    where: Where,
    failures: list[DataError],
    path: Path,
    options: Options,
) -> Table | Sequences:
    """Texts, series or a table, as the first record has them and the options say."""
    if not records:
        raise failures[0]
    first, value = records[0], options.value[0] if options.value else None
    if value is None and _is_text(first, options):
        options.check("jsonl")
        return _text_records(records, where, failures, path, options)
    if value is None:
        held = [name for name, cell in first.items() if _is_numbers(cell)]
        usual = [name for name in TARGETS if name in held]
        value = usual[0] if usual else held[0] if len(held) == 1 else None
        if value is None and held:
            raise DataError(
                f"{path}: {len(held)} fields hold lists of numbers: {quoted(held)}; choose one "
                f"with value="
            )
    if value is not None and isinstance(first.get(value), list):
        if len(options.value) > 1:
            raise SettingError("value= is one field where fields hold lists of numbers")
        options.check("jsonl")
        return _series_records(records, where, failures, path, options, value)
    if value is None and not _has_number(records[:100]):
        held = [name for name, cell in first.items() if isinstance(cell, str)]
        if not held:
            raise DataError(f"{where[0]}: no field holds text or numbers among {quoted(first)}")
        near = nearest(options.text, held) or ";"
        raise DataError(
            f"{where[0]}: no field '{options.text}'{near} choose the text with text=, "
            f"{quoted(held)}"
        )
    _check_failures(failures, len(records), path)
    options.check("series", "jsonl")
    table = _record_table(records, where, path)
    table.notes = _left_out(failures)
    return table


def _has_number(records: Sequence[Record]) -> bool:
    """Whether any field holds a number, or a text that is one."""
    for record in records:
        for cell in flat(record).values():
            if isinstance(cell, (int, float)):
                return True
            if isinstance(cell, str) and cell.strip().lstrip("+-").replace(".", "", 1).isdigit():
                return True
    return False


def _bare(line: str) -> str:
    """The field that stands for a line that is a list or a text by itself; "" for an object."""
    return {"[": "values", '"': "text"}.get(line.lstrip()[:1], "")


def _is_text(first: Record, options: Options) -> bool:
    return options.text != "text" or isinstance(first.get("text"), str)


def _is_numbers(cell: Any) -> bool:
    if not isinstance(cell, list) or not cell:
        return False
    step = cell[0][:1] if isinstance(cell[0], list) else cell[:3]
    return all(n is None or (isinstance(n, (int, float)) and not isinstance(n, bool)) for n in step)


def _check_failures(failures: list[DataError], good: int, path: Path) -> None:
    """Raises the first failure where more than one in ten is one."""
    if len(failures) * MOST_BAD > good + len(failures):
        raise failures[0]


def _left_out(failures: list[DataError]) -> tuple[str, ...]:
    findings_of_failures = [
        Finding("records left out, which cannot be read", str(error)) for error in failures
    ]
    return gathered(findings_of_failures)


def _text_records(
    records: list[Record],
    where: Where,
    failures: list[DataError],
    path: Path,
    options: Options,
) -> Sequences:
    texts, names = [], []
    failures = list(failures)
    for item, place in zip(records, where, strict=True):
        try:
            content = _field(item, options.text, place)
            if not isinstance(content, str) or not content:
                problem = "is empty" if content == "" else f"holds {_type(content)}, not text"
                listed = isinstance(content, list)
                hint = f"; value='{options.text}' reads numbers" if listed else ""
                raise DataError(f"{place}: field '{options.text}' {problem}{hint}")
            name = _name(item, options, place) or f"{stem(path)}:{place.rpartition(':')[2]}"
        except DataError as error:
            failures.append(error)
            continue
        texts.append(content)
        names.append(name)
    _check_failures(failures, len(texts), path)
    return _texts(texts, names, path).with_notes(*_left_out(failures))


def _texts(texts: list[str], names: list[str], path: Path) -> Sequences:
    if not texts:
        raise DataError(f"{path}: holds no text")
    return text_sequences([code_points(text) for text in texts], names, "character")


def _series_records(
    records: list[Record],
    where: Where,
    failures: list[DataError],
    path: Path,
    options: Options,
    value: str,
) -> Sequences:
    """A series from each record, with times where it says when it begins and how it goes on."""
    series, failures = [], list(failures)
    for item, place in zip(records, where, strict=True):
        try:
            array = numbers(_field(item, value, place), f"field '{value}'", place)
            name = _name(item, options, place)
        except DataError as error:
            failures.append(error)
            continue
        start = item.get("start")
        freq = item.get("freq")
        series.append(
            Series(
                name or f"{stem(path)}:{place.rpartition(':')[2].split()[-1]}", array,
                str(start) if start is not None else None, str(freq) if freq is not None else None,
            )
        )  # fmt: skip
    _check_failures(failures, len(series), path)
    used = {value, "start", "freq", *NAMES, *as_names(options.id)}
    left = [name for name in records[0] if name not in used]
    notes = [f"fields left out: {quoted(left)}"] if left else []
    result = dated_series(series, str(path), value, notes)
    return result.with_notes(*_left_out(failures))


def _name(item: Record, options: Options, place: str) -> str | None:
    """What a record is called: by the `id` that was asked for, or by a usual field."""
    asked = as_names(options.id)
    if asked:
        return "/".join(str(_field(item, name, place)) for name in asked)
    usual = next((name for name in NAMES if isinstance(item.get(name), (str, int))), None)
    return str(item[usual]) if usual is not None and usual != options.text else None


def _record_table(records: list[Record], where: Where, path: Path) -> Table:
    rows = [flat(record) for record in records]
    names = list(dict.fromkeys(name for row in rows for name in row))
    places = [place.removeprefix(f"{path}:") for place in where]
    line = (lambda row: int(places[row])) if places[0].isdigit() else None
    return _table({name: [row.get(name) for row in rows] for name in names}, path, line)


def flat(record: Record, prefix: str = "") -> Record:
    """Fields of inner objects by names such as `outer.inner`."""
    result: Record = {}
    for name, cell in record.items():
        if isinstance(cell, dict) and prefix.count(".") < 4:
            result.update(flat(cell, f"{prefix}{name}."))
        else:
            result[f"{prefix}{name}"] = cell
    return result


def _table(
    columns: dict[str, list[Any]], path: Path, line: Callable[[int], int] | None = None
) -> Table:
    import polars as pl

    cells = {str(name): _column(column) for name, column in columns.items()}
    frame = pl.DataFrame([pl.Series(name, column) for name, column in cells.items()])
    return Table(str(path), list(frame.columns), frame.height, frame.select, line)


def _column(cells: list[Any]) -> list[Any]:
    """Numbers as floats, or everything as text; None where there is nothing."""
    if all(cell is None or isinstance(cell, (int, float)) for cell in cells):
        if all(cell is None or (isinstance(cell, int) and abs(cell) < 1 << 53) for cell in cells):
            return cells
        return [None if cell is None else _float(cell) for cell in cells]
    return [
        cell if cell is None or isinstance(cell, str) else json.dumps(cell, ensure_ascii=False)
        for cell in cells
    ]


def _object(line: str, where: str) -> tuple[Record, bool]:
    """The JSON object of a line, and whether it had halves of surrogate pairs."""
    try:
        item, halves = _loaded(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON, at character {error.colno}: {error.msg}") from error
    except RecursionError as error:
        raise DataError(f"{where}: JSON nested too deeply") from error
    except ValueError as error:  # an integer of thousands of digits
        raise DataError(f"{where}: not JSON that can be read: a number is too long") from error
    if not isinstance(item, dict):
        raise DataError(f"{where}: holds {_type(item)}; each line is one JSON object")
    return item, halves


def _field(item: Record, name: str, where: str) -> Any:
    if name not in item:
        near = nearest(name, item) or ";"
        raise DataError(f"{where}: no field '{name}'{near} the fields are {quoted(item)}")
    return item[name]


def numbers(content: Any, what: str, where: str) -> np.ndarray:
    """A list of numbers or of lists of numbers as float64 [T, D]; null is missing."""
    if not isinstance(content, list) or not content:
        raise DataError(f"{where}: {what} holds {_type(content)}, not a list of numbers")
    rows = [step if isinstance(step, list) else [step] for step in content]
    for index, row in enumerate(rows):
        if len(row) != len(rows[0]) or not row:
            raise DataError(
                f"{where}: {what}, step {index} (counted from 0): {len(row)} numbers "
                f"where the first step has {len(rows[0])}"
            )
        for cell in row:
            number = isinstance(cell, (int, float)) and not isinstance(cell, bool)
            if cell is not None and not number:
                raise DataError(
                    f"{where}: {what}, step {index} (counted from 0): "
                    f"{json.dumps(cell)[:60]} is not a number"
                )
    array = np.array([[_float(cell) for cell in row] for row in rows])
    if np.isinf(array).any():
        step = int(np.argwhere(np.isinf(array))[0][0])
        raise DataError(f"{where}: {what}, step {step} (counted from 0): not finite")
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
