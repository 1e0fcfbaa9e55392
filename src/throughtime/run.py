"""A finished run: a folder that scores, forecasts and samples without the data it came from.

config.toml          every setting
model.safetensors    the chosen model's weights
model.json           its description, transforms, the data's fingerprint, SHA-256; written last
context.safetensors  the end of the raw data, from which forecasts go on
scores.json          the comparison on test data
log.jsonl            the training log
report.html          the report, one file
checkpoint/          while fitting: finished candidates and the one being trained
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from throughtime import checkpoint, report
from throughtime.data.domain import Domain
from throughtime.data.read import read
from throughtime.data.sequences import Sequences
from throughtime.data.steps import future_stamps
from throughtime.data.transforms import Chain
from throughtime.errors import RunError, SettingError, VocabularyError
from throughtime.evaluate import enough_paths
from throughtime.evaluate.scores import shown
from throughtime.fitting import Fitted, model_tensors, restore_model
from throughtime.models.base import SequenceModel

SCHEMA = 1
_CONTEXT_STEPS = 200_000  # of all series together; longer ones keep their last steps
_LEAST_CONTEXT = 2_000
QUANTILES = (0.01, 0.025, 0.1, 0.25, 0.5, 0.75, 0.9, 0.975, 0.99)


@dataclass(frozen=True)
class Run:
    """A fitted model and everything known about it, loaded from its folder."""

    folder: Path
    model: SequenceModel
    chain: Chain
    description: dict[str, Any]  # model.json
    scores: dict[str, Any]  # scores.json

    @property
    def best(self) -> str:
        """Name of the chosen model."""
        return str(self.scores["best"])

    @property
    def verdict(self) -> str:
        """What the comparison says, in a sentence."""
        return str(self.scores["verdict"])

    def show(self, raw: Sequences) -> Sequences:
        """Raw data as the model sees them."""
        return shown(self.model, self.chain, raw)

    def read(self, source: Any, **options: Any) -> Sequences:
        """Reads data as the training data were read; options override how."""
        return read(source, **{**self.description["read_options"], **options})

    def score(self, data: Any, *, unknown: bool = False, **options: Any) -> dict[str, Any]:
        """Log-likelihood of sequences: total, per step and per sequence, in nats.

        data: a path, frame or Sequences, read as the training data were. unknown: accept symbols
        outside the vocabulary (each has the probability of "something new", spread evenly).
        Raises VocabularyError otherwise.
        """
        raw = self.read(data, **options)
        seen = self.show(raw)
        if not unknown:
            self._check_known(raw, seen)
        nats = self.model.log_prob(seen)
        scored = seen.scored()
        counts = torch.zeros(len(seen), dtype=torch.int64).index_add_(0, seen.rows, scored.long())
        steps = int(counts.sum())
        found = {
            "unit": self.scores["unit"],
            "total_nats": float(nats.sum()),
            "steps": steps,
            "nats_per_step": -float(nats.sum()) / max(1, steps),
            "sequences": [
                {"name": name, "steps": int(count), "nats": float(value)}
                for name, count, value in zip(seen.names, counts, nats, strict=True)
            ],
        }
        for unit, total in {k: int(v.sum()) for k, v in seen.sizes.items()}.items():
            found[f"bits_per_{unit.removesuffix('s')}"] = -found["total_nats"] / np.log(2) / total
        return found

    def step_scores(self, data: Any, *, unknown: bool = False, **options: Any) -> Any:
        """Surprisal of every scored step as a polars frame: sequence, step, time, value, nats."""
        import polars as pl

        raw = self.read(data, **options)
        seen = self.show(raw)
        if not unknown:
            self._check_known(raw, seen)
        nats = -self.model.step_log_prob(seen)
        kept = seen.scored()
        rows = seen.rows[kept]
        columns: dict[str, Any] = {
            "sequence": [seen.names[i] for i in rows.tolist()],
            "step": (torch.arange(len(nats)) - seen.offsets[seen.rows])[kept].numpy(),
        }
        if seen.times is not None:
            columns["time"] = seen.times[kept.numpy()]
        if raw.domain.kind == "text" and len(raw.values) == len(nats):
            columns["symbol"] = [chr(point) for point in raw.values[kept].tolist()]
        elif len(raw.values) == len(nats):
            values = raw.values[kept].reshape(int(kept.sum()), -1)
            names = raw.domain.columns or tuple(f"value_{i}" for i in range(values.shape[1]))
            columns |= {n: values[:, i].numpy() for i, n in enumerate(names)}
        return pl.DataFrame({**columns, "nats": nats[kept].numpy()})

    def forecast(
        self,
        horizon: int,
        *,
        series: list[str] | None = None,
        quantiles: tuple[float, ...] = QUANTILES,
        num_paths: int | None = None,
        tolerance: float = 0.05,
        seed: int = 0,
        paths: bool = False,
        covariates: Tensor | None = None,
    ) -> dict[str, Any]:
        """What comes after the training data: quantiles (and paths) of the next `horizon` steps.

        num_paths None: drawn until the standard error of every quantile is below `tolerance` times
        the spread of the forecast. covariates: ``[horizon, C]`` if the model was given any.
        Returns {"horizon", "num_paths", "series": [{"name", "times", "columns": [{"name",
        "quantiles": {"0.1": [...], …}, "mean": [...]}]}]}, "paths" beside if asked for.
        """
        if horizon < 1:
            raise SettingError(f"horizon must be at least 1 step, got {horizon}")
        context = self.context()
        names = series or list(context.names)
        found = []
        used = 0
        for name in names:
            if name not in context.names:
                raise SettingError(f"no series '{name}' in this run; it has: {_few(context.names)}")
            one = context[context.names.index(name)]
            drawn = self._paths(one, horizon, quantiles, num_paths, tolerance, seed, covariates)
            used = max(used, len(drawn))
            found.append(self._summary(one, drawn, horizon, quantiles, paths))
        return {"horizon": horizon, "num_paths": used, "series": found}

    def _paths(
        self,
        one: Sequences,
        horizon: int,
        quantiles: tuple[float, ...],
        num_paths: int | None,
        tolerance: float,
        seed: int,
        covariates: Tensor | None,
    ) -> Tensor:
        """Raw paths ``[num_paths, horizon, D]`` that continue one series."""
        seen = self.show(one)
        previous, state = self.model.condition(seen)

        def draw(count: int) -> Tensor:
            values = self.model.sample(
                horizon, state, count, seed, previous=previous, name=one.names[0],
                series=seen.identity if bool((seen.identity >= 0).any()) else None,
                covariates=covariates,
            )  # fmt: skip
            raw = self.chain.inverse(
                values.double() if values.is_floating_point() else values, one.values
            )
            return raw if raw.dim() == 3 else raw.unsqueeze(-1)

        if num_paths is not None:
            return draw(num_paths)
        return enough_paths(draw, quantiles, tolerance)

    def _summary(
        self,
        one: Sequences,
        drawn: Tensor,
        horizon: int,
        quantiles: tuple[float, ...],
        paths: bool,
    ) -> dict[str, Any]:
        levels = torch.quantile(drawn.double(), torch.tensor(quantiles, dtype=torch.float64), dim=0)
        names = one.domain.columns or tuple(f"value_{i}" for i in range(drawn.shape[-1]))
        columns = []
        for d, name in enumerate(names):
            entry: dict[str, Any] = {
                "name": name,
                "mean": drawn[..., d].double().mean(0).tolist(),
                "quantiles": {str(q): levels[i, :, d].tolist() for i, q in enumerate(quantiles)},
            }
            if paths:
                entry["paths"] = drawn[..., d].tolist()
            columns.append(entry)
        times = None
        if one.times is not None:
            times = [str(t) for t in future_stamps(one.times, horizon)]
        return {"name": one.names[0], "times": times, "columns": columns}

    def sample(
        self, length: int, *, num_paths: int = 1, seed: int = 0, temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> Tensor:  # fmt: skip
        """New sequences from the start, in the data's own units.

        Returns ``[num_paths, length]`` code points or symbols, or values ``[..., length, D]``.
        """
        drawn = self.model.sample(
            length, num_paths=num_paths, seed=seed, temperature=temperature, top_p=top_p
        )
        return self.chain.inverse(drawn.double() if drawn.is_floating_point() else drawn)

    def stream_text(
        self, length: int, *, prompt: str = "", seed: int = 0, temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> Iterator[str]:  # fmt: skip
        """Text as it is sampled, a symbol at a time, going on from a prompt."""
        if self.chain.domain is None or self.chain.domain.kind != "text":
            raise SettingError("this run does not model text; use sample or forecast")
        previous, state = None, None
        if prompt:
            points = torch.tensor([ord(c) for c in prompt])
            raw = Sequences.of([points], domain=self.chain.domain)
            seen = self.show(raw)
            self._check_known(raw, seen)
            previous, state = self.model.condition(seen)
        stream = self.model.stream(
            state, 1, seed, previous=previous, temperature=temperature, top_p=top_p
        )
        for _ in range(length):
            yield self.chain.text(next(stream))

    def context(self) -> Sequences:
        """The end of the raw data that the model was fitted on, scored or not."""
        return load_context(self.folder / "context.safetensors")

    def report(self) -> Path:
        """Writes report.html again and returns its path."""
        return report.write(self.folder)

    def _check_known(self, raw: Sequences, seen: Sequences) -> None:
        last = next((t for t in self.chain if t.kind == "characters"), None)
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
            f"is not among the {seen.domain.num_symbols - 1} characters this model was fitted on; "
            "use --unknown to score it as an unseen character"
        )


def load(folder: str | Path) -> Run:
    """The run in a folder. Raises RunError if it is unfinished, damaged or too new."""
    place = Path(folder)
    if not place.exists():
        raise RunError(f"there is no run at {place}")
    if not (place / "model.json").exists():
        hint = "; the same fit command finishes it" if (place / "config.toml").exists() else ""
        raise RunError(f"{place} has no model.json; it is not a finished run{hint}")
    description = checkpoint.read_json(place / "model.json")
    found = description.get("schema") if isinstance(description, dict) else None
    if not isinstance(found, int):
        raise RunError(f"{place / 'model.json'} is damaged (no schema); fit the model again")
    if found > SCHEMA:
        raise RunError(
            f"{place} was written by a newer throughtime (schema {found}, this one reads up to "
            f"{SCHEMA}); upgrade with: pip install --upgrade throughtime"
        )
    tensors, _ = checkpoint.read_tensors(place / "model.safetensors", description["sha256"])
    model = restore_model(description["model"], tensors)
    scores = checkpoint.read_json(place / "scores.json")
    return Run(place, model, Chain.from_json(description["chain"]), description, scores)


def save(folder: Path, best: Fitted, extra: dict[str, Any], whole: Sequences) -> None:
    """Writes the chosen model; model.json comes last and makes the run complete."""
    save_context(folder / "context.safetensors", whole)
    digest = checkpoint.write_tensors(folder / "model.safetensors", model_tensors(best.model))
    description = {
        "schema": SCHEMA,
        "name": best.name,
        "sha256": digest,
        "model": best.model.settings(),
        "chain": best.chain.to_json(),
        **extra,
    }
    checkpoint.write_json(folder / "model.json", description)


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
    checkpoint.write_tensors(path, tensors, values)


def load_context(path: Path) -> Sequences:
    """The sequences that `save_context` wrote."""
    tensors, values = checkpoint.read_tensors(path)
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


def _last_newline(points: list[int]) -> int:
    return max((i for i, point in enumerate(points) if point == 10), default=-1)


def _few(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - 8} more" if len(names) > 8 else ""
    return ", ".join(names[:8]) + more
