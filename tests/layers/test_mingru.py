"""MinGRU: the equations of Feng et al. (2024), step by step, against the parallel layer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.model_cases import sequences_of, shaken
from support.profiles import examples
from torch import Tensor

import throughtime as tt
from throughtime.data.batching import Lanes
from throughtime.errors import BackendError, SettingError
from throughtime.models.latent import Dropout

EXACT: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10}


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def by_hand(
    layer: tt.MinGRU, x: Tensor, state: Tensor, reset: Tensor | None = None, initial: Any = None
) -> tuple[Tensor, Tensor]:
    """Row by row and step by step, from the paper's equations."""
    weights, size, finals = dict(layer.named_parameters()), layer.hidden_size, []
    for k in range(layer.num_layers):
        w_z, w_h = weights[f"weight_ih_l{k}"].split(size)
        zero = torch.zeros(2 * size, dtype=x.dtype)
        b_z, b_h = weights.get(f"bias_ih_l{k}", zero).split(size)
        rows = []
        for b in range(x.shape[1]):
            h, outputs = state[k, b], []
            for t in range(len(x)):
                if reset is not None and reset[t, b]:
                    h = torch.zeros_like(h)
                    if initial is not None:
                        h = initial.expand(-1, x.shape[1], -1)[k, b]
                z = 1 / (1 + torch.exp(-(w_z @ x[t, b] + b_z)))
                h = (1 - z) * h + z * (w_h @ x[t, b] + b_h)
                outputs.append(h)
            rows.append(torch.stack(outputs))
        x = torch.stack(rows, 1)
        finals.append(x[-1])
    return x, torch.stack(finals)


@examples(40)
@given(
    steps=st.integers(1, 20),
    rows=st.integers(1, 3),
    layers=st.integers(1, 3),
    bias=st.booleans(),
    restarts=st.sampled_from(["none", "zeros", "one", "each"]),
    seed=st.integers(0, 99),
)
def test_outputs_and_every_gradient(steps, rows, layers, bias, restarts, seed):
    torch.manual_seed(seed)
    layer = tt.MinGRU(3, 4, layers, bias).double()
    x, state = random(steps, rows, 3).requires_grad_(), random(layers, rows, 4).requires_grad_()
    reset = None if restarts == "none" else torch.rand(steps, rows) < 0.3
    initial = None
    if restarts in ("one", "each"):
        initial = random(layers, 1 if restarts == "one" else rows, 4).requires_grad_()
    actual = layer(x, state, reset, initial)
    expected = by_hand(layer, x, state, reset, initial)
    inputs = [x, state, *layer.parameters(), *([] if initial is None else [initial])]
    weights = [random(*part.shape) for part in expected]
    grads = []
    for parts in (actual, expected):
        total = sum((part * w).sum() for part, w in zip(parts, weights, strict=True))
        grads.append(torch.autograd.grad(total, inputs, allow_unused=True, materialize_grads=True))
    torch.testing.assert_close(actual, expected, **EXACT)
    torch.testing.assert_close(grads[0], grads[1], **EXACT)


def test_derivatives_against_finite_differences():
    torch.manual_seed(0)
    layer = tt.MinGRU(2, 3, 2).double()
    reset = torch.tensor([[False, True], [True, False], [False, False]])

    def outputs(x: Tensor, h: Tensor, initial: Tensor, *weights: Tensor) -> Any:
        names = [name for name, _ in layer.named_parameters()]
        named = dict(zip(names, weights, strict=True))
        return torch.func.functional_call(layer, named, (x, h, reset, initial))

    inputs = [random(3, 2, 2), random(2, 2, 3), random(2, 1, 3)]
    inputs = [one.requires_grad_() for one in inputs]
    assert torch.autograd.gradcheck(outputs, (*inputs, *layer.parameters()))
    assert torch.autograd.gradgradcheck(outputs, (*inputs, *layer.parameters()))


@examples(20)
@given(cut=st.integers(1, 29), rows=st.sampled_from([1, 3]), seed=st.integers(0, 9))
def test_chunks_and_single_steps_are_the_sequence(cut, rows, seed):
    torch.manual_seed(seed)
    layer = tt.MinGRU(3, 5, 2).double()
    x = random(30, rows, 3)
    whole, last = layer(x)
    first, state = layer(x[:cut])
    second, state = layer(x[cut:], state)
    torch.testing.assert_close((torch.cat([first, second]), state), (whole, last), **EXACT)
    state = None
    for t in range(30):
        y, state = layer.step(x[t], state)
        torch.testing.assert_close(y, whole[t], **EXACT)
    torch.testing.assert_close(state, last, **EXACT)


def test_rows_do_not_know_each_other_nor_what_was_before_a_restart():
    layer, x = tt.MinGRU(3, 4, 2).double(), random(12, 3, 3)
    reset = torch.zeros(12, 3, dtype=torch.bool)
    reset[5, 1] = True
    initial = random(2, 1, 4)
    whole, _ = layer(x, None, reset, initial)
    alone, _ = layer(x[5:, 1:2], initial)
    torch.testing.assert_close(whole[5:, 1:2], alone, **EXACT)
    torch.testing.assert_close(whole[:, 2:], layer(x[:, 2:], initial)[0], **EXACT)


