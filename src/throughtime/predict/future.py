"""What is known beforehand of the steps after the end of each series: its covariates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from throughtime.data.readers.read import read
from throughtime.data.sequences import Sequences
from throughtime.errors import DataError, SettingError


@dataclass(frozen=True)
class Future:
    """What is known of the steps after the end of one series.

    Attributes:
        covariates: float64 ``[horizon, C]``.
        times: their stamps ``[horizon]``, or None.
    """

    covariates: Tensor
    times: np.ndarray | None = None


def futures(
    given: Any, history: Sequences, horizon: int, options: Mapping[str, Any]
) -> dict[str, Future]:
    """The future covariates of each series, by its name.

    Args:
        given: a tensor ``[horizon, C]`` for every series, or a table (or `Sequences`) with the
            covariate columns, whose rows after the end of each series are used.
        history: the series that the steps come after.
        horizon: how many steps are needed.
        options: how a table is read.

    Raises:
        SettingError: for a tensor of another shape.
        DataError: where a series or a step is missing.
    """
    columns = history.domain.covariate_columns
    if isinstance(given, Tensor):
        if given.shape != (horizon, len(columns)):
            shape = list(given.shape)
            raise SettingError(f"covariates are [{horizon}, {len(columns)}], these are {shape}")
        return {name: Future(given.double()) for name in history.names}
    known = given
    if not isinstance(given, Sequences):
        known = read(given, **{**options, "value": columns, "covariates": None})
    after_end = {}
    for i, name in enumerate(history.names):
        only = len(known) == len(history) == 1
        if not only and name not in known.names:
            raise DataError(f"{_label(given)}: no covariates of series '{name}'")
        rows = known[0 if only else known.names.index(name)]
        after_end[name] = _after(rows, history[i], horizon, _label(given))
    return after_end


def _after(rows: Sequences, past: Sequences, horizon: int, label: str) -> Future:
    """The first rows after the end of a series."""
    values, times = rows.values, rows.times
    if times is not None and past.times is not None:
        later = times > past.times[-1]
        values, times = values[later.nonzero()[0]], times[later]
    if len(values) < horizon:
        raise DataError(
            f"{label}: covariates of {len(values)} steps after the end of '{past.names[0]}'; the "
            f"forecast needs {horizon}"
        )
    if bool(values[:horizon].isnan().any()):
        step = int(values[:horizon].isnan().any(1).nonzero()[0]) + 1
        raise DataError(f"{label}: a covariate is missing {step} steps after the end of the data")
    return Future(values[:horizon], None if times is None else times[:horizon])


def _label(given: Any) -> str:
    return "the covariates" if isinstance(given, Sequences) else str(given)
