"""Log-likelihoods of data step by step, refused where the model has never seen their symbols."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Chain
from throughtime.errors import VocabularyError
from throughtime.models.autoregressive import Autoregressive
from throughtime.models.base import SequenceModel
from throughtime.models.blend import Blend

Progress = Callable[[int, int, str], None]  # done, in all, what it is about


def silent(done: int, total: int, about: str) -> None:
    """Progress that nobody watches."""


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
    for batch, law in model.laws(seen):
        real = batch.weight > 0
        nats[batch.index[real]] = law.log_prob(batch.x).double()[real]
        done += int((batch.index >= 0).sum())
        on_progress(min(done, total), total, "scoring")
    return nats


def check_known(
    chain: Chain,
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
