"""Recurrent layers: torch.nn's constructors, parameters and numbers, and more."""

from throughtime.layers.mingru import MinGRU
from throughtime.layers.recurrent import GRU, LSTM, RNN

__all__ = ["GRU", "LSTM", "RNN", "MinGRU"]
