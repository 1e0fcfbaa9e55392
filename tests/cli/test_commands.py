"""What all commands share: where they read from, and what terminals they print on."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from throughtime.cli import main

CSV = "date,y\n" + "".join(f"2001-01-{day:02d},{day * 1.5}\n" for day in range(1, 29))


def test_a_hyphen_is_the_standard_input(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(CSV.encode())))
    main(["read", "-", "--value", "y"])
    assert "28 scored days" in capsys.readouterr().out
    with pytest.raises(SystemExit) as end:
        main(["read", "--valu", "y", "-"])
    assert end.value.code == 2
    assert "--valu" in capsys.readouterr().err


def test_a_terminal_without_signs_gets_replacements(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("größe.csv").write_text(CSV.replace("y", "größe"))
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    main(["read", "größe.csv"])
    with pytest.raises(SystemExit):
        main(["read", "grüße.csv"])
    for stream in streams:
        stream.flush()
    out, err = (stream.buffer.getvalue().decode("ascii") for stream in streams)  # type: ignore[attr-defined]
    assert "gr??e" in out
    assert err.startswith("error: gr??e.csv: no such file")
