"""How far back the gradient of a fitted network reaches, on a segment of its data.

The segment is cut from whole sequences. Training may run through pieces of them, and truncates its
gradients; what it thereby leaves out shows only where nothing was cut.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from throughtime import bptt, gradflow
from throughtime.data.batching import Batch, Lanes
from throughtime.data.sequences import Sequences
from throughtime.errors import SettingError
from throughtime.evaluation.results import GradientRecord
from throughtime.gradflow import Examination, Loss, Verdict
from throughtime.models.base import SequenceModel
from throughtime.models.latent import LatentAutoregressive
from throughtime.predict.fitted import FittedModel
from throughtime.state import State
from throughtime.training.reach_monitor import truncation
from throughtime.types import Progress, silent

WORK = 2.5e10  # (weights + _BESIDE) × steps × lags: several seconds
_BESIDE = 60_000  # what a step costs beside the products with the weights, in weights
_STEPS = 2000  # of a segment, all rows together
_LAGS = 400  # that are looked at where nothing is truncated
_LAGS_TRUNCATED = 100  # that are looked at however early training truncates
_LEAST_LAGS, _LEAST_STEPS = 20, 100
_WARM = 1000  # steps read before the segment
_ROWS = 32


@dataclass(frozen=True)
class GradientReach:
    """How far back the gradient of a fitted network reaches, and what truncation leaves out.

    Attributes:
        model: name of the network.
        step: what one step of the data is called.
        rows: sequences, or pieces of them, side by side.
        examination: of its gradient; the parameters are the recurrent ones.
    """

    model: str
    step: str
    rows: int
    examination: Examination

    @property
    def verdict(self) -> Verdict:
        """What it means, in words, with a remedy."""
        return self.examination.verdict

    def reach(self, share: float = 0.95) -> int | None:
        """The smallest lag within which `share` of the gradient lies; see `gradflow.Ledger`."""
        return self.examination.ledger.reach(share)

    def to_json(self) -> dict[str, Any]:
        """What docs/commands.md lists under `gradients`, but for the run: plain JSON values."""
        head = {"model": self.model, "step": self.step, "rows": self.rows}
        return head | self.examination.to_json()

    def record(self) -> GradientRecord:
        """What scores, reports and pictures have of it."""
        return GradientRecord.model_validate(self.to_json())

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> GradientReach:
        """What `to_json` wrote. Raises RunError for JSON of another schema."""
        examination = Examination.from_json(entry)
        return cls(entry["model"], entry["step"], entry["rows"], examination)


def examine(
    fitted: FittedModel,
    raw: Sequences,
    learned: bool,
    max_lag: int | None = None,
    work: float = WORK,
    seed: int = 0,
    on_progress: Progress = silent,
) -> GradientReach:
    """Takes the gradient of a fitted network apart by lag, on a segment of data.

    Args:
        fitted: a network (`LatentAutoregressive`) with how it was trained.
        raw: data like those it was trained on.
        learned: whether it predicts better than without a past; then it is no fault that the
            gradients of its losses cancel.
        max_lag: the longest lag; None: half as long again as the truncation in use and 100 at
            least, or less where the data or the work allow no more.
        work: about how much may be done, in (weights + 60,000) × steps × lags.
        seed: of what is drawn on the way.
        on_progress: called with what is done, out of 100.

    Raises:
        SettingError: for lags that the data do not have.
        NonFiniteError: where the gradient is not finite.
    """
    model, settings = fitted.model.eval(), fitted.training
    assert isinstance(model, LatentAutoregressive)
    assert settings is not None
    transformed = fitted.transformed(raw)
    method = bptt.parse(settings.bptt)
    known = truncation(settings, method)
    params: dict[str, Tensor] = {
        name: p for name, p in model.named_parameters() if name.startswith("recurrent.")
    }
    weights, longest = sum(p.numel() for p in params.values()), int(transformed.lengths.max())
    lags, steps = sizes(longest, weights, known.k2 if known else None, max_lag, work)
    batch, state = segment(model, transformed, steps)
    if isinstance(method, bptt.Adaptive):  # as it would choose now
        known = truncation(settings, method.truncation(plain_loss(model), batch, state))
    examination = gradflow.examine(
        plain_loss(model), batch, state, params, lags, known.k1 if known else 1,
        known.k2 if known else None, learned, seed,
        on_progress=lambda part, share: on_progress(round(100 * share), 100, f"gradient: {part}"),
    )  # fmt: skip
    return GradientReach(fitted.name, raw.domain.step, batch.x.shape[1], examination)


def plain_loss(model: SequenceModel) -> Loss:
    """The loss of a model by operators that have every kind of derivative."""
    return partial(SequenceModel.loss, model)


def sizes(
    longest: int, weights: int, k2: int | None, max_lag: int | None, work: float
) -> tuple[int, int]:
    """How many lags to look at, and in how many steps (of all rows together).

    longest: the steps of the longest sequence. Where the work does not allow for all, there are
    fewer steps, and then fewer lags, down to twice as many steps as lags.
    """
    places = work / (weights + _BESIDE)  # steps × lags
    if max_lag is not None:
        if not 1 <= max_lag < longest:
            raise SettingError(
                f"max_lag={max_lag}: from 1 to {longest - 1}; the longest sequence has {longest} "
                "steps"
            )
        return max_lag, max(2 * max_lag, min(_STEPS, int(places / max_lag)))
    lags = min(_LAGS if k2 is None else max(3 * k2 // 2, _LAGS_TRUNCATED), longest - 1)
    lags = max(1, min(lags, max(_LEAST_LAGS, math.isqrt(int(places / 2)))))
    least = max(2 * lags, _LEAST_STEPS)
    return lags, max(least, min(_STEPS, int(places / lags)))


@torch.no_grad()
def segment(
    model: LatentAutoregressive, transformed: Sequences, steps: int
) -> tuple[Batch, State]:  # fmt: skip
    """About so many steps from the middle of the data, in some rows, and the state before them."""
    rows = max(1, min(_ROWS, len(transformed), steps // int(transformed.lengths.max())))
    lanes = Lanes(transformed, rows, dtype=next(model.parameters()).dtype)
    length = min(len(lanes), max(2, steps // lanes.num_lanes))
    begin = (len(lanes) - length) // 2
    state = model.initial_state(lanes.num_lanes)
    for t in range(max(0, begin - _WARM), begin, _WARM):
        _, state = model.loss(lanes[t:begin], state)
    return lanes[begin : begin + length], state
