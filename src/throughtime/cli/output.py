"""Files that commands write for other programs: tables and sound."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from torch import Tensor

from throughtime import files
from throughtime.data.readers.sound import wav_bytes
from throughtime.errors import SettingError
from throughtime.predict.fitted import FittedModel
from throughtime.types import Progress


def write_frame(frame: pl.DataFrame, path: Path) -> None:
    """Writes a table as .csv or .parquet. Raises SettingError for another extension."""
    check_table(path)
    content = io.BytesIO()
    if path.suffix == ".csv":
        frame.with_columns(_days(frame)).write_csv(content)
    else:
        frame.write_parquet(content)
    files.write_bytes(path, content.getvalue())


def _days(frame: pl.DataFrame) -> list[pl.Expr]:
    """Stamps without a clock time as dates, which is how tables of days are written."""
    stamps = [name for name, kind in frame.schema.items() if isinstance(kind, pl.Datetime)]
    whole = [name for name in stamps if (frame[name] == frame[name].dt.truncate("1d")).all()]
    return [pl.col(name).cast(pl.Date) for name in whole]


def check_table(*paths: Path | None) -> None:
    """Raises SettingError for a path that no table is written to, before work is done for it."""
    for path in paths:
        if path is not None and path.suffix not in (".csv", ".parquet"):
            raise SettingError(f"{path}: tables are written as .csv or .parquet")


@dataclass(frozen=True)
class Draw:
    """What is to be drawn, and where to."""

    steps: int
    paths: int
    seed: int
    temperature: float
    top_p: float
    file: Path

    def of(self, fitted: FittedModel, on_progress: Progress) -> Tensor:
        """The raw values."""
        drawn = fitted.sample(
            self.steps, num_paths=self.paths, seed=self.seed, temperature=self.temperature,
            top_p=self.top_p, on_progress=on_progress,
        )  # fmt: skip
        assert isinstance(drawn, Tensor)  # texts are streamed
        return drawn


def sample_sound(fitted: FittedModel, draw: Draw, on_progress: Progress) -> dict[str, Any]:
    """Draws sound into a .wav file, or one for each path; says what was written."""
    if draw.file.suffix.lower() != ".wav":
        raise SettingError(f"{draw.file}: sound is written as .wav")
    rate = int(fitted.domain.sample_rate or 0)
    waves = draw.of(fitted, on_progress)
    targets = [draw.file]
    if draw.paths > 1:
        targets = [draw.file.with_stem(f"{draw.file.stem}-{i + 1}") for i in range(draw.paths)]
    for file, wave in zip(targets, waves, strict=True):
        files.write_bytes(file, wav_bytes(wave, rate))
    return {
        "kind": "sound",
        "files": [str(file) for file in targets],
        "paths": draw.paths,
        "steps": draw.steps,
        "seconds": draw.steps / rate,
        "rate": rate,
    }


def sample_table(fitted: FittedModel, draw: Draw, on_progress: Progress) -> dict[str, Any]:
    """Draws series into a table, a row for each path and step; says what was written."""
    check_table(draw.file)
    drawn = draw.of(fitted, on_progress)
    values = drawn if drawn.dim() == 3 else drawn.unsqueeze(-1)
    names = fitted.domain.columns or tuple(f"value_{i}" for i in range(values.shape[-1]))
    table: dict[str, Any] = {
        "path": np.repeat(np.arange(1, draw.paths + 1), draw.steps),
        "step": np.tile(np.arange(draw.steps), draw.paths),
    }
    table |= {name: values[..., i].flatten().numpy() for i, name in enumerate(names)}
    write_frame(pl.DataFrame(table), draw.file)
    return {
        "kind": "paths", "files": [str(draw.file)], "paths": draw.paths, "steps": draw.steps
    }  # fmt: skip
