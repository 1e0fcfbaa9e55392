"""The C++ kernels under AddressSanitizer and UndefinedBehaviorSanitizer, no Python around them.

tests/cpp/check.cpp drives every entry of the library over odd sizes and compares with plain loops.
"""

from __future__ import annotations

import ast
import os
import platform
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.paths import ROOT

SOURCES, CHECKS = ROOT / "src" / "cpp", ROOT / "tests" / "cpp"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
# Without optimisation: the same code is checked, and compiles in half the time.
FLAGS = ["-std=c++17", "-O0", "-g1", "-ffp-contract=fast", "-Wall", "-Wextra", f"-I{SOURCES}"]
CASES = 300

pytestmark = pytest.mark.slow


def instruction_flags() -> dict[str, list[str]]:
    """BUILDS of setup.py: each instruction set and what the compiler is told for it."""
    result: dict[str, list[str]] = {}
    for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "BUILDS":
            result |= ast.literal_eval(node.value)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            name = ast.literal_eval(node.targets[0].slice)
            result[name] = ast.literal_eval(node.value)
    return result


BUILDS = instruction_flags()
X86 = platform.machine().lower() in ("x86_64", "amd64")
HERE = [*BUILDS] if X86 else ["baseline"]


def command(*arguments: object) -> None:
    done = subprocess.run([*map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """check.cpp with the library, all of it under both sanitizers."""
    names: Sequence[str] = (os.environ.get("CXX", ""), "g++", "clang++", "c++")
    compiler = next((name for name in names if name and shutil.which(name.split()[0])), None)
    if compiler is None:
        pytest.skip("there is no C++ compiler here")
    call, folder = compiler.split(), tmp_path_factory.mktemp("sanitized")
    (folder / "empty.cpp").write_text("int main() { return 0; }\n", encoding="utf-8")
    trial = [*call, *SANITIZERS, str(folder / "empty.cpp"), "-o", str(folder / "empty")]
    tried = subprocess.run(trial, capture_output=True, text=True, check=False)
    if tried.returncode or subprocess.run([folder / "empty"], check=False).returncode:
        pytest.skip(f"{compiler} has no sanitizers here: {tried.stderr[-200:].strip()}")
    jobs = [
        (SOURCES / "kernels.cpp", name, [f"-DTT_ISA={name}", *BUILDS[name]])
        for name in reversed(HERE)
    ]
    rest = sorted(set(SOURCES.glob("*.cpp")) - {SOURCES / "kernels.cpp"})
    jobs += [(path, path.stem, []) for path in (*rest, CHECKS / "check.cpp")]

    def compiled(job: tuple[Path, str, list[str]]) -> Path:
        source, name, more = job
        made = folder / f"{name}.o"
        command(*call, *FLAGS, *SANITIZERS, *more, "-c", source, "-o", made)
        return made

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        objects = list(pool.map(compiled, jobs))
    command(*call, *SANITIZERS, *objects, "-o", folder / "check", "-lpthread")
    return folder / "check"


@pytest.mark.parametrize("name", HERE)
def test_no_finding_and_right_numbers(name: str, program: Path) -> None:
    kernel = name if X86 else "neon"
    done = subprocess.run(
        [program, kernel, str(CASES)], env={**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if done.returncode == 3:
        pytest.skip(done.stdout.strip())
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout == f"{kernel}: right\n"


def test_the_program_says_what_does_not_run(program: Path) -> None:
    done = subprocess.run([program, "mmx", "1"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (3, "mmx does not run here\n")
    assert {"baseline", "avx2", "avx512"} <= set(BUILDS)
