"""Times from a beginning and a frequency, against pandas."""

from __future__ import annotations

import numpy as np
import pytest

from throughtime.data.readers.calendar import Series, stamps


def found(start: str, freq: str | None, count: int = 40) -> np.ndarray | None:
    return stamps(Series("a", np.zeros((count, 1)), start, freq))


@pytest.mark.parametrize(
    ("freq", "theirs"),
    [
        ("S", "s"), ("10_seconds", "10s"), ("minutely", "min"), ("15min", "15min"), ("H", "h"),
        ("hourly", "h"), ("half_hourly", "30min"), ("D", "D"), ("daily", "D"), ("B", "B"),
        ("W", "7D"), ("W-SUN", "7D"), ("weekly", "7D"), ("MS", "MS"), ("monthly", "MS"),
        ("3M", "3MS"), ("quarterly", "3MS"), ("QS", "QS"), ("yearly", "YS"), ("A-DEC", "YS"),
    ],
)  # fmt: skip
def test_as_pandas_counts(freq: str, theirs: str) -> None:
    pandas = pytest.importorskip("pandas")
    times = found("2020-01-01", freq)
    wanted = pandas.date_range("2020-01-01", periods=40, freq=theirs).to_numpy("datetime64[us]")
    assert times is not None
    np.testing.assert_array_equal(times, wanted)


def test_months_on_their_last_day_stay_there() -> None:
    pandas = pytest.importorskip("pandas")
    wanted = pandas.date_range("2020-01-31", periods=40, freq="ME").to_numpy("datetime64[us]")
    np.testing.assert_array_equal(found("2020-01-31", "M"), wanted)
    days = found("2020-01-30 06:00:00", "M", 3)
    assert days is not None
    assert [str(day)[:16] for day in days] == [
        "2020-01-30T06:00", "2020-02-29T06:00", "2020-03-30T06:00"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("start", "same"),
    [
        ("1979-01-01 00-30-00", "1979-01-01T00:30:00"),
        ("1979-01-01T00:30:00Z", "1979-01-01T00:30:00"),
        ("1979-01-01 00:30:00+00:00", "1979-01-01T00:30:00"),
        ("1979-01-01", "1979-01-01T00:00:00"),
    ],
)
def test_how_beginnings_are_written(start: str, same: str) -> None:
    times = found(start, "D", 1)
    assert times is not None
    assert str(times[0])[:19] == same


@pytest.mark.parametrize(
    ("start", "freq"),
    [
        ("2020-01-01", None), ("2020-01-01", "fortnight"), ("2020-01-01", ""), ("01/02/2020", "D"),
        ("2020-02-30", "D"), ("2020", "D"), ("now", "D"), ("2020-01-01 10:00:00+02:00", "h"),
    ],
)  # fmt: skip
def test_what_is_not_known_is_not_guessed(start: str, freq: str | None) -> None:
    assert found(start, freq) is None
