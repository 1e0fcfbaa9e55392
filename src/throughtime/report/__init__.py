"""One page about a run that opens offline: `write` makes report.html from a run folder's values.

    read        what a report is made of, and a run folder as that
    html        text, numbers and elements, escaped by construction
    axis        scales and round ticks, clock time included; which points of long lines are drawn
    plot        one chart: static SVG under HTML labels
    charts      the report's charts
    lags        its charts over lags
    comparison  key figures and the table of models
    sections    the results;  background: samples, training, data, settings
    memory      what the data remember, how far back the gradient reaches

The page is complete without its script, which only adds the read-out under the pointer (or the
arrow keys) and the switch between light and dark. Its content security policy forbids every
request, and every script but this one.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from throughtime import files
from throughtime.errors import RunError
from throughtime.report import background, memory, sections
from throughtime.report.comparison import figures
from throughtime.report.html import Markup, el, join
from throughtime.report.read import ReportData, read
from throughtime.report.sections import Section

SECTIONS = (
    Section("models", "Models", "How the models compare", sections.models),
    Section("forecast", "Forecast", "What it expected, and what came", sections.forecast),
    Section("accuracy", "Accuracy", "Accuracy by horizon", sections.accuracy),
    Section("calibration", "Calibration", "Do its probabilities hold?", sections.calibration),
    Section("surprise", "Surprise", "Where it was surprised", sections.surprisal),
    Section("samples", "Samples", "Left to itself", background.samples),
    Section("order", "Order", "How much past a finite order needs", sections.order),
    Section("history", "Memory", "What the data remember", memory.history),
    Section("gradients", "Gradient", "How far back the gradient reaches", memory.gradients),
    Section("training", "Training", "How they were trained", background.training),
    Section("data", "Data", "The data", background.data),
    Section("settings", "Settings", "Every setting", background.settings),
)


def write(run_folder: Path) -> Path:
    """Writes report.html into a run folder and returns its path.

    Reads scores.json, model.json, log.jsonl and config.toml; never a model.
    The file appears whole or not at all.

    Raises:
        RunError: when the folder holds no finished run, one of these files is damaged or from
            another version, or the report cannot be written.
    """
    folder = Path(run_folder)
    path = folder / "report.html"
    save(render(read(folder)), path)
    return path


def save(content: str, path: Path) -> None:
    """Writes a page whole or not at all.

    Raises:
        RunError: where it cannot.
    """
    try:
        files.write_text(path, content)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}") from error


def render(run: ReportData) -> str:
    """The whole page of a run."""
    built = [(section, body) for section in SECTIONS if (body := section.build(run)) is not None]
    return page(
        run.scores.data.source,
        run.name,
        run.scores.verdict or _plain_verdict(run),
        figures(run),
        [(section.anchor, section.short, section.title, body) for section, body in built],
        background.foot(run),
    )


def page(
    source: str,
    name: str,
    verdict: str,
    key_figures: Markup | None,
    blocks: Sequence[tuple[str, str, str, Markup]],
    foot: Markup | str,
) -> str:
    """A page that opens offline: its two names, its sentence, key figures, and sections.

    Args:
        source: of the data. name: of the run.
        verdict: the headline.
        key_figures: under it.
        blocks: (anchor, short name for the navigation, title, body) of each section.
        foot: the last line.
    """
    script, style = _asset("report.js"), _asset("report.css")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    sections_ = [el("section", el("h2", title), body, id=at) for at, _, title, body in blocks]
    parts = {
        "POLICY": Markup(
            f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
            "img-src data:; media-src data:; base-uri 'none'; form-action 'none'"
        ),
        "TITLE": join(f"{source} · throughtime"),
        "STYLE": Markup(style),
        "SCRIPT": Markup(script),
        "SOURCE": join(source),
        "RUN": join(name),
        "VERDICT": join(verdict),
        "FIGURES": join(key_figures),
        "LINKS": join(*(el("a", short, href=f"#{at}") for at, short, _, _ in blocks)),
        "SECTIONS": join(*sections_),
        "FOOT": join(foot),
    }
    # One pass over the template: what a file's text puts in is never looked at again.
    pieces = _asset("report.html").split("%%")
    return "".join(parts[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def _plain_verdict(run: ReportData) -> str:
    if run.selected is None:
        return "No model could be scored on this data."
    return f"{run.selected.name} predicts this data best."


@cache
def _asset(name: str) -> str:
    return (resources.files("throughtime") / "assets" / name).read_text(encoding="utf-8")
