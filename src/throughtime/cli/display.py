"""What a person sees: live tables and progress on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import textwrap
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from throughtime.cli.messages import as_flags
from throughtime.wording import duration

if TYPE_CHECKING:
    from throughtime.evaluation.results import Difference, ModelScores, Scores

_QUIET_SECONDS = 10.0  # between two lines about progress where nothing can be animated
_BAR = 20


class Working:
    """How far a command is, with the time left; a context manager, called as it goes on.

    On a terminal it is one live line; elsewhere a line now and then, none for a quick command.
    """

    def __init__(self, console: Console, about: str, quiet: bool = False) -> None:
        self.console, self.about, self.quiet = console, about, quiet
        self.begun = self.said = time.monotonic()
        self.done, self.total = 0, 0
        self.live: Live | None = None
        if console.is_terminal:
            self.live = Live(
                console=console, refresh_per_second=8, transient=True, get_renderable=self._view
            )

    def __enter__(self) -> Working:
        if self.live is not None:
            self.live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Takes the line away, for what the command prints next."""
        if self.live is not None:
            self.live.stop()

    def __call__(self, done: int, total: int, about: str = "") -> None:
        if about and about != self.about:
            self.begun, self.about = time.monotonic(), about
        self.done, self.total = done, total
        if self.live is None and not self.quiet:
            now = time.monotonic()
            if now - self.said >= _QUIET_SECONDS:
                self.said = now
                self.console.print(Text(self._words()), soft_wrap=True)

    def _left(self) -> float | None:
        elapsed = time.monotonic() - self.begun
        if not 0 < self.done < self.total or elapsed < 0.5:
            return None
        return elapsed * (self.total - self.done) / self.done

    def _words(self) -> str:
        share = f": {self.done / self.total:.0%}" if self.total and self.done else ""
        left = self._left()
        return f"{self.about}{share}" + (f", {duration(left)} left" if left is not None else "")

    def _view(self) -> Table:
        left = self._left()
        row = Table.grid(padding=(0, 1))
        cells: list[Any] = [Spinner("dots"), Text(self.about)]
        if self.total:
            cells.append(ProgressBar(total=self.total, completed=self.done, width=_BAR))
        elapsed = duration(time.monotonic() - self.begun)
        cells.append(Text(elapsed if left is None else f"{duration(left)} left", "dim"))
        row.add_row(*cells)
        return row


