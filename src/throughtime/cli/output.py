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
from throughtime.runs.run import Run
from throughtime.types import Progress


def write_frame(frame: pl.DataFrame, path: Path) -> None:
    """Writes a table as .csv or .parquet. Raises SettingError for another extension."""
    check_table(path)
    content = io.BytesIO()
    if path.suffix == ".csv":
        frame.write_csv(content)
    else:
        frame.write_parquet(content)
    files.write_bytes(path, content.getvalue())


def check_table(*paths: Path | None) -> None:
    """Raises SettingError for a path that no table is written to, before work is done for it."""
    for path in paths:
        if path is not None and path.suffix not in (".csv", ".parquet"):
            raise SettingError(f"{path}: tables are written as .csv or .parquet")


def quantile_frame(forecast: dict[str, Any]) -> pl.DataFrame:
    """One row per series, column and step ahead, in the long format of forecasting tools."""
    rows = []
    for one in forecast["series"]:
        for column in one["columns"]:
            for step in range(forecast["horizon"]):
                row = {"unique_id": one["name"], "column": column["name"], "step": step + 1}
                if one["times"] is not None:
                    row["ds"] = one["times"][step]
                row["mean"] = column["mean"][step]
                row |= {f"q{q}": values[step] for q, values in column["quantiles"].items()}
                rows.append(row)
    return pl.DataFrame(rows)


def path_frame(forecast: dict[str, Any]) -> pl.DataFrame:
    """One row per series, column, path and step ahead."""
    parts = []
    for one in forecast["series"]:
        for column in one["columns"]:
            values = np.asarray(column["paths"])
            paths, steps = values.shape
            part = {
                "unique_id": [one["name"]] * values.size,
                "column": [column["name"]] * values.size,
                "path": np.repeat(np.arange(1, paths + 1), steps),
                "step": np.tile(np.arange(1, steps + 1), paths),
                "value": values.ravel(),
            }
            parts.append(pl.DataFrame(part))
    return pl.concat(parts)


@dataclass(frozen=True)
class Draw:
    """What is to be drawn, and where to."""

    steps: int
    paths: int
    seed: int
    temperature: float
    top_p: float
    file: Path

    def of(self, run: Run, on_progress: Progress) -> Tensor:
        """The raw values."""
        drawn = run.sample(
            self.steps, num_paths=self.paths, seed=self.seed, temperature=self.temperature,
            top_p=self.top_p, on_progress=on_progress,
        )  # fmt: skip
        assert isinstance(drawn, Tensor)  # texts are streamed
        return drawn


def sample_sound(run: Run, draw: Draw, on_progress: Progress) -> dict[str, Any]:
    """Draws sound into a .wav file, or one for each path; says what was written."""
    if draw.file.suffix.lower() != ".wav":
        raise SettingError(f"{draw.file}: sound is written as .wav")
    rate = run.rate
    waves = draw.of(run, on_progress)
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


def sample_table(run: Run, draw: Draw, on_progress: Progress) -> dict[str, Any]:
    """Draws series into a table, a row for each path and step; says what was written."""
    domain = run.chain.domain
    assert domain is not None
    check_table(draw.file)
    drawn = draw.of(run, on_progress)
    values = drawn if drawn.dim() == 3 else drawn.unsqueeze(-1)
    names = domain.columns or tuple(f"value_{i}" for i in range(values.shape[-1]))
    table: dict[str, Any] = {
        "path": np.repeat(np.arange(1, draw.paths + 1), draw.steps),
        "step": np.tile(np.arange(1, draw.steps + 1), draw.paths),
    }
    table |= {name: values[..., i].flatten().numpy() for i, name in enumerate(names)}
    write_frame(pl.DataFrame(table), draw.file)
    return {
        "kind": "paths", "files": [str(draw.file)], "paths": draw.paths, "steps": draw.steps
    }  # fmt: skip
