"""What a path becomes: by content where the name says nothing, and every file of a folder told."""

from __future__ import annotations

import gzip
import json
import pickle
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import soundfile
from support.reading import message, put, words

from throughtime.data.readers.dispatch import kind_by_name
from throughtime.data.readers.read import read
from throughtime.errors import SettingError

CSV = "date,y\n" + "".join(f"2001-01-{day:02d},{day * 1.5}\n" for day in range(1, 29))
TONE = 0.5 * np.sin(np.arange(800) * 0.3)


def tone(name: str, rate: int = 8000) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(name, TONE, rate)
    return name


# ------------------------------------------------------------------------------------ single files


@pytest.mark.parametrize("end", [".dat", ".data", ".out", ".asc", ""])
def test_a_name_that_says_nothing(end: str) -> None:
    got = read(put(f"a{end}", CSV))
    assert got.domain.step == "day"
    assert f"a{end} looks like a table and is read so; kind='text' reads it as text" in got.notes
    got = read(put(f"b{end}", "Once upon a time, there was a king,\nwho lived alone.\nThe end.\n"))
    assert got.domain.kind == "text"
    assert got.notes == (f"b{end} looks like text and is read so",)
    Path(tone("c.wav")).rename(f"c{end}")
    got = read(f"c{end}")
    assert got.domain.kind == "sound"
    assert got.notes[0] == f"c{end} is sound by its content and read so"
    got = read(put(f"d{end}", json.dumps([{"y": 1}, {"y": 2}, {"y": 4}])))
    assert got.values.flatten().tolist() == [1, 2, 4]


def test_kind_decides_over_content() -> None:
    put("a.dat", CSV)
    assert words(read("a.dat", kind="text")) == [CSV]
    assert words(read(put("b.csv", CSV), kind="text")) == [CSV]
    assert read("a.dat", kind="series").notes == read("b.csv").notes
    assert read(put("c.txt", CSV), kind="series").domain.step == "day"
    Path(tone("d.wav")).rename("d.dat")
    assert read("d.dat", kind="sound").notes == ()


def test_a_name_that_is_wrong() -> None:
    Path(tone("a.flac")).rename("a.csv")
    got = read("a.csv")
    assert got.domain.kind == "sound"
    assert got.notes == ("a.csv is sound by its content and read so",)


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        (CSV.replace(",", ";"), 2),
        ("\n".join(" ".join(f"{x:.18e}" for x in row) for row in np.eye(9, 3)) + "\n", 3),
        ("".join(f"{k * 0.5}\n" for k in range(40)), 1),
        ("# by a logger\n" + CSV, 2),
    ],
)
def test_text_that_is_a_table_says_so(text: str, columns: int) -> None:
    got = read(put("a.txt", text))
    assert words(got) == [text]
    shape = f"of {columns} columns" if columns > 1 else "of one column"
    (note,) = got.notes
    assert note == (
        f"a.txt looks like a table {shape} and is read letter by letter; kind='series' reads the "
        f"table"
    )
    assert read("a.txt", kind="series", value="*").domain.kind == "real"


def test_prose_is_no_table() -> None:
    prose = "It was the best of times, it was the worst of times,\nit was 1789, and so on.\n" * 20
    assert read(put("a.txt", prose)).notes == ()
    assert read(put("b.txt", "".join(f"name{k}\n" for k in range(50)))).notes == ()


def test_what_is_refused_and_the_way_that_works() -> None:
    base = sqlite3.connect("a.db")
    base.execute("create table t (date text, y real)")
    base.executemany("insert into t values (?, ?)", [(f"2001-01-{d:02d}", d) for d in range(1, 9)])
    base.commit()
    text = message("a.db")
    assert text.startswith("a.db: an SQLite data base; give a frame, pandas.read_sql(")
    pandas = pytest.importorskip("pandas")
    assert len(read(pandas.read_sql("select * from t", base)).values) == 8
    base.close()
    put("b.bin", pickle.dumps([1, 2, 3]))
    assert message("b.bin").startswith("b.bin: a pickle, which can run any program")
    assert message(put("c.dat", b"%PDF-1.7 ...")).startswith("c.dat: a PDF document")
    assert message(put("d.dat", b"\x89PNG\r\n\x1a\n....")).startswith("d.dat: a picture")
    assert message(put("e.7z", b"7z\xbc\xaf\x27\x1c....")).startswith("e.7z: a 7z archive; unpack")


def test_parts_are_of_files_that_have_some() -> None:
    for name in (put("a.txt", "words"), tone("a.wav")):
        assert message(name, SettingError, part="x").startswith("part= says nothing about this")


def test_kinds_by_name() -> None:
    names = {"a.csv.gz": "series", "a.TXT": "text", "a.m4a": "sound", "a.json": None, "a": None}
    assert {name: kind_by_name(Path(name)) for name in names} == names


