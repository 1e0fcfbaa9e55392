"""`tt.train`: one model trained by hand, to a `FittedModel`."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from throughtime.bptt import GradientMethod, parse
from throughtime.data.readers.read import read
from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Difference, Transform, Transforms
from throughtime.errors import SettingError, nearest
from throughtime.models import registry
from throughtime.models.autoregressive import Autoregressive
from throughtime.models.base import SequenceModel, as_sequences
from throughtime.predict.fitted import FittedModel
from throughtime.runtime import isolated, threads
from throughtime.training.config import TrainSettings, validated
from throughtime.training.trainer import Trainer
from throughtime.types import Event, unheard

_SETTINGS = tuple(name for name in TrainSettings.model_fields if name != "refit")


def train(
    model: SequenceModel | FittedModel,
    train: Any,
    valid: Any = None,
    *,
    transforms: Transforms | Iterable[Transform | str] | None = None,
    bptt: GradientMethod | str | None = None,
    name: str | None = None,
    out: str | Path | None = None,
    on_event: Event = unheard,
    **settings: Any,
) -> FittedModel:
    """Trains one model, or goes on training a fitted one, and keeps where its data ended.

    The model that is given is left as it is: a copy is trained. Closed forms (`Autoregressive`
    with a linear or n-gram predictor, …) are fitted at once; networks are trained by the loop of
    `throughtime.training.trainer.Trainer`, the same seed giving the same bits.

    Args:
        model: a `LatentAutoregressive`, an `Autoregressive` or any other `SequenceModel`; or a
            `FittedModel`, whose transforms stay and whose weights are where training begins.
        train: `Sequences`, or whatever `tt.read` takes.
        valid: the same, to keep the weights that are best on it; None keeps the last averages.
        transforms: of the data, by name or as values, fitted on the training data.
        bptt: a method of `tt.bptt`, or its string form; full BPTT if not given.
        name: what the model is called; its kind if not given.
        out: a folder to keep checkpoints and the fitted model in; nothing is written without.
        on_event: called at every validation, as log.jsonl would hold it.
        settings: of `throughtime.training.config.TrainSettings`: steps (updates), lanes, segment,
            learning_rate, weight_decay, clip, patience, seed, ….

    Returns:
        The fitted model, which forecasts go on from the end of the training (and validation) data.

    Raises:
        SettingError: for settings, transforms or data that do not fit together.
        DataError: for data that cannot be used.
        NonFiniteError: where the loss is not finite for too long.

    Example:
        >>> model = tt.LatentAutoregressive("gru", 64, emission=tt.emissions.StudentT())
        >>> fitted = tt.train(model, data, transforms=["standardise"], bptt="64,128", steps=500)
    """
    asked = _settings(settings, bptt, model)
    with isolated():
        raw = _read(train, model)
        held = None if valid is None else _read(valid, model)
        torch.manual_seed(asked.seed)
        begun = _begun(model, raw, transforms, name)
        fitted = _trained(begun, raw, held, asked, out, on_event)
        ended = fitted.ending(_whole(raw, held))
    if out is not None:
        ended.save(out)
    return ended


def _settings(
    given: dict[str, Any], bptt: GradientMethod | str | None, model: SequenceModel | FittedModel
) -> TrainSettings:
    """The settings, refused before any data are read where they make no sense."""
    for key in given:
        if key not in _SETTINGS:
            near = nearest(key, _SETTINGS) or ";"
            raise SettingError(f"train has no option '{key}'{near} it has {', '.join(_SETTINGS)}")
    before = model.training if isinstance(model, FittedModel) else None
    asked = {} if before is None else before.model_dump()
    asked |= given | {"refit": "no"}
    if bptt is not None:
        parse(bptt)  # refuses what is neither a method nor its string form
        asked["bptt"] = str(bptt)
    settings: TrainSettings = validated(TrainSettings, asked)
    return settings


def _read(source: Any, model: SequenceModel | FittedModel) -> Sequences:
    return model.read(source) if isinstance(model, FittedModel) else read(source)


def _begun(
    model: SequenceModel | FittedModel,
    raw: Sequences,
    transforms: Transforms | Iterable[Transform | str] | None,
    name: str | None,
) -> FittedModel:
    """A copy of the model before its first update, with its transforms."""
    if isinstance(model, FittedModel):
        if transforms is not None:
            raise SettingError(
                f"{model.whose} has its transforms, and goes on being trained with them"
            )
        copied = copy.deepcopy(model.model)
        return replace(model, name=name or model.name, model=copied, end=None, training=None)
    if not isinstance(model, SequenceModel):
        raise SettingError(
            f"train takes a model (tt.LatentAutoregressive, tt.Autoregressive, any SequenceModel) "
            f"or a FittedModel, not a {type(model).__name__}; tt.fit takes names"
        )
    if transforms is None:  # text comes as code points, of which no model has a table
        transforms = ("characters",) if raw.domain.kind == "text" else ()
    chain = transforms if isinstance(transforms, Transforms) else Transforms(())
    if chain.domain is None:
        chain = Transforms.fit(transforms, raw)
    fitted = FittedModel(
        name or name_of(model), adapted(model, chain), chain,
        read_options=raw.read_options, plan=raw.plan, library=raw.library,
    )  # fmt: skip
    fitted.model.begin(as_sequences(fitted.transformed(raw), model.emission))
    return fitted


def adapted(model: SequenceModel, transforms: Transforms) -> SequenceModel:
    """A copy that knows how many initial values the transforms leave undifferenced."""
    count = sum(t.lag for t in transforms if isinstance(t, Difference))
    if isinstance(model, Autoregressive) and model.num_differencing != count:
        return registry.build({**model.settings(), "num_differencing": count})
    copied = copy.deepcopy(model)
    copied.num_differencing = count
    return copied


def name_of(model: SequenceModel) -> str:
    """What a model is called that nobody named."""
    settings = model.settings()
    cell, order = settings.get("cell"), settings.get("order")
    return str(cell or (f"ar({order})" if order is not None else settings.get("kind", "model")))


def _trained(
    begun: FittedModel,
    raw: Sequences,
    held: Sequences | None,
    settings: TrainSettings,
    out: str | Path | None,
    on_event: Event,
) -> FittedModel:
    """The model after its training."""
    data = begun.transformed(raw)
    wanted = 0 if data.covariates is None else data.covariates.shape[1]
    if begun.model.covariates not in (0, wanted):
        raise SettingError(
            f"{begun.whose} takes {begun.model.covariates} covariates, the data have {wanted}"
        )
    if begun.model.closed_form:
        return begun
    folder = None if out is None else Path(out) / "checkpoint" / "training"
    kept = None if held is None else begun.transformed(held)
    with threads(settings.threads):
        Trainer(begun.model, data, kept, settings, on_event, folder).run()
    begun.model.eval()
    return replace(begun, training=settings)


def _whole(raw: Sequences, held: Sequences | None) -> Sequences:
    """What forecasts go on from: the validation data where they hold their past, else both."""
    if held is None or set(raw.names) - set(held.names):
        return raw
    return held
