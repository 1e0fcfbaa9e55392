"""How fast the kernels are on this machine, beside torch and what else is installed.

Every row passes a gate before it is timed: ours in float32 against torch in float64, values and all
gradients. Then rounds in which every contender has its turn, in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from throughtime.bench import baselines, gate, machine
from throughtime.bench.cases import (
    CELLS,
    SHAPES,
    STEPS,
    Case,
    Numbers,
    Shape,
    StepCase,
    Training,
    forward,
    work,
)
from throughtime.bench.drawing import FORECASTS, TEXTS, Drawing
from throughtime.bench.timing import Contender, Race, spread
from throughtime.bench.words import sentence
from throughtime.errors import SettingError
from throughtime.kernels import native

KINDS = (*CELLS, "step", "sample")
Progress = Callable[..., None]
_ROUNDS, _QUICK_ROUNDS = 15, 5
_LEAST, _QUICK_LEAST = 0.01, 0.005  # seconds of one measurement


@dataclass
class Row:
    """One line of the table: a layer, a size and a task."""

    task: str  # "training" (forward and backward), "forward", "step", "sample" or "forecast"
    cell: str
    shape: Shape
    race: Race
    errors: gate.Errors | None = None
    p_value: float | None = None  # of the test of what was drawn
    work: int = 0  # operations, where the share of the machine's limit is of interest
    differing: list[str] = field(default_factory=list)  # baselines that compute something else

    def result(self) -> dict[str, Any]:
        """Medians and ratios, as JSON values."""
        race, seconds = self.race, self.race.median("ours")
        share = None
        if self.work:
            ratio = race.ratio(machine.LIMIT, "ours").median  # times of one product and of ours
            share = ratio * self.work / machine.LIMIT_WORK
        others = [one.name for one in race.contenders if one.name not in ("ours", machine.LIMIT)]
        against = []
        for name in others:
            ratio_ = race.ratio(name, "ours")
            against.append(
                {"name": name, "seconds": race.median(name), "ratio": ratio_.median,
                 "low": ratio_.low, "high": ratio_.high}
            )  # fmt: skip
        return {
            "task": self.task,
            "cell": self.cell,
            **asdict(self.shape),
            "seconds": seconds,
            "gflops": self.work / seconds / 1e9 if self.work else None,
            "limit": share,
            "error": self.errors.ours if self.errors else None,
            "torch_error": self.errors.torch if self.errors else None,
            "p_value": self.p_value,
            "baselines": against,
        }


def measure(
    *,
    only: Collection[str] | None = None,
    rounds: int | None = None,
    threads: int | None = None,
    quick: bool = False,
    on_progress: Progress | None = None,
    shapes: Sequence[Shape] = SHAPES,
    steps: Sequence[Shape] = STEPS,
    texts: Sequence[tuple[str, Shape]] = TEXTS,
    forecasts: Sequence[tuple[str, Shape]] = FORECASTS,
) -> dict[str, Any]:
    """Checks, then times, the native kernels beside their baselines.

    only: of "gru", "rnn", "lstm", "step" and "sample"; all if None. rounds: 15, or 5 if quick.
    threads: as torch has them if None. on_progress: called with what is done, the whole, and what
    is going on. shapes, steps, texts, forecasts: other sizes than those of the published table.
    Returns the fields that docs/commands.md lists for `bench`. Raises BackendError where the
    kernels were not built or compute wrong numbers, SettingError for an option without sense.
    """
    chosen = _chosen(only)
    if rounds is not None and rounds < 1:
        raise SettingError(f"rounds={rounds}: it takes at least one")
    native.library()  # says how to get it where it is missing
    tell = on_progress or (lambda *_: None)
    count = rounds or (_QUICK_ROUNDS if quick else _ROUNDS)
    with machine.threads(threads):
        least = _QUICK_LEAST if quick else _LEAST
        jobs = list(_jobs(chosen, shapes, steps, least))
        if "sample" in chosen:
            drawn = [("sample", *one) for one in texts] + [("forecast", *one) for one in forecasts]
            jobs += [partial(_draws, *one, least) for one in drawn]
        rows: list[Row] = []
        for done, job in enumerate(jobs):
            tell(done, len(jobs), "checking the numbers")
            for row in job():
                row.race.warm()
                rows.append(row)
        _run(rows, count, tell)
        return _report(rows, count)


def _chosen(only: Collection[str] | None) -> list[str]:
    unknown = [name for name in only or () if name not in KINDS]
    if unknown:
        raise SettingError(f"only={','.join(unknown)}: choose among {', '.join(KINDS)}")
    return [kind for kind in KINDS if not only or kind in only]


def _jobs(
    chosen: list[str], shapes: Sequence[Shape], steps: Sequence[Shape], least: float
) -> Iterator[Callable[[], Iterator[Row]]]:
    """What makes the rows: a layer and a size each."""

    for cell in CELLS:
        for shape in shapes if cell in chosen else ():
            yield partial(_sequences, cell, shape, least)
    for cell in CELLS:
        for shape in steps if "step" in chosen else ():
            yield partial(_steps, cell, shape, least)


def _sequences(cell: str, shape: Shape, least: float) -> Iterator[Row]:
    case = Case(cell, shape)
    truth = gate.training_truth(case)
    errors = gate.check_training(case, truth)
    ours, torchs = Training(case, case.ours), Training(case, case.theirs)
    others = {"jax": lambda: baselines.jax_scan(case, training=True)}
    contenders = [Contender("ours", repeat(ours)), Contender("torch", repeat(torchs))]
    yield _row("training", case, errors, truth, contenders, others, least)
    errors = gate.check_forward(case, truth)
    contenders = [
        Contender("ours", repeat(lambda: forward(case, case.ours))),
        Contender("torch", repeat(lambda: forward(case, case.theirs))),
    ]
    others = {
        "onnxruntime": lambda: baselines.onnx_forward(case),
        "jax": lambda: baselines.jax_scan(case, training=False),
    }
    yield _row("forward", case, errors, truth, contenders, others, least)


def _steps(cell: str, shape: Shape, least: float) -> Iterator[Row]:
    case = StepCase(cell, shape)
    truth = gate.step_truth(case)
    errors = gate.check_step(case, truth)
    contenders = [Contender("ours", case.run_ours), Contender("torch", case.run_torch)]
    others = {"onnxruntime": lambda: baselines.onnx_step(case)}
    yield _row("step", case, errors, truth, contenders, others, least)


def _draws(task: str, cell: str, shape: Shape, least: float) -> Iterator[Row]:
    drawing = Drawing(task, cell, shape)
    p_value = drawing.check()
    yield Row(task, cell, shape, Race(drawing.contenders(), least), p_value=p_value)


def _row(
    task: str,
    case: Case | StepCase,
    errors: gate.Errors,
    truth: gate.Truth,
    contenders: list[Contender],
    others: dict[str, Callable[[], tuple[Contender, Numbers]]],
    least: float,
) -> Row:
    """A row of ours, torch, and those baselines that are installed and compute the same."""
    differing = []
    for name, prepare in others.items():
        if not baselines.installed(name):
            continue
        contender, numbers = prepare()
        if truth.agrees(numbers):
            contenders.append(contender)
        else:
            differing.append(name)
    operations = 0
    if task != "step":
        contenders.append(machine.limit())
        operations = work(case.cell, case.shape, task == "training")
    race = Race(contenders, least)
    return Row(
        task, case.cell, case.shape, race, errors, work=operations, differing=differing
    )  # fmt: skip


def _run(rows: list[Row], rounds: int, tell: Progress) -> None:
    """All rows once, and again: a machine that drifts does so for every row."""
    whole, done = sum(row.race.cost for row in rows) * rounds, 0.0
    for turn in range(rounds):
        for row in rows:
            tell(done, whole, "measuring")
            row.race.round(turn)
            done += row.race.cost


def _report(rows: list[Row], rounds: int) -> dict[str, Any]:
    limits = [
        machine.LIMIT_WORK / seconds / 1e9
        for row in rows
        for seconds in row.race.seconds.get(machine.LIMIT, ())
    ]
    results = [row.result() for row in rows]
    return {
        "machine": machine.describe(),
        "limit_gflops": spread(limits).median if limits else None,
        "rounds": rounds,
        "installed": baselines.listed(),
        "rows": results,
        "notes": [
            f"{name} computes other numbers for {row.cell.upper()} at {row.shape} ({row.task}) "
            "and is not timed there"
            for row in rows
            for name in row.differing
        ],
        "sentence": sentence(results),
    }


def repeat(call: Callable[[], object]) -> Callable[[int], None]:
    """Makes a call as often as a contender is asked to."""

    def run(count: int) -> None:
        for _ in range(count):
            call()

    return run
