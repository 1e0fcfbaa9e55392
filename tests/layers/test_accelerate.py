"""tt.accelerate on models of somebody's own: the same numbers, the same objects."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from support.native_cases import EXACT, flat, gradients, same
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import throughtime as tt
from throughtime.errors import BackendError
from throughtime.kernels import native

on_each_device = pytest.mark.usefixtures("device")


class Tagger(nn.Module):
    """A model as people write them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.encoder = nn.LSTM(6, 7, 2, batch_first=True, bidirectional=True)
        self.middle = nn.Sequential(nn.Linear(14, 5), nn.ReLU())
        self.decoder = nn.GRU(5, 4, batch_first=True)
        self.last = nn.RNN(4, 4, nonlinearity="relu", batch_first=True)
        self.again = self.last
        self.cell = nn.GRUCell(4, 4)
        self.head = nn.Linear(4, 11)

    def forward(self, tokens: Tensor) -> Tensor:
        y, (h, _) = self.encoder(self.embed(tokens))
        assert isinstance(self.encoder, nn.LSTM)
        y, _ = self.decoder(self.middle(y))
        y, state = self.last(y)
        return self.head(self.again(self.cell(y[:, -1], state[0]).unsqueeze(1))[0] + h.mean())


def model() -> Tagger:
    torch.manual_seed(3)
    return Tagger().double()


@on_each_device
def test_training_gives_the_same_losses() -> None:
    """With the optimiser made before the swap."""
    result = []
    for swapped in (False, True):
        tagger = model()
        optimiser = torch.optim.Adam(tagger.parameters(), 0.02)
        if swapped:
            assert tt.accelerate(tagger) is tagger
        torch.manual_seed(1)
        tokens, targets = torch.randint(11, (8, 12)), torch.randint(11, (8,))
        losses = []
        for _ in range(12):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(tagger(tokens).squeeze(1), targets)
            loss.backward()
            optimiser.step()
            losses.append(loss.detach())
        result.append(losses)
    torch.testing.assert_close(*result, rtol=1e-9, atol=0)
    assert result[0][-1] < 0.9 * result[0][0]


def test_names_objects_and_state_stay() -> None:
    tagger = model()
    before = copy.deepcopy(tagger)
    names = [name for name, _ in tagger.named_modules()]
    modules = dict(tagger.named_modules())
    parameters = dict(tagger.named_parameters())
    printed = repr(tagger)
    tagger.encoder.eval()
    tt.accelerate(tagger)
    assert repr(tagger) == printed
    assert [name for name, _ in tagger.named_modules()] == names
    assert all(part is modules[name] for name, part in tagger.named_modules())
    assert all(one is parameters[name] for name, one in tagger.named_parameters())
    assert tagger.last is tagger.again
    assert isinstance(tagger.encoder, tt.LSTM)
    assert isinstance(tagger.encoder, nn.LSTM)
    assert isinstance(tagger.decoder, tt.GRU)
    assert isinstance(tagger.last, tt.RNN)
    assert type(tagger.cell) is nn.GRUCell
    assert not tagger.encoder.training
    assert tagger.decoder.training
    assert list(tagger.state_dict()) == list(before.state_dict())
    for name, one in tagger.state_dict().items():
        assert torch.equal(one, before.state_dict()[name])
    before.load_state_dict(tagger.state_dict())
    tagger.load_state_dict(before.state_dict())
    kind = type(tagger.encoder)
    assert type(tt.accelerate(tagger).encoder) is kind  # twice is once
    tokens = torch.randint(11, (3, 5))
    for twin in (copy.deepcopy(tagger), pickle.loads(pickle.dumps(tagger.decoder))):
        assert isinstance(twin, nn.Module)
    same([copy.deepcopy(tagger)(tokens)], [before(tokens)])


LAYERS = {
    "rnn": lambda: nn.RNN(3, 5),
    "relu": lambda: nn.RNN(3, 5, 2, nonlinearity="relu", bias=False),
    "gru": lambda: nn.GRU(3, 5, 2, bidirectional=True),
    "lstm": lambda: nn.LSTM(3, 5, 2, bidirectional=True, batch_first=True),
    "projected": lambda: nn.LSTM(3, 5, 2, proj_size=2, bidirectional=True),
}


@on_each_device
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_itself(kind: str) -> None:
    torch.manual_seed(0)
    theirs = LAYERS[kind]().double()
    ours = tt.accelerate(copy.deepcopy(theirs))
    x = torch.randn(4, 6, 3, dtype=torch.float64, requires_grad=True)
    actual, expected = flat(ours(x)), flat(theirs(x))
    same(actual, expected)
    wanted = [x, *ours.parameters()], [x, *theirs.parameters()]
    same(gradients(actual, wanted[0]), gradients(expected, wanted[1]))
    same(flat(ours(x[0])), flat(theirs(x[0])))
    packed = nn.utils.rnn.pack_sequence([x[0], x[1, :2]])
    same(flat(ours(packed)), flat(theirs(packed)))
    with pytest.raises(RuntimeError, match=r"input\.size"):
        ours(torch.zeros(4, 6, 9, dtype=torch.float64))


