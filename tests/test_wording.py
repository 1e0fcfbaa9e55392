"""Moments and durations read the same everywhere."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
import pytest

from throughtime.wording import duration, measured, stamp, stamps


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        (np.datetime64("2008-10-13", "D"), "2008-10-13"),
        (np.datetime64("2008-10-13", "us"), "2008-10-13"),
        (np.datetime64("2008-10-13T09:30:00", "us"), "2008-10-13 09:30:00"),
        (np.datetime64("2008-10-13T09:30:00.250000", "us"), "2008-10-13 09:30:00.250000"),
        (datetime(2008, 10, 13, tzinfo=timezone.utc), "2008-10-13"),
        (datetime(2008, 10, 13, 9, 30, tzinfo=timezone.utc), "2008-10-13 09:30:00"),
        (np.int64(17), 17.0),
        (np.float64(0.5), 0.5),
    ],
)
def test_moments(moment: np.datetime64 | datetime | float, said: str | float) -> None:
    assert stamp(moment) == said


def test_moments_of_some_steps() -> None:
    days = np.array(["2020-01-01", "2020-01-02", "2020-01-03"], "datetime64[us]")
    assert stamps(days, slice(1, None)) == ["2020-01-02", "2020-01-03"]
    assert stamps(days, np.array([0, 2])) == ["2020-01-01", "2020-01-03"]
    assert stamps(None, slice(1, None)) is None


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.04, "0.0 s"), (9.96, "10 s"), (61, "1:01 min"), (3599.7, "1:00 h"), (7260, "2:01 h")],
)
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (1.5, "1.50 s"),
        (0.0254, "25.4 ms"),
        (0.262, "262 ms"),
        (9.996e-6, "10.0 µs"),
        (4e-7, "0.40 µs"),
    ],
)
def test_measurements(seconds: float, said: str) -> None:
    assert measured(seconds) == said
