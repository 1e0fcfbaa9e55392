"""throughtime: recurrent sequence models with exact likelihoods.

    import throughtime as tt

    run = tt.fit("prices.csv", value="close")
    print(run.verdict)

Names are loaded on first use: importing torch takes seconds, and `--help` needs none of it.
"""

from __future__ import annotations

import importlib
import sys

from throughtime._version import __version__ as __version__

TYPE_CHECKING = False  # the module typing takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Any

    from throughtime import bptt as bptt
    from throughtime import emissions as emissions
    from throughtime import gradflow as gradflow
    from throughtime import history as history
    from throughtime import kernels as kernels
    from throughtime.data.batching import Batch as Batch
    from throughtime.data.batching import Lanes as Lanes
    from throughtime.data.readers.read import read as read
    from throughtime.data.sequences import Sequences as Sequences
    from throughtime.layers.accelerate import accelerate as accelerate
    from throughtime.layers.accelerate import restore as restore
    from throughtime.layers.mingru import MinGRU as MinGRU
    from throughtime.layers.recurrent import GRU as GRU
    from throughtime.layers.recurrent import LSTM as LSTM
    from throughtime.layers.recurrent import RNN as RNN
    from throughtime.layers.recurrent import LiGRU as LiGRU
    from throughtime.layers.stepper import Stepper as Stepper
    from throughtime.models.autoregressive import Autoregressive as Autoregressive
    from throughtime.models.context import Context as Context
    from throughtime.models.latent import LatentAutoregressive as LatentAutoregressive
    from throughtime.predict.fitted import FittedModel as FittedModel
    from throughtime.predict.forecast import Forecast as Forecast
    from throughtime.predict.train import train as train
    from throughtime.runs.fit import fit as fit
    from throughtime.runs.run import Run as Run
    from throughtime.runs.run import load as load
    from throughtime.training.config import TrainSettings as TrainSettings
    from throughtime.training.trainer import Trainer as Trainer


__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "Autoregressive",
    "Batch",
    "Context",
    "FittedModel",
    "Forecast",
    "Lanes",
    "LatentAutoregressive",
    "LiGRU",
    "MinGRU",
    "Run",
    "Sequences",
    "Stepper",
    "TrainSettings",
    "Trainer",
    "accelerate",
    "bptt",
    "emissions",
    "fit",
    "gradflow",
    "history",
    "kernels",
    "load",
    "read",
    "restore",
    "train",
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
    "restore": "layers.accelerate",
    "Stepper": "layers.stepper",
    "fit": "runs.fit",
    "load": "runs.run",
    "read": "data.readers.read",
    "Batch": "data.batching",
    "Lanes": "data.batching",
    "Context": "models.context",
    "FittedModel": "predict.fitted",
    "Forecast": "predict.forecast",
    "train": "predict.train",
    "TrainSettings": "training.config",
    "Trainer": "training.trainer",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'throughtime' has no attribute '{name}'")
    if name not in _HOME:
        found: Any = importlib.import_module(f"throughtime.{name}")
    else:
        found = getattr(importlib.import_module(f"throughtime.{_HOME[name]}"), name)
        globals()[name] = found
    _register()
    return found


def _register() -> None:
    """Makes our operators known to torch, so that saved programs that call them can be loaded."""
    if "torch" in sys.modules:
        importlib.import_module("throughtime.kernels")


class _AfterTorch:
    """Registers our operators as soon as somebody imports torch; we do not, for its seconds."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> Any:
        if name != "torch":
            return None
        sys.meta_path.remove(self)
        from importlib import util

        spec = util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: Any) -> None:
            execute(module)
            ours = [known for known in sys.modules if known.startswith("throughtime.")]
            if ours == ["throughtime._version"]:
                _register()  # else torch is imported by us, and __getattr__ does it in the end

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if "torch" in sys.modules:
    _register()
else:
    sys.meta_path.insert(0, _AfterTorch())


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
