"""`throughtime bench`: what it lets through, what it counts, what it prints. Never how fast."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rich.console import Console
from support.documentation import documented, fields
from support.small_runs import Fails
from torch import Tensor

from throughtime import bench
from throughtime.bench import baselines, cases, gate, machine, table, timing, words
from throughtime.bench.cases import CELLS, Shape
from throughtime.bench.drawing import Drawing
from throughtime.cli import display, main
from throughtime.errors import BackendError
from throughtime.kernels import cpu, native
from throughtime.models.latent import LatentAutoregressive

pytestmark = pytest.mark.skipif(not native.available(), reason="the kernels were not built")
Capture = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
TINY: dict[str, Any] = {
    "shapes": [Shape(2, 5, 3, 4), Shape(1, 3, 2, 17)],
    "steps": [Shape(1, 1, 3, 5)],
    "texts": [("gru", Shape(1, 20, 6, 5)), ("lstm", Shape(1, 20, 6, 5))],
    "forecasts": [("gru", Shape(3, 12, 5, 4))],
}
tiny = functools.partial(bench.measure, **TINY)


@pytest.fixture
def alone(monkeypatch: Patch) -> None:
    """As where no optional baseline is installed."""
    monkeypatch.setattr(baselines, "installed", lambda name: False)


@pytest.fixture
def small(alone: None, monkeypatch: Patch) -> None:
    """The command, on tiny sizes."""
    monkeypatch.setattr(bench, "measure", tiny)


# ------------------------------------------------------------------------------------ the command


@pytest.mark.usefixtures("small")
def test_every_field_of_json_is_documented(capsys: Capture) -> None:
    main(["bench", "--rounds", "2", "--json"])
    printed = capsys.readouterr()
    assert printed.out.count("\n") == 1
    assert printed.err == ""
    result = json.loads(printed.out)
    assert fields(result) == documented("bench")
    tasks = [(row["task"], row["cell"]) for row in result["rows"]]
    assert tasks == [
        *((task, cell) for cell in CELLS for _ in range(2) for task in ("training", "forward")),
        *(("step", cell) for cell in CELLS),
        ("sample", "gru"), ("sample", "lstm"), ("forecast", "gru"),
    ]  # fmt: skip
    assert result["rounds"] == 2
    for row in result["rows"]:
        assert [baseline["name"] for baseline in row["baselines"]] == ["torch"]
        (baseline,) = row["baselines"]
        assert row["seconds"] > 0 < baseline["low"] <= baseline["ratio"] <= baseline["high"]
        drawn = row["task"] in ("sample", "forecast")
        assert (row["p_value"] is None, row["error"] is None) == (not drawn, drawn)
        limited = row["task"] in ("training", "forward")
        assert (row["limit"] is None, row["gflops"] is None) == (not limited, not limited)
        assert not limited or 0 < row["limit"] < 10
    assert [one["version"] for one in result["installed"]] == [None, None]
    assert result["machine"]["instructions"] == native.instructions()
    assert result["machine"]["threads"] == torch.get_num_threads() == 1


@pytest.mark.usefixtures("small")
def test_what_people_see(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "_QUIET_SECONDS", math.inf)  # this machine may be slow
    main(["bench", "--quick", "--only", "rnn,step", "--threads", "2"])
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    *head, last = lines
    assert max(map(len, head)) <= 80
    assert "2 of" in lines[0]
    assert "onnxruntime: not installed (pip install onnxruntime onnx)" in lines
    assert "jax: not installed (pip install jax)" in lines
    titles = [line for line in lines if re.match("(GRU|RNN|LSTM), ", line)]
    assert titles == [
        "RNN, forward and backward", "RNN, forward alone", "GRU, one step", "RNN, one step",
        "LSTM, one step",
    ]  # fmt: skip
    rows = [line for line in lines if re.match(r"\d+, \d+, \d+, \d+ ", line)]
    assert [row.split("  ")[0] for row in rows] == (
        ["2, 5, 3, 4", "1, 3, 2, 17"] * 2 + ["1, 1, 3, 5"] * 3
    )
    figures = r" +\d[\d.]* (ms|µs)( +\d[\d.]* %)? +\d[\d.]* ±\d+ %"
    assert all(re.search(figures + "$", row.rstrip()) for row in rows)
    assert last.startswith("Against torch the kernels are ")
    assert torch.get_num_threads() == 1  # as before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "gru,gpu"], "--only gpu: choose among gru, rnn, lstm, step, sample"),
        (["--rounds", "0"], "--rounds 0: it takes at least one"),
        (["--threads", "0"], "--threads 0: it takes at least one"),
    ],
)
def test_options_without_sense(fails: Fails, arguments: list[str], message: str) -> None:
    assert fails("bench", *arguments, code=2) == message


def test_a_missing_library_is_said_with_the_way_to_get_it(fails: Fails, monkeypatch: Patch) -> None:
    monkeypatch.setattr(native, "_library", None)
    monkeypatch.setattr(native, "_wrong", "backend 'cpu' was not built")
    said = fails("bench", "--quick")
    assert said.startswith("backend 'cpu' was not built: install a C++ compiler")


def test_progress_is_reported(alone: None) -> None:
    events: list[tuple[float, float, str]] = []
    tiny(only=["gru"], rounds=2, on_progress=lambda *now: events.append(now))
    assert [now for now in events if now[2] == "checking the numbers"] == [
        (0, 2, "checking the numbers"), (1, 2, "checking the numbers")
    ]  # fmt: skip
    measuring = [done / whole for done, whole, about in events if about == "measuring"]
    assert len(measuring) == 2 * 4
    assert measuring == sorted(measuring)
    assert measuring[0] == 0
    assert measuring[-1] < 1


# --------------------------------------------------------------------------------------- the gate


@pytest.mark.parametrize("cell", CELLS)
def test_right_numbers_pass(cell: str) -> None:
    case = cases.Case(cell, Shape(3, 20, 5, 21))
    truth = gate.training_truth(case)
    errors = gate.check_training(case, truth)
    assert errors.ours < 1e-5
    assert 0 < errors.torch < 1e-5
    count = len(case.start)
    assert len(truth.numbers) == 2 + 2 * count + 4  # y, states, dx, their gradients, weights
    assert gate.check_forward(case, truth).ours <= errors.ours + 1e-6


class _Off(torch.autograd.Function):
    """The identity with a gradient that is a little too large."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> Tensor:
        return slopes[0] * (1 + 1e-4)


