"""The sections behind the result: samples, training, the data, every setting."""

from __future__ import annotations

import base64
import json

from throughtime.evaluation.results import Part, Sample, SoundSample
from throughtime.report import charts
from throughtime.report.html import Markup, count, el, fixed, join, number, shorten
from throughtime.report.plot import legend
from throughtime.report.read import Json, ReportData
from throughtime.report.sections import details, lead
from throughtime.wording import duration

TEXT_LIMIT = 20_000
SOUND_LIMIT = 24_000_000  # bytes of sound in one page
CURVE_LIMIT = 400
PARTS: dict[Part, str] = {"train": "training", "validation": "validation", "test": "test"}


def samples(run: ReportData) -> Markup | None:
    """What the model makes up by itself: texts, sounds, paths, rolls."""
    blocks: list[Markup] = []
    carried = 0
    for index, sample in enumerate(run.scores.samples, start=1):
        if isinstance(sample, SoundSample):
            carried += len(sample.wav_base64) * 3 // 4
        block = _sample(sample, run.step, f"Sample {index}", carried <= SOUND_LIMIT)
        if block is not None:
            blocks.append(block)
    if not blocks:
        return None
    said = (
        f"Drawn from {run.scores.best}, one {run.step} after the other, each fed back as the next "
        "one's past."
    )
    return join(lead(said), el("div", *blocks, class_="samples"))


def _sample(sample: Sample, step: str, title: str, room: bool) -> Markup | None:
    if sample.kind == "text":
        text = shorten(sample.text, TEXT_LIMIT)
        return el("pre", text, class_="sample", tabindex="0", aria_label=title, role="region")
    if sample.kind == "sound":
        return _sound(sample, charts.decode(sample) if room else None, title)
    name = None
    if sample.kind == "paths":
        chart = charts.paths(sample, step, sample.series or title)
        name = el("figcaption", sample.series) if sample.series else None
    else:
        chart = charts.roll(sample, step)
    return None if chart is None else el("figure", name, chart)


def _sound(sample: SoundSample, wav: bytes | None, title: str) -> Markup:
    said = f"{title} · {fixed(sample.seconds, 1)} s · {count(sample.rate)} Hz"
    caption = el("figcaption", said)
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


def training(run: ReportData) -> Markup | None:
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
                points.setdefault((str(event.get("model", "")), part), {})[step] = (x, y)
    lines, keys = [], []
    for name, colour in selected_first(run, [name for name, _ in points]):
        for part in ("train", "valid"):
            curve = sorted(points.get((name, part), {}).values())
            kept = charts.stride(len(curve), CURVE_LIMIT)
            lines.append((name, part, f"s{colour}", [curve[i] for i in kept]))
        valid = [score for _, score in points.get((name, "valid"), {}).values()]
        keys.append((name, f"s{colour}", fixed(min(valid), 3) if valid else ""))
    chart = charts.curves(lines, place if timed else "steps", run.scores.unit)
    events = _events(run)
    if chart is None:
        return events
    said = "Strong lines are the validation score, with its lowest value beside the name; thin "
    said += "lines the training score."
    figure = el("figure", legend(keys, toggles=True), chart)
    return join(lead(said), figure, events)


def selected_first(run: ReportData, names: list[str]) -> list[tuple[str, int]]:
    """Names of models, best first, each with the number of its colour; the selected one has 0."""
    order = [model.name for model in run.scores.ranked]
    others = iter(range(1, 1000))
    known = sorted(
        dict.fromkeys(names), key=lambda name: order.index(name) if name in order else len(order)
    )
    return [
        (name, 0 if name == run.scores.best else 1 + (next(others) - 1) % (charts.COLOURS - 1))
        for name in known
    ]


def _events(run: ReportData) -> Markup | None:
    """What the log says besides numbers: models that were skipped, steps that were, notes."""
    said = []
    for event in run.log:
        kind = event.get("event")
        words = event.get("message") or event.get("reason")
        if kind in ("skip", "note") and words:
            name = event.get("model")
            said.append(f"{name}: {words}" if name else words)
    skipped: dict[str, int] = {}
    for event in run.log:
        bad = number(event.get("skipped"))
        if bad:
            skipped[str(event.get("model", ""))] = int(bad)
    said += [f"{name}: {bad} updates left out as not finite" for name, bad in skipped.items()]
    said = list(dict.fromkeys(said))
    if not said:
        return None
    if len(said) > 30:
        said = [*said[:30], f"and {len(said) - 30:,} more"]
    return el("ul", *(el("li", sentence) for sentence in said), class_="notes")


def data(run: ReportData) -> Markup:
    """Where the data came from, how they were split, what was noted in reading them."""
    summary = run.scores.data
    facts = {
        "Source": summary.source,
        "Kind": summary.kind,
        "Sequences": count(summary.sequences),
        "Columns": shorten(", ".join(summary.columns), 300),
        "One step": run.step,
        "Transforms": " → ".join(summary.transforms),
    }
    terms = [el("div", el("dt", key), el("dd", value)) for key, value in facts.items() if value]
    noted = None
    if summary.notes:
        listed = [el("li", note) for note in summary.notes[:30]]
        if len(summary.notes) > 30:
            listed.append(el("li", f"and {len(summary.notes) - 30:,} more"))
        noted = join(el("h3", "What reading found"), el("ul", *listed, class_="notes"))
    return join(_split(run), el("dl", *terms, class_="facts"), noted)


def _split(run: ReportData) -> Markup | None:
    """Training, validation and test as shares of one strip, with their steps and times."""
    summary = run.scores.data
    total = sum(summary.steps.values())
    if total <= 0:
        return None
    strip, terms = [], []
    for part, name in PARTS.items():
        size = summary.steps.get(part, 0)
        share = size / total
        strip.append(el("i", class_=part, style=f"flex-grow:{share:.4f}"))
        ends = (summary.time or {}).get(part)
        span = f"{ends[0]} to {ends[1]}" if ends else f"{share:.0%}"
        terms.append(
            el(
                "div",
                el("dt", el("i", class_=f"key {part}", aria_hidden="true"), name),
                el("dd", f"{count(size)} {run.step}s", class_="value"),
                el("dd", span, class_="remark"),
            )
        )
    return join(
        el("div", *strip, class_="split", aria_hidden="true"), el("dl", *terms, class_="parts")
    )


def settings(run: ReportData) -> Markup | None:
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


def flatten(value: Json, prefix: str = "") -> list[tuple[str, str]]:
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


def foot(run: ReportData) -> str:
    """The last line: how much was fitted, in which time."""
    seconds = [model.seconds for model in run.scores.models]
    said = f"{len(seconds)} models"
    return f"{said}, {duration(sum(seconds))} of fitting" if seconds else said
