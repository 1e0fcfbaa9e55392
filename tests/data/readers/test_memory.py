"""Memory in proportion: what reading takes beyond the libraries, against the size of the file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

# A process of its own: the peak of this one is that of every test before.
MEASURE = """
import resource, sys
import polars, throughtime as tt, throughtime.data.readers.read
tt.read(sys.argv[2])  # small, of the same kind: loads what is loaded late
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tt.read(sys.argv[1])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def dated(rows: int) -> str:
    stamps = np.datetime_as_string(np.datetime64("2001-01-01T00:00") + np.arange(rows))
    return "date,value\n" + "".join(f"{s},{k % 977}.5\n" for k, s in enumerate(stamps))


def panel(rows: int) -> str:
    return "unique_id,ds,y\n" + "".join(
        f"series {k // 1000},{k % 1000},{k % 977}.25\n" for k in range(rows)
    )


def prose(rows: int) -> str:
    return "".join(f"line {k} of a long text\n" for k in range(rows))


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the unit of ru_maxrss is that of Linux")
@pytest.mark.parametrize(
    ("make", "name", "times"), [(dated, "a.csv", 8), (panel, "b.csv", 9), (prose, "c.txt", 6)]
)
def test_reading_takes_a_few_times_the_file(
    make: Callable[[int], str], name: str, times: int, tmp_path: Path
) -> None:
    large, small = tmp_path / name, tmp_path / f"small-{name}"
    large.write_text(make(2_000_000), encoding="utf-8")
    small.write_text(make(2_000), encoding="utf-8")
    process = subprocess.run(
        [sys.executable, "-c", MEASURE, str(large), str(small)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(process.stdout) * 1024 < times * large.stat().st_size
