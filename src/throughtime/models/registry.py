"""The kinds of models that files name: a fixed table, never an import path."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from throughtime import emissions
from throughtime.errors import SettingError
from throughtime.models.autoregressive import Autoregressive
from throughtime.models.base import SequenceModel
from throughtime.models.ensemble import Blend
from throughtime.models.exponential_smoothing import ExponentialSmoothing
from throughtime.models.garch import Garch
from throughtime.models.hmm import HiddenMarkov
from throughtime.models.lag_regression import LagRegression
from throughtime.models.latent import Dropout, LatentAutoregressive
from throughtime.models.sparse_ngram import SparseNGram

KINDS: dict[str, Any] = {
    "latent": LatentAutoregressive,
    "autoregressive": Autoregressive,
    "lag_regression": LagRegression,
    "sparse_ngram": SparseNGram,
    "exponential_smoothing": ExponentialSmoothing,
    "hmm": HiddenMarkov,
    "garch": Garch,
}


def tensors_of(model: SequenceModel) -> dict[str, Tensor]:
    """Everything fitted, by name."""
    tensors = {f"state.{name}": value for name, value in model.state_dict().items()}
    return tensors | {f"extra.{name}": value for name, value in model.extra_tensors().items()}


def restored(settings: dict[str, Any], tensors: dict[str, Tensor]) -> SequenceModel:
    """The model whose `settings()` and `tensors_of` these are, in evaluation mode.

    Raises:
        SettingError: where the settings describe another model than the one of these tensors; its
            sizes are compared before anything of them is allocated.
    """
    state = {k.removeprefix("state."): v for k, v in tensors.items() if k.startswith("state.")}
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in build(settings).state_dict().items()}
    if shapes != {name: value.shape for name, value in state.items()}:
        raise SettingError("its sizes are not those of its weights")
    model = build(settings)
    model.load_state_dict(state)
    extra = {k.removeprefix("extra."): v for k, v in tensors.items() if k.startswith("extra.")}
    model.restore(extra)
    return model.eval()


def build(description: dict[str, Any]) -> SequenceModel:
    """A model from its settings.

    Args:
        description: JSON values, as `SequenceModel.settings` gives them.

    Returns:
        The model, not fitted.

    Raises:
        SettingError: for a kind that is not in the table.
    """
    options = dict(description)
    kind = options.pop("kind", None)
    if kind == "blend":
        return Blend([build(part) for part in options["models"]], options["weights"])
    if kind not in KINDS:
        raise SettingError(f"model kind '{kind}' is not one of: {', '.join(KINDS)}, blend")
    options["emission"] = emissions.from_json(options["emission"])
    if kind == "latent":
        names = ("dropout", "input_dropout", "recurrent_dropout")
        options["dropout"] = Dropout(*(options.pop(name) for name in names))
        options["identities"] = tuple(options["identities"])
    model: SequenceModel = KINDS[kind](**options)
    return model
