"""Log-likelihoods of data step by step, refused where the model has never seen their symbols."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from throughtime.data.compact import BLOCK
from throughtime.data.frames import frame_of
from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Transforms
from throughtime.errors import DataError, VocabularyError
from throughtime.models.base import SequenceModel
from throughtime.types import Progress


@dataclass(frozen=True)
class SequenceScores:
    """The log-probability of each step of data, in the data's own units.

    Attributes:
        raw: the data as they were given.
        transformed: the same as the model sees them.
        model: that scores them.
        log_prob: log-likelihood of each sequence, nats, float64 ``[N]``.
        unit: of `nats_per_step`.
    """

    raw: Sequences
    transformed: Sequences
    model: SequenceModel
    log_prob: Tensor
    unit: str
    library: str = "polars"  # that frames are made in
    kept: Tensor | None = None  # read them as `nats`

    @classmethod
    def of(
        cls, model: SequenceModel, data: tuple[Sequences, Sequences], unit: str, library: str,
        on_progress: Progress,
    ) -> SequenceScores:  # fmt: skip
        """What a model makes of data, raw and as it sees them, telling how far it is."""
        raw, seen = data
        total, done = len(seen.values), 0

        def on_steps(more: int) -> None:
            nonlocal done
            done = min(done + more, total)
            on_progress(done, total, "scoring")

        if total > BLOCK:
            return cls(raw, seen, model, model.log_prob(seen, on_steps), unit, library)
        nats = model.step_log_prob(seen, on_steps)
        # Each sequence is summed by itself: one of probability 0 must not spoil the others.
        each = torch.zeros(len(seen), dtype=torch.float64).index_add_(0, seen.rows, nats)
        return cls(raw, seen, model, each, unit, library, nats)

    @cached_property
    def nats(self) -> Tensor:
        """Log-probability of each transformed step, float64 ``[total]``, 0 where not scored.

        Those of very long data are computed again when asked for: they take eight bytes a step.
        """
        return self.model.step_log_prob(self.transformed) if self.kept is None else self.kept

    @property
    def steps(self) -> Tensor:
        """Scored steps of each sequence (of text: characters), int64 ``[N]``."""
        seen = self.transformed
        counts = seen.lengths - seen.starts
        if not seen.domain.integer:
            counts = torch.zeros_like(counts).index_add_(0, seen.rows, seen.scored().long())
        return seen.sizes.get("characters", counts)

    @property
    def nats_per_step(self) -> float:
        """What a step costs on average: minus the mean log-likelihood."""
        steps = int(self.steps.sum())
        if steps == 0:
            raise DataError("there is no observed value to score")
        return -float(self.log_prob.sum()) / steps

    def to_json(self) -> dict[str, Any]:
        """Of all, per step and per sequence, as docs/commands.md lists it."""
        per_step, total = self.nats_per_step, float(self.log_prob.sum())
        counts = self.steps
        sizes = {unit.removesuffix("s"): int(n.sum()) for unit, n in self.transformed.sizes.items()}
        if self.raw.domain.kind == "sound":
            sizes["sample"] = int(counts.sum())
        names = self.transformed.names
        return {
            "unit": self.unit,
            "total_nats": total,
            "steps": int(counts.sum()),
            "nats_per_step": per_step,
            **{f"bits_per_{u}": -total / math.log(2) / n for u, n in sizes.items()},
            "sequences": [
                {"name": name, "steps": int(count), "nats": float(value)}
                for name, count, value in zip(names, counts, self.log_prob, strict=True)
            ],
        }

    def frame(self, transforms: Transforms) -> Any:
        """A row for each scored step; see `FittedModel.step_scores`."""
        raw, seen = self.raw, self.transformed
        kept = seen.scored()
        step = (torch.arange(len(self.nats)) - seen.offsets[seen.rows])[kept].numpy()
        columns: dict[str, Any] = {
            "unique_id": _picked(seen.names, seen.rows[kept]),
            "ds": step if seen.times is None else seen.times[kept.numpy()],
            "step": step,
        }
        aligned = torch.equal(seen.offsets, raw.offsets)
        if raw.domain.kind == "text":
            values = raw.values[kept] if aligned else seen.values[kept]
            columns["symbol"] = _symbols(values, transforms)
        elif aligned:
            values = raw.values[kept].reshape(int(kept.sum()), -1)
            names = raw.domain.columns or tuple(f"value_{i}" for i in range(values.shape[1]))
            values = values.long() if raw.domain.integer else values
            columns |= {n: values[:, i].numpy() for i, n in enumerate(names)}
        return frame_of({**columns, "surprisal": -self.nats[kept].numpy()}, self.library)


def _symbols(values: Tensor, transforms: Transforms) -> list[str]:
    """What each symbol of text stands for: characters, or parts of the tokenised text."""
    distinct, places = values.unique(return_inverse=True)
    if any(kind in ("bytes", "tokens") for kind in transforms.kinds):
        texts = [transforms.text(one.reshape(1)) for one in distinct]
    else:
        texts = [chr(point) for point in distinct.tolist()]
    return _picked(texts, places)


def _picked(texts: Sequence[str], places: Tensor) -> list[str]:
    return [str(text) for text in np.asarray(texts, dtype=object)[places.numpy()]]


def check_known(
    transforms: Transforms,
    raw: Sequences,
    transformed: Sequences,
    hint: str = "; use unknown=True to score it as an unseen character",
) -> None:
    """Refuses characters that the model has never seen.

    Raises:
        VocabularyError: naming the first one and its line and column.
    """
    last = next((t for t in transforms if t.kind == "characters"), None)
    known = transformed.domain.num_symbols
    if last is None or known is None:
        return
    strange = (transformed.values == known - 1) & transformed.scored()
    if not bool(strange.any()):
        return
    at = int(strange.nonzero()[0])
    symbol = chr(int(raw.values[at]))
    row = int(torch.searchsorted(raw.offsets, at, right=True)) - 1
    before = raw.values[int(raw.offsets[row]) : at]
    newlines = (before == 10).nonzero()[:, 0]
    newline = int(newlines[-1]) if len(newlines) else -1
    raise VocabularyError(
        f"{symbol!r} (U+{ord(symbol):04X}) in '{raw.names[row]}', line {len(newlines) + 1}, "
        f"column {len(before) - newline} is not among the {known - 1} characters this model was "
        f"fitted on{hint}"
    )