@pytest.mark.skipif(not native.available(), reason="the native kernels were not built")
def test_the_kernels_run(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    library = native.library()

    class Spy:
        def __getattr__(self, name: str) -> Any:
            calls.append(name)
            return getattr(library, name)

    tagger = model()
    tokens = torch.randint(11, (3, 5))
    monkeypatch.setattr(native, "library", lambda: Spy())
    tagger(tokens)
    assert not calls
    tt.accelerate(tagger)(tokens)
    assert calls.count("tt_forward") == 4 + 3  # two layers in two directions; three more calls


def test_a_named_backend_runs_or_raises() -> None:
    x = torch.randn(4, 2, 3, requires_grad=True)
    layer = tt.accelerate(nn.GRU(3, 5), backend="reference")
    (once,) = torch.autograd.grad(layer(x)[0].square().sum(), x, create_graph=True)
    once.sum().backward()  # second derivatives, as the reference gives
    with pytest.raises(BackendError, match="backend 'gpu' does not run here"):
        tt.accelerate(nn.GRU(3, 5), backend="gpu")


def test_hooks_stay() -> None:
    layer, seen = nn.GRU(3, 5), []
    layer.register_forward_pre_hook(lambda module, inputs: seen.append("pre"))
    layer.register_forward_hook(lambda module, inputs, outputs: seen.append("forward"))
    layer.register_full_backward_pre_hook(lambda module, grad: seen.append("backward pre"))
    layer.register_full_backward_hook(lambda module, ins, outs: seen.append("backward"))
    layer.weight_hh_l0.register_hook(lambda grad: seen.append("weight"))
    tt.accelerate(layer)
    layer(torch.randn(4, 2, 3, requires_grad=True))[0].sum().backward()
    assert sorted(seen) == sorted(["pre", "forward", "backward pre", "backward", "weight"])


class Clipped(nn.GRU):
    """A subclass of somebody's own."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        y, state = super().forward(*args, **kwargs)
        return y.clamp(-0.1, 0.1), state


def test_subclasses_and_cells_are_left_alone() -> None:
    parts = nn.ModuleList([Clipped(3, 5), nn.RNNCell(3, 5), nn.GRUCell(3, 5), nn.LSTMCell(3, 5)])
    with pytest.warns(UserWarning, match="no torch.nn.RNN, GRU or LSTM in this ModuleList"):
        kinds = [type(part) for part in tt.accelerate(parts)]
    assert kinds == [Clipped, nn.RNNCell, nn.GRUCell, nn.LSTMCell]
    assert parts[0](torch.randn(4, 2, 3))[0].abs().max() <= 0.1
    custom = parametrizations.weight_norm(Clipped(3, 5), "weight_hh_l0")
    kind = type(custom)
    with pytest.warns(UserWarning, match="to accelerate; subclasses and cells stay"):
        assert type(tt.accelerate(custom)) is kind


@pytest.mark.parametrize("first", ["parametrised", "accelerated"])
@pytest.mark.parametrize("kind", ["rnn", "gru", "lstm"])
def test_parametrised_layers(kind: str, first: str) -> None:
    torch.manual_seed(0)
    theirs = LAYERS[kind]().double()
    ours = copy.deepcopy(theirs)
    if first == "accelerated":
        tt.accelerate(ours)
    for module in (ours, theirs):
        parametrizations.weight_norm(module, "weight_hh_l0")
        parametrizations.spectral_norm(module, "weight_ih_l0", n_power_iterations=1)
        module.eval()
    if first == "parametrised":
        ours.load_state_dict(theirs.state_dict())
        tt.accelerate(ours)
    ours.load_state_dict(theirs.state_dict())
    assert isinstance(ours, (tt.RNN, tt.GRU, tt.LSTM))
    x = torch.randn(4, 6, 3, dtype=torch.float64, requires_grad=True)
    actual, expected = flat(ours(x)), flat(theirs(x))
    same(actual, expected)
    wanted = [x, *ours.parameters()], [x, *theirs.parameters()]
    same(gradients(actual, wanted[0]), gradients(expected, wanted[1]))
    for module in (ours, theirs):
        parametrize.remove_parametrizations(module, "weight_hh_l0")
        parametrize.remove_parametrizations(module, "weight_ih_l0")
    assert isinstance(ours, (tt.RNN, tt.GRU, tt.LSTM))
    same(flat(ours(x)), flat(theirs(x)))
    assert EXACT == {"rtol": 1e-10, "atol": 1e-10}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weight_norm_by_hooks() -> None:
    torch.manual_seed(0)
    theirs = nn.utils.weight_norm(nn.GRU(3, 5), "weight_hh_l0").double()
    ours = tt.accelerate(nn.utils.weight_norm(nn.GRU(3, 5), "weight_hh_l0").double())
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(4, 6, 3, dtype=torch.float64, requires_grad=True)
    actual, expected = flat(ours(x)), flat(theirs(x))
    same(actual, expected)
    wanted = [x, *ours.parameters()], [x, *theirs.parameters()]
    same(gradients(actual, wanted[0]), gradients(expected, wanted[1]))


@on_each_device
def test_steps_and_resets_are_gained() -> None:
    layer = tt.accelerate(nn.GRU(3, 5))
    x, reset = torch.randn(4, 2, 3), torch.zeros(4, 2, dtype=torch.bool)
    reset[2] = True
    y, _ = layer(x, reset=reset)
    torch.testing.assert_close(y[2:], layer(x[2:])[0])
    torch.testing.assert_close(layer.step(x[0])[0], y[0])
