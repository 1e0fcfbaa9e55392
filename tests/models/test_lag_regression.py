"""Regressions on chosen lags, with and without averages of all the past."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import throughtime as tt
from throughtime import emissions
from throughtime.errors import SettingError
from throughtime.models.exponential_smoothing import ExponentialSmoothing
from throughtime.models.lag_regression import SHAPES, LagRegression, Past


def nats(model: LagRegression, data: tt.Sequences) -> float:
    return -float(model.step_log_prob(data).mean())


@pytest.mark.parametrize("kind", [LagRegression, ExponentialSmoothing])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_weights_are_most_likely(kind: type[LagRegression], shape: str) -> None:
    """Nothing near the weights found is better, and the lags help."""
    source = np.random.default_rng(1)
    x = source.standard_t(5, size=(600, 2))
    x[3:, 0] += 0.6 * x[:-3, 1]
    data = tt.Sequences.of([torch.from_numpy(x)]).transform(["standardise"])
    model, alone = (
        kind(lags, emission=emissions.StudentT(2), shape=shape) for lags in ((1, 2, 3), ())
    )
    model.begin(data)
    alone.begin(data)
    best = nats(model, data)
    assert best < nats(alone, data) - 0.05
    assert model.weights is not None
    for weights in model.weights[:2]:
        for column in weights:
            for i in range(0, len(column), 5):
                kept = float(column[i])
                for step in (-0.05, 0.05):
                    column[i] = kept + step
                    assert nats(model, data) > best - 1e-3
                column[i] = kept


def test_averages_are_what_they_say() -> None:
    source = np.random.default_rng(0)
    x = source.normal(size=(2, 30))
    data = tt.Sequences.of([torch.from_numpy(row) for row in x])
    model = ExponentialSmoothing((1,), emission=emissions.StudentT())
    rows = torch.arange(60)
    result = model.averages(Past.of(data, rows))
    for i, half in enumerate(model.half_lives):
        keep = 0.5 ** (1 / half)
        for target in (0, 1, 12, 29, 30, 45):
            row, t = divmod(target, 30)
            past = x[row, :t][::-1]
            weights = keep ** np.arange(len(past))
            of_level = (1 - keep) * past @ weights
            of_square = (1 - keep) * past**2 @ weights + keep ** len(past)
            assert result[target, 0, i] == pytest.approx([of_level, of_square], rel=1e-9)


def test_changing_variance_is_seen() -> None:
    source = np.random.default_rng(2)
    x, variance = np.zeros(4000), 1.0
    for t in range(1, 4000):
        variance = 0.02 + 0.1 * x[t - 1] ** 2 + 0.88 * variance
        x[t] = variance**0.5 * source.normal()
    data = tt.Sequences.of([torch.from_numpy(x)]).transform(["standardise"])
    result = {}
    for shape in SHAPES:
        for kind in (LagRegression, ExponentialSmoothing):
            model = kind((1,), emission=emissions.StudentT(), shape=shape)
            model.begin(data)
            result[shape, kind] = nats(model, data)
    assert result["additive", LagRegression] < result["linear", LagRegression] - 0.01
    assert result["additive", ExponentialSmoothing] < result["additive", LagRegression] - 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lags": (2, 1)}, r"lags \(2, 1\) must be 1 or more and ascend"),
        ({"lags": (0,)}, "must be 1 or more"),
        ({"shape": "cubic"}, "shape 'cubic' is not one of: linear, additive"),
        ({"emission": emissions.StudentT(2, 1)}, "rank=0"),
    ],
)
def test_wrong_settings_are_errors(options: dict[str, object], message: str) -> None:
    with pytest.raises(SettingError, match=message):
        LagRegression(**{"emission": emissions.StudentT(), **options})  # type: ignore[arg-type]
