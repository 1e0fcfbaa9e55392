"""What a set of sequences must be, and what a user may give for one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from throughtime.data.compact import INTEGERS
from throughtime.data.domain import Domain
from throughtime.data.transforms.text import encode_text
from throughtime.errors import DataError, SettingError, VocabularyError

if TYPE_CHECKING:
    from throughtime.data.sequences import Sequences


def domain_of(values: Tensor) -> Domain:
    if values.is_floating_point():
        width = values.shape[1] if values.dim() == 2 else 1
        names = ("value",) if width == 1 else tuple(f"value{d}" for d in range(width))
        return Domain("real", columns=names)
    return Domain("symbols", num_symbols=int(values.max()) + 1 if len(values) else 1)


def as_tensor(part: Any, i: int) -> Tensor:
    if isinstance(part, str):
        return encode_text(part)
    try:
        return torch.as_tensor(part)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"sequence {i} is not an array of numbers: {error}") from error


def plain_values(part: Tensor, name: str, domain: Domain | None) -> Tensor:
    """int64 [T] or float64 [T, D] from what the user gave."""
    if part.dim() not in (1, 2) or part.shape[0] == 0 or part.is_complex():
        shape = list(part.shape)
        raise DataError(f"sequence '{name}' has the shape {shape}: give [T] or [T, D] with T >= 1")
    integer = domain.integer if domain is not None else not part.is_floating_point()
    if integer and part.dim() == 1:
        if part.is_floating_point():
            raise DataError(f"sequence '{name}' holds fractions where integers are needed")
        return part.detach().cpu().long()
    part = part.detach().cpu().double()
    return part[:, None] if part.dim() == 1 else part


def check(s: Sequences) -> None:
    """Raises where the fields of a set do not fit together."""
    count, total = len(s.offsets) - 1, s.values.shape[0]
    kinds, axes = (INTEGERS, 1) if s.domain.integer else ((torch.float64,), 2)
    if s.values.dtype not in kinds or s.values.dim() != axes:
        raise DataError(
            f"{s.domain.kind} values are {kinds[-1]} with {axes} axes, "
            f"not {s.values.dtype} with {s.values.dim()}"
        )
    if count < 0 or int(s.offsets[0]) != 0 or int(s.offsets[-1]) != total:
        raise DataError("offsets run from 0 to the number of values")
    lengths = s.lengths
    if bool((lengths < 0).any()):
        raise DataError("offsets never decrease")
    if len(s.starts) != count or bool(((s.starts < 0) | (s.starts > lengths)).any()):
        raise DataError("starts lie inside their sequences, one each")
    if len(s.names) != count or len(s.identity) != count:
        raise DataError(f"{len(s.names)} names for {count} sequences: give one each")
    for label, part in (("times", s.times), ("covariates", s.covariates), ("log_det", s.log_det)):
        if part is not None and len(part) != total:
            raise DataError(f"{label} has {len(part)} entries for {total} steps: give one each")
    columns = s.domain.columns
    if not s.domain.integer and columns and len(columns) != s.values.shape[1]:
        raise DataError(f"{len(columns)} column names for {s.values.shape[1]} columns")
    _check_values(s)


def _check_values(s: Sequences) -> None:
    if s.domain.integer:
        limit = 0x110000 if s.domain.kind == "text" else s.domain.num_symbols or 1
        if len(s.values) and (int(s.values.min()) < 0 or int(s.values.max()) >= limit):
            bad = int(((s.values < 0) | (s.values >= limit)).nonzero()[0])
            raise VocabularyError(
                f"{s.where(bad)}: the symbol {int(s.values[bad])} is not one of 0 to {limit - 1}"
            )
        return
    # A sum is finite unless a value is infinite or missing: one quick pass for the usual case.
    if not bool(s.values.sum().isfinite()):
        infinite = s.values.isinf().any(1)
        if bool(infinite.any()):
            bad = int(infinite.nonzero()[0])
            raise DataError(f"{s.where(bad)}: the value is infinite; mark missing values as NaN")


def check_same_data(given: Domain, fitted: Domain) -> None:
    """Raises where a chain fitted on one kind of data is applied to another."""
    if given.kind != fitted.kind or len(given.columns) != len(fitted.columns):
        raise SettingError(
            f"the transforms were fitted on {fitted.kind} data with {len(fitted.columns)} columns, "
            f"this is {given.kind} with {len(given.columns)}"
        )
    if given.sample_rate != fitted.sample_rate:
        raise SettingError(
            f"the transforms were fitted at {fitted.sample_rate:g} Hz: resample, this has "
            f"{given.sample_rate:g} Hz"
            if given.sample_rate and fitted.sample_rate
            else "the sample rates differ: give the one that the transforms were fitted at"
        )
