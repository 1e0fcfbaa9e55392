"""What several test files share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # waiting threads leave the cores to others

import pytest
import support.profiles  # noqa: F401  it registers them
import torch
from support.paths import SHARED
from support.small_runs import Fails, SmallRuns

from throughtime.cli import main

torch.set_num_threads(1)  # a worker of pytest-xdist is a core

_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=_GPU)])
def device(request: pytest.FixtureRequest) -> Iterator[str]:
    """A test that asks for it runs on each device: tensors and modules are made there."""
    if request.param == "cpu":
        yield "cpu"
        return
    rounded = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False  # products of 10 bits are no measure of anything
    with torch.device("cuda"):
        yield "cuda"
    torch.backends.cudnn.allow_tf32 = rounded


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of public data beside the repository; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip("the public data sets (../shared/data) are not on this machine")
    return SHARED


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory: pytest.TempPathFactory) -> SmallRuns:
    """Runs on tiny data of each kind: `small_runs("text")` is a run's folder.

    The processes of pytest-xdist share them: each is fitted once.
    """
    base = tmp_path_factory.getbasetemp()
    return SmallRuns((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "small")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, so that messages name files as `prices.csv`."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str], here: Path) -> Fails:
    """Runs a command that fails; gives its last line. No traceback, no result, nothing new."""

    def run(*arguments: str, code: int = 1, left: tuple[str, ...] = ()) -> str:
        before = set(here.rglob("*"))
        with pytest.raises(SystemExit) as end:
            main([str(argument) for argument in arguments])
        assert end.value.code == code
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "Traceback" not in printed.err
        *_, last = printed.err.splitlines()
        assert last.startswith("error: ")
        new = {str(path.relative_to(here)) for path in set(here.rglob("*")) - before}
        assert new == set(left)
        return last.removeprefix("error: ")

    return run
