"""Exponential smoothing: averages of all the past, of level and of variance, beside a few lags.

    h_t = λ h_{t-1} + (1 - λ) x_{t-1},   v_t = λ v_{t-1} + (1 - λ) x²_{t-1},   at five rates λ

Location and log-scale of the next value are linear in the averages h and in log v, beside the lags
of a `LagRegression`: simple exponential smoothing (Brown 1956) and the variances of RiskMetrics
and of GARCH are of this kind. The averages are a recurrent state, which no finite order holds; all
weights are fitted by maximum likelihood.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.signal import lfilter

from throughtime.models.lag_regression import (
    Floats,
    LagRegression,
    Past,
    _kept,
    _squares,
)


class ExponentialSmoothing(LagRegression):
    """``P(X_t | all the past)`` through averages with half-lives of 2 to 160 steps.

    Args as `LagRegression`: `lags` may be empty. The state is the last values and the averages,
    which begin at the training data's own mean and variance, 0 and 1.
    """

    kind = "exponential_smoothing"
    half_lives = (2.0, 6.0, 18.0, 54.0, 160.0)  # steps

    def averages(self, past: Past) -> Floats:
        """Averages of x and x² before each target, at each rate: ``[n, D, R, 2]``."""
        age = past.anchors - past.first
        before = np.maximum(past.anchors - 1, 0)
        older = np.maximum(past.first - 1, 0)  # what belongs to the sequences before is taken out
        both = np.stack([np.nan_to_num(past.values), _squares(past.values)], -1)
        result = np.empty((len(age), past.values.shape[1], len(self.half_lives), 2))
        for i, keep in enumerate(_kept(self.half_lives)):
            running: Any = lfilter([1.0 - keep], [1.0, -keep], both, axis=0)
            rest = (keep**age)[:, None, None]
            others = np.where((past.first > 0)[:, None, None], running[older], 0.0)
            inside = running[before] - rest * others
            result[:, :, i] = np.where(age[:, None, None] > 0, inside, 0.0)
            result[:, :, i, 1] += rest[..., 0]
        return result
