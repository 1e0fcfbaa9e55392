"""throughtime: recurrent sequence models with exact likelihoods.

    import throughtime as tt

    run = tt.fit("prices.csv", value="close")
    print(run.verdict)

Names are loaded on first use: importing torch takes seconds, and `--help` needs none of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from throughtime import bptt as bptt
    from throughtime import emissions as emissions
    from throughtime import gradflow as gradflow
    from throughtime import kernels as kernels
    from throughtime.accelerated import accelerate as accelerate
    from throughtime.data.read import read as read
    from throughtime.data.sequences import Sequences as Sequences
    from throughtime.layers import GRU as GRU
    from throughtime.layers import LSTM as LSTM
    from throughtime.layers import RNN as RNN
    from throughtime.models.autoregressive import Autoregressive as Autoregressive
    from throughtime.models.latent import LatentAutoregressive as LatentAutoregressive
    from throughtime.pipeline import fit as fit
    from throughtime.run import Run as Run
    from throughtime.run import load as load

__version__ = "0.1.0"

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Autoregressive",
    "LatentAutoregressive",
    "Run",
    "Sequences",
    "accelerate",
    "bptt",
    "emissions",
    "fit",
    "gradflow",
    "kernels",
    "load",
    "read",
]

_HOME = {
    "GRU": "layers",
    "LSTM": "layers",
    "RNN": "layers",
    "Autoregressive": "models.autoregressive",
    "LatentAutoregressive": "models.latent",
    "Run": "run",
    "Sequences": "data.sequences",
    "accelerate": "accelerated",
    "fit": "pipeline",
    "load": "run",
    "read": "data.read",
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
