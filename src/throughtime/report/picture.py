"""The gradient by lag as pictures in the terminal, 80 columns wide."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

from rich.table import Table
from rich.text import Text

from throughtime.evaluation.results import GradientRecord

_BLOCKS = " ▏▎▍▌▋▊▉█"
_WIDTH = 80
_SHARE = 9  # columns of a share, with the air before it
_DEEPEST = 1e-6  # of the longest bar: shorter ones are empty
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_COLUMNS = " ▁▂▃▄▅▆▇█"
_SPARK, _SPARK_DECADES = 20, 8  # columns of a small curve, and the powers of ten that it spans


def gradient(record: GradientRecord) -> Text:
    """The gradient of a network, as bars with the truncation between them, and its verdict.

    Bars show the mean norm of the gradient at the lags of a bin, on a logarithmic scale.
    """
    step, cut = record.step, record.k2
    norms, share = ([value or 0.0 for value in line] for line in (record.norms, record.share))
    bins = _bins(record.max_lag, cut)
    means = [sum(norms[a:b]) / (b - a) for a, b in bins]
    lengths, scale = _lengths(means)
    drawn = Text()
    drawn.append(record.model, "bold")
    drawn.append(
        f": its gradient over {record.steps:,} {step}s{_rows(record.rows)}, by how far it travels "
        "back\n\n"
    )
    head = f"{step}s back"
    first = max(12, len(head))
    width = _WIDTH - 1 - first - 2 - 2 * _SHARE
    drawn.append(f"{head:>{first}}  {'':{width}}{'share':>{_SHARE}}{'within':>{_SHARE}}\n", "dim")
    for (a, b), length in zip(bins, lengths, strict=True):
        if cut is not None and a == cut:
            drawn.append(_rule(cut, record, step), "yellow")
        style = "cyan" if cut is None or a < cut else "yellow"
        here = share[b - 1] - (share[a - 1] if a else 0.0)
        drawn.append(f"{_span(a, b - 1):>{first}}  ")
        drawn.append(f"{_bar(length, width):{width}}", style)
        drawn.append(f"{_percent(here):>{_SHARE}}{_percent(share[b - 1]):>{_SHARE}}\n")
    if cut is not None and cut > record.max_lag:
        drawn.append(_rule(cut, record, step), "yellow")
    drawn.append(f"{'':{first}}  {scale}\n\n", "dim")
    drawn.append(_reach(record, step))
    verdict = record.verdict
    drawn.append(f"\n\n{verdict.name}: ", "bold")
    drawn.append(" ".join(f"{part.rstrip('.')}." for part in (verdict.sentence, verdict.remedy)))
    return drawn


def cures(demo: dict[str, Any]) -> Table:
    """A demonstration, from its JSON values: a curve for each network, and whether it learned."""
    lag = demo["lag"]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("network", no_wrap=True)
    table.add_column(f"gradient, lag 0 to {lag}\n(1e-{_SPARK_DECADES} to 1, log)", no_wrap=True)
    table.add_column("95 %\nwithin", justify="right")
    table.add_column(f"share of\nlag {lag}", justify="right")
    table.add_column("nats\nthen", justify="right")
    for row in demo["networks"]:
        curve = Text(_spark(row["by_lag"]), "green" if row["learned"] else "yellow")
        share = f"{row['arrives']:.0e}" if row["arrives"] else "0"
        loss = Text(f"{row['loss'][-1]:.3f}", "green" if row["learned"] else "")
        table.add_row(Text(row["name"]), curve, str(row["reach"]), share, loss)
    return table


def _spark(values: list[float]) -> str:
    """A curve on a logarithmic scale, in columns of mean values."""
    edges = [round(i * len(values) / _SPARK) for i in range(_SPARK + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    heights = [1 + math.log10(mean) / _SPARK_DECADES if mean > 0 else 0.0 for mean in means]
    return "".join(_COLUMNS[max(0, min(8, math.ceil(8 * height)))] for height in heights)


def _bins(max_lag: int, cut: int | None) -> list[tuple[int, int]]:
    """Bins [a, b) of lags, each twice as wide as the one before, parted at the truncation."""
    edges = {0, 1, max_lag + 1, *(1 << i for i in range(max_lag.bit_length()))}
    edges |= {cut} if cut is not None and 0 < cut <= max_lag else set()
    return list(pairwise(sorted(edges)))


def _lengths(values: list[float]) -> tuple[list[float], str]:
    """The lengths of bars, 0 to 1, on a logarithmic scale; and what that scale is."""
    top = max(values)
    if top <= 0:
        return [0.0] * len(values), "there is no gradient"
    least = max(_DEEPEST, min((v / top for v in values if v > 0), default=1.0))
    decades = max(1, math.ceil(-math.log10(least) + 0.2))
    small = f"-{decades}".translate(_RAISED)
    lengths = [max(0.0, 1.0 + math.log10(v / top) / decades) if v > 0 else 0.0 for v in values]
    return lengths, f"norms, logarithmic: no bar is 10{small} of a full one"


def _bar(length: float, width: int) -> str:
    eighths = round(length * width * 8)
    whole, part = divmod(eighths, 8)
    return "█" * whole + (_BLOCKS[part] if part else "")


def _span(first: int, last: int) -> str:
    return f"{first:,}" if first == last else f"{first:,}–{last:,}"


def _rows(count: int) -> str:
    return "" if count == 1 else f" in each of {count:,} rows"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share >= 0.0005 or share == 0 else "<0.1 %"


def _rule(cut: int, record: GradientRecord, step: str) -> str:
    beyond = record.beyond
    lies = "what lies beyond is older than all that was looked at"
    if beyond is not None:
        lies = f"{_percent(beyond)} of the gradient lies beyond"
    said = f" truncated at {cut:,} {step}{'' if cut == 1 else 's'}: {lies} "
    return "──" + said + "─" * max(0, _WIDTH - 3 - len(said)) + "\n"


def _reach(record: GradientRecord, step: str) -> str:
    """Within which lag how much of the gradient lies."""
    known = [(f"{100 * share:.0f} %", lag) for share, lag in record.reach.items()]
    within = [f"{share} within {lag:,}" for share, lag in known if lag is not None]
    far = [share for share, lag in known if lag is None]
    said = f"reach, in {step}s: {', '.join(within)}" if within else f"reach, in {step}s"
    return said + (f"; {', '.join(far)} beyond {record.max_lag:,}" if far else "")
