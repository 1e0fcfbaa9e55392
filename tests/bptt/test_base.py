"""What all gradient methods have in common: any batch that can be cut along time, one contract."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from support.batches import KINDS, ROWS, SIZE, STEPS, Tagger
from torch import nn

import throughtime as tt
from throughtime import bptt
from throughtime import state as states
from throughtime.errors import SettingError

# Set so that nothing is cut off, cut at random or left out: each is the whole gradient.
EXACT: dict[str, bptt.GradientMethod] = {
    "full": bptt.Full(),
    "truncated": bptt.Truncated(k1=7, k2=STEPS + 7),
    "checkpointed": bptt.Checkpointed(slots=3),
    "checkpointed in memory": bptt.Checkpointed(memory="30kB"),
    "adaptive": bptt.Adaptive(bias=1e-13),
    "randomized": bptt.Randomized(mean_lag=1e15),
    "online": bptt.Online(k1=5),
}


def close(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("kind", KINDS)
def test_every_method_differentiates_every_kind_of_batch(kind: str, name: str) -> None:
    online = name == "online"
    net = Tagger(kind, tt.MinGRU if online else tt.LSTM)
    expected_loss, expected_state, expected = net.exact()
    start = net.layer.traced(net.state) if online else net.state  # type: ignore[operator]
    loss, state = EXACT[name].backward(net.loss, net.batch, start)
    close(loss, expected_loss)
    close([p.grad for p in net.trained], expected)
    after = [state[0]] if online else list(states.leaves(state))
    close(after, [leaf.detach() for leaf in states.leaves(expected_state)])


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_of_every_kind_are_those_of_plain_autograd(kind: str) -> None:
    net = Tagger(kind)
    state, parts = net.state, []
    for t in range(0, STEPS, 6):
        loss, state = net.core(net.x[t : t + 6], net.y[t : t + 6], state.detach())
        parts.append(loss)
    expected = torch.autograd.grad(sum(parts), list(net.parameters()))
    seen: list[float] = []
    bptt.Truncated(6).backward(net.loss, net.batch, net.state, lambda part: seen.append(part))
    close([p.grad for p in net.parameters()], list(expected))
    close(seen, [part.detach() for part in parts])


def test_an_update_at_a_time_takes_a_pair_as_a_pair() -> None:
    net = Tagger("tuple")
    loss, at = bptt.Truncated(4).advance(net.loss, net.batch, bptt.Position.start(net.state))
    assert at.target == 4
    close(loss, net.core(net.x[:4], net.y[:4], net.state)[0].detach())


METHODS = [bptt.Full(), bptt.Truncated(6), bptt.Checkpointed(slots=3), bptt.Adaptive()]


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_what_cannot_be_cut_along_time_is_said(method: bptt.GradientMethod) -> None:
    net = Tagger("tuple")
    with pytest.raises(SettingError, match=r"batch\[0\] has 23 steps .*, batch\[1\] has 2;"):
        method.backward(net.loss, (net.x, net.y[:2]), net.state)
    with pytest.raises(SettingError, match=r"^batch\[1\] is a float, which cannot be cut"):
        method.backward(net.loss, (net.x, 0.5), net.state)


def rows_first(layer: Any, state: Any) -> tuple[Any, Any, Any]:
    """A loss over a batch-first layer, with batch and state as such a layer takes them."""
    torch.manual_seed(0)
    rnn = layer(SIZE, SIZE, batch_first=True)

    def loss(batch: Any, state: Any) -> tuple[torch.Tensor, Any]:
        y, state = rnn(batch, state)
        return y.square().sum(), state

    start = torch.zeros(1, ROWS, SIZE) if state else None
    return loss, torch.randn(ROWS, STEPS, SIZE), start


@pytest.mark.parametrize("layer", [tt.GRU, nn.GRU])
@pytest.mark.parametrize("method", METHODS[1:], ids=str)
def test_batch_first_data_are_told_apart(layer: Any, method: bptt.GradientMethod) -> None:
    loss, batch, state = rows_first(layer, state=False)
    with pytest.raises(SettingError, match=r"rows before time: the state after 2 steps .* \[T, B,"):
        method.backward(loss, batch, state)
    loss, batch, state = rows_first(layer, state=True)
    with pytest.raises(SettingError, match=r"rows before time: 3 along dim 0, .* and 23 along dim"):
        method.backward(loss, batch, state)


@pytest.mark.parametrize("method", METHODS, ids=str)
def test_data_with_as_many_steps_as_rows_are_no_batch_first_data(method: Any) -> None:
    net = Tagger("tuple")
    batch = (net.x[:ROWS], net.y[:ROWS])
    loss, _ = method.backward(net.loss, batch, net.state)
    close(loss, net.core(*batch, net.state)[0].detach())


@pytest.mark.parametrize("whole", [True, False])
def test_a_state_with_a_dim_of_time_is_no_batch_first_data(whole: bool) -> None:
    """A state of all steps so far (keys of attention), and one of the last segment's outputs."""
    weight = torch.ones((), dtype=torch.float64, requires_grad=True)

    def loss(batch: Any, state: Any) -> tuple[torch.Tensor, Any]:
        now = batch.transpose(0, 1)  # [B, T, D]
        seen = now if state is None or not whole else torch.cat([state, now], 1)
        return (weight * batch).sum(), seen

    total, state = bptt.Truncated(2).backward(loss, torch.ones(9, 2, 3).double(), None)
    assert float(total) == 54.0
    assert state.shape == (2, 9 if whole else 1, 3)


def test_an_error_of_the_loss_itself_is_left_alone() -> None:
    def loss(batch: Any, state: Any) -> Any:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        bptt.Full().backward(loss, torch.zeros(5, 2, 1), torch.zeros(1, 2, 1))


def test_what_a_loss_returns_is_looked_at() -> None:
    with pytest.raises(SettingError, match="must return a scalar, then the state; got a Tensor"):
        bptt.Full().backward(lambda batch, state: batch.sum(), torch.ones(5, 2), None)
    with pytest.raises(SettingError, match="depends on no parameter"):
        bptt.Full().backward(lambda batch, state: (batch.sum(), state), torch.ones(5, 2), None)
