"""The end of the data that a model has read: what forecasts go on from, and what moves it on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from throughtime import files
from throughtime.data.domain import Domain
from throughtime.data.sequences import Sequences
from throughtime.errors import DataError
from throughtime.models.context import Context
from throughtime.training.checkpoint import pack, unpack

_HISTORY_STEPS = 200_000  # of all series together; longer ones keep their last steps
_LEAST_HISTORY = 2_000


@dataclass(frozen=True)
class End:
    """Where N series stand.

    Attributes:
        history: their last raw steps, for the transforms' sake and for people.
        context: the model's state and last element after all that was ever read, a row for each.
        steps: how many raw steps of each were ever read, int64 ``[N]``.
    """

    history: Sequences
    context: Context
    steps: Tensor

    def __getitem__(self, rows: list[int]) -> End:
        """The chosen series."""
        return End(self.history[rows], self.context[rows], self.steps[rows])

    def content(self) -> bytes:
        """The file that `parse` reads back."""
        history, context = self.history, self.context
        tensors = {"values": history.values, "lengths": history.lengths}
        times = None
        if history.times is not None:
            times = str(history.times.dtype)
            stamps = history.times
            integers = stamps.astype(np.int64) if stamps.dtype.kind == "M" else stamps
            tensors["times"] = torch.from_numpy(np.ascontiguousarray(integers))
        if history.covariates is not None:
            tensors["covariates"] = history.covariates
        tensors |= {"previous": context.previous, "steps": self.steps}
        if context.series is not None:
            tensors["series"] = context.series
        values = {
            "names": list(history.names),
            "domain": history.domain.to_json(),
            "times": times,
            "state": pack(context.state, "state", tensors),
        }
        return files.tensor_bytes(tensors, values)

    @staticmethod
    def parse(tensors: dict[str, Tensor], values: Any) -> End:
        """The value whose `content` holds these."""
        history = Sequences(
            tensors["values"],
            _offsets(tensors["lengths"]),
            domain=Domain.from_json(values["domain"]),
            names=tuple(values["names"]),
            times=_times(tensors, values["times"]),
            covariates=tensors.get("covariates"),
        )
        state = unpack(values["state"], tensors)
        context = Context(state, tensors["previous"], tensors.get("series"))
        return End(history, context, tensors["steps"])


def latest(whole: Sequences, most: int | None = None) -> Sequences:
    """The last raw steps of each series."""
    each = max(_LEAST_HISTORY, _HISTORY_STEPS // max(1, len(whole))) if most is None else most
    lengths = whole.lengths.clamp(max=each)
    offsets = _offsets(lengths)
    steps = torch.arange(int(offsets[-1]))
    steps += torch.repeat_interleave(whole.offsets[1:] - offsets[1:], lengths)
    return Sequences(
        whole.values[steps],
        offsets,
        domain=whole.domain,
        names=whole.names,
        times=None if whole.times is None else whole.times[steps.numpy()],
        covariates=None if whole.covariates is None else whole.covariates[steps],
    )


def joined(past: Sequences, rows: Sequences) -> Sequences:
    """The rows after their pasts, which are not scored; one past for each row, in order."""
    lengths = past.lengths + rows.lengths
    offsets = _offsets(lengths)
    order = torch.cat([past.rows * 2, rows.rows * 2 + 1]).argsort(stable=True)

    def both(a: Tensor | None, b: Tensor | None) -> Tensor | None:
        return None if a is None or b is None else torch.cat([a, b])[order]

    times = None
    if past.times is not None and rows.times is not None:
        times = np.concatenate([past.times, rows.times])[order.numpy()]
    return Sequences(
        torch.cat([past.values, rows.values])[order],
        offsets,
        starts=past.lengths,
        domain=past.domain,
        names=past.names,
        times=times,
        covariates=both(past.covariates, rows.covariates),
    )


def concatenated(parts: list[End]) -> End:
    """Several ends as one, in order."""
    histories = [part.history for part in parts]
    whole = histories[0]
    times = [one.times for one in histories]
    known = [one.covariates for one in histories if one.covariates is not None]
    history = Sequences(
        torch.cat([one.values for one in histories]),
        _offsets(torch.cat([one.lengths for one in histories])),
        domain=whole.domain,
        names=tuple(name for one in histories for name in one.names),
        times=None if any(part is None for part in times) else np.concatenate(times),  # type: ignore[arg-type]
        covariates=torch.cat(known) if len(known) == len(histories) else None,
    )
    context = Context.concatenate([part.context for part in parts])
    return End(history, context, torch.cat([part.steps for part in parts]))


def matched(history: Sequences, rows: Sequences, label: str) -> list[int]:
    """Where the series of new rows stand in the history; -1 for those never seen.

    A single series goes on under whatever name its new rows come.
    """
    if len(history) == len(rows) == 1:
        return [0]
    if len(history) == 1 and len(rows) > 1 and history.names[0] not in rows.names:
        raise DataError(
            f"{label} holds {len(rows)} series, none of them '{history.names[0]}', which this "
            "model was fitted on; forecast them with data="
        )
    places = {name: i for i, name in enumerate(history.names)}
    return [places.get(name, -1) for name in rows.names]


def after(history: Sequences, rows: Sequences, places: list[int]) -> tuple[Sequences, int]:
    """The rows later than the end of their series, by their times where there are some.

    Returns:
        The rows, series without any left out of nothing (they keep none), and how many were
        dropped because they are not later.
    """
    if history.times is None or rows.times is None:
        return rows, 0
    keep = np.ones(len(rows.times), dtype=bool)
    for i, place in enumerate(places):
        begin, end = int(rows.offsets[i]), int(rows.offsets[i + 1])
        if place >= 0:
            last = history.times[int(history.offsets[place + 1]) - 1]
            keep[begin:end] = rows.times[begin:end] > last
    kept = torch.from_numpy(keep)
    counts = torch.zeros(len(rows), dtype=torch.int64).index_add_(0, rows.rows, kept.long())
    steps = kept.nonzero()[:, 0]
    new_rows = replace(
        rows,
        values=rows.values[steps],
        offsets=_offsets(counts),
        starts=torch.zeros(len(rows), dtype=torch.int64),
        times=rows.times[keep],
        covariates=None if rows.covariates is None else rows.covariates[steps],
        log_det=rows.log_det[steps],
        differencing=rows.differencing[steps],
    )
    return new_rows, int((~keep).sum())


def _offsets(lengths: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])


def _times(tensors: dict[str, Tensor], kind: Any) -> np.ndarray | None:
    if kind is None:
        return None
    stamps: np.ndarray = tensors["times"].numpy().astype(kind)
    return stamps
