"""The end of the data that a model was fitted on, and what is known of what comes after it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from throughtime import files
from throughtime.data.domain import Domain
from throughtime.data.readers.read import read
from throughtime.data.sequences import Sequences
from throughtime.errors import DataError, SettingError

_CONTEXT_STEPS = 200_000  # of all series together; longer ones keep their last steps
_LEAST_CONTEXT = 2_000


def save_context(path: Path, whole: Sequences) -> None:
    """Writes the last steps of each raw sequence."""
    each = max(_LEAST_CONTEXT, _CONTEXT_STEPS // max(1, len(whole)))
    picked = [
        torch.arange(max(int(begin), int(end) - each), int(end))
        for begin, end in zip(whole.offsets[:-1], whole.offsets[1:], strict=True)
    ]
    steps = torch.cat(picked)
    tensors = {"values": whole.values[steps], "lengths": torch.tensor([len(p) for p in picked])}
    times = None
    if whole.times is not None:
        stamps = whole.times[steps.numpy()]
        times = str(stamps.dtype)
        integers = stamps.astype(np.int64) if stamps.dtype.kind == "M" else stamps
        tensors["times"] = torch.from_numpy(np.ascontiguousarray(integers))
    if whole.covariates is not None:
        tensors["covariates"] = whole.covariates[steps]
    values = {"names": list(whole.names), "domain": whole.domain.to_json(), "times": times}
    files.write_tensors(path, tensors, values)


def load_context(path: Path) -> Sequences:
    """The sequences that `save_context` wrote."""
    tensors, values = files.read_tensors(path)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), tensors["lengths"].cumsum(0)])
    times = None
    if values["times"] is not None:
        times = tensors["times"].numpy().astype(values["times"])
    return Sequences(
        tensors["values"],
        offsets,
        domain=Domain.from_json(values["domain"]),
        names=tuple(values["names"]),
        times=times,
        covariates=tensors.get("covariates"),
    )


@dataclass(frozen=True)
class Future:
    """What is known of the steps after the end of one series: covariates [horizon, C], times."""

    covariates: Tensor
    times: np.ndarray | None = None


def futures(
    given: Any, context: Sequences, horizon: int, options: dict[str, Any]
) -> dict[str, Future]:
    """The future covariates of each series, by its name.

    given: a tensor [horizon, C] for every series, or a table with the same columns as the data
    that the model was fitted on, whose rows after the end of each series are used. options: how
    that table is read. Raises DataError where steps are missing.
    """
    columns = context.domain.covariate_columns
    if isinstance(given, Tensor):
        if given.shape != (horizon, len(columns)):
            shape = list(given.shape)
            raise SettingError(f"covariates are [{horizon}, {len(columns)}], these are {shape}")
        return {name: Future(given.double()) for name in context.names}
    known = read(given, **{**options, "value": columns, "covariates": None})
    found = {}
    for i, name in enumerate(context.names):
        only = len(known) == len(context) == 1
        if not only and name not in known.names:
            raise DataError(f"{given}: no covariates of series '{name}'")
        rows = known[0 if only else known.names.index(name)]
        found[name] = _after(rows, context[i], horizon, str(given))
    return found


def _after(rows: Sequences, past: Sequences, horizon: int, label: str) -> Future:
    """The first rows after the end of a series."""
    values, times = rows.values, rows.times
    if times is not None and past.times is not None:
        later = times > past.times[-1]
        values, times = values[torch.from_numpy(later)], times[later]
    if len(values) < horizon:
        raise DataError(
            f"{label}: covariates of {len(values)} steps after the end of '{past.names[0]}'; the "
            f"forecast needs {horizon}"
        )
    if bool(values[:horizon].isnan().any()):
        step = int(values[:horizon].isnan().any(1).nonzero()[0]) + 1
        raise DataError(f"{label}: a covariate is missing {step} steps after the end of the data")
    return Future(values[:horizon], None if times is None else times[:horizon])
