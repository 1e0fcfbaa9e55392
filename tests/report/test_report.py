"""The report: what it says, what it hides from nobody, and how a browser draws it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from support import report_runs as runs

from throughtime import files, manifest
from throughtime.errors import RunError
from throughtime.evaluation.results import Difference, Past, PathsSample, Scores, Surprisal
from throughtime.manifest import Manifest
from throughtime.report import axis, charts, comparison, render, write
from throughtime.report import html as markup
from throughtime.report.html import el, escape, fixed, join, significant
from throughtime.report.read import ReportData, read

BUILDERS: dict[str, Callable[[Path], Path]] = {
    "prices": runs.prices,
    "book": runs.book,
    "sound": runs.sound,
}
VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """A page as its elements: tags in order, attributes, text; complains about bad nesting."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1:] == [tag], f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def ids(self) -> set[str]:
        return {attributes["id"] for _, attributes in self.tags if attributes.get("id")}  # type: ignore[misc]

    def all(self, tag: str, class_: str = "") -> list[dict[str, str | None]]:
        result = [attributes for name, attributes in self.tags if name == tag]
        return [a for a in result if not class_ or class_ in (a.get("class") or "").split()]

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("runs")
    return {name: write(build(folder / name)) for name, build in BUILDERS.items()}


SECTIONS = {
    "prices": "models forecast accuracy calibration surprise samples order history gradients "
    "training data settings",
    "book": "models surprise samples training data settings",
    "sound": "models calibration surprise samples training data settings",
}


@pytest.mark.parametrize("name", BUILDERS)
def test_sections_appear_exactly_where_their_data_exist(pages: dict[str, Path], name: str) -> None:
    page = Page(pages[name].read_text(encoding="utf-8"))
    everything = set(SECTIONS["prices"].split())
    assert page.ids() & everything == set(SECTIONS[name].split())
    links = [link["href"] for link in page.all("a") if link.get("class") != "skip"]
    assert links == [f"#{section}" for section in SECTIONS[name].split()]


def test_the_verdict_is_the_headline(pages: dict[str, Path]) -> None:
    text = pages["prices"].read_text(encoding="utf-8")
    assert text.count("<h1>") == 1
    assert "<h1>The past matters, mostly for how far the price moves" in text


def test_the_table_has_every_model_best_first(pages: dict[str, Path]) -> None:
    text = pages["prices"].read_text(encoding="utf-8")
    table = text[text.index('<table class="models">') : text.index("</table>")]
    names = re.findall(r'class="name">([^<]+)<', table)
    assert names[:3] == ["gru", "lstm", "garch(1,1)-t"]
    assert len(names) == 9
    assert table.count('class="badge chosen"') == 1
    row = table[table.index(">gru<") : table.index(">lstm<")]
    assert "3.305" in row
    assert "−0.025" in row
    assert "−0.037 to −0.011" in row
    assert "43 s" in row
    assert "3,411" in row
    assert "Perplexity" not in table
    assert "Bits" not in table  # of prices nobody asks for bits


def test_a_text_has_bits_once_and_perplexity(pages: dict[str, Path]) -> None:
    text = pages["book"].read_text(encoding="utf-8")
    table = text[text.index('<table class="models">') : text.index("</table>")]
    assert table.count("Bits") == 1  # a step is a character: one column says both
    assert "Perplexity" in table
    assert f"{math.exp(1.418):.3f}" in table


@pytest.mark.parametrize("name", BUILDERS)
def test_nothing_from_outside_can_be_asked_for(pages: dict[str, Path], name: str) -> None:
    text = pages[name].read_text(encoding="utf-8")
    page = Page(text)
    assert not re.search(r"https?:|@import|url\(", text)
    for _, attributes in page.tags:
        for key in ("src", "href", "action", "srcset", "poster"):
            value = attributes.get(key)
            assert value is None or value.startswith(("#", "data:"))
        assert not any(key.startswith("on") for key in attributes)
    policy = next(m for m in page.all("meta") if m.get("http-equiv"))["content"] or ""
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy


def test_hostile_names_and_texts_stay_text(pages: dict[str, Path]) -> None:
    text = pages["book"].read_text(encoding="utf-8")
    page = Page(text)
    scripts = [a for a in page.all("script") if a.get("type") != "application/json"]
    assert len(scripts) == 1
    assert not page.all("img")
    assert runs.HOSTILE_NAME in page.words
    assert 'Said "</script><img src=x onerror=window.hacked=1>" & left.\u2400\ufffd' in page.words
    assert "window.hacked=1</script>" not in text
    assert "東京, сердце 🎻" in page.words


