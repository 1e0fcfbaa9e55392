"""Ctrl-C and SIGTERM: one line, at once; the same command goes on to the same bits."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support.small_runs import walk, write_series

LINE = "error: interrupted; the same command goes on where it stopped"
SIGNALS = ((signal.SIGINT,), (signal.SIGTERM,), (signal.SIGINT, signal.SIGINT))
TIMES = {"seconds", "peak_memory_mb", "digest"}  # a digest is that of the others too
HANG = 30  # seconds after which a process is taken to have ignored its signal

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="what a process catches is read from /proc"
)


def start(*arguments: str) -> subprocess.Popen[str]:
    """A command that has got as far as our own code."""
    process = subprocess.Popen(
        [sys.executable, "-m", "throughtime", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None and not catches(process.pid, signal.SIGTERM):
        time.sleep(0.002)
    return process


def catches(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal; Python itself has none for SIGTERM."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    mask = next((line.split()[1] for line in lines if line.startswith("SigCgt")), "0")
    return bool(int(mask, 16) >> (number - 1) & 1)


def fit(out: str) -> list[str]:
    return ["fit", "prices.csv", "--steps", "8", "--hidden", "4", "-o", out]


def result(out: str) -> tuple[bytes, bytes, Any, Any]:
    """All that a run holds but how long it took."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: timeless(part) for key, part in value.items() if key not in TIMES}
        return [timeless(part) for part in value] if isinstance(value, list) else value

    folder = Path(out)
    weights, context = (
        (folder / name).read_bytes() for name in ("model.safetensors", "context.safetensors")
    )
    described, scores = (
        timeless(json.loads((folder / name).read_text())) for name in ("model.json", "scores.json")
    )
    model = {key: described[key] for key in ("name", "model", "transforms")}
    return weights, context, model, scores  # without the digests of files that tell the time


def interrupt(seed: int, count: int) -> int:
    """Interrupts fits so many times and runs each to its end; returns how many ended meanwhile."""
    write_series(Path("prices.csv"), walk(120))
    begun = time.monotonic()
    assert subprocess.run([sys.executable, "-m", "throughtime", *fit("whole")]).returncode == 0
    longest, chance = time.monotonic() - begun, random.Random(seed)
    hit, runs = 0, 0
    while True:
        process = start(*fit(f"cut{runs}"))
        if hit < count:
            time.sleep(chance.uniform(0, longest))
        for number in chance.choice(SIGNALS) if hit < count else ():
            process.send_signal(number)
        _, said = process.communicate(timeout=HANG if hit < count else None)
        assert "Traceback" not in said
        if process.returncode == 0:
            assert result(f"cut{runs}") == result("whole")
            runs += 1
            if hit >= count:
                return runs
        else:
            assert (process.returncode, said.splitlines()[-1]) == (1, LINE)
            hit += 1


@pytest.mark.usefixtures("here")
def test_interrupted_at_any_moment_a_fit_ends_with_the_same_bits() -> None:
    assert interrupt(seed=1, count=4) >= 1


@pytest.mark.slow
@pytest.mark.usefixtures("here")
def test_a_hundred_interruptions() -> None:
    assert interrupt(seed=0, count=100) > 1


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_native_code_that_never_returns_is_left_at_once(number: int) -> None:
    """Neither Python nor the lock of its interpreter is needed to obey."""
    code = (
        "import sys\n"
        "from throughtime.cli.interruption import leave_on_signals\n"
        "leave_on_signals('error: interrupted')\n"
        "sys.stdout.write('ready\\n'); sys.stdout.flush()\n"
        "7 ** 7 ** 9\n"  # minutes without a look at signals, the interpreter's lock held
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.2)
    process.send_signal(number)
    _, said = process.communicate(timeout=HANG)
    assert (process.returncode, said) == (1, "error: interrupted\n")
