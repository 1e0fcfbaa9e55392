"""Data that is there without a download: `demo:prices`, `demo:nasdaq`, `demo:text`, `demo:sound`.

Prices ship inside the package `arch`, the text inside Python, and the sound is computed.
"""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from throughtime.data.readers.dispatch import read_path
from throughtime.data.readers.files import quoted
from throughtime.data.readers.options import Options
from throughtime.data.readers.sound import sound_sequences
from throughtime.data.readers.text import code_points, text_sequences
from throughtime.data.sequences import Sequences
from throughtime.errors import DataError, MissingExtra, nearest

RATE = 8000  # Hz, of the plucked strings
SECONDS = 0.5


def read_demo(name: str) -> Sequences:
    """The data set of this name (without `demo:`). Raises: DataError listing the names."""
    if name not in DEMOS:
        known = [f"demo:{known}" for known in DEMOS]
        near = nearest(f"demo:{name}", known) or ";"
        raise DataError(f"no data called 'demo:{name}'{near} there are {quoted(known)}")
    return DEMOS[name]()


def _index(folder: str, title: str) -> Callable[[], Sequences]:
    """Daily adjusted closing values of a stock index, 1999 to 2018, 5,031 trading days."""

    def read() -> Sequences:
        package = importlib.util.find_spec("arch")  # the file is enough: arch is not imported
        path = Path((package and package.origin) or "").parent / "data" / folder
        path = path / f"{folder}.csv.gz"
        if package is None or not path.is_file():
            raise MissingExtra("arch", "arch", "demo:prices")
        options = Options(time="Date", value=("Adj Close",), time_format="%m/%d/%Y")
        return replace(read_path(path, "series", options, None), names=(title,))

    return read


def _text() -> Sequences:
    """The language reference's help topics, English prose and code of about 460,000 characters."""
    from pydoc_data.topics import topics

    text = "\n\n".join(topics[name].strip("\n") for name in sorted(topics)) + "\n"
    note = f"the help topics that come with Python {platform.python_version()}"
    return text_sequences([code_points(text)], ["python-help"], "character").with_notes(note)


def _sound() -> Sequences:
    """Plucked strings, two octaves from A2, each plucked twice: 50 recordings of half a second."""
    random = np.random.RandomState(0)  # its stream of numbers is the same in every version
    notes = [(take, key) for take in range(2) for key in range(25)]
    return sound_sequences(
        [pluck(110.0 * 2 ** (key / 12), random) for _, key in notes],
        [f"string-{key:02d}-{take}" for take, key in notes],
        RATE,
        ["plucked strings, computed (Karplus and Strong 1983)"],
    )


def pluck(frequency: float, random: np.random.RandomState) -> np.ndarray:
    """One plucked string, float64 [T] in [-1, 1].

    frequency: in Hz, rounded to a whole number of samples a period. A burst of noise runs round a
    delay line and is averaged with its neighbour at every pass (K. Karplus and A. Strong,
    "Digital synthesis of plucked-string and drum timbres", Computer Music Journal 7, 1983).
    """
    period = round(RATE / frequency)
    line = random.uniform(-0.5, 0.5, period)
    passes = []
    for _ in range(int(RATE * SECONDS) // period + 1):
        passes.append(line)
        line = 0.498 * (line + np.roll(line, 1))
    return np.concatenate(passes)[: int(RATE * SECONDS)]


DEMOS: dict[str, Callable[[], Sequences]] = {
    "prices": _index("sp500", "S&P 500"),
    "nasdaq": _index("nasdaq", "NASDAQ"),
    "text": _text,
    "sound": _sound,
}
