"""The sections behind the result: samples, training, the data, every setting."""

from __future__ import annotations

import base64
import json
from typing import Any

from throughtime.report import charts
from throughtime.report.html import Markup, count, el, fixed, join, number, shorten
from throughtime.report.plot import legend
from throughtime.report.read import Run, items, mapping, text, texts
from throughtime.report.sections import details, lead
from throughtime.wording import duration

TEXT_LIMIT = 20_000
SOUND_LIMIT = 24_000_000  # bytes of sound in one page
CURVE_LIMIT = 400
PARTS = (("train", "training"), ("valid", "validation"), ("test", "test"))


def samples(run: Run) -> Markup | None:
    """What the model makes up by itself: texts, sounds, paths, rolls."""
    shown: list[Markup] = []
    carried = 0
    for index, sample in enumerate(items(run.scores, "samples"), start=1):
        kind, title = text(sample, "kind"), f"Sample {index}"
        block: Markup | None = None
        if kind == "text":
            body = shorten(text(sample, "text"), TEXT_LIMIT)
            block = el("pre", body, class_="sample", tabindex="0", aria_label=title, role="region")
        elif kind == "sound":
            wav = charts.decode(sample)
            carried += len(wav) if wav else 0
            block = _sound(sample, wav if carried <= SOUND_LIMIT else None, title)
        elif kind == "paths":
            name = text(sample, "series")
            chart = charts.paths(sample.get("values"), run.step, name or title)
            block = el("figure", el("figcaption", name) if name else None, chart) if chart else None
        elif kind == "roll":
            chart = charts.roll(sample.get("values"), run.step)
            block = el("figure", chart) if chart else None
        if block is not None:
            shown.append(block)
    if not shown:
        return None
    name = text(run.selected, "name") or "the model"
    said = (
        f"Drawn from {name}, one {run.step} after the other, each fed back as the next one's past."
    )
    return join(lead(said), el("div", *shown, class_="samples"))


def _sound(sample: dict[str, Any], wav: bytes | None, title: str) -> Markup:
    seconds, rate = number(sample.get("seconds")), number(sample.get("rate"))
    said = [title]
    said += [f"{fixed(seconds, 1)} s"] if seconds is not None else []
    said += [f"{count(rate)} Hz"] if rate is not None else []
    caption = el("figcaption", " · ".join(said))
    if wav is None:
        return el("figure", caption, el("p", "This sound is damaged, or too long for this page."))
    encoded = base64.b64encode(wav).decode("ascii")
    player = el(
        "audio",
        controls=True,
        preload="metadata",
        src=f"data:audio/wav;base64,{encoded}",
        aria_label=f"{title}, sound",
    )
    return el("figure", caption, charts.waveform(wav, title), player)


def training(run: Run) -> Markup | None:
    """Training curves: thin the training score, strong the validation score."""
    points: dict[tuple[str, str], dict[float, tuple[float, float]]] = {}
    timed = all(
        number(event.get("seconds")) is not None
        for event in run.log
        if event.get("event") in ("step", "valid")
    )
    place = "seconds" if timed else "step"
    for event in run.log:
        for part in ("train", "valid"):
            x, y = number(event.get(place)), number(event.get(part))
            if event.get("event") in ("step", "valid") and x is not None and y is not None:
                # By step: a run that was killed goes through its last steps once more.
                step = number(event.get("step")) or 0.0
                points.setdefault((text(event, "model"), part), {})[step] = (x, y)
    lines, keys = [], []
    for name, colour in chosen_first(run, [name for name, _ in points]):
        for part in ("train", "valid"):
            found = sorted(points.get((name, part), {}).values())
            kept = charts.stride(len(found), CURVE_LIMIT)
            lines.append((name, part, f"s{colour}", [found[i] for i in kept]))
        valid = [score for _, score in points.get((name, "valid"), {}).values()]
        keys.append((name, f"s{colour}", fixed(min(valid), 3) if valid else ""))
    chart = charts.curves(lines, place if timed else "steps", run.unit)
    events = _events(run)
    if chart is None:
        return events
    said = "Strong lines are the validation score, with its lowest value beside the name; thin "
    said += "lines the training score."
    figure = el("figure", legend(keys, toggles=True), chart)
    return join(lead(said), figure, events)


def chosen_first(run: Run, names: list[str]) -> list[tuple[str, int]]:
    """Names of models, best first, each with the number of its colour; the chosen one has 0."""
    order = [text(model, "name") for model in run.models]
    chosen, others = text(run.selected, "name"), iter(range(1, 1000))
    known = sorted(
        dict.fromkeys(names), key=lambda name: order.index(name) if name in order else len(order)
    )
    return [
        (name, 0 if name == chosen else 1 + (next(others) - 1) % (charts.COLOURS - 1))
        for name in known
    ]