def _broken(change: str) -> Callable[..., Any]:
    right = cpu.run

    def run(spec: Any, x: Tensor, state: Any, weights: Any, *rest: Any) -> Any:
        if change == "gradient":
            x = _Off.apply(x)
        if change == "one gradient":
            weights = [*weights[:3], _Off.apply(weights[3])]
        y, state = right(spec, x, state, weights, *rest)
        if change == "output":
            y = torch.cat([y[:-1], y[-1:] * (1 + 1e-4)])
        if change == "NaN":
            y = torch.where(torch.arange(y.shape[-1]) == 2, torch.nan, y)
        return y, state

    return run


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ("output", "output"),
        ("NaN", "output"),
        ("gradient", "gradient of input"),
        ("one gradient", "gradient of bias_hh_l0"),
    ],
)
@pytest.mark.usefixtures("small")
def test_wrong_numbers_end_the_command(
    fails: Fails, monkeypatch: Patch, change: str, where: str
) -> None:
    monkeypatch.setattr(cpu, "run", _broken(change))
    said = fails("bench", "--only", "gru", "--rounds", "1", "--json")
    assert said.startswith(
        "the kernels compute wrong numbers here: GRU at 2, 5, 3, 4 forward and backward, "
        f"{where}: off by "
    )
    assert "backend='torch'" in said


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_wrong_steps_do_not_pass(monkeypatch: Patch, cell: str) -> None:
    right = cpu.Steps.__call__

    def step(steps: Any, x: Tensor, h: Tensor, c: Any) -> Any:
        return right(steps, x * (1 + 1e-4), h, c)

    case = cases.StepCase(cell, Shape(1, 1, 3, 5))
    truth = gate.step_truth(case)
    assert gate.check_step(case, truth).ours < 1e-6
    monkeypatch.setattr(cpu.Steps, "__call__", step)
    with pytest.raises(BackendError, match=f"a step of {cell.upper()} at 1, 1, 3, 5, h: off by"):
        gate.check_step(case, truth)


