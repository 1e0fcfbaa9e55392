"""Transforms of real values: logarithm, difference, standardisation, scale."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from throughtime.data.domain import Domain
from throughtime.data.transforms.base import Flat, Ragged, Transform, rows_of
from throughtime.errors import DataError, SettingError

NUMBERS = ("real", "sound", "count")  # what arithmetic makes sense on


def _real(domain: Domain) -> Domain:
    return replace(domain, kind="real")


def _column(domain: Domain, d: int) -> str:
    return f"column '{domain.columns[d]}'" if d < len(domain.columns) else f"column {d}"


@dataclass(frozen=True)
class Log(Transform):
    """The natural logarithm of every column; log_det is ``-Σ log x``.

    Raises DataError naming the series and step for a value that is not positive.
    """

    kind: ClassVar[str] = "log"

    def output(self, domain: Domain) -> Domain:
        self._need(domain, NUMBERS)
        return _real(domain)

    def forward(self, flat: Flat) -> Flat:
        domain = self.output(flat.domain)
        bad = flat.values <= 0  # False for NaN, which stays missing
        if bool(bad.any()):
            position, d = (int(i) for i in bad.nonzero()[0])
            raise DataError(
                f"{flat.where(position)}: the logarithm needs positive values, "
                f"{_column(flat.domain, d)} is {float(flat.values[position, d]):g}"
            )
        values = flat.values.log()
        log_det = flat.log_det - values.nan_to_num(nan=0.0).sum(1)
        return replace(flat, values=values, domain=domain, log_det=log_det)

    def inverse(self, values: Tensor, past: Tensor, differencing: Tensor) -> Tensor:
        return values.exp()


@dataclass(frozen=True)
class Scale(Transform):
    """Every value times `factor`; log_det is ``D log |factor|``."""

    factor: float
    kind: ClassVar[str] = "scale"

    def __post_init__(self) -> None:
        if not math.isfinite(self.factor) or self.factor == 0:
            raise SettingError(f"scale by {self.factor}: a finite number other than 0 is needed")

    def output(self, domain: Domain) -> Domain:
        self._need(domain, NUMBERS)
        return domain if domain.kind == "sound" else _real(domain)

    def forward(self, flat: Flat) -> Flat:
        present = (~flat.values.isnan()).sum(1).double()
        return replace(
            flat,
            values=flat.values * self.factor,
            domain=self.output(flat.domain),
            log_det=flat.log_det + present * math.log(abs(self.factor)),
        )

    def inverse(self, values: Tensor, past: Tensor, differencing: Tensor) -> Tensor:
        return values / self.factor


@dataclass(frozen=True)
class Difference(Transform):
    """``x_t - x_{t-lag}``; the first `lag` values of each sequence are kept as they are.

    The map is triangular with ones on the diagonal, so log_det is 0. The kept values are marked
    in `differencing`: they are on another scale than the differences. A second differencing
    leaves those of the first alone and marks its own after them. A difference from or to a
    missing value is missing.
    """

    lag: int = 1
    kind: ClassVar[str] = "difference"

    def __post_init__(self) -> None:
        if self.lag < 1:
            raise SettingError(f"difference at lag {self.lag}: a number of steps, 1 or more")

    def fit(self, train: Ragged) -> Difference:
        self.output(train.domain)
        after = self.forward(Flat.of(train))
        if not bool((after.differencing == 0).any()):
            lengths = train.offsets[1:] - train.offsets[:-1]
            longest = int(lengths.max()) if len(lengths) else 0
            raise DataError(
                f"differencing at lag {self.lag} leaves no differences: the longest training "
                f"series has {longest} steps; use a smaller lag"
            )
        return self

    def output(self, domain: Domain) -> Domain:
        self._need(domain, NUMBERS)
        return _real(domain)

    def forward(self, flat: Flat) -> Flat:
        domain = self.output(flat.domain)
        steps = torch.arange(flat.values.shape[0])
        before = torch.cat(
            [torch.zeros(1, dtype=torch.int64), (flat.differencing > 0).long().cumsum(0)]
        )
        skip = before[flat.offsets[1:]] - before[flat.offsets[:-1]]
        rows = rows_of(flat.offsets)
        place = steps - (flat.offsets[:-1] + skip)[rows]
        before = flat.values[(steps - self.lag).clamp(min=0)]
        values = torch.where((place >= self.lag)[:, None], flat.values - before, flat.values)
        kept = (place >= 0) & (place < self.lag)
        differencing = flat.differencing.masked_fill(kept, _next_differencing(flat.differencing))
        return replace(flat, values=values, domain=domain, differencing=differencing)

    def differencing_after(self, differencing: Tensor) -> Tensor:
        skip = int((differencing > 0).sum())
        after = differencing.clone()
        after[skip : skip + self.lag] = _next_differencing(differencing)
        return after

    def inverse(self, values: Tensor, past: Tensor, differencing: Tensor) -> Tensor:
        skip = int((differencing > 0).sum())
        kept = max(0, min(skip + self.lag - past.shape[0], values.shape[-2]))
        if kept == values.shape[-2]:
            return values
        initial = values[..., :kept, :]
        if kept:
            known = past.expand(*values.shape[:-2], *past.shape)
            base = torch.cat([known, initial], -2)[..., skip:, :]
        else:
            base = _last_observed(past[skip:], self.lag)
        return torch.cat([initial, _accumulated(values[..., kept:, :], base, self.lag)], -2)


def _next_differencing(differencing: Tensor) -> int:
    return int(differencing.max()) + 1 if len(differencing) else 1


def _last_observed(past: Tensor, lag: int) -> Tensor:
    """The last `lag` values [lag, D]; a missing one is the last observed of the same phase."""
    length = past.shape[0]
    index = torch.arange(length - lag, length)
    base = past[index]
    while bool(base.isnan().any()):
        index = index - lag
        earlier = index >= 0
        if not bool(earlier.any()):
            break
        base = torch.where(base.isnan() & earlier[:, None], past[index.clamp(min=0)], base)
    return base


def _accumulated(changes: Tensor, base: Tensor, lag: int) -> Tensor:
    """Values [..., T, D] from changes over `lag` steps, going on from base [..., lag, D]."""
    *batch, length, width = changes.shape
    whole = -(-length // lag) * lag
    padded = torch.nn.functional.pad(changes, (0, 0, 0, whole - length))
    sums = padded.reshape(*batch, whole // lag, lag, width).cumsum(-3) + base.unsqueeze(-3)
    return sums.reshape(*batch, whole, width)[..., :length, :]


@dataclass(frozen=True)
class Standardise(Transform):
    """``(x - mean) / std`` per column, over the training steps; log_det is ``-Σ log std``.

    `mean` and `std` hold one row for the ordinary values and one for the initial values that each
    differencing kept, because these are on another scale. A constant column is centred and left
    unscaled (std 1), which `constant` and a note record. Initial values that are all the same (one
    series has only one) are scaled by their size. The standard deviation divides by n.
    """

    mean: tuple[tuple[float, ...], ...] | None = None
    std: tuple[tuple[float, ...], ...] | None = None
    constant: tuple[str, ...] = ()
    kind: ClassVar[str] = "standardise"

    @property
    def fitted(self) -> bool:
        return self.mean is not None and self.std is not None

    def fit(self, train: Ragged) -> Standardise:
        self.output(train.domain)
        most = int(train.differencing.max()) if len(train.differencing) else 0
        rows = [self._moments(train, differencing) for differencing in range(most + 1)]
        constant = tuple(_column(train.domain, d) for d, (_, _, same) in enumerate(rows[0]) if same)
        return Standardise(
            tuple(tuple(mean for mean, _, _ in row) for row in rows),
            tuple(tuple(std for _, std, _ in row) for row in rows),
            constant,
        )

    def _moments(self, train: Ragged, differencing: int) -> list[tuple[float, float, bool]]:
        """Per column the mean, the scale, and whether all values are the same."""
        values = train.values[train.differencing == differencing]
        moments = []
        for d in range(values.shape[1]):
            column = values[:, d]
            column = column[~column.isnan()]
            if len(column) == 0 and differencing == 0:
                raise DataError(f"{_column(train.domain, d)} has no values in the training part")
            if len(column) == 0:
                moments.append((0.0, 1.0, True))
                continue
            mean, std = float(column.mean()), float(column.std(correction=0))
            same = bool(column.min() == column.max()) or std == 0.0
            if same:
                std = (abs(mean) or 1.0) if differencing else 1.0
            if not math.isfinite(std):
                raise DataError(f"{_column(train.domain, d)} is too large to standardise: scale it")
            moments.append((mean, std, same))
        return moments

    def output(self, domain: Domain) -> Domain:
        self._need(domain, NUMBERS)
        return _real(domain)

    def _rows(self, differencing: Tensor) -> tuple[Tensor, Tensor]:
        """The mean and std of each step, [T, D]; those of ordinary values if none were fitted."""
        self._need_fitted()
        mean = torch.tensor(self.mean, dtype=torch.float64)
        std = torch.tensor(self.std, dtype=torch.float64)
        if len(mean) == 1:
            return mean, std
        row = torch.where(differencing < len(mean), differencing, 0).long()
        return mean[row], std[row]

    def forward(self, flat: Flat) -> Flat:
        domain = self.output(flat.domain)
        mean, std = self._rows(flat.differencing)
        if mean.shape[1] != flat.values.shape[1]:
            raise SettingError(
                f"standardise was fitted on {mean.shape[1]} columns, not {flat.values.shape[1]}"
            )
        values = (flat.values - mean) / std
        present = (~values.isnan()).double()
        log_det = flat.log_det - (present * std.log()).sum(1)
        flat = replace(flat, values=values, domain=domain, log_det=log_det)
        for name in self.constant:
            flat = flat.with_note(f"Constant in the training part, left unscaled: {name}.")
        return flat

    def inverse(self, values: Tensor, past: Tensor, differencing: Tensor) -> Tensor:
        mean, std = self._rows(differencing[past.shape[0] :])
        return values * std + mean
