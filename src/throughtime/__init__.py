"""throughtime: recurrent sequence models with exact likelihoods.

    import throughtime as tt

    run = tt.fit("prices.csv", value="close")
    print(run.verdict)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from throughtime import bptt, emissions, kernels
    from throughtime.layers import GRU, LSTM, RNN
    from throughtime.models.autoregressive import Autoregressive
    from throughtime.models.latent import LatentAutoregressive

__version__ = "0.1.0"

# Names are loaded on first use: importing torch takes seconds, and `--help` needs none of it.
_HOME = {
    "RNN": "throughtime.layers",
    "GRU": "throughtime.layers",
    "LSTM": "throughtime.layers",
    "Autoregressive": "throughtime.models.autoregressive",
    "LatentAutoregressive": "throughtime.models.latent",
}
_MODULES = ("bptt", "emissions", "kernels")

__all__ = [*_HOME, *_MODULES]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"throughtime.{name}")
    raise AttributeError(f"module 'throughtime' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
