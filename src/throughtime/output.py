"""Files that commands write for other programs: tables and sound."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from throughtime import checkpoint
from throughtime.errors import SettingError
from throughtime.run import Run
from throughtime.wav import wav_bytes

_SECONDS = 2.0  # of sound, unless asked otherwise
_STEPS = 200


def write_frame(frame: pl.DataFrame, path: Path) -> None:
    """Writes a table as .csv or .parquet. Raises SettingError for another extension."""
    content = io.BytesIO()
    if path.suffix == ".csv":
        frame.write_csv(content)
    elif path.suffix == ".parquet":
        frame.write_parquet(content)
    else:
        raise SettingError(f"{path}: tables are written as .csv or .parquet")
    checkpoint.write_bytes(path, content.getvalue())


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
                "path": np.repeat(np.arange(paths), steps),
                "step": np.tile(np.arange(1, steps + 1), paths),
                "value": values.ravel(),
            }
            parts.append(pl.DataFrame(part))
    return pl.concat(parts)


def sample_to_file(
    run: Run,
    length: int | None,
    paths: int,
    seed: int,
    temperature: float,
    top_p: float,
    path: Path | None,
) -> dict[str, Any]:
    """Samples sound to a .wav (one per path) or series to a table; says what was written."""
    domain = run.chain.domain
    assert domain is not None
    if domain.kind == "sound":
        rate = int(domain.sample_rate or 0)
        steps = length or round(_SECONDS * rate)
        path = path or Path("sample.wav")
        if path.suffix != ".wav":
            raise SettingError(f"{path}: sound is written as .wav")
        drawn = run.sample(steps, num_paths=paths, seed=seed, temperature=temperature, top_p=top_p)
        files = (
            [path] if paths == 1 else [path.with_stem(f"{path.stem}-{i + 1}") for i in range(paths)]
        )
        for file, wave in zip(files, drawn, strict=True):
            checkpoint.write_bytes(file, wav_bytes(wave, rate))
        names = ", ".join(map(str, files))
        seconds = steps / rate
        return {
            "kind": "sound",
            "files": [str(file) for file in files],
            "seconds": seconds,
            "text": f"{seconds:.2f} s of sound at {rate} Hz: {names}",
        }
    steps = length or _STEPS
    drawn = run.sample(steps, num_paths=paths, seed=seed, temperature=temperature, top_p=top_p)
    values = drawn if drawn.dim() == 3 else drawn.unsqueeze(-1)
    names_ = domain.columns or tuple(f"value_{i}" for i in range(values.shape[-1]))
    table: dict[str, Any] = {
        "path": np.repeat(np.arange(paths), steps),
        "step": np.tile(np.arange(1, steps + 1), paths),
    }
    table |= {name: values[..., i].flatten().numpy() for i, name in enumerate(names_)}
    path = path or Path("sample.csv")
    write_frame(pl.DataFrame(table), path)
    text = f"{paths:,} path{'s' if paths > 1 else ''} of {steps:,} steps: {path}"
    return {"kind": "paths", "files": [str(path)], "paths": paths, "steps": steps, "text": text}
