"""Toy problems, small networks and trainers for the tests of training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import throughtime as tt
from support.model_cases import generator
from throughtime.data.sequences import Domain, Sequences
from throughtime.models.latent import LatentAutoregressive
from throughtime.training import checkpoint
from throughtime.training.config import TrainSettings
from throughtime.training.trainer import Trainer

SYMBOLS = tt.emissions.Categorical(4)


def cycle(length: int, seed: int = 0) -> Tensor:
    """0 1 2 3 0 1 …, a tenth of the symbols replaced by noise."""
    chance = generator(seed)
    x = (torch.arange(length) + seed) % 4
    noise = torch.randint(0, 4, (length,), generator=chance)
    return torch.where(torch.rand(length, generator=chance) < 0.1, noise, x)


def toy(lengths: tuple[int, ...] = (70, 40, 55), seed: int = 0) -> Sequences:
    parts = [cycle(length, seed + i) for i, length in enumerate(lengths)]
    return Sequences.of(parts, domain=Domain("symbols", num_symbols=4))


def small_model(seed: int = 0, **options: Any) -> LatentAutoregressive:
    torch.manual_seed(seed)
    given: dict[str, Any] = {"cell": "gru", "hidden_size": 6, "emission": SYMBOLS} | options
    return LatentAutoregressive(**given)


def trainer(
    settings: dict[str, Any],
    folder: Path | None = None,
    kind: type[Trainer] = Trainer,
    **given: Any,
) -> Trainer:
    options = {"steps": 12, "lanes": 3, "valid_every": 5, "checkpoint_seconds": 1e9} | settings
    model = given.pop("model", None) or small_model(dropout=0.3)
    return kind(model, toy(), toy((20, 30), 7), TrainSettings(**options), folder=folder, **given)


def everything(done: Trainer) -> dict[str, Any]:
    """All that a run ends with, bit for bit."""
    moments = checkpoint.pack_optimiser(done.optimiser, tensors := {})
    return {
        "weights": [p.detach().clone() for p in done.parameters],
        "averages": done.averages,
        "best": done.best,
        "optimiser": [moments, tensors],
        "progress": vars(done.progress) | {"seconds": 0, "cursor": 0, "begin": 0},
    }


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)
