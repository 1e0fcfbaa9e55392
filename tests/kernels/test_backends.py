"""Every backend with every layout of its inputs: right numbers, nothing of the caller's touched."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.native_cases import (
    IN_TORCH,
    KINDS,
    flat,
    gradients,
    laid_out,
    layer,
    random_state,
    same,
)
from torch import Tensor

from throughtime import state as states
from throughtime.errors import SettingError
from throughtime.kernels import native

LAYOUTS = ("plain", "transposed", "every second", "expanded in time", "expanded in batch", "rows")
BACKENDS = (*(["cpu"] if native.available() else []), "torch")


def backends(kind: str) -> list[str]:
    return [name for name in BACKENDS if name != "torch" or kind in IN_TORCH]


@given(
    kind=st.sampled_from(KINDS),
    layout=st.sampled_from(LAYOUTS),
    steps=st.integers(1, 12),
    batch=st.integers(1, 4),
    layers=st.integers(1, 2),
    both=st.booleans(),
    batch_first=st.booleans(),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    start=st.sampled_from(["zeros", "one for all", "one each"]),
    seed=st.integers(0, 10**6),
)
def test_restarts_in_every_layout_change_nothing_that_was_given(
    kind: str, layout: str, steps: int, batch: int, layers: int, both: bool, batch_first: bool,
    density: float, start: str, seed: int,
) -> None:  # fmt: skip
    options = {"bidirectional": both, "batch_first": batch_first}
    truth = layer(kind, 3, 5, layers, backend="reference", **options)
    torch.manual_seed(seed)
    x = laid_out(layout, steps, batch, 3)
    reset = torch.rand(steps, batch) < density
    if batch_first:
        x, reset = x.transpose(0, 1), reset.t()
    rows = {"zeros": None, "one for all": 1, "one each": batch}[start]
    state = states.detach(random_state(truth, batch))
    initial = None if rows is None else states.detach(random_state(truth, rows))
    inputs = [x, reset, *states.leaves(state), *states.leaves(initial)]
    copies = [one.clone() for one in inputs]
    expected = flat(truth(x, state, reset, initial))
    slopes = gradients(expected, list(truth.parameters()))
    for name in backends(kind):
        ours = layer(kind, 3, 5, layers, backend=name, **options)
        actual = flat(ours(x, state, reset, initial))
        assert all(map(torch.equal, inputs, copies)), f"{name} writes into what it was given"
        same(actual, expected, [f"{name}: {i}" for i in range(len(actual))])
        same(gradients(actual, list(ours.parameters())), slopes)


@pytest.mark.parametrize("both", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_no_steps_leave_the_state_as_it_is(kind: str, batch_first: bool, both: bool) -> None:
    x = torch.zeros((2, 0, 3) if batch_first else (0, 2, 3), dtype=torch.float64)
    for name in ("auto", "reference", *backends(kind)):
        ours = layer(kind, 3, 5, 2, backend=name, batch_first=batch_first, bidirectional=both)
        state = random_state(ours, 2)
        y, after = ours(x, state)
        assert y.shape == (*x.shape[:2], 10 if both else 5)
        same(list(states.leaves(after)), list(states.leaves(state)))
        assert ours(x)[0].shape == y.shape


@pytest.mark.parametrize("kind", KINDS)
def test_what_rows_cannot_restart_from_is_refused(kind: str) -> None:
    x, reset = torch.randn(4, 3, 3).double(), torch.ones(4, 3, dtype=torch.bool)

    def of(*shape: int, dtype: torch.dtype = torch.float64) -> Any:
        part: Tensor = torch.zeros(shape, dtype=dtype)
        return (part, part) if kind == "lstm" else part

    for name in ("reference", *backends(kind)):
        ours = layer(kind, 3, 5, 2, backend=name)
        for shape in ((3, 1, 5), (1, 1, 5), (2, 2, 5), (2, 1, 4), (2, 5)):
            with pytest.raises(SettingError, match=r"initial must be \[2, 1 or 3, 5\] on cpu, got"):
                ours(x, None, reset, of(*shape))
        with pytest.raises(SettingError, match=f"the state of a layer '{kind}' is"):
            ours(x, None, reset, (of(2, 1, 5), of(2, 1, 5), of(2, 1, 5)))
