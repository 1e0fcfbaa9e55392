"""A finished run: a folder that scores, forecasts and samples without the data it came from.

config.toml          every setting
model.safetensors    the chosen model's weights
model.json           its description, transforms, the data's fingerprint, SHA-256; written last
context.safetensors  the end of the raw data, from which forecasts go on
scores.json          the comparison on test data
log.jsonl            the training log
report.html          the report, one file
checkpoint/          the fitted candidates, and while fitting the one being trained
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from throughtime import files, report
from throughtime.data.readers.files import quoted, suffix
from throughtime.data.readers.read import KINDS, read
from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Transforms
from throughtime.errors import DataError, RunError, SettingError, ThroughtimeError, nearest
from throughtime.evaluation import gradient_reach
from throughtime.evaluation.comparison import shown
from throughtime.evaluation.gradient_reach import GradientReach
from throughtime.models.base import SequenceModel
from throughtime.predict import forecast as forecasting
from throughtime.predict.context import Future, futures, load_context, save_context
from throughtime.predict.forecast import QUANTILES, Question, places
from throughtime.predict.scoring import Judged, check_known, step_log_prob
from throughtime.runtime import threads
from throughtime.search.search import Fitted, load_fitted, model_tensors, place_of, restore_model
from throughtime.types import Progress, silent

SCHEMA = 1
_UNFINISHED = "\ufffd"  # how text ends whose last bytes are not a character yet
_HELD = 4  # bytes or tokens that a character is made of at most


@dataclass(frozen=True)
class Run:
    """A fitted model and everything known about it, loaded from its folder."""

    folder: Path
    model: SequenceModel
    chain: Transforms
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

    @property
    def kind(self) -> str:
        """What the run models: "text", "sound", "real" or "symbols"."""
        return str(self.description["data"]["kind"])

    @property
    def rate(self) -> int:
        """The sample rate of a run of sound, Hz; 0 for other runs."""
        return int((self.chain.domain and self.chain.domain.sample_rate) or 0)

    def show(self, raw: Sequences) -> Sequences:
        """Raw data as the model sees them."""
        return shown(self.model, self.chain, raw)

    def read(self, source: Any, **options: Any) -> Sequences:
        """Reads data as the training data were read; options override how.

        Raises DataError for data of another kind than the run models.
        """
        mine = {"real": "series", "symbols": "symbols"}.get(self.kind, self.kind)
        if isinstance(source, (str, Path)) and "kind" not in {*options, *self._read_options}:
            found = next((k for k, ends in KINDS.items() if suffix(Path(source)) in ends), mine)
            if found != mine and suffix(Path(source)) != ".jsonl" and mine != "symbols":
                raise DataError(
                    f"{source} is {_a(found)}; the run {self.folder} models {_a(mine)}; score "
                    f"data like '{self.description['data']['source']}'"
                )
        raw = read(source, **{**self._read_options, **options})
        trained, given = self.chain.domain, raw.domain
        if trained is not None and (
            (trained.kind, len(trained.columns)) != (given.kind, len(given.columns))
            or trained.covariate_columns != given.covariate_columns
        ):
            columns = [*given.columns, *given.covariate_columns]
            wanted = [*trained.columns, *trained.covariate_columns]
            raise DataError(
                f"{source} gives {given.kind} data"
                + (f" with {quoted(columns)}" if columns else "")
                + f"; the run {self.folder} models {trained.kind} data"
                + (f" with {quoted(wanted)}" if wanted else "")
            )
        return raw

    @property
    def _read_options(self) -> dict[str, Any]:
        options: dict[str, Any] = self.description["read_options"]
        return options

    def score(
        self,
        data: Any,
        *,
        unknown: bool = False,
        on_progress: Progress = silent,
        **options: Any,
    ) -> dict[str, Any]:
        """Log-likelihood of sequences: total, per step and per sequence, in nats.

        data: a path, frame or Sequences, read as the training data were. unknown: accept symbols
        outside the vocabulary (each has the probability of "something new", spread evenly).
        Returns {"unit", "total_nats", "steps", "nats_per_step", "sequences": [{"name", "steps",
        "nats"}]}: nats are log-likelihoods, nats_per_step is what a step costs on average (minus
        their mean); for text "bits_per_character" and "bits_per_byte" beside, for sound
        "bits_per_sample". Raises VocabularyError for unknown symbols, DataError for unfit data.
        """
        return self._judged(self.read(data, **options), unknown, on_progress).totals()

    def step_scores(
        self,
        data: Any,
        *,
        unknown: bool = False,
        on_progress: Progress = silent,
        **options: Any,
    ) -> Any:
        """The surprisal of every scored step as a polars frame.

        Columns: sequence, step (counted from 0), time where there are times, symbol (text) or the
        values by their names, and nats: minus the log-probability of the step.
        """
        return self._judged(self.read(data, **options), unknown, on_progress).frame()

    def judge(self, data: Any, *, unknown: bool = False, on_progress: Progress = silent) -> Judged:
        """What `score` and `step_scores` give, from one pass: `.totals()` and `.frame()`."""
        return self._judged(self.read(data), unknown, on_progress)

    def _judged(self, raw: Sequences, unknown: bool, on_progress: Progress) -> Judged:
        seen = self.show(raw)
        if not unknown:
            check_known(self.chain, raw, seen)
        nats = step_log_prob(self.model, seen, on_progress)
        return Judged(raw, seen, nats, self.chain, self.scores["unit"])

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
        covariates: Any = None,
        on_progress: Progress = silent,
    ) -> dict[str, Any]:
        """What comes after the training data: quantiles (and paths) of the next `horizon` steps.

        num_paths None: drawn until the standard error of every quantile is below `tolerance` times
        the width from the 10 % to the 90 % quantile (at most 51,200). covariates, if the model was
        given any: ``[horizon, C]``, or a table with the same columns. Returns {"horizon",
        "num_paths", "quantile_error", "series": [{"name", "times", "columns": [{"name",
        "quantiles": {"0.1": [...], …}, "mean": [...]}]}]}, "paths" beside if asked for.
        """
        question = Question(horizon, tuple(quantiles), num_paths, tolerance, seed, paths)
        context = self.context()
        chosen = places(context.names, series)
        if context.domain.integer:
            raise SettingError(
                f"the run {self.folder} models {_a(self.kind)}, whose symbols have no quantiles; "
                "use sample"
            )
        known = self._known(covariates, context, horizon)
        return forecasting.forecast(
            self.model, self.chain, context, chosen, question, known, on_progress
        )

    def _known(self, covariates: Any, context: Sequences, horizon: int) -> dict[str, Future]:
        """The future covariates of each series, where the run has any."""
        wanted = context.domain.covariate_columns
        if not wanted:
            if covariates is not None:
                raise SettingError(f"the run {self.folder} was fitted without covariates")
            return {}
        if covariates is not None:
            return futures(covariates, context, horizon, self._read_options)
        if getattr(self.model, "covariates", 0):
            raise SettingError(
                f"the run {self.folder} was fitted with covariates ({', '.join(wanted)}); give "
                "their values after the end of the data with covariates="
            )
        return {}

    def sample(
        self,
        length: int,
        *,
        num_paths: int = 1,
        seed: int = 0,
        temperature: float = 1.0,
        top_p: float = 1.0,
        on_progress: Progress = silent,
    ) -> Tensor | list[Tensor]:
        """New sequences from the start, in the data's own units.

        Returns ``[num_paths, length]`` code points or symbols, or values ``[..., length, D]``; for
        text modelled as bytes or tokens, of which a character may take several, a list of the code
        points of each path.
        """
        self._check_sample(length, num_paths, temperature, top_p)
        stream = self.model.stream(None, num_paths, seed, temperature=temperature, top_p=top_p)
        steps = []
        for step in range(length):
            steps.append(next(stream))
            on_progress(step + 1, length, "drawing")
        drawn = torch.stack(steps, 1)
        if {"bytes", "tokens"} & set(self.chain.kinds):
            return [self.chain.inverse(path) for path in drawn]
        return self.chain.inverse(drawn.double() if drawn.is_floating_point() else drawn)

    def stream_text(
        self,
        length: int,
        *,
        prompt: str = "",
        seed: int = 0,
        temperature: float = 1.0,
        top_p: float = 1.0,
        path: int = 0,
    ) -> Iterator[str]:
        """Text as it is sampled, `length` symbols that go on from a prompt.

        path: which of many; each is another text. A run of lines (`lines=True`) begins a new
        sequence after each newline. Raises VocabularyError for a prompt with unknown characters.
        """
        if self.kind != "text":
            raise SettingError(f"the run {self.folder} models {_a(self.kind)}, not text")
        self._check_sample(length, 1, temperature, top_p)
        by_line = bool(self._read_options.get("lines"))
        prompt = prompt.rpartition("\n")[2] if by_line else prompt
        previous, state = None, None
        if prompt:
            raw = Sequences.of([prompt], domain=self.chain.domain, names=["the prompt"])
            seen = self.show(raw)
            check_known(self.chain, raw, seen, "")
            previous, state = self.model.condition(seen)
        name, left, lines = "" if path == 0 else f"path {path}", length, 0
        while left > 0:
            stream = self.model.stream(
                state, 1, seed, previous=previous, temperature=temperature, top_p=top_p,
                name=f"{name}/line {lines}" if lines else name,
            )  # fmt: skip
            held: list[Tensor] = []
            ended = False
            while left > 0 and not ended:
                held.append(next(stream))
                left -= 1
                text = self.chain.text(torch.cat(held))
                if left > 0 and len(held) < _HELD and text.endswith(_UNFINISHED):
                    continue  # the rest of the character is still to come
                held = []
                yield text
                ended = by_line and text.endswith("\n")
            previous, state, lines = None, None, lines + 1

    def _check_sample(self, length: int, paths: int, temperature: float, top_p: float) -> None:
        if length < 1 or paths < 1:
            raise SettingError(f"length={length}, paths={paths}: both are at least 1")
        if not temperature > 0 or not 0 < top_p <= 1:
            raise SettingError(
                f"temperature={temperature:g}, top_p={top_p:g}: the temperature is above 0, and "
                "top-p above 0 and at most 1"
            )
        if getattr(self.model, "covariates", 0):
            raise SettingError(
                f"the run {self.folder} was fitted with covariates, which sampling would have to "
                "invent; use forecast with covariates="
            )

    def context(self) -> Sequences:
        """The end of the raw data that the model was fitted on, scored or not."""
        return load_context(self.folder / "context.safetensors")

    def gradients(
        self, *, max_lag: int | None = None, on_progress: Progress = silent
    ) -> GradientReach:
        """How far back the gradient of the run's network reaches, and what truncation leaves out.

        Of the selected model, or where that is no network (or a blend) of the best network by
        validation.

        Args:
            max_lag: None: as `fit` examined it; else it is examined again, as far back as that, on
                the data that the run keeps, without those of the test.
            on_progress: called with what is done, out of 100.

        Raises:
            RunError: for a run without a network.
            SettingError: for lags that the data do not have.
        """
        kept = self.scores.get("gradients")
        if max_lag is None and kept:
            return GradientReach.from_json(kept)
        rows = [row for row in self.scores["models"] if row["family"] == "latent"]
        if not rows:
            order = int(self.description["model"].get("order", 0))
            steps = f"exactly {order} step{'s' if order != 1 else ''}" if order else "no past"
            raise RunError(f"{self.folder} has no recurrent network; its {self.best} sees {steps}")
        row = min(rows, key=lambda row: (row["name"] != self.best, row["valid_nats_per_step"]))
        path = place_of(self.folder, row["name"]) / "result.safetensors"
        fitted, data = load_fitted(path), self.context()
        judged = int(self.description["data"]["steps"]["test"]) / max(1, data.steps)
        if judged < 0.9:  # of long data only the end is kept
            data = data.split(valid=0.0, test=judged)[0]
        settings, learned = fitted.trained, gradient_reach.has_learned(row)
        with threads(settings.threads):
            return gradient_reach.examine(
                fitted, settings, data, learned, max_lag, on_progress=on_progress
            )

    def report(self) -> Path:
        """Writes report.html again and returns its path."""
        return report.write(self.folder)


def load(folder: str | Path) -> Run:
    """The run in a folder. Raises RunError if it is unfinished, damaged or too new."""
    place = Path(folder)
    _check_place(place)
    path = place / "model.json"
    description, scores = _described(path), _described(place / "scores.json")
    wanted = {"sha256", "model", "chain", "read_options", "data"}
    for where, fields in (
        (path, wanted - set(description)),
        (place / "scores.json", {"best", "verdict", "unit"} - set(scores)),
    ):
        if fields:
            raise RunError(f"{where} is damaged (no {sorted(fields)[0]}); fit the model again")
    tensors, _ = files.read_tensors(place / "model.safetensors", str(description["sha256"]))
    try:
        model = restore_model(description["model"], tensors)
        chain = Transforms.from_json(description["chain"])
    except (
        KeyError,
        TypeError,
        AttributeError,
        ValueError,
        RuntimeError,
        ThroughtimeError,
    ) as error:
        reason = " ".join(str(error).split())[:100]
        raise RunError(
            f"{path} describes no model of this version ({reason}); fit it again"
        ) from error
    return Run(place, model, chain, description, scores)


def _check_place(place: Path) -> None:
    """Raises RunError for a path that holds no finished run."""
    if not place.exists():
        beside = place.parent.iterdir() if place.parent.is_dir() else ()
        near = nearest(place.name, [p.name for p in beside if (p / "model.json").exists()])
        raise RunError(f"there is no run at {place}{near}")
    if not place.is_dir():
        raise RunError(f"{place} is a file; a run is a folder, made by fit")
    if (place / "model.json").exists():
        return
    if (place / "config.toml").exists():
        raise RunError(
            f"{place} has no model.json: the run is not finished; the same fit command finishes it"
        )
    raise RunError(f"{place} is not a run: it has no model.json")


def _described(path: Path) -> dict[str, Any]:
    """A JSON object of this schema. Raises RunError otherwise."""
    found = files.read_json(path)
    schema = found.get("schema") if isinstance(found, dict) else None
    if not isinstance(schema, int):
        raise RunError(f"{path} is damaged (no schema); fit the model again")
    if schema > SCHEMA:
        raise RunError(
            f"{path} was written by a newer throughtime (schema {schema}, this one reads up to "
            f"{SCHEMA}); upgrade with: pip install --upgrade throughtime"
        )
    return found


def save(folder: Path, best: Fitted, extra: dict[str, Any], whole: Sequences) -> None:
    """Writes the chosen model; model.json comes last and makes the run complete."""
    save_context(folder / "context.safetensors", whole)
    digest = files.write_tensors(folder / "model.safetensors", model_tensors(best.model))
    description = {
        "schema": SCHEMA,
        "name": best.name,
        "sha256": digest,
        "model": best.model.settings(),
        "chain": best.chain.to_json(),
        **extra,
    }
    files.write_json(folder / "model.json", description)


def _a(kind: str) -> str:
    """A kind of data inside a sentence."""
    return {"real": "a series", "series": "a series", "binary": "columns of 0 and 1"}.get(
        kind, kind
    )