class FitDisplay:
    """Shows fitting events; use as a context manager and pass it as `on_event`.

    quiet: say nothing where the events cannot be animated.
    """

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self.console, self.quiet = console, quiet
        self.rows: dict[str, dict[str, Any]] = {}
        self.unit = "nats per step"
        self.status = "loading"
        self.evaluated, self.stage = 0, ""
        self.begun = time.monotonic()
        self.animated = console.is_terminal
        self.live = Live(
            console=console, refresh_per_second=4, transient=True, get_renderable=self._view
        )

    def __enter__(self) -> FitDisplay:
        if self.animated:
            self.live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.animated:
            self.live.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        handler = getattr(self, f"_on_{event['event']}", None)
        if handler is not None and (self.animated or not self.quiet):
            handler(event)

    def _say(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)

    def _say_plainly(self, text: str) -> None:
        if not self.animated:
            self._say(text)

    def _on_read(self, event: dict[str, Any]) -> None:
        self.status = f"reading {event['source']}"
        self._say_plainly(self.status)

    def _on_reading(self, event: dict[str, Any]) -> None:
        self.status = f"reading: {event['done']:,} of {event['total']:,} files"

    def _on_data(self, event: dict[str, Any]) -> None:
        self.unit = f"nats per {event['step']}"
        self._say(describe_data(event))
        for note in event["notes"]:
            said = as_flags(note)
            self._say(textwrap.fill(said, 80, initial_indent="  note: ", subsequent_indent=" " * 8))
        self.status = "choosing how to look at the data"

    def _on_history(self, event: dict[str, Any]) -> None:
        stage = "measuring how much of the past matters"
        if self.stage != stage:
            self.stage = stage
            self._say_plainly(stage)
        self.status = f"{stage}: {event['about']}"

    def _on_note(self, event: dict[str, Any]) -> None:
        about = f"{event['model']}: " if "model" in event else ""
        self._say(f"  note: {about}{event['message']}")

    def _on_uncertified(self, event: dict[str, Any]) -> None:
        self._say(f"  how much of the past matters is not known: {event['why']}")

    def _on_finished(self, event: dict[str, Any]) -> None:
        self._say(f"{event['run']} holds this run already; give another folder to fit it again")

    def _on_start(self, event: dict[str, Any]) -> None:
        self.rows[event["model"]] = {"begun": time.monotonic()}
        self.status = f"fitting {event['model']}"

    def _on_resume(self, event: dict[str, Any]) -> None:
        self._say_plainly(f"{event['model']}: going on from step {event['step']}")

    def _on_valid(self, event: dict[str, Any]) -> None:
        row = self.rows.setdefault(event["model"], {})
        news = {key: value for key, value in event.items() if (key, value) != ("reach", None)}
        row.update(news, at=time.monotonic())

    def _on_step(self, event: dict[str, Any]) -> None:
        # The second training of a network, on all that it may see: nothing is held out.
        kept = {key: value for key, value in event.items() if key != "best"}
        self._on_valid(kept)
        self.status = f"fitting {event['model']} again, with the validation data"

    def _on_skip(self, event: dict[str, Any]) -> None:
        if event["skipped"] == 1:
            self._say(f"{event['model']}: a step without a finite gradient is skipped")

    def _on_end(self, event: dict[str, Any]) -> None:
        row = self.rows.setdefault(event["model"], {})
        row.update(end=event["valid"], took=event.get("seconds"))
        took = "kept" if event.get("kept") else duration(event["seconds"])
        self._say_plainly(
            f"{event['model']:<22} {number(event['valid'], 4)} {self.unit} on validation, {took}"
        )

    def _on_evaluate(self, event: dict[str, Any]) -> None:
        if event["what"] in self.rows:
            self.evaluated += 1
            self.status = f"testing {event['what']} ({self.evaluated} of {len(self.rows)})"
            if self.evaluated == 1:
                self._say_plainly(f"testing {len(self.rows)} models on the test data")
        else:
            self.status = f"testing: {event['what']}"
            stage = self.status.split(" of ")[0]
            if stage != self.stage:
                self.stage = stage
                self._say_plainly(stage)

    def _view(self) -> Group:
        parts: list[Any] = []
        if self.rows:
            table = Table(box=None, pad_edge=False, header_style="bold")
            table.add_column("model", no_wrap=True)
            table.add_column(_stacked(f"{self.unit}, validation", 14), justify="right")
            table.add_column("gradient\nreaches", justify="right")
            table.add_column("", min_width=_BAR)
            table.add_column("steps/s", justify="right")
            table.add_column("left", justify="right")
            for name, row in self.rows.items():
                table.add_row(Text(name), *self._cells(row))
            parts.append(table)
        elapsed = duration(time.monotonic() - self.begun)
        parts.append(Text(f"{self.status} … {elapsed} so far", style="dim"))
        return Group(*parts)

    def _cells(self, row: dict[str, Any]) -> tuple[Any, ...]:
        far = f"{row['reach']:.0f}" if "reach" in row else ""
        if "end" in row:
            took = "kept" if row.get("took") is None else duration(row["took"])
            return number(row["end"], 4), far, Text("done", "green"), "", Text(took, "dim")
        valid = row.get("best", row.get("valid"))
        if "step" not in row:
            return "", far, Spinner("dots"), "", duration(time.monotonic() - row["begun"])
        total, rate = row["steps"], max(row["rate"], 1e-9)
        # Between two reports the bar goes on at the speed of the last one.
        done = min(total, row["step"] + rate * (time.monotonic() - row["at"]))
        bar = ProgressBar(total=total, completed=done, width=_BAR)
        return number(valid, 4), far, bar, f"{rate:.1f}", duration((total - done) / rate)


def describe_data(data: dict[str, Any]) -> str:
    """What was read, and how it is split."""
    steps = data["steps"]
    total = sum(steps.values())
    step, count = data["step"], data["sequences"]
    what = f"{data['source']}: {total:,} {step}s"
    if count > 1:
        what += f" in {count:,} sequences"
    if data["columns"] and data["kind"] == "real":
        what += f" of {', '.join(data['columns'][:4])}"
    time_spans = data["time"]
    if time_spans and time_spans["train"] and time_spans["test"]:
        what += f" from {time_spans['train'][0]} to {time_spans['test'][1]}"
    parts = ", ".join(
        f"{steps[part]:,} for {name}"
        for part, name in (("train", "training"), ("validation", "validation"), ("test", "test"))
    )
    return f"{what}\n  {parts}"


