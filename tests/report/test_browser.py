"""The report in a real browser: quiet, offline, drawn whole, at every width, by day and by night.

Needs playwright and a Chromium; without either the whole file says so and is skipped.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support import report_runs as runs

from throughtime.report import write

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BUILDERS = {"prices": runs.prices, "book": runs.book, "sound": runs.sound}
CHARTS = {"prices": 20, "book": 2, "sound": 6}
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SIZES = {"phone": (390, 844), "desktop": (1280, 900)}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    path = next((result for name in names if (result := shutil.which(name))), None)
    if path is None:
        pytest.skip("no Chromium on the PATH (Debian: apt-get install chromium)")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: write(build(folder / name)) for name, build in BUILDERS.items()}


class Visit:
    """A page that is open, with everything it complained about or asked for."""

    def __init__(self, page: Page, path: Path) -> None:
        self.page, self.noise, self.requests = page, [], []
        self.noise: list[str]
        self.requests: list[str]
        page.on("console", lambda message: self.noise.append(message.text))
        page.on("pageerror", lambda error: self.noise.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(path.as_uri())

    @property
    def foreign(self) -> list[str]:
        """The requests that left the page; its own file and what it carries inside do not."""
        return [url for url in self.requests[1:] if not url.startswith("data:")]


def visit(browser: Browser, path: Path, size: str = "desktop", **options: object) -> Visit:
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, **options)  # type: ignore[arg-type]
    return Visit(context.new_page(), path)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", BUILDERS)
def test_quiet_offline_and_drawn_whole(
    browser: Browser, pages: dict[str, Path], name: str, size: str, scheme: str
) -> None:
    seen = visit(browser, pages[name], size, color_scheme=scheme)
    page = seen.page
    areas = page.locator(".plot .area")
    assert areas.count() == CHARTS[name]
    for index in range(areas.count()):
        box = areas.nth(index).bounding_box()
        assert box is not None
        assert box["width"] > 200
        assert box["height"] > 60
    drawn = page.evaluate(
        """() => [...document.querySelectorAll('.plot svg')].map(svg =>
            Math.max(...[...svg.querySelectorAll('path:not(.grid)')].map(path => {
                const box = path.getBBox(); return Math.max(box.width, box.height) })))"""
    )
    assert len(drawn) == CHARTS[name]
    assert min(drawn) > 100
    overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.evaluate(overflow) == 0
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.evaluate(overflow) == 0
    assert page.evaluate("window.hacked") is None
    assert seen.noise == []
    assert seen.foreign == []
    page.context.close()


def luminance(page: Page, selector: str, field: str) -> float:
    """The relative luminance of a colour, by WCAG."""
    rgb = page.evaluate(
        "([s, f]) => getComputedStyle(document.querySelector(s))[f].match(/[\\d.]+/g).map(Number)",
        [selector, field],
    )
    linear = [
        c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4
        for c in (value / 255 for value in rgb[:3])
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_contrast(browser: Browser, pages: dict[str, Path], scheme: str) -> None:
    page = visit(browser, pages["prices"], color_scheme=scheme).page
    paper = luminance(page, "body", "backgroundColor")
    for selector in ("h1", ".lead", ".models small", ".value.better", ".badge.chosen", ".xt"):
        ink = luminance(page, selector, "color")
        contrast = (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05)
        assert contrast >= 4.5, selector
    page.context.close()


def test_dark_by_preference_and_by_the_switch(browser: Browser, pages: dict[str, Path]) -> None:
    light = visit(browser, pages["book"], color_scheme="light").page
    dark = visit(browser, pages["book"], color_scheme="dark").page
    day, night = (luminance(page, "body", "backgroundColor") for page in (light, dark))
    assert day > 0.8
    assert night < 0.05
    switch = light.locator("#theme")
    assert switch.text_content() == "Dark"
    switch.click()
    assert luminance(light, "body", "backgroundColor") == night
    assert switch.text_content() == "Light"
    light.reload()
    assert luminance(light, "body", "backgroundColor") == night  # it stays
    for page in (light, dark):
        page.context.close()


def test_sound_can_be_played(browser: Browser, pages: dict[str, Path]) -> None:
    page = visit(browser, pages["sound"]).page
    assert page.locator("audio").count() == 1  # the damaged one is said to be damaged
    seconds = page.evaluate(
        """() => new Promise((resolve, reject) => {
            const sound = document.querySelector('audio');
            const done = () => resolve(sound.duration);
            if (sound.readyState >= 1) done();
            sound.addEventListener('loadedmetadata', done);
            sound.addEventListener('error', () => reject(sound.error.message));
        })"""
    )
    assert seconds == pytest.approx(1.5, abs=0.01)
    assert "damaged" in page.locator("#samples").inner_text()
    page.context.close()


def test_the_pointer_and_the_keys_read_a_chart_out(
    browser: Browser, pages: dict[str, Path]
) -> None:
    seen = visit(browser, pages["prices"])
    page, box = seen.page, seen.page.locator("#readout")
    assert not box.is_visible()
    fan = page.locator("#forecast .area").first
    fan.scroll_into_view_if_needed()
    width = fan.bounding_box()["width"]  # type: ignore[index]
    fan.hover(position={"x": width - 4, "y": 60})
    assert "what happened" in box.inner_text()
    assert "95% interval" in box.inner_text()
    curve = page.locator("#training .area")
    curve.focus()
    page.keyboard.press("Home")
    first = box.inner_text()
    page.keyboard.press("ArrowRight")
    assert box.is_visible()
    assert box.inner_text() != first
    page.keyboard.press("Escape")
    assert not box.is_visible()
    assert seen.noise == []
    page.context.close()


def test_a_logarithmic_chart_marks_the_line_that_is_read_out(
    browser: Browser, pages: dict[str, Path]
) -> None:
    page = visit(browser, pages["prices"]).page
    area = page.locator("#gradients .area").nth(1)
    area.focus()
    page.keyboard.press("Home")
    for _ in range(60):
        page.keyboard.press("ArrowRight")
    said = page.locator("#readout").inner_text()
    assert "60 days back" in said
    assert "gradient of the weights" in said
    # The dot lies on the line: as far down as the line is there.
    apart = area.evaluate(
        """area => {
            const mark = area.querySelector('.mark.strong:not([hidden])');
            const line = area.querySelector('path.line.strong');
            const x = parseFloat(mark.style.left) * 10, y = parseFloat(mark.style.top) * 10;
            let best = Infinity;
            for (let i = 0; i <= 4000; i++) {
                const point = line.getPointAtLength(line.getTotalLength() * i / 4000);
                best = Math.min(best, Math.hypot(point.x - x, point.y - y));
            }
            return best;
        }"""
    )
    assert apart < 3  # of a drawing 1000 wide
    page.context.close()


def test_a_key_brings_out_its_line(browser: Browser, pages: dict[str, Path]) -> None:
    page = visit(browser, pages["prices"]).page
    page.locator("#training .legend button").first.click()
    faint = page.locator("#training path.faint")
    assert faint.count() == 6  # training and validation of the three others
    assert "gru" not in faint.evaluate_all("lines => lines.map(line => line.dataset.series)")
    page.context.close()


def test_all_of_it_is_there_without_a_script(browser: Browser, pages: dict[str, Path]) -> None:
    page = visit(browser, pages["prices"], java_script_enabled=False).page
    assert page.locator("h1").is_visible()
    assert page.locator(".models tbody tr").count() == 9
    assert page.locator(".plot .area").count() == CHARTS["prices"]
    assert not page.locator("#theme").is_visible()
    page.locator("#settings summary").click()
    assert page.get_by_text("learning_rate").is_visible()
    page.context.close()
