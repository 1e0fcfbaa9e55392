"""Whether predicted probabilities are frequencies."""

from __future__ import annotations

import torch

from throughtime import rng
from throughtime.data.sequences import Sequences
from throughtime.evaluation.predictive import evenly, is_numeric, walk
from throughtime.evaluation.results import Calibration
from throughtime.predict.fitted import FittedModel

BINS = 20
MOST_STEPS = 20_000  # evenly spread over longer test data; more would not show in 20 bins
LEVELS = (*(k / 10 for k in range(1, 10)), 0.95)


def calibration(fitted: FittedModel, raw_test: Sequences, seed: int = 0) -> Calibration | None:
    """The probability integral transform (PIT) of one-step distributions, and their coverage.

    PIT: the cdf of each distribution at the truth, uniform for a calibrated model; for discrete
    distributions drawn uniformly between the cdf before and at the truth (Czado, Gneiting & Held
    2009, Biometrics 65). Columns are pooled.

    Args:
        fitted: the model.
        raw_test: raw data, with its past.
        seed: of the draws.

    Returns:
        None where values are not amounts (text, symbols, 0 and 1) or none is scored.
    """
    if not is_numeric(fitted.transforms, raw_test):
        return None
    transformed = fitted.transformed(raw_test)
    source = rng.generator(seed, "pit")
    parts = []
    for index, distribution in walk(
        fitted.model, transformed, evenly(transformed.scored(), MOST_STEPS)
    ):
        x = transformed.values[index].double()
        pit = distribution.cdf(x)
        if distribution.discrete:
            before = distribution.cdf(x - 1)
            pit = before + (pit - before) * torch.rand(
                pit.shape, generator=source, dtype=torch.float64
            )
        parts.append(pit.flatten())
    if not parts:
        return None
    pit = torch.cat(parts).clamp(0, 1)
    counts = torch.histc(pit, BINS, 0.0, 1.0)
    share = (2.0 * pit - 1.0).abs()
    return Calibration(
        pit=(counts / counts.sum()).tolist(),
        count=len(pit),
        coverage={level: float((share <= level).double().mean()) for level in LEVELS},
    )