def _events(run: Run) -> Markup | None:
    """What the log says besides numbers: models that were skipped, steps that were, notes."""
    said = []
    for event in run.log:
        kind = event.get("event")
        words = next(
            (t for k in ("message", "text", "reason", "note") if (t := text(event, k))), ""
        )
        if kind in ("skip", "note") and words:
            name = text(event, "model")
            said.append(f"{name}: {words}" if name else words)
    skipped: dict[str, int] = {}
    for event in run.log:
        bad = number(event.get("skipped"))
        if bad:
            skipped[text(event, "model")] = int(bad)
    said += [f"{name}: {bad} updates left out as not finite" for name, bad in skipped.items()]
    if run.torn:
        said.append("The last line of log.jsonl was cut off and is not shown.")
    said = list(dict.fromkeys(said))
    if not said:
        return None
    if len(said) > 30:
        said = [*said[:30], f"and {len(said) - 30:,} more"]
    return el("ul", *(el("li", sentence) for sentence in said), class_="notes")


def data(run: Run) -> Markup | None:
    """Where the data came from, how they were cut, what reading them found."""
    entry = run.data
    if not entry:
        return None
    facts = [("Source", text(entry, "source")), ("Kind", text(entry, "kind"))]
    sequences = number(entry.get("sequences"))
    facts += [("Sequences", count(sequences))] if sequences is not None else []
    names = texts(entry, "columns")
    facts += [("Columns", shorten(", ".join(names), 300))] if names else []
    facts += [("One step", run.step)]
    chain = texts(entry, "transforms")
    facts += [("Transforms", " → ".join(chain))] if chain else []
    terms = [el("div", el("dt", key), el("dd", value)) for key, value in facts if value]
    notes = texts(entry, "notes")
    found = None
    if notes:
        shown = [el("li", note) for note in notes[:30]]
        if len(notes) > 30:
            shown.append(el("li", f"and {len(notes) - 30:,} more"))
        found = join(el("h3", "What reading found"), el("ul", *shown, class_="notes"))
    return join(_split(run), el("dl", *terms, class_="facts"), found)


def _split(run: Run) -> Markup | None:
    """Training, validation and test as shares of one strip, with their steps and times."""
    steps, times = mapping(run.data, "steps"), mapping(run.data, "time")
    known = [(part, name, number(steps.get(part)) or 0.0) for part, name in PARTS]
    total = sum(size for _, _, size in known)
    if total <= 0:
        return None
    strip, terms = [], []
    for part, name, size in known:
        share = size / total
        strip.append(el("i", class_=part, style=f"flex-grow:{share:.4f}"))
        ends = times.get(part)
        span = ""
        if isinstance(ends, list) and len(ends) == 2 and all(ends):
            span = f"{ends[0]} to {ends[1]}"
        terms.append(
            el(
                "div",
                el("dt", el("i", class_=f"key {part}", aria_hidden="true"), name),
                el("dd", f"{count(size)} {run.step}s", class_="value"),
                el("dd", span or f"{share:.0%}", class_="remark"),
            )
        )
    return join(
        el("div", *strip, class_="split", aria_hidden="true"), el("dl", *terms, class_="parts")
    )


def settings(run: Run) -> Markup | None:
    """Every setting of the run, and what its model file says of itself."""
    blocks: list[Markup | None] = []
    if run.settings:
        plain = {k: v for k, v in run.settings.items() if not isinstance(v, dict)}
        groups = [("run", plain)] if plain else []
        groups += [(key, value) for key, value in run.settings.items() if isinstance(value, dict)]
        blocks += [_facts(name, flatten(group)) for name, group in groups if group]
    if run.model:
        blocks.append(_facts("model.json", flatten(run.model)))
    if not blocks:
        return None
    said = "What it takes to repeat this run. The same settings and seed give the same bits."
    return join(lead(said), details("Show every setting", el("div", *blocks, class_="settings")))


def _facts(title: str, rows: list[tuple[str, str]]) -> Markup:
    body = [
        el("tr", el("th", key, scope="row"), el("td", shorten(value, 300))) for key, value in rows
    ]
    return el("table", el("caption", title), el("tbody", *body), class_="settings")


def flatten(value: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted keys with their values written out."""
    rows = []
    for key, item in value.items():
        if isinstance(item, dict) and item and prefix.count(".") < 6:
            rows += flatten(item, f"{prefix}{key}.")
        elif isinstance(item, str):
            rows.append((f"{prefix}{key}", item))
        else:
            rows.append((f"{prefix}{key}", json.dumps(item, ensure_ascii=False, default=str)))
    return rows


def foot(run: Run) -> str:
    """The last line: how much was fitted, in which time."""
    seconds = [s for model in run.models if (s := number(model.get("seconds"))) is not None]
    said = f"{len(run.models)} models"
    return f"{said}, {duration(sum(seconds))} of fitting" if seconds else said
