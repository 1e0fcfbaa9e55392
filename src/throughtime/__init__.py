"""throughtime: recurrent sequence models with exact likelihoods.

    import throughtime as tt

    run = tt.fit("prices.csv", value="close")
    print(run.verdict)

Names are loaded on first use: importing torch takes seconds, and `--help` needs none of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from throughtime._version import __version__ as __version__

if TYPE_CHECKING:
    from throughtime import bptt as bptt
    from throughtime import emissions as emissions
    from throughtime import gradflow as gradflow
    from throughtime import history as history
    from throughtime import kernels as kernels
    from throughtime.data.readers.read import read as read
    from throughtime.data.sequences import Sequences as Sequences
    from throughtime.layers.accelerate import accelerate as accelerate
    from throughtime.layers.mingru import MinGRU as MinGRU
    from throughtime.layers.recurrent import GRU as GRU
    from throughtime.layers.recurrent import LSTM as LSTM
    from throughtime.layers.recurrent import RNN as RNN
    from throughtime.layers.recurrent import LiGRU as LiGRU
    from throughtime.models.autoregressive import Autoregressive as Autoregressive
    from throughtime.models.latent import LatentAutoregressive as LatentAutoregressive
    from throughtime.runs.fit import fit as fit
    from throughtime.runs.run import Run as Run
    from throughtime.runs.run import load as load


__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Autoregressive",
    "LatentAutoregressive",
    "LiGRU",
    "MinGRU",
    "Run",
    "Sequences",
    "accelerate",
    "bptt",
    "emissions",
    "fit",
    "gradflow",
    "history",
    "kernels",
    "load",
    "read",
]

_HOME = {
    "GRU": "layers.recurrent",
    "LSTM": "layers.recurrent",
    "LiGRU": "layers.recurrent",
    "RNN": "layers.recurrent",
    "MinGRU": "layers.mingru",
    "Autoregressive": "models.autoregressive",
    "LatentAutoregressive": "models.latent",
    "Run": "runs.run",
    "Sequences": "data.sequences",
    "accelerate": "layers.accelerate",
    "fit": "runs.fit",
    "load": "runs.run",
    "read": "data.readers.read",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'throughtime' has no attribute '{name}'")
    if name not in _HOME:
        return importlib.import_module(f"throughtime.{name}")
    found = getattr(importlib.import_module(f"throughtime.{_HOME[name]}"), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
