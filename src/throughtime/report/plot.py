"""One chart as static SVG under HTML labels.

The drawing stretches to whatever width there is (`preserveAspectRatio="none"`, strokes that do not
scale), while every label is an HTML span placed in per cent: text keeps its size on a phone, on a
wide screen and on paper, and nothing needs a script. The points travel along as a JSON block, from
which report.js makes the read-out under the pointer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from throughtime.report.axis import Axis, moment_label, stride, thin, uncrowded
from throughtime.report.html import Markup, data_block, el, join

SIZE = 1000.0  # the drawing's own width and height
LINE_POINTS = 800


class Plot:
    """A chart that is being drawn: marks are added from back to front, `render` ends it."""

    def __init__(
        self,
        x: Axis,
        y: Axis,
        label: str,
        x_title: str = "",
        y_title: str = "",
        size: str = "",
        reading: str = "{}",
    ) -> None:
        """`reading` says how the read-out names a place, with {} for its number."""
        self.x, self.y, self.reading = x, y, reading
        self.label, self.size = label, size
        self.x_title, self.y_title = x_title, y_title
        self._svg: list[Markup] = []
        self._html: list[Markup] = []
        self._grids: list[dict[str, Any]] = []
        self._series: list[dict[str, Any]] = []
        self._path("".join(f"M0 {self._y(value)}H{SIZE:.0f}" for value, _ in y.ticks), "grid")

    def _x(self, value: float) -> str:
        return _short(self.x.fraction(value) * SIZE)

    def _y(self, value: float) -> str:
        return _short((1.0 - self.y.fraction(value)) * SIZE)

    def _path(self, d: str, class_: str, **attributes: Any) -> None:
        if d:
            self._svg.append(
                el("path", d=d, class_=class_, vector_effect="non-scaling-stroke", **attributes)
            )

    def line(
        self,
        xs: Sequence[float],
        ys: Sequence[float | None],
        class_: str,
        name: str | None = None,
        labels: Sequence[str] | None = None,
        limit: int = LINE_POINTS,
        key: str | None = None,
    ) -> None:
        """A line, broken where a value is missing. With a name its points can be read out.

        `key` is the name in the legend that brings the line out.
        """
        kept = thin(xs, ys, limit)
        pieces, pen = [], "M"
        for index in kept:
            value = ys[index]
            if value is None:
                pen = "M"
                continue
            pieces.append(f"{pen}{self._x(xs[index])} {self._y(value)}")
            pen = "L"
        self._path("".join(pieces), f"line {class_}", data_series=key)
        if name is not None:
            self.readout(name, class_, xs, ys, labels, kept)

    def readout(
        self,
        name: str,
        class_: str,
        xs: Sequence[float],
        ys: Sequence[float | None],
        labels: Sequence[str] | None = None,
        kept: Sequence[int] | None = None,
        percent: bool = False,
        highs: Sequence[float | None] | None = None,
    ) -> None:
        """Values (with `highs`: ranges) that the pointer reads out, without drawing anything."""
        kept = thin(xs, ys, LINE_POINTS) if kept is None else kept
        grid: dict[str, Any] = {"x": [round(self.x.fraction(xs[i]), 4) for i in kept]}
        if labels is not None:
            grid["label"] = [labels[i] for i in kept]
        elif self.x.clock:
            grid["label"] = [moment_label(xs[i]) for i in kept]
        else:
            grid["label"] = [float(f"{xs[i]:.6g}") for i in kept]
        if grid not in self._grids:
            self._grids.append(grid)

        def written(values: Sequence[float | None]) -> list[float | None]:
            return [None if (y := values[i]) is None else float(f"{y:.5g}") for i in kept]

        place = self._grids.index(grid)
        series = {"name": name, "class": class_, "grid": place, "y": written(ys)}
        series |= {"percent": True} if percent else {}
        series |= {"high": written(highs)} if highs is not None else {}
        self._series.append(series)

    def band(
        self,
        xs: Sequence[float],
        lows: Sequence[float | None],
        highs: Sequence[float | None],
        class_: str,
        limit: int = 400,
    ) -> None:
        """The area between two lines."""
        points = [
            (xs[i], low, high)
            for i in stride(len(xs), limit)
            if (low := lows[i]) is not None and (high := highs[i]) is not None
        ]
        there = "L".join(f"{self._x(x)} {self._y(high)}" for x, _, high in points)
        back = "L".join(f"{self._x(x)} {self._y(low)}" for x, low, _ in reversed(points))
        self._path(f"M{there}L{back}Z" if points else "", f"band {class_}")

    def bars(self, edges: Sequence[float], heights: Sequence[float], class_: str) -> None:
        """Bars from zero, each between two neighbouring edges, with a hair of air between them."""
        air = 0.08
        pieces = []
        for left, right, height in zip(edges, edges[1:], heights, strict=False):
            inset = (right - left) * air
            pieces.append(
                f"M{self._x(left + inset)} {self._y(0)}V{self._y(height)}"
                f"H{self._x(right - inset)}V{self._y(0)}Z"
            )
        self._path("".join(pieces), f"bars {class_}")

    def spans(self, spans: Sequence[tuple[float, float, float, float]], class_: str) -> None:
        """Rectangles, each (left, right, low, high)."""
        pieces = [
            f"M{self._x(left)} {self._y(low)}V{self._y(high)}H{self._x(right)}V{self._y(low)}Z"
            for left, right, low, high in spans
        ]
        self._path("".join(pieces), f"bars {class_}")

    def dots(self, xs: Sequence[float], ys: Sequence[float | None], class_: str) -> None:
        """Round dots: strokes of no length with round caps stay round however far one stretches."""
        pieces = [
            f"M{self._x(x)} {self._y(y)}h0" for x, y in zip(xs, ys, strict=True) if y is not None
        ]
        self._path("".join(pieces), f"dots {class_}")

    def rule(self, class_: str, x: float | None = None, y: float | None = None) -> None:
        """A straight line across the whole chart."""
        if y is not None:
            self._path(f"M0 {self._y(y)}H{SIZE:.0f}", f"rule {class_}")
        if x is not None:
            self._path(f"M{self._x(x)} 0V{SIZE:.0f}", f"rule {class_}")

    def segment(self, x: tuple[float, float], y: tuple[float, float], class_: str) -> None:
        """A straight line from one point to another."""
        d = f"M{self._x(x[0])} {self._y(y[0])}L{self._x(x[1])} {self._y(y[1])}"
        self._path(d, f"line {class_}")

    def path(self, d: str, class_: str) -> None:
        """A path in the drawing's own coordinates."""
        self._path(d, class_)

    def note(self, x: float, y: float, text: str, class_: str = "") -> None:
        """A short text at a point."""
        left, top = self.x.fraction(x) * 100, (1 - self.y.fraction(y)) * 100
        style = f"left:{left:.2f}%;top:{top:.2f}%"
        self._html.append(el("span", text, class_=f"note {class_}".strip(), style=style))

    def mark(self, x: float, text: str, class_: str, y: float | None = None) -> None:
        """An upright line with a text at its head, or at `y`, where there is more room."""
        self.rule(class_, x=x)
        side = "after" if self.x.fraction(x) < 0.5 else "before"
        self.note(x, self.y.high if y is None else y, text, f"{side} {class_}")

    def _labels(self) -> Markup:
        spans = []
        for value, label in self.y.ticks:
            top = (1 - self.y.fraction(value)) * 100
            spans.append(el("span", label, class_="yt", style=f"top:{top:.2f}%"))
        # A phone has room for about four labels: every other (or third) one goes there.
        ticks = uncrowded(self.x)
        every = max(1, -(-len(ticks) // 4))
        for index, (value, label) in enumerate(ticks):
            left = self.x.fraction(value)
            edge = " first" if left < 0.03 else " last" if left > 0.97 else ""
            wide = " wide" if index % every else ""
            style = f"left:{left * 100:.2f}%"
            spans.append(el("span", label, class_=f"xt{edge}{wide}", style=style))
        return join(*spans)

    def render(self) -> Markup:
        """The chart: titles, drawing, labels, and its points for the read-out."""
        # In digits' widths, plus the air between label and drawing; a per cent sign is wide.
        gutter = max(
            (len(label) + 0.7 * label.count("%") for _, label in self.y.ticks), default=-1.4
        )
        drawing = el(
            "svg",
            *self._svg,
            viewBox=f"0 0 {SIZE:.0f} {SIZE:.0f}",
            preserveAspectRatio="none",
            aria_hidden="true",
            focusable="false",
        )
        points = None
        if self._series:
            points = data_block(
                {
                    "reading": self.reading,
                    "y": [self.y.low, self.y.high],
                    "shift": self.y.shift,
                    "grids": self._grids,
                    "series": self._series,
                },
                class_="points",
            )
        area = el(
            "div",
            drawing,
            el("div", *self._html, self._labels(), class_="labels", aria_hidden="true"),
            class_="area",
            role="img",
            aria_label=self.label,
            tabindex="0" if self._series else None,
        )
        return el(
            "div",
            el("div", self.y_title, class_="ytitle") if self.y_title else None,
            area,
            el("div", self.x_title, class_="xtitle") if self.x_title else None,
            points,
            class_=f"plot {self.size}".strip(),
            style=f"--gutter:{gutter + 1.4:.1f}ch",
        )


def legend(entries: Sequence[tuple[str, str, str]], toggles: bool = False) -> Markup:
    """Keys above a chart: (name, class of its mark, remark).

    With `toggles` a key can be pressed to bring out its line.
    """
    rows = [
        el(
            "li",
            el("i", class_=f"key {class_}", aria_hidden="true"),
            el("span", name, class_="name"),
            el("span", remark, class_="remark") if remark else None,
            data_key=name if toggles else None,
        )
        for name, class_, remark in entries
    ]
    return el("ul", *rows, class_="legend")


def _short(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
