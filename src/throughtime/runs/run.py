"""A run: the outcome of `fit`, in memory, and a folder where one was asked for.

config.toml          every setting
model.safetensors    the chosen model's weights
model.json           its description, transforms, the data's fingerprint, and the SHA-256 of every
                     other file that is loaded; written last
context.safetensors  the end of the data, from which forecasts go on
scores.json          the comparison on test data
log.jsonl            the training log
report.html          the report, one file
checkpoint/          the fitted candidates, and while fitting the one being trained
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from throughtime import files, report
from throughtime.data.sequences import Sequences
from throughtime.errors import RunError, SettingError, known_options, nearest
from throughtime.evaluation import gradient_reach
from throughtime.evaluation.gradient_reach import GradientReach
from throughtime.evaluation.results import Scores
from throughtime.history import Certificate
from throughtime.manifest import MODEL, Manifest, Rewritten
from throughtime.models.ensemble import Blend
from throughtime.predict.fitted import END, FittedModel
from throughtime.predict.forecast import Forecast
from throughtime.predict.scoring import SequenceScores
from throughtime.report.read import CONFIG, SCORES
from throughtime.runs.store import CHECKPOINT, alone
from throughtime.runtime import threads
from throughtime.search.artifacts import Artifacts
from throughtime.search.candidates import parse_fitted
from throughtime.search.fitting import RESULT
from throughtime.types import Progress, silent
from throughtime.wording import stamp

Loaded = TypeVar("Loaded")


@dataclass(frozen=True)
class Run:
    """Fitted models, compared on untouched data; the best one scores, forecasts and samples.

    Attributes:
        best: the model chosen by validation.
        models: every fitted model, by name.
        scores: the comparison on test data.
        data: what the models were fitted on, and how it was read.
        folder: where it is kept; None in memory.
        fitted: the models, in memory.
        whole: all the data, in memory.
    """

    best: FittedModel
    scores: Scores
    data: dict[str, Any]
    folder: Path | None = None
    fitted: tuple[FittedModel, ...] = field(default=(), repr=False)
    whole: Sequences | None = field(default=None, repr=False)

    def __repr__(self) -> str:
        where = "" if self.folder is None else f", folder={str(self.folder)!r}"
        return f"Run(best={self.best!r}, verdict={self.verdict!r}{where})"

    @cached_property
    def models(self) -> dict[str, FittedModel]:
        """Every fitted model by name, each with the end of the data to go on from."""
        by_name = {one.name: one for one in self.fitted}
        if self.whole is not None:
            by_name = {name: one.ending(self.whole) for name, one in by_name.items()}
        if self.folder is not None and not by_name:
            kept = Manifest.read(self.folder)
            for row in self.scores.models:
                path = Artifacts(Path(CHECKPOINT)).within(row.name).path(RESULT)
                assert path is not None
                if row.family != "blend":
                    name = path.as_posix()
                    with files.reading(self.folder / name):
                        one = parse_fitted(*kept.tensors(name)).fitted
                    end = self.best.end
                    by_name[row.name] = one if end is None else one.ending(end.history)
        return {**by_name, self.best.name: self.best}

    @property
    def verdict(self) -> str:
        """What the comparison says, in a sentence."""
        return self.scores.verdict

    @property
    def certificate(self) -> Certificate | None:
        """How much of the past the data need, where that was measured."""
        kept = self.scores.certificate
        return None if kept is None else Certificate.from_json(kept.to_json())

    @property
    def kind(self) -> str:
        """What the run models: "text", "sound", "real", …."""
        return self.best.domain.kind

    @property
    def rate(self) -> int:
        """The sample rate of a run of sound, Hz; 0 for other runs."""
        return int(self.best.domain.sample_rate or 0)

    def read(self, source: Any, **options: Any) -> Sequences:
        """See `FittedModel.read`."""
        return self.best.read(source, **options)

    def score(self, data: Any, **options: Any) -> SequenceScores:
        """See `FittedModel.score`."""
        return self.best.score(data, **options)

    def step_scores(self, data: Any, **options: Any) -> Any:
        """See `FittedModel.step_scores`."""
        return self.best.step_scores(data, **options)

    def forecast(self, horizon: int, **options: Any) -> Forecast:
        """See `FittedModel.forecast`."""
        return self.best.forecast(horizon, **options)

    def sample(self, length: int, **options: Any) -> Tensor | list[Tensor]:
        """See `FittedModel.sample`."""
        return self.best.sample(length, **options)

    def stream_text(self, length: int, **options: Any) -> Iterator[str]:
        """See `FittedModel.stream_text`."""
        return self.best.stream_text(length, **options)

    def update(self, rows: Any, **options: Any) -> Run:
        """The run whose best model stands after new rows; see `FittedModel.update`.

        A run in a folder keeps the new end there.
        """
        moved = self.best.update(rows, **options)
        if self.folder is not None:
            with alone(self.folder, "updating"):
                _keep_end(Manifest.read(self.folder), moved)
        return replace(self, best=moved)

    @known_options
    def gradients(
        self, *, max_lag: int | None = None, on_progress: Progress = silent
    ) -> GradientReach:
        """How far back the gradient of the run's network reaches, and what truncation leaves out.

        Of the chosen model, or where that is no network (or a blend) of the best network by
        validation.

        Args:
            max_lag: None: as `fit` examined it; else it is examined anew, as far back as that, on
                the data that the run keeps, without those it was tested on.
            on_progress: called with how far it is.

        Raises:
            RunError: for a run without a network.
        """
        kept, row = self.scores.gradients, self.scores.network
        if max_lag is None and kept is not None:
            return GradientReach.from_json(kept.to_json())
        if row is None:
            order = int(self.best.model.settings().get("order", 0))
            steps = f"exactly {order} step{'s' if order != 1 else ''}" if order else "no past"
            raise RunError(
                f"{self._label} has no recurrent network; its {self.best.name} sees {steps}"
            )
        network, end = self.models[row.name], self.best.end
        if end is None or network.training is None:
            raise SettingError(f"{self._label} was kept without its data; fit it again")
        data = end.history
        tested = self.scores.data.steps["test"] / max(1, data.steps)
        if tested < 0.9:  # of long data only the end is kept
            data = data.split(valid=0.0, test=tested)[0]
        with threads(network.training.threads):
            return gradient_reach.examine(
                network, data, row.beats_reference, max_lag, on_progress=on_progress
            )

    def report(self) -> Path:
        """Writes report.html again and returns its path.

        Raises:
            SettingError: for a run in memory.
        """
        if self.folder is None:
            raise SettingError("a run in memory has no report; fit with out= to keep one")
        return report.write(self.folder)

    def save(self, out: str | Path) -> Path:
        """Keeps the best model in a folder, as `FittedModel.save` does."""
        return self.best.save(out, data=self.data)

    @property
    def _label(self) -> str:
        return "the run in memory" if self.folder is None else str(self.folder)


def load(folder: str | Path) -> Run | FittedModel:
    """What is in a folder: a run, or a fitted model that was saved by itself.

    Raises:
        RunError: if it is unfinished, damaged or too new.
    """
    return _again(lambda kept: _run(kept) if SCORES in kept else _model(kept), folder)


def load_run(folder: str | Path) -> Run:
    """The run in a folder; see `load`."""
    return _again(_run, folder)


def _run(kept: Manifest) -> Run:
    place = kept.folder
    scores = Scores.parse(kept.content(SCORES), place / SCORES)
    best = FittedModel.kept(kept, owner=f"the run {place}")
    with files.reading(place / MODEL):
        return Run(best, scores, dict(kept.description["data"]), place)


def _model(kept: Manifest) -> FittedModel:
    return FittedModel.kept(kept, owner=f"the model in {kept.folder}")


def load_model(folder: str | Path) -> FittedModel:
    """The fitted model in a folder: of a run, its best one; see `load`."""
    loaded = load(folder)
    return loaded.best if isinstance(loaded, Run) else loaded


def load_trained(folder: str | Path) -> FittedModel:
    """The model in a folder that training can go on from: of a run, its best, a blend excepted.

    Raises:
        RunError: where there is no run.
    """
    loaded = load(folder)
    if not isinstance(loaded, Run):
        return loaded
    row = loaded.scores.network
    is_blend = isinstance(loaded.best.model, Blend) and row is not None
    return loaded.models[row.name] if is_blend and row is not None else loaded.best


def update(folder: str | Path, rows: Any) -> dict[str, Any]:
    """Moves the end of the model in a folder on by new rows and keeps it there.

    Returns:
        {"run", "series", "rows", "passed_over", "end"}: how many series have new rows, how many
        those are, how many were not later than the end, and the last stamp now, or None.
    """
    place = Path(folder)
    _check_place(place)
    with alone(place, "updating"):
        kept = Manifest.read(place)
        fitted = _run(kept).best if SCORES in kept else _model(kept)
        raw = fitted.read(rows)
        moved = fitted.after(raw, str(rows))
        _keep_end(kept, moved)
    before, after = fitted.end, moved.end
    assert before is not None
    assert after is not None
    grown = after.steps.clone()
    grown[: len(before.steps)] -= before.steps
    times = after.history.times
    return {
        "run": str(place),
        "series": int((grown > 0).sum()),
        "rows": int(grown.sum()),
        "passed_over": len(raw.values) - int(grown.sum()),
        "end": None if times is None else stamp(times.max()),
    }


def _keep_end(kept: Manifest, moved: FittedModel) -> None:
    assert moved.end is not None
    kept.replace({END: moved.end.content()})


def _again(read: Callable[[Manifest], Loaded], folder: str | Path) -> Loaded:
    """What is read of a folder; where another process wrote to it meanwhile, what is there then."""
    place = Path(folder)
    while True:
        _check_place(place)
        with contextlib.suppress(Rewritten):
            return read(Manifest.read(place))


def _check_place(place: Path) -> None:
    """Raises RunError for a path that holds no finished run."""
    if not place.exists():
        beside = place.parent.iterdir() if place.parent.is_dir() else ()
        near = nearest(place.name, [p.name for p in beside if (p / MODEL).exists()])
        raise RunError(f"there is no run at {place}{near}")
    if not place.is_dir():
        raise RunError(f"{place} is a file; a run is a folder, made by fit")
    if (place / MODEL).exists():
        return
    if (place / CONFIG).exists():
        raise RunError(
            f"{place} has no {MODEL}: the run is not finished; the same fit command finishes it"
        )
    raise RunError(f"{place} is not a run: it has no {MODEL}")
