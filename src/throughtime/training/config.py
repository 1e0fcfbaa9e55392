"""Settings as data: what a run was made with, and nothing that could be executed."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from throughtime import emissions
from throughtime.data.transforms import Transforms
from throughtime.emissions import Emission
from throughtime.errors import SettingError

FAMILIES = ("ar", "rnn", "gru", "lstm")  # of models, by name


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainSettings(_Settings):
    """How a network is trained. Steps are optimiser updates."""

    steps: int = Field(1000, ge=1)
    lanes: int = Field(32, ge=1)  # sequences (or pieces of them) side by side
    segment: int | None = Field(None, ge=2)  # longest piece a lane runs without restarting, steps
    bptt: str = "full"  # whatever `bptt.parse` reads
    learning_rate: float = Field(3e-3, gt=0)
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = Field(0.01, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1)  # share of the steps
    final_rate: float = Field(0.02, ge=0, le=1)  # cosine down to this share of the peak rate
    clip: float = Field(1.0, gt=0)  # joint gradient norm, per scored step
    average: float = Field(0.99, ge=0, lt=1)  # exponential averaging of the weights; 0: off
    valid_every: int = Field(50, ge=1)
    patience: int | None = Field(None, ge=1)  # validations without improvement before stopping
    valid_past: int | None = Field(2000, ge=0)  # past steps read before each validation span
    checkpoint_seconds: float = Field(10.0, ge=0)
    # What follows the training on training data: nothing; the same from scratch on training and
    # validation data, for the best number of steps; or going on with both.
    refit: Literal["no", "from_scratch", "continue"] = "no"
    precision: Literal["float32", "bfloat16"] = "float32"  # of the products in training
    threads: int | None = Field(None, ge=1)  # None: torch's; small networks are faster on one
    max_skipped: int = Field(20, ge=1)  # non-finite steps in a row before giving up
    seed: int = 0


class DataSettings(_Settings):
    """How the data were read and cut; what `read` and `split` are given again on resume."""

    source: str
    fingerprint: str = ""
    options: dict[str, Any] = Field(default_factory=dict)
    split: Literal["auto", "time", "sequence", "spread"] = "auto"
    valid: float = Field(0.1, gt=0, lt=1)
    test: float = Field(0.1, gt=0, lt=1)


class RunSettings(_Settings):
    """Everything that `fit` was asked for."""

    data: DataSettings
    model: str | tuple[str | dict[str, Any], ...] = "auto"  # names, or settings of given models
    order: int | Literal["auto"] = "auto"
    hidden: int | None = None
    layers: int | None = None
    bptt: str = "auto"  # auto, or as in TrainSettings
    emission: str | dict[str, Any] = "auto"  # auto, as `emissions.parse` takes it, or its JSON
    symbols: str = "characters"  # of text: characters | bytes | tokens
    transforms: dict[str, Any] | None = None  # as JSON; None: chosen by validation likelihood
    baselines: tuple[str, ...] = ()  # of `models.baselines`, beside the naive ones
    time_limit: float | None = None  # seconds, for all models together
    seed: int = 0
    steps: int | None = None

    @property
    def families(self) -> tuple[str, ...]:
        """Of `FAMILIES` those to be fitted."""
        asked = (self.model,) if isinstance(self.model, str) else self.model
        return FAMILIES if self.model == "auto" else tuple(f for f in FAMILIES if f in asked)

    def asked_emission(self) -> Emission | str:
        """The emission by value, or its string form; "auto" where it is to be chosen."""
        asked = self.emission
        return asked if isinstance(asked, str) else emissions.from_json(asked)

    def given_transforms(self) -> Transforms | None:
        """The transforms asked for, fitted only if they were given so."""
        return None if self.transforms is None else Transforms.from_json(self.transforms)


def validated(kind: type[_Settings], values: dict[str, Any]) -> Any:
    """A settings object, with one readable line instead of pydantic's report when it is refused."""
    try:
        return kind(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(str(part) for part in first["loc"])
        raise SettingError(f"setting '{name}': {first['msg']}, got {first['input']!r}") from None
