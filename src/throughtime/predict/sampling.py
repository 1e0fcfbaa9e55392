"""New sequences drawn from a model, in the data's own units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from throughtime.data.transforms import Transforms
from throughtime.errors import SettingError
from throughtime.models.base import SequenceModel
from throughtime.models.context import Context
from throughtime.types import Progress

_UNFINISHED = "\ufffd"  # how text ends whose last bytes are not a character yet
_HELD = 4  # bytes or tokens that a character is made of at most


@dataclass(frozen=True)
class Draw:
    """What is to be drawn. Raises SettingError where that makes no sense."""

    length: int
    num_paths: int
    seed: int
    temperature: float
    top_p: float

    def __post_init__(self) -> None:
        if self.length < 1 or self.num_paths < 1:
            raise SettingError(f"length={self.length}, paths={self.num_paths}: both are at least 1")
        if not self.temperature > 0 or not 0 < self.top_p <= 1:
            raise SettingError(
                f"temperature={self.temperature:g}, top_p={self.top_p:g}: the temperature is "
                "above 0, and top-p above 0 and at most 1"
            )


def sample(
    model: SequenceModel, transforms: Transforms, whose: str, wanted: Draw, on_progress: Progress
) -> Tensor | list[Tensor]:
    """See `FittedModel.sample`."""
    _refuse_covariates(model, whose)
    stream = model.stream(
        None, wanted.num_paths, wanted.seed, temperature=wanted.temperature, top_p=wanted.top_p
    )
    steps = []
    for step in range(wanted.length):
        steps.append(next(stream))
        on_progress(step + 1, wanted.length, "drawing")
    drawn = torch.stack(steps, 1)
    if {"bytes", "tokens"} & set(transforms.kinds):
        return [transforms.inverse(path) for path in drawn]
    return transforms.inverse(drawn.double() if drawn.is_floating_point() else drawn)


def stream_text(
    model: SequenceModel,
    transforms: Transforms,
    whose: str,
    wanted: Draw,
    context: Context | None,
    by_line: bool,
    path: int,
) -> Iterator[str]:
    """See `FittedModel.stream_text`; by_line: a newline ends a sequence and begins another."""
    _refuse_covariates(model, whose)
    name, left, lines = "" if path == 0 else f"path {path}", wanted.length, 0
    while left > 0:
        stream = model.stream(
            context, 1, wanted.seed, temperature=wanted.temperature, top_p=wanted.top_p,
            name=f"{name}/line {lines}" if lines else name,
        )  # fmt: skip
        held: list[Tensor] = []
        ended = False
        while left > 0 and not ended:
            held.append(next(stream))
            left -= 1
            text = transforms.text(torch.cat(held))
            if left > 0 and len(held) < _HELD and text.endswith(_UNFINISHED):
                continue  # the rest of the character is still to come
            held = []
            yield text
            ended = by_line and text.endswith("\n")
        context, lines = None, lines + 1


def _refuse_covariates(model: SequenceModel, whose: str) -> None:
    if model.covariates:
        raise SettingError(
            f"{whose} was fitted with covariates, which sampling would have to invent; use "
            "forecast with future="
        )
