"""What a report is made of, and a run folder read as that. Nothing here loads a model, or torch."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from throughtime import files
from throughtime.errors import RunError
from throughtime.evaluation.results import ModelScores, Scores

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Json = dict[str, Any]


@dataclass(frozen=True)
class ReportData:
    """What a report shows of a run.

    Attributes:
        name: of the run.
        scores: the comparison on test data.
        log: events of fitting, as log.jsonl has them.
        torn: the log's last line is incomplete: the run was cut off while writing it.
        settings: of the run, as config.toml has them.
        model: what model.json says of the selected model.
    """

    name: str
    scores: Scores
    log: tuple[Json, ...] = ()
    torn: bool = False
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
        RunError: when the folder or its scores.json is missing, a file is damaged, or the scores
            come from another version.
    """
    if not folder.is_dir():
        raise RunError(f"{folder} is not a run folder: no such folder")
    if not (folder / "scores.json").exists():
        raise RunError(
            f"{folder} has no scores.json: the run has not ended; repeat its fit command to resume"
        )
    scores = Scores.read(folder / "scores.json")
    log, torn = _log(folder / "log.jsonl")
    model = folder / "model.json"
    return ReportData(
        name=folder.resolve().name,
        scores=scores,
        log=log,
        torn=torn,
        settings=_toml(folder / "config.toml"),
        model=files.read_json(model) if model.exists() else None,
    )


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from error


def _toml(path: Path) -> Json | None:
    raw = _bytes(path)
    if raw is None:
        return None
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError both are
        raise RunError(f"{path} is damaged: {error}; restore it or fit the run again") from error


def _log(path: Path) -> tuple[tuple[Json, ...], bool]:
    """The events, and whether the last line was cut off (a killed run leaves such a line)."""
    raw = _bytes(path)
    if raw is None:
        return (), False
    events: list[Json] = []
    lines = raw.split(b"\n")
    for index, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            event = json.loads(line)
        except (ValueError, RecursionError) as error:
            if index == len(lines) - 1:
                return tuple(events), True
            raise RunError(f"{path}:{index + 1} is damaged: {error}; remove that line") from error
        if isinstance(event, dict):
            events.append(event)
    return tuple(events), False
