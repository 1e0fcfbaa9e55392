"""Evaluation on data that no model has seen. Every function returns plain JSON values."""

from throughtime.evaluate.bootstrap import block_length, mean_interval
from throughtime.evaluate.calibration import calibration
from throughtime.evaluate.forecast import enough_paths, forecast
from throughtime.evaluate.predictive import next_risk
from throughtime.evaluate.scores import (
    Entry,
    StepScores,
    comparisons,
    paired,
    peak_memory_mb,
    table,
)
from throughtime.evaluate.surprisal import surprisal
from throughtime.evaluate.verdict import verdict

__all__ = [
    "Entry",
    "StepScores",
    "block_length",
    "calibration",
    "comparisons",
    "enough_paths",
    "forecast",
    "mean_interval",
    "next_risk",
    "paired",
    "peak_memory_mb",
    "surprisal",
    "table",
    "verdict",
]
