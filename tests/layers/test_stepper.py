"""tt.Stepper: the numbers of the layer as it was, and nothing shared with anybody."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from support.native_cases import KINDS, flat, half, layer, random_state, same
from torch import nn
from torch.nn.utils import parametrizations, prune

import throughtime as tt
from throughtime import state as states
from throughtime.errors import SettingError


def detached(state: Any) -> Any:
    return states.apply(lambda part: part.detach(), state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 3, 8, 20])
@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_the_sequence_call(kind: str, batch: int, dtype: torch.dtype) -> None:
    ours = layer(kind, 3, 37, 2, dtype=dtype)
    stepper = tt.Stepper(ours)
    x = torch.randn(6, batch, 3, dtype=dtype)
    for state in (None, detached(random_state(ours, batch))):
        y, final = ours(x, state)
        outputs, after = [], state
        for x_t in x:
            y_t, after = stepper(x_t, after)
            outputs.append(y_t)
        tolerance = (
            {"rtol": 1e-10, "atol": 1e-12}
            if dtype == torch.float64
            else {"atol": 1e-5, "rtol": 1e-5}
        )
        same([torch.stack(outputs), *states.leaves(after)], flat((y, final)), **tolerance)
        assert not any(one.requires_grad for one in [*outputs, *states.leaves(after)])


@pytest.mark.parametrize("kind", KINDS)
def test_safe_steps_are_the_sequence_call_too(kind: str) -> None:
    ours = layer(kind, 3, 5, 2, batch_first=True)
    x, state = torch.randn(2, 3).double(), random_state(ours, 2)
    y, after = ours(x.unsqueeze(1), state)
    same(flat(ours.step(x, state)), flat((y.squeeze(1), after)))
    one = states.index(state, slice(0, 1))
    alone = states.apply(lambda part: part.squeeze(1), one)
    same([ours.step(x[0], alone)[0]], [y[0, 0]])
    same([tt.Stepper(ours)(x[0], detached(alone))[0]], [y[0, 0]])


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_are_those_of_the_moment_it_was_made(kind: str) -> None:
    ours = layer(kind, 3, 5)
    x = torch.randn(2, 3).double()
    stepper, before = tt.Stepper(ours), ours.step(x)[0].detach()
    with torch.no_grad():
        for weight in ours.parameters():
            weight.mul_(2)
    assert torch.equal(stepper(x)[0], before) or torch.allclose(stepper(x)[0], before, atol=1e-12)
    assert not torch.allclose(tt.Stepper(ours)(x)[0], before)
    same([tt.Stepper(ours)(x)[0]], [ours.step(x)[0]])


def pruned(module: nn.Module) -> nn.Module:
    prune.l1_unstructured(module, "weight_hh_l0", 0.5)
    return module


HOOKED = {
    "pruned": pruned,
    "weight norm": lambda m: parametrizations.weight_norm(m, "weight_hh_l0"),
    "old weight norm": lambda m: nn.utils.weight_norm(m, "weight_hh_l0"),
    "old spectral norm": lambda m: nn.utils.spectral_norm(m, "weight_hh_l0").eval(),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
@pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous")
@pytest.mark.parametrize("made", ["ours", "accelerated"])
@pytest.mark.parametrize("how", HOOKED)
def test_weights_that_are_computed_are_never_stale(how: str, made: str) -> None:
    torch.manual_seed(0)
    plain = tt.GRU(3, 5) if made == "ours" else tt.accelerate(nn.GRU(3, 5))
    module: Any = HOOKED[how](plain)
    x, h = torch.randn(2, 3), torch.randn(1, 2, 5)
    optimiser = torch.optim.SGD(module.parameters(), 1.0)
    for _ in range(2):
        module(x[None], h)[0].square().sum().backward()
        optimiser.step()
        with torch.no_grad():
            stepped, frozen = module.step(x, h)[0], tt.Stepper(module)(x, h)[0]
            right = module(x[None], h)[0][0]
        torch.testing.assert_close(stepped, right)
        torch.testing.assert_close(frozen, right)


@pytest.mark.parametrize("kind", KINDS)
def test_states_are_values_of_their_own(kind: str) -> None:
    """No view of anything: small files, and changes in place that reach nobody else."""
    ours = layer(kind, 3, 5)
    stepper, x = tt.Stepper(ours), torch.randn(2, 3).double()
    y, state = stepper(x)
    kept = states.clone(state)
    for part in [y, *states.leaves(state)]:
        assert part.untyped_storage().nbytes() == part.numel() * 8
    y.mul_(3)
    same(list(states.leaves(state)), list(states.leaves(kept)))
    first = stepper(x, state)[0]
    for part in states.leaves(state):
        part.data = torch.zeros_like(part)
    same([stepper(x, state)[0]], [stepper(x)[0]])
    same([first], [stepper(x, kept)[0]])


def test_wrong_calls_have_the_sentences_of_the_layer() -> None:
    gru, lstm = layer("gru", 3, 5), layer("lstm", 3, 5)
    x, h = torch.randn(2, 3).double(), torch.zeros(1, 2, 5).double()
    for module, state in ((lstm, h), (gru, (h, h)), (lstm, (h, h, h)), (gru, [h, h])):
        for call in (module.step, tt.Stepper(module)):
            with pytest.raises(SettingError, match=r"the state of a layer '\w+' is (one|the pair)"):
                call(x, state)
    for state in (
        torch.zeros(2, 2, 5).double(),
        torch.zeros(1, 3, 5).double(),
        h.float(),
        h.to("meta"),
    ):
        for call in (gru.step, tt.Stepper(gru)):
            with torch.no_grad(), pytest.raises(RuntimeError, match=r"hidden|same d(type|evice)"):
                call(x, state)
    away = tt.GRU(3, 5, device="meta")
    for call in (away.step, tt.Stepper(away)):
        with torch.no_grad(), pytest.raises((RuntimeError, SettingError)):
            call(x.float(), h.float())
    with pytest.raises(SettingError, match="it needs the future"):
        tt.Stepper(tt.GRU(3, 5, bidirectional=True))
    with pytest.raises(SettingError, match=r"would drop out; call eval\(\) first"):
        tt.Stepper(tt.GRU(3, 5, 2, dropout=0.5))
    assert tt.Stepper(tt.GRU(3, 5, 2, dropout=0.5).eval()).layer.dropout == 0
    with pytest.raises(SettingError, match=r"a Stepper takes a layer such as tt\.GRU, not a GRU"):
        tt.Stepper(nn.GRU(3, 5))


def test_dropout_between_layers_is_drawn_in_steps_too() -> None:
    module = tt.GRU(3, 50, 2, dropout=0.5).train()
    for rows in (2, 20):
        x = torch.randn(rows, 3)
        with torch.no_grad():
            spread = torch.stack([module.step(x)[0] for _ in range(20)]).std(0).mean()
        assert spread > 0.005


@pytest.mark.parametrize("kind", ["gru", "lstm"])
def test_threads_may_share_one_and_copies_are_whole(kind: str) -> None:
    ours = layer(kind, 3, 40, dtype=torch.float32)
    stepper, x = tt.Stepper(ours), torch.randn(50, 3)

    def walk(row: int) -> Any:
        state = None
        for _ in range(200):
            _, state = stepper(x[row : row + 1], state)
        return state

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(walk, range(16)))
    for row in (0, 7, 15):
        same(list(states.leaves(together[row])), list(states.leaves(walk(row))))
    state = half(random_state(ours, 1))
    for twin in (copy.deepcopy(stepper), pickle.loads(pickle.dumps(stepper))):
        same(flat(twin(x[:1], state)), flat(stepper(x[:1], state)))
    assert repr(stepper) == f"Stepper({ours})"


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_other_backends_and_layers_step_as_they_do(backend: str) -> None:
    ours = layer("gru", 3, 5, backend=backend)
    x = torch.randn(2, 3).double()
    same([tt.Stepper(ours)(x)[0]], [ours.step(x)[0]])
    mingru = tt.MinGRU(3, 5).double()
    same([tt.Stepper(mingru)(x)[0]], [mingru.step(x)[0]])
    projected = tt.LSTM(3, 5, proj_size=2).double()
    same([tt.Stepper(projected)(x)[0]], [projected.step(x)[0]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert tt.Stepper(layer("gru", 3, 5, dtype=torch.float32))(x.bfloat16())[0].shape == (2, 5)
