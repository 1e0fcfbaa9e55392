"""The build of the package with and without a C++ compiler, and what runs in either case."""

from __future__ import annotations

import ctypes
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from support.native_cases import IN_TORCH, compare, pair, random_state, same
from support.paths import ROOT

import throughtime as tt
from throughtime import kernels
from throughtime import state as states
from throughtime.cli import main
from throughtime.errors import BackendError
from throughtime.kernels import native
from throughtime.kernels.cells import CELLS
from throughtime.kernels.native import STRUCTS

REMEDY = (
    "install a C++ compiler (such as g++), then "
    "pip install --force-reinstall --no-deps --no-cache-dir throughtime"
)
NOT_BUILT = f"backend 'cpu' was not built: {REMEDY}"


@pytest.fixture(params=["absent", "broken"])
def no_library(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The package as it is where no compiler was, or where the library is for another machine."""
    place = tmp_path / "_native.so"
    if request.param == "broken":
        place.write_bytes(b"nothing that can be loaded")
    native.load(place)
    yield str(request.param)
    native.load()


def test_without_the_library_auto_is_torch_and_a_named_backend_raises(no_library: str) -> None:
    assert kernels.backends() == {"cpu": False, "torch": True, "reference": True}
    with pytest.raises(BackendError) as wrong:
        tt.GRU(2, 3, backend="cpu")
    if no_library == "absent":
        assert str(wrong.value) == NOT_BUILT
    assert str(wrong.value).startswith("backend 'cpu' ")
    assert str(wrong.value).endswith(REMEDY)
    x = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    for kind in IN_TORCH:
        assert kernels.choose(kind, "auto", x) == "torch"
        ours, theirs = pair(kind, 3, 5, backend="auto")
        compare(ours, theirs, [x], x)
        with torch.no_grad():
            state = states.zeros_like(random_state(ours, 2))
            same([ours.step(x[0], state)[0]], [theirs(x[:1])[0][0]])
    assert kernels.choose("rnn_identity", "auto", x) == "reference"
    ours = tt.GRU(3, 5)
    ours.backend = "cpu"  # as a copied setting would have it
    with pytest.raises(BackendError) as again:
        ours(x.float())
    assert str(again.value) == str(wrong.value)


class Longer(ctypes.Structure):
    """A mirror of `tt_stream` with a field too many."""

    _fields_ = (*native.Stream._fields_, ("more", ctypes.c_int64))


@pytest.mark.skipif(not native.available(), reason="the library was not built here")
@pytest.mark.parametrize("different", ["struct", "cell"])
def test_a_library_of_other_sources_is_refused(
    different: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = ctypes.sizeof(native.Stream)
    if different == "struct":
        monkeypatch.setitem(native.STRUCTS, "tt_stream", Longer)
        expected = f"tt_stream of {size} bytes instead of {size + 8}"
    else:
        odd = dataclasses.replace(CELLS["gru"], gates=("r", "z"))
        monkeypatch.setitem(CELLS, "gru", odd)
        expected = "gru of 3 gates instead of 2"
    try:
        native.load()
        assert native.problem().startswith("backend 'cpu' was built from another version")
        assert native.problem().endswith(expected)
        assert not native.available()
        with pytest.raises(BackendError, match="from another version of the sources"):
            tt.GRU(2, 3, backend="cpu")
    finally:
        monkeypatch.undo()
        native.load()
    assert native.available()


@pytest.mark.skipif(not native.available(), reason="the library was not built here")
def test_mirrors_that_come_later_are_compared_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from throughtime.models.native import cross_entropy, sampler  # register theirs

    assert {cross_entropy.__name__, sampler.__name__} < {s.__module__ for s in STRUCTS.values()}
    assert set(STRUCTS) == {"tt_sequence", "tt_stream", "tt_head", "tt_sampler"}
    monkeypatch.setitem(STRUCTS, "tt_stream", native.Stream)  # put back afterwards
    try:
        native.mirrors("tt_stream")(Longer)
        assert not native.available()
    finally:
        monkeypatch.undo()
        native.load()
    assert native.available()


def doctor(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, Any], str]:
    """The object that `doctor --json` prints, and its line about the kernels for people."""
    capsys.readouterr()
    main(["doctor", "--json"])
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    main(["doctor"])
    (line,) = [one for one in capsys.readouterr().out.splitlines() if one.startswith("kernels ")]
    return result, line.split(maxsplit=1)[1]


def test_the_doctor_says_why_and_what_to_do(
    no_library: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result, line = doctor(capsys)
    assert result["backends"] == {"cpu": False, "torch": True, "reference": True}
    problem = result["kernels"]["problem"]
    assert result["kernels"] == {"instructions": None, "problem": problem, "install": REMEDY}
    assert line == f"{problem}: {REMEDY}"
    assert problem.endswith(", so 'auto' uses torch")
    if no_library == "absent":
        assert problem == "backend 'cpu' was not built, so 'auto' uses torch"


@pytest.mark.skipif(not native.available(), reason="the native kernels were not built")
def test_the_doctor_names_the_instruction_set(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result, line = doctor(capsys)
    assert line == native.instructions() in ("avx512", "avx2", "neon", "baseline")
    assert result["kernels"] == {"instructions": line, "problem": None, "install": None}
    assert result["threads"] == torch.get_num_threads()
    monkeypatch.setenv(native.FORCE, "mmx")
    native.load()
    try:
        result, line = doctor(capsys)
    finally:
        monkeypatch.undo()
        native.load()
    wrong = "THROUGHTIME_INSTRUCTIONS=mmx: this machine does not run these instructions"
    assert line == f"{wrong}: unset THROUGHTIME_INSTRUCTIONS"
    assert result["kernels"]["instructions"] is None
    assert not result["backends"]["cpu"]


WITHOUT = """
import pathlib, sys, torch, throughtime as tt
from throughtime.errors import BackendError
folder = pathlib.Path(tt.__file__).parent
assert folder.parent == pathlib.Path(sys.argv[1]), folder
assert not list(folder.rglob("*.so"))
torch.manual_seed(0)
ours, x = tt.GRU(3, 5), torch.randn(4, 2, 3)
theirs = torch.nn.GRU(3, 5)
theirs.load_state_dict(ours.state_dict())
assert torch.equal(ours(x)[0], theirs(x)[0])
assert tt.kernels.choose("gru") == "torch"
from throughtime.cli import main
main(["doctor"])
try:
    tt.GRU(3, 5, backend="cpu")
except BackendError as error:
    print(error)
"""


@pytest.mark.parametrize("compiler", ["absent", "failing"])
@pytest.mark.slow
def test_the_package_installs_without_a_compiler(compiler: str, tmp_path: Path) -> None:
    """What the build makes of a copy of the sources, and what it then does."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    compiled = shutil.ignore_patterns("*.so", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=compiled)
    call = str(tmp_path / "no-compiler") if compiler == "absent" else "false"
    environment = {**os.environ, "CC": call, "CXX": call, "LDSHARED": call, "LDCXXSHARED": call}
    built = subprocess.run(
        [sys.executable, "setup.py", "-q", "build", "--build-lib", "built"],
        env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    assert 'building extension "throughtime.kernels._native" failed' in built.stderr
    package = tmp_path / "built"
    assert (package / "throughtime" / "assets" / "report.html").exists()
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", WITHOUT, str(package)],
        env={**os.environ, "PYTHONPATH": str(package)}, cwd=tmp_path,
        capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    *lines, raised = done.stdout.splitlines()
    assert raised == NOT_BUILT
    assert f"kernels      backend 'cpu' was not built, so 'auto' uses torch: {REMEDY}" in lines
    assert "backends     torch, reference" in lines


def test_where_a_compiler_is_the_kernels_are_built() -> None:
    """Else every test of them would be skipped in silence."""
    if not shutil.which("g++"):
        pytest.skip("there is no C++ compiler here")
    assert native.problem() == ""
    assert native.available()
