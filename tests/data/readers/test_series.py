"""Reading tables, frames and arrays: what is found out, and one sentence for all that is wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.profiles import examples
from support.reading import message

from throughtime.data.readers.demo import read_demo
from throughtime.data.readers.files import locate
from throughtime.data.readers.read import read
from throughtime.data.sequences import Sequences
from throughtime.errors import DataError, MissingExtra, SettingError


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in its own folder, so that messages name files as `prices.csv`."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, *lines: str) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return name


def csv(*lines: str) -> str:
    return write("prices.csv", *lines)


def days(*stamps: str) -> list[np.datetime64]:
    return [np.datetime64(stamp, "us") for stamp in stamps]


# ----------------------------------------------------------------------------------- what is read


def test_one_series_with_guessed_columns() -> None:
    got = read(csv("date,close", "2001-01-01,1.5", "2001-01-02,2", "2001-01-03,-3e2"))
    assert got.values.dtype == torch.float64
    assert got.values.tolist() == [[1.5], [2.0], [-300.0]]
    assert got.names == ("prices",)
    assert got.domain.kind == "real"
    assert got.domain.columns == ("close",)
    assert got.domain.step == "day"
    assert got.times is not None
    assert got.times.dtype == np.dtype("datetime64[us]")
    assert list(got.times) == days("2001-01-01", "2001-01-02", "2001-01-03")
    assert got.covariates is None
    assert got.notes == (
        "time is the column 'date'",
        "value is the column 'close'",
        "time runs from 2001-01-01 to 2001-01-03, one row per day",
    )


def test_columns_by_flag() -> None:
    path = csv("when,a,b,promo", "2001-01-01,1,2,0", "2001-01-02,3,4,1")
    got = read(path, time="when", value=["b", "a"], covariates="promo")
    assert got.values.tolist() == [[2, 1], [4, 3]]
    assert got.domain.columns == ("b", "a")
    assert got.covariates is not None
    assert got.covariates.tolist() == [[0.0], [1.0]]
    assert got.domain.covariate_columns == ("promo",)


def test_value_star_takes_every_column_of_numbers_that_is_left() -> None:
    path = csv("date,a,word,b,c", "2001-01-01,1,x,2,3", "2001-01-02,4,y,5,6")
    got = read(path, value="*", covariates=["c"])
    assert got.domain.columns == ("a", "b")
    assert got.values.tolist() == [[1, 2], [4, 5]]


def test_series_by_id_keep_the_order_in_which_they_appear() -> None:
    path = csv(
        "symbol,date,price",
        "B,2001-01-01,1",
        "A,2001-01-01,10",
        "B,2001-01-02,2",
        "A,2001-01-02,20",
        "B,2001-01-03,3",
    )
    got = read(path, id="symbol")
    assert got.names == ("B", "A")
    assert got.sequence(0).tolist() == [[1], [2], [3]]
    assert got.sequence(1).tolist() == [[10], [20]]
    assert got.domain.step == "day"


def test_long_format_is_recognised() -> None:
    path = csv("unique_id,ds,y,extra", "H1,1,5,0", "H1,2,6,0", "H2,1,7,0")
    got = read(path)
    assert got.names == ("H1", "H2")
    assert got.domain.columns == ("y",)
    assert got.times is not None
    assert got.times.tolist() == [1, 2, 1]
    assert got.notes == ("time runs from 1 to 2, one row per step",)
    assert read(path, value="extra").domain.columns == ("extra",)
    plan = read(csv("unique_id,ds,extra", "H1,3,1", "H2,2,1"), value="extra")  # no y yet
    assert plan.names == ("H1", "H2")


def test_no_time_column() -> None:
    got = read(csv("Y", "1", "2"))
    assert got.times is None
    assert got.domain.step == "step"
    assert got.notes == ("no time column: rows in file order", "value is the column 'Y'")


def test_time_false_takes_rows_as_they_come() -> None:
    got = read(csv("date,y", "2001-01-02,1", "2001-01-01,2"), time=False)
    assert got.times is None
    assert got.values.tolist() == [[1], [2]]


def test_a_saved_frame_index_is_not_a_value() -> None:
    got = read(csv(",date,y", "0,2001-01-01,5", "1,2001-01-02,6"))
    assert got.domain.columns == ("y",)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_byte_order_mark_and_blank_end(end: str) -> None:
    data = ("\ufeffdate;y" + end + "2001-01-01;1" + end + "2001-01-02;2" + end + end).encode()
    Path("prices.csv").write_bytes(data)
    assert read("prices.csv").values.tolist() == [[1], [2]]


def test_quoted_cells_may_hold_separators_and_newlines() -> None:
    path = csv("date,note,y", '2001-01-01,"a, b",1', '2001-01-02,"two\nlines",2', "2001-01-03,c,x")
    assert message(path, value="y").startswith("prices.csv:5: column 'y': 'x' is not a number;")


def test_gzip_tsv_parquet_and_encoding() -> None:
    import polars as pl

    Path("a.csv.gz").write_bytes(gzip.compress(b"date,y\n2001-01-01,1\n2001-01-02,2\n"))
    write("b.tsv", "date\ty", "2001-01-01\t1", "2001-01-02\t2")
    stamps = days("2001-01-01", "2001-01-02")
    pl.DataFrame({"date": np.array(stamps), "y": [1, 2]}).write_parquet("c.parquet")
    Path("d.csv").write_bytes("date,größe\n2001-01-01,1\n2001-01-02,2\n".encode("latin-1"))
    for path, options in [
        ("a.csv.gz", {}),
        ("b.tsv", {}),
        ("c.parquet", {}),
        ("d.csv", {"encoding": "latin-1"}),
    ]:
        got = read(path, **options)
        assert got.values.tolist() == [[1], [2]], path
        assert got.times is not None
        assert list(got.times) == stamps
        assert got.names == (path[0],)


def test_a_folder_of_tables_is_one_series_each() -> None:
    write("in/b.csv", "date,y", "2001-01-01,1", "2001-01-02,2")
    write("in/deep/a.csv", "date,y", "2001-01-01,3", "2001-01-02,4")
    write("in/.hidden.csv", "not a table")
    write("in/LICENCE", "words")
    seen: list[tuple[int, int]] = []
    got = read("in", on_progress=lambda done, total: seen.append((done, total)))
    assert got.names == ("b", "a")
    assert got.values.flatten().tolist() == [1, 2, 3, 4]
    assert seen == [(1, 2), (2, 2)]


def test_folder_with_ids_or_equal_stems() -> None:
    write("in/x/a.csv", "date,y", "2001-01-01,1")
    write("in/z/a.csv", "date,y", "2001-01-01,3")
    assert read("in").names == ("x/a", "z/a")
    write("by/a.csv", "id,t,y", "p,1,1")
    write("by/b.csv", "id,t,y", "p,1,1")
    assert read("by", id="id").names == ("a/p", "b/p")


def test_folder_whose_files_differ() -> None:
    write("in/a.csv", "date,y", "2001-01-01,1")
    write("in/b.csv", "date,z", "2001-01-01,1")
    assert message("in") == (
        "in/b.csv: the value is 'z', but 'y' in 'in/a.csv'; choose with value="
    )
    write("in/b.csv", "t,y", "1,1")
    assert message("in") == "in/b.csv: the times are numbers, in 'in/a.csv' dates"


# ------------------------------------------------------------------------------ frames and arrays


def test_polars_and_pandas_frames() -> None:
    pandas = pytest.importorskip("pandas")
    import polars as pl

    stamps = days("2001-01-01", "2001-01-02")
    columns = {"date": np.array(stamps), "name": ["x", "x"], "y": [1.5, None], "n": [1, 2]}
    for frame in (pl.DataFrame(columns), pl.LazyFrame(columns), pandas.DataFrame(columns)):
        got = read(frame, value="y")
        assert got.values[0].item() == 1.5
        assert got.missing.tolist() == [False, True]
        assert got.times is not None
        assert list(got.times) == stamps
    indexed = pandas.DataFrame({"y": [1, 2]}, index=pandas.DatetimeIndex(stamps, tz="CET"))
    got = read(indexed)
    assert got.times is not None
    assert list(got.times) == days("2000-12-31T23:00", "2001-01-01T23:00")
    assert "times in column 'index' are converted to UTC" in got.notes
    periods = pandas.Series([1, 2], index=pandas.period_range("2001-01", periods=2, freq="M"))
    assert read(periods).domain.step == "month"
    assert read(pandas.Series([1, 2])).values.tolist() == [[1], [2]]
    assert read(pl.Series("y", [True, False])).values.tolist() == [[1], [0]]


def test_frame_messages_count_rows_from_0() -> None:
    import polars as pl

    frame = pl.DataFrame({"t": [1, 2, 2], "y": ["1", "2", "bad"]})
    assert message(frame, value="y", time=False) == (
        "frame: row 2 (counted from 0): column 'y': 'bad' is not a number; choose another column "
        "with value=, or say missing='bad' if it means that there is none"
    )
    twice = frame.with_columns(y=pl.Series([1, 2, 3]))
    assert "2 in 't' occurs twice with other values, also in row 1" in message(
        twice, time="t", value="y", duplicates="error"
    )
    nested = pl.DataFrame({"y": [[1], [2]]})
    assert message(nested, value="y") == "frame: column 'y' holds List(Int64), not numbers"


def test_arrays() -> None:
    assert read(np.arange(3)).values.tolist() == [[0], [1], [2]]
    got = read(np.ones((4, 2)))
    assert got.values.shape == (4, 2)
    assert got.domain.columns == ("value0", "value1")
    assert got.notes == ("'value0' is 1 in every row", "'value1' is 1 in every row")
    np.save("laser.npy", np.array([1.0, np.nan, 3.0]))
    got = read("laser.npy")
    assert got.names == ("laser",)
    assert got.notes == (
        "1 of 3 values of 'value' is missing; it is kept as a gap: not scored, models see a flag",
    )
    assert read(got) is got


@pytest.mark.parametrize(
    ("array", "wanted"),
    [
        (
            np.zeros((2, 2, 2)),
            "array: the array has the shape [2, 2, 2]; a series is [T] or [T, D]",
        ),
        (np.zeros(0), "array: the array has the shape [0]; a series is [T] or [T, D]"),
        (np.array(["a"]), "array: the array holds <U1, not real numbers"),
        (np.array([0, np.inf]), "array: step 1 (counted from 0), column 0: not finite"),
        (np.array([np.nan]), "array: column 'value' holds no number at all"),
    ],
)
def test_bad_arrays(array: np.ndarray, wanted: str) -> None:
    assert message(array) == wanted


def test_bad_npy_files() -> None:
    np.save("objects.npy", np.array([{}], dtype=object), allow_pickle=True)
    Path("text.npy").write_text("no array")
    np.save("short.npy", np.arange(100))
    Path("short.npy").write_bytes(Path("short.npy").read_bytes()[:200])
    for name, problem in [
        ("objects", "holds Python objects, a pickle; save an array of numbers"),
        ("text", "not a .npy file of numbers"),
        (
            "short",
            "cut short, or its header is damaged: the shape [100] needs 800 bytes, 72 are there",
        ),
    ]:
        assert message(f"{name}.npy") == f"{name}.npy: {problem}"


# ------------------------------------------------------------------------------------------ times


@pytest.mark.parametrize(
    ("first", "second", "iso_first", "iso_second"),
    [
        ("2001-02-03", "2001-02-04", "2001-02-03", "2001-02-04"),
        ("2001/02/03", "2001/02/04", "2001-02-03", "2001-02-04"),
        ("20010203", "20010204", "2001-02-03", "2001-02-04"),
        ("2/13/2001", "2/14/2001", "2001-02-13", "2001-02-14"),
        ("13/2/2001", "14/2/2001", "2001-02-13", "2001-02-14"),
        ("13.2.2001", "14.2.2001", "2001-02-13", "2001-02-14"),
        ("2/13/01 10:30", "2/13/01 11:30", "2001-02-13T10:30", "2001-02-13T11:30"),
        ("Jan 1 2000", "February 1 2000", "2000-01-01", "2000-02-01"),
        ('"January 1, 2000"', '"Feb 1, 2000"', "2000-01-01", "2000-02-01"),
        ("1 Jan 2000", "2 Jan 2000", "2000-01-01", "2000-01-02"),
        ("1-Jan-99", "2-Jan-99", "1999-01-01", "1999-01-02"),
        ("1749-01", "1749-02", "1749-01-01", "1749-02-01"),
        ("Mar 2001", "Apr 2001", "2001-03-01", "2001-04-01"),
        ("2001Q3", "2001Q4", "2001-07-01", "2001-10-01"),
        ("2001-01-01 10:00", "2001-01-01 11:00", "2001-01-01T10:00", "2001-01-01T11:00"),
        ("2001-01-01T10:00:00", "2001-01-01T10:00:01", "2001-01-01T10", "2001-01-01T10:00:01"),
        ("2001-01-01 10:00:00", "2001-01-01 10:00:00.5", "2001-01-01T10", "2001-01-01T10:00:00.5"),
        ("2001-01-01T10:00:00Z", "2001-01-01T12:00:00+01:00", "2001-01-01T10", "2001-01-01T11"),
        ("1/1/2001 1:05 PM", "1/1/2001 2:05 PM", "2001-01-01T13:05", "2001-01-01T14:05"),
        ("1990", "1991", "1990-01-01", "1991-01-01"),
    ],
)
def test_time_formats(first: str, second: str, iso_first: str, iso_second: str) -> None:
    got = read(csv("date,y", f"{first},1", f"{second},2"))
    assert got.times is not None
    assert list(got.times) == days(iso_first, iso_second)


def test_an_ambiguous_date_is_settled_by_regularity_or_asked_for() -> None:
    daily = read(csv("date,y", "1/2/2001,1", "2/2/2001,2", "3/2/2001,3", "1/3/2001,4"))
    assert daily.times is not None
    assert list(daily.times)[-1] == np.datetime64("2001-03-01", "us")
    assert any("time_format='%m/%d/%Y' reads them otherwise" in note for note in daily.notes)
    assert message(csv("date,y", "1/2/2001,1", "2/2/2001,2")) == (
        "prices.csv: column 'date': '1/2/2001' can be read in two ways under which the data are "
        "equally regular: time_format='%m/%d/%Y' or time_format='%d/%m/%Y'"
    )
    other = read("prices.csv", time="date", time_format="%d/%m/%Y")
    assert other.times is not None
    assert list(other.times) == days("2001-02-01", "2001-02-02")
    assert not any("otherwise" in note for note in other.notes)


def test_epochs() -> None:
    path = csv("timestamp,y", "1396310400,1", "1396310700,2")
    found = read(path)
    assert found.notes[2] == (
        "column 'timestamp' is read as seconds since 1970, the first 2014-04-01 (UTC); "
        "time_format='number' keeps plain numbers"
    )
    assert found.times is not None
    assert found.times[1] == np.datetime64("2014-04-01T00:05")
    plain = read(path, time_format="number")
    assert plain.times is not None
    assert plain.times.tolist() == [1396310400, 1396310700]
    got = read(path, time="timestamp", time_format="epoch")
    assert got.times is not None
    assert got.times[0] == np.datetime64("2014-04-01")
    assert got.domain.step == "5-minute step"


@pytest.mark.parametrize(
    ("cells", "line", "problem"),
    [
        (["2001-09-10", "2001-13-45"], 3, "'2001-13-45' is not a time like '2001-09-10'"),
        (["2001-09-10", ""], 3, "the time is empty"),
        (["2001-02-30", "x"], 2, "'2001-02-30' is not a time that is recognised"),
        (["soon", "later"], 2, "'soon' is not a time that is recognised"),
        (["1", ""], 3, "the time is empty"),
        (["1", "inf"], 3, "'inf' is not a time"),
    ],
)
def test_times_that_cannot_be_read(cells: list[str], line: int, problem: str) -> None:
    path = csv("date,y", *[f"{cell},1" for cell in cells])
    assert message(path, time="date").startswith(f"prices.csv:{line}: column 'date': {problem}")


def test_dates_and_stamps_in_one_column_are_read_by_both_formats() -> None:
    got = read(csv("date,y", "2001-09-10,1", "2001-09-10 12:00:00,2", "2001-09-11,3"))
    assert got.times is not None
    assert list(got.times) == days("2001-09-10", "2001-09-10T12", "2001-09-11")


def test_time_format_that_does_not_fit_or_is_none() -> None:
    path = csv("date,y", "2001-01-01,1")
    assert message(path, time="date", time_format="%d.%m.%Y").startswith(
        "prices.csv:2: column 'date': '2001-01-01' is not a time that '%d.%m.%Y' reads"
    )
    assert message(csv("y", "1"), SettingError, time_format="%Y") == (
        "time_format needs time=, the column that it describes"
    )


def test_rows_are_sorted_by_time_and_it_is_said() -> None:
    got = read(csv("date,y", "2001-09-10,1", "2001-09-17,2", "2001-09-11,3"))
    assert got.values.flatten().tolist() == [1, 3, 2]
    assert any("1 row goes back in 'date' (first at line 4)" in note for note in got.notes)
    got = read(csv("date,y", "2001-09-12,1", "2001-09-11,2", "2001-09-10,3"))
    assert got.values.flatten().tolist() == [3, 2, 1]
    assert any("the newest first: they are turned" in note for note in got.notes)
    kept = read("prices.csv", sort="keep")
    assert kept.values.flatten().tolist() == [1, 2, 3]
    assert kept.times is None
    backwards = read(csv("y", "1", "2", "3"), sort="reverse")
    assert backwards.values.flatten().tolist() == [3, 2, 1]


def test_a_row_that_occurs_twice_is_kept_once_and_named() -> None:
    same = read(csv("date,y", "2001-09-10,1", "2001-09-10,1", "2001-09-11,3"))
    assert same.values.flatten().tolist() == [1, 3]
    assert any("1 row occurs twice with equal cells" in note for note in same.notes)
    path = csv("id,t,y", "a,1,1", "b,1,2", "a,2,3", "b,1,4")
    first = read(path, id="id")
    assert first.values.flatten().tolist() == [1, 3, 2]
    assert any("1 time occurs again" in note and "line 5" in note for note in first.notes)
    assert read(path, id="id", duplicates="last").values.flatten().tolist() == [1, 3, 4]
    assert read(path, id="id", duplicates="mean").values.flatten().tolist() == [1, 3, 3]
    assert "1 in 't' of 'b' occurs twice with other values, also in line 3" in message(
        path, id="id", duplicates="error"
    )


def test_times_that_repeat_throughout_are_asked_about() -> None:
    rows = [f"2001-09-{1 + k // 3:02},{k}" for k in range(60)]
    assert "occurs twice with other values, also in line 2, as 39 others do" in message(
        csv("date,y", *rows)
    )


def test_series_are_told_apart_by_the_column_that_separates_their_times() -> None:
    rows = [f"{name},{name.lower()},2001-01-{day:02},{day}" for name in "AB" for day in (1, 2, 3)]
    got = read(csv("symbol,code,date,y", *rows))
    assert got.names == ("A", "B")
    assert any("2 series are named by the column 'symbol'" in note for note in got.notes)
    rows = [f"{a},{b},2001-01-{day:02},{day}" for a in "AB" for b in "XY" for day in (1, 2, 3)]
    assert read(csv("shop,item,date,y", *rows)).names == ("A/X", "A/Y", "B/X", "B/Y")
    assert read("prices.csv", id=["item", "shop"]).names[1] == "Y/A"


# ------------------------------------------------------------------------------------------- gaps


def stamped(*stamps: str) -> str:
    return csv("date,y", *[f"{stamp},{index}" for index, stamp in enumerate(stamps)])


@pytest.mark.parametrize(
    ("stamps", "step"),
    [
        (["2001-01-01", "2001-02-01", "2001-03-01"], "month"),
        (["2001-01-31", "2001-02-28", "2001-03-31"], "month"),
        (["2001-01-15", "2001-02-15", "2001-03-15"], "month"),
        (["2001-01-01", "2001-04-01", "2001-07-01"], "quarter"),
        (["2001-01-01", "2002-01-01", "2003-01-01"], "year"),
        (["2001-01-01", "2001-03-01", "2001-05-01"], "2-month step"),
        (["2001-01-01", "2001-01-08", "2001-01-15"], "week"),
        (["2001-01-01", "2001-01-02", "2001-01-03"], "day"),
        (["2001-01-04", "2001-01-05", "2001-01-08", "2001-01-09"], "business day"),
        (["2001-01-01 00:00", "2001-01-01 01:00", "2001-01-01 02:00"], "hour"),
        (["2001-01-01 00:00", "2001-01-01 00:30", "2001-01-01 01:00"], "30-minute step"),
        (["2001-01-01 00:00:00", "2001-01-01 00:00:01", "2001-01-01 00:00:02"], "second"),
        (["2001-01-01 00:00:00", "2001-01-01 00:00:09", "2001-01-03 00:00:02"], "step"),
    ],
)
def test_step_is_named(stamps: list[str], step: str) -> None:
    assert read(stamped(*stamps)).domain.step == step


def test_gaps_are_reported_with_their_dates() -> None:
    got = read(stamped("2001-01-01", "2001-01-02", "2001-01-05", "2001-01-06", "2001-01-08"))
    assert got.notes[2:] == (
        "time runs from 2001-01-01 to 2001-01-08, one row per day",
        "2 gaps (3 rows missing) between 2001-01-02 and 2001-01-05, 2001-01-06 and 2001-01-08",
    )
    assert len(got.values) == 5


def test_irregular_stamps_are_reported() -> None:
    got = read(stamped("2001-01-01", "2001-01-02", "2001-01-09", "2001-01-20"))
    assert got.notes[2:] == (
        "time runs irregularly from 2001-01-01 to 2001-01-20: steps from 1 day to 11 days, the "
        "median 7 days; models count rows, not time",
    )
    hours = [f"2001-01-01 {hour:02}:00" for hour in range(20)]
    got = read(stamped(*hours, "2001-01-01 20:30", "2001-01-01 21:30"))
    assert got.domain.step == "hour"
    assert got.notes[2:] == (
        "time runs from 2001-01-01 to 2001-01-01 21:30, one row per hour",
        "1 step is not a whole number of hours, the first from 2001-01-01 19:00 to 2001-01-01 "
        "20:30",
    )
    assert message("prices.csv", gaps="fill") == (
        "prices.csv: gaps='fill' needs regular time stamps, these are irregular"
    )


@pytest.mark.parametrize(
    ("stamps", "filled"),
    [
        (["2001-01-01 10:00", "2001-01-01 11:00", "2001-01-01 13:00"], ["2001-01-01T12:00"]),
        (
            ["2001-02-28", "2001-03-31", "2001-05-31"],
            ["2001-04-30"],
        ),
        (["2001-02-28", "2001-03-28", "2001-05-28"], ["2001-04-28"]),
        (["2001-01-04", "2001-01-05", "2001-01-08", "2001-01-10"], ["2001-01-09"]),
    ],
)
def test_fill_puts_in_the_missing_rows(stamps: list[str], filled: list[str]) -> None:
    got = read(stamped(*stamps), gaps="fill")
    assert got.times is not None
    assert list(got.times[got.missing.numpy()]) == days(*filled)
    known = got.values[~got.missing].flatten().tolist()
    assert known == list(range(len(stamps)))
    assert (np.diff(got.times).astype(np.int64) > 0).all()
    assert got.notes[-1] == "1 missing row is put in, without values"
    assert got.steps == len(stamps)


@examples(40)
@given(st.lists(st.sets(st.integers(0, 40), min_size=1), min_size=1, max_size=4))
def test_fill_keeps_every_row_of_every_series(series: list[set[int]]) -> None:
    import polars as pl

    rows = [
        (f"s{i}", step, float(step)) for i, chosen in enumerate(series) for step in sorted(chosen)
    ]
    frame = pl.DataFrame(rows, schema=["unique_id", "ds", "y"], orient="row")
    try:
        got = read(frame, gaps="fill")
    except DataError as error:
        assert "irregular" in str(error)  # noqa: PT017 - a drawn set may well be irregular
        return
    assert got.times is not None
    known = ~got.missing
    np.testing.assert_array_equal(got.values[known, 0].numpy(), got.times[known.numpy()])
    assert int(known.sum()) == len(rows)


def test_numbers_with_fractions_may_be_regular_and_filling_has_a_limit() -> None:
    got = read(csv("t,y", *[f"{index / 10},1" for index in [*range(10), 12]]), gaps="fill")
    assert len(got.values) == 13
    assert got.notes[2:4] == (
        "time runs from 0 to 1.2, one row per 0.1",
        "1 gap (2 rows missing) between 0.9 and 1.2",
    )
    assert message(csv("t,y", "1,1", "2,1", "9000000000,1"), gaps="fill") == (
        "prices.csv: gaps='fill' would make 9,000,000,000 rows of 3; cut the series at its long "
        "gaps"
    )


def test_fill_needs_times_and_no_covariates() -> None:
    assert message(csv("y", "1"), SettingError, gaps="fill") == (
        "gaps='fill' needs a time column: time="
    )
    path = csv("date,y,c", "2001-01-01,1,1", "2001-01-02,1,1")
    assert message(path, SettingError, value="y", covariates="c", gaps="fill") == (
        "gaps='fill' cannot know the covariates of missing rows"
    )
    assert message(path, SettingError, value="y", gaps="drop") == (
        "gaps='drop': use one of 'keep', 'fill'"
    )


# -------------------------------------------------------------------------------------- bad input


def test_missing_values_are_kept_and_counted() -> None:
    path = csv("t,y", "1,", "2,2", "3,NaN", "4,null", "5,3", "6, 4 ")
    got = read(path, leading="keep")
    assert got.missing.tolist() == [True, False, True, True, False, False]
    assert got.steps == 3
    assert got.notes[-1] == (
        "3 of 6 values of 'y' are missing; they are kept as gaps: not scored, models see a flag"
    )
    cut = read(path)
    assert cut.missing.tolist() == [False, True, True, False, False]
    assert any("1 row before the first value is left out" in note for note in cut.notes)


def test_missing_files_name_the_nearest() -> None:
    csv("y", "1")
    assert message("prices.cvs") == "prices.cvs: no such file; did you mean 'prices.csv'?"
    assert message("zzz") == "zzz: no such file"
    assert message("no/such.csv") == "no/such.csv: no such file: there is no folder 'no'"
    for name in ("a\0b", "x" * 5000, "x" * 50 + "/"):
        with pytest.raises(DataError):
            locate(name)


def test_unreadable_file(monkeypatch: pytest.MonkeyPatch) -> None:
    path = csv("y", "1")

    def refuse(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert message(path) == "prices.csv: cannot be read: Permission denied"


def test_folders_without_anything_usable() -> None:
    Path("empty").mkdir()
    assert message("empty").startswith(
        "empty: no file that can be read; the folder holds nothing, needed are .csv "
    )
    for name in ("a.bin", "b.bin", "c.dump"):
        write(f"mixed/{name}", "")
        Path("mixed", name).write_bytes(bytes(range(256)))
    assert message("mixed").startswith(
        "mixed: no file that can be read; the folder holds 2 .bin files, 1 .dump file, needed are "
    )
    write("both/a.csv", "y", "1", "2")
    write("both/b.txt", "words")
    assert message("both") == (
        "both: holds several kinds of data (1 .csv file, 1 .txt file); choose one with kind=, "
        "'series', 'text'"
    )
    assert read("both", kind="series").names == ("a",)
    assert read("both", kind="text").names == ("b",)


def test_unknown_extension() -> None:
    Path("prices.bin").write_bytes(bytes(range(256)))
    assert message("prices.bin") == (
        "prices.bin: neither its extension '.bin' nor its first bytes say what it is; kind='sound' "
        "reads recordings, kind='text' with encoding='bytes' the bytes themselves"
    )
    write("data.dat", "y", "1", "2")
    assert read("data.dat", kind="series").values.tolist() == [[1], [2]]
    assert message("data.dat", SettingError, kind="serie") == (
        "kind='serie'; did you mean 'series'? use one of 'series', 'text', 'sound'"
    )


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ([], "prices.csv: the file is empty"),
        (["", ""], "prices.csv: the file is empty"),
        (["date,y"], "prices.csv: there are column names but no rows"),
        (
            ["date,y", "2001-01-01,1,2"],
            "prices.csv:2: 3 cells where line 1 names 2 columns; a comma inside a number needs "
            "quotes around it or another separator, and header=False, skip=1 reads the rows "
            "without names",
        ),
        (
            ["date,y", '2001-01-01,"1'],
            "prices.csv:2: a quoted cell is not closed properly (unexpected end of data)",
        ),
        (
            ["name", "x"],
            "prices.csv: no column holds numbers to model among 'name'; in 'name' stands 'x'",
        ),
        (
            ["date,y", "2001-01-01,"],
            "prices.csv: no column holds numbers to model among 'date', 'y'; in 'y' stands nothing",
        ),
        (
            ["Date,Open,High,Adj Close", "2001-01-01,1,2,3"],
            "prices.csv: 3 columns hold numbers: 'Open', 'High', 'Adj Close'; choose one or "
            "several with value=, all of them with value='*'",
        ),
        (
            ["start,end,y", "2001-01-01,2001-01-02,3"],
            "prices.csv: 2 columns hold times: 'start', 'end'; choose one with time=",
        ),
    ],
)
def test_tables_that_cannot_be_read(lines: list[str], wanted: str) -> None:
    assert message(csv(*lines)) == wanted


@pytest.mark.parametrize(
    ("cell", "problem"),
    [
        ("n/a?", "'n/a?'"),
        ("1.2.3", "'1.2.3'"),
        ("inf", "'inf'"),
        ("-Infinity", "'-Infinity'"),
        ("1e999", "'1e999'"),
    ],
)
def test_a_cell_that_is_no_number_is_missing_and_named(cell: str, problem: str) -> None:
    cells = [str(index) for index in range(20)]
    cells[15] = cell
    path = csv("t,close", *[f"{index},{cell}" for index, cell in enumerate(cells)])
    got = read(path)
    assert got.missing.nonzero().flatten().tolist() == [15]
    assert (
        f"1 cell is not a finite number in 'close' and taken for missing: {problem} (line 17)"
        in got.notes
    )


def test_a_column_of_many_bad_cells_is_refused_at_the_first() -> None:
    path = csv(
        "t,close", *[f"{index},{'bad' + str(index) if index > 3 else 1}" for index in range(9)]
    )
    assert message(path, value="close").startswith(
        "prices.csv:6: column 'close': 'bad4' is not a number, as 4 others"
    )


def test_wrong_columns() -> None:
    path = csv("Date,Open,Close", "2001-01-01,1,2")
    known = "the columns are 'Date', 'Open', 'Close'"
    assert message(path, value="close") == (
        f"prices.csv: no column 'close'; did you mean 'Close'? {known}"
    )
    assert message(path, value="Opne") == (
        f"prices.csv: no column 'Opne'; did you mean 'Open'? {known}"
    )
    assert message(path, id="xyz") == f"prices.csv: no column 'xyz'; {known}"
    assert message(path, SettingError, value="Open", covariates="Open") == (
        "column 'Open' is named twice among time, id, value, covariates"
    )


def test_empty_ids_and_covariates() -> None:
    path = csv("id,t,y,c", "a,1,1,1", ",2,1,1")
    assert message(path, id="id", value="y") == "prices.csv:3: column 'id': the id is empty"
    path = csv("t,y,c", "1,1,1", "2,1,")
    assert message(path, value="y", covariates="c") == (
        "prices.csv:3: column 'c' is empty, but a covariate must be known at every step"
    )
    path = csv("t,y,c", "1,,1", "2,,1")
    assert message(path, value="y") == "prices.csv: column 'y' holds no number at all"


def test_damaged_files() -> None:
    good = gzip.compress(b"date,y\n2001-01-01,1\n" * 50)
    for name, data in [("a", good[:-12]), ("b", b"not gzip"), ("c", good[:20] + b"x" + good[21:])]:
        Path(f"{name}.csv.gz").write_bytes(data)
        assert message(f"{name}.csv.gz") == (
            f"{name}.csv.gz: the gzip file is damaged or cut short"
        )
    Path("a.parquet").write_bytes(b"PAR1 and nothing else")
    assert message("a.parquet").startswith(
        "a.parquet: not a readable Parquet file, damaged or cut short ("
    )
    Path("latin.csv").write_bytes("t,y\n1,2\n2,ü\n".encode("latin-1"))
    assert message("latin.csv", encoding="utf-8") == (
        "latin.csv:3: byte 10 (0xfc) is not utf-8; encoding='cp1252' reads it"
    )


def test_options_that_say_nothing_here() -> None:
    path = csv("y", "1")
    assert message(path, SettingError, rate=8000) == (
        "rate= says nothing about this source; it is for sound"
    )
    assert message(np.zeros(3), SettingError, time="t") == (
        "time= says nothing about this source; it is for series"
    )
    assert message(5, SettingError) == (
        "cannot read a int: give a path, a frame, an array or tensor [T] or [T, D], or a list of "
        "them"
    )


@examples(150)
@given(st.binary(max_size=60), st.sampled_from([".csv", ".tsv", ".npy", ".parquet", ".csv.gz"]))
def test_no_bytes_whatever_end_in_a_traceback(tmp_path_factory: Any, data: bytes, end: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / f"x{end}"
    path.write_bytes(b"t,y\n1,2\n" + data if end in (".csv", ".tsv") else data)
    try:
        assert isinstance(read(path), Sequences)
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017 - most drawn files are errors, some are not


# -------------------------------------------------------------------------------------- JSON lines


def test_numbers_in_json_lines() -> None:
    rows = [{"id": "a", "y": [1, 2.5, None]}, {"id": "b", "y": [4]}]
    write("s.jsonl", *[json.dumps(row) for row in rows])
    got = read("s.jsonl", value="y", id="id")
    assert got.names == ("a", "b")
    assert got.sequence(1).tolist() == [[4]]
    assert got.missing.tolist() == [False, False, True, False]
    write("s.jsonl", '{"y": [[1, 2], [3, 4]]}')
    assert read("s.jsonl", value="y").domain.columns == ("y0", "y1")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"y": 3}', "field 'y' holds a number, not a list of numbers"),
        ('{"y": [1, "a"]}', "field 'y', step 1 (counted from 0): \"a\" is not a number"),
        ('{"y": [1, 1e999]}', "field 'y', step 1 (counted from 0): not finite"),
        (
            '{"y": [[1, 2], [3]]}',
            "field 'y', step 1 (counted from 0): 1 numbers where the first step has 2",
        ),
        ('{"z": [1]}', "no field 'y'; the fields are 'z'"),
    ],
)
def test_numbers_in_json_lines_that_cannot_be_read(line: str, problem: str) -> None:
    write("s.jsonl", '{"y": [1]}', line)
    assert message("s.jsonl", value="y") == f"s.jsonl:2: {problem}"


# ------------------------------------------------------------------------------ demo and real data


def test_demo_prices() -> None:
    pytest.importorskip("arch")
    got = read("demo:prices")
    assert got.names == ("S&P 500",)
    assert got.domain.columns == ("Adj Close",)
    assert got.domain.step == "business day"
    assert len(got.values) == 5031
    assert got.values[0].item() == pytest.approx(1228.099976)
    assert got.notes == (
        "time runs from 1999-01-04 to 2018-12-31, one row per business day",
        "177 single business days have no row (a holiday, it seems)",
        "3 gaps of more than one business day (8 rows missing) between 2001-09-10 and 2001-09-17, "
        "2006-12-29 and 2007-01-03, 2012-10-26 and 2012-10-31",
    )
    assert read("demo:nasdaq").names == ("NASDAQ",)


def test_demo_names_and_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    assert message("demo:price") == (
        "no data called 'demo:price'; did you mean 'demo:prices'? there are 'demo:prices', "
        "'demo:nasdaq', 'demo:text', 'demo:sound'"
    )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra) as raised:
        read_demo("prices")
    assert str(raised.value) == (
        "demo:prices needs the package 'arch': pip install 'throughtime[arch]'"
    )


def test_public_series(shared_data: Path) -> None:
    stocks = read(shared_data / "prices/vega_stocks.csv", id="symbol")
    assert stocks.names == ("MSFT", "AMZN", "IBM", "GOOG", "AAPL")
    assert stocks.domain.step == "month"
    assert len(stocks.values) == 560
    path = shared_data / "series/ETTh1.csv.gz"
    oil = read(path, value="OT", covariates=["HUFL"])
    assert (len(oil.values), oil.domain.step) == (17420, "hour")
    assert read(path, value="*").values.shape == (17420, 7)
    spots = read(shared_data / "series/darts_monthly-sunspots.csv")
    assert (len(spots.values), spots.domain.step) == (2820, "month")
    assert len(read(shared_data / "series/santafe_laser.npy").values) == 10093
    rates = read(
        shared_data / "series/exchange_rate.txt.gz", kind="series", header=False, value="*"
    )
    assert rates.values.shape == (7588, 8)


@pytest.mark.parametrize("values", [torch.randn(9), torch.randn(9, 2), torch.randn(9).double()])
def test_a_tensor_is_a_series(values: torch.Tensor) -> None:
    result = read(values)
    assert (result.names, result.domain.kind) == (("series",), "real")
    torch.testing.assert_close(result.values, values.double().reshape(9, -1))


def test_a_list_of_tensors_or_arrays_is_several() -> None:
    parts = [torch.randn(4), np.arange(6.0), torch.randn(2)]
    result = read(parts)
    assert result.lengths.tolist() == [4, 6, 2]
    assert result.names == ("0", "1", "2")
    symbols = read([torch.tensor([0, 2, 1]), torch.tensor([1])])
    assert symbols.domain.num_symbols == 3
    assert symbols.notes == ("integers are taken for symbols, 0 to 2; give floats for amounts",)
    with pytest.raises(SettingError, match="a list of texts"):
        read(["a.csv", "b.csv"])
    with pytest.raises(DataError, match="shape"):
        read([torch.randn(2, 2, 2)])
