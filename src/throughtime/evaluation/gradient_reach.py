"""How far back the gradient of a fitted network reaches, on a window of its data.

The window is cut from whole sequences. Training may run through pieces of them, and truncates its
gradients; what it thereby leaves out shows only where nothing was cut.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from throughtime import bptt, gradflow
from throughtime.data.batching import Batch, Lanes
from throughtime.data.sequences import Sequences
from throughtime.errors import SettingError
from throughtime.files import finite
from throughtime.gradflow.unrolled import Loss
from throughtime.models.base import SequenceModel
from throughtime.models.latent import LatentAutoregressive
from throughtime.predict.fitted import FittedModel
from throughtime.state import State
from throughtime.training.reach_monitor import windows
from throughtime.types import Progress

WORK = 2.5e10  # (weights + _BESIDE) × steps × lags: a few seconds
_BESIDE = 60_000  # what a step costs beside the products with the weights, in weights
_STEPS = 2000  # of a window, all rows together
_LAGS = 400  # that are looked at where nothing is truncated
_FEW = 100  # lags that are looked at however early training truncates
_LEAST_LAGS, _LEAST_STEPS = 20, 100
_WARM = 1000  # steps read before the window
_ROWS = 32


def examine(
    fitted: FittedModel,
    raw: Sequences,
    learned: bool,
    max_lag: int | None = None,
    work: float = WORK,
    seed: int = 0,
    on_progress: Progress = lambda done, total, about: None,
) -> dict[str, Any]:
    """What docs/commands.md lists under `gradients`, but for the run: plain JSON values.

    fitted: a network. raw: data like those it learned from. learned: whether it predicts better
    than without a past; then it is no fault that the gradients of its losses cancel. max_lag: the
    longest lag; None: half as long again as the truncation in use and 100 at least, or less where
    the data or the work allow no more. Raises SettingError for lags that the data do not have,
    NonFiniteError where the gradient is not finite.
    """
    model, settings = fitted.model.eval(), fitted.training
    assert isinstance(model, LatentAutoregressive)
    assert settings is not None
    seen = fitted.transformed(raw)
    method = bptt.parse(settings.bptt)
    cut = windows(settings, method)
    params: dict[str, Tensor] = {
        name: p for name, p in model.named_parameters() if name.startswith("recurrent.")
    }
    lags, steps = sizes(
        int(seen.lengths.max()),
        sum(p.numel() for p in params.values()),
        cut and cut[1],
        max_lag,
        work,
    )
    batch, state = window(model, seen, steps)
    if isinstance(method, bptt.Adaptive):  # as it would choose now
        cut = windows(settings, method.windows(plain_loss(model), batch, state))
    k1, k2 = cut or (1, None)
    found = gradflow.examine(
        plain_loss(model), batch, state, params, lags, truncation=k2, k1=k1, seed=seed,
        on_progress=lambda part, share: on_progress(round(100 * share), 100, f"gradient: {part}"),
    )  # fmt: skip
    if learned:
        found = replace(found, verdict=gradflow.diagnose(replace(found.evidence, signal=None)))
    about = {"model": fitted.name, "step": raw.domain.step, "rows": batch.x.shape[1]}
    plain: dict[str, Any] = finite({**about, **found.to_json()})
    return plain


def has_learned(row: dict[str, Any]) -> bool:
    """Whether a model's row of scores.json says that it beats the best simple reference."""
    interval = (row.get("difference") or {}).get("interval")
    return interval is not None and interval[1] < 0


def plain_loss(model: SequenceModel) -> Loss:
    """The loss of a model by operators that have every kind of derivative."""
    return partial(SequenceModel.loss, model)


def sizes(
    longest: int, weights: int, cut: int | None, max_lag: int | None, work: float
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
    lags = min(_LAGS if cut is None else max(3 * cut // 2, _FEW), longest - 1)
    lags = max(1, min(lags, max(_LEAST_LAGS, math.isqrt(int(places / 2)))))
    least = max(2 * lags, _LEAST_STEPS)
    return lags, max(least, min(_STEPS, int(places / lags)))


@torch.no_grad()
def window(model: LatentAutoregressive, seen: Sequences, steps: int) -> tuple[Batch, State]:
    """About so many steps from the middle of the data, in few rows, and the state before them."""
    rows = max(1, min(_ROWS, len(seen), steps // int(seen.lengths.max())))
    lanes = Lanes(seen, rows, dtype=next(model.parameters()).dtype)
    length = min(len(lanes), max(2, steps // lanes.num_lanes))
    begin = (len(lanes) - length) // 2
    state = model.initial_state(lanes.num_lanes)
    for t in range(max(0, begin - _WARM), begin, _WARM):
        _, state = model.loss(lanes[t:begin], state)
    return lanes[begin : begin + length], state
