"""What `fit` was asked for, by value or in string form, as settings that a file can hold."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from throughtime import bptt as methods
from throughtime import emissions
from throughtime.bptt import GradientMethod
from throughtime.data.loading import seconds
from throughtime.data.transforms import Transform, Transforms, transform_from_json
from throughtime.emissions import Emission
from throughtime.errors import SettingError, nearest
from throughtime.models import registry
from throughtime.models.base import SequenceModel
from throughtime.models.baselines import BASELINES
from throughtime.predict.fitted import FittedModel
from throughtime.training.config import FAMILIES

Model = SequenceModel | FittedModel
SYMBOLS = ("characters", "bytes", "tokens")


@dataclass(frozen=True)
class Request:
    """The settings of the models, and the models that were given by value."""

    settings: dict[str, Any]
    models: tuple[Model, ...] = ()

    @property
    def read_options(self) -> dict[str, Any]:
        """How data are read for a fitted model that goes on being trained."""
        fitted = next((one for one in self.models if isinstance(one, FittedModel)), None)
        return {} if fitted is None else dict(fitted.read_options)


def request(
    *,
    model: str | Model | Sequence[str | Model],
    order: int | str,
    bptt: str | GradientMethod,
    emission: str | Emission,
    symbols: str,
    transforms: Transforms | Iterable[Transform | str | dict[str, Any]] | None,
    baselines: str | Iterable[str],
    time_limit: float | str | None,
    numbers: dict[str, int | None],
) -> Request:
    """What was asked for, refused before anything is read where it makes no sense.

    Args:
        model, order, bptt, emission, symbols, transforms, baselines, time_limit: as `fit` has them.
        numbers: hidden, layers, steps and seed.

    Raises:
        SettingError: with what would do.
    """
    given = _given(model)
    models = tuple(one for one in given if not isinstance(one, str))
    _choice("symbols", symbols, SYMBOLS)
    if order != "auto":
        if not str(order).isdigit() or int(order) < 1:
            raise SettingError(f"order={order} is not auto or a number of lags, 1 or more")
        order = int(order)
    for name, value in numbers.items():
        if name != "seed" and value is not None and value < 1:
            raise SettingError(f"{name}={value}: at least 1")
    if any(isinstance(one, FittedModel) for one in models) and transforms is not None:
        raise SettingError("a fitted model has its transforms, and goes on being trained with them")
    return Request(
        {
            "model": model if isinstance(model, str) else tuple(map(_described, given)),
            "order": order,
            "bptt": _bptt(bptt),
            "emission": _emission(emission),
            "symbols": symbols,
            "transforms": None if transforms is None else _transforms(transforms),
            "baselines": _baselines(baselines),
            "time_limit": seconds(time_limit),
            **numbers,
        },
        models,
    )


def _choice(name: str, given: str, known: Iterable[str]) -> None:
    if given not in known:
        near = nearest(given, known) or ";"
        raise SettingError(f"{name}={given}{near} use one of: {', '.join(known)}")


def _given(model: Any) -> tuple[str | Model, ...]:
    """The models asked for, by name or by value."""
    if isinstance(model, str):
        _choice("model", model, ("auto", *FAMILIES))
        return (model,)
    given = (model,) if isinstance(model, (SequenceModel, FittedModel)) else model
    if not isinstance(given, Iterable) or not (models := tuple(given)):
        raise SettingError(f"model={model!r}: a name, a model such as tt.LatentAutoregressive, or "
                           "a list of models and names")  # fmt: skip
    for one in models:
        if isinstance(one, str):
            _choice("model", one, FAMILIES)
        elif not isinstance(one, (SequenceModel, FittedModel)):
            raise SettingError(
                f"model= takes models (tt.LatentAutoregressive, tt.Autoregressive, any "
                f"SequenceModel, a FittedModel) and names, got {type(one).__name__}"
            )
    return models


def _described(model: str | Model) -> str | dict[str, Any]:
    """A given model as settings hold it; of a fitted one, the weights are what it is."""
    if isinstance(model, str):
        return model
    if isinstance(model, SequenceModel):
        return model.settings()
    digest = hashlib.sha256()
    for name, tensor in sorted(registry.tensors_of(model.model).items()):
        digest.update(name.encode() + tensor.detach().contiguous().numpy().tobytes())
    return {"from": model.name, "sha256": digest.hexdigest(), **model.model.settings()}


def _bptt(bptt: str | GradientMethod) -> str:
    if bptt != "auto":
        methods.parse(bptt)
    return str(bptt)


def _emission(emission: str | Emission) -> str | dict[str, Any]:
    """Its JSON where it is a value; a string is tried out on data of the smallest size."""
    if isinstance(emission, Emission):
        return emission.to_json()
    if not isinstance(emission, str):
        raise SettingError(
            f"emission= takes one of tt.emissions or its string form, not a "
            f"{type(emission).__name__}"
        )
    kind = emission.partition(":")[0].strip()
    _choice("emission", kind, ("auto", *emissions.KINDS))
    if kind != "auto":
        symbols = emissions.KINDS[kind].symbols
        emissions.parse(emission, **({"num_symbols": 2} if symbols else {"columns": 8}))
    return emission


def _transforms(
    transforms: Transforms | str | Iterable[Transform | str | dict[str, Any]],
) -> dict[str, Any]:
    if not isinstance(transforms, Transforms):
        specs = transforms.split(",") if isinstance(transforms, str) else transforms
        transforms = Transforms.unfitted(
            transform_from_json(spec) if isinstance(spec, dict) else spec for spec in specs
        )
    return transforms.to_json()


def _baselines(baselines: str | Iterable[str]) -> tuple[str, ...]:
    names = baselines.split(",") if isinstance(baselines, str) else baselines
    chosen = tuple(dict.fromkeys(name.strip() for name in names if name.strip()))
    for name in chosen:
        _choice("baselines", name, tuple(BASELINES))
    return chosen


def check_kept(models: Iterable[Model], folder: Path) -> None:
    """Raises SettingError for a model of a kind that no file can name."""
    for one in models:
        model = one.model if isinstance(one, FittedModel) else one
        kind = model.settings().get("kind")
        if kind not in registry.KINDS:
            raise SettingError(
                f"the model {type(model).__name__} cannot be kept in {folder}: only models of "
                "this package can be read back; fit it without out="
            )
