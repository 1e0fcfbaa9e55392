"""Evaluation on data that no model has seen. Every function returns plain JSON values."""

from throughtime.evaluation.bootstrap import block_length, mean_interval
from throughtime.evaluation.calibration import calibration
from throughtime.evaluation.comparison import Entry, StepScores, comparisons, paired, table
from throughtime.evaluation.forecasts import forecast
from throughtime.evaluation.predictive import next_risk
from throughtime.evaluation.summary import verdict
from throughtime.evaluation.surprisal import surprisal
from throughtime.runtime import peak_memory_mb

__all__ = [
    "Entry",
    "StepScores",
    "block_length",
    "calibration",
    "comparisons",
    "forecast",
    "mean_interval",
    "next_risk",
    "paired",
    "peak_memory_mb",
    "surprisal",
    "table",
    "verdict",
]
