"""Every file of a run, of a model and of an interrupted fit, damaged one at a time."""

from __future__ import annotations

import os
import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.small_runs import QUICK, SmallRuns, days, walk, write_series

import throughtime as tt
from throughtime import files, report
from throughtime.errors import RunError
from throughtime.manifest import Manifest
from throughtime.models import registry
from throughtime.predict.fitted import FittedModel
from throughtime.runs.run import update
from throughtime.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("here")


def flip(path: Path) -> None:
    """One bit, anywhere."""
    content = bytearray(path.read_bytes())
    chance = random.Random(path.as_posix())
    content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
    path.write_bytes(content)


def digit(path: Path) -> None:
    """The last digit of a number becomes another one."""
    content = bytearray(path.read_bytes())
    at = [match.end() - 1 for match in re.finditer(rb"[0-9]+", content)][-1]
    content[at] = ord("1") if content[at] != ord("1") else ord("2")
    path.write_bytes(content)


def truncate(path: Path) -> None:
    """The second half is gone."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "flipped": flip, "digit": digit, "truncated": truncate, "empty": empty, "deleted": Path.unlink,
}  # fmt: skip


def loaded_files(folder: Path, finished: bool = True) -> list[Path]:
    """All but the report, which nothing loads, and what only fitting loads."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    unread = {"report.html", "history.json"} if finished else {"report.html"}
    return [path for path in found if path.name not in unread]


def used(folder: Path) -> Any:
    """Everything that a folder is used for."""
    loaded = tt.load(folder)
    if isinstance(loaded, tt.Run):
        report.read(folder)
        return {name: one.forecast(2, num_paths=3).paths for name, one in loaded.models.items()}
    return loaded.forecast(2, num_paths=3).paths


@pytest.mark.parametrize("how", DAMAGE)
def test_a_run_that_is_damaged_is_refused_by_name(small_runs: SmallRuns, how: str) -> None:
    whole = small_runs("series")
    used(whole)
    names = [path.relative_to(whole).as_posix() for path in loaded_files(whole)]
    assert {"model.json", "log.jsonl", "checkpoint/gru/result.safetensors"} < set(names)
    for name in names:
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree(whole, "run")
        DAMAGE[how](Path("run") / name)
        with pytest.raises(RunError, match=name) as caught:
            used(Path("run"))
        assert "\n" not in str(caught.value)


def model(order: int = 2, count: int = 60) -> tt.FittedModel:
    path = write_series(Path("prices.csv"), walk(count))
    return tt.train(tt.Autoregressive(order, emission=tt.emissions.Normal()), tt.read(path))


@pytest.mark.parametrize("how", DAMAGE)
def test_a_model_that_is_damaged_is_refused_by_name(how: str) -> None:
    model().save("kept")
    used(Path("kept"))
    for path in loaded_files(Path("kept")):
        shutil.rmtree("damaged", ignore_errors=True)
        shutil.copytree("kept", "damaged")
        DAMAGE[how](Path("damaged") / path.name)
        with pytest.raises(RunError, match=path.name) as caught:
            used(Path("damaged"))
        assert "\n" not in str(caught.value)


def test_files_of_another_run_are_refused(small_runs: SmallRuns) -> None:
    whole, other = small_runs("series"), small_runs("text")
    for name in ("model.safetensors", "context.safetensors", "scores.json", "log.jsonl"):
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree(whole, "run")
        shutil.copy(other / name, Path("run") / name)
        with pytest.raises(RunError, match=rf"{name} is damaged \(its SHA-256 differs\)"):
            used(Path("run"))


# Interrupted fits


class Interrupted(Exception):
    """Stands for a kill."""


