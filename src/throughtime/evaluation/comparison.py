"""Likelihoods of several models on the same steps: per step, side by side, with intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Bytes, Tokens
from throughtime.data.transforms.text import utf8_width
from throughtime.errors import SettingError
from throughtime.evaluation.bootstrap import mean_interval
from throughtime.evaluation.results import (
    Comparison,
    Comparisons,
    DataSummary,
    Difference,
    Family,
    ModelScores,
    Scores,
)
from throughtime.predict.fitted import FittedModel


@dataclass(frozen=True)
class StepScores:
    """Log-likelihood of every step of raw data under one model.

    Attributes:
        log_prob: float64 [total], nats in the data's own units, aligned with ``raw.values``, 0
            where not scored.
        scored: bool [total]; a differencing model does not score the step after a gap.
        offsets: int64 [N+1], the sequences.
    """

    log_prob: Tensor
    scored: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, fitted: FittedModel, raw: Sequences) -> StepScores:
        """What a fitted model makes of raw data.

        Where its transforms change lengths (bytes, tokens), the nats of each symbol count for the
        character that its first byte belongs to, so models of all tokenisations can be compared.
        """
        transformed = fitted.transformed(raw)
        return cls.aligned(fitted.model.step_log_prob(transformed), transformed, raw)

    @classmethod
    def aligned(cls, log_prob: Tensor, transformed: Sequences, raw: Sequences) -> StepScores:
        """From nats [total] of transformed data.

        Raises:
            SettingError: where they do not fit.
        """
        if torch.equal(transformed.offsets, raw.offsets):
            return cls(log_prob, transformed.scored(), raw.offsets)
        widths = _symbol_bytes(transformed)
        places = utf8_width(raw.values).cumsum(0)
        begins = widths.cumsum(0) - widths
        if len(widths) != len(log_prob) or int(widths.sum()) != int(places[-1]):
            raise SettingError("these nats are not those of this text after its transforms")
        holder = torch.searchsorted(places, begins, right=True)
        spread = torch.zeros(len(raw.values), dtype=torch.float64).index_add_(0, holder, log_prob)
        return cls(spread, raw.scored(), raw.offsets)

    @property
    def steps(self) -> int:
        """How many steps are scored."""
        return int(self.scored.sum())

    @property
    def nats_per_step(self) -> float:
        """Negative log-likelihood per scored step; NaN where none is."""
        return -float(self.log_prob[self.scored].mean()) if self.steps else math.nan


@dataclass(frozen=True)
class Entry:
    """One model in the comparison.

    Attributes:
        family: see `ModelScores`.
        description: in a few words.
        parameters: how many numbers were fitted.
        test: of the test data.
        validation: nats per step of validation data, by which everything is chosen.
        seconds: what fitting took.
        passes: how often training went through its data, None where nothing is trained step by
            step.
    """

    name: str
    family: Family
    description: str
    parameters: int
    test: StepScores
    validation: float
    seconds: float
    peak_memory_mb: float | None = None
    passes: float | None = None

    def __post_init__(self) -> None:
        if self.family not in get_args(Family):
            known = ", ".join(get_args(Family))
            raise SettingError(f"family '{self.family}' is not one of: {known}")


def paired(a: StepScores, b: StepScores, seed: int = 0) -> Difference:
    """Nats per step that model a needs more than b, over the steps that both score.

    Args:
        a, b: of the same raw data.
        seed: of the bootstrap, see `mean_interval`.

    Raises:
        SettingError: for scores of different data.
    """
    if not torch.equal(a.offsets, b.offsets):
        raise SettingError("only scores of the same raw data can be compared")
    both = a.scored & b.scored
    running = torch.cat([torch.zeros(1, dtype=torch.int64), both.cumsum(0)])
    difference = (b.log_prob - a.log_prob)[both].numpy()
    value, interval = mean_interval(difference, running[a.offsets].numpy(), seed)
    return Difference(value=value, interval=interval)


def compare(
    entries: Sequence[Entry],
    raw_test: Sequences,
    data: DataSummary,
    seed: int = 0,
    best: str | None = None,
) -> Scores:
    """The scores of models on the steps that all of them score.

    The reference is the best of its family, and the best model the best that is no baseline, both
    by validation: the test data choose nothing.

    Args:
        entries: the models.
        raw_test: the test data.
        data: what was modelled.
        seed: of the bootstrap.
        best: the selected model, where it is chosen already.

    Raises:
        SettingError: if there are no models.
    """
    if not entries:
        raise SettingError("there are no models to compare")
    common = entries[0].test.scored
    for entry in entries[1:]:
        common = common & entry.test.scored
    reference = _best(entries, "reference")
    best = best or min(entries, key=lambda e: (e.family == "baseline", _order(e))).name
    selected = next(entry for entry in entries if entry.name == best)
    rows = []
    for entry in entries:
        nats = StepScores(entry.test.log_prob, common, entry.test.offsets).nats_per_step
        versus = None if entry is reference else reference
        row = ModelScores(
            name=entry.name,
            family=entry.family,
            description=entry.description,
            parameters=entry.parameters,
            nats_per_step=nats,
            validation_nats_per_step=entry.validation,
            difference=versus and paired(entry.test, versus.test, seed),
            to_best=None if entry is selected else paired(entry.test, selected.test, seed),
            seconds=entry.seconds,
            peak_memory_mb=entry.peak_memory_mb,
            selected=entry is selected,
            **_in_other_units(nats, int(common.sum()), raw_test),
        )
        rows.append(row)
    step = raw_test.domain.step
    return Scores(
        step=step,
        unit=f"nats per {step}",
        best=best,
        reference=None if reference is None else reference.name,
        models=tuple(rows),
        comparisons=comparisons(entries, seed),
        data=data,
    )


def comparisons(entries: Sequence[Entry], seed: int = 0) -> Comparisons:
    """What a verdict needs of the models; `seed` is that of the bootstrap."""
    reference, baseline = _best(entries, "reference"), _best(entries, "baseline")
    finite_order, latent = _best(entries, "autoregressive"), _best(entries, "latent")
    every = (finite_order, latent, _best(entries, "blend"))
    ours = min((entry for entry in every if entry is not None), key=_order, default=None)

    def compared(
        model: Entry | None, against: Entry | None, passes: float | None = None
    ) -> Comparison | None:
        if model is None or against is None:
            return None
        difference = paired(model.test, against.test, seed)
        return Comparison(model=model.name, against=against.name, passes=passes, **dict(difference))

    return Comparisons(
        past=compared(ours, reference),
        latent=compared(latent, finite_order, None if latent is None else latent.passes),
        baseline=compared(baseline, ours),
    )


def _best(entries: Sequence[Entry], family: Family) -> Entry | None:
    return min((e for e in entries if e.family == family), key=_order, default=None)


def _order(entry: Entry) -> float:
    return math.inf if math.isnan(entry.validation) else entry.validation


def _in_other_units(nats: float, steps: int, raw: Sequences) -> dict[str, float | None]:
    """Nats per step as the bits and the perplexity of `ModelScores`."""
    sizes = {unit: int(size.sum()) for unit, size in raw.sizes.items()}
    if raw.domain.kind == "symbols" and raw.domain.step == "byte":
        sizes["bytes"] = steps
    bits = nats / math.log(2)

    def per(unit: str) -> float | None:
        return bits * steps / sizes[unit] if sizes.get(unit) else None

    return {
        "bits_per_step": bits,
        "bits_per_character": per("characters"),
        "bits_per_byte": per("bytes"),
        "perplexity": math.exp(min(nats, 700.0)) if raw.domain.integer else None,
    }


def _symbol_bytes(transformed: Sequences) -> Tensor:
    """How many bytes of UTF-8 each symbol of transformed text stands for, int64 [total]."""
    for transform in reversed(transformed.chain.transforms):
        if isinstance(transform, Bytes):
            return torch.ones_like(transformed.values)
        if isinstance(transform, Tokens):
            # The byte-level alphabet writes every byte as one character.
            vocabulary = json.loads(transform.model or "{}")["model"]["vocab"]
            widths = torch.zeros(len(vocabulary), dtype=torch.int64)
            for token, index in vocabulary.items():
                widths[index] = len(token)
            return widths[transformed.values]
    raise SettingError("the transforms changed the lengths, but not as bytes or tokens do")
