"""Every fitted model on untouched test data."""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from throughtime.data.readers.sound import wav_bytes
from throughtime.data.sequences import Sequences
from throughtime.emissions import Emission, Mixture
from throughtime.errors import NonFiniteError, SettingError
from throughtime.evaluation import gradient_reach
from throughtime.evaluation.backtest import backtest
from throughtime.evaluation.calibration import calibration
from throughtime.evaluation.comparison import Entry, StepScores, compare
from throughtime.evaluation.predictive import next_risk
from throughtime.evaluation.results import (
    Accuracy,
    BacktestResult,
    CertificateRecord,
    DataSummary,
    GradientRecord,
    ModelAccuracy,
    PathsSample,
    RollSample,
    Sample,
    Scores,
    SoundSample,
    TextSample,
    mean,
)
from throughtime.evaluation.summary import verdict
from throughtime.evaluation.surprisal import surprisal
from throughtime.history import Certificate, with_network
from throughtime.models.autoregressive import Autoregressive
from throughtime.models.garch import Garch
from throughtime.models.latent import LatentAutoregressive
from throughtime.runtime import out_of_time
from throughtime.search.candidates import FittedCandidate
from throughtime.search.fitting import Parts
from throughtime.search.search import Found
from throughtime.search.views import at_most
from throughtime.training.config import RunSettings
from throughtime.types import Event

_PATHS = 200
_ORIGINS = 10
_HORIZON = 20
_MOST_SERIES = 20
_MOST_DISTRIBUTIONS = 20_000  # test steps beyond which backtest and calibration would take minutes
_PROBE_STEPS = 1000
_FORECASTS_SHARE = 0.6  # of the time left
_GRADIENT_SHARE, _GRADIENT_SECONDS = 0.3, 40.0  # of the time left; what a whole one takes
_LEAST_GRADIENT, _LEAST_MEMORY = 0.1, 0.5  # shares below which it is left out
_SAMPLE_STEPS = {"text": 600, "sound": 16_000}


@dataclass(frozen=True)
class Effort:
    """How much is done beside scoring: shares of what is done without a time limit.

    Attributes:
        distributions: of forecasts, calibration and memory.
        gradient: of the examination of the gradient.
    """

    distributions: float = 1.0
    gradient: float = 1.0

    @classmethod
    def within(cls, seconds: float, speed: Speed) -> Effort:
        """What fits in some seconds of which scoring is a part."""
        left = max(0.0, seconds - speed.scoring - speed.forecast)
        share = _FORECASTS_SHARE * left / max(1e-3, speed.forecasts)
        gradient = _GRADIENT_SHARE * left / (_GRADIENT_SECONDS * speed.slowness)
        return cls(min(1.0, share), min(1.0, gradient))


@dataclass(frozen=True)
class Speed:
    """Seconds that something took: scoring all models, and a forecast of one series.

    models: how many are to be evaluated. slowness: seconds that pass in one of this process.
    """

    scoring: float
    forecast: float
    models: int
    slowness: float = 1.0

    @property
    def forecasts(self) -> float:
        """Seconds of all forecasts, without a limit."""
        return self.forecast * (_MOST_SERIES + self.models * _MOST_SERIES / 2)


@dataclass(frozen=True)
class Subject:
    """What is assessed: models, their data, what was asked for, and the certificate."""

    search: Found
    parts: Parts
    settings: RunSettings
    certificate: Certificate | None
    effort: Effort = Effort()

    @property
    def looked_at(self) -> Sequences:
        """The test data of which distributions are looked at."""
        test, share = _limited(self.parts.test), self.effort.distributions
        return test if share >= 1.0 else at_most(test, round(share * len(test.values)))

    @property
    def models(self) -> tuple[FittedCandidate, ...]:
        """Everything that was fitted."""
        return self.search.candidates


