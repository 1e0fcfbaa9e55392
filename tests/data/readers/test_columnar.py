"""Parquet, Arrow and spreadsheets."""

from __future__ import annotations

import sys
import zipfile
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from support.reading import message, put

from throughtime.data.readers.read import read
from throughtime.errors import MissingExtra

DAYS = [date(2001, 1, 1) + timedelta(days=k) for k in range(10)]
FRAME = pl.DataFrame({"date": DAYS, "y": np.arange(10.0)})


def test_every_form_of_columns() -> None:
    FRAME.write_parquet("a.parquet")
    FRAME.write_ipc("a.feather")
    FRAME.write_ipc_stream("a.arrow")
    for name in ("a.parquet", "a.feather", "a.arrow"):
        put(f"b{name}.csv", Path(name).read_bytes())
        for path in (name, f"b{name}.csv"):
            got = read(path)
            assert got.values.flatten().tolist() == list(range(10)), path
            assert got.domain.step == "day"
    assert any("is a Parquet file by its content" in n for n in read("ba.parquet.csv").notes)


def test_a_list_in_each_row_is_a_series_each() -> None:
    frame = pl.DataFrame({"id": ["a", "b", "c"], "target": [[1.0, None, 3.0], [4.0, 5.0], []]})
    frame.write_parquet("a.parquet")
    got = read("a.parquet")
    assert got.names == ("a", "b")
    assert got.lengths.tolist() == [3, 2]
    assert got.missing.tolist() == [False, True, False, False, False]
    assert "each row is a series, the list in 'target'" in got.notes
    assert "1 rows without values are left out" in got.notes
    assert read("a.parquet", value="target", id="id").fingerprint() == got.fingerprint()
    assert message("a.parquet", id="ids").startswith(
        "a.parquet: no column 'ids'; did you mean 'id'"
    )


def test_lists_of_stamps_and_starts_are_times() -> None:
    stamps = [DAYS[:3], DAYS[4:6]]
    frame = pl.DataFrame({"id": ["a", "b"], "timestamp": stamps, "target": [[1, 2, 3], [4, 5]]})
    frame.write_parquet("a.parquet")
    got = read("a.parquet")
    assert got.times is not None
    assert [str(time)[:10] for time in got.times] == [str(day) for part in stamps for day in part]
    starts = pl.DataFrame(
        {"start": ["2001-01-01", "2001-02-01"], "freq": ["W", "W"], "target": [[1, 2], [3, 4]]}
    )
    starts.write_parquet("b.parquet")
    got = read("b.parquet")
    assert got.domain.step == "week"
    assert got.names == ("b:0", "b:1")


def test_several_lists_ask() -> None:
    pl.DataFrame({"low": [[1.0, 2.0]], "high": [[3.0, 4.0]]}).write_parquet("a.parquet")
    assert message("a.parquet") == (
        "a.parquet: 2 columns hold lists of numbers: 'low', 'high'; choose one with value="
    )
    assert read("a.parquet", value="high").values.flatten().tolist() == [3, 4]
    pl.DataFrame({"y": [1.0, 2.0], "tags": [["a"], []]}).write_parquet("c.parquet")
    assert read("c.parquet").values.flatten().tolist() == [1, 2]
    assert "columns of lists left out: 'tags'" in read("c.parquet").notes
    assert message("c.parquet", value="tags") == (
        "c.parquet: column 'tags' holds List(String), not numbers"
    )
    pl.DataFrame({"words": [["a", "b"]]}).write_parquet("b.parquet")
    assert message("b.parquet") == ("b.parquet: no column holds numbers or lists of them: 'words'")


def test_fields_inside_fields_are_columns() -> None:
    frame = pl.DataFrame({"at": DAYS, "in": [{"y": float(k)} for k in range(10)]})
    frame.write_parquet("a.parquet")
    assert read("a.parquet").domain.columns == ("y",)


def test_dates_of_no_calendar() -> None:
    frame = pl.DataFrame(
        {"date": pl.Series([0, 2**31 - 9]).cast(pl.Int32).cast(pl.Date), "y": [1, 2]}
    )
    frame.write_parquet("a.parquet")
    assert message("a.parquet") == "a.parquet: column 'date' holds dates of no calendar"


