"""Tables as people have them: what is inferred, what is said, what is asked."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.profiles import examples
from support.reading import message

from throughtime.data.frequency import future_stamps
from throughtime.data.readers.read import read
from throughtime.data.sequences import Sequences

FIRST = dt.date(2021, 3, 1)
LENGTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)  # of the months of 2020
VALUES = [round(40 + 9 * np.sin(k / 5) + k % 7 / 8, 2) for k in range(90)]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def table(*lines: str, name: str = "t.csv", encoding: str = "utf-8") -> str:
    Path(name).write_text("\n".join(lines) + "\n", encoding=encoding)
    return name


def day(k: int) -> dt.date:
    return FIRST + dt.timedelta(k)


def noted(data: Sequences, words: str) -> bool:
    return any(words in note for note in data.notes)


# ------------------------------------------------------------------------------ marks of numbers


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1.234,50", 1234.5), ("0,25", 0.25), ("-3,5", -3.5), ("€ 12,50", 12.5),
        ("12,5 %", 12.5), ("1.234.567,0", 1234567.0), ("(2,5)", -2.5), ("−7,25", -7.25),
    ],
)  # fmt: skip
def test_decimal_commas_behind_semicolons(written: str, value: float) -> None:
    rows = [f"{day(k):%d.%m.%Y};{3 + k},5" for k in range(40)]
    data = read(table("Tag;Menge", *rows, f"{day(40):%d.%m.%Y};{written}"))
    assert data.values[-1, 0] == value
    assert data.values[0, 0] == 3.5
    assert data.plan is not None
    assert data.plan.value("decimal") == ","


@given(st.lists(st.floats(-1e7, 1e7).map(lambda x: round(x, 2)), min_size=3, max_size=30))
@examples(30)
def test_numbers_with_both_marks_are_read_exactly(numbers: list[float]) -> None:
    numbers = [1234.56, *numbers]
    for swap in (False, True):
        cells = [f"{number:,.2f}" for number in numbers]
        if swap:
            cells = [cell.translate(str.maketrans(",.", ".,")) for cell in cells]
        data = read(table("k;v", *[f"{k};{cell}" for k, cell in enumerate(cells)]), value="v")
        assert data.values[:, 0].tolist() == numbers


def test_marks_that_nothing_settles_are_asked_for_and_then_obeyed() -> None:
    path = table("k;v", *[f"{k};{12 + k},{100 + k}" for k in range(30)])
    assert "decimal=',' or thousands=','" in message(path, value="v")
    assert read(path, value="v", decimal=",").values[0, 0] == 12.1
    assert read(path, value="v", thousands=",").values[0, 0] == 12100


def test_a_point_before_three_digits_between_semicolons_is_asked_about() -> None:
    path = table("k;v", *[f"{k};{12 + k}.{100 + k}" for k in range(30)])
    assert "the point in '12.100'" in message(path, value="v")
    assert read(path, value="v", decimal=".").values[0, 0] == 12.1
    assert read(path, value="v", thousands=".").values[0, 0] == 12100
    settled = table("k;v;w", *[f"{k};{12 + k}.{100 + k};{k}.5" for k in range(30)])
    assert read(settled, value="v").values[0, 0] == 12.1
    between_commas = table("k,v", *[f"{k},{12 + k}.{100 + k}" for k in range(30)])
    assert read(between_commas, value="v").values[0, 0] == 12.1


def test_the_decimal_mark_of_one_column_settles_the_other_mark_of_the_next() -> None:
    rows = [f"{k}|{k}.5|{12 + k},{100 + k}" for k in range(30)]
    assert read(table("k|v|w", *rows), value="w").values[0, 0] == 12100
    rows = [f"{k};{k},5;{12 + k}.{100 + k}" for k in range(30)]
    assert read(table("k;v;w", *rows), value="w").values[0, 0] == 12100


def test_small_numbers_without_a_mark_show_that_the_mark_parts_thousands() -> None:
    data = read(table("k;v", *[f"{k};{900 + 20 * k:,}" for k in range(12)]), value="v")
    assert data.values[:, 0].tolist() == [900 + 20 * k for k in range(12)]


def test_k_and_m_are_multiplied_in_and_said() -> None:
    data = read(table("date,v", *[f"{day(k)},{k + 1}.5k" for k in range(9)], f"{day(9)},2M"))
    assert data.values[[0, 9], 0].tolist() == [1500, 2_000_000]
    assert noted(data, "k = 1,000")


def test_units_that_are_not_known_are_named_by_the_user() -> None:
    path = table("date,v", *[f"{day(k)},{k + 1} kWh" for k in range(9)])
    assert "kWh" in message(path)
    assert read(path, value="v", units="kWh").values[0, 0] == 1


# ---------------------------------------------------------------------- what stands for missing


def test_a_word_again_and_again_is_missing_and_a_single_one_is_named() -> None:
    cells = ["asleep" if k % 9 == 4 else f"{v}" for k, v in enumerate(VALUES)]
    cells[50] = "4o.5"
    data = read(table("date,v", *[f"{day(k)},{cell}" for k, cell in enumerate(cells)]))
    assert int(data.missing.sum()) == 11
    assert noted(data, "'asleep' in 'v' means that a value is missing")
    assert noted(data, "'4o.5' (line 52)")


@pytest.mark.parametrize("mark", ["-999", "9999.9", "-200"])
def test_a_value_far_from_all_others_is_noticed_not_dropped(mark: str) -> None:
    cells = [mark if k % 20 == 7 else f"{v}" for k, v in enumerate(VALUES)]
    path = table("date,v", *[f"{day(k)},{cell}" for k, cell in enumerate(cells)])
    data = read(path)
    assert not data.missing.any()
    assert noted(data, f"missing='{float(mark):g}'")
    assert int(read(path, missing=mark).missing.sum()) == 5


def test_ordinary_data_are_not_suspected() -> None:
    for values in (
        VALUES,
        [0.0, 1.0] * 45,
        list(range(90)),
        np.random.default_rng(1).poisson(2, 90),
    ):
        data = read(table("date,v", *[f"{day(k)},{v}" for k, v in enumerate(values)]))
        assert not noted(data, "occurs")


# --------------------------------------------------------------------------------------- layout


def test_lines_above_units_below_and_an_empty_tail() -> None:
    rows = [f"{day(k)};{v};x;" for k, v in enumerate(VALUES)]
    data = read(table("Bericht 7", "# neu", "", "Tag;Menge;Art;", "(UTC);(kg);-;", *rows, ";;;"))
    assert data.domain.columns == ("Menge",)
    assert data.steps == 90
    assert noted(data, "'Bericht 7'")
    assert noted(data, "'(UTC);(kg);-;'")


def test_blanks_separate_and_a_comment_names_the_columns() -> None:
    rows = [f"  {k}   {v}  {k % 3}" for k, v in enumerate(VALUES)]
    data = read(table("# step level kind", *rows, name="t.dat"), kind="series", value="level")
    assert data.values[:, 0].tolist() == VALUES


def test_rows_that_do_not_fit_are_named_and_the_rest_is_read() -> None:
    rows = [f"{day(k)},{v},1" for k, v in enumerate(VALUES)]
    rows[10] += ",7"
    rows[20] = f"{day(20)},{VALUES[20]}"
    rows.insert(30, "")
    data = read(table("date,v,w", *rows), value="v")
    assert data.steps == 89
    assert noted(data, "too many cells and taken for missing (line 12)")
    assert noted(data, "too few cells; the rest is missing (line 22)")
    assert noted(data, "1 empty row left out (line 32)")


def test_series_in_rows() -> None:
    head = "country,code," + ",".join(str(year) for year in range(1990, 2010))
    rows = [f"{c},{c[:2]}," + ",".join(str(k + y) for y in range(20 - k)) + "," * k
            for k, c in enumerate(("Aland", "Bland", "Cland"))]  # fmt: skip
    data = read(table(head, *rows))
    assert data.names == ("Aland", "Bland", "Cland")
    assert data.lengths.tolist() == [20, 19, 18]
    assert data.domain.step == "year"
    wide = table("id,V1,V2,V3,V4,V5,V6", "a,1,2,3,4,5,6", "b,7,8,9,,,")
    assert "layout='rows'" in message(wide)
    assert read(wide, layout="rows").lengths.tolist() == [6, 3]


# ----------------------------------------------------------------------------------------- times


@pytest.mark.parametrize(
    ("form", "step"),
    [
        ("%d/%m/%Y", "day"), ("%m-%d-%Y", "day"), ("%d.%m.%y", "day"), ("%b %d, %Y", "day"),
        ("%a %d %b %Y", "day"), ("%Y%m%d", "day"), ("%d%b%Y", "day"), ("%Y-%jX", "day"),
        ("%Y-%m-%d %H:%M:%S UTC", "day"), ("%d/%m/%Y %I:%M %p", "day"),
        ("%Y-%m-%dT%H:%M:%SZ", "day"),
    ],
)  # fmt: skip
def test_days_in_many_writings(form: str, step: str) -> None:
    form = form.removesuffix("X")
    stamps = [dt.datetime(2021, 3, 1) + dt.timedelta(k) for k in range(90)]
    data = read(table("when\tv", *[f"{s:{form}}\t{v}" for s, v in zip(stamps, VALUES, strict=True)],
                      name="t.tsv"), time="when")  # fmt: skip
    assert data.times is not None
    assert data.times[0] == np.datetime64("2021-03-01")
    assert data.times[-1] == np.datetime64("2021-05-29")
    assert data.domain.step == step


@pytest.mark.parametrize(
    ("write", "step"),
    [
        (lambda y, m: f"{y}-{m:02}", "month"), (lambda y, m: f"{m:02}/{y}", "month"),
        (lambda y, m: f"{y}M{m:02}", "month"), (lambda y, m: f"{y}{m:02}", "month"),
        (lambda y, m: f"{dt.date(y, m, 1):%b-%y}", "month"),
        (lambda y, m: f"{dt.date(y, m, 1):%Y %b}", "month"),
    ],
)  # fmt: skip
def test_months_in_many_writings(write: Any, step: str) -> None:
    rows = [f"{write(1958 + k // 12, k % 12 + 1)},{k}" for k in range(60)]
    data = read(table("month,v", *rows))
    assert data.domain.step == step
    assert data.times is not None
    assert data.times[0] == np.datetime64("1958-01")


@pytest.mark.parametrize(
    ("unit", "factor"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)]
)
def test_epochs_by_the_years_they_lead_to(unit: str, factor: int) -> None:
    rows = [f"{(1_600_000_000 + 3600 * k) * factor},{k}" for k in range(40)]
    data = read(table("ts,v", *rows))
    assert data.times is not None
    assert data.times[0] == np.datetime64("2020-09-13T12:26:40")
    assert data.domain.step == "hour"
    wrong = {"s": "epoch_ms", "ms": "epoch", "us": "epoch", "ns": "epoch_ms"}[unit]
    assert "is the year" in message("t.csv", time="ts", time_format=wrong)


def test_an_hour_that_occurs_twice_is_kept_by_its_zone() -> None:
    utc = [dt.datetime(2021, 10, 30, 20) + dt.timedelta(hours=k) for k in range(24)]
    local = [t + dt.timedelta(hours=2 if t < dt.datetime(2021, 10, 31, 1) else 1) for t in utc]
    path = table("time,v", *[f"{t:%Y-%m-%d %H:%M},{k}" for k, t in enumerate(local)])
    first = read(path)
    assert first.steps == 23
    assert noted(first, "zone='Europe/Berlin'")
    both = read(path, zone="Europe/Berlin")
    assert both.times is not None
    assert both.times.tolist() == utc


def test_a_panel_in_file_order_newest_first() -> None:
    rows = [f"{c},{day(k):%d/%m/%Y},{k}" for c in ("n", "s") for k in range(40)][::-1]
    data = read(table("depot,day,v", *rows))
    assert data.names == ("s", "n")
    assert data.values[:40, 0].tolist() == list(range(40))


@pytest.mark.parametrize(
    ("stamps", "gap"),
    [
        ([str(np.datetime64("2020-01") + m)[:7] + f"-{min(31, LENGTHS[m])}" for m in range(12)], 1),
        ([str(np.busday_offset(f"2020-{m:02}", 0, roll="forward")) for m in range(1, 13)], 1),
        ([str(np.busday_offset(f"2020-{m:02}", 1, "forward", weekmask="0010000"))
          for m in range(1, 13)], 1),
    ],
)  # fmt: skip
def test_forecasts_of_months_lie_in_their_own_months(stamps: list[str], gap: int) -> None:
    data = read(table("date,v", *[f"{stamp},{k}" for k, stamp in enumerate(stamps)]))
    assert data.domain.step == "month"
    assert data.times is not None
    ahead = future_stamps(data.times, 30).astype("datetime64[M]").astype(int)
    last = data.times[-1].astype("datetime64[M]").astype(int)
    assert np.array_equal(np.diff([last, *ahead]), np.full(30, gap))


def test_stamps_after_fractions_advance() -> None:
    times = np.array([1958.2027, 1958.2877, 1958.3699, 1958.4548])
    assert (np.diff([times[-1], *future_stamps(times, 5)]) > 0.05).all()


# ---------------------------------------------------------------------------------- plan and use


def test_the_plan_is_a_value_that_json_keeps() -> None:
    from throughtime.data.readers.plan import ReadPlan

    data = read(table("Tag;Menge", *[f"{day(k):%d.%m.%Y};{3 + k},5" for k in range(40)]))
    assert data.plan is not None
    assert ReadPlan.from_json(data.plan.to_json()) == data.plan
    assert {entry.name for entry in data.plan.entries} >= {"separator", "header", "time", "value"}


def test_what_the_first_file_settled_is_kept_for_the_next() -> None:
    data = read(table("date,v", *[f"{day(k):%d/%m/%Y},{v}" for k, v in enumerate(VALUES)]))
    short = table("date,v", "01/06/2021,1", "02/06/2021,2", name="u.csv")
    assert "two ways" in message(short) or read(short).times is not None
    again = read(short, **({"time_format": "%d/%m/%Y"} | dict(data.read_options)))
    assert again.times is not None
    assert again.times[-1] == np.datetime64("2021-06-02")


# ------------------------------------------------------------- files of programs and of countries


@pytest.mark.parametrize(
    ("cells", "step", "last"),
    [
        (("Jan 2020", "Feb 2020", "Mrz 2020", "Apr 2020", "Mai 2020"), "month", "2020-05-01"),
        (("Oktober 2019", "November 2019", "Dezember 2019", "Jänner 2020"), "month", "2020-01-01"),
        (("janvier 2020", "février 2020", "mars 2020", "avril 2020"), "month", "2020-04-01"),
        (("01-ene-2021", "02-ene-2021", "03-ene-2021", "04-ene-2021"), "day", "2021-01-04"),
        (("2021年3月1日", "2021年3月2日", "2021年3月3日"), "day", "2021-03-03"),
        (("2021. 3. 1.", "2021. 3. 2.", "2021. 3. 3."), "day", "2021-03-03"),
        (("29. 3. 2021", "30. 3. 2021", "31. 3. 2021"), "day", "2021-03-31"),
        (("1st March 2021", "2nd March 2021", "3rd March 2021"), "day", "2021-03-03"),
        (("2021-03-01/2021-03-07", "2021-03-08/2021-03-14"), "week", "2021-03-08"),
        (("Q3'19", "Q4'19", "Q1'20", "Q2'20"), "quarter", "2020-04-01"),
        (("3. Quartal 2019", "4. Quartal 2019", "1. Quartal 2020"), "quarter", "2020-01-01"),
        (("1H99", "2H99", "1H00"), "6-month step", "2000-01-01"),
        (("KW 51/2020", "KW 52/2020", "KW 53/2020", "KW 01/2021"), "week", "2021-01-04"),
        (("FY1999", "FY2000", "FY2001"), "year", "2001-01-01"),
        (("1999-2000", "2000-2001", "2001-2002"), "year", "2001-01-01"),
        (("20210301:0010", "20210301:0110", "20210301:0210"), "hour", "2021-03-01T02:10"),
        (("01MAR2021:01:00:00", "01MAR2021:02:00:00"), "hour", "2021-03-01T02:00"),
        (("Mon Mar 01 01:00:00 UTC 2021", "Mon Mar 01 02:00:00 UTC 2021"), "hour", "2021-03-01T02"),
    ],
)  # fmt: skip
def test_stamps_of_programs_and_countries(cells: tuple[str, ...], step: str, last: str) -> None:
    data = read(table("date;y", *(f"{cell};{k + 1}.5" for k, cell in enumerate(cells))))
    assert data.times is not None
    assert data.domain.step == step
    assert data.times[-1] == np.datetime64(last)


def test_amounts_of_countries() -> None:
    written = ('"R$ 1.234,50"', '"R$ 99,90"', '"R$ 100,00"')
    data = read(table("date;y", *(f"{day(k)};{cell}" for k, cell in enumerate(written))))
    assert data.values[:, 0].tolist() == [1234.5, 99.9, 100.0]
    lakhs = ("1,23,400", "12,34,567", "1,00,00,000")
    data = read(table("date;y", *(f"{day(k)};{cell}" for k, cell in enumerate(lakhs))))
    assert data.values[:, 0].tolist() == [123400.0, 1234567.0, 1e7]
    books = (" $ (1,344.73)", " $ 94.71 ", " $ (5.00)")
    data = read(table("date;y", *(f"{day(k)};{cell}" for k, cell in enumerate(books))))
    assert data.values[:, 0].tolist() == [-1344.73, 94.71, -5.0]


def test_fractions_are_no_times_of_day_and_dotted_clocks_no_dates() -> None:
    hours = [f"{day(k // 24)},{k % 24},{0.2 + k / 100:.2f},{k}" for k in range(48)]
    assert read(table("dteday,hr,temp,cnt", *hours), value="cnt").domain.step == "hour"
    clocks = [f"{day(k // 24):%d/%m/%Y};{k % 24:02}.00.00;{k},5" for k in range(48)]
    assert read(table("Date;Time;NO", *clocks)).domain.step == "hour"


def test_amounts_are_no_times_whatever_they_are_called() -> None:
    rows = [f"{day(k)},{VALUES[k]}" for k in range(30)]
    assert read(table("MTU,Day-ahead Price", *rows)).domain.columns == ("Day-ahead Price",)


def test_columns_called_by_years_below_lines_about_the_file() -> None:
    years = ",".join(f'"{year}"' for year in range(1990, 2000))
    rows = [f'"Land {k}","L{k}",' + ",".join(f'"{k}.{j}"' for j in range(10)) for k in (1, 2, 3)]
    data = read(table('"Source","Bank",', "", f'"Name","Code",{years}', *rows))
    assert data.names == ("Land 1", "Land 2", "Land 3")
    assert data.times is not None
    assert str(data.times[0])[:4] == "1990"


def test_a_column_of_years_without_any_value_stays_in_its_place() -> None:
    head = "geo,lat," + ",".join(map(str, range(2000, 2008)))
    rows = [f"{g},4{k}.5," + ",".join(":" if j == 3 else f"{k}{j}" for j in range(8))
            for k, g in enumerate("ABC")]  # fmt: skip
    data = read(table(head, *rows))
    assert data.names == ("A", "B", "C")
    assert data.domain.step == "year"
    assert len(data.values) == 24
    assert int(np.isnan(data.values.numpy()).sum()) == 3


def test_empty_cells_among_numbers_with_marks() -> None:
    rows = [f'{day(k)},"1,2{k:02}.5"' for k in range(20)]
    data = read(table("date,y", *rows[:9], f"{day(9)},", f"{day(10)},x1", *rows[11:]))
    assert data.values[0, 0] == 1200.5
    assert noted(data, "'x1'")


def test_a_year_beside_a_month_by_name_a_quarter_a_week_or_a_day_of_the_year() -> None:
    months = [f"{2019 + k // 12},{dt.date(2000, k % 12 + 1, 1):%B},{VALUES[k]}" for k in range(24)]
    assert read(table("Year,Month,Sales", *months)).domain.step == "month"
    quarters = [f"{2015 + k // 4},Q{k % 4 + 1},{VALUES[k]}" for k in range(20)]
    assert read(table("Year,Quarter,Sales", *quarters)).domain.step == "quarter"
    weeks = [f"{2018 + k // 52},{k % 52 + 1},{VALUES[k]}" for k in range(90)]
    assert read(table("year,week,flu", *weeks)).domain.step == "week"
    days = [f"2019,{k + 1},{VALUES[k]}" for k in range(90)]
    data = read(table("YEAR,DOY,T2M", *days))
    assert data.times is not None
    assert data.times[-1] == np.datetime64("2019-03-31")


def test_dates_of_digits_that_begin_with_0() -> None:
    first = dt.date(2005, 6, 1)
    for form in ("%y%m%d", "%d%m%Y"):
        rows = [f"{first + dt.timedelta(k):{form}},{VALUES[k]}" for k in range(60)]
        data = read(table("date,y", *rows))
        assert data.domain.step == "day"
        assert data.times is not None
        assert data.times[0] == np.datetime64("2005-06-01")


def test_days_that_another_program_counts_are_not_taken_for_those_of_excel() -> None:
    sas = [f"{22281 + k},{VALUES[k]}" for k in range(60)]
    data = read(table("date,y", *sas))
    assert data.times is not None
    assert data.times[0] == 22281
    excel = [f"{44197 + k},{VALUES[k]}" for k in range(60)]
    data = read(table("date,y", *excel))
    assert data.times is not None
    assert data.times[0] == np.datetime64("2021-01-01")


def test_times_since_1970_need_no_name() -> None:
    rows = [f"{1609459200000 + 60000 * k},{VALUES[k]},{k % 7}.5" for k in range(60)]
    assert read(table(*rows), value="column_2").domain.step == "minute"


def test_names_that_are_repeated_are_no_row() -> None:
    cells = [f"{value}" for value in VALUES[:40]]
    data = read(table("y", *cells[:20], "y", *cells[20:]))
    assert len(data.values) == 40
    assert noted(data, "line 22")


def test_points_that_part_thousands_beside_numbers_below_one_thousand() -> None:
    visits = [f"{900 + 7 * k:,}".replace(",", ".") for k in range(40)]
    rows = [f"{day(k)};{cell}" for k, cell in enumerate(visits)]
    data = read(table("date;visits", *rows))
    assert data.values[:, 0].tolist() == [900.0 + 7 * k for k in range(40)]
    assert noted(data, "decimal='.'")
    assert read(table("date;visits", *rows), decimal=".").values[39, 0] == pytest.approx(1.173)
    ages = [f"{day(k)};{k % 3 if k % 2 else '1.125'}" for k in range(40)]
    assert read(table("date;y", *ages)).values[0, 0] == 1.125


def test_points_are_thousands_where_the_user_says_so() -> None:
    rows = [f"{day(k)};12.{900 + k}" for k in range(20)]
    assert read(table("date;y", *rows), thousands=".").values[0, 0] == 12900


def test_a_refusal_names_a_cell_that_is_no_number_and_names_may_have_lines() -> None:
    rows = [f"{day(k)},{'<0.5' if k % 4 == 2 else VALUES[k]}" for k in range(40)]
    assert "'<0.5'" in message(table("date,conc", *rows))
    rows = [f"{day(k)},{VALUES[k]}" for k in range(20)]
    data = read(table('date,"power', 'per day"', *rows))
    assert data.domain.columns == ("power\nper day",)
    assert not noted(data, "left out above")


def test_countries_beside_years_are_series_not_months() -> None:
    rows = [f"{g},{1950 + k},{VALUES[k]}" for g in ("Austria", "Brazil") for k in range(40)]
    data = read(table("Entity,Year,CO2", *rows))
    assert data.names == ("Austria", "Brazil")
    assert data.domain.step == "year"