@pytest.mark.parametrize("name", BUILDERS)
def test_what_the_charts_carry_is_json(pages: dict[str, Path], name: str) -> None:
    text = pages[name].read_text(encoding="utf-8")
    blocks = re.findall(r'<script type="application/json" class="points">(.*?)</script>', text)
    assert len(blocks) >= 2
    for block in blocks:
        points = json.loads(block)
        for series in points["series"]:
            assert len(series["y"]) == len(points["grids"][series["grid"]]["x"])
        assert not set("<>&") & set(block)


def test_charts_and_tables_speak(pages: dict[str, Path]) -> None:
    page = Page(pages["prices"].read_text(encoding="utf-8"))
    areas = page.all("div", "area")
    # 4 forecasts, 4 accuracy, 2 calibration, 1 surprise, 1 paths, 2 orders, 1 memory, 4 gradient,
    # 1 training
    assert len(areas) == 20
    assert all(area["role"] == "img" and len(area["aria-label"] or "") > 20 for area in areas)
    assert all(header.get("scope") in ("col", "row") for header in page.all("th"))
    assert len(page.all("table")) == len(page.all("caption"))


def changed(scores: Scores, **parts: Any) -> Scores:
    """The scores with other parts, checked as they are when read."""
    return Scores.model_validate({**dict(scores), **parts})


def test_millions_of_points_do_not_make_a_large_page(tmp_path: Path) -> None:
    run = read(runs.prices(tmp_path))
    long = tuple(math.sin(i / 900) for i in range(100_000))
    assert run.scores.backtest is not None
    fan = run.scores.backtest.fans[0]
    deep = fan.model_copy(update={"past": Past(values=long)})
    scores = changed(
        run.scores,
        surprisal=Surprisal(position=tuple(range(100_000)), nats=long),
        samples=(PathsSample(values=(long[:5_000],) * 200),),
        backtest=run.scores.backtest.model_copy(update={"fans": (*[deep] * 3, *[fan] * 497)}),
    )
    page = render(replace(run, scores=scores))
    assert len(page.encode()) < 700_000
    assert "Shown are 6 of 500 forecasts" in page


def least(**parts: Any) -> Scores:
    """The least there is of scores, with some parts."""
    steps = {"train": 0, "validation": 0, "test": 0}
    data = {"source": "data", "kind": "real", "sequences": 0, "step": "day", "steps": steps}
    whole = {"step": "day", "unit": "nats per day", "best": "a", "models": (), "data": data}
    return Scores.model_validate(whole | parts)


def vouched(folder: Path, scores: bytes) -> None:
    """A run folder of nothing but scores."""
    manifest.write(folder, {"scores.json": scores}, {}, {})


def test_the_least_of_a_run_is_still_a_report() -> None:
    page = Page(render(ReportData("run", least())))
    assert "No model could be scored on this data." in page.words
    assert [section["id"] for section in page.all("section")] == ["data"]


def test_a_run_in_memory_has_the_page_of_its_folder(tmp_path: Path) -> None:
    folder = runs.prices(tmp_path)
    result = read(folder)
    again = ReportData(result.name, result.scores, result.log, result.settings, result.model)
    assert render(again) == write(folder).read_text(encoding="utf-8")


