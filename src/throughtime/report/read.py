"""What a report is made of, and a run folder read as that. Nothing here loads a model, or torch."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from throughtime import files
from throughtime.errors import RunError
from throughtime.evaluation.results import ModelScores, Scores
from throughtime.manifest import MODEL, Manifest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Json = dict[str, Any]
SCORES, CONFIG, LOG = "scores.json", "config.toml", "log.jsonl"


@dataclass(frozen=True)
class ReportData:
    """What a report shows of a run.

    Attributes:
        name: of the run.
        scores: the comparison on test data.
        log: events of fitting, as log.jsonl has them.
        settings: of the run, as config.toml has them.
        model: what model.json says of the selected model.
    """

    name: str
    scores: Scores
    log: tuple[Json, ...] = ()
    settings: Json | None = None
    model: Json | None = None

    @property
    def step(self) -> str:
        """The name of one step, as in 'nats per step'."""
        return self.scores.step

    @property
    def selected(self) -> ModelScores | None:
        """The model that was selected."""
        return next((row for row in self.scores.models if row.selected), None)


def read(folder: Path) -> ReportData:
    """Everything the report shows of the run in `folder`.

    Raises:
        RunError: when the folder or a file of it is missing, damaged, or of another version.
    """
    if not folder.is_dir():
        raise RunError(f"{folder} is not a run folder: no such folder")
    if not (folder / MODEL).exists():
        raise RunError(
            f"{folder} has no {MODEL}: the run has not ended; repeat its fit command to resume"
        )
    kept = Manifest.read(folder)
    return ReportData(
        name=folder.resolve().name,
        scores=Scores.parse(kept.content(SCORES), folder / SCORES),
        log=_log(kept),
        settings=_toml(kept),
        model=kept.description,
    )


def _toml(kept: Manifest) -> Json | None:
    if CONFIG not in kept:
        return None
    with files.reading(kept.folder / CONFIG):
        return tomllib.loads(kept.content(CONFIG).decode())


def _log(kept: Manifest) -> tuple[Json, ...]:
    if LOG not in kept:
        return ()
    with files.reading(kept.folder / LOG):
        return tuple(dict(files.loads(line)) for line in kept.content(LOG).splitlines())
