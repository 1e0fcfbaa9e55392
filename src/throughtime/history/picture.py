"""The certificate's picture in a terminal: what is lost, against how many lags may be seen."""

from __future__ import annotations

import math

from throughtime.history.certificate import Certificate
from throughtime.history.lag_selection import Point

WIDTH, HEIGHT = 60, 7
_LEVELS = " ▁▂▃▄▅▆▇█"


def picture(certificate: Certificate) -> list[str]:
    """Lines of at most 80 characters.

    Bars are nats per step above the best; lags run on a logarithmic axis; ▲ marks those needed.
    """
    curve, needed = certificate.lags.curve, certificate.lags.needed
    best = min(point.nats for point in curve)
    most = max(point.nats for point in curve) - best
    last = max(2, curve[-1].lags)
    lost = [_at(curve, lags) - best for lags in _columns(last)]
    heights = [max(0, round(8 * HEIGHT * value / most)) if most > 0 else 0 for value in lost]
    lines = [
        f"nats per {certificate.step} above the best, by lags seen",
        f"  {certificate.lags.model}"[: WIDTH + 20],
    ]
    for row in range(HEIGHT - 1, -1, -1):
        bars = "".join(_LEVELS[min(8, max(0, height - 8 * row))] for height in heights)
        label = f"{most:.3f}" if row == HEIGHT - 1 else "0" if row == 0 else ""
        lines.append(f"{label:>8} ┤{bars}".rstrip())
    lines.append(f"{'':8} └{'─' * WIDTH}")
    marks = {_place(lags, last): str(lags) for lags in _ticks(last)}
    lines.append(f"{'':10}{_row(marks)}".rstrip())
    lines.append(f"{'':10}{_row({_place(min(needed, last), last): f'▲ {needed} needed'})}".rstrip())
    return lines


def _columns(last: int) -> list[float]:
    """The number of lags that each column stands for."""
    return [math.expm1(i / (WIDTH - 1) * math.log1p(last)) for i in range(WIDTH)]


def _place(lags: int, last: int) -> int:
    return round(math.log1p(lags) / math.log1p(last) * (WIDTH - 1))


def _at(curve: tuple[Point, ...], lags: float) -> float:
    """Nats at the last place of the curve that is no further than `lags`."""
    return [p.nats for p in curve if p.lags <= lags + 1e-9][-1]


def _ticks(last: int) -> list[int]:
    ladder = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
    return [lags for lags in ladder if lags <= last]


def _row(marks: dict[int, str]) -> str:
    """Texts at their columns, those left out that would touch the one before; none runs out."""
    line = ""
    for place, text in sorted(marks.items()):
        begin = min(place, WIDTH + 8 - len(text))
        if begin >= len(line) + bool(line):
            line = line.ljust(begin) + text
    return line