@pytest.fixture
def every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checkpoints at every update."""
    begin = Trainer.__post_init__

    def often(trainer: Trainer) -> None:
        trainer.settings = trainer.settings.model_copy(update={"checkpoint_seconds": 0.0})
        begin(trainer)

    monkeypatch.setattr(Trainer, "__post_init__", often)


def fit(out: str, told: list[dict[str, Any]] | None = None, at: int | None = None) -> tt.Run:
    """Fits; stops at the update of that number."""

    def on_event(event: dict[str, Any]) -> None:
        if told is not None:
            told.append(event)
        if at is not None and event["event"] in ("valid", "step") and event["step"] >= at:
            raise Interrupted

    torch.manual_seed(random.getrandbits(30))
    return tt.fit("prices.csv", out=out, model="gru", on_event=on_event, **QUICK)


def outcome(run: tt.Run) -> Any:
    """Weights and scores, without what depends on the machine's mood."""
    weights = {
        name: {key: value.tolist() for key, value in registry.tensors_of(one.model).items()}
        for name, one in run.models.items()
    }
    scores = run.scores.to_json()
    for row in scores["models"]:
        del row["seconds"], row["peak_memory_mb"]
    return weights, scores


TRAINING, REFIT = 2, QUICK["steps"] + 2


def cut_off(at: int) -> tuple[Any, list[str]]:
    """What a whole fit ends with, and the files of one that was cut off."""
    write_series(Path("prices.csv"), walk(100))
    wanted = outcome(fit("whole"))
    with pytest.raises(Interrupted):
        fit("cut", at=at)
    return wanted, [path.relative_to("cut").as_posix() for path in loaded_files(Path("cut"), False)]


def goes_on(name: str, how: str, wanted: Any, at: int) -> None:
    """The fit whose file is damaged ends as a whole one, and says what it made anew."""
    shutil.rmtree("run", ignore_errors=True)
    shutil.copytree("cut", "run")
    DAMAGE[how](Path("run") / name)
    if name == "config.toml":
        with pytest.raises(RunError, match=re.escape(name)):
            fit("run")
        return
    told: list[dict[str, Any]] = []
    assert outcome(fit("run", told)) == wanted, (name, how)
    notes = [event["message"] for event in told if event["event"] == "note"]
    unread = how == "deleted" or (at == REFIT and name == "checkpoint/gru/training.safetensors")
    if name != "log.jsonl":
        assert [n.startswith(f"run/{name} is damaged (") for n in notes] == [True] * (not unread)
    used(Path("run"))


def test_a_damaged_part_of_an_interrupted_fit_is_made_anew(every_step: None) -> None:
    wanted, names = cut_off(REFIT)
    assert len(names) >= 9
    assert "checkpoint/gru/refit/training.safetensors" in names
    for name, how in zip(names, 3 * list(DAMAGE), strict=False):
        goes_on(name, how, wanted, REFIT)


@pytest.mark.slow
@pytest.mark.parametrize("at", [TRAINING, REFIT], ids=["training", "refit"])
def test_any_damaged_part_of_an_interrupted_fit_is_made_anew(at: int, every_step: None) -> None:
    wanted, names = cut_off(at)
    for name in names:
        for how in DAMAGE:
            goes_on(name, how, wanted, at)


# Rewriting


class Crash(BaseException):
    """Stands for a kill."""


