"""One candidate after the other: fitted, scored on validation data, and fitted again to all."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from throughtime import files
from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Transforms
from throughtime.evaluation.results import Family, OrderScore
from throughtime.models import registry
from throughtime.models.base import SequenceModel
from throughtime.predict.fitted import FittedModel
from throughtime.runtime import peak_memory_mb, reset_peak_memory, threads
from throughtime.search import defaults
from throughtime.search.artifacts import Artifacts
from throughtime.search.budget import TimeBudget
from throughtime.search.candidates import (
    Candidate,
    FittedCandidate,
    begun,
    parse_fitted,
    save_fitted,
)
from throughtime.search.defaults import Recommended
from throughtime.search.views import View, at_most
from throughtime.search.views import fitted as fitted_transforms
from throughtime.training.config import RunSettings, TrainSettings
from throughtime.training.trainer import Trainer, affordable_steps
from throughtime.types import Event

PAST = 10_000  # steps read before those that are scored: enough for any state, bounded in time
RESULT = "result.safetensors"
_LEAST_UPDATES = 10
_SYMBOLS = 10  # times as many steps for counts of symbols as for other closed forms


@dataclass(frozen=True)
class Parts:
    """The three spans of raw data."""

    train: Sequences
    valid: Sequences
    test: Sequences

    @cached_property
    def fitting(self) -> Sequences:
        """Training and validation data together: what closed forms may use in the end."""
        if not bool((self.valid.starts > 0).any()):
            return concatenated(self.train, self.valid)
        both = replace(self.valid, starts=torch.zeros_like(self.valid.starts))
        ended = [i for i, name in enumerate(self.train.names) if name not in self.valid.names]
        return concatenated(self.train[ended], both) if ended else both


def concatenated(first: Sequences, second: Sequences) -> Sequences:
    """The sequences of two raw sets, one after the other."""

    def joined(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        return None if a is None or b is None else torch.cat([a, b])

    return Sequences(
        torch.cat([first.values, second.values]),
        torch.cat([first.offsets, second.offsets[1:] + first.offsets[-1]]),
        starts=torch.cat([first.starts, second.starts]),
        domain=first.domain,
        names=first.names + second.names,
        covariates=joined(first.covariates, second.covariates),
        read_options=first.read_options,
        plan=first.plan,
        library=first.library,
    )


@dataclass(frozen=True)
class Case:
    """What every strategy is given: the data, how they are looked at, and what was asked for.

    Attributes:
        parts: raw data.
        settings: what was asked for.
        view: of the data.
        recommended: by the history certificate, if there is one.
        artifacts: finished pieces of work.
        budget: of time.
        on_event: is told what happens.
        models: given by value.
        orders: of autoregressions, compared.
    """

    parts: Parts
    settings: RunSettings
    view: View
    recommended: Recommended | None
    artifacts: Artifacts
    budget: TimeBudget
    on_event: Event
    models: tuple[SequenceModel | FittedModel, ...] = ()
    orders: tuple[OrderScore, ...] = ()

    @cached_property
    def held(self) -> Sequences:
        """The validation data, with as much of their past as can matter."""
        return at_most(self.parts.valid.limit_past(PAST), self.budget.held_out_steps)

    @property
    def valid(self) -> Sequences:
        """The validation data that choose while a network is trained."""
        return self.parts.valid if self.budget.limit is None else self.held

    def sample(self, data: Sequences) -> Sequences:
        """As much of data as a closed form is fitted to."""
        steps = self.budget.closed_form_steps
        counted = steps is not None and self.view.emission.symbols  # n-grams: quick, and hungry
        return at_most(data, _SYMBOLS * steps if steps is not None and counted else steps)

    @cached_property
    def vocabulary(self) -> Transforms | None:
        """The transforms of a text or of symbols, which need all of the training data."""
        if not self.parts.train.domain.integer:
            return None
        return fitted_transforms(self.view.transforms, self.parts.train)


class TooLittleTime(Exception):
    """There is not the time for a network that nobody asked for by name."""


def fit(case: Case, candidate: Candidate, seconds: float | None = None) -> FittedCandidate:
    """A fitted candidate, or the one that an interrupted run has kept.

    Args:
        case: see `Case`.
        candidate: what to fit.
        seconds: that training may take; None: as many as its settings need.

    Raises:
        TooLittleTime: for a network that would have next to no updates.
    """
    store, kept = case.artifacts.within(candidate.name), True

    def compute() -> FittedCandidate:
        nonlocal kept
        kept = False
        case.on_event({"event": "start", "model": candidate.name, "family": candidate.family})
        reset_peak_memory()
        if candidate.train is None:
            return _closed_form(case, candidate)
        with threads(candidate.train.threads):
            return _network(case, candidate, candidate.train, seconds, store)

    found = store.cached(
        RESULT, compute, save_fitted, lambda path: parse_fitted(*files.read_tensors(path))
    )
    ended = {"event": "end", "model": found.name, "valid": found.valid}
    if not kept:
        case.budget.keep()
        store.drop("training.safetensors", "refit/training.safetensors")
    case.on_event(ended | ({"kept": True} if kept else {"seconds": found.seconds}))
    return found


def finished(
    case: Case,
    family: Family,
    fitted: FittedModel,
    nats: Tensor,
    seconds: float,
    passes: float | None = None,
) -> FittedCandidate:
    """The record of a fitted model; `nats` are those of the validation steps."""
    seen = fitted.transformed(case.held)
    same = torch.equal(seen.offsets, case.held.offsets)
    steps = seen.steps if same else case.held.steps  # of text: characters, not tokens
    valid = -float(nats[seen.scored()].sum()) / max(1, steps)
    fitted.model.eval()
    return FittedCandidate(fitted, family, valid, nats, seconds, peak_memory_mb() or 0.0, passes)


def _closed_form(case: Case, candidate: Candidate) -> FittedCandidate:
    """The validation figure comes from the training part alone; the final fit uses both."""
    started = time.monotonic()
    fitted = begun(candidate, case.sample(case.parts.train), case.settings, case.vocabulary)
    nats = fitted.step_log_prob(case.held)
    fitted = begun(candidate, case.sample(case.parts.fitting), case.settings, case.vocabulary)
    return finished(case, candidate.family, fitted, nats, time.monotonic() - started)


def _network(
    case: Case,
    candidate: Candidate,
    wanted: TrainSettings,
    seconds: float | None,
    store: Artifacts,
) -> FittedCandidate:
    """A network trained on the training part, and then, if its settings say so, on both parts."""
    started = time.monotonic()
    fitted = begun(candidate, case.parts.train, case.settings)
    spans = fitted.transformed(case.parts.train), fitted.transformed(case.valid)
    if seconds is not None:  # what came before the first update comes again before a refit
        seconds -= 2 * (time.monotonic() - started)
    settings = _planned(case, fitted, spans, wanted, seconds, store)
    if settings.steps < min(_LEAST_UPDATES, wanted.steps) and case.settings.model == "auto":
        raise TooLittleTime
    trained = _trained(case, fitted, spans, settings, store)
    nats, passes = trained.nats, trained.passes
    if settings.refit == "no":
        return finished(case, candidate.family, fitted, nats, trained.seconds, passes)
    if settings.refit == "from_scratch":
        again = settings.model_copy(update={"steps": trained.best_step})
        fitted = begun(candidate, case.parts.fitting, case.settings)
    else:
        again = defaults.continued(settings, settings.steps)
        fitted = replace(fitted, model=trained.model)
    both, folder = fitted.transformed(case.parts.fitting), store.within("refit").folder
    on_event = _told(case, candidate.name, trained.step, trained.seconds)
    refit = Trainer(fitted.model, both, None, again, on_event, folder).run()
    # As the trainers counted them: a run that was killed goes on counting.
    spent = trained.seconds + refit.seconds
    return finished(case, candidate.family, fitted, nats, spent, passes)


@dataclass(frozen=True)
class _Trained:
    """A network after its first training, and what the refit needs of it."""

    model: SequenceModel
    nats: Tensor  # of the validation steps
    step: int  # updates
    best_step: int
    passes: float
    seconds: float

    def save(self, path: Path) -> None:
        numbers = [self.step, self.best_step, self.passes, self.seconds]
        tensors = {**registry.tensors_of(self.model), "nats": self.nats}
        files.write_tensors(path, tensors, {"model": self.model.settings(), "numbers": numbers})

    @staticmethod
    def load(path: Path) -> _Trained:
        tensors, values = files.read_tensors(path)
        model = registry.restored(values["model"], tensors)
        return _Trained(model, tensors["nats"], *values["numbers"])


def _trained(
    case: Case,
    fitted: FittedModel,
    spans: tuple[Sequences, Sequences],
    settings: TrainSettings,
    store: Artifacts,
) -> _Trained:
    def compute() -> _Trained:
        on_event = _told(case, fitted.name, 0, 0.0)
        trainer = Trainer(fitted.model, *spans, settings, on_event, store.folder)
        progress = trainer.run()
        nats, best = fitted.step_log_prob(case.held), progress.best_step or progress.step
        passes, seconds = trainer.passes, progress.seconds
        return _Trained(fitted.model, nats, progress.step, best, passes, seconds)

    if settings.refit == "no":
        return compute()
    return store.cached("chosen.safetensors", compute, lambda p, t: t.save(p), _Trained.load)


def _told(case: Case, name: str, step: int, seconds: float) -> Event:
    """What a trainer tells its events to; a refit goes on counting where the training ended."""
    before = {"step": step, "steps": step, "seconds": seconds}

    def on_event(event: dict[str, Any]) -> None:
        counted = {k: event[k] + n for k, n in before.items() if k in event}
        case.on_event({"model": name, **event, **counted})

    return on_event


def _planned(
    case: Case,
    fitted: FittedModel,
    spans: tuple[Sequences, Sequences],
    wanted: TrainSettings,
    seconds: float | None,
    store: Artifacts,
) -> TrainSettings:
    """The training settings, with the updates that fit the time; decided once per run."""

    def compute() -> TrainSettings:
        if seconds is None or case.settings.steps is not None:
            return wanted
        parts = {"no": 1.0, "from_scratch": 2.0, "continue": 1.0 + defaults.CONTINUED}
        share = seconds / parts[wanted.refit]
        return affordable_steps(fitted.model, *spans, wanted, share, least=1, after=2)

    return store.cached(
        "plan.json", compute,
        lambda path, plan: files.write_json(path, plan.model_dump(mode="json")),
        lambda path: TrainSettings(**files.read_json(path)),
    )  # fmt: skip
