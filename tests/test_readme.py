"""The README's Python and its commands are what the package does."""

import contextlib
import io
import re
import shlex

import pytest
from support.paths import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(path, language):
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), re.S)


def programs(path):
    """Each Python block, and what stands right after it as printed by it."""
    text = path.read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```(?:\n```text\n(.*?)```)?", text, re.S)


def test_the_python_in_each_document_runs_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    ran = with_output = 0
    for document in DOCUMENTS:
        names = {}
        for block, printed in programs(document):
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                exec(compile(block, str(document), "exec"), names)
            ran += 1
            if printed:
                assert said.getvalue() == printed, document.name
                with_output += 1
    assert ran >= 2
    assert with_output >= 3


def commands():
    result = []
    for document in DOCUMENTS:
        for block in blocks(document, "(?:sh)?"):
            lines = [line.split("#")[0].strip() for line in str(block).splitlines()]
            for line in lines:
                result += [part.strip() for part in line.split("&&") if part.strip()]
    return [c for c in result if c.startswith("throughtime ")]


@pytest.mark.parametrize("command", commands())
def test_every_command_shown_parses(command):
    from throughtime.cli import app

    tokens = shlex.split(command)[1:]
    app.parse_args(tokens, exit_on_error=False, print_error=False)


def test_commands_were_found():
    assert len(commands()) >= 6


def test_make_targets_that_the_readme_names_exist():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in ("demo", "test", "test-all", "docs", "check"):
        assert re.search(rf"^{target}:", makefile, re.M)
