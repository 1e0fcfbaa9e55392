"""From what a user names to data cut in three, with one clear error for what cannot be used."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from throughtime.data.readers.options import READERS, as_names
from throughtime.data.readers.read import read
from throughtime.data.sequences import Sequences
from throughtime.errors import DataError, SettingError, nearest
from throughtime.types import STDIN, Event

Spans = tuple[Sequences, Sequences, Sequences]
_PAST = 10_000  # steps read before the test span: enough for any state, and bounded in time


def load(
    data: Any,
    label: str,
    valid: float,
    test: float,
    split: str,
    options: dict[str, Any],
    on_event: Event,
) -> tuple[Sequences, Spans]:
    """The whole raw data and their three parts; every part has steps that are scored."""
    _check_shares(valid, test)
    if isinstance(data, tuple):
        if len(data) != 3 or not all(isinstance(part, Sequences) for part in data):
            raise SettingError("a tuple of data is (train, valid, test), three tt.Sequences")
        spans: Spans = data
        whole = spans[2]
    else:
        on_event({"event": "read", "source": label})

        def on_progress(done: int, total: int) -> None:
            on_event({"event": "reading", "done": done, "total": total})

        whole = read(data, on_progress=on_progress, **options)
        train, held, last = whole.split(valid=valid, test=test, by=split)
        spans = (train, held, last.limit_past(_PAST))
    for part_name, part in zip(("training", "validation", "test"), spans, strict=True):
        if part.steps == 0:
            raise DataError(f"the {part_name} part of {label} has no observed values; give more")
    check_constant(spans[0], label)
    return whole, spans


def checked_options(options: dict[str, Any], caller: Callable[..., Any]) -> dict[str, Any]:
    """Options of `tt.read`; raises SettingError for one that neither it nor its caller has."""
    known, name = (*inspect.signature(caller).parameters, "kind", *READERS), caller.__name__
    for one in options:
        if one not in ("kind", *READERS):
            near = nearest(one, known) or f"; see help({name})"
            raise SettingError(f"{name} has no option '{one}'{near}")
    return options


def check_constant(train: Sequences, label: str) -> None:
    """Raises DataError for a column of values that never change while a model learns them."""
    if train.domain.kind != "real":
        return
    seen = train.values[~train.missing]
    flat = (seen == seen[:1]).all(0)
    if bool(flat.any()):
        column = int(flat.nonzero()[0])
        names = train.domain.columns
        name = f"column '{names[column]}' of {label}" if names else f"column {column} of {label}"
        raise DataError(
            f"{name} is {float(seen[0, column]):g} at every step of the training part: there is "
            "nothing to learn; leave it out, or give data in which it changes"
        )


def _check_shares(valid: float, test: float) -> None:
    if not (0 < valid < 1 and 0 < test < 1 and valid + test < 1):
        raise SettingError(
            f"valid={valid:g}, test={test:g}: both are above 0, and together they leave a part to "
            "learn from"
        )


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


def plain_options(options: dict[str, Any]) -> dict[str, Any]:
    """What `read` was asked for, the same however it was spelled."""
    given = {key: value for key, value in options.items() if value is not None}
    names = {key: list(as_names(given[key])) for key in ("value", "covariates") if key in given}
    return {key: value for key, value in (given | names).items() if value != []}


def label_of(data: Any) -> str:
    """What data are called that the user has not named."""
    if isinstance(data, tuple):
        return "given-sequences"
    if isinstance(data, str) and data in ("-", STDIN):
        return "stdin"
    return str(data) if isinstance(data, (str, Path)) else type(data).__name__.lower()