@pytest.mark.parametrize(
    ("task", "cell"), [("sample", "gru"), ("sample", "lstm"), ("forecast", "gru")]
)
def test_draws_from_a_wrong_distribution_do_not_pass(
    monkeypatch: Patch, task: str, cell: str
) -> None:
    drawing = Drawing(task, cell, Shape(1, 20, 6 if task == "sample" else 5, 8))
    assert drawing.check() > 1e-3
    right = LatentAutoregressive.sample

    def sample(self: Any, length: int, **options: Any) -> Tensor:
        if task == "forecast":
            return 1.1 * right(self, length, **options)
        return right(self, length, temperature=0.8, **options)

    monkeypatch.setattr(LatentAutoregressive, "sample", sample)
    with pytest.raises(
        BackendError, match=f"draw from a wrong distribution here: {task} of {cell.upper()}"
    ):
        drawing.check()


def test_draws_that_forget_their_past_do_not_pass(monkeypatch: Patch) -> None:
    drawing = Drawing("sample", "gru", Shape(1, 20, 6, 8))
    right = LatentAutoregressive.sample

    def sample(self: Any, length: int, **options: Any) -> Tensor:
        drawn = right(self, length, **options)
        return torch.cat([drawn[:1], drawn[:-1]]).roll(1, 1)  # of another path, a step late

    monkeypatch.setattr(LatentAutoregressive, "sample", sample)
    with pytest.raises(BackendError, match="wrong distribution"):
        drawing.check()


# ---------------------------------------------------------------------------------- the baselines


def _baseline(case: Any, off: float) -> tuple[timing.Contender, cases.Numbers]:
    numbers = gate.forward_truth(case).numbers
    return timing.Contender("onnxruntime", lambda count: None), {
        name: value.float() * (1 + off) for name, value in numbers.items()
    }


@pytest.mark.parametrize("off", [0.0, 0.01])
def test_a_baseline_that_computes_something_else_is_not_timed(
    monkeypatch: Patch, off: float
) -> None:
    monkeypatch.setattr(baselines, "installed", lambda name: name == "onnxruntime")
    monkeypatch.setattr(baselines, "onnx_forward", lambda case: _baseline(case, off))
    result = tiny(only=["gru"], rounds=1, shapes=[Shape(2, 5, 3, 4)])
    forward = result["rows"][1]
    timed = [baseline["name"] for baseline in forward["baselines"]]
    assert timed == (["torch"] if off else ["torch", "onnxruntime"])
    said = (
        "onnxruntime computes other numbers for GRU at 2, 5, 3, 4 (forward) and is not timed there"
    )
    assert result["notes"] == ([said] if off else [])


@pytest.mark.parametrize("cell", CELLS)
def test_onnxruntime_computes_the_same(cell: str) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    case = cases.Case(cell, Shape(3, 7, 5, 6))
    _, numbers = baselines.onnx_forward(case)
    truth = gate.forward_truth(case)
    assert set(numbers) == set(truth.numbers)
    assert max(truth.error(name, value) for name, value in numbers.items()) < 1e-5
    step = cases.StepCase(cell, Shape(1, 1, 5, 6))
    contender, numbers = baselines.onnx_step(step)
    truth = gate.step_truth(step)
    assert max(truth.error(name, value) for name, value in numbers.items()) < 1e-5
    contender.run(3)


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("cell", CELLS)
def test_jax_computes_the_same(cell: str, training: bool) -> None:
    pytest.importorskip("jax")
    case = cases.Case(cell, Shape(3, 7, 5, 6))
    contender, numbers = baselines.jax_scan(case, training)
    truth = gate.training_truth(case)
    assert len(numbers) == (len(truth.numbers) if training else 1 + len(case.start))
    assert max(truth.error(name, value) for name, value in numbers.items()) < 1e-5
    contender.run(2)


# ------------------------------------------------------------------------------ rounds and figures