def test_layouts_are_those_of_torch():
    layer, x = tt.MinGRU(3, 4).double(), random(7, 2, 3)
    first = tt.MinGRU(3, 4, batch_first=True).double()
    first.load_state_dict(layer.state_dict())
    y, state = layer(x)
    reset = torch.rand(7, 2) < 0.4
    turned, same = first(x.transpose(0, 1))
    torch.testing.assert_close((turned.transpose(0, 1), same), (y, state), **EXACT)
    turned, _ = first(x.transpose(0, 1), None, reset.T)
    torch.testing.assert_close(turned.transpose(0, 1), layer(x, None, reset)[0], **EXACT)
    for one in (layer, first):
        result, last = one(x[:, 1], random(1, 4) * 0, reset[:, 1])
        torch.testing.assert_close(result, layer(x, None, reset)[0][:, 1], **EXACT)
        assert last.shape == (1, 4)
    reference = torch.nn.GRU(3, 4, 2).state_dict()
    names = set(tt.MinGRU(3, 4, 2).state_dict())
    assert names == {name for name in reference if "_ih_" in name}


@pytest.mark.parametrize(("steps", "rows"), [(60, 2), (3, 400)])
def test_every_device_gives_the_same(device, steps, rows):
    layer = tt.MinGRU(3, 4).double()
    x, state = random(steps, rows, 3).requires_grad_(), random(1, rows, 4)
    reset = torch.rand(steps, rows) < 0.1
    weight, bias = layer.weight_ih_l0, layer.bias_ih_l0
    (grad,) = torch.autograd.grad(layer(x, state, reset)[0].square().sum(), x)
    assert grad.device.type == device
    with torch.device("cpu"):
        reference = tt.MinGRU(3, 4).double()
        reference.load_state_dict({"weight_ih_l0": weight.cpu(), "bias_ih_l0": bias.cpu()})
        expected = by_hand(reference, x.cpu(), state.cpu(), reset.cpu())
        actual = tuple(part.cpu() for part in layer(x, state, reset))
        torch.testing.assert_close(actual, expected, **EXACT)
        (same,) = torch.autograd.grad(expected[0].square().sum(), x)
        torch.testing.assert_close(grad.cpu(), same.cpu(), **EXACT)


def test_no_steps_leave_the_state():
    layer, state = tt.MinGRU(3, 4, 2).double(), random(2, 5, 4)
    y, last = layer(random(0, 5, 3), state)
    assert y.shape == (0, 5, 4)
    torch.testing.assert_close(last, state, rtol=0, atol=0)


def test_dropout_is_between_layers_in_training_only():
    layer, x = tt.MinGRU(3, 200, 2, dropout=0.5), torch.randn(1, 1, 3)
    torch.manual_seed(0)
    trained, states = layer(x)
    assert not torch.equal(trained, layer(x)[0])
    layer.eval()
    again, kept = layer(x)
    assert torch.equal(again, layer(x)[0])
    assert torch.equal(states[0], kept[0])
    assert not torch.equal(states[1], kept[1])


def test_what_is_refused():
    with pytest.raises(SettingError, match="hidden_size must be at least 1, got 0"):
        tt.MinGRU(3, 0)
    with pytest.raises(SettingError, match="dropout must lie"):
        tt.MinGRU(3, 4, dropout=1.5)
    layer = tt.MinGRU(3, 4)
    with pytest.raises(SettingError, match="input has 2 columns, the layer 3"):
        layer(torch.zeros(5, 1, 2))
    with pytest.raises(SettingError, match=r"must be \[1, 1, 4\], got \[2, 1, 4\]"):
        layer(torch.zeros(5, 1, 3), torch.zeros(2, 1, 4))
    with pytest.raises(SettingError, match=r"must be \[1, 1, 4\], got tuple"):
        layer(torch.zeros(5, 1, 3), (torch.zeros(1, 1, 4),) * 2)
    with pytest.raises(SettingError, match="reset must be bool"):
        layer(torch.zeros(5, 1, 3), None, torch.zeros(5, 1))
    packed = torch.nn.utils.rnn.pack_sequence([torch.zeros(2, 3)])
    with pytest.raises(SettingError, match="input must be a tensor"):
        layer(packed)
    normal = tt.emissions.Normal(1)
    with pytest.raises(BackendError, match="mingru runs on backend 'reference', not 'cpu'"):
        tt.LatentAutoregressive("mingru", 4, emission=normal, backend="cpu")
    with pytest.raises(SettingError, match="mingru has no recurrent matrix"):
        tt.LatentAutoregressive("mingru", 4, emission=normal, dropout=Dropout(recurrent=0.1))


# In a model


@pytest.mark.parametrize("members", [1, 2])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("emission", [tt.emissions.Categorical(5), tt.emissions.StudentT(2)])
def test_a_model_of_it_scores_steps_as_it_scores_sequences(members, num_layers, emission):
    model = tt.LatentAutoregressive("mingru", 6, num_layers, emission=emission, members=members)
    shaken(model)
    data = sequences_of(emission, missing=False)
    result = model.step_log_prob(data)
    begun = data.offsets[:-1].tolist()
    state, previous = None, None
    with torch.no_grad():
        for t, value in enumerate(data.values):
            if t in begun:
                state, previous = None, None
            distribution, state = model.step(previous, state)
            torch.testing.assert_close(
                distribution.log_prob(value.unsqueeze(0))[0], result[t], **EXACT
            )
            previous = value.unsqueeze(0)


def test_a_model_of_it_samples_trains_and_remembers_as_documented():
    torch.manual_seed(0)
    emission = tt.emissions.Normal(1)
    model = tt.LatentAutoregressive("mingru", 8, emission=emission, time_scale=100.0)
    paths = model.sample(30, num_paths=3, seed=1)
    assert paths.shape == (3, 30, 1)
    torch.testing.assert_close(paths[:2], model.sample(30, num_paths=2, seed=1))
    new = torch.sigmoid(model.recurrent.bias_ih_l0[:8].detach())
    torch.testing.assert_close(1 / new[[0, -1]], torch.tensor([2.0, 101.0]), rtol=0.01, atol=0)
    lanes = Lanes(sequences_of(emission, missing=False), 2)
    loss, _ = model.loss(lanes[:], model.initial_state(2))
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())