def assess(
    subject: Subject,
    data: DataSummary,
    on_event: Event,
    effort: Callable[[Callable[[], Speed]], Effort] = lambda measure: Effort(),
) -> Scores:
    """Scores, intervals, forecasts, calibration, surprisal and samples of fitted models.

    The model is selected by validation; test data choose nothing.

    Args:
        subject: the models, and what they were fitted to.
        data: what was modelled.
        on_event: called with what is evaluated.
        effort: how much to do beside scoring, from the speed that it may have measured.
    """
    parts, seed, begun = subject.parts, subject.settings.seed, time.monotonic()
    busy, left_out = time.process_time(), LeftOut()
    entries = _entries(subject, on_event)
    spent = time.monotonic() - begun
    slowness = max(1.0, spent / max(1e-3, time.process_time() - busy))
    scores = compare(entries, parts.test, data, seed)
    best = next(one for one in subject.models if one.name == scores.best)
    measured = effort(
        lambda: Speed(spent, _forecast_seconds(subject, best), len(subject.models), slowness)
    )
    subject = replace(subject, effort=measured)
    certificate = _certificate(subject, best.name, on_event, left_out)
    on_event({"event": "evaluate", "what": f"forecasts of {best.name}"})
    backtested = _backtest(subject, best, on_event, left_out)
    calibrated = None
    if left_out.unless_time("calibration"):
        calibrated = calibration(best.fitted, subject.looked_at, seed)
    test = next(entry.test for entry in entries if entry.name == best.name)
    surprised = surprisal(test, parts.test, best.fitted)
    risk = next_risk(best.fitted, parts.test)
    gradients = _gradients(subject, scores, on_event, left_out)
    on_event({"event": "evaluate", "what": f"samples of {best.name}"})
    drawn: tuple[Sample, ...] = ()
    if left_out.unless_time("samples"):
        drawn = samples(best, parts.test, seed, subject.effort.distributions)
    data = data.model_copy(update={"notes": (*data.notes, *left_out.note())})
    return scores.model_copy(
        update={
            "data": data.model_copy(update={"transforms": best.fitted.transforms.kinds}),
            "orders": subject.search.orders,
            "certificate": certificate,
            "backtest": backtested,
            "calibration": calibrated,
            "surprisal": surprised,
            "risk": risk,
            "gradients": gradients,
            "samples": drawn,
            "verdict": verdict(best.name, scores.step, scores.comparisons, risk),
        }
    )


def _entries(subject: Subject, on_event: Event) -> list[Entry]:
    """The fitted models on test data."""
    parts, entries = subject.parts, []
    for one in subject.models:
        on_event({"event": "evaluate", "what": one.name})
        entries.append(
            Entry(
                one.name,
                one.family,
                describe(one),
                one.model.num_parameters(),
                StepScores.of(one.fitted, parts.test),
                one.valid,
                round(one.seconds, 2),
                round(one.peak_memory_mb, 1),
                one.passes,
            )
        )
    return entries


def best_network(fitted: Sequence[FittedCandidate], selected: str) -> FittedCandidate | None:
    """The selected model, or where that is no network the best one by validation, if any is."""
    networks = [one for one in fitted if isinstance(one.model, LatentAutoregressive)]
    return min(networks, key=lambda one: (one.name != selected, one.valid), default=None)


