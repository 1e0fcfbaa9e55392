"""What an evaluation finds, as values: checked when they are made, JSON only in `Scores`.

Numbers that are not finite are None, in memory as in JSON. Nothing here imports torch: a report
reads these values without any model.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sized
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from throughtime import files

SCHEMA = 2

Number = Annotated[float | None, BeforeValidator(files.finite)]
Numbers = tuple[Number, ...]
Interval = tuple[float, float]
Times = tuple[str | float, ...]  # moments as `wording.stamp` writes them, or numbers
Side = Literal["better", "worse", "open"]
Family = Literal["reference", "autoregressive", "latent", "blend", "baseline"]
Part = Literal["train", "validation", "test"]


class Result(BaseModel):
    """A value that cannot be changed, and has no fields but its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return self.model_dump(mode="json")


class Difference(Result):
    """Nats per step that one model needs more than another, negative where it is better, with its
    95 % interval, None where the data are too few.
    """

    value: Number
    interval: Interval | None = None

    @property
    def side(self) -> Side:
        """On which side of zero the interval lies; "open" where it holds zero or is unknown."""
        if self.interval is None:
            return "open"
        low, high = self.interval
        return "better" if high < 0 else "worse" if low > 0 else "open"


class Comparison(Difference):
    """A difference between two models by name, and how often the training of `model` went through
    its data, if that was counted.
    """

    model: str
    against: str
    passes: float | None = None


class Comparisons(Result):
    """What a verdict is made of; best is meant by validation.

    Attributes:
        past: the best model that looks at the past, against the best reference.
        latent: the best latent model, against the best finite-order model.
        baseline: the best baseline, against the model of `past`.
    """

    past: Comparison | None = None
    latent: Comparison | None = None
    baseline: Comparison | None = None


class ModelScores(Result):
    """One model on test data.

    Attributes:
        family: a "reference" has a fixed distribution (of values, changes, …) and no memory beyond
            it; a "baseline" is a standard model of the field beside ours.
        nats_per_step: minus the mean log-likelihood of the test steps.
        validation_nats_per_step: by which everything is chosen.
        perplexity: of symbols.
        difference: to the reference, to_best: to the selected model.
        seconds: what fitting took.
        selected: it is the best by validation.
    """

    name: str
    family: Family
    description: str = ""
    parameters: int
    nats_per_step: Number
    validation_nats_per_step: Number
    bits_per_step: Number = None
    bits_per_character: Number = None
    bits_per_byte: Number = None
    perplexity: Number = None
    difference: Difference | None = None
    to_best: Difference | None = None
    seconds: float
    peak_memory_mb: Number = None
    selected: bool = False

    @property
    def beats_reference(self) -> bool:
        """Whether its interval lies clear of the best reference, on the better side."""
        return self.difference is not None and self.difference.side == "better"


class DataSummary(Result):
    """What was modelled, and how it was split.

    Attributes:
        kind: "text", "sound", "real", …
        steps, time: of each part; first and last moment, None without times.
        notes: of reading.
        transforms: kinds of the selected model's transforms, in order.
    """

    source: str
    kind: str
    sequences: int
    columns: tuple[str, ...] = ()
    step: str
    steps: dict[Part, int]
    time: dict[Part, tuple[str, str] | None] | None = None
    notes: tuple[str, ...] = ()
    transforms: tuple[str, ...] = ()


class OrderScore(Result):
    """A finite-order model of one order: nats per validation step, AIC and BIC of the training."""

    order: int
    nats_per_step: Number
    aic: Number = None
    bic: Number = None


class Accuracy(Result):
    """Measures of forecasts, averaged; in units of the data, but for MASE and sMAPE (per cent).

    Pinball loss is by level of the quantile, coverage (the share of the truth that lies inside) by
    nominal level of the central interval.
    """

    crps: Number = None
    mase: Number = None
    smape: Number = None
    rmse: Number = None
    pinball: dict[float, Number] = Field(default_factory=dict)
    coverage: dict[float, Number] = Field(default_factory=dict)


class HorizonAccuracy(Accuracy):
    """Accuracy so many steps ahead."""

    horizon: int


