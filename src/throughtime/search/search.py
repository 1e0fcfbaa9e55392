"""From data to fitted candidates: each is trained, or taken from the checkpoint it left."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from throughtime import files
from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Transforms
from throughtime.emissions import Emission
from throughtime.errors import DataError, SettingError
from throughtime.evaluation.results import OrderScore, or_infinite
from throughtime.history import Certificate, certificate_of
from throughtime.models import registry
from throughtime.models.autoregressive import natural_predictor
from throughtime.models.base import SequenceModel
from throughtime.models.ensemble import Blend, blend_weights, cross_fitted
from throughtime.predict.fitted import FittedModel
from throughtime.runtime import peak_memory_mb, reset_peak_memory, threads
from throughtime.search import candidates, defaults, views
from throughtime.search.orders import real_orders, symbol_orders
from throughtime.training.config import Candidate, RunSettings, TrainSettings
from throughtime.training.trainer import Trainer, affordable_steps
from throughtime.types import Event

_CERTIFICATE_SECONDS, _LEAST_SECONDS = 30.0, 2.0  # for the history certificate
PAST = 10_000  # steps read before what is judged: enough for any state, and bounded in time
SHARE = {"rnn": 1.0, "gru": 2.0, "lstm": 3.0}  # of the time left, where it is limited
SYMBOL_SHARE = {"rnn": 0.5, "gru": 1.0, "lstm": 12.0}  # a wide LSTM learns text best, and slowly


@dataclass(frozen=True)
class FittedCandidate:
    """A candidate that has been fitted, with what it cost and how it did on validation data."""

    candidate: Candidate
    fitted: FittedModel
    valid: float  # nats per step, in the data's own units
    valid_nats: Tensor  # log-probability of each validation step before any refit, [total]
    seconds: float
    peak_memory_mb: float
    passes: float | None = None  # through the training data; None for closed forms

    @property
    def name(self) -> str:
        return self.candidate.name

    @property
    def model(self) -> SequenceModel:
        return self.fitted.model


@dataclass(frozen=True)
class Parts:
    """The three spans of raw data."""

    train: Sequences
    valid: Sequences
    test: Sequences

    @property
    def seen(self) -> Sequences:
        """Training and validation data together: what closed forms may use in the end."""
        if not bool((self.valid.starts > 0).any()):
            return concatenate(self.train, self.valid)
        both = replace(self.valid, starts=torch.zeros_like(self.valid.starts))
        ended = [i for i, name in enumerate(self.train.names) if name not in self.valid.names]
        return concatenate(self.train[ended], both) if ended else both


def concatenate(first: Sequences, second: Sequences) -> Sequences:
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
    )


class Workshop:
    """Fits candidates one by one in a folder, so that an interrupted run goes on where it was."""

    def __init__(
        self, parts: Parts, settings: RunSettings, folder: Path | None, on_event: Event
    ) -> None:
        self.parts, self.settings, self.folder, self.on_event = parts, settings, folder, on_event
        self.view = views.natural_view(parts.train, parts.valid, settings)
        self.held = parts.valid.limit_past(PAST)
        self.orders: list[OrderScore] = []
        self.history: Certificate | None = None  # of the data
        self.clock = None if folder is None else folder / "checkpoint" / "clock.json"
        spent = self.clock is not None and self.clock.exists()
        earlier = files.read_json(self.clock) if spent and self.clock else 0.0
        self.begun = time.monotonic() - earlier  # a resumed run has used some of its time

    def run(self) -> list[FittedCandidate]:
        """Every candidate: the naive references, the autoregressions, the recurrent networks."""
        self.history = self.remembered()
        fitted = [
            self.fit(candidate) for candidate in candidates.references(self.view, self.parts.train)
        ]
        if self.settings.model in ("auto", "ar"):
            fitted.extend(self.autoregressions())
        latent = candidates.latent_candidates(
            self.view, self.parts.train, self.parts.valid, self.settings, self.advice
        )
        for i, candidate in enumerate(latent):
            fitted.append(self.fit(candidate, self.seconds_for(latent[i:])))
        return fitted + self.blend(fitted)

    def remembered(self) -> Certificate | None:
        """The history certificate of the training and validation data.

        Networks are left to the fit itself. None where models or truncation are given, and where
        the data are too few to tell.
        """
        if self.settings.model != "auto" or self.settings.bptt != "auto":
            return None
        path = None if self.folder is None else self.folder / "checkpoint" / "history.json"
        if path is not None and path.exists():
            return Certificate.from_json(files.read_json(path))
        limit = _CERTIFICATE_SECONDS
        if self.settings.time_limit is not None:
            limit = max(_LEAST_SECONDS, min(limit, self.settings.time_limit / 8))
        try:
            found = certificate_of(
                self.parts, self.settings, time_limit=limit, seed=self.settings.seed,
                on_event=self.on_event, networks=False,
            )  # fmt: skip
        except (
            DataError,
            SettingError,
        ) as error:  # what is too little to certify may be enough to fit
            self.on_event({"event": "uncertified", "why": str(error)})
            return None
        found = replace(found, seconds=None)  # all else is the same whenever it is measured
        if path is not None:
            path.parent.mkdir(exist_ok=True)
            files.write_json(path, found.to_json())
        return found

    @property
    def advice(self) -> defaults.Advice | None:
        """What the certificate recommends."""
        if self.history is None:
            return None
        told = self.history.recommendation
        return defaults.Advice(told.dense, told.k1, told.k2, told.time_scale)

    def seconds_for(self, left: list[Candidate]) -> float | None:
        """The next candidate's share of the time left; a sixth is kept for the evaluation."""
        limit = self.settings.time_limit
        if limit is None:
            return None
        remaining = limit - (time.monotonic() - self.begun) - limit / 6
        table = SYMBOL_SHARE if self.view.emission.symbols else SHARE
        shares = [table.get(candidate.name, 1.0) for candidate in left]
        return max(1.0, remaining * shares[0] / sum(shares))

    def place(self, candidate: Candidate) -> Path | None:
        return None if self.folder is None else place_of(self.folder, candidate.name)

    def fit(self, candidate: Candidate, seconds: float | None = None) -> FittedCandidate:
        """Fits one candidate, unless the folder holds it already."""
        place = self.place(candidate)
        if place is not None and (place / "result.safetensors").exists():
            found = load_fitted(place / "result.safetensors")
            self.on_event({"event": "end", "model": found.name, "valid": found.valid, "kept": True})
            return found
        self.on_event({"event": "start", "model": candidate.name, "family": candidate.family})
        reset_peak_memory()
        begun = time.monotonic()
        if candidate.train is None:
            # The held-out figure comes from the training part alone; the final fit uses both.
            fitted = self.begin(candidate, self.parts.train)
            nats, passes = self.judge(fitted), None
            # A vocabulary stays.
            again = fitted.transforms if self.parts.seen.domain.integer else None
            fitted = self.begin(candidate, self.parts.seen, again)
            spent = time.monotonic() - begun
        else:
            with threads(candidate.train.threads):
                fitted, nats, passes, spent = self.train(candidate, candidate.train, seconds, place)
        found = self.finished(candidate, fitted, nats, spent, passes)
        if place is not None and self.clock is not None:
            files.write_json(self.clock, time.monotonic() - self.begun)
            save_fitted(place / "result.safetensors", found)
            for left in ("training.safetensors", "refit/training.safetensors"):
                (place / left).unlink(missing_ok=True)
        self.on_event(
            {"event": "end", "model": found.name, "valid": found.valid, "seconds": found.seconds}
        )
        return found

    def finished(
        self,
        candidate: Candidate,
        fitted: FittedModel,
        nats: Tensor,
        seconds: float,
        passes: float | None = None,
    ) -> FittedCandidate:
        """The record of a fitted model; `nats` are those of the validation steps."""
        seen = fitted.transformed(self.held)
        same = torch.equal(seen.offsets, self.held.offsets)
        steps_held = seen.steps if same else self.held.steps  # of text: characters, not tokens
        valid = -float(nats[seen.scored()].sum()) / max(1, steps_held)
        memory = peak_memory_mb() or 0.0
        fitted.model.eval()
        return FittedCandidate(candidate, fitted, valid, nats, seconds, memory, passes)

    def judge(self, fitted: FittedModel) -> Tensor:
        """Log-probability of each validation step, in the data's own units; 0 for the past."""
        return fitted.step_log_prob(self.held)

    def blend(self, fitted: list[FittedCandidate]) -> list[FittedCandidate]:
        """The learned models that see the data alike as one, weighted by validation; or nothing.

        Weights come from the validation steps, under the models as they were before any refit.
        """
        latent = [one for one in fitted if one.candidate.family == "latent"]
        if not latent:
            return []
        leader = min(latent, key=lambda one: one.valid)
        alike = [
            one
            for one in fitted
            if one.candidate.family in ("latent", "autoregressive")
            and one.fitted.transforms == leader.fitted.transforms
            and math.isfinite(one.valid)
        ]
        scored = leader.fitted.transformed(self.held).scored()
        nats = torch.stack([one.valid_nats[scored] for one in alike])
        weights = blend_weights(nats)
        used = [(one, float(w)) for one, w in zip(alike, weights, strict=True) if w > 0]
        if len(used) < 2:
            return []
        model = Blend([one.model for one, _ in used], [w for _, w in used])
        judged = torch.zeros(len(scored), dtype=torch.float64)
        judged[scored] = cross_fitted(nats)
        names = [one.name for one, _ in used]
        candidate = Candidate(
            name="blend",
            family="blend",
            transforms=leader.candidate.transforms,
            model={**model.settings(), "names": names},
        )
        seconds = sum(one.seconds for one, _ in used)
        fitted_blend = replace(leader.fitted, name="blend", model=model, training=None)
        return [self.finished(candidate, fitted_blend, judged, seconds)]

    def begin(
        self, candidate: Candidate, data: Sequences, transforms: Transforms | None = None
    ) -> FittedModel:
        """A candidate as it is before training: transforms and marginal distributions fitted to
        `data`.
        """
        torch.manual_seed(self.settings.seed)
        model = registry.build(candidate.model)
        transforms = transforms or views.fitted(candidate.transforms, data)
        fitted = FittedModel(
            candidate.name,
            model,
            transforms,
            read_options=self.settings.data.options,
            training=candidate.train,
        )
        model.begin(fitted.transformed(data))
        return fitted

    def train(
        self,
        candidate: Candidate,
        wanted: TrainSettings,
        seconds: float | None,
        place: Path | None,
    ) -> tuple[FittedModel, Tensor, float, float]:
        """A trained network, the nats of the validation steps, passes, seconds."""
        fitted = self.begin(candidate, self.parts.train)
        model = fitted.model
        train, valid = (fitted.transformed(p) for p in (self.parts.train, self.parts.valid))
        settings = self.planned(model, train, valid, wanted, seconds, place)

        before = {"step": 0, "steps": 0, "seconds": 0.0}  # a refit goes on counting

        def on_event(event: dict[str, Any]) -> None:
            counted = {k: event[k] + n for k, n in before.items() if k in event}
            self.on_event({"model": candidate.name, **event, **counted})

        chosen = None if place is None else place / "chosen.safetensors"
        if chosen is not None and chosen.exists():
            tensors, (best_step, passes, before) = files.read_tensors(chosen)
            nats = tensors["nats"]
        else:
            trainer = Trainer(model, train, valid, settings, on_event, place)
            progress, passes = trainer.run(), trainer.passes
            nats, best_step = self.judge(fitted), progress.best_step or progress.step
            if settings.refit == "no":
                return fitted, nats, passes, progress.seconds
            before |= {
                "step": progress.step,
                "steps": progress.step,
                "seconds": progress.seconds,
            }
            if chosen is not None:
                tensors = {**registry.tensors_of(model), "nats": nats}
                files.write_tensors(chosen, tensors, [best_step, passes, before])
        if settings.refit == "afresh":
            fitted = self.begin(candidate, self.parts.seen)
            again = settings.model_copy(update={"steps": best_step})
        else:
            if chosen is not None:
                kept = registry.restored(candidate.model, files.read_tensors(chosen)[0])
                fitted = replace(fitted, model=kept)
            again = defaults.continued(settings, settings.steps)
        everything = fitted.transformed(self.parts.seen)
        folder = None if place is None else place / "refit"
        refit = Trainer(fitted.model, everything, None, again, on_event, folder).run()
        # As the trainers counted them: a run that was killed goes on counting.
        return fitted, nats, passes, before["seconds"] + refit.seconds

    def planned(
        self,
        model: SequenceModel,
        train: Sequences,
        valid: Sequences,
        settings: TrainSettings,
        seconds: float | None,
        place: Path | None,
    ) -> TrainSettings:
        """The training settings, with the steps that fit the time; decided once per run."""
        path = None if place is None else place / "plan.json"
        if path is not None and path.exists():
            return TrainSettings(**files.read_json(path))
        if seconds is not None and self.settings.steps is None:
            parts = {"no": 1.0, "afresh": 2.0, "continue": 1.0 + defaults.CONTINUED}
            share = seconds / parts[settings.refit]
            settings = affordable_steps(model, train, valid, settings, share)
        if path is not None:
            files.write_json(path, settings.model_dump(mode="json"))
        return settings

    def autoregressions(self) -> list[FittedCandidate]:
        """The finite windows: the best order in closed form, and a network over the window."""
        distribution = candidates.closed_form_emission(self.view.emission)
        advised = None if self.advice is None else self.advice.order
        ladder = candidates.orders(distribution, self.parts.train, self.settings.order, advised)
        transforms = list(self.view.transforms)
        chain = views.fitted(transforms, self.parts.train)
        train, valid = self.parts.train.transform(chain), self.parts.valid.transform(chain)
        if natural_predictor(distribution) == "ngram":
            self.orders = symbol_orders(train, valid, distribution, max(ladder))
        elif natural_predictor(distribution) == "linear":
            if self.settings.order == "auto":
                most = views.highest_order(self.parts.train, transforms, max(ladder))
                ladder = [order for order in ladder if order <= most] or [max(0, most)]
            self.orders = real_orders(train, valid, distribution, ladder, self.view.differenced)
        else:
            self.orders = []
        order = ladder[0]
        if self.settings.order != "auto":
            order = int(self.settings.order)
        elif self.orders:
            order = min(self.orders, key=lambda row: or_infinite(row.nats_per_step)).order
        found = []
        if natural_predictor(distribution) != "mlp":
            found.append(self.fit(self.window(f"ar({order})", order, distribution, train, None)))
        if self.parts.train.domain.kind != "text":
            width = candidates.window_width(train, order, self.settings.order)
            training = defaults.window_training(self.parts.train, self.view.emission, self.settings)
            candidate = self.window(
                f"mlp({width})", width, self.view.emission, train, training, predictor="mlp"
            )
            found.append(
                self.fit(candidate, self.settings.time_limit and 0.1 * self.settings.time_limit)
            )
        return found

    def window(
        self,
        name: str,
        order: int,
        emission: Emission,
        train: Sequences,
        training: TrainSettings | None,
        predictor: str = "auto",
    ) -> Candidate:
        counts = predictor == "auto" and natural_predictor(emission) == "ngram"
        model: dict[str, Any] = {
            "kind": "autoregressive",
            "order": order,
            "emission": emission.to_json(),
            "predictor": predictor,
            "covariates": 0 if train.covariates is None or counts else train.covariates.shape[1],
            "num_differencing": self.view.differenced,
        }
        return Candidate(
            name=name,
            family="autoregressive",
            transforms=list(self.view.transforms),
            model=model,
            train=training,
        )