class LeftOut:
    """What an evaluation has had no time for, to be said in one line."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def unless_time(self, name: str, is_time: bool = True) -> bool:
        """Whether there is time for something; else it is noted as left out."""
        if is_time and not out_of_time():
            return True
        self.names.append(name)
        return False

    def note(self) -> tuple[str, ...]:
        """The line; nothing where all was done."""
        names = ", ".join(dict.fromkeys(self.names))
        return (f"Left out for lack of time: {names}.",) if names else ()


def _certificate(
    subject: Subject, best: str, on_event: Event, left_out: LeftOut
) -> CertificateRecord | None:
    """The certificate of the data; where a network beats every finite order, with its memory."""
    certificate, parts = subject.certificate, subject.parts
    if certificate is None:
        return None
    network = best_network(subject.models, best)
    finite_order = [one.valid for one in subject.models if one.family == "autoregressive"]
    enough = subject.effort.distributions >= _LEAST_MEMORY
    wanted = network is not None and network.valid < min(finite_order, default=math.inf)
    if network is not None and wanted and left_out.unless_time("the network's memory", enough):
        on_event({"event": "evaluate", "what": f"memory of {network.name}"})
        seed, test = subject.settings.seed, subject.looked_at
        certificate = with_network(certificate, network.fitted, parts.train, test, seed)
    return CertificateRecord.model_validate(certificate.to_json())


def _gradients(
    subject: Subject, scores: Scores, on_event: Event, left_out: LeftOut
) -> GradientRecord | None:
    """How far back the gradient of the best network reaches; None where there is none."""
    network = best_network(subject.models, scores.best)
    data, share = subject.parts.fitting, subject.effort.gradient
    if network is None or int(data.lengths.max()) < 2:
        return None
    if not left_out.unless_time("the gradient's reach", share >= _LEAST_GRADIENT):
        return None
    on_event({"event": "evaluate", "what": f"gradient of {network.name}"})
    work = gradient_reach.WORK * share
    learned = scores[network.name].beats_reference
    try:
        result = gradient_reach.examine(
            network.fitted, data, learned, work=work, seed=subject.settings.seed
        )
    except (NonFiniteError, SettingError) as error:  # a diagnosis that fails ends no fit
        on_event({"event": "note", "model": network.name, "message": str(error)})
        return None
    return result.record()


def _backtest(
    subject: Subject, best: FittedCandidate, on_event: Event, left_out: LeftOut
) -> BacktestResult | None:
    """The forecasts of the best model, and beside them those of every model in short."""
    parts, seed, season = subject.parts, subject.settings.seed, subject.search.view.season
    test, horizon = subject.looked_at, max(season or 0, _HORIZON)
    share = subject.effort.distributions

    def some(count: int) -> int:
        return max(1, round(share * count))

    result = backtest(
        best.fitted, test, horizon, some(_ORIGINS), _PATHS, seed,
        season=season or 1, max_series=some(_MOST_SERIES), train=parts.train,
    )  # fmt: skip
    if result is None:
        return None
    models = {}
    for one in subject.models:
        if not left_out.unless_time(f"forecasts of {one.name}"):
            continue
        on_event({"event": "evaluate", "what": f"forecasts of {one.name}"})
        brief = backtest(
            one.fitted, test, horizon, some(_ORIGINS // 2), _PATHS // 2, seed,
            season=season or 1, max_series=some(_MOST_SERIES // 2),
        )  # fmt: skip
        if brief is not None:
            pit = calibration(one.fitted, test, seed)
            models[one.name] = ModelAccuracy(
                free_running=_averaged(brief), one_step=brief.one_step, pit=pit and pit.pit
            )
    return result.model_copy(update={"models": models})


def _forecast_seconds(subject: Subject, best: FittedCandidate) -> float:
    """How long a forecast from one origin of one series takes, and its calibration."""
    begun, horizon = time.monotonic(), max(subject.search.view.season or 0, _HORIZON)
    few = at_most(subject.parts.test, _PROBE_STEPS)
    backtest(best.fitted, few, horizon, 1, _PATHS, subject.settings.seed, max_series=1)
    calibration(best.fitted, few, subject.settings.seed)
    return time.monotonic() - begun


def _averaged(result: BacktestResult) -> Accuracy:
    """Free-running accuracy, averaged over the horizon."""
    rows = result.free_running
    return Accuracy(
        crps=mean(row.crps for row in rows),
        mase=mean(row.mase for row in rows),
        smape=mean(row.smape for row in rows),
        rmse=mean(row.rmse for row in rows),
        coverage={level: mean(row.coverage[level] for row in rows) for level in result.levels},
    )


def _limited(test: Sequences) -> Sequences:
    """The test data, or a part of them where every distribution of all would take minutes."""
    if test.steps <= _MOST_DISTRIBUTIONS:
        return test
    if len(test) == 1:  # its last steps; those before become past
        return replace(test, starts=torch.maximum(test.starts, test.lengths - _MOST_DISTRIBUTIONS))
    upto = int((test.scored().cumsum(0)[test.offsets[1:] - 1] <= _MOST_DISTRIBUTIONS).sum())
    return test[: max(1, upto)]


def describe(fitted: FittedCandidate) -> str:
    """A model in a few words: sizes and distribution."""
    model = fitted.model
    if fitted.blended:
        return " + ".join(f"{weight:.2f} {name}" for name, weight in fitted.blended)
    if isinstance(model, Garch):
        return f"{model.spec.description}, fitted by arch"
    distribution = _in_words(model.emission)
    if isinstance(model, LatentAutoregressive):
        size = f"{model.cell.upper()}({model.hidden_size})"
        if model.num_layers > 1:
            size += f", {model.num_layers} layers"
        if model.members > 1:
            size += f", {model.members} averaged"
        return f"{size}, {distribution}"
    if not isinstance(model, Autoregressive):
        return f"{str(model.settings().get('kind', fitted.name)).replace('_', ' ')}, {distribution}"
    if model.order == 0:
        return f"constant {distribution}"
    names = {"linear": "linear", "ngram": "interpolated n-gram", "mlp": "network"}
    return f"{names[model.kind]} over {model.order} lags, {distribution}"


def _in_words(emission: Emission) -> str:
    words = emission.kind.replace("_", " ")
    if isinstance(emission, Mixture):
        component = emission.component.replace("student_t", "Student-t").replace("normal", "Normal")
        words = f"mixture of {emission.num_components} {component}"
    return words.replace("student t", "Student-t")


def samples(
    best: FittedCandidate, test: Sequences, seed: int, share: float = 1.0
) -> tuple[Sample, ...]:
    """What the model writes, sounds or draws by itself; of sound, a share of what is usual."""
    kind = test.domain.kind
    model, transforms = best.model, best.fitted.transforms
    if kind == "text":
        drawn = model.sample(_SAMPLE_STEPS["text"], num_paths=1, seed=seed)[0]
        return (TextSample(text=transforms.text(drawn)),)
    if kind == "sound":
        rate = int(test.domain.sample_rate or 8000)
        steps = max(rate // 4, round(share * min(_SAMPLE_STEPS["sound"], 2 * rate)))
        wave = transforms.inverse(model.sample(steps, num_paths=1, seed=seed))[0]
        content = base64.b64encode(wav_bytes(wave, rate)).decode()
        return (SoundSample(wav_base64=content, seconds=steps / rate, rate=rate),)
    if test.domain.covariate_columns:
        return ()  # what will be known beforehand is not ours to invent
    if kind == "binary" or (transforms.domain and transforms.output.kind == "binary"):
        roll = model.sample(100, num_paths=1, seed=seed)[0]
        return (RollSample(values=roll.long().tolist()),)
    if kind in ("real", "count"):
        return (_paths(best, test, seed),)
    return ()


def _paths(best: FittedCandidate, test: Sequences, seed: int) -> PathsSample:
    """Continuations of the first test series, in its own units."""
    one = test[0]
    context = best.model.condition(best.fitted.transformed(one))
    drawn = best.model.sample(50, context, 8, seed, name=one.names[0])
    raw = best.fitted.transforms.inverse(drawn.double(), one.values)
    raw = raw if raw.dim() == 3 else raw.unsqueeze(-1)
    return PathsSample(series=one.names[0], values=raw[..., 0].tolist())
