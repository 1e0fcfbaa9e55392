"""What `soak.py` damages: saved models, runs, and the checkpoint of an interrupted fit."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mutations import Target

import throughtime as tt
from throughtime import files, report
from throughtime.manifest import MODEL
from throughtime.models import registry
from throughtime.training.trainer import Trainer

_QUICK: dict[str, Any] = {"steps": 6, "hidden": 4, "model": "gru", "seed": 0}


def _rows(folder: Path) -> Path:
    """A short series of prices."""
    prices = 100 * np.exp(np.random.default_rng(0).normal(0, 0.01, 80).cumsum())
    days = np.datetime64("2020-01-01") + np.arange(80)
    rows = [f"{day},{price:.3f}\n" for day, price in zip(days, prices, strict=True)]
    path = folder / "prices.csv"
    path.write_text("date,price\n" + "".join(rows))
    return path


def _kept(folder: Path) -> list[Path]:
    """The files of a run that are ever loaded."""
    found = [path for path in (folder / "run").rglob("*") if path.is_file()]
    return [path for path in found if path.name != "report.html"]


def _model(folder: Path) -> Sequence[Path]:
    model = tt.Autoregressive(2, emission=tt.emissions.Normal())
    tt.train(model, tt.read(_rows(folder))).save(folder / "run")
    return _kept(folder)


def _run(folder: Path) -> Sequence[Path]:
    tt.fit(_rows(folder), out=folder / "run", **_QUICK)
    return _kept(folder)


class _Interrupted(Exception):
    pass


def _checkpoint(folder: Path) -> Sequence[Path]:
    """A fit that was cut off while its network was trained again."""
    begin = Trainer.__post_init__

    def often(trainer: Trainer) -> None:
        trainer.settings = trainer.settings.model_copy(update={"checkpoint_seconds": 0.0})
        begin(trainer)

    Trainer.__post_init__ = often  # type: ignore[method-assign]

    def cut(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] > _QUICK["steps"] + 1:
            raise _Interrupted

    with contextlib.suppress(_Interrupted):
        tt.fit(_rows(folder), out=folder / "run", on_event=cut, **_QUICK)
    return _kept(folder)


def _used(folder: Path, _: Path) -> Any:
    """Everything that a folder gives: scores, forecasts, every model, the report."""
    loaded = tt.load(folder / "run")
    models = loaded.models if isinstance(loaded, tt.Run) else {"": loaded}
    weights = {name: _bits(one) for name, one in models.items()}
    ahead = [one.forecast(3, num_paths=4).paths.tolist() for one in models.values()]
    if isinstance(loaded, tt.Run):
        return weights, ahead, loaded.scores, loaded.data, report.read(folder / "run")
    return weights, ahead


def _bits(fitted: tt.FittedModel) -> dict[str, bytes]:
    tensors = registry.tensors_of(fitted.model).items()
    return {name: tensor.contiguous().numpy().tobytes() for name, tensor in tensors}


def _ended(folder: Path, _: Path) -> Any:
    """The same fit once more: it goes on, and ends with the same bits or is refused."""
    torch.manual_seed(1)
    run = tt.fit(folder / "prices.csv", out=folder / "run", **_QUICK)
    scores = run.scores.to_json()
    for row in scores["models"]:
        del row["seconds"], row["peak_memory_mb"]
    return scores, {name: _bits(one) for name, one in run.models.items()}


def _forged(read: Callable[[Path, Path], Any]) -> Callable[[Path, Path], Any]:
    """Damage with the right digests: what is read may be anything, but never a traceback."""

    def use(folder: Path, file: Path) -> Any:
        _seal(file)
        manifest = folder / "run" / MODEL
        name = file.relative_to(folder / "run").as_posix()
        if file != manifest:
            values = json.loads(manifest.read_bytes())
            values["files"][name] = files.digest(file.read_bytes())
            manifest.write_text(json.dumps(values))
            _seal(manifest)
        return read(folder, file)

    return use


def _seal(path: Path) -> None:
    content = path.read_bytes()
    bare = re.sub(rb"sha256:[0-9a-f]{64}", files.UNSEALED.encode(), content, count=1)
    digest = f"sha256:{files.digest(bare)}".encode()
    path.write_bytes(bare.replace(files.UNSEALED.encode(), digest, 1))


TARGETS: tuple[Target, ...] = (
    Target("model", _model, _used, vouched=True),
    Target("run", _run, _used, vouched=True),
    Target("checkpoint", _checkpoint, _ended, vouched=True),
    Target("forged model", _model, _forged(_used)),
    Target("forged run", _run, _forged(_used)),
)
