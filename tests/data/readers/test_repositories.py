"""The text formats of repositories of series."""

from __future__ import annotations

import pytest
from support.reading import message, put

from throughtime.data.readers.read import read


def test_tsf() -> None:
    text = (
        "# about\n@relation x\n@attribute series_name string\n@attribute state string\n"
        "@attribute start_timestamp date\n@frequency half_hourly\n@missing true\n@data\n"
        "T1:NSW:2002-01-01 23-30-00:1,2.5,?\nT2:VIC:2002-01-02 00-00-00:4,5\n"
    )
    got = read(put("a.tsf", text))
    assert got.names == ("T1/NSW", "T2/VIC")
    assert got.missing.tolist() == [False, False, True, False, False]
    assert got.times is not None
    assert [str(time)[:16] for time in got.times] == [
        "2002-01-01T23:30", "2002-01-02T00:00", "2002-01-02T00:30",
        "2002-01-02T00:00", "2002-01-02T00:30",
    ]  # fmt: skip


def test_tsf_without_beginnings() -> None:
    got = read(put("a.tsf", "@attribute series_name string\n@frequency yearly\n@data\nT1:1,2\n"))
    assert got.times is None
    assert got.values.flatten().tolist() == [1, 2]


def test_ts() -> None:
    text = (
        "@problemName X\n@timeStamps false\n@univariate false\n@classLabel true up down\n@data\n"
        "1,2,3:4,5,6:up\n7,8:9,?:down\n"
    )
    got = read(put("a.ts", text))
    assert got.lengths.tolist() == [3, 2]
    assert got.sequence(0).tolist() == [[1, 4], [2, 5], [3, 6]]
    assert got.missing.tolist() == [False] * 4 + [True]
    assert "the class labels 'down', 'up' are left out" in got.notes


def test_ts_with_stamps() -> None:
    text = "@problemName X\n@timeStamps true\n@classLabel false\n@data\n(0,1.5),(1,2):(0,3),(1,4)\n"
    got = read(put("a.ts", text))
    assert got.values.tolist() == [[1.5, 3], [2, 4]]
    assert "the time stamps inside the sequences are left out" in got.notes


def test_a_program_goes_by_the_same_name() -> None:
    assert read(put("a.ts", "export const x = 1;\nconsole.log(x);\n")).domain.kind == "text"


def test_arff() -> None:
    text = (
        "% about\n@RELATION r\n@ATTRIBUTE when date 'yyyy-MM-dd'\n@attribute 'the y' NUMERIC\n"
        "@attribute kind {a,b}\n@data\n2001-01-01,1,a\n2001-01-02,?,b\n% no row\n2001-01-03,4,'a'\n"
    )
    got = read(put("a.arff", text))
    assert got.domain.columns == ("the y",)
    assert got.missing.tolist() == [False, True, False]
    assert got.domain.step == "day"


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        (
            "a.tsf",
            "@attribute n string\n@data\nT1:1,x\n",
            "a.tsf:3: step 1 (counted from 0): 'x'",
        ),
        ("a.tsf", "@attribute n string\n@data\n1,2\n", "a.tsf:3: 0 attributes before the values"),
        ("a.tsf", "@attribute n string\n", "a.tsf: no line '@data'"),
        ("a.tsf", "@data\n", "a.tsf: nothing comes after '@data'"),
        ("a.ts", "@problemName X\n@data\n1,2:3\n", "a.ts:3: dimensions of different lengths (2, 1"),
        (
            "a.arff",
            "@relation r\n@attribute y numeric\n@data\n1,2\n",
            "a.arff:4: 2 cells where",
        ),
        (
            "a.arff",
            "@relation r\n@attribute y numeric\n@data\n{0 1}\n",
            "a.arff:4: sparse rows",
        ),
        ("a.arff", "@relation r\n@attribute y\n@data\n1\n", "a.arff:2: an attribute needs a name"),
        (
            "a.arff",
            "@attribute y numeric\n@attribute y real\n@data\n1,2\n",
            "a.arff: two attrib",
        ),
    ],
)
def test_what_cannot_be_read(name: str, text: str, problem: str) -> None:
    assert message(put(name, text)).startswith(problem)
