"""Where a model did not see it coming."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from throughtime.data.sequences import Sequences
from throughtime.data.transforms import decode_text
from throughtime.evaluation.comparison import StepScores
from throughtime.evaluation.predictive import is_numeric, raw_quantiles
from throughtime.evaluation.results import Place, Surprisal
from throughtime.predict.fitted import FittedModel
from throughtime.wording import stamp, stamps

POINTS = 2000
TOP = 10
CONTEXT = 30  # characters quoted on each side
_SYMBOLS = 8  # symbols quoted on each side
_EXPECTED = (0.05, 0.5, 0.95)
_APART_SECONDS = 0.05  # of sound, between two places that are listed


def surprisal(
    scores: StepScores,
    raw_test: Sequences,
    fitted: FittedModel | None = None,
) -> Surprisal:
    """Surprisal over time, and its highest places.

    At most `POINTS` points: the highest of each of as many stretches of equal length. Each of the
    `TOP` places has a quote: text around with the symbol in ⟦ ⟧ (ends of line as ↵); of series the
    value, and the median and 90 % interval expected. In text and sound, places that would be quoted
    together are listed once.

    Args:
        scores: of every step.
        raw_test: the data that were scored.
        fitted: the model, to say what was expected.
    """
    places = scores.scored.nonzero()[:, 0]
    nats = -scores.log_prob[places]
    nats = torch.where(nats.isnan(), torch.inf, nats)
    kept = _highest(nats, POINTS)
    single = len(raw_test) == 1
    times = stamps(raw_test.times, places[kept].numpy()) if single else None
    return Surprisal(
        position=(places[kept] if single else kept).tolist(),
        times=None if times is None else tuple(times),
        nats=nats[kept].tolist(),
        top=_top(places, nats, raw_test, fitted),
    )


def _highest(nats: Tensor, points: int) -> Tensor:
    """The indices of the highest of each of `points` stretches of equal length."""
    count = len(nats)
    if count <= points:
        return torch.arange(count)
    edges = np.linspace(0, count, points + 1).astype(int)
    values = nats.numpy()
    kept = [a + int(values[a:b].argmax()) for a, b in pairwise(edges)]
    return torch.tensor(kept)


def _top(
    places: Tensor,
    nats: Tensor,
    raw: Sequences,
    fitted: FittedModel | None,
) -> tuple[Place, ...]:
    selected = _apart(places, nats, _distance(raw))
    steps = [int(places[k]) for k in selected]
    describe: Callable[[int], str]
    if raw.domain.kind == "text":
        describe = lambda step: _quoted(raw, step, CONTEXT, _characters)  # noqa: E731
    elif raw.domain.integer:
        known = raw.domain.step == "byte" and raw.domain.num_symbols == 256
        write, around = (_bytes, CONTEXT) if known else (_numbers, _SYMBOLS)
        describe = lambda step: _quoted(raw, step, around, write)  # noqa: E731
    else:
        expected = _expected(steps, raw, fitted)
        describe = lambda step: _amount(raw, step, expected.get(step))  # noqa: E731
    return tuple(
        Place(where=_where(raw, step), nats=float(nats[k]), quote=describe(step))
        for k, step in zip(selected, steps, strict=True)
    )


def _distance(raw: Sequences) -> int:
    """How many steps lie between two listed places at least."""
    if raw.domain.kind == "sound" and raw.domain.sample_rate:
        return max(1, round(_APART_SECONDS * raw.domain.sample_rate))
    return CONTEXT if raw.domain.integer else 1


def _apart(places: Tensor, nats: Tensor, distance: int) -> list[int]:
    """The indices of the highest values whose places are at least `distance` apart."""
    enough = min(len(nats), TOP * (2 * distance + 1))
    order = nats.topk(enough).indices if enough else torch.zeros(0, dtype=torch.int64)
    selected: list[int] = []
    for k in order.tolist():
        if all(abs(int(places[k] - places[other])) >= distance for other in selected):
            selected.append(k)
            if len(selected) == TOP:
                break
    return selected


def _where(raw: Sequences, step: int) -> str:
    """The time of a step, or its index in its sequence, and the sequence's name among several."""
    row = int(torch.searchsorted(raw.offsets, step, right=True)) - 1
    inside = step - int(raw.offsets[row])
    name = f"{raw.names[row]}, " if len(raw) > 1 else ""
    if raw.domain.kind == "sound" and raw.domain.sample_rate:
        return f"{raw.names[row]}, {inside / raw.domain.sample_rate:.3f} s"
    if raw.times is not None:
        moment = stamp(raw.times[step])
        return f"{name}{moment if isinstance(moment, str) else format(moment, 'g')}"
    return f"{name}{raw.domain.step} {inside:,}"


def _quoted(raw: Sequences, step: int, around: int, write: Callable[[Tensor], str]) -> str:
    row = int(torch.searchsorted(raw.offsets, step, right=True)) - 1
    begin, end = int(raw.offsets[row]), int(raw.offsets[row + 1])
    first, last = max(begin, step - around), min(end, step + 1 + around)
    values = raw.values
    before, after = write(values[first:step]), write(values[step + 1 : last])
    quote = f"{before}⟦{write(values[step : step + 1])}⟧{after}"
    return ("…" if first > begin else "") + quote + ("…" if last < end else "")


def _characters(values: Tensor) -> str:
    return decode_text(values).replace("\n", "↵")


def _bytes(values: Tensor) -> str:
    return bytes(values.tolist()).decode("utf-8", errors="replace").replace("\n", "↵")


def _numbers(values: Tensor) -> str:
    return " ".join(map(str, values.tolist()))


def _expected(
    steps: list[int], raw: Sequences, fitted: FittedModel | None
) -> dict[int, np.ndarray]:
    """Low end, median and high end [3, D] of what was expected at each step."""
    if fitted is None or not is_numeric(fitted.transforms, raw) or not steps:
        return {}
    selected = torch.zeros(len(raw.values), dtype=torch.bool)
    selected[steps] = True
    transformed = fitted.transformed(raw)
    index, values = raw_quantiles(fitted, raw, transformed, selected, _EXPECTED)
    return {int(step): values[:, k] for k, step in enumerate(index)}


def _amount(raw: Sequences, step: int, expected: np.ndarray | None) -> str:
    """The value, of several columns the one farthest from what was expected."""
    values = raw.values[step].numpy()
    names = raw.domain.columns or tuple(f"value{d}" for d in range(len(values)))
    if expected is None:
        columns = zip(names[:3], values[:3], strict=True)
        return ", ".join(f"{name} {value:.6g}" for name, value in columns)
    low, median, high = expected
    width = np.maximum(high - low, 1e-300)
    d = int(np.nan_to_num(np.abs(values - median) / width).argmax())
    name = f"{names[d]} " if len(values) > 1 else ""
    return (
        f"{name}{values[d]:.6g}; expected {median[d]:.6g}, "
        f"90 % between {low[d]:.6g} and {high[d]:.6g}"
    )
