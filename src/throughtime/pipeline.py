"""`fit`: data → settings → candidates → evaluation on untouched data → run folder."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

import throughtime
from throughtime import checkpoint, plan, report
from throughtime import run as runs
from throughtime.assess import assess
from throughtime.config import DataSettings, RunSettings, validated
from throughtime.data.read import read
from throughtime.data.sequences import Sequences
from throughtime.errors import DataError, RunError, SettingError
from throughtime.fitting import PAST, Event, Parts, Workshop
from throughtime.run import Run
from throughtime.train import threads

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib
import tomli_w


def fit(
    data: Any,
    *,
    model: str = "auto",
    order: int | str = "auto",
    hidden: int | None = None,
    layers: int | None = None,
    bptt: str = "auto",
    emission: str = "auto",
    symbols: str = "characters",
    transforms: list[dict[str, Any]] | None = None,
    valid: float = 0.1,
    test: float = 0.1,
    split: str = "auto",
    out: str | Path | None = None,
    seed: int = 0,
    time_limit: float | str | None = None,
    steps: int | None = None,
    on_event: Event = lambda event: None,
    **read_options: Any,
) -> Run:
    """Fits models of sequences, compares them on untouched data, and keeps the best.

    data: a path, a folder, "demo:prices", a frame, an array, a `Sequences`, or the tuple
    (train, valid, test) of `Sequences` where the split is given. model: "auto" or one of ar, rnn,
    gru, lstm. order: of the autoregression. hidden, layers: of the networks. bptt: "full", "K" or
    "K1,K2". emission: a kind of `tt.emissions` or "auto". symbols: of text, "characters", "bytes"
    or "tokens". transforms: descriptions instead of the ones chosen by likelihood. valid, test:
    fractions held out. time_limit: seconds, or "90s", "5m", "1h". steps: updates of each network.
    read_options go to `tt.read`.

    Everything is kept in the folder `out` (default runs/NAME). The same call on an interrupted run
    goes on where it stopped; on a finished one it returns it. Raises errors of
    `throughtime.errors`.
    """
    begun = time.monotonic()
    if model not in plan.MODELS:
        raise SettingError(f"model '{model}' is not one of: {', '.join(plan.MODELS)}")
    whole, parts, name = _load(data, valid, test, split, read_options, on_event)
    settings = validated(
        RunSettings,
        {
            "data": validated(
                DataSettings,
                {
                    "source": name,
                    "options": {k: v for k, v in read_options.items() if v is not None},
                    "fingerprint": whole.fingerprint(),
                    "split": split,
                    "valid": valid,
                    "test": test,
                },
            ),
            "model": model,
            "order": order if order == "auto" else int(order),
            "hidden": hidden,
            "layers": layers,
            "bptt": bptt,
            "emission": emission,
            "symbols": symbols,
            "transforms": transforms,
            "time_limit": seconds(time_limit),
            "seed": seed,
            "steps": steps,
        },
    )
    folder = Path(out) if out is not None else Path("runs") / _slug(name)
    if _open(folder, settings):
        return runs.load(folder)
    log = _Log(folder / "log.jsonl", on_event)
    workshop = Workshop(parts, settings, folder, log)
    fitted = workshop.run()
    with threads(next((f.candidate.train.threads for f in fitted if f.candidate.train), None)):
        scores = assess(fitted, workshop, _summary(name, whole, parts), log)
    checkpoint.write_json(folder / "scores.json", scores)
    best = next(f for f in fitted if f.name == scores["best"])
    log({"event": "done", "seconds": round(time.monotonic() - begun, 2)})
    extra = {
        "version": throughtime.__version__,
        "fingerprint": settings.data.fingerprint,
        "read_options": settings.data.options,
        "data": scores["data"],
    }
    report.write(folder)
    runs.save(folder, best, extra, whole)
    return runs.load(folder)


def seconds(text: float | str | None) -> float | None:
    """A duration in seconds from a number or "90s", "5m", "1.5h"."""
    if text is None or isinstance(text, (int, float)):
        value = text
    else:
        units = {"s": 1.0, "m": 60.0, "h": 3600.0}
        number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
        try:
            value = float(number) * units[unit]
        except ValueError:
            raise SettingError(f"time limit {text!r} is not like 90s, 5m or 1h") from None
    if value is not None and not value > 0:
        raise SettingError(f"time limit must be positive, got {text!r}")
    return value


def _load(
    data: Any, valid: float, test: float, split: str, options: dict[str, Any], on_event: Event
) -> tuple[Sequences, Parts, str]:
    """The whole raw data, their three parts, and a name for them."""
    options = {k: v for k, v in options.items() if v is not None}
    if isinstance(data, tuple):
        if len(data) != 3 or not all(isinstance(part, Sequences) for part in data):
            raise SettingError("a tuple of data is (train, valid, test), three tt.Sequences")
        parts = Parts(*data)
        whole, name = parts.test, "given-sequences"
    else:
        name = str(data) if isinstance(data, (str, Path)) else type(data).__name__.lower()
        on_event({"event": "read", "source": name})
        whole = read(data, **options)
        train, held, last = whole.split(valid=valid, test=test, by=split)
        parts = Parts(train, held, last.limit_past(PAST))
    for label, part in (
        ("training", parts.train),
        ("validation", parts.valid),
        ("test", parts.test),
    ):
        if part.steps == 0:
            raise DataError(f"the {label} part of {name} has no observed steps; give more data")
    on_event({"event": "data", **_summary(name, whole, parts)})
    return whole, parts, name


def _open(folder: Path, settings: RunSettings) -> bool:
    """Prepares the folder; True if it holds this very run, finished. Raises RunError otherwise."""
    path = folder / "config.toml"
    wanted = settings.model_dump(mode="json", exclude_none=True)
    if path.exists():
        try:
            found = tomllib.loads(path.read_text(encoding="utf-8"))
        except (ValueError, UnicodeDecodeError) as error:
            raise RunError(f"{path} is damaged ({error}); delete the folder or use -o") from None
        found.pop("written_by", None)
        if found != wanted:
            changed = sorted(k for k in {*found, *wanted} if found.get(k) != wanted.get(k))
            raise RunError(
                f"{folder} holds a run with other settings ({', '.join(changed)}); "
                "give another folder with -o, or delete it"
            )
        return (folder / "model.json").exists()
    if folder.exists() and any(folder.iterdir()):
        raise RunError(f"{folder} exists and is not a run; give another folder with -o")
    versions = {"throughtime": throughtime.__version__, "torch": torch.__version__}
    document = {**wanted, "written_by": versions}
    checkpoint.write_text(path, tomli_w.dumps(document))
    return False


def _slug(name: str) -> str:
    stem = Path(name.replace("demo:", "demo-")).name.split(".")[0]
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in stem) or "run"


class _Log:
    """Appends events to log.jsonl, a line each, and passes them on."""

    def __init__(self, path: Path, on_event: Event) -> None:
        self.path, self.on_event = path, on_event
        if path.exists():  # a kill may have left half a line
            text = path.read_text(encoding="utf-8", errors="replace")
            checkpoint.write_text(path, text[: text.rfind("\n") + 1])

    def __call__(self, event: dict[str, Any]) -> None:
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
        self.on_event(event)


def _summary(name: str, whole: Sequences, parts: Parts) -> dict[str, Any]:
    """What is being modelled, for people and for scores.json."""

    def span(part: Sequences) -> list[str] | None:
        if part.times is None:
            return None
        stamps = part.times[part.scored().numpy()]
        return [_stamp(stamps.min()), _stamp(stamps.max())]

    spans = {"train": parts.train, "valid": parts.valid, "test": parts.test}
    return {
        "source": name,
        "kind": whole.domain.kind,
        "sequences": len(whole),
        "columns": list(whole.domain.columns),
        "step": whole.domain.step,
        "steps": {key: part.steps for key, part in spans.items()},
        "time": None if whole.times is None else {key: span(p) for key, p in spans.items()},
        "notes": list(dict.fromkeys((*whole.notes, *parts.train.notes))),
    }


def _stamp(value: Any) -> str:
    text = str(value)
    return text.split("T")[0] if text.endswith("T00:00:00.000000") else text.split(".")[0]
