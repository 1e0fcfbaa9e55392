"""Log-likelihoods of data step by step, refused where the model has never seen their symbols."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Transforms
from throughtime.errors import DataError, VocabularyError
from throughtime.models.autoregressive import Autoregressive
from throughtime.models.base import SequenceModel
from throughtime.models.ensemble import Blend
from throughtime.types import Progress

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Judged:
    """The log-probability of each step of data, in raw units: nats float64 [total]."""

    raw: Sequences
    seen: Sequences
    nats: Tensor
    chain: Transforms
    unit: str

    def totals(self) -> dict[str, Any]:
        """Of all, per step and per sequence; see `Run.score`."""
        seen = self.seen
        counts = torch.zeros(len(seen), dtype=torch.int64)
        counts = counts.index_add_(0, seen.rows, seen.scored().long())
        counts = seen.sizes.get("characters", counts)
        each = torch.zeros(len(seen), dtype=torch.float64).index_add_(0, seen.rows, self.nats)
        steps, total = int(counts.sum()), float(each.sum())
        if steps == 0:
            raise DataError("there is no observed value to score")
        sizes = {unit.removesuffix("s"): int(size.sum()) for unit, size in seen.sizes.items()}
        if self.raw.domain.kind == "sound":
            sizes["sample"] = steps
        return {
            "unit": self.unit,
            "total_nats": total,
            "steps": steps,
            "nats_per_step": -total / steps,
            **{f"bits_per_{u}": -total / math.log(2) / n for u, n in sizes.items()},
            "sequences": [
                {"name": name, "steps": int(count), "nats": float(value)}
                for name, count, value in zip(seen.names, counts, each, strict=True)
            ],
        }

    def frame(self) -> pl.DataFrame:
        """A row for each scored step; see `Run.step_scores`."""
        import polars as pl

        raw, seen = self.raw, self.seen
        kept = seen.scored()
        columns: dict[str, Any] = {
            "sequence": _picked(seen.names, seen.rows[kept]),
            "step": (torch.arange(len(self.nats)) - seen.offsets[seen.rows])[kept].numpy(),
        }
        if seen.times is not None:
            columns["time"] = seen.times[kept.numpy()]
        aligned = torch.equal(seen.offsets, raw.offsets)
        if raw.domain.kind == "text":
            columns["symbol"] = self._symbols(raw.values[kept] if aligned else seen.values[kept])
        elif aligned:
            values = raw.values[kept].reshape(int(kept.sum()), -1)
            names = raw.domain.columns or tuple(f"value_{i}" for i in range(values.shape[1]))
            columns |= {n: values[:, i].numpy() for i, n in enumerate(names)}
        return pl.DataFrame({**columns, "nats": -self.nats[kept].numpy()})

    def _symbols(self, values: Tensor) -> list[str]:
        """What each symbol of text stands for: characters, or parts of the tokenised text."""
        distinct, places = values.unique(return_inverse=True)
        if any(kind in ("bytes", "tokens") for kind in self.chain.kinds):
            texts = [self.chain.text(one.reshape(1)) for one in distinct]
        else:
            texts = [chr(point) for point in distinct.tolist()]
        return _picked(texts, places)


def _picked(texts: Sequence[str], places: Tensor) -> list[str]:
    return [str(text) for text in np.asarray(texts, dtype=object)[places.numpy()]]


def step_log_prob(model: SequenceModel, seen: Sequences, on_progress: Progress) -> Tensor:
    """`SequenceModel.step_log_prob`, telling how far it is."""
    with torch.no_grad():
        nats = step_nats(model.eval(), seen, on_progress)
    return torch.where(seen.scored(), nats + seen.log_det, 0.0)


def step_nats(model: SequenceModel, seen: Sequences, on_progress: Progress) -> Tensor:
    """`SequenceModel.step_nats`, telling how far it is."""
    total = len(seen.values)
    if isinstance(model, Blend):
        parts = model.parts()
        each = []
        for i, part in enumerate(parts):

            def tell(done: int, whole: int, about: str, i: int = i) -> None:
                on_progress(i * whole + done, len(parts) * whole, about)

            each.append(step_nats(part, seen, tell))
            tell(total, total, "scoring")
        weights: Tensor = model.weights  # type: ignore[assignment]
        return torch.logsumexp(torch.stack(each) + weights.log().unsqueeze(-1), 0)
    if isinstance(model, Autoregressive) and model.closed_form:
        return model.step_nats(seen)  # all at once
    nats, done = torch.zeros(total, dtype=torch.float64), 0
    for batch, distribution in model.distributions(seen):
        real = batch.weight > 0
        nats[batch.index[real]] = distribution.log_prob(batch.x).double()[real]
        done += int((batch.index >= 0).sum())
        on_progress(min(done, total), total, "scoring")
    return nats


def check_known(
    chain: Transforms,
    raw: Sequences,
    seen: Sequences,
    hint: str = "; use unknown=True to score it as an unseen character",
) -> None:
    last = next((t for t in chain if t.kind == "characters"), None)
    if last is None or seen.domain.num_symbols is None:
        return
    strange = (seen.values == seen.domain.num_symbols - 1) & seen.scored()
    if not bool(strange.any()):
        return
    at = int(strange.nonzero()[0])
    symbol = chr(int(raw.values[at]))
    row = int(raw.rows[at])
    before = raw.values[int(raw.offsets[row]) : at].tolist()
    line, column = before.count(10) + 1, len(before) - _last_newline(before)
    raise VocabularyError(
        f"{symbol!r} (U+{ord(symbol):04X}) in '{raw.names[row]}', line {line}, column {column} "
        f"is not among the {seen.domain.num_symbols - 1} characters this model was fitted on"
        f"{hint}"
    )


def _last_newline(points: list[int]) -> int:
    return max((i for i, point in enumerate(points) if point == 10), default=-1)
