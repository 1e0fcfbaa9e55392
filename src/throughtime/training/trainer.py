"""Training: one visible loop, and everything in it survives a kill.

The result depends on the settings, the data and the seed only: an interrupted run goes on from its
last checkpoint (weights, averages, optimiser, generator, carried states, data cursor) and ends with
the same bits as an uninterrupted one.
"""

from __future__ import annotations

import copy
import math
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from throughtime import bptt, files, rng
from throughtime import state as states
from throughtime.bptt import GradientMethod, Position
from throughtime.data.batching import Lanes
from throughtime.data.sequences import Sequences
from throughtime.errors import NonFiniteError
from throughtime.models.base import SequenceModel
from throughtime.models.latent import LatentAutoregressive
from throughtime.training import checkpoint
from throughtime.training.config import TrainSettings
from throughtime.training.reach_monitor import ReachMonitor
from throughtime.types import Event, unheard

_UNCUT_STEPS = 30_000  # validation data longer than this are read in several lanes at once
_PROBE_UPDATES = 3
_FEWEST_UPDATES = 12  # fewer are worth nothing


@dataclass
class Progress:
    """Everything about a training run that is not a tensor."""

    step: int = 0
    epoch: int = 0
    best: float | None = None
    best_step: int = 0
    waited: int = 0
    clipped: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    seconds: float = 0.0
    loss: float = 0.0
    loss_steps: float = 0.0
    cursor: int = 0
    begin: int = 0


