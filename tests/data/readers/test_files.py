"""Paths, names and what messages say of many of them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from throughtime.data.readers import files
from throughtime.data.readers.files import (
    Finding,
    check_memory,
    gathered,
    parsing,
    quiet,
    quoted,
    stem,
    suffix,
)
from throughtime.errors import DataError


def test_names_of_compressed_files() -> None:
    for name, end in [
        ("a.csv.gz", ".csv"),
        ("a.CSV.XZ", ".csv"),
        ("a.zip", ""),
        ("a.b.csv", ".csv"),
    ]:
        assert suffix(Path(name)) == end
    assert stem(Path("in/a.csv.bz2")) == "a"
    assert stem(Path("a.zip")) == "a"


def test_many_names_are_bounded() -> None:
    assert quoted(["a", "b"]) == "'a', 'b'"
    assert quoted((f"c{k}" for k in range(300)), 2) == "'c0', 'c1' and 298 more"
    assert len(quoted(f"column number {k}" for k in range(5000))) < 400
    assert quoted(["x" * 500]) == "'" + "x" * 59 + "…'"


def test_findings_are_told_once_with_their_first_places() -> None:
    found = [Finding("odd", f"a:{k}") for k in range(9)] + [Finding("other", "b")]
    assert gathered(found) == ("odd: a:0, a:1, a:2 and 6 more", "other: b")
    assert gathered([]) == ()


def test_memory_is_checked_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "free_memory", lambda: 3_000_000_000)
    check_memory("a", 2_000_000_000)
    with pytest.raises(DataError, match=r"^a: needs 4\.0 GB of memory, 3\.0 GB are free$"):
        check_memory("a", 4_000_000_000)
    assert files.free_memory() > 0


def test_what_a_parser_raises_names_the_file() -> None:
    with (
        pytest.raises(DataError, match=r"^a\.x: not a readable X file, .* \(odd\)$"),
        parsing("a.x", "X file", ValueError),
    ):
        raise ValueError("odd\nand more"[:3])
    with pytest.raises(KeyError), parsing("a.x", "X file", ValueError):
        raise KeyError("another type is a fault of ours")


def test_libraries_that_print_are_kept_quiet(capfd: pytest.CaptureFixture[str]) -> None:
    with quiet():
        os.write(2, b"from below\n")
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"
