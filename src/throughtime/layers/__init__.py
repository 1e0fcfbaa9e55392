"""Recurrent layers: torch.nn's constructors, parameters and numbers, and more."""

from collections.abc import Callable
from functools import partial
from typing import Any

from throughtime.layers.mingru import MinGRU
from throughtime.layers.recurrent import GRU, LSTM, RNN, LiGRU
from throughtime.layers.stepper import Stepper

__all__ = ["GRU", "LAYERS", "LSTM", "RNN", "LiGRU", "MinGRU", "Stepper"]

LAYERS: dict[str, Callable[..., Any]] = {
    "rnn": RNN,
    "rnn_relu": partial(RNN, nonlinearity="relu"),
    "rnn_identity": partial(RNN, nonlinearity="identity"),
    "gru": GRU,
    "lstm": LSTM,
    "li_gru": LiGRU,
    "mingru": MinGRU,
}  # by the name of the cell in models and files
