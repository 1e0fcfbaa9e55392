"""Numbers, intervals, moments and durations read the same everywhere."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from typing import Any

import numpy as np
import pytest

from throughtime.wording import decimals, duration, estimate, fixed, measured, stamp, stamps


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


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (fixed(-0.0004, 3), "0.000"),
        (fixed(0.0004, 3, True), "0.000"),
        (fixed(-1234.5, 1), "−1,234.5"),
        (fixed(0.25, 2, True), "+0.25"),
        (fixed(-2.5e15, 0), "−2.5e+15"),
        (fixed(None, 2), "–"),
        (fixed(math.nan, 2), "–"),
        (fixed(math.inf, 2), "–"),
    ],
)
def test_numbers(said: str, expected: str) -> None:
    assert said == expected


def test_intervals_show_two_digits_of_their_width() -> None:
    assert decimals([(-0.5, 0.5), (0.1, 0.112)]) == 3
    assert decimals([(0.1, 0.1012), (0.0, 3.0)]) == 4
    assert decimals([(0.0, 1e-9)]) == 6
    assert (decimals([]), decimals([(1.0, 1.0)], 4)) == (3, 4)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((0.161, (0.14, 0.182)), "0.161 nats (95 % interval 0.140 to 0.182)"),
        ((-0.2, (-0.25, 0.01), True), "−0.200 nats (95 % interval −0.250 to +0.010)"),
        ((0.01, (0.0095, 0.0101)), "0.01000 nats (95 % interval 0.00950 to 0.01010)"),
        ((0.1, None, True), "+0.100 nats (too few data for an interval)"),
    ],
)
def test_an_estimate_with_its_interval(given: tuple[Any, ...], expected: str) -> None:
    value, interval, *sign = given
    assert estimate(value, interval, "nats", *sign) == expected