MODEL = {"name": "a", "family": "latent", "parameters": 1, "seconds": 0.0}
MODEL |= {"nats_per_step": 1.0, "validation_nats_per_step": None}
ACCURACY = {"horizon": 1, "origins": 1, "series": 1, "paths": 2, "levels": [0.8]}
ACCURACY |= {"free_running": [{"horizon": 1}], "one_step": {}}
FAN = {"series": "", "column": "", "past": {"values": []}}
GRADIENT = {
    "model": "a",
    "step": "day",
    "rows": 1,
    "steps": 9,
    "reach": {},
    "verdict": {"name": "healthy", "sentence": "", "remedy": ""},
}
POINT = {"lags": 0, "lost": 0.0, "gain": 0.0}
ODD: list[dict[str, Any]] = [
    {"models": [MODEL | {"nats_per_step": math.nan, "difference": {"value": math.inf}}]},
    {"models": [MODEL | {"nats_per_step": None, "difference": {"value": 0.0}, "selected": True}]},
    {"models": [MODEL | {"difference": {"value": 1, "interval": None}, "seconds": 1e30}]},
    {"models": [MODEL | {"nats_per_step": 1e300}, MODEL | {"name": "b", "selected": True}]},
    {"surprisal": {"position": [0, 1], "times": ["2020-01-01"] * 2, "nats": [1.0, 1.0]}},
    {"surprisal": {"position": range(4), "nats": [None, 2.0, math.nan, 3]}},
    {"surprisal": {"position": range(4), "nats": [0, 0, 0, 0], "times": ["x", "y", 0, 1],
                   "top": [{"where": "", "nats": None}]}},
    {"backtest": ACCURACY | {"fans": [FAN | {"quantiles": {0.5: [1.0]}}]}},
    {"backtest": ACCURACY | {"fans": [FAN | {"quantiles": {0.1: [1, 2], 0.9: [math.nan, 1]}}]}},
    {"calibration": {"pit": [0, 0, 0], "count": 0}, "orders": [{"order": 1, "nats_per_step": None,
     "aic": 1}, {"order": 2, "nats_per_step": None, "aic": 1}]},
    {"samples": [{"kind": "paths", "values": [[1.0], [], [None, None]]},
                 {"kind": "roll", "values": []}, {"kind": "text", "text": ""},
                 {"kind": "sound", "wav_base64": "", "seconds": 0, "rate": 1}]},
    {"gradients": GRADIENT | {"max_lag": 1, "norms": [0.0, 0.0], "share": [None] * 2}},
    {"gradients": GRADIENT | {"max_lag": 2, "norms": [1.0, None, 0.0], "share": [], "k2": 1}},
    {"gradients": GRADIENT | {"max_lag": 1, "norms": [1e-300, 1e300], "share": [0.1, 0.2],
                              "k2": 10**12, "beyond": 0.2}},
    {"gradients": GRADIENT | {"max_lag": 1, "norms": [1, 2], "share": [None] * 2,
                              "reach": {"0.95": None}, "k2": 1}},
    {"gradients": GRADIENT | {"max_lag": 3, "norms": [1.0] * 4, "share": [0.25] * 4, "state_norm":
                              {k: [None, 0, 1e-9, 2] for k in ("low", "median", "high")}}},
    {"certificate": {"verdict": "a", "lags": {"needed": 3, "model": "b", "curve": [POINT]}}},
    {"certificate": {"verdict": "", "lags": {"needed": 0, "model": "",
                     "curve": [POINT, POINT | {"lags": 1, "interval": [0.0, 0.0]}]}}},
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_odd_values_are_left_out_not_raised(tmp_path: Path, odd: dict[str, Any]) -> None:
    vouched(tmp_path, files.json_bytes(least(**odd).to_json()))
    text = write(tmp_path).read_text(encoding="utf-8")
    Page(text)
    assert not re.search(r'd="[^"]*(nan|inf|None)', text)
    assert not re.search(r">\s*(nan|inf|None)\s*<", text)


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"models": 3}, "models: "),
    ({"models": [{**MODEL, "family": "oracle"}]}, "models.0.family: "),
    ({"models": [{**MODEL, "name": None}]}, "models.0.name: "),
    ({"surprisal": {"position": [0], "nats": [1.0, 2.0]}}, "surprisal: .*not equally long"),
    ({"backtest": {**ACCURACY, "fans": [{**FAN, "quantiles": {"0.1": [1], "0.9": [1, 2]}}]}},
     "fans.0: .*not equally long"),
    ({"gradients": {**GRADIENT, "max_lag": 1, "norms": [1], "share": []}}, "not equally long"),
    ({"what": 1}, "what: "),
]  # fmt: skip


@pytest.mark.parametrize(("parts", "message"), IMPOSSIBLE)
def test_impossible_values_are_damage(tmp_path: Path, parts: dict[str, Any], message: str) -> None:
    vouched(tmp_path, files.json_bytes(least().to_json() | parts))
    with pytest.raises(RunError, match=rf"scores.json is damaged \(.*{message}") as caught:
        write(tmp_path)
    assert "\n" not in str(caught.value)