@dataclass
class Trainer:
    """A model, its data and its settings, part-way through training.

    `run` is the whole loop: `epoch` packs the sequences into lanes, `update` takes one gradient
    through time and one step of AdamW, `validate` keeps the averaged weights that are best, `save`
    and `resume` survive a kill. The loop of one's own is made of the same parts.

    Attributes:
        model: trained in place; the best (or last averaged) weights are in it afterwards.
        train: transformed training data.
        valid: transformed validation data; None: train for all the steps, keep the last averages.
        settings: see `TrainSettings`.
        on_event: called at every validation and every step that had to be skipped.
        folder: where checkpoints are kept; None: nowhere.
        progress: how far it is.

    Example:
        >>> trainer = tt.Trainer(model, train, valid, tt.TrainSettings(steps=500, bptt="64,128"))
        >>> trainer.run().best  # validation nats per step
    """

    model: SequenceModel
    train: Sequences
    valid: Sequences | None
    settings: TrainSettings
    on_event: Event = unheard
    folder: Path | None = None
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        self.method: GradientMethod = bptt.parse(self.settings.bptt)
        self.parameters: list[Tensor] = [p for p in self.model.parameters() if p.requires_grad]
        decayed, others = _by_decay(self.model)
        self.optimiser = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": self.settings.weight_decay},
                {"params": others, "weight_decay": 0.0},
            ],
            lr=self.settings.learning_rate,
            betas=self.settings.betas,
            fused=True,
        )
        self.averages = [p.detach().clone() for p in self.parameters]
        self.best = [p.detach().clone() for p in self.parameters]
        self.at = Position()
        self.lanes: Lanes | None = None
        self.monitor: ReachMonitor | None = None
        self.started = time.monotonic()
        self.saved = self.started

    def run(self) -> Progress:
        """Trains to the end and leaves the best weights (by validation) in the model."""
        progress, settings = self.progress, self.settings
        torch.manual_seed(settings.seed)
        if self.resume():
            self.on_event({"event": "resume", "step": progress.step})
        else:
            self.epoch(0)
        while progress.step < settings.steps and not self.exhausted():
            if self.lanes is None or self.at.target >= len(self.lanes):
                self.epoch(progress.epoch + 1)
            self.update()
            if progress.step % settings.valid_every == 0 or progress.step == settings.steps:
                self.validate()
            if time.monotonic() - self.saved >= settings.checkpoint_seconds:
                self.save()
        with torch.no_grad():
            for parameter, value in zip(self.parameters, self.best, strict=True):
                parameter.copy_(value)
        progress.seconds = self.elapsed()
        return progress

    def epoch(self, number: int) -> None:
        """A new pass over the training data: new order of sequences, new phases, fresh states."""
        self.progress.epoch = number
        self.lanes = self._lanes(number)
        start = self.model.initial_state(self.lanes.num_lanes)
        self.at = Position.start(start, self.at.estimate)

    def _lanes(self, epoch: int) -> Lanes:
        generator = rng.generator(self.settings.seed, "lanes", epoch)
        return Lanes(
            self.train, self.settings.lanes, segment=self.settings.segment, generator=generator
        )

    def update(self) -> None:
        """One optimiser step: gradient through time, clip, AdamW, average."""
        assert self.lanes is not None
        progress, settings, before = self.progress, self.settings, self.at
        self.model.train()
        self.optimiser.zero_grad()
        low = settings.precision == "bfloat16"
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            loss, self.at = self.method.advance(self.model.loss, self.lanes, before)
        count = self.lanes.scored(before.target, self.at.target)
        progress.step += 1
        if count == 0:
            return
        torch._foreach_div_([p.grad for p in self.parameters if p.grad is not None], count)
        norm, clipped = bptt.clip(self.parameters, settings.clip)
        if not (torch.isfinite(loss) and torch.isfinite(norm)):
            self.skip()
            return
        progress.skipped_in_a_row = 0
        progress.clipped += clipped
        progress.loss += float(loss)
        progress.loss_steps += count
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate(progress.step)
        self.optimiser.step()
        decay = min(settings.average, (1 + progress.step) / (10 + progress.step))
        decay = decay if settings.average else 0.0
        torch._foreach_lerp_(self.averages, [p.detach() for p in self.parameters], 1.0 - decay)

    def learning_rate(self, step: int) -> float:
        """Linear warm-up, then a cosine down to the final rate."""
        settings = self.settings
        warmup = max(1, round(settings.warmup * settings.steps))
        if step <= warmup:
            return settings.learning_rate * step / warmup
        share = (step - warmup) / max(1, settings.steps - warmup)
        cosine = 0.5 * (1.0 + math.cos(math.pi * share))
        return settings.learning_rate * (settings.final_rate + (1.0 - settings.final_rate) * cosine)

    def skip(self) -> None:
        """Counts a step whose loss or gradient is not finite, and restarts broken states."""
        progress = self.progress
        progress.skipped += 1
        progress.skipped_in_a_row += 1
        self.on_event({"event": "skip", "step": progress.step, "skipped": progress.skipped})
        if progress.skipped_in_a_row >= self.settings.max_skipped:
            raise NonFiniteError(
                f"{progress.skipped_in_a_row} training steps in a row had an infinite or NaN loss "
                f"or gradient (last at step {progress.step}); lower the learning rate "
                f"({self.settings.learning_rate:g}) or look for extreme values in the data"
            )
        carried = (self.at.state, self.at.begin_state)
        if not all(bool(torch.isfinite(part).all()) for part in states.leaves(carried)):
            assert self.lanes is not None
            fresh = states.detach(self.model.initial_state(self.lanes.num_lanes))
            self.at = Position(self.at.target, fresh, self.at.target, fresh, self.at.estimate)

    @property
    def passes(self) -> float:
        """How often the training data were gone through, the present pass in part."""
        assert self.lanes is not None
        return self.progress.epoch + self.at.target / max(1, len(self.lanes))

    def exhausted(self) -> bool:
        """Whether validation has stopped improving for as long as the patience allows."""
        patience = self.settings.patience
        return patience is not None and self.progress.waited >= patience

    def validate(self) -> None:
        """Scores the averaged weights on the validation data and keeps them if they are best."""
        progress = self.progress
        if self.valid is None:
            self.best = [average.clone() for average in self.averages]
            self.on_event(self.report(None))
            progress.loss = progress.loss_steps = 0.0
            return
        swapped = [p.detach().clone() for p in self.parameters]
        with torch.no_grad():
            for parameter, average in zip(self.parameters, self.averages, strict=True):
                parameter.copy_(average)
        nats = validation_nats(self.model, self.valid, self.settings.valid_past)
        if math.isfinite(nats) and (progress.best is None or nats < progress.best):
            progress.best, progress.best_step, progress.waited = nats, progress.step, 0
            self.best = [average.clone() for average in self.averages]
        else:
            progress.waited += 1
        with torch.no_grad():
            for parameter, value in zip(self.parameters, swapped, strict=True):
                parameter.copy_(value)
        self.on_event(self.report(nats))
        progress.loss = progress.loss_steps = 0.0

    def report(self, valid: float | None) -> dict[str, Any]:
        """What the log gets at each validation."""
        progress, seconds = self.progress, self.elapsed()
        return {
            "event": "valid" if self.valid is not None else "step",
            "step": progress.step,
            "steps": self.settings.steps,
            "seconds": round(seconds, 3),
            "train": progress.loss / max(progress.loss_steps, 1.0) + self.offset,
            "valid": valid,
            "best": progress.best,
            "rate": round(progress.step / max(seconds, 1e-9), 3),
            "learning_rate": self.learning_rate(progress.step),
            "clip_rate": progress.clipped / progress.step,
            "skipped": progress.skipped,
            "utilisation": round(self.lanes.utilisation, 4) if self.lanes else None,
            "lag": None if self.at.estimate is None else self.at.estimate.lag,
            "reach": self.reach(),
        }

    @cached_property
    def offset(self) -> float:
        """What turns nats per step of the training data into their own units."""
        return train_offset(self.train)

    def reach(self) -> float | None:
        """How many steps back the gradient of a network reaches now, at validations that look."""
        if not isinstance(self.model, LatentAutoregressive):
            return None
        if self.monitor is None:
            self.monitor = ReachMonitor(self.model, self.train, self.settings, self.method)
        lags = self.monitor.look(self.progress.step)
        return None if lags is None else round(lags, 2)

    def elapsed(self) -> float:
        """Seconds of training so far, interruptions not counted."""
        return self.progress.seconds + time.monotonic() - self.started

    def save(self) -> None:
        """Writes a checkpoint from which `resume` goes on with the same bits."""
        self.saved = time.monotonic()
        if self.folder is None:
            return
        tensors: dict[str, Tensor] = {"generator": torch.get_rng_state()}
        for kind, values in self._kinds().items():
            tensors |= {f"{kind}.{i}": value for i, value in enumerate(values)}
        self.progress.cursor, self.progress.begin = self.at.target, self.at.begin
        progress = vars(self.progress) | {"seconds": self.elapsed()}
        rest = {
            "progress": progress,
            "settings": self.settings.model_dump(mode="json"),
            "optimiser": checkpoint.pack_optimiser(self.optimiser, tensors),
            "state": checkpoint.pack(self.at.state, "state", tensors),
            "begin_state": checkpoint.pack(self.at.begin_state, "begin_state", tensors),
            "estimate": None if self.at.estimate is None else vars(self.at.estimate),
            "data": self._fingerprint,
        }
        files.write_tensors(self.folder / "training.safetensors", tensors, rest)

    def resume(self) -> bool:
        """Goes on from the folder's checkpoint, if it is of the same model, settings and data.

        One that is damaged is told of, and training begins from the start.
        """
        path = None if self.folder is None else self.folder / "training.safetensors"
        if path is None or not path.exists():
            return False
        try:
            with files.reading(path):
                tensors, values = files.read_tensors(path)
                made_of = values["settings"], values["data"]
        except files.Damaged as error:
            self.on_event({"event": "note", "message": error.anew})
            return False
        settings = self.settings.model_dump(mode="json")
        if made_of != (settings, self._fingerprint) or not self._fits(tensors):
            return False
        with files.reading(path):
            self._restore(tensors, values)
        return True

    def _restore(self, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
        torch.set_rng_state(tensors["generator"])
        with torch.no_grad():
            for kind, targets in self._kinds().items():
                for i, value in enumerate(targets):
                    value.copy_(tensors[f"{kind}.{i}"])
        checkpoint.unpack_optimiser(self.optimiser, tensors, values["optimiser"])
        vars(self.progress).update(values["progress"])
        self.lanes = self._lanes(self.progress.epoch)
        state = checkpoint.unpack(values["state"], tensors)
        begin_state = checkpoint.unpack(values["begin_state"], tensors)
        known = values.get("estimate")
        estimate = None if known is None else bptt.Estimate(**known)
        self.at = Position(self.progress.cursor, state, self.progress.begin, begin_state, estimate)
        self.started = time.monotonic()

    @cached_property
    def _fingerprint(self) -> str:
        return self.train.fingerprint()

    def _fits(self, tensors: dict[str, Tensor]) -> bool:
        """Whether a checkpoint is of a model like this one."""
        shapes = {
            f"{kind}.{i}": value.shape
            for kind, values in self._kinds().items()
            for i, value in enumerate(values)
        }
        return shapes == {name: tensors[name].shape for name in shapes if name in tensors}

    def _kinds(self) -> dict[str, list[Tensor]]:
        current = [p.detach() for p in self.parameters]
        return {"parameter": current, "average": self.averages, "best": self.best}


def _by_decay(model: SequenceModel) -> tuple[list[Tensor], list[Tensor]]:
    """The trained parameters that weight decay pulls to zero, and biases and first states."""
    decayed: list[Tensor] = []
    others: list[Tensor] = []
    for name, p in model.named_parameters():
        if p.requires_grad:
            spared = p.dim() < 2 or name == "start" or name.endswith("bias")
            (others if spared else decayed).append(p)
    return decayed, others


def train_offset(data: Sequences) -> float:
    """What turns nats per step of transformed values into nats in the data's own units."""
    if data.log_det.stride() == (0,) and len(data.log_det):  # the same everywhere
        return float(-data.log_det[0])
    scored = data.scored()
    return float(-data.log_det[scored].mean()) if bool(scored.any()) else 0.0


@torch.no_grad()
def validation_nats(model: SequenceModel, valid: Sequences, past: int | None) -> float:
    """Negative log-likelihood per scored step of validation data, in the data's own units."""
    model.eval()
    whole = len(valid.values) <= _UNCUT_STEPS or len(valid) >= 32
    num_lanes = min(64, len(valid)) if whole else 32
    lanes = Lanes(valid, num_lanes, cut=not whole, past=past)
    state = model.initial_state(lanes.num_lanes)
    total, count = 0.0, 0.0
    for t in range(0, len(lanes), 256):
        batch = lanes[t : t + 256]
        distribution, state = model(batch, state)
        real = batch.weight > 0
        total -= float(distribution.log_prob(batch.x)[real].double().sum())
        count += float(real.sum())
    return total / max(count, 1.0) + train_offset(valid)


def affordable_steps(
    model: SequenceModel,
    train: Sequences,
    valid: Sequences,
    settings: TrainSettings,
    seconds: float,
    least: int = 10,
    after: int = 0,
) -> TrainSettings:
    """The settings with as many updates as fit into `seconds`, measured on a copy of the model.

    Args:
        model: what is to be trained.
        train: its data.
        valid: the data that it is validated on.
        settings: with as many updates as are wanted at most.
        seconds: in all.
        least: updates, however little time there is.
        after: validations that are to follow, in the same time.
    """
    endless = settings.model_copy(update={"steps": 10**9})
    trial = Trainer(copy.deepcopy(model), train, valid, endless)
    torch.manual_seed(settings.seed)
    trial.epoch(0)
    begun = time.monotonic()
    trial.update()
    if (time.monotonic() - begun) * _FEWEST_UPDATES > seconds:  # not worth a closer look
        return settings.model_copy(update={"steps": least, "valid_every": least})
    begun = time.monotonic()
    validation_nats(trial.model, valid, settings.valid_past)
    validating = time.monotonic() - begun
    begun = time.monotonic()
    for _ in range(_PROBE_UPDATES):
        assert trial.lanes is not None
        if trial.at.target >= len(trial.lanes):
            trial.epoch(trial.progress.epoch + 1)
        trial.update()
    updating = (time.monotonic() - begun) / _PROBE_UPDATES
    spent = _PROBE_UPDATES * updating + (1 + after) * validating
    # Validation may take a tenth of the time; up to half of it where there would be fewer than
    # twenty validations in a run.
    steps = min(settings.steps, max(least, int((seconds - spent) / (1.1 * updating))))
    cost = validating / updating
    every = max(settings.valid_every, math.ceil(max(cost, min(10 * cost, steps / 20))))
    steps = min(steps, max(least, int((seconds - spent) / (updating * (1 + cost / every)))))
    return settings.model_copy(update={"steps": steps, "valid_every": min(every, steps)})
