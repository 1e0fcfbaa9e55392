"""Interruptions: however a run was cut into pieces, it ends with the same bits."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from support.training_cases import SYMBOLS, everything, same, small_model, toy, trainer

from throughtime import files
from throughtime.models.autoregressive import Autoregressive
from throughtime.models.base import SequenceModel
from throughtime.models.latent import Dropout
from throughtime.training import trainer as train
from throughtime.training.trainer import Trainer


class Interrupted(Exception):
    """Stands for a kill."""


class Fragile(Trainer):
    """Is killed as soon as it has saved `left` times."""

    left = 1

    def save(self) -> None:
        super().save()
        self.left -= 1
        if self.left == 0:
            raise Interrupted


RUNS: dict[str, dict[str, Any]] = {
    "full": {"bptt": "full", "segment": 12, "lanes": 4},
    "truncated": {"bptt": "8,20"},
    "checkpointed": {"bptt": "slots=3", "segment": 12, "lanes": 4},
    "budget": {"bptt": "memory=150kB", "precision": "bfloat16"},
    "adaptive": {"bptt": "bias=0.3"},
    "bfloat16": {"bptt": "8,20", "precision": "bfloat16"},
}


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize(
    ("cell", "every"), [("gru", 1), ("lstm", 3), ("rnn", 1), ("mlp", 2), ("mingru", 2)]
)
def test_an_interrupted_run_ends_with_the_same_bits(
    name: str, cell: str, every: int, tmp_path: Path
) -> None:
    settings = RUNS[name] | {"steps": 14, "clip": 0.01, "average": 0.9, "checkpoint_seconds": 0}

    def model() -> SequenceModel:
        if cell == "mlp":
            torch.manual_seed(0)
            return Autoregressive(3, emission=SYMBOLS, predictor="mlp", hidden_size=8)
        more = {} if cell == "rnn" else {"members": 2, "num_layers": 2}
        dropout = Dropout(0.3, recurrent=0.2 if cell not in ("rnn", "mingru") else 0.0)
        return small_model(cell=cell, dropout=dropout, **more)

    whole = trainer(settings, model=model())
    whole.run()
    assert whole.progress.clipped > 0
    assert whole.progress.epoch > 0
    kills, done = 0, None
    while done is None:
        torch.manual_seed(random.getrandbits(32))  # what the process did before must not matter
        attempt = trainer(settings, tmp_path, Fragile, model=model())
        attempt.left = every  # type: ignore[attr-defined]
        try:
            attempt.run()
            done = attempt
        except Interrupted:
            kills += 1
            assert attempt.progress.step == min(14, kills * every)
    assert kills == 14 // every  # the last one after the last update
    assert same(everything(whole), everything(done))
    assert same(
        [p.detach() for p in whole.model.parameters()], [p.detach() for p in done.parameters]
    )


def test_settings_that_changed_start_from_scratch(tmp_path: Path) -> None:
    attempt = trainer({"checkpoint_seconds": 0}, tmp_path, Fragile)
    with pytest.raises(Interrupted):
        attempt.run()
    assert trainer({"checkpoint_seconds": 0}, tmp_path).resume()
    assert not trainer({"checkpoint_seconds": 0, "seed": 1}, tmp_path).resume()
    assert not trainer({"checkpoint_seconds": 0}, tmp_path / "elsewhere").resume()
    events: list[dict[str, Any]] = []
    trainer({"checkpoint_seconds": 0}, tmp_path, on_event=events.append).run()
    assert events[0] == {"event": "resume", "step": 1}


def test_another_model_and_other_data_start_from_scratch(tmp_path: Path) -> None:
    attempt = trainer({"checkpoint_seconds": 0}, tmp_path, Fragile)
    with pytest.raises(Interrupted):
        attempt.run()
    other = trainer({"checkpoint_seconds": 0}, tmp_path)
    other.train = toy(seed=3)
    assert not other.resume()
    for options in ({"hidden_size": 5}, {"num_layers": 2}):
        model = small_model(dropout=0.3, **options)
        assert not trainer({"checkpoint_seconds": 0}, tmp_path, model=model).resume()
    assert trainer({"checkpoint_seconds": 0}, tmp_path).resume()


def test_a_damaged_checkpoint_is_told_of_and_training_ends_with_the_same_bits(
    tmp_path: Path,
) -> None:
    whole = trainer({"checkpoint_seconds": 0})
    whole.run()
    attempt = trainer({"checkpoint_seconds": 0}, tmp_path, Fragile)
    with pytest.raises(Interrupted):
        attempt.run()
    path = tmp_path / "training.safetensors"
    content = bytearray(path.read_bytes())
    for damage in (bytes(len(content)), content[:-9], b""):
        path.write_bytes(damage)
        events: list[dict[str, Any]] = []
        again = trainer({"checkpoint_seconds": 0}, tmp_path, on_event=events.append)
        again.run()
        assert events[0]["event"] == "note"
        assert events[0]["message"].startswith(f"{path} is damaged (")
        assert same(everything(whole), everything(again))


def test_the_clock_leaves_interruptions_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(train.time, "monotonic", lambda: now[0])
    first = trainer({}, tmp_path)
    first.epoch(0)
    now[0] = 7.0
    first.save()
    now[0] = 1000.0
    again = trainer({}, tmp_path)
    assert again.resume()
    now[0] = 1002.0
    assert again.elapsed() == pytest.approx(9.0)


SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from throughtime import emissions, files
from throughtime.data.sequences import Sequences
from throughtime.models.latent import LatentAutoregressive
from throughtime.training.config import TrainSettings
from throughtime.training.trainer import Trainer

folder = Path(sys.argv[1])
data = Sequences.of([torch.arange(n) ** 2 % 7 for n in (70, 40, 55)])
torch.manual_seed(0)
model = LatentAutoregressive("lstm", 8, emission=emissions.Categorical(7), dropout=0.3)
settings = TrainSettings(
    steps=100, lanes=3, bptt="8,20", clip=0.2, average=0.9, valid_every=7, checkpoint_seconds=0
)
trainer = Trainer(model, data[:2], data[2:], settings, folder=folder)
print("ready", flush=True)
progress = vars(trainer.run()) | {"seconds": 0}
parts = [*trainer.parameters, *trainer.averages, *trainer.best]
files.write_tensors(folder / "end", dict(zip(map(str, range(99)), parts)), progress)
"""


@pytest.mark.slow
def test_kill_9_at_any_moment_and_again_ends_with_the_same_bits(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)

    def begin(folder: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, str(script), str(tmp_path / folder)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def finish(process: subprocess.Popen[str]) -> int:
        process.communicate(timeout=600)
        return process.returncode

    def updates() -> int:
        path = tmp_path / "killed" / "training.safetensors"
        return int(files.read_tensors(path)[1]["progress"]["step"]) if path.exists() else 0

    assert finish(begin("whole")) == 0
    chance, kills, steps = random.Random(0), 0, [0]
    for _ in range(3):
        enough = steps[-1] + chance.randint(1, 30)
        process = begin("killed")
        while process.poll() is None and updates() < enough:
            time.sleep(0.002)
        process.kill()
        kills += finish(process) == -9
        steps.append(updates())
    assert finish(begin("killed")) == 0
    assert kills >= 1, "the run ends before it can be killed"
    assert 0 < steps[1] < 100
    assert steps == sorted(steps)
    assert (tmp_path / "killed/end").read_bytes() == (tmp_path / "whole/end").read_bytes()
