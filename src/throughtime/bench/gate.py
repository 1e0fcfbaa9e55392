"""Nothing is timed before its numbers are right."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from throughtime.bench.cases import Case, Numbers, StepCase, Training, forward, named
from throughtime.errors import BackendError

TIMES_TORCH = 4.0  # ours may be off by this many times what torch is
FLOOR = 1e-6  # and by this share of the largest value: torch is sometimes exact by luck
SAME = 1e-3  # share of the largest value: whether a baseline computes the same thing at all
_STEPS = 20  # after which the states of single steps are compared


@dataclass(frozen=True)
class Errors:
    """Largest differences from float64, as shares of the largest value of each array."""

    ours: float
    torch: float


@dataclass(frozen=True)
class Truth:
    """What torch computes in float64."""

    numbers: Numbers

    def error(self, name: str, value: Tensor) -> float:
        """The largest difference, as a share of the largest true value; NaN if there is one."""
        true = self.numbers[name]
        if value.shape != true.shape:
            return float("nan")
        size = true.abs().amax().clamp(min=torch.finfo(torch.float32).tiny)
        return float((value.double() - true).abs().amax() / size)

    def compare(self, what: str, ours: Numbers, torchs: Numbers) -> Errors:
        """Compares ours and torch's float32. Raises BackendError where ours is wrong."""
        worst = Errors(0.0, 0.0)
        for name, value in ours.items():
            error, allowed = self.error(name, value), self.error(name, torchs[name])
            if not error <= TIMES_TORCH * allowed + FLOOR:
                raise BackendError(
                    f"the kernels compute wrong numbers here: {what}, {name}: off by {error:.1e} "
                    f"of the largest value, torch by {allowed:.1e}; use backend='torch' and "
                    "report this with what throughtime doctor prints"
                )
            worst = Errors(max(worst.ours, error), max(worst.torch, allowed))
        return worst

    def agrees(self, baseline: Numbers) -> bool:
        """Whether a baseline computes the same."""
        return all(self.error(name, value) <= SAME for name, value in baseline.items())


def forward_truth(case: Case) -> Truth:
    """Output and final state."""
    double = case.double()
    return Truth(named(case, forward(double, double.theirs)))


def training_truth(case: Case) -> Truth:
    """Output, final state and every gradient."""
    double = case.double()
    return Truth(named(case, *Training(double, double.theirs)()))


def step_truth(case: StepCase) -> Truth:
    """The state after some steps."""
    return Truth(step_numbers(case.run_torch(_STEPS, torch.float64)))


def step_numbers(state: tuple[Tensor, ...]) -> Numbers:
    """A state under the names that all contenders share."""
    return dict(zip(("h", "c"), state, strict=False))


def check_forward(case: Case, truth: Truth) -> Errors:
    """Without gradients. Raises BackendError where ours is wrong."""
    both = [named(case, forward(case, layer)) for layer in (case.ours, case.theirs)]
    return truth.compare(f"{case} forward", *both)


def check_training(case: Case, truth: Truth) -> Errors:
    """Values and all gradients. Raises BackendError where ours is wrong."""
    both = [named(case, *Training(case, layer)()) for layer in (case.ours, case.theirs)]
    return truth.compare(f"{case} forward and backward", *both)


def check_step(case: StepCase, truth: Truth) -> Errors:
    """Single steps. Raises BackendError where ours is wrong."""
    both = [step_numbers(run(_STEPS)) for run in (case.run_ours, case.run_torch)]
    return truth.compare(str(case), *both)


def steps_compared() -> int:
    """After how many steps `step_truth` is the state."""
    return _STEPS