@pytest.mark.parametrize("name", ["a.parquet", "a.feather", "a.arrow"])
def test_damaged(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    {"a.parquet": FRAME.write_parquet, "a.feather": FRAME.write_ipc,
     "a.arrow": FRAME.write_ipc_stream}[name](name)  # fmt: skip
    whole = Path(name).read_bytes()
    for place in range(8, len(whole), 11):
        put(name, whole[:place] + b"\xff\xff\xff\x7f" + whole[place + 4 :])
        try:
            read(name)
        except Exception as error:
            assert type(error).__name__ == "DataError", error  # noqa: PT017
    assert "panicked" not in capfd.readouterr().err


SHEETS = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = "http://schemas.openxmlformats.org/package/2006"
KIND = "application/vnd.openxmlformats-officedocument.spreadsheetml"


def cell(value: Any) -> str:
    if isinstance(value, str):
        return f'<c t="inlineStr"><is><t>{value}</t></is></c>'
    return f"<c><v>{value}</v></c>"


def book(name: str, sheets: dict[str, list[list[Any]]]) -> str:
    """A small .xlsx of these sheets, rows of cells."""
    parts = {f"xl/worksheets/s{k}.xml": rows for k, rows in enumerate(sheets.values())}
    listed = "".join(
        f'<sheet name="{title}" sheetId="{k + 1}" r:id="r{k}"/>' for k, title in enumerate(sheets)
    )
    links = "".join(
        f'<Relationship Id="r{k}" Type="{OFFICE}/worksheet" Target="worksheets/s{k}.xml"/>'
        for k in range(len(sheets))
    )
    types = (
        f'<Override PartName="/xl/workbook.xml" ContentType="{KIND}.sheet.main+xml"/>'
        + "".join(
            f'<Override PartName="/{part}" ContentType="{KIND}.worksheet+xml"/>' for part in parts
        )
    )
    with zipfile.ZipFile(name, "w") as archive:
        archive.writestr(
            "[Content_Types].xml", f'<Types xmlns="{PACKAGE}/content-types">{types}</Types>'
        )
        archive.writestr(
            "_rels/.rels",
            f'<Relationships xmlns="{PACKAGE}/relationships"><Relationship Id="r" '
            f'Type="{OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        )
        archive.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{SHEETS}" xmlns:r="{OFFICE}"><sheets>{listed}</sheets></workbook>',
        )
        archive.writestr(
            "xl/_rels/workbook.xml.rels",
            f'<Relationships xmlns="{PACKAGE}/relationships">{links}</Relationships>',
        )
        for part, rows in parts.items():
            body = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
            archive.writestr(
                part, f'<worksheet xmlns="{SHEETS}"><sheetData>{body}</sheetData></worksheet>'
            )
    return name


ROWS = [["date", "y"], *[[str(day), k * 1.5] for k, day in enumerate(DAYS)]]


def test_spreadsheets() -> None:
    pytest.importorskip("fastexcel")
    got = read(book("a.xlsx", {"Data": ROWS, "Empty": []}))
    assert got.values.flatten().tolist() == [k * 1.5 for k in range(10)]
    assert got.domain.step == "day"
    two = book("b.xlsx", {"North": ROWS, "South": [["date", "y"], *ROWS[5:]]})
    assert message(two) == "b.xlsx: 2 sheets hold tables: 'North', 'South'; choose one with part="
    assert len(read(two, part="South").values) == 6
    assert message(two, part="Suoth") == (
        "b.xlsx: no sheet 'Suoth'; did you mean 'South'? there are 'North', 'South'"
    )
    assert message(book("c.xlsx", {"Empty": []})) == "c.xlsx: no sheet holds a table"
    cut = Path("a.xlsx").read_bytes()
    assert message(put("d.xlsx", cut[: len(cut) // 2])).startswith("d.xlsx: ")


def test_spreadsheets_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastexcel", None)
    assert message(book("a.xlsx", {"Data": ROWS}), MissingExtra) == (
        "a.xlsx: a spreadsheet needs the package 'fastexcel': pip install 'throughtime[excel]'"
    )


def test_a_table_of_text_that_is_called_a_spreadsheet() -> None:
    got = read(put("a.xls", "date\ty\n2001-01-01\t1\n2001-01-02\t2\n2001-01-03\t4\n"))
    assert got.values.flatten().tolist() == [1, 2, 4]
    assert any("a.xls looks like a table and is read so" in note for note in got.notes)
