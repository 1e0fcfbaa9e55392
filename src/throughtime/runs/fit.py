"""`fit`: data → certificate → candidates → evaluation on untouched data → run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import throughtime
from throughtime import files
from throughtime.bptt import GradientMethod
from throughtime.data.loading import checked_options, label_of, load, plain_options
from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Transform, Transforms
from throughtime.emissions import Emission
from throughtime.errors import DataError, SettingError
from throughtime.evaluation.results import DataSummary, Part
from throughtime.history import Certificate, certificate_of
from throughtime.models import baselines
from throughtime.predict.end import latest
from throughtime.predict.fitted import FittedModel
from throughtime.report.read import CONFIG, LOG, SCORES
from throughtime.runs import run as runs
from throughtime.runs.assessment import Effort, Speed, Subject, assess
from throughtime.runs.request import Model, Request, check_kept, request
from throughtime.runs.run import Run
from throughtime.runs.store import BUDGET, CHECKPOINT, Log, making, tidy
from throughtime.runtime import isolated, one_blas_thread, threads, time_left, until
from throughtime.search.artifacts import Artifacts
from throughtime.search.budget import TimeBudget
from throughtime.search.fitting import PAST, Parts
from throughtime.search.search import search
from throughtime.search.views import at_most
from throughtime.training.config import DataSettings, RunSettings, validated
from throughtime.types import Event
from throughtime.wording import stamp

_CERTIFICATE_UNTIL = 0.25  # of the limit, whatever its work was thought to take
_PROBED = 2000  # steps that all models are timed on
_SCORING_SHARE = 0.4  # of the time left, for the scores of all models
_SIDE_BY_SIDE, _LEAST_PAST = 64, 50  # series and steps that the reading of an end is timed on
_HISTORY = 2000  # steps that an end keeps in any case
_END_SHARE = 0.05  # of the limit, for reading the end of the data


def fit(
    data: Any,
    *,
    model: str | Model | Sequence[str | Model] = "auto",
    order: int | str = "auto",
    hidden: int | None = None,
    layers: int | None = None,
    bptt: str | GradientMethod = "auto",
    emission: str | Emission = "auto",
    symbols: str = "characters",
    transforms: Transforms | Iterable[Transform | str | dict[str, Any]] | None = None,
    baselines: str | Iterable[str] = (),
    valid: float = 0.1,
    test: float = 0.1,
    split: str = "auto",
    name: str | None = None,
    out: str | Path | None = None,
    seed: int = 0,
    time_limit: float | str | None = None,
    steps: int | None = None,
    on_event: Event = lambda event: None,
    **read_options: Any,
) -> Run:
    """Fits models of sequences, compares them on untouched data, and keeps the best.

    Every option takes the library's own value or its string form. The caller's random generators,
    threads, warnings and environment are left as they were.

    Args:
        data: a path, a folder, "demo:prices", a frame, an array or tensor, a list of them, a
            `Sequences`, or the tuple (train, valid, test) of `Sequences` where the split is given.
        model: "auto" or one of ar, rnn, gru, lstm; or a model by value; or a list of names and
            models. A model by value is trained as it is and compared with the baselines; a
            `FittedModel` goes on being trained from its weights.
        order: lags of the autoregression, or "auto".
        hidden: units of the networks.
        layers: of the networks.
        bptt: a method of `tt.bptt`, or "full", "K", "K1,K2", "memory=512MB".
        emission: one of `tt.emissions`, or a kind with its options: "student_t:rank=2".
        symbols: of text: "characters", "bytes" or "tokens".
        transforms: `Transforms`, or a list of transforms by value or kind; fitted ones are taken as
            they are. None: chosen by likelihood.
        baselines: of `models.baselines`, such as "hmm,garch" or ["hmm"], beside the naive ones.
        valid: fraction held out to choose by.
        test: fraction held out to compare on.
        split: see `Sequences.split`.
        name: what to call the data.
        out: the folder of the run; None: nothing is written. The same call on an interrupted run
            goes on where it stopped; on a finished one it returns it.
        seed: of everything random.
        time_limit: seconds, or "90s", "5m", "1h".
        steps: updates of each network.
        on_event: is told what happens, as log.jsonl holds it.
        read_options: of `tt.read`.

    Returns:
        The run, in memory or as it is in `out`.

    Raises:
        ThroughtimeError: settings are checked before any data are read, and data before anything
            is written.
    """
    with isolated(), one_blas_thread():
        limited = request(
            model=model, order=order, bptt=bptt, emission=emission, symbols=symbols,
            transforms=transforms, baselines=baselines, time_limit=time_limit,
            numbers={"hidden": hidden, "layers": layers, "steps": steps, "seed": seed},
        )  # fmt: skip
        begun = TimeBudget(limited.settings["time_limit"])
        options = checked_options(read_options, fit)
        given = limited.read_options | plain_options(options)
        work = _read(data, limited, valid, test, split, given, name, on_event)
        if out is None:
            return _made(work, None, begun, on_event)
        folder = Path(out)
        check_kept(work.models, folder)
        with making(folder, work.settings) as is_finished:
            if is_finished:
                on_event({"event": "finished", "run": str(folder)})
            else:
                _made(work, folder, begun, on_event)
            run = runs.load_run(folder)
            if not (folder / "report.html").exists():
                run.report()
        return run


def default_folder(data: Any) -> Path:
    """Where the command keeps a run of these data."""
    name = label_of(data).replace("demo:", "demo-")
    stem = Path(name).name.split(".")[0]
    return Path("runs") / ("".join(c if c.isalnum() or c in "-_" else "-" for c in stem) or "run")


@dataclass(frozen=True)
class _Work:
    """What there is to do, settings and data read."""

    settings: RunSettings
    models: tuple[Model, ...]
    whole: Sequences
    parts: Parts
    summary: DataSummary


def _read(
    data: Any,
    wanted: Request,
    valid: float,
    test: float,
    split: str,
    options: dict[str, Any],
    name: str | None,
    on_event: Event,
) -> _Work:
    """The data, cut in three, with settings that name them."""
    label = label_of(data)
    whole, spans = load(data, label, valid, test, split, options, on_event)
    for one in wanted.models:
        if isinstance(one, FittedModel):
            one.read(whole)  # refuses data of another kind
    if wanted.settings["symbols"] != "characters" and whole.domain.kind != "text":
        symbols = wanted.settings["symbols"]
        raise SettingError(f"symbols={symbols} says nothing about {label}; it is for text")
    baselines.check(wanted.settings["baselines"], whole)
    parts = Parts(*spans)
    summary = _summary(name or label, whole, parts)
    on_event({"event": "data", **summary.to_json()})
    fingerprints = [whole] if not isinstance(data, tuple) else [*spans]
    source = {
        "source": label, "options": options, "split": split, "valid": valid, "test": test,
        "fingerprint": "+".join(part.fingerprint() for part in fingerprints),
    }  # fmt: skip
    settings = {**wanted.settings, "data": validated(DataSettings, source)}
    return _Work(validated(RunSettings, settings), wanted.models, whole, parts, summary)


def _made(work: _Work, folder: Path | None, budget: TimeBudget, on_event: Event) -> Run:
    """Everything fitted and compared; in a folder all is written, and model.json comes last."""
    artifacts = Artifacts()
    if folder is not None:
        on_event = Log(folder / LOG, on_event)
        artifacts = Artifacts(folder / CHECKPOINT, on_event)
        budget = budget.kept_in(folder / CHECKPOINT / BUDGET, on_event)
    with until(budget.moment(_CERTIFICATE_UNTIL)):
        certificate = _certificate(work, artifacts, budget, on_event)
    recommended = None if certificate is None else certificate.recommendation
    found = search(
        work.parts, work.settings, models=work.models, recommended=recommended,
        artifacts=artifacts, budget=budget, on_event=on_event,
    )  # fmt: skip
    models = [one.fitted for one in found.candidates]
    used = next((one.training.threads for one in models if one.training), None)
    with until(budget.moment()), threads(used):
        parts, summary = _tested(work, models, budget)
        subject = Subject(found, parts, work.settings, certificate)
        scores = assess(subject, summary, on_event, _effort(budget.evaluation(), artifacts))
        best = _ended(next(one for one in models if one.name == scores.best), work, budget)
    if folder is not None:
        scores.write(folder / SCORES)
    data = scores.data.to_json()
    on_event({"event": "done", "seconds": round(budget.spent, 2)})
    if folder is not None:
        tidy(folder)
        pieces = sorted(path for path in (folder / CHECKPOINT).rglob("*") if path.is_file())
        beside = [CONFIG, LOG, SCORES, *(path.relative_to(folder).as_posix() for path in pieces)]
        best.save(
            folder, beside, version=throughtime.__version__, data=data,
            fingerprint=work.settings.data.fingerprint,
        )  # fmt: skip
    return Run(best, scores, data, folder, tuple(models), work.whole)


def _ended(best: FittedModel, work: _Work, budget: TimeBudget) -> FittedModel:
    """The model with the end of all the data; in a limited time no more than that is read."""

    def affordable() -> float:
        if best.model.lookback is not None:
            return max(_HISTORY, best.model.lookback)
        few, begun = latest(work.whole[:_SIDE_BY_SIDE], _LEAST_PAST), time.monotonic()
        best.condition(few)
        each = (time.monotonic() - begun) / len(few.values) * len(work.whole)  # of a step
        left = max(0.0, time_left()) + _END_SHARE * (budget.limit or 0.0)
        return min(PAST, max(_LEAST_PAST, left / 2 / each))

    past = budget.kept("past", affordable)
    if past is None or int(work.whole.lengths.max()) <= past:
        return best.ending(work.whole)
    ended = best.ending(latest(work.whole, int(past)))
    assert ended.end is not None
    return replace(ended, end=replace(ended.end, steps=work.whole.lengths))


def _tested(
    work: _Work, models: Sequence[FittedModel], budget: TimeBudget
) -> tuple[Parts, DataSummary]:
    """The data with as many test steps as there is time for, which the summary says."""
    parts, summary, most = work.parts, work.summary, budget.held_out_steps
    few = at_most(parts.test, _PROBED)

    def affordable() -> float:
        begun = time.monotonic()
        for one in models:
            one.step_log_prob(few)
        each = (time.monotonic() - begun) / few.steps
        return max(few.steps, min(most or 0, _SCORING_SHARE * max(0.0, time_left()) / each))

    if most is not None and len(few.values) < len(parts.test.values):
        most = int(budget.kept("test steps", affordable) or 0)
    test = at_most(parts.test, most)
    if test.steps == parts.test.steps:
        return parts, summary
    note = f"Tested on {test.steps:,} of {parts.test.steps:,} steps, as many as the time allows."
    noted = summary.model_copy(update={"notes": (*summary.notes, note)})
    return replace(parts, test=test), noted


def _effort(seconds: float | None, artifacts: Artifacts) -> Callable[[Callable[[], Speed]], Effort]:
    """What decides how much is evaluated beside scoring; decided once."""
    if seconds is None:
        return lambda measure: Effort()
    limit = seconds
    return lambda measure: artifacts.cached(
        "effort.json", lambda: Effort.within(limit, measure()),
        lambda path, effort: files.write_json(path, asdict(effort)),
        lambda path: Effort(**files.read_json(path)),
    )  # fmt: skip


def _certificate(
    work: _Work, artifacts: Artifacts, budget: TimeBudget, on_event: Event
) -> Certificate | None:
    """The history certificate of the training and validation data.

    Networks are left to the search. None where models or truncation are given, and where the data
    are too few to tell.
    """
    settings = work.settings
    if settings.model != "auto" or settings.bptt != "auto":
        return None

    def compute() -> Certificate:
        found = certificate_of(
            work.parts, settings, time_limit=budget.certificate(), seed=settings.seed,
            on_event=on_event, networks=False,
        )  # fmt: skip
        return replace(found, seconds=None)  # all else is the same whenever it is measured

    try:
        return artifacts.cached(
            "history.json", compute, lambda path, found: files.write_json(path, found.to_json()),
            lambda path: Certificate.from_json(files.read_json(path)),
        )  # fmt: skip
    except (DataError, SettingError) as error:  # what is too little to certify may do for a fit
        on_event({"event": "uncertified", "why": str(error)})
        return None


def _summary(name: str, whole: Sequences, parts: Parts) -> DataSummary:
    """What is being modelled."""

    def span(part: Sequences) -> tuple[str, str] | None:
        if part.times is None:
            return None
        stamps = part.times[part.scored().numpy()]
        return str(stamp(stamps.min())), str(stamp(stamps.max()))

    spans: dict[Part, Sequences] = {
        "train": parts.train, "validation": parts.valid, "test": parts.test
    }  # fmt: skip
    return DataSummary(
        source=name,
        kind=whole.domain.kind,
        sequences=len(whole),
        columns=whole.domain.columns,
        step=whole.domain.step,
        steps={key: part.steps for key, part in spans.items()},
        time=None if whole.times is None else {key: span(p) for key, p in spans.items()},
        notes=tuple(dict.fromkeys((*whole.notes, *parts.train.notes))),
    )