def crashed_before(step: int, work: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether work was cut off before so many files got their names."""
    rename, left = os.replace, [step]

    def replace(source: Any, target: Any) -> None:
        if left[0] == 0:
            raise Crash
        left[0] -= 1
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace)
        try:
            work()
        except Crash:
            return True
    return False


def test_an_update_that_is_cut_off_leaves_the_old_end_or_the_new(
    small_runs: SmallRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "".join(f"{day},{100 + i}\n" for i, day in enumerate(days(3, "2020-06-01")))
    Path("new.csv").write_text(f"date,price\n{rows}")
    whole, step = small_runs("series"), 0
    shutil.copytree(whole, "moved")
    before = used(whole)
    update("moved", "new.csv")
    after = used(Path("moved"))
    found = []
    while True:
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree(whole, "run")
        cut = crashed_before(step, lambda: update("run", "new.csv"), monkeypatch)
        ends = {str(after): "new", str(before): "old"}
        found.append(ends[str(used(Path("run")))])
        if found[-1] == "old":
            update("run", "new.csv")
            assert str(used(Path("run"))) == str(after)
        if not cut:
            break
        step += 1
    assert found[0] == "old"
    assert found == sorted(found, reverse=True)
    assert found.count("new") >= 2


def test_a_model_saved_over_another_is_one_or_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = model(1), model(3, 80)
    for step in range(9):
        shutil.rmtree("kept", ignore_errors=True)
        one.save("kept")
        cut = crashed_before(step, lambda: two.save("kept"), monkeypatch)
        kept = tt.load("kept")
        assert isinstance(kept, tt.FittedModel)
        wanted = one if kept.name == one.name else two
        assert str(used(Path("kept"))) == str(wanted.forecast(2, num_paths=3).paths)
        assert cut or wanted is two
    assert not cut


def test_a_finished_run_without_its_manifest_is_finished_by_the_same_fit(every_step: None) -> None:
    write_series(Path("prices.csv"), walk(150))
    wanted = outcome(fit("run"))
    for name in ("model.json", "report.html"):
        Path("run", name).unlink()
        told: list[dict[str, Any]] = []
        assert outcome(fit("run", told)) == wanted
        assert Path("run/report.html").exists()


def test_json_that_is_deep_or_names_unknown_fields(every_step: None) -> None:
    """With digests of their own: what a parser refuses is refused in a line, or made anew."""
    write_series(Path("prices.csv"), walk(150))
    wanted = outcome(fit("whole"))
    with pytest.raises(Interrupted):
        fit("cut", at=2)
    plan = Path("cut/checkpoint/gru/plan.json")
    deep = files.sealed(f'{{"digest": "{files.UNSEALED}", "a": {"[" * 9999}}}')
    unknown = files.json_bytes({**files.read_json(plan), "colour": "red"})
    wrong = files.json_bytes({**files.read_json(plan), "steps": {}})
    for content, why in ((deep, "nested more than 100"), (unknown, "colour"), (wrong, "steps")):
        shutil.rmtree("run", ignore_errors=True)
        shutil.copytree("cut", "run")
        Path("run/checkpoint/gru/plan.json").write_bytes(content)
        told: list[dict[str, Any]] = []
        assert outcome(fit("run", told)) == wanted
        notes = [event["message"] for event in told if event["event"] == "note"]
        assert [why in note for note in notes] == [True], notes
    Path("whole/model.json").write_bytes(deep)
    with pytest.raises(RunError, match=r"model.json is damaged \(brackets nested more than 100"):
        tt.load("whole")


def test_sizes_in_a_description_are_compared_before_they_are_allocated(
    small_runs: SmallRuns,
) -> None:
    shutil.copytree(small_runs("lines"), "run")
    path = Path("run/checkpoint/gru/result.safetensors")
    tensors, values = files.read_tensors(path)
    values["model"]["hidden_size"] = 3_000_000  # 100 TB
    path.write_bytes(files.tensor_bytes(tensors, values))
    described = files.read_json(Path("run/model.json"))
    described["files"]["checkpoint/gru/result.safetensors"] = files.digest(path.read_bytes())
    files.write_json(Path("run/model.json"), described)
    wanted = r"gru/result.safetensors is damaged \(its sizes are not those of its weights\)"
    loaded = tt.load("run")
    assert isinstance(loaded, tt.Run)
    with pytest.raises(RunError, match=wanted):
        loaded.models  # noqa: B018


def test_an_update_beside_a_reader_does_no_harm(
    small_runs: SmallRuns, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "".join(f"{day},{100 + i}\n" for i, day in enumerate(days(3, "2020-06-01")))
    Path("new.csv").write_text(f"date,price\n{rows}")
    shutil.copytree(small_runs("series"), "run")
    read, updated = FittedModel.kept, []

    def kept(folder: Manifest, owner: str = "") -> FittedModel:
        if not updated:  # as if another process did it now
            updated.append(True)
            update("run", "new.csv")
        return read(folder, owner)

    monkeypatch.setattr(FittedModel, "kept", staticmethod(kept))
    loaded = tt.load("run")
    assert isinstance(loaded, tt.Run)
    assert loaded.best.end is not None
    assert loaded.best.end.steps.tolist() == [153]