class OneStepAccuracy(Accuracy):
    """Accuracy of exact distributions one step ahead, over `count` steps."""

    count: int = 0


class Past(Result):
    """What came before a forecast."""

    times: Times | None = None
    values: Numbers = ()


class Fan(Result):
    """A forecast from one origin: quantiles by level, and the truth."""

    series: str
    column: str
    past: Past
    times: Times | None = None
    truth: Numbers = ()
    quantiles: dict[float, Numbers]

    @model_validator(mode="after")
    def _check(self) -> Fan:
        steps = max(map(len, self.quantiles.values()), default=0)
        _as_long(steps, *self.quantiles.values(), self.truth, self.times)
        _as_long(len(self.past.values), self.past.times)
        return self


class ModelAccuracy(Result):
    """One model's forecasts in short, free-running averaged over the horizon; `pit` as of
    `Calibration`.
    """

    free_running: Accuracy
    one_step: Accuracy
    pit: tuple[float, ...] | None = None


class BacktestResult(Result):
    """Forecasts from rolling origins over test data, free-running and one step ahead.

    Attributes:
        origins: of each series, at most.
        paths: sampled from each origin.
        levels: of the central intervals.
        models: every model in short, by name.
    """

    horizon: int
    origins: int
    series: int
    paths: int
    levels: tuple[float, ...]
    free_running: tuple[HorizonAccuracy, ...]
    one_step: OneStepAccuracy
    fans: tuple[Fan, ...] = ()
    models: dict[str, ModelAccuracy] = Field(default_factory=dict)


class Calibration(Result):
    """Whether predicted probabilities are frequencies.

    Attributes:
        pit: shares of the probability integral transform of `count` values, in bins of equal width.
        coverage: share inside the central interval, by nominal level.
    """

    pit: tuple[float, ...]
    count: int
    coverage: dict[float, float] = Field(default_factory=dict)


class Place(Result):
    """A place with its surprisal, in nats, and what stands there."""

    where: str
    nats: Number
    quote: str = ""