class _Clock:
    """Time that passes only when a contender works."""

    def __init__(self, monkeypatch: Patch) -> None:
        self.now, self.order = 0.0, []
        monkeypatch.setattr(timing.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(timing.time, "sleep", lambda seconds: None)

    def contender(self, name: str, costs: list[float]) -> timing.Contender:
        left = list(costs)

        def run(count: int) -> None:
            self.order.append((name, count))
            self.now += count * (left.pop(0) if len(left) > 1 else left[0])

        return timing.Contender(name, run)


def test_each_has_its_turn_and_short_calls_are_repeated(monkeypatch: Patch) -> None:
    clock = _Clock(monkeypatch)
    names = [clock.contender("ours", [1e-3]), clock.contender("torch", [0.5])]
    race = timing.Race(names, least=0.01)
    race.warm()
    assert race.calls == {"ours": 10, "torch": 1}
    assert race.cost == pytest.approx(11 * 1e-3 + 0.5, abs=0.02)
    clock.order.clear()
    race.round(0)
    race.round(1)
    warm, ours, torchs = ("ours", 1), ("ours", 10), ("torch", 1)
    assert clock.order == [warm, ours, torchs, torchs, warm, ours]
    assert race.seconds == {"ours": pytest.approx([1e-3] * 2), "torch": pytest.approx([0.5] * 2)}
    assert race.ratio("torch", "ours").median == pytest.approx(500)


def test_ratios_are_of_rounds_with_quartiles() -> None:
    race = timing.Race([], least=0.01)
    race.seconds = {"ours": [1, 2, 1, 1, 4], "torch": [2, 8, 3, 5, 4]}
    assert race.ratio("torch", "ours") == timing.Ratio(median=3, low=2, high=4)
    assert race.median("ours") == 1
    assert timing.spread([2.5]) == timing.Ratio(2.5, 2.5, 2.5)


def test_operations_are_counted_and_compared_with_the_limit() -> None:
    shape = Shape(batch=2, steps=3, inputs=5, hidden=7)
    assert cases.work("gru", shape, training=False) == 2 * 3 * 2 * 3 * 7 * (5 + 7)
    assert cases.work("lstm", shape, training=True) == 3 * 2 * 3 * 2 * 4 * 7 * (5 + 7)
    race = timing.Race([timing.Contender(n, print) for n in ("ours", "torch", "limit")], 0.01)
    race.seconds = {"ours": [2.0], "torch": [3.0], "limit": [1.0]}
    row = bench.Row("forward", "gru", shape, race, work=machine.LIMIT_WORK)
    measured = row.result()
    assert measured["limit"] == 0.5  # the work of the product in twice its time
    assert measured["gflops"] == pytest.approx(machine.LIMIT_WORK / 2 / 1e9)
    assert [(baseline["name"], baseline["ratio"]) for baseline in measured["baselines"]] == [
        ("torch", 1.5)
    ]


def _row(task: str, **ratios: float) -> dict[str, Any]:
    return {
        "task": task, "cell": "gru", "batch": 64, "steps": 128, "inputs": 128, "hidden": 512,
        "seconds": 0.262, "limit": 0.071 if task == "training" else None,
        "baselines": [{"name": name, "ratio": ratio, "low": 0.9 * ratio, "high": 1.1 * ratio}
                  for name, ratio in ratios.items()],
    }  # fmt: skip


def test_cases_that_lose_are_not_hidden() -> None:
    rows = [_row("training", torch=1.5, jax=0.996), _row("training", torch=75.04, jax=12.3)]
    said = words.sentence([*rows, _row("step", torch=0.5, onnxruntime=2.0)])
    assert said == (
        "Against torch the kernels are 1.50 to 75.0 times as fast forward and backward and 0.50 "
        "times one step at a time; a baseline is faster in GRU 64×128×128×512 step (torch, 0.50), "
        "GRU 64×128×128×512 training (jax, 0.99)."
    )
    assert words.sentence(rows[1:]).endswith(
        "forward and backward; no baseline is faster anywhere."
    )
    assert "in 4 cases, most of all in" in words.sentence([rows[0]] * 4)
    result = {
        "machine": dict.fromkeys(
            ("cpu", "instructions", "threads", "cores", "throughtime", "torch", "python"), "1"
        ),
        "installed": [{"name": "jax", "version": "0.9", "install": None}],
        "limit_gflops": 310.2, "rounds": 5, "rows": rows, "notes": ["a note"], "sentence": said,
    }  # fmt: skip
    console = Console(record=True, width=80, force_terminal=True, color_system="standard")
    console.print(table.page(result), soft_wrap=True)
    printed_lines = console.export_text(styles=True).splitlines()
    losing = [line for line in printed_lines if "0.99 ±10 %" in line]
    assert len(losing) == 1
    assert "\x1b[1;31m 0.99 ±10 %" in losing[0]
    assert "\x1b[1;31m" not in "".join(line for line in printed_lines if line not in losing)
    assert "262 ms" in losing[0]
    assert "7.1 %" in losing[0]
    assert "a note" in printed_lines
    assert printed_lines[-1] == said


def test_threads_are_put_back_after_a_failure() -> None:
    def fail() -> None:
        with machine.threads(2):
            assert torch.get_num_threads() == 2
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert torch.get_num_threads() == 1
