"""Forecasts as values: paths, quantiles, events, frames."""

from __future__ import annotations

import numpy as np
import pytest

from throughtime.errors import SettingError
from throughtime.predict.forecast import Forecast, Question


def forecast(**changes: object) -> Forecast:
    """Two series of two columns, 4 and 6 paths of 3 steps."""
    chance = np.random.default_rng(0)
    draws = tuple(chance.normal(size=(count, 3, 2)) for count in (4, 6))
    stamps = np.datetime64("2020-01-31", "us") + np.arange(3)
    parts = {
        "names": ("a", "b"),
        "columns": ("low", "high"),
        "draws": draws,
        "times": (stamps, stamps + 1),
        "stamped": True,
        "question": Question(3, (0.1, 0.5)),
        "model": "gru",
    }
    return Forecast(**{**parts, **changes})  # type: ignore[arg-type]


def test_shapes() -> None:
    f = forecast()
    assert (len(f), f.horizon, f.num_paths) == (2, 3, 6)
    assert f.paths.shape == (2, 4, 3, 2)  # as many as there are of both
    assert f.mean.shape == (2, 3, 2)
    assert "array" not in repr(f)
    assert "names=('a', 'b')" in repr(f)
    assert f.quantile(0.5).shape == (2, 3, 2)
    assert f.quantile([0.1, 0.5, 0.9]).shape == (3, 2, 3, 2)
    np.testing.assert_array_equal(f.quantile([0.25])[0], f.quantile(0.25))
    np.testing.assert_allclose(f.quantile(0.5)[1], np.median(f.draws[1], axis=0))
    with pytest.raises(SettingError, match="levels lie between 0 and 1"):
        f.quantile(1.5)


def test_events_of_whole_paths() -> None:
    f = forecast()
    result = f.probability(lambda paths: paths[:, :, 0].sum(1) > 0)
    wanted = [(draws[:, :, 0].sum(1) > 0).mean() for draws in f.draws]
    np.testing.assert_allclose(result, wanted)
    with pytest.raises(SettingError, match=r"one truth value for each of 4 paths.*\[4, 3, 2\]"):
        f.probability(lambda paths: paths > 0)


def test_frames() -> None:
    f = forecast()
    frame = f.frame()
    assert frame.columns == ["unique_id", "ds", "column", "mean", "q0.1", "q0.5"]
    assert frame["unique_id"].to_list() == ["a"] * 6 + ["b"] * 6
    assert frame["column"].to_list() == (["low"] * 3 + ["high"] * 3) * 2
    for i, name in enumerate("ab"):
        for d, column in enumerate(("low", "high")):
            rows = frame.filter((frame["unique_id"] == name) & (frame["column"] == column))
            np.testing.assert_allclose(rows["mean"], f.draws[i][:, :, d].mean(0))
            np.testing.assert_allclose(rows["q0.1"], np.quantile(f.draws[i][:, :, d], 0.1, axis=0))
            np.testing.assert_array_equal(rows["ds"].to_numpy(), f.times[i])
    levels = f.frame(level=[80, 95]).columns
    assert levels[3:] == ["gru", "gru-lo-80", "gru-lo-95", "gru-hi-80", "gru-hi-95"]
    paths = f.path_frame()
    assert paths.columns == ["unique_id", "ds", "column", "path", "value"]
    one = paths.filter(
        (paths["unique_id"] == "b") & (paths["column"] == "high") & (paths["path"] == 5)
    )
    np.testing.assert_array_equal(one["value"], f.draws[1][4, :, 1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"horizon": 0}, "horizon=0: at least 1 step"),
        ({"horizon": 2.5}, "horizon=2.5: a whole number of steps"),
        ({"horizon": 1, "quantiles": (0.0, 0.5)}, "quantiles=0: they lie between 0 and 1"),
        ({"horizon": 1, "quantiles": ()}, "they lie between 0 and 1"),
        ({"horizon": 1, "num_paths": 0}, "paths=0: at least 1"),
        ({"horizon": 1, "tolerance": 0.0}, "tolerance=0: above 0"),
    ],
)
def test_questions_that_make_no_sense(options: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        Question(**options)  # type: ignore[arg-type]