def break_file(name: str, content: bytes) -> Callable[[Path], None]:
    """Content with the right digest, which is nonsense all the same."""
    return lambda folder: Manifest.read(folder).replace({name: content})


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no scores": (lambda folder: (folder / "scores.json").unlink(), "has no scores.json"),
    "torn scores": (break_file("scores.json", b'{"schema": 1, "mod'), "scores.json is damaged"),
    "not utf-8": (break_file("scores.json", b'{"a": "\xff"}'), "scores.json is damaged"),
    "scores a list": (break_file("scores.json", b"[]"), "scores.json is damaged"),
    "no schema": (break_file("scores.json", b'{"models": []}'), r"is damaged \(no schema\)"),
    "older": (break_file("scores.json", b'{"schema": 1}'), "by an older throughtime \\(schema 1"),
    "newer": (break_file("scores.json", b'{"schema": 3, "models": []}'), "upgrade with: pip"),
    "torn config": (break_file("config.toml", b"seed = "), "config.toml is damaged"),
    "torn model": (lambda folder: (folder / "model.json").write_bytes(b"{"), "model.json is dam"),
    "bad log": (break_file("log.jsonl", b'{}\n{"a\n{}\n'), r"log.jsonl is damaged"),
    "another log": (lambda folder: (folder / "log.jsonl").write_bytes(b"{}\n"), "SHA-256 differs"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_named_and_writes_nothing(tmp_path: Path, case: str) -> None:
    folder = runs.book(tmp_path / "run")
    damage, message = DAMAGE[case]
    damage(folder)
    with pytest.raises(RunError, match=message) as caught:
        write(folder)
    assert "\n" not in str(caught.value)
    assert not (folder / "report.html").exists()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such folder"):
        write(tmp_path / "nowhere")


def test_a_failed_write_leaves_the_old_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = runs.sound(tmp_path / "run")
    write(folder)
    before = sorted(path.name for path in folder.iterdir())
    old = (folder / "report.html").read_bytes()
    vouched(folder, files.json_bytes(least().to_json()))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("throughtime.files.os.fsync", full)
    with pytest.raises(RunError, match="cannot be written: No space left"):
        write(folder)
    assert (folder / "report.html").read_bytes() == old
    assert sorted(path.name for path in folder.iterdir()) == before


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    folder = runs.prices(tmp_path / "run")
    assert write(folder).read_bytes() == write(folder).read_bytes()


def test_escaping_is_by_construction() -> None:
    assert escape("<a> & \"b\" 'c'") == "&lt;a&gt; &amp; &#34;b&#34; &#39;c&#39;"
    assert escape(escape("<")) == "&lt;"
    assert escape("a\r\nb\rc\x00\x1b\ud800") == "a\nb\u240dc\u2400\u241b\ufffd"
    assert el("p", "<", el("b", ">"), class_='"x"') == '<p class="&#34;x&#34;">&lt;<b>&gt;</b></p>'
    assert join("<", None, by=" & ") == "&lt;"
    block = markup.data_block({"a": "</script><!--&\u2028"})
    assert block == (
        '<script type="application/json">'
        '{"a":"\\u003c/script\\u003e\\u003c!--\\u0026\\u2028"}</script>'
    )


NUMBERS = [
    (fixed(-0.0004, 3), "0.000"),
    (fixed(-1234.5, 1), "−1,234.5"),
    (fixed(0.25, 2, True), "+0.25"),
    (fixed(math.nan, 2), "–"),
    (markup.count(markup.number(True)), "–"),
    (markup.count(markup.number(10**400)), "–"),
    (significant(0.000123456), "0.0001235"),
    (significant(123456.7), "123,457"),
    (significant(1.5e-9, 2), "1.5e−09"),
    (markup.megabytes(1536.0), "1.5 GB"),
]


@pytest.mark.parametrize(("formatted", "expected"), NUMBERS)
def test_numbers_read_well(formatted: str, expected: str) -> None:
    assert formatted == expected


LABELS = ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]


def test_ticks_are_round() -> None:
    assert [label for _, label in axis.linear(0, 1, 5).ticks] == LABELS
    assert [label for _, label in axis.linear(9000, 31000, 3).ticks] == ["10k", "20k", "30k"]
    start, end = axis.seconds_of("2009-01-02"), axis.seconds_of("2018-12-20T12:00:00Z")
    assert start is not None
    assert end is not None
    assert [label for _, label in axis.clock(start, end, 5).ticks] == [
        "2010",
        "2012",
        "2014",
        "2016",
        "2018",
    ]
    hours = [label for _, label in axis.clock(start, start + 86400, 4).ticks]
    assert hours == ["2 Jan", "06:00", "12:00", "18:00", "3 Jan"]
    assert axis.places(["2020-01-02", "2020-01-01"], 2) is None


def test_thinning_keeps_the_extremes() -> None:
    ys: list[float | None] = [0.0] * 10_000
    ys[1234], ys[8765] = 9.0, -9.0
    kept = axis.thin(list(range(10_000)), ys, 200)
    assert len(kept) <= 202
    assert {0, 1234, 8765, 9999} <= set(kept)


def test_one_hopeless_model_does_not_squeeze_the_others() -> None:
    values = (-0.02, 0.01, 0.02, 4.0)
    differences = [Difference(value=v, interval=(v - 0.01, v + 0.01)) for v in values]
    end = comparison.scale(differences, differences[0])
    assert end == pytest.approx(0.03)
    assert 'class="beyond right"' in comparison.bar(differences[-1], end)
    assert differences[0].side == "better"
    assert Difference(value=0.0, interval=(-1.0, 1.0)).side == "open"


