"""The folder of a run while the run is being made.

One process at a time works in it; what a killed one left half written is swept away; and a folder
that was made for data or settings that turn out to be unusable is gone again afterwards.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomli_w
import torch
from filelock import FileLock, Timeout

import throughtime
from throughtime import files
from throughtime.errors import DataError, MissingExtra, RunError, SettingError
from throughtime.files import finite
from throughtime.manifest import MODEL, settle
from throughtime.training.config import RunSettings
from throughtime.types import Event

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_ELSEWHERE = "give another folder with out=, or delete it"
# What atomic writes call a file before it has its name: `.model.json.k3x_9qa1`.
_PARTIAL = re.compile(r"\.[a-z]+\.(toml|json|jsonl|safetensors|html)\.[a-z0-9_]+")
_LOCK = ".lock"
CHECKPOINT, BUDGET = "checkpoint", "budget.json"
_LEFTOVERS = ("training.safetensors", "plan.json", "chosen.safetensors", "effort.json", BUDGET)


@contextlib.contextmanager
def making(folder: Path, settings: RunSettings) -> Iterator[bool]:
    """Prepares a run's folder; gives True if it holds this very run already, finished.

    Raises RunError if it holds something else or another process is at work in it.
    """
    if folder.exists() and not folder.is_dir():
        raise RunError(f"{folder} is a file, not a folder; {_ELSEWHERE}")
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder, "fitting"):
        try:
            settle(folder)
            sweep(folder)
            fresh = {path.name for path in folder.iterdir()} <= {_LOCK}
            _prepare(folder, settings, fresh)
            yield (folder / MODEL).exists()
        except (DataError, SettingError, MissingExtra):
            # The same data and settings would fail in the same way: there is nothing to go on with.
            if fresh:
                _remove(folder, missing)
            raise
        except OSError:
            if fresh and not (folder / "config.toml").exists():
                _remove(folder, missing)
            raise
        finally:
            sweep(folder)


def tidy(folder: Path) -> None:
    """Takes away what only an unfinished run needs; the fitted candidates stay."""
    for path in list((folder / CHECKPOINT).rglob("*")):
        if path.name in _LEFTOVERS:
            path.unlink()
    for path in (folder / CHECKPOINT).glob("*/refit"):
        shutil.rmtree(path)


def sweep(folder: Path) -> None:
    """Deletes files that were being written when a process was killed."""
    if folder.is_dir():
        for path in folder.rglob(".*"):
            if _PARTIAL.fullmatch(path.name):
                path.unlink(missing_ok=True)


class Log:
    """Appends events to log.jsonl, a line each, and passes them on."""

    def __init__(self, path: Path, on_event: Event) -> None:
        self.path, self.on_event = path, on_event
        if path.exists():
            lines = path.read_bytes().split(b"\n")[:-1]  # a kill may have left half a line
            whole = [line for line in lines if _is_event(line)]
            files.write_bytes(path, b"".join(line + b"\n" for line in whole))
            if lost := len(lines) - len(whole):
                message = f"{path} is damaged: {lost} of its {len(lines)} lines are left out"
                self({"event": "note", "message": message})

    def __call__(self, event: dict[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(finite(event)) + "\n")
        self.on_event(event)


def _is_event(line: bytes) -> bool:
    try:
        return isinstance(files.loads(line), dict)
    except ValueError:
        return False


@contextlib.contextmanager
def alone(folder: Path, doing: str) -> Iterator[None]:
    """Keeps other processes out; the system lets go of the lock when this one ends or is killed.

    Args:
        folder: that is written in.
        doing: what such a process does there, as "fitting".
    """
    lock = FileLock(folder / _LOCK, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        message = f"another process is {doing} in {folder}; wait for it, or end it"
        raise RunError(message) from None
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows deletes no file that is open
            (folder / _LOCK).unlink(missing_ok=True)
        lock.release()


def _prepare(folder: Path, settings: RunSettings, fresh: bool) -> None:
    """Writes config.toml, or makes sure that the one there asks for the same run."""
    path = folder / "config.toml"
    wanted = _without_none(settings.model_dump(mode="json"))
    if fresh:
        versions = {"throughtime": throughtime.__version__, "torch": torch.__version__}
        text = tomli_w.dumps({**wanted, "written_by": versions})
        files.write_bytes(path, files.sealed(f"# {files.UNSEALED}\n{text}"))
        return
    if not path.exists():
        why = "has lost its config.toml" if (folder / CHECKPOINT).exists() else "is not a run"
        raise RunError(f"{folder} exists and {why}; {_ELSEWHERE}")
    content = files.read_bytes(path)
    files.check_seal(content, path)
    with files.reading(path):
        found = tomllib.loads(content.decode())
    found.pop("written_by", None)
    _check_same(folder, found, wanted)


def _check_same(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises RunError naming what differs between the settings there and those asked for."""
    before, now = _flat(found), _flat(wanted)
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if "data.fingerprint" not in changed:
        changed = [key for key in changed if key != "data.source"]  # the same under another path
    if not changed:
        return
    if set(changed) <= {"data.fingerprint", "data.source"}:
        source = before.get("data.source")
        problem = f"a run on other data ({source})"
        if source == now.get("data.source"):
            problem = f"a run on other data: {source} has changed since"
        raise RunError(f"{folder} holds {problem}; {_ELSEWHERE}")
    shown = [key for key in changed if key != "data.fingerprint"]
    parts = []
    for key in shown:
        was = before.get(key, "not given")
        parts.append(f"{key.split('.')[-1]} was {was}, is {now.get(key, 'not given')}")
    raise RunError(f"{folder} holds a run with other settings ({'; '.join(parts)}); {_ELSEWHERE}")


def _without_none(value: Any) -> Any:
    """What TOML can hold of a JSON value."""
    if isinstance(value, dict):
        return {key: _without_none(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_without_none(part) for part in value]
    return value


def _flat(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one mapping with dotted names."""
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _remove(folder: Path, missing: list[Path]) -> None:
    """Takes away what this run put into the folder, and the folders that were made for it."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    with contextlib.suppress(OSError):  # somebody else may have put something beside it
        for place in missing:
            place.rmdir()
