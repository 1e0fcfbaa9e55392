"""N-grams with far lags: distributions that agree with the n-gram, and find what is far."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import throughtime as tt
from throughtime import emissions
from throughtime.data.domain import Domain
from throughtime.errors import SettingError
from throughtime.models.sparse_ngram import SparseNGram

LAG = 40


def copied(length: int = 1500) -> tt.Sequences:
    """Six symbols, in seven of ten steps the one of 40 steps ago."""
    draw = np.random.default_rng(3)
    x = draw.integers(0, 6, length)
    for t in range(LAG, length):
        x[t] = x[t - LAG] if draw.uniform() < 0.7 else x[t]
    return tt.Sequences.of([torch.from_numpy(x)], Domain("symbols", num_symbols=6))


def test_distributions_sum_to_one_and_agree_with_the_ngram() -> None:
    data = copied()
    plain, far = (SparseNGram(1, lags, emission=emissions.Categorical(6)) for lags in ((), (LAG,)))
    nats = []
    for model in (plain, far):
        model.begin(data)
        table = model.predict(data, torch.arange(len(data.values))).logits.exp()
        torch.testing.assert_close(table.sum(1), torch.ones(len(table)).double())
        picked = table.gather(1, data.values[:, None])[:, 0].log()
        torch.testing.assert_close(picked, model.step_log_prob(data), rtol=1e-9, atol=1e-9)
        nats.append(-float(picked.mean()))
    ngram = tt.Autoregressive(1, emission=emissions.Categorical(6))
    ngram.begin(data)
    torch.testing.assert_close(plain.step_log_prob(data), ngram.step_log_prob(data))
    assert nats[1] < nats[0] - 0.5


def test_wrong_settings_are_errors() -> None:
    with pytest.raises(SettingError, match=r"far lags \(2,\) must lie beyond the order 2"):
        SparseNGram(2, (2,), emission=emissions.Categorical(6))
    with pytest.raises(SettingError, match="an n-gram counts symbols"):
        SparseNGram(2, emission=emissions.Normal())  # type: ignore[arg-type]