def test_the_pit_gives_the_coverage_of_every_central_interval() -> None:
    pairs = charts.quantile_bands([0.025, 0.1, 0.5, 0.9, 0.975])
    assert [round(level, 3) for level, _, _ in pairs] == [0.95, 0.8]
    drawn = charts.coverage_curve([0.1, 0.4, 0.4, 0.1], [])
    block = json.loads(re.search(r'class="points">(.*?)</script>', drawn)[1])  # type: ignore[index]
    assert block["series"][0]["y"] == [0.0, 0.8, 1.0]


def gradient_section(**changes: Any) -> str:
    """The words of the section on the gradient of a network."""
    result = runs.gradients(0.95, 80, 200).model_copy(update=changes)
    text = render(ReportData("run", least(gradients=result)))
    begin, end = '<section id="gradients">', "</section>"
    return Page(text[text.index(begin) : text.index(end, text.index(begin)) + len(end)]).words


def test_the_gradient_section_says_what_it_draws() -> None:
    words, result = gradient_section(), runs.gradients(0.95, 80, 200)
    assert result.beyond is not None
    reach, beyond = result.reach[0.95], 100 * result.beyond
    assert f"95 % of it goes back no further than {reach} days." in words
    assert f"Training cuts it off after 80 days, and {beyond:.1f} % of it lies beyond." in words
    assert "decays gently. Nothing needs to change." in words
    assert words.count("truncated at 80") == 2  # both charts mark it
    assert f"95%: {reach}" in words
    table = words[words.index("Every truncation") :]
    row = re.search(r"%[\d.]{6}80([\d.]+) %([\d.]+) %([\d.]{6})", table)
    assert row is not None
    assert float(row[1]) == pytest.approx(beyond, abs=0.006)
    assert float(row[3]) == pytest.approx(result.cosine[79], abs=1e-4)


def test_a_reach_beyond_all_lags_and_no_truncation_are_said() -> None:
    reach = {0.5: 90, 0.9: None, 0.95: None, 0.99: None}
    words = gradient_section(reach=reach, share=tuple(k / 400 for k in range(201)), k2=None)
    assert "50.0 % of it lies within 200 days. Training truncates it nowhere." in words
    assert "truncated at" not in words
    words = gradient_section(beyond=0.0004)
    assert "less than 0.1 % of it lies beyond" in words


def test_memory_reach_and_truncation_are_on_one_axis(pages: dict[str, Path]) -> None:
    page = Page(pages["prices"].read_text(encoding="utf-8"))
    labels = [area["aria-label"] or "" for area in page.all("div", "area")]
    reach = runs.gradients(0.95, 80, 200).reach[0.95]
    rows = f"data: 26; gradient: {reach}; training: 80"
    assert labels.count(f"{rows}, in days back.") == 1
    logged = [significant(event["reach"], 3) for event in runs.reaches("gru", 42.9, (6.0, 57.0))]
    sentence = f"that of gru went from {logged[0]} to {logged[-1]} days."
    assert any(label.endswith(sentence) for label in labels)
    assert any("only so many days of the past; 26 are enough." in label for label in labels)


def test_a_run_that_was_not_examined_still_shows_the_reach_in_training() -> None:
    silent = {"event": "valid", "model": "a", "reach": None}
    events = [*runs.reaches("gru", 5.0, (2.0, 30.0)), silent]
    page = Page(render(ReportData("run", least(), tuple(events))))
    assert "gradients" in page.ids()
    assert len(page.all("div", "area")) == 1
    assert "gru30" in page.words


def test_logarithmic_axes_are_logarithmic() -> None:
    back = axis.lags(200)
    assert [label for _, label in back.ticks] == [
        "0",
        "1",
        "2",
        "5",
        "10",
        "20",
        "50",
        "100",
        "200",
    ]
    assert back.fraction(0) == 0
    assert back.fraction(200) == pytest.approx(1)
    assert back.fraction(9) - back.fraction(0) == pytest.approx(
        back.fraction(99) - back.fraction(9)
    )
    tens = axis.decades(3e-6, 1.5)
    assert [label for _, label in tens.ticks] == ["10⁻⁵", "10⁻⁴", "0.001", "0.01", "0.1", "1"]
    assert tens.fraction(1e-2) - tens.fraction(1e-3) == pytest.approx(
        tens.fraction(1.0) - tens.fraction(0.1)
    )
    assert len(axis.decades(1e-40, 1.0).ticks) <= 7