# ----------------------------------------------------------------------------------------- folders


def test_every_file_of_a_folder_is_read_or_named() -> None:
    for name in "abcdefg":
        put(f"in/{name}.csv", CSV)
        put(f"in/{name}.png", b"\x89PNG")
    put("in/README.md", "about")
    put("in/meta.json", "{}")
    got = read("in")
    assert len(got) == 7
    assert got.notes[-1] == (
        "in: left out are 7 .png files, 1 .json file, 1 .md file: 'README.md', 'a.png', 'b.png', "
        "'c.png', 'd.png' and 4 more"
    )


def test_md_is_text_in_a_folder_too() -> None:
    for name in "ab":
        put(f"blog/{name}.md", f"# {name}\n")
    put("blog/README.md", "about this blog\n")
    got = read("blog")
    assert words(got) == ["# a\n", "# b\n"]
    assert got.notes == ("blog: left out are 1 .md file: 'README.md'",)
    put("docs/README.md", "all there is\n")
    assert words(read("docs")) == ["all there is\n"]


def test_kind_text_reads_whatever_text_there_is() -> None:
    put("src/a.py", "import os\n")
    put("src/b.rs", "fn main() {}\n")
    put("src/c.bin", bytes(range(256)))
    put("src/d.csv", CSV)
    got = read("src", kind="text")
    assert words(got) == ["import os\n", "fn main() {}\n"]
    assert got.notes == ("src: left out are 1 .bin file, 1 .csv file: 'c.bin', 'd.csv'",)


def test_a_folder_of_names_that_say_nothing() -> None:
    for name in "ab":
        put(f"in/{name}.dat", CSV)
    got = read("in")
    assert len(got) == 2
    assert "in: what the files hold is told by their content, not by their names" in got.notes


@pytest.mark.parametrize("kind", ["series", "text", "sound"])
def test_one_file_that_cannot_be_read_is_left_out_and_named(kind: str) -> None:
    for name in "abcd":
        if kind == "sound":
            tone(f"in/{name}.wav")
        else:
            put(f"in/{name}.{'csv' if kind == 'series' else 'txt'}", CSV)
    bad = put({"series": "in/e.csv", "text": "in/e.txt", "sound": "in/e.wav"}[kind], b"")
    seen: list[tuple[int, int]] = []
    got = read("in", on_progress=lambda done, total: seen.append((done, total)))
    assert got.names == ("a", "b", "c", "d")
    assert seen[-1] == (5, 5)
    assert f"1 of 5 files cannot be read and are left out: {bad}: the file is empty" in got.notes


def test_a_folder_that_cannot_be_read_says_how_many() -> None:
    for name in "abc":
        put(f"in/{name}.csv", "name\nx\n")
    assert message("in").startswith("3 of 3 files cannot be read, the first: in/a.csv: no column")


def test_files_of_different_formats_are_one_set() -> None:
    import polars as pl

    put("in/a.csv.gz", gzip.compress(CSV.encode()))
    table = pl.read_csv(CSV.encode(), try_parse_dates=True)
    table.write_parquet("in/b.parquet")
    table.write_ipc("in/c.feather")
    got = read("in")
    assert got.names == ("a", "b", "c")
    assert got.sequence(0).tolist() == got.sequence(1).tolist() == got.sequence(2).tolist()
    assert got.domain.step == "day"


def test_files_of_one_name_keep_different_names() -> None:
    for name in ("a/x.txt", "b/x.txt"):
        put(f"in/{name}", f"{name}\n")
    assert read("in").names == ("a/x", "b/x")
    put("in/a/x.text", "more\n")
    assert read("in").names == ("a/x.text", "a/x.txt", "b/x.txt")


def test_arrays_of_a_folder() -> None:
    Path("in").mkdir()
    np.save("in/a.npy", np.arange(5.0))
    np.save("in/b.npy", np.arange(3.0))
    got = read("in")
    assert got.names == ("a", "b")
    assert got.lengths.tolist() == [5, 3]
    np.save("in/c.npy", np.ones((3, 2)))
    assert message("in").startswith("in: 'c' holds real data ('value0', 'value1'), 'a' real data")


def test_json_lines_of_a_folder() -> None:
    for name in "ab":
        put(f"in/{name}.jsonl", '{"text": "one"}\n{"text": "two"}\n')
    got = read("in")
    assert words(got) == ["one", "two"] * 2
    assert len(set(got.names)) == 4
    for name in "ab":
        put(f"rows/{name}.jsonl", "".join(f'{{"t": {k}, "y": {k}.5}}\n' for k in range(9)))
    got = read("rows")
    assert got.domain.kind == "real"
    assert got.names == ("a", "b")
