"""The lags that are needed, on data whose memory is known."""

from __future__ import annotations

import pytest
from support.history_cases import trials_of

from throughtime.data import synthetic
from throughtime.history.lag_selection import Point, curve, sufficient


@pytest.mark.parametrize("seed", [0, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize("family", ["ar", "markov", "copy", "seasonal", "chaotic"])
def test_the_lags_needed_are_found(family: str, seed: int) -> None:
    sample = synthetic.FAMILIES[family](seed)
    points, needed = curve(trials_of(sample.data), seed)
    assert abs(needed - sample.lags) <= 0.2 * sample.lags, sample.about
    assert [point.lags for point in points] == sorted({point.lags for point in points})
    assert min(point.lost for point in points) == 0


def test_the_fewest_lags_within_the_interval_are_enough() -> None:
    def point(lags: int, lost: float, low: float) -> Point:
        return Point(lags, 1.0 + lost, lost, (low, 2 * lost - low))

    points = [point(0, 0.5, 0.4), point(1, 0.1, 0.05), point(2, 0.02, -0.01), point(3, 0.0, 0.0)]
    assert sufficient(points) == 2
    assert sufficient([points[0], points[1], points[3]]) == 3
    close = point(1, 0.004, 0.001)  # significant, and less than a hundredth of what there is
    assert sufficient([points[0], close, points[3]]) == 1
