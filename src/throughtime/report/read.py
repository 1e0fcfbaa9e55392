"""A run folder's values as the report needs them. Nothing here loads a model, or torch."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from throughtime.errors import RunError
from throughtime.report.html import number

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SCHEMA = 1


@dataclass(frozen=True)
class Run:
    """What a run folder says about itself. Only the scores must be there."""

    name: str
    scores: dict[str, Any]
    log: tuple[dict[str, Any], ...] = ()
    torn: bool = False  # the log's last line is incomplete: the run was cut off while writing it
    settings: dict[str, Any] | None = None
    model: dict[str, Any] | None = None

    @property
    def data(self) -> dict[str, Any]:
        """The summary of the data."""
        return mapping(self.scores, "data")

    @property
    def step(self) -> str:
        """The name of one step, as in 'nats per step'."""
        return text(self.scores, "step") or "step"

    @property
    def unit(self) -> str:
        """The unit of every score, such as 'nats per day'."""
        return text(self.scores, "unit") or f"nats per {self.step}"

    @property
    def models(self) -> list[dict[str, Any]]:
        """The models from the best score to the worst; those without a score come last."""

        def key(model: dict[str, Any]) -> float:
            score = number(model.get("nats_per_step"))
            return math.inf if score is None else score

        return sorted(items(self.scores, "models"), key=key)

    @property
    def selected(self) -> dict[str, Any]:
        """The model that was chosen, or an empty mapping."""
        models = self.models
        chosen = [model for model in models if model.get("selected") is True]
        chosen += [model for model in models if model.get("name") == self.scores.get("best")]
        return chosen[0] if chosen else {}


def mapping(parent: dict[str, Any], key: str) -> dict[str, Any]:
    """The object under a key, empty when there is none."""
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def items(parent: dict[str, Any], key: str) -> list[dict[str, Any]]:
    """The objects of the list under a key, empty when there is none."""
    value = parent.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def text(parent: dict[str, Any], key: str) -> str:
    """The text under a key, empty when there is none; a number is written out."""
    value = parent.get(key)
    return "" if value is None or isinstance(value, dict | list) else str(value)


def texts(parent: dict[str, Any], key: str) -> list[str]:
    """The list under a key, each item as text."""
    value = parent.get(key)
    return [str(item) for item in value] if isinstance(value, list) else []


def read(folder: Path) -> Run:
    """Everything the report shows of the run in `folder`.

    Raises RunError when the folder or its scores.json is missing, a file is damaged, or the
    scores come from a newer version.
    """
    if not folder.is_dir():
        raise RunError(f"{folder} is not a run folder: no such folder")
    raw = _bytes(folder / "scores.json")
    if raw is None:
        raise RunError(
            f"{folder} has no scores.json: the run has not ended; repeat its fit command to resume"
        )
    scores = _json(folder / "scores.json", raw)
    schema = scores.get("schema")
    if not isinstance(schema, int) or schema < 1 or not isinstance(scores.get("models"), list):
        raise RunError(f"{folder / 'scores.json'} is not a table of scores: fit the run again")
    if schema > SCHEMA:
        raise RunError(
            f"{folder / 'scores.json'} has schema {schema}, this version reads up to {SCHEMA}: "
            "install a newer throughtime"
        )
    log, torn = _log(folder / "log.jsonl")
    model = _bytes(folder / "model.json")
    return Run(
        name=folder.resolve().name,
        scores=scores,
        log=log,
        torn=torn,
        settings=_toml(folder / "config.toml"),
        model=None if model is None else _json(folder / "model.json", model),
    )


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from error


def _json(path: Path, raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}; fit the run again") from error
    if not isinstance(value, dict):
        raise RunError(f"{path} is damaged: not a JSON object; fit the run again")
    return value


def _toml(path: Path) -> dict[str, Any] | None:
    raw = _bytes(path)
    if raw is None:
        return None
    try:
        return tomllib.loads(raw.decode("utf-8"))
    except ValueError as error:  # TOMLDecodeError and UnicodeDecodeError both are
        raise RunError(f"{path} is damaged: {error}; restore it or fit the run again") from error


def _log(path: Path) -> tuple[tuple[dict[str, Any], ...], bool]:
    """The events, and whether the last line was cut off (a killed run leaves such a line)."""
    raw = _bytes(path)
    if raw is None:
        return (), False
    events: list[dict[str, Any]] = []
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
