"""LatentAutoregressive: its equations, how it starts, and members that do not know each other."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from support.model_cases import EMISSIONS, sequences_of, shaken
from torch import nn

import throughtime as tt
from throughtime.data.batching import Lanes
from throughtime.data.sequences import Sequences
from throughtime.errors import SettingError
from throughtime.models.latent import LatentAutoregressive
from throughtime.training.config import TrainSettings
from throughtime.training.trainer import Trainer

EXACT: dict[str, Any] = {"rtol": 0, "atol": 1e-10}


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_the_model_is_an_emission_over_torch_nn(cell: str, num_layers: int) -> None:
    """DESIGN section 2 by hand: embed X_{t-1}, run torch.nn, read the distribution off every
    output.
    """
    model = tt.LatentAutoregressive(cell, 5, num_layers, emission=tt.emissions.Categorical(4))
    shaken(model)
    x = torch.tensor([2, 0, 3, 3, 1, 0])
    before = torch.tensor([4, *x[:-1].tolist()])  # 4 stands for "nothing yet"
    reference = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell](
        model.encoder.size, 5, num_layers
    ).double()
    reference.load_state_dict(model.recurrent.state_dict())
    inputs = model.encoder.embedding(before).unsqueeze(1)  # type: ignore[operator]
    start = (model.start[0], model.start[1]) if cell == "lstm" else model.start[0]
    y, _ = reference(inputs, start)
    raw = y[:, 0] @ model.head_weight[0].T + model.head_bias[0]
    expected = torch.log_softmax(raw, -1)[torch.arange(6), x]
    torch.testing.assert_close(model.step_log_prob([x]), expected.detach(), **EXACT)


def test_the_elman_network_step_by_step() -> None:
    """S_t = tanh(O_{t-1} + X_t W_x), O_t = S_t W_rec, from the weights alone."""
    model = tt.LatentAutoregressive("rnn", 3, emission=tt.emissions.Normal(1))
    shaken(model)
    x = torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64)
    w = dict(model.recurrent.named_parameters())
    state, expected = model.start[0, 0, 0], []
    for t in range(3):
        first = float(t == 0)
        z = 0.0 if first else float(x[t - 1])
        inputs_by_hand = [z, 0.0 if first else math.log(abs(z) + 0.05), min(z, 0.0), first, first]
        inward = (
            w["weight_ih_l0"] @ torch.tensor(inputs_by_hand, dtype=torch.float64) + w["bias_ih_l0"]
        )
        state = torch.tanh(inward + state @ w["weight_hh_l0"].T + w["bias_hh_l0"])
        raw = model.head_weight[0] @ state + model.head_bias[0]
        location, scale = raw[0], 1e-4 + torch.log1p(raw[1].exp())
        expected.append(torch.distributions.Normal(location, scale).log_prob(x[t]))
    actual = model.step_log_prob([x])
    torch.testing.assert_close(actual, torch.stack(expected).detach(), **EXACT)


# How it starts


def test_it_starts_at_the_distribution_of_the_training_values() -> None:
    data = sequences_of(tt.emissions.Categorical(5), lengths=(400,))
    model = tt.LatentAutoregressive("gru", 8, emission=tt.emissions.Categorical(5), members=2)
    model.begin(data)
    shares = torch.bincount(data.values, minlength=5) / 400
    distribution, _ = model.step()
    assert (distribution.log_table().softmax(-1)[0] - shares).abs().max() < 0.05
    torch.nn.init.zeros_(model.head_weight)
    distribution, _ = model.step()
    torch.testing.assert_close(distribution.log_table().softmax(-1)[0], shares, rtol=0, atol=1e-3)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("members", [1, 3])
def test_recurrent_blocks_start_orthogonal_and_apart(cell: str, members: int) -> None:
    model = LatentAutoregressive(cell, 6, 2, emission=tt.emissions.Normal(1), members=members)
    for layer in range(2):
        weight = getattr(model.recurrent, f"weight_hh_l{layer}")
        gates = weight.shape[0] // (6 * members)
        assert gates == {"rnn": 1, "gru": 3, "lstm": 4}[cell]
        for gate in weight.split(6 * members):
            torch.testing.assert_close(gate @ gate.T, torch.eye(6 * members), rtol=0, atol=1e-5)
        assert torch.equal(weight, model._blocks("weight_hh_l0", weight))
    deeper = model.recurrent.weight_ih_l1
    assert torch.equal(deeper, model._blocks("weight_ih_l1", deeper))
    assert bool((deeper != 0).any())
    kept = torch.eye(members).bool().repeat_interleave(6, 0).repeat_interleave(6, 1)
    assert int((model._mask(weight) != 0).sum()) == gates * int(kept.sum())


@pytest.mark.parametrize("time_scale", [10.0, 100.0])
@pytest.mark.parametrize("members", [1, 2])
def test_gates_start_with_memories_of_one_to_the_time_scale(
    time_scale: float, members: int
) -> None:
    """Tallec & Ollivier 2018: a unit that keeps 1 - 1/T of its state has b_f = log(T - 1)."""
    size = 40
    for cell, keep_gate in (("gru", 1), ("lstm", 1)):
        model = LatentAutoregressive(
            cell, size, emission=tt.emissions.Normal(1), members=members, time_scale=time_scale
        )
        recurrent = model.recurrent
        bias = (recurrent.bias_ih_l0 + recurrent.bias_hh_l0).detach().split(size * members)
        assert len(bias) == (3 if cell == "gru" else 4)
        for keep in bias[keep_gate].split(size):
            memory = 1 / (1 - torch.sigmoid(keep))  # steps
            assert memory.min() == pytest.approx(2.0, rel=1e-3)
            assert memory.max() == pytest.approx(time_scale + 1, rel=0.01)
            assert bool((memory.diff() >= 0).all())
        if cell == "lstm":
            assert torch.equal(bias[0], -bias[1])  # what is forgotten makes room for input
            assert not bool(bias[2].any() or bias[3].any())
        else:
            assert not bool(bias[0].any() or bias[2].any())


def test_the_kept_share_of_a_gate_is_what_a_cell_keeps() -> None:
    """The gate that chrono initialisation sets is the one that holds the state, in both cells."""
    for cell in ("gru", "lstm"):
        model = LatentAutoregressive(
            cell, 2, emission=tt.emissions.Normal(1), time_scale=1000.0
        ).double()
        for name, weight in model.recurrent.named_parameters():
            if name.startswith("weight"):
                nn.init.zeros_(weight)
        old = torch.full((1, 1, 2), 0.5, dtype=torch.float64)
        state = (torch.zeros_like(old), old) if cell == "lstm" else old
        _, after = model.step(torch.zeros(1, 1, dtype=torch.float64), state)
        kept = (after[1] if cell == "lstm" else after)[0, 0] / 0.5
        keep = torch.sigmoid(model.recurrent.bias_hh_l0[2:4])
        torch.testing.assert_close(kept, keep, **EXACT)


def test_the_first_state_is_learned() -> None:
    for cell in ("rnn", "gru", "lstm"):
        model = tt.LatentAutoregressive(cell, 4, emission=tt.emissions.Normal(1), members=2)
        data = sequences_of(tt.emissions.Normal(1), missing=False)
        lanes = Lanes(data, 2, cut=False)
        # Whatever state comes in, sequences start from the learned one, which gets the gradient.
        loss, _ = model.loss(lanes[:], tt_detached(model, 2))
        loss.backward()
        assert model.start.grad is not None
        assert bool((model.start.grad != 0).all())


def tt_detached(model: LatentAutoregressive, rows: int) -> Any:
    from throughtime import state

    return state.detach(model.initial_state(rows))


def test_unknown_series_get_the_zero_vector() -> None:
    data = sequences_of(tt.emissions.Normal(2), missing=False)
    model = LatentAutoregressive("gru", 3, emission=tt.emissions.Normal(2), identities=("a", "c"))
    shaken(model)
    known = data.with_identity(["a", "c"])
    assert known.identity.tolist() == [0, -1, 1, -1, -1]
    same = torch.isclose(model.log_prob(known), model.log_prob(data), rtol=0, atol=1e-12)
    assert same.tolist() == [False, True, False, True, True]
    with torch.no_grad():
        model.identity.weight.zero_()  # type: ignore[union-attr]
    torch.testing.assert_close(model.log_prob(known), model.log_prob(data), **EXACT)


# Members


def member_of(name: str, weight: torch.Tensor, members: int, size: int) -> torch.Tensor:
    """Which member each entry belongs to (of the recurrence, its start and the head)."""
    owner = torch.arange(members).repeat_interleave(size)
    if name.startswith("head"):
        return torch.arange(members).view(-1, *[1] * (weight.dim() - 1)).expand_as(weight)
    if name == "start":
        return owner.expand_as(weight)
    rows = owner.repeat(weight.shape[0] // len(owner))
    return rows.view(-1, *[1] * (weight.dim() - 1)).expand_as(weight)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_members_do_not_influence_each_other(cell: str, num_layers: int) -> None:
    members, size = 3, 4
    emission = EMISSIONS["mixture"]
    model = LatentAutoregressive(cell, size, num_layers, emission=emission, members=members)
    data = sequences_of(emission)
    model.begin(data)
    shaken(model)
    lanes = Lanes(data, 2, dtype=torch.float64)
    for i in range(members):
        distribution, _ = model.members_distribution(lanes[:], model.initial_state(2))
        nats = distribution.log_prob(model._per_member(lanes[:].x))[..., i]
        model.zero_grad()
        nats.sum().backward()
        for name, weight in model.named_parameters():
            owner = member_of(name.removeprefix("recurrent."), weight, members, size)
            assert weight.grad is not None, name
            assert not bool((weight.grad[owner != i] != 0).any()), name
            assert bool((weight.grad[owner == i] != 0).any()), name


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_members_are_models_of_their_own(cell: str) -> None:
    """Each member cut out is a network with members=1, and the distribution is their average."""
    members, size, emission = 2, 4, tt.emissions.StudentT(2)
    model = LatentAutoregressive(cell, size, 2, emission=emission, members=members)
    data = sequences_of(emission)
    shaken(model)
    result = []
    for m in range(members):
        alone = LatentAutoregressive(cell, size, 2, emission=emission).double().eval()
        with torch.no_grad():
            for name, weight in model.named_parameters():
                target = alone.get_parameter(name)
                owner = member_of(name.removeprefix("recurrent."), weight, members, size)
                part = weight[owner == m]
                if "weight_hh" in name or "weight_ih_l1" in name:
                    part = part.view(-1, members, size)[:, m]
                target.copy_(part.view_as(target))
        result.append(alone.step_log_prob(data))
    mean = torch.logsumexp(torch.stack(result), 0) - math.log(members)
    scored = data.scored()
    torch.testing.assert_close(model.step_log_prob(data)[scored], mean[scored], **EXACT)


def test_members_stay_apart_in_training() -> None:
    emission = tt.emissions.Normal(1)
    data = sequences_of(emission, lengths=(60, 50), missing=False)
    torch.manual_seed(0)
    model = LatentAutoregressive("lstm", 4, 2, emission=emission, members=3)
    model.begin(data)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    settings = TrainSettings(steps=12, lanes=2, valid_every=6, weight_decay=0.1, bptt="10,20")
    Trainer(model, data, data, settings).run()
    for name, weight in model.recurrent.named_parameters():
        assert not torch.equal(weight, before[f"recurrent.{name}"])
        assert torch.equal(weight, model._blocks(name, weight))


def test_latent_models_take_one_level() -> None:
    with pytest.raises(SettingError, match="differenced once, at lag 1"):
        LatentAutoregressive(emission=tt.emissions.Normal(), num_differencing=2)


def test_dropout_acts_in_training_only() -> None:
    emission = tt.emissions.Categorical(5)
    model = LatentAutoregressive("gru", 8, 2, emission=emission, dropout=0.5)
    data: Sequences = sequences_of(emission)
    lanes = Lanes(data, 2)
    state = model.initial_state(2)
    model.train()
    torch.manual_seed(0)
    first, second = (float(model.loss(lanes[:], state)[0].detach()) for _ in range(2))
    assert first != second
    model.eval()
    first, second = (float(model.loss(lanes[:], state)[0].detach()) for _ in range(2))
    assert first == second
