"""What a person sees while models are fitted: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text


class FitDisplay:
    """Shows fitting events; use as a context manager and pass it as `on_event`."""

    def __init__(self, console: Console, quiet: bool = False) -> None:
        self.console, self.quiet = console, quiet
        self.rows: dict[str, dict[str, Any]] = {}
        self.unit = "nats per step"
        self.status = ""
        self.live = Live(console=console, refresh_per_second=4, transient=True)
        self.animated = console.is_terminal and not quiet

    def __enter__(self) -> FitDisplay:
        if self.animated:
            self.live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.animated:
            self.live.stop()

    def __call__(self, event: dict[str, Any]) -> None:
        if self.quiet:
            return
        kind = event["event"]
        handler = getattr(self, f"_on_{kind}", None)
        if handler is not None:
            handler(event)
        if self.animated:
            self.live.update(self._view())

    def _say(self, text: str) -> None:
        self.console.print(Text(text), soft_wrap=True)

    def _on_read(self, event: dict[str, Any]) -> None:
        self.status = f"reading {event['source']}"
        if not self.animated:
            self._say(self.status)

    def _on_data(self, event: dict[str, Any]) -> None:
        self.unit = f"nats per {event['step']}"
        self._say(describe_data(event))
        for note in event["notes"]:
            self._say(f"  note: {note}")
        self.status = "choosing transforms"

    def _on_start(self, event: dict[str, Any]) -> None:
        self.rows[event["model"]] = {"state": "fitting", "begun": time.monotonic()}
        self.status = f"fitting {event['model']}"

    def _on_resume(self, event: dict[str, Any]) -> None:
        if not self.animated:
            self._say(f"{event['model']}: going on from step {event['step']}")

    def _on_valid(self, event: dict[str, Any]) -> None:
        row = self.rows.setdefault(event["model"], {"begun": time.monotonic()})
        row.update(event)

    def _on_end(self, event: dict[str, Any]) -> None:
        row = self.rows.setdefault(event["model"], {})
        row.update(state="done", valid=event["valid"], took=event.get("seconds"))
        if not self.animated:
            took = "kept" if event.get("kept") else f"{event['seconds']:.1f} s"
            self._say(
                f"{event['model']:<24} {event['valid']:.4f} {self.unit} on validation, {took}"
            )

    def _on_evaluate(self, event: dict[str, Any]) -> None:
        self.status = f"evaluating {event['what']}"
        if not self.animated:
            self._say(self.status)

    def _view(self) -> Group:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name, justify in (("model", "left"), ("validation", "right"), ("", "left")):
            table.add_column(name, justify=justify)  # type: ignore[arg-type]
        table.add_column("steps/s", justify="right")
        table.add_column("left", justify="right")
        for name, row in self.rows.items():
            table.add_row(name, *self._cells(row))
        return Group(table, Text(f"{self.status} … ({self.unit})", style="dim"))

    def _cells(self, row: dict[str, Any]) -> tuple[Any, ...]:
        valid = row.get("best", row.get("valid"))
        shown = "" if valid is None else f"{valid:.4f}"
        if row.get("state") == "done":
            took = row.get("took")
            return f"{row['valid']:.4f}", Text("done", "green"), "", _clock(took) if took else ""
        if "step" not in row:
            return shown, Text("…", "dim"), "", ""
        done, total, rate = row["step"], row["steps"], max(row["rate"], 1e-9)
        bar = ProgressBar(total=total, completed=done, width=24)
        return shown, bar, f"{rate:.1f}", _clock((total - done) / rate)


def describe_data(data: dict[str, Any]) -> str:
    """One line about what was read and how it is split."""
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
    parts = f"{steps['train']:,} to learn, {steps['valid']:,} to choose, {steps['test']:,} to judge"
    return f"{what}; {parts}"


def comparison(scores: dict[str, Any]) -> Table:
    """The models, best first, with the difference to the best simple reference."""
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    table.add_column("model")
    table.add_column(scores["unit"], justify="right")
    extra = [key for key in ("bits_per_character", "perplexity") if scores["models"][0].get(key)]
    if scores["data"]["kind"] == "sound":
        extra = ["bits_per_step"]
    for key in extra:
        table.add_column(
            key.replace("_", " ").replace("bits per step", "bits per sample"), justify="right"
        )
    table.add_column(f"against {scores['reference']}", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_column("seconds", justify="right")
    for row in sorted(scores["models"], key=lambda row: row["nats_per_step"]):
        difference = row.get("difference")
        value, interval = "", ""
        if difference:
            value = f"{difference['value']:+.4f}"
            low, high = difference["interval"]
            interval = f"{low:+.4f} … {high:+.4f}"
        seconds = row.get("seconds")
        table.add_row(
            ("▸ " if row["selected"] else "  ") + row["name"],
            f"{row['nats_per_step']:.4f}",
            *["" if row.get(key) is None else f"{row[key]:.3f}" for key in extra],
            value,
            interval,
            "" if seconds is None else f"{seconds:.1f}",
            style="bold" if row["selected"] else None,
        )
    return table


def forecast_tables(forecast: dict[str, Any], most_rows: int = 40) -> list[Table]:
    """One table per series and column: a row per step ahead, a column per quantile."""
    tables = []
    for one in forecast["series"][:10]:
        for column in one["columns"]:
            title = one["name"] if len(one["columns"]) == 1 else f"{one['name']}: {column['name']}"
            table = Table(title=title, box=None, pad_edge=False, header_style="bold")
            table.title_justify = "left"
            table.add_column("step", justify="right")
            if one["times"] is not None:
                table.add_column("time")
            for q in column["quantiles"]:
                table.add_column(f"{100 * float(q):g} %", justify="right")
            for step in range(min(forecast["horizon"], most_rows)):
                when = [] if one["times"] is None else [str(one["times"][step]).split("T00:00")[0]]
                values = [f"{values[step]:.6g}" for values in column["quantiles"].values()]
                table.add_row(str(step + 1), *when, *values)
            tables.append(table)
    return tables


def _clock(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"
