"""Every test of a reader works in its own folder, so that messages name files as `a.csv`."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, which is the working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
