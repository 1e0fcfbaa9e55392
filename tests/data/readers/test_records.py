"""JSON: records, columns, numbers and texts, whole or line by line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.reading import message, put, words

from throughtime.data.readers.read import read
from throughtime.errors import SettingError

DAYS = [f"2001-01-{day:02d}" for day in range(1, 21)]
RECORDS = [{"date": day, "y": k * 1.5} for k, day in enumerate(DAYS)]
ROWS = [[*record.values()] for record in RECORDS]
VALUES = [[k * 1.5] for k in range(20)]


def lines(name: str, *items: Any) -> str:
    return put(name, "\n".join(map(json.dumps, items)) + "\n")


def dump(name: str, value: Any) -> str:
    return put(name, json.dumps(value))


@pytest.mark.parametrize(
    "value",
    [
        RECORDS,
        {"date": DAYS, "y": [k * 1.5 for k in range(20)]},
        {"columns": ["date", "y"], "index": list(range(20)), "data": ROWS},
        {"date": dict(zip(map(str, range(20)), DAYS, strict=True)),
         "y": {str(k): k * 1.5 for k in range(20)}},
        {str(k): record for k, record in enumerate(RECORDS)},
        {"schema": "any", "data": RECORDS},
    ],
    ids=["records", "columns", "split", "by column", "by row", "one field"],
)  # fmt: skip
def test_a_table_however_it_is_written(value: Any) -> None:
    got = read(dump("a.json", value))
    assert got.values.tolist() == VALUES
    assert got.domain.step == "day"
    assert got.names == ("a",)


@pytest.mark.parametrize("orient", ["records", "columns", "split", "index", "table"])
def test_as_pandas_writes_it(orient: str) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"date": DAYS, "y": [k * 1.5 for k in range(20)]})
    frame.to_json("a.json", orient=orient)
    got = read("a.json", value="y", time="date")
    assert got.values.tolist() == VALUES


@pytest.mark.parametrize("name", ["a.ndjson", "a.jsonl", "a.json"])
def test_one_record_a_line(name: str) -> None:
    got = read(lines(name, *RECORDS))
    assert got.values.tolist() == VALUES
    assert got.domain.step == "day"


def test_records_of_several_fields_ask_as_a_table_does() -> None:
    path = lines("a.jsonl", *[{**record, "z": 1.0 * k} for k, record in enumerate(RECORDS)])
    assert "choose one or several with value=" in message(path)
    assert read(path, value="z").values[3].item() == 3
    nested = [{"t": k, "in": {"low": k, "high": 2 * k}} for k in range(9)]
    assert read(lines("b.jsonl", *nested), time="t", value="in.high").values[2].item() == 4


def test_numbers() -> None:
    assert read(dump("a.json", [1, 2.5, None, 4])).missing.tolist() == [False, False, True, False]
    got = read(dump("b.json", [[1, 2], [3, 4], [5, 6]]))
    assert got.values.tolist() == [[1, 2], [3, 4], [5, 6]]
    assert got.notes[0] == "b.json: each of 3 lists is one step of 2 columns"
    got = read(dump("c.json", [[1, 2, 3], [4, 5]]))
    assert got.lengths.tolist() == [3, 2]
    got = read(dump("d.json", {"north": [1, 2, 3], "south": [4, 5]}))
    assert got.names == ("north", "south")
    assert "more columns than steps" in message(dump("e.json", [list(range(9)), list(range(9))]))


def test_texts() -> None:
    assert words(read(dump("a.json", ["one", "two"]))) == ["one", "two"]
    assert words(read(dump("b.json", [{"text": "one"}, {"text": "two"}]))) == ["one", "two"]
    assert words(read(dump("c.json", [{"body": "one"}]), text="body")) == ["one"]


def test_records_without_the_usual_field_ask() -> None:
    path = lines("a.jsonl", *[{"prompt": "a", "answer": "b"}] * 9)
    assert message(path) == (
        "a.jsonl:1: no field 'text'; choose the text with text=, 'prompt', 'answer'"
    )
    assert words(read(path, text="answer")) == ["b"] * 9
    assert message(dump("b.json", [{"body": "a"}] * 3)).endswith(
        "choose the text with text=, 'body'"
    )
    assert (
        message(lines("c.jsonl", {"x": None}))
        == "c.jsonl:1: no field holds text or numbers among 'x'"
    )
    texts = [{"t": day, "v": str(k * 1.5)} for k, day in enumerate(DAYS)]
    assert read(dump("d.json", texts)).values.tolist() == VALUES


def test_an_object_of_several_parts_asks() -> None:
    path = dump("a.json", {"train": [1, 2, 3], "note": "x", "test": [{"y": 1}, {"y": 2}]})
    assert message(path) == (
        "a.json: an object with the fields 'train', 'note', 'test'; choose with part= the one that "
        "holds records or numbers"
    )
    assert read(path, part="train").values.flatten().tolist() == [1, 2, 3]
    assert read(path, part="test").values.flatten().tolist() == [1, 2]
    assert message(path, part="tset").startswith("a.json: no part 'tset'; did you mean 'test'?")
    assert "none of them a list" in message(dump("b.json", {"a": 1}))


def test_series_line_by_line_with_their_times() -> None:
    rows = [
        {"start": "2020-01-31", "freq": "M", "target": [1, 2, 3], "item_id": "a", "cat": [0]},
        {"start": "2020-02-01 06:00:00", "freq": "M", "target": [4, 5], "item_id": "b"},
    ]
    got = read(lines("a.jsonl", *rows))
    assert got.names == ("a", "b")
    assert got.domain.columns == ("target",)
    assert got.times is not None
    assert [str(time)[:16] for time in got.times] == [
        "2020-01-31T00:00", "2020-02-29T00:00", "2020-03-31T00:00",
        "2020-02-01T06:00", "2020-03-01T06:00",
    ]  # fmt: skip
    assert "fields left out: 'cat'" in got.notes


def test_times_that_cannot_be_known_are_left_out_with_a_note() -> None:
    rows = [{"start": "2020-01-01", "target": [1, 2]}, {"target": [3, 4]}]
    got = read(lines("a.jsonl", rows[0]))
    assert got.times is None
    assert got.notes == (
        "times are left out: 'a:1' begins at '2020-01-01' but has no frequency that is known (none "
        "is given)",
    )
    assert "'a:2' does not say when it begins" in read(
        lines("a.jsonl", {**rows[0], "freq": "D"}, rows[1])
    ).notes[0]  # fmt: skip


def test_bare_lists_and_texts_line_by_line() -> None:
    assert read(lines("a.jsonl", [1, 2, 3], [4, None])).lengths.tolist() == [3, 2]
    assert words(read(lines("b.jsonl", "one", "two"))) == ["one", "two"]
    assert message(lines("c.jsonl", 1, 2)) == (
        "c.jsonl:1: holds a number; each line is one JSON object"
    )


def test_several_fields_of_numbers_ask() -> None:
    path = lines("a.jsonl", {"low": [1, 2], "high": [3, 4]})
    assert message(path) == (
        "a.jsonl: 2 fields hold lists of numbers: 'low', 'high'; choose one with value="
    )
    assert read(path, value="high").values.flatten().tolist() == [3, 4]
    assert message(path, SettingError, value=["low", "high"]) == (
        "value= is one field where fields hold lists of numbers"
    )


def test_a_bad_line_among_many_is_left_out_and_named() -> None:
    items = [{"text": f"line {k}"} for k in range(40)]
    path = Path(lines("a.jsonl", *items))
    good = put("b.jsonl", path.read_text() + '{"text": \n{"text": ""}\n')
    got = read(good)
    assert len(got) == 40
    assert got.notes == (
        "records left out, which cannot be read: b.jsonl:41: not JSON, at character 10: Expecting "
        "value, b.jsonl:42: field 'text' is empty",
    )
    assert message(put("c.jsonl", '{"text": "a"}\n{"text": \n')).startswith("c.jsonl:2: not JSON")


def test_halves_of_surrogate_pairs_anywhere() -> None:
    got = read(put("a.jsonl", '{"text": "cut \\ud83d"}\n{"text": "whole \\ud83d\\ude00"}\n'))
    assert words(got) == ["cut \ufffd", "whole \U0001f600"]
    assert got.notes == ("halves of surrogate pairs are read as U+FFFD: a.jsonl:1",)
    rows = ", ".join(f'{{"na\\ude00me": {k}}}' for k in range(5))
    assert read(put("b.json", f"[{rows}]")).domain.columns == ("na\ufffdme",)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", "a.json:1: not JSON, at character 2: "),
        ("[1, 2,\n nope]", "a.json:2: not JSON, at character 2: "),
        ("[" * 100_000, "a.json: JSON nested too deeply"),
        ("[" + "9" * 10_000 + "]", "a.json: not JSON that can be read: a number is too long"),
        ("[1, 1e999]", "a.json: array, step 1 (counted from 0): not finite"),
        ('[1, "x"]', 'a.json: array, step 1 (counted from 0): "x" is not a number'),
        ("[[1, 2], [3], 4]", "a.json: array, step 1 (counted from 0): 1 numbers where"),
        ("17", "a.json: holds a number, no records"),
        ("[]", "a.json: holds a list, no records"),
        ("null", "a.json: holds null, no records"),
    ],
)
def test_json_that_cannot_be_read(text: str, problem: str) -> None:
    assert message(put("a.json", text)).startswith(problem)


def test_a_table_of_json_names_its_line() -> None:
    items = [{"t": k, "y": k} for k in range(30)]
    items[7]["y"] = "broken"  # type: ignore[assignment]
    got = read(lines("a.jsonl", *items), value="y", time="t")
    assert np.isnan(got.values[7].item())
    assert any("a.jsonl:8" in note or "line 8" in note for note in got.notes)