def place_of(folder: Path, name: str) -> Path:
    """Where a run folder keeps a fitted candidate."""
    return folder / "checkpoint" / re.sub(r"[^a-z0-9]+", "-", name.lower())


def save_fitted(path: Path, one: FittedCandidate) -> None:
    """Writes a finished candidate, weights and all, as one file."""
    values = {
        "candidate": one.candidate.model_dump(mode="json"),
        "transforms": one.fitted.transforms.to_json(),
        "read_options": dict(one.fitted.read_options),
        "valid": one.valid,
        "seconds": one.seconds,
        "peak_memory_mb": one.peak_memory_mb,
        "passes": one.passes,
    }
    tensors = {**registry.tensors_of(one.model), "valid_nats": one.valid_nats}
    files.write_tensors(path, tensors, values)


def load_fitted(path: Path) -> FittedCandidate:
    """The candidate that `save_fitted` wrote."""
    tensors, values = files.read_tensors(path)
    candidate = Candidate(**values["candidate"])
    fitted = FittedModel(
        candidate.name,
        registry.restored(candidate.model, tensors),
        Transforms.from_json(values["transforms"]),
        read_options=values["read_options"],
        training=candidate.train,
    )
    return FittedCandidate(
        candidate,
        fitted,
        values["valid"],
        tensors["valid_nats"],
        values["seconds"],
        values["peak_memory_mb"],
        values["passes"],
    )
