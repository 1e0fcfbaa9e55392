"""What tests of readers share: the one line of an error, and the words of text sequences."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from throughtime.data.readers.read import read
from throughtime.data.sequences import Sequences
from throughtime.errors import DataError


def message(source: Any, error: type[Exception] = DataError, **options: Any) -> str:
    """What `read` refuses a source with, which is one line."""
    with pytest.raises(error) as raised:
        read(source, **options)
    text = str(raised.value)
    assert "\n" not in text
    return text


def words(got: Sequences) -> list[str]:
    """The sequences of a text."""
    return ["".join(map(chr, got.sequence(row).tolist())) for row in range(len(got))]


def put(name: str, data: bytes | str) -> str:
    """Writes a file, and the folders that it lies in; returns its name."""
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_bytes(data.encode() if isinstance(data, str) else data)
    return name
