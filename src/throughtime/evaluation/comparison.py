"""Likelihoods of several models on the same steps: per step, side by side, with intervals."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Bytes, Tokens
from throughtime.data.transforms.text import utf8_width
from throughtime.errors import SettingError
from throughtime.evaluation.bootstrap import mean_interval
from throughtime.predict.fitted import FittedModel

FAMILIES = ("reference", "autoregressive", "latent", "blend", "peer")


@dataclass(frozen=True)
class StepScores:
    """Log-likelihood of every step of raw data under one model.

    log_prob: float64 [total] nats in the data's own units, aligned with ``raw.values``, 0 where
    not scored. scored: bool [total]; a differencing model does not score the step after a gap.
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
        seen = fitted.transformed(raw)
        return cls.aligned(fitted.model.step_log_prob(seen), seen, raw)

    @classmethod
    def aligned(cls, log_prob: Tensor, seen: Sequences, raw: Sequences) -> StepScores:
        """From nats [total] of transformed data; raises SettingError where they do not fit."""
        if torch.equal(seen.offsets, raw.offsets):
            return cls(log_prob, seen.scored(), raw.offsets)
        widths = _symbol_bytes(seen)
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

    family: one of `FAMILIES`; a "reference" has a fixed distribution (of values, changes, ...) and
    no memory beyond it, a "peer" is another package's model. valid: nats per step of validation
    data, by which everything is chosen. seconds: what fitting took. passes: how often training went
    through its data, None where nothing is trained step by step.
    """

    name: str
    family: str
    description: str
    parameters: int
    test: StepScores
    valid: float
    seconds: float
    peak_memory_mb: float | None = None
    passes: float | None = None

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise SettingError(f"family '{self.family}' is not one of: {', '.join(FAMILIES)}")


def paired(a: StepScores, b: StepScores, seed: int = 0) -> dict[str, Any]:
    """{"value", "interval"}: nats per step that model a needs more than b; negative: a is better.

    Over the steps that both score; the 95 % interval is that of `mean_interval`, None where the
    data are too few for one. Raises SettingError for scores of different data.
    """
    if not torch.equal(a.offsets, b.offsets):
        raise SettingError("only scores of the same raw data can be compared")
    both = a.scored & b.scored
    running = torch.cat([torch.zeros(1, dtype=torch.int64), both.cumsum(0)])
    difference = (b.log_prob - a.log_prob)[both].numpy()
    value, interval = mean_interval(difference, running[a.offsets].numpy(), seed)
    return {"value": plain(value), "interval": None if interval is None else list(interval)}


def table(
    entries: Sequence[Entry], raw_test: Sequences, seed: int = 0, best: str | None = None
) -> dict[str, Any]:
    """The comparison as scores.json holds it: step, unit, best, reference, models, comparisons.

    Every model is scored on the steps that all models score. `reference` is the best simple
    reference and `best` (unless it is given) the best model that is not a peer, both by their
    validation nats: the test data choose nothing. "difference" is to the reference, "to_best" to
    the best.
    """
    if not entries:
        raise SettingError("there are no models to compare")
    common = entries[0].test.scored
    for entry in entries[1:]:
        common = common & entry.test.scored
    reference = _best(entries, "reference")
    best = best or min(entries, key=lambda e: (e.family == "peer", _order(e))).name
    chosen = next(entry for entry in entries if entry.name == best)
    rows = []
    for entry in entries:
        row = _row(entry, StepScores(entry.test.log_prob, common, entry.test.offsets), raw_test)
        row["selected"] = entry.name == best
        if reference is not None and entry is not reference:
            row["difference"] = paired(entry.test, reference.test, seed)
        if entry.name != best:
            row["to_best"] = paired(entry.test, chosen.test, seed)
        rows.append(row)
    step = raw_test.domain.step
    return {
        "unit": f"nats per {step}",
        "step": step,
        "best": best,
        "reference": None if reference is None else reference.name,
        "models": rows,
        "comparisons": comparisons(entries, seed),
    }


def comparisons(entries: Sequence[Entry], seed: int = 0) -> dict[str, Any]:
    """What the verdict needs: {"model", "against", "value", "interval"} each, or None.

    "past": the best model that looks at the past against the best reference; "latent": the best
    latent model against the best finite window; "peer": the best peer against the model of
    "past". Best is meant by validation. "latent" has the "passes" of its model as well.
    """
    reference, peer = _best(entries, "reference"), _best(entries, "peer")
    window, latent = _best(entries, "autoregressive"), _best(entries, "latent")
    blend = _best(entries, "blend")
    learned = min((e for e in (window, latent, blend) if e is not None), key=_order, default=None)

    def compared(model: Entry | None, against: Entry | None) -> dict[str, Any] | None:
        if model is None or against is None:
            return None
        names = {"model": model.name, "against": against.name}
        return names | paired(model.test, against.test, seed)

    state = compared(latent, window)
    if state is not None and latent is not None:
        state["passes"] = latent.passes
    return {
        "past": compared(learned, reference),
        "latent": state,
        "peer": compared(peer, learned),
    }


def plain(value: float | None) -> float | None:
    """A number as JSON knows it: None for what is not finite."""
    return float(value) if value is not None and math.isfinite(value) else None


def _best(entries: Sequence[Entry], family: str) -> Entry | None:
    return min((e for e in entries if e.family == family), key=_order, default=None)


def _order(entry: Entry) -> float:
    return math.inf if math.isnan(entry.valid) else entry.valid


def _row(entry: Entry, scores: StepScores, raw: Sequences) -> dict[str, Any]:
    nats = scores.nats_per_step
    total_bits = nats * scores.steps / math.log(2)
    sizes = {unit: int(size.sum()) for unit, size in raw.sizes.items()}
    if raw.domain.kind == "symbols" and raw.domain.step == "byte":
        sizes["bytes"] = scores.steps

    def per(unit: str) -> float | None:
        return plain(total_bits / sizes[unit]) if sizes.get(unit) else None

    return {
        "name": entry.name,
        "family": entry.family,
        "description": entry.description,
        "parameters": entry.parameters,
        "nats_per_step": plain(nats),
        "valid_nats_per_step": plain(entry.valid),
        "bits_per_step": plain(nats / math.log(2)),
        "bits_per_character": per("characters"),
        "bits_per_byte": per("bytes"),
        "perplexity": plain(math.exp(min(nats, 700.0))) if raw.domain.integer else None,
        "difference": None,
        "to_best": None,
        "seconds": entry.seconds,
        "peak_memory_mb": entry.peak_memory_mb,
        "selected": False,
    }


def _symbol_bytes(seen: Sequences) -> Tensor:
    """How many bytes of UTF-8 each symbol of transformed text stands for, int64 [total]."""
    for transform in reversed(seen.chain.transforms):
        if isinstance(transform, Bytes):
            return torch.ones_like(seen.values)
        if isinstance(transform, Tokens):
            # The byte-level alphabet writes every byte as one character.
            vocabulary = json.loads(transform.model or "{}")["model"]["vocab"]
            widths = torch.zeros(len(vocabulary), dtype=torch.int64)
            for token, index in vocabulary.items():
                widths[index] = len(token)
            return widths[seen.values]
    raise SettingError("the transforms changed the lengths, but not as bytes or tokens do")
