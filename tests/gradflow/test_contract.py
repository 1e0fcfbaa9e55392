"""The contract of a loss: what is refused by every tool, what is let through, and rounding."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.batches import SIZE, STEPS, Tagger

import throughtime as tt
from throughtime.errors import NonFiniteError, SettingError
from throughtime.gradflow import _contract as contract
from throughtime.gradflow._contract import Places

TOOLS: dict[str, Any] = {
    "full": lambda loss, batch, state: tt.bptt.Full().backward(loss, batch, state),
    "truncated": lambda loss, batch, state: tt.bptt.Truncated(4).backward(loss, batch, state),
    "ledger": lambda loss, batch, state: tt.gradflow.ledger(loss, batch, state, max_lag=3),
    "adjoints": lambda loss, batch, state: tt.gradflow.adjoints(loss, batch, state),
    "jacobian norms": lambda loss, batch, state: tt.gradflow.jacobian_norms(loss, batch, state),
    "lyapunov": lambda loss, batch, state: tt.gradflow.lyapunov(loss, batch, state, num=1),
    "saturation": lambda loss, batch, state: tt.gradflow.saturation(loss, batch, state),
}


def message(tool: str, loss: Any, net: Tagger, error: type[Exception] = SettingError) -> str:
    with pytest.raises(error) as caught:
        TOOLS[tool](loss, net.batch, net.state)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("tool", TOOLS)
def test_a_module_that_keeps_its_state_inside_is_refused(tool: str) -> None:
    net, calls = Tagger("tuple"), []

    def loss(batch: Any, state: Any) -> Any:
        calls.append(1)
        value, state = net.loss(batch, state)
        return value * len(calls), state * len(calls)

    assert "a module keeps hidden state inside; pass it in and return it" in message(
        tool, loss, net
    )


@pytest.mark.parametrize("tool", TOOLS)
def test_a_loss_that_is_no_scalar_is_refused(tool: str) -> None:
    net = Tagger("tuple")
    loss = lambda batch, state: (net.loss(batch, state)[0].expand(2), state)  # noqa: E731
    assert "must return a scalar, then the state; got shape [2]" in message(tool, loss, net)


@pytest.mark.parametrize("tool", ["truncated", "ledger", "adjoints", "saturation"])
def test_a_mean_over_time_is_refused_where_time_is_cut(tool: str) -> None:
    net = Tagger("tuple")

    def mean(batch: Any, state: Any) -> Any:
        value, state = net.loss(batch, state)
        return value / len(batch[0]), state

    assert "not a sum over time" in (said := message(tool, mean, net))
    assert "return the sum over time, not a mean" in said


@pytest.mark.parametrize("tool", ["truncated", "ledger", "adjoints", "jacobian norms", "lyapunov"])
def test_what_is_not_finite_is_placed(tool: str) -> None:
    net = Tagger("tuple")

    def loss(batch: Any, state: Any) -> Any:
        value, state = net.loss((batch[0], batch[1].clamp(max=4)), state)
        return value / (~(batch[1] == 9).any()).double(), state

    net.batch[1][13, 1] = 9
    said = message(tool, loss, net, NonFiniteError)
    assert "the loss is infinite or NaN in steps" in said
    assert "first in step 13; look for extreme values" in said


@pytest.mark.parametrize("tool", ["full", "truncated", "ledger"])
def test_random_numbers_of_the_loss_are_no_hidden_state(tool: str) -> None:
    """Dropout, and noise from a generator of the loss's own."""
    net, mine = Tagger("tuple"), torch.Generator()

    def loss(batch: Any, state: Any) -> Any:
        value, state = net.loss(batch, state)
        noise = torch.rand((), generator=mine, dtype=torch.float64) + torch.rand(()).double()
        return value * noise, state

    before = torch.get_rng_state(), mine.get_state()
    checked = contract.check(loss, tt.gradflow.along_time(net.batch), net.state, Places(0, 2, 4))
    assert checked
    assert torch.equal(torch.get_rng_state(), before[0])
    assert torch.equal(mine.get_state(), before[1])
    TOOLS[tool](loss, net.batch, net.state)
    if tool == "ledger":
        assert torch.equal(torch.get_rng_state(), before[0])


def test_batch_first_data_are_told_apart_by_every_tool() -> None:
    layer = tt.GRU(SIZE, SIZE, batch_first=True)

    def loss(batch: Any, state: Any) -> Any:
        y, state = layer(batch, state)
        return y.square().sum(), state

    x, params = torch.randn(6, STEPS, SIZE), dict(layer.named_parameters())
    start = torch.zeros(1, 6, SIZE)
    for state, pattern in (
        (None, "the state after .* at once has"),
        (start, "6 along dim 0, .* 23"),
    ):
        for tool in (
            lambda s: tt.gradflow.ledger(loss, x, s, params),
            lambda s: tt.gradflow.adjoints(loss, x, s),
            lambda s: tt.gradflow.saturation(loss, x, s),
            lambda s: tt.gradflow.examine(loss, x, s, params, 4),
        ):
            with pytest.raises(SettingError, match=rf"rows before time: {pattern}"):
                tool(state)
    for given in (tt.gradflow.jacobian_norms, tt.gradflow.lyapunov, tt.gradflow.step_radius):
        with pytest.raises(SettingError, match="rows before time"):
            given(loss, x, start)


def test_tensors_agree_up_to_rounding_and_whole_numbers_exactly() -> None:
    one = torch.tensor([1.0, 1e-3, float("nan")], dtype=torch.float64)
    assert contract.alike([one], [one + 5e-10])
    assert not contract.alike([one], [one + 5e-9])
    assert not contract.alike([one], [one.float()])
    assert contract.alike([one.float()], [one.float() * (1 + 5e-5)])
    assert not contract.alike([torch.tensor([3])], [torch.tensor([4])])
    assert not contract.alike([one], [one, one])
    assert contract.agree(1.0, 1.0 + 1e-10, 1.0, torch.float64)
    assert not contract.agree(1.0, 1.0 + 1e-6, 1.0, torch.float64)
    assert contract.agree(0.0, 1e-6, 1e4, torch.float64)  # of large losses that cancel
    with torch.autocast("cpu", torch.bfloat16):
        assert contract.rounding(torch.float32, recut=True) > contract.rounding(torch.float32)
