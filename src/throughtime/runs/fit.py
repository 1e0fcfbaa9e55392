"""`fit`: data → settings → candidates → evaluation on untouched data → run folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import throughtime
from throughtime import bptt as methods
from throughtime import emissions, report
from throughtime.data.loading import label_of, load, plain_options, seconds
from throughtime.data.sequences import Sequences
from throughtime.errors import SettingError, nearest
from throughtime.evaluation.results import DataSummary, Part
from throughtime.runs import run as runs
from throughtime.runs.assessment import assess
from throughtime.runs.run import Run
from throughtime.runs.store import Log, making, tidy
from throughtime.runtime import threads
from throughtime.search import candidates
from throughtime.search.search import Parts, Workshop
from throughtime.training.config import DataSettings, RunSettings, validated
from throughtime.types import Event

SYMBOLS = ("characters", "bytes", "tokens")


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
    name: str | None = None,
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
    gru, lstm. order: of the autoregression. hidden, layers: of the networks. bptt: "full", "K",
    "K1,K2" or "memory=512MB" (see `tt.bptt`). emission: a kind of `tt.emissions` or "auto".
    symbols: of text, "characters", "bytes" or "tokens". transforms: descriptions instead of the
    ones chosen by likelihood. valid, test: fractions held out. name: what to call the data.
    time_limit: seconds, or "90s", "5m", "1h". steps: updates of each network. read_options go to
    `tt.read`.

    Everything is kept in the folder `out` (default runs/NAME). The same call on an interrupted run
    goes on where it stopped; on a finished one it returns it. Settings are checked before any data
    are read, and data before anything is written. Raises errors of `throughtime.errors`.
    """
    begun = time.monotonic()
    asked = _checked(
        model=model, order=order, hidden=hidden, layers=layers, bptt=bptt, emission=emission,
        symbols=symbols, transforms=transforms, time_limit=seconds(time_limit), seed=seed,
        steps=steps,
    )  # fmt: skip
    read_options = plain_options(read_options)
    label = label_of(data)
    whole, spans = load(data, label, valid, test, split, read_options, on_event)
    parts = Parts(*spans)
    _check_symbols(symbols, whole, label)
    summary = _summary(name or label, whole, parts)
    on_event({"event": "data", **summary.to_json()})
    source = {
        "source": label, "options": read_options, "split": split, "valid": valid, "test": test,
        "fingerprint": _fingerprint(whole, parts, data),
    }  # fmt: skip
    asked["data"] = validated(DataSettings, source)
    settings = validated(RunSettings, asked)
    folder = Path(out) if out is not None else Path("runs") / _slug(label)
    with making(folder, settings) as finished:
        if finished:
            on_event({"event": "finished", "run": str(folder)})
        else:
            _make(folder, settings, whole, parts, summary, on_event, begun)
    return runs.load_run(folder)


def _make(
    folder: Path,
    settings: RunSettings,
    whole: Sequences,
    parts: Parts,
    summary: DataSummary,
    on_event: Event,
    begun: float,
) -> None:
    """Fits, judges and writes everything; model.json comes last."""
    log = Log(folder / "log.jsonl", on_event)
    workshop = Workshop(parts, settings, folder, log)
    fitted = workshop.run()
    with threads(next((f.candidate.train.threads for f in fitted if f.candidate.train), None)):
        scores = assess(fitted, workshop, summary, log)
    scores.write(folder / "scores.json")
    best = next(f for f in fitted if f.name == scores.best).fitted
    log({"event": "done", "seconds": round(time.monotonic() - begun, 2)})
    extra = {
        "version": throughtime.__version__,
        "fingerprint": settings.data.fingerprint,
        "data": scores.data.to_json(),
    }
    report.write(folder)
    tidy(folder)
    best.ending(whole).save(folder, **extra)


def _checked(**asked: Any) -> dict[str, Any]:
    """The settings of the models, refused before anything is read where they make no sense."""
    _choice("model", asked["model"], candidates.MODELS)
    _choice("emission", asked["emission"], ("auto", *emissions.KINDS))
    _choice("symbols", asked["symbols"], SYMBOLS)
    if asked["bptt"] != "auto":
        methods.parse(asked["bptt"])
    order = asked["order"]
    if order != "auto":
        if not str(order).isdigit() or int(order) < 1:
            raise SettingError(f"order={order} is not auto or a number of lags, 1 or more")
        asked["order"] = int(order)
    for name in ("hidden", "layers", "steps"):
        if asked[name] is not None and asked[name] < 1:
            raise SettingError(f"{name}={asked[name]}: at least 1")
    return asked


def _choice(name: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        near = nearest(given, known) or ";"
        raise SettingError(f"{name}={given}{near} use one of: {', '.join(known)}")


def _check_symbols(symbols: str, whole: Sequences, label: str) -> None:
    if symbols != "characters" and whole.domain.kind != "text":
        raise SettingError(f"symbols={symbols} says nothing about {label}; it is for text")


def _fingerprint(whole: Sequences, parts: Parts, data: Any) -> str:
    """What tells these data from all others."""
    if not isinstance(data, tuple):
        return whole.fingerprint()
    return "+".join(part.fingerprint() for part in (parts.train, parts.valid, parts.test))


def _slug(name: str) -> str:
    stem = Path(name.replace("demo:", "demo-")).name.split(".")[0]
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in stem) or "run"


def _summary(name: str, whole: Sequences, parts: Parts) -> DataSummary:
    """What is being modelled."""

    def span(part: Sequences) -> tuple[str, str] | None:
        if part.times is None:
            return None
        stamps = part.times[part.scored().numpy()]
        return _stamp(stamps.min()), _stamp(stamps.max())

    spans: dict[Part, Sequences] = {
        "train": parts.train, "validation": parts.valid, "test": parts.test
    }  # fmt: skip
    return DataSummary(
        source=name,
        kind=whole.domain.kind,
        sequences=len(whole),
        columns=whole.domain.columns,
        step=whole.domain.step,
        steps={key: part.steps for key, part in spans.items()},
        time=None if whole.times is None else {key: span(p) for key, p in spans.items()},
        notes=tuple(dict.fromkeys((*whole.notes, *parts.train.notes))),
    )


def _stamp(value: Any) -> str:
    text = str(value)
    return text.split("T")[0] if text.endswith("T00:00:00.000000") else text.split(".")[0]