def comparison(scores: Scores) -> Table:
    """The models, best first, with the difference to the best simple reference; 80 columns."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("model", no_wrap=True)
    extra: dict[str, Callable[[ModelScores], float | None]] = {}
    if scores.data.kind == "text":
        extra["bits per\ncharacter"] = lambda row: row.bits_per_character
        extra["perplexity"] = lambda row: row.perplexity
    elif scores.data.kind == "sound":
        extra["bits per\nsample"] = lambda row: row.bits_per_step
    headings = [_stacked(scores.unit, 12), *extra]
    if scores.reference:
        headings.append(_stacked(f"against {scores.reference}", 24) + "\n[95 % interval]")
    for heading in (*headings, "time"):
        table.add_column(Text(heading), justify="right", no_wrap=True)
    for row in scores.ranked:
        cells = [number(row.nats_per_step, 4), *(number(of(row), 3) for of in extra.values())]
        if scores.reference:
            cells.append(difference(row.difference))
        name = ("▸ " if row.selected else "  ") + row.name
        cells.append(duration(row.seconds) if row.seconds else "")
        table.add_row(*map(Text, (name, *cells)), style="bold" if row.selected else None)
    return table


def _stacked(heading: str, width: int) -> str:
    return "\n".join(textwrap.wrap(heading, width, break_long_words=False))


def number(value: float | None, digits: int) -> str:
    """A number for people; a dash where there is none."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.{digits}f}"


def difference(estimate: Difference | None) -> str:
    """A difference and its interval: `-0.161 [-0.288, -0.061]`."""
    if estimate is None or estimate.value is None:
        return ""
    if estimate.interval is None:
        return f"{estimate.value:+.3f} [too few data]"
    low, high = estimate.interval
    return f"{estimate.value:+.3f} [{low:+.3f}, {high:+.3f}]"


def score_table(scores: dict[str, Any], most_rows: int = 20) -> Table:
    """The sequences one by one: what a step costs, and the log-likelihood of the whole."""
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("sequence", overflow="ellipsis", no_wrap=True, max_width=34)
    table.add_column(f"{scores['unit'].removeprefix('nats per ')}s", justify="right")
    table.add_column(_stacked(scores["unit"], 12), justify="right")
    table.add_column("log-likelihood", justify="right")
    for row in scores["sequences"][:most_rows]:
        each = -row["nats"] / row["steps"] if row["steps"] else None
        table.add_row(
            Text(row["name"]), f"{row['steps']:,}", number(each, 4), number(row["nats"], 2)
        )
    return table


def forecast_tables(forecast: dict[str, Any], most_rows: int, most_series: int) -> list[Table]:
    """One table per series and column: a row per step ahead, a column per quantile."""
    tables = []
    for one in forecast["series"][:most_series]:
        for column in one["columns"]:
            title = one["name"] if len(one["columns"]) == 1 else f"{one['name']}: {column['name']}"
            table = Table(title=Text(title), box=None, pad_edge=False, header_style="bold")
            table.title_justify = "left"
            table.add_column("step", justify="right")
            if one["times"] is not None:
                table.add_column("time", no_wrap=True)
            for q in column["quantiles"]:
                table.add_column(f"{100 * float(q):g} %", justify="right")
            show = _alike([v for values in column["quantiles"].values() for v in values])
            for step in range(min(forecast["horizon"], most_rows)):
                when = [] if one["times"] is None else [one["times"][step]]
                values = [show(values[step]) for values in column["quantiles"].values()]
                table.add_row(str(step + 1), *when, *values)
            tables.append(table)
    return tables


def _alike(values: list[float]) -> Any:
    """How to write numbers of one table: with the same decimals, enough for their spread."""
    if all(value == round(value) for value in values):
        return lambda value: f"{value:,.0f}"
    spread = max(values) - min(values)
    large = max(map(abs, values))
    decimals = 2 - math.floor(math.log10(spread)) if spread > 0 else 4
    if large >= 1e9 or decimals > 6:
        return lambda value: f"{value:.4g}"
    return lambda value: f"{value:,.{max(0, decimals)}f}"
