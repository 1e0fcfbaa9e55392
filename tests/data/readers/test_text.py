"""Reading text: code points as they are in the file, lines, folders, JSON lines."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.profiles import examples
from support.reading import message, words

from throughtime.data.readers.read import read
from throughtime.data.sequences import Sequences
from throughtime.errors import DataError, SettingError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in its own folder, so that messages name files as `a.txt`."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, data: bytes | str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(data.encode() if isinstance(data, str) else data)
    return name


def test_a_file_is_one_sequence_of_code_points() -> None:
    got = read(write("novel.txt", "Käse 🧀\r\n1\n"))
    assert got.values.dtype == torch.int32  # the cheese is beyond 16 bits
    assert got.sequence(0).dtype == torch.int64
    assert read(write("b.txt", "K\u2019s")).values.dtype == torch.int16
    assert read(write("c.txt", "Käse")).values.dtype == torch.uint8
    assert words(got) == ["Käse 🧀\r\n1\n"]
    assert got.names == ("novel",)
    assert (got.domain.kind, got.domain.step) == ("text", "character")
    assert got.times is None


def test_numbers_in_a_text_file_are_text_unless_asked() -> None:
    path = write("a.txt", "1\n2\n")
    assert words(read(path)) == ["1\n2\n"]
    assert read(path, kind="series", header=False).values.tolist() == [[1], [2]]


def test_byte_order_mark_gzip_encodings_and_bytes() -> None:
    assert words(read(write("a.txt", b"\xef\xbb\xbfab"))) == ["ab"]
    assert words(read(write("a.txt.gz", gzip.compress(b"ab")))) == ["ab"]
    assert words(read(write("a.txt", "ü".encode("latin-1")), encoding="latin-1")) == ["ü"]
    assert words(read(write("a.txt", "ü".encode("utf-16")), encoding="utf-16")) == ["ü"]
    got = read(write("a.txt", b"\xef\xbb\xbf\xff\n"), encoding="bytes")
    assert got.values.tolist() == [0xEF, 0xBB, 0xBF, 0xFF, 10]
    assert (got.domain.kind, got.domain.num_symbols, got.domain.step) == ("symbols", 256, "byte")


def test_lines_keep_their_ends_and_their_numbers() -> None:
    got = read(write("names.txt", "emma\nolivia\n\nava"), lines=True)
    assert words(got) == ["emma\n", "olivia\n", "\n", "ava"]
    assert got.names == ("names:1", "names:2", "names:3", "names:4")
    assert words(read(write("one.txt", "emma\n"), lines=True)) == ["emma\n"]
    assert words(read(write("one.txt", "emma"), lines=True)) == ["emma"]


@examples(60)
@given(text=st.text(st.sampled_from("a\nü\r\u2028"), min_size=1, max_size=20))
def test_lines_one_after_the_other_are_the_file(tmp_path_factory: Any, text: str) -> None:
    path = tmp_path_factory.mktemp("lines") / "a.txt"
    path.write_bytes(text.encode())
    got = read(path, lines=True)
    assert "".join(words(got)) == text
    assert len(got) == len(text.removesuffix("\n").split("\n"))


def test_a_folder_is_sorted_and_files_of_other_kinds_are_left_out() -> None:
    write("in/b.txt", "b")
    write("in/a/z.txt", "z\ny")
    write("in/readme.md", "no")
    write("in/.git/x.txt", "no")
    seen: list[tuple[int, int]] = []
    got = read("in", on_progress=lambda done, total: seen.append((done, total)))
    assert words(got) == ["z\ny", "b"]
    assert got.names == ("z", "b")
    assert seen == [(1, 2), (2, 2)]
    got = read("in", lines=True)
    assert words(got) == ["z\n", "y", "b"]
    assert got.names == ("z:1", "z:2", "b:1")


def test_json_lines() -> None:
    path = write("a.jsonl", '{"text": "one", "who": 7}\n\n{"text": "two\\n", "who": "x"}\n')
    got = read(path)
    assert words(got) == ["one", "two\n"]
    assert got.names == ("a:1", "a:3")
    assert read(path, id="who").names == ("7", "x")
    assert words(read(write("b.jsonl.gz", gzip.compress(b'{"t": "x"}')), text="t")) == ["x"]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"txet": "a"}', "no field 'text'; did you mean 'txet'? the fields are 'txet'"),
        ('{"text": ""}', "field 'text' is empty"),
        ('{"text": null}', "field 'text' holds null, not text"),
        ('{"text": [1]}', "field 'text' holds a list, not text; value='text' reads numbers"),
        ('["text"]', "holds a list; each line is one JSON object"),
        ('{"text": ', "not JSON, at character 10: Expecting value"),
        ("[" * 100_000, "JSON nested too deeply"),
    ],
)
def test_json_lines_that_cannot_be_read(line: str, problem: str) -> None:
    path = write("a.jsonl", '{"text": "fine"}\n' + line + "\n")
    assert message(path) == f"a.jsonl:2: {problem}"


def test_text_that_is_not_in_the_encoding() -> None:
    path = write("a.txt", b"fine\nna\xefve\n")
    assert message(path, encoding="utf-8") == (
        "a.txt:2: byte 7 (0xef) is not utf-8; encoding='cp1252' reads it"
    )
    assert message(path, SettingError, encoding="utf-9") == (
        "encoding='utf-9': no such encoding; the usual one is utf-8"
    )
    path = write("in/c.txt", b"\xff")
    assert message("in", encoding="utf-8").startswith("in/c.txt:1: byte 0 (0xff) is not utf-8")


def test_files_that_hold_nothing() -> None:
    assert message(write("a.txt", "")) == "a.txt: the file is empty"
    assert message(write("a.txt", b"\xef\xbb\xbf")) == "a.txt: the file is empty"
    assert message(write("a.jsonl", "\n\n")) == "a.jsonl: the file is empty"
    write("in/a.txt", "a")
    write("in/b.txt", "")
    assert message("in") == "in/b.txt: the file is empty"
    assert message(write("a.txt.gz", b"\x1f\x8b")) == (
        "a.txt.gz: the gzip file is damaged or cut short"
    )


def test_options_that_say_nothing_here() -> None:
    path = write("a.txt", "a")
    assert message(path, SettingError, time="date") == (
        "time= says nothing about this source; it is for series"
    )
    assert message(write("a.jsonl", '{"text": "a"}'), SettingError, lines=True) == (
        "lines= says nothing about this source; it is for text"
    )


@examples(100)
@given(data=st.binary(max_size=40), end=st.sampled_from([".txt", ".jsonl", ".txt.gz"]))
def test_no_bytes_whatever_end_in_a_traceback(tmp_path_factory: Any, data: bytes, end: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / f"x{end}"
    path.write_bytes(data)
    try:
        assert isinstance(read(path), Sequences)
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017 - most drawn files are errors, some are not


def test_demo_text_is_the_same_every_time() -> None:
    got = read("demo:text")
    assert len(got) == 1
    assert len(got.values) > 300_000
    assert got.fingerprint() == read("demo:text").fingerprint()
    assert got.notes[0].startswith("the help topics that come with Python 3.")


def test_public_text(shared_data: Path) -> None:
    got = read(shared_data / "text/tinyshakespeare.txt")
    assert len(got.values) == 1_115_394
    assert len(got.values.unique()) == 65
    names = read(shared_data / "text/names.txt", lines=True)
    assert len(names) == 32_033
    assert words(names[:2]) == ["emma\n", "olivia\n"]