class Surprisal(Result):
    """Surprisal over time, in nats, and where it is highest.

    Attributes:
        position: the step in its sequence, or of several sequences among all scored steps.
        times: of one sequence.
    """

    position: tuple[int, ...]
    times: Times | None = None
    nats: Numbers
    top: tuple[Place, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> Surprisal:
        _as_long(len(self.nats), self.position, self.times)
        return self


class Risk(Result):
    """The quantile at `level` of the value after the end of the data, and the `last` value."""

    level: float
    value: float
    last: float


class TextSample(Result):
    """Text that a model wrote."""

    kind: Literal["text"] = "text"
    text: str


class SoundSample(Result):
    """Sound that a model made: a WAV file in base64."""

    kind: Literal["sound"] = "sound"
    wav_base64: str
    seconds: float
    rate: int


class PathsSample(Result):
    """Continuations of a series, [path][step], of its first column."""

    kind: Literal["paths"] = "paths"
    series: str = ""
    values: tuple[Numbers, ...]


class RollSample(Result):
    """Columns of 0 and 1, [step][column]."""

    kind: Literal["roll"] = "roll"
    values: tuple[tuple[int, ...], ...]


Sample = Annotated[TextSample | SoundSample | PathsSample | RollSample, Field(discriminator="kind")]


class Record(Result):
    """What reports read of a result with a class of its own; `to_json` gives it back as a whole."""

    model_config = ConfigDict(extra="allow")


class LagPoint(Record):
    """What seeing only so many `lags` costs: `lost` to the best, `gain` over none, nats a step."""

    lags: int
    lost: Number
    gain: Number
    interval: Interval | None = None


class LagCurve(Record):
    """How many lags are `needed`, measured with `model`."""

    needed: int
    model: str
    curve: tuple[LagPoint, ...]


class CertificateRecord(Record):
    """A history certificate (`throughtime.history.Certificate`): the curve of the model that won,
    and that of a network that beat it, where there is one.
    """

    lags: LagCurve
    network: LagCurve | None = None
    verdict: str

    @property
    def memory(self) -> LagCurve:
        """The curve of the best model of all."""
        return self.network or self.lags


class Spread(Record):
    """Quantiles over steps, by lag."""

    low: Numbers = ()
    median: Numbers = ()
    high: Numbers = ()


class VerdictRecord(Record):
    """A diagnosis: its name, in words, and what to do."""

    name: str
    sentence: str
    remedy: str


class GradientRecord(Record):
    """How far back a gradient reaches; all of it is `evaluation.gradient_reach.GradientReach`.

    Attributes:
        norms, share, bias, cosine: by lag, lag 0 first; see docs/commands.md.
        reach: the lag within which a share of the gradient lies; None beyond the last one.
        k2: steps that a gradient may travel in training; None where it is not truncated.
        beyond: the share of the gradient at the lags from k2 on.
    """

    model: str
    step: str
    rows: int
    steps: int
    max_lag: int
    norms: Numbers
    share: Numbers
    bias: Numbers = ()
    cosine: Numbers = ()
    state_norm: Spread = Spread()
    reach: dict[float, int | None]
    k2: int | None = None
    beyond: Number = None
    verdict: VerdictRecord

    @model_validator(mode="after")
    def _check(self) -> GradientRecord:
        spread = self.state_norm
        lines = (self.share, self.bias, self.cosine, spread.low, spread.median, spread.high)
        _as_long(self.max_lag + 1, self.norms, *lines)
        return self


class Scores(Result):
    """Fitted models on test data: what a run has to say.

    Attributes:
        step, unit: what one step is called; of all nats.
        best: name of the model chosen by validation. reference: of the best simple reference.
        models: in the order in which they were fitted.
        orders: finite-order models by order.
        certificate: how much of the past the data need.
        backtest, calibration, surprisal, risk, samples: of the best model; None or empty where the
            kind of data has none.
        gradients: of the best network.
        verdict: in words.
    """

    step: str
    unit: str
    best: str
    reference: str | None = None
    models: tuple[ModelScores, ...]
    comparisons: Comparisons = Comparisons()
    data: DataSummary
    orders: tuple[OrderScore, ...] = ()
    certificate: CertificateRecord | None = None
    backtest: BacktestResult | None = None
    calibration: Calibration | None = None
    surprisal: Surprisal | None = None
    risk: Risk | None = None
    gradients: GradientRecord | None = None
    samples: tuple[Sample, ...] = ()
    verdict: str = ""

    def __getitem__(self, name: str) -> ModelScores:
        """The scores of a model by name; KeyError for a name that is not there."""
        return {row.name: row for row in self.models}[name]

    @property
    def ranked(self) -> tuple[ModelScores, ...]:
        """The models from the best score on test data to the worst; those without one come last."""
        return tuple(sorted(self.models, key=lambda row: or_infinite(row.nats_per_step)))

    @property
    def network(self) -> ModelScores | None:
        """The selected model, or where that is no network the best one by validation, if any is."""
        rows = (row for row in self.models if row.family == "latent")
        return min(
            rows,
            key=lambda row: (row.name != self.best, or_infinite(row.validation_nats_per_step)),
            default=None,
        )

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values with their schema; what is not finite is None."""
        return {"schema": SCHEMA, **super().to_json()}

    def write(self, path: Path) -> None:
        """Writes `to_json`, whole or not at all."""
        files.write_json(path, self.to_json())

    @classmethod
    def parse(cls, content: bytes, path: Path) -> Scores:
        """What is in the file that `write` made; raises what `from_json` does."""
        return cls.from_json(files.parse_described(content, path, SCHEMA), path)

    @classmethod
    def from_json(cls, values: dict[str, Any], path: Path = Path("scores.json")) -> Scores:
        """What `to_json` gave; `path` is what errors call it.

        Raises:
            RunError: if it is damaged or of another schema.
        """
        files.check_schema(values, path, SCHEMA)
        try:
            return cls.model_validate({k: v for k, v in values.items() if k != "schema"})
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"]))
            raise files.Damaged(path, f"{place}: {first['msg']}") from None


def _as_long(length: int, *columns: Sized | None) -> None:
    if any(one is not None and len(one) not in (0, length) for one in columns):
        raise ValueError("columns are not equally long")


def or_infinite(value: float | None) -> float:
    """To put what is not known last."""
    return math.inf if value is None else value


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
