"""The exact gradient in a declared amount of memory, against graphs kept whole."""

import gc
import json
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.profiles import examples
from support.small_runs import walk, write_series
from torch import nn
from torch.nn import functional as F

import throughtime as tt
from throughtime import bptt
from throughtime import state as states
from throughtime.bptt import _memory_model as memory_model
from throughtime.cli import main
from throughtime.data.batching import Lanes
from throughtime.data.sequences import Sequences
from throughtime.errors import SettingError
from throughtime.search import defaults

DOUBLE = torch.float64


class Case:
    """A recurrent network with a head, a batch of inputs and a loss that a test can call."""

    def __init__(self, layer, steps=23, rows=3, size=2, dropout=0.0, reset=False, generator=None):
        torch.manual_seed(1)
        self.net = layer.to(DOUBLE)
        self.head = nn.Linear(layer.hidden_size, 2, dtype=DOUBLE)
        self.batch = torch.randn(steps, rows, size + 1, dtype=DOUBLE)
        self.batch[..., -1] = torch.rand(steps, rows, dtype=DOUBLE) if reset else 1.0
        self.dropout, self.reset, self.generator = dropout, reset, generator
        self.parameters = [*self.net.parameters(), *self.head.parameters()]

    def loss(self, batch, state):
        x, chance = batch[..., :-1], batch[..., -1]
        y, state = self.net(x, state, chance < 0.2) if self.reset else self.net(x, state)
        y = F.dropout(y, self.dropout)
        if self.generator is not None:
            y = y * torch.rand(y.shape, dtype=y.dtype, generator=self.generator)
        return self.head(y).square().sum(), state

    def gradients(self):
        result = [p.grad for p in self.parameters]
        for p in self.parameters:
            p.grad = None
        return result

    def kept_whole(self, block):
        """Loss, last state and gradients of the graph over the same blocks, cut nowhere."""
        total, state = torch.zeros((), dtype=DOUBLE), None
        for t in range(0, len(self.batch), block):
            part, state = self.loss(self.batch[t : t + block], state)
            total = total + part
        return total.detach(), state, torch.autograd.grad(total, self.parameters)

    def compare(self, method, block):
        """Checks loss, state, gradients and generators of a method against `kept_whole`."""
        torch.manual_seed(5)
        expected_loss, expected_state, expected = self.kept_whole(block)
        random = torch.get_rng_state()
        torch.manual_seed(5)
        loss, state = method.backward(self.loss, self.batch, None)
        assert torch.equal(torch.get_rng_state(), random)
        for ours, exact in zip(self.gradients(), expected, strict=True):
            assert float((ours - exact).norm()) <= 1e-12 * float(exact.norm())
        torch.testing.assert_close(loss, expected_loss, rtol=1e-12, atol=0)
        pairs = zip(states.leaves(state), states.leaves(expected_state), strict=True)
        for ours, exact in pairs:
            assert not ours.requires_grad
            torch.testing.assert_close(ours, exact.detach(), rtol=1e-12, atol=1e-15)


LAYERS = {
    **{
        f"{name}{layers}": lambda make=make, layers=layers: make(2, 4, layers)
        for name, make in (
            ("rnn", tt.RNN),
            ("gru", tt.GRU),
            ("lstm", tt.LSTM),
            ("li_gru", tt.LiGRU),
        )
        for layers in (1, 2, 3)
    },
    "reference": lambda: tt.GRU(2, 4, backend="reference"),
    "torch gru": lambda: nn.GRU(2, 4, 2),
    "torch lstm": lambda: nn.LSTM(2, 4, 2),
    "dropout between": lambda: tt.LSTM(2, 4, 3, dropout=0.4),
    "torch dropout": lambda: nn.GRU(2, 4, 2, dropout=0.4),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("slots", [1, 3, 7])
def test_the_gradient_is_that_of_the_unrolled_graph(name, slots):
    for reset in (False, True):
        if reset and name.startswith("torch"):
            continue
        case = Case(LAYERS[name](), reset=reset)
        method = bptt.Checkpointed(slots=slots)
        block = method.plan(case.loss, case.batch, None).block
        case.compare(method, block)
        if not getattr(case.net, "dropout", 0.0):
            case.compare(bptt.Full(), len(case.batch))
            case.compare(method, len(case.batch))


@pytest.mark.parametrize("slots", [1, 2, 4, 30])
def test_dropout_is_replayed_and_generators_end_where_one_pass_leaves_them(slots):
    case = Case(tt.GRU(2, 4), dropout=0.5)
    method = bptt.Checkpointed(slots=slots)
    case.compare(method, method.plan(case.loss, case.batch, None).block)


@pytest.mark.parametrize("slots", [1, 3, 5])
def test_listed_generators_are_replayed_too(slots):
    mine = torch.Generator()
    case = Case(tt.GRU(2, 4), dropout=0.5, generator=mine)
    method = bptt.Checkpointed(slots=slots, generators=(mine,))
    torch.manual_seed(5)
    mine.manual_seed(3)
    _, _, expected = case.kept_whole(method.plan(case.loss, case.batch, None).block)
    ends = mine.get_state(), torch.get_rng_state()
    torch.manual_seed(5)
    mine.manual_seed(3)
    method.backward(case.loss, case.batch, None)
    assert torch.equal(mine.get_state(), ends[0])
    assert torch.equal(torch.get_rng_state(), ends[1])
    torch.testing.assert_close(case.gradients(), list(expected), rtol=1e-12, atol=1e-15)


@examples(60)
@given(
    steps=st.integers(1, 40),
    slots=st.integers(1, 12),
    dropout=st.sampled_from([0.0, 0.3]),
    kind=st.sampled_from([tt.RNN, tt.GRU, tt.LSTM]),
    reset=st.booleans(),
)
def test_any_length_and_any_number_of_slots(steps, slots, dropout, kind, reset):
    case = Case(kind(2, 3), steps=steps, dropout=dropout, reset=reset)
    method = bptt.Checkpointed(slots=slots)
    case.compare(method, method.plan(case.loss, case.batch, None).block)


@examples(40)
@given(
    steps=st.integers(1, 60),
    share=st.floats(0.0, 1.2),
    dropout=st.sampled_from([0.0, 0.3]),
    kind=st.sampled_from([tt.RNN, tt.LSTM]),
)
def test_any_budget_that_can_be_met(steps, share, dropout, kind):
    case = Case(kind(2, 3), steps=steps, dropout=dropout)
    cost = memory_model.measure(case.loss, case.batch, 0, None)
    least = cost.needed(1, 1)
    memory = least + int(share * (cost.fixed + cost.step * steps))
    method = bptt.Checkpointed(memory=memory)
    plan = method.plan(case.loss, case.batch, None)
    assert cost.needed(plan.block, plan.slots) <= memory
    case.compare(method, plan.block)


class Own(nn.Module):
    """A user's cell: a state of a number, a count of steps and nothing, in a nested tuple."""

    def __init__(self):
        super().__init__()
        self.a = nn.Parameter(torch.tensor(0.9, dtype=DOUBLE))
        self.b = nn.Parameter(torch.tensor(0.3, dtype=DOUBLE))

    def loss(self, batch, state):
        (h, unused), count = state
        total = torch.zeros((), dtype=DOUBLE)
        for x in batch:
            count = count + 1
            h = torch.tanh(self.a * h + self.b * x * count.to(DOUBLE))
            total = total + h.square().sum()
        return total, ((h, unused), count)


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_a_users_module_with_whole_numbers_and_nothing_in_its_state(slots):
    torch.manual_seed(0)
    module, batch = Own(), torch.randn(17, 3, dtype=DOUBLE)
    first = ((torch.zeros(3, dtype=DOUBLE), None), torch.tensor(0))
    total, end = module.loss(batch, first)
    expected = torch.autograd.grad(total, list(module.parameters()))
    loss, state = bptt.Checkpointed(slots=slots).backward(module.loss, batch, first)
    actual = [p.grad for p in module.parameters()]
    torch.testing.assert_close(actual, list(expected), rtol=1e-12, atol=0)
    torch.testing.assert_close(loss, total.detach(), rtol=1e-12, atol=0)
    assert int(state[1]) == 17
    assert state[0][1] is None
    torch.testing.assert_close(state[0][0], end[0][0].detach(), rtol=1e-12, atol=0)


def test_ragged_lanes_and_a_model_of_ours():
    torch.manual_seed(0)
    data = Sequences.of([torch.randn(n, 1, dtype=DOUBLE) for n in (40, 7, 23, 31)])
    lanes = Lanes(data, 2, dtype=DOUBLE)
    model = tt.LatentAutoregressive("lstm", 5, emission=tt.emissions.Normal()).to(DOUBLE)
    parameters = list(model.parameters())
    result = {}
    for method in (bptt.Full(), bptt.Checkpointed(slots=4), bptt.Checkpointed(memory="30kB")):
        loss, _ = method.backward(model.loss, lanes, model.initial_state(2))
        result[method] = [loss, *(p.grad for p in parameters if p.grad is not None)]
        for p in parameters:
            p.grad = None
    full, *others = result.values()
    for other in others:
        torch.testing.assert_close(other, full, rtol=1e-11, atol=1e-13)


def test_the_rest_of_a_batch_can_be_taken_up():
    case = Case(tt.GRU(2, 4))
    _, middle = case.loss(case.batch[:9], None)
    rest = Case(tt.GRU(2, 4))
    rest.batch = case.batch[9:]
    bptt.Full().backward(case.loss, rest.batch, middle.detach())
    expected = case.gradients()
    at = bptt.Position(9, middle.detach(), 9, middle.detach())
    _, end = bptt.Checkpointed(slots=2).advance(case.loss, case.batch, at)
    assert (end.target, end.begin) == (23, 23)
    torch.testing.assert_close(case.gradients(), expected, rtol=1e-12, atol=1e-15)


def test_weights_rounded_by_autocast_keep_their_gradients():
    torch.manual_seed(0)
    net, head = tt.GRU(2, 4), nn.Linear(4, 2)
    batch = torch.randn(20, 3, 2)

    def loss(batch, state):
        y, state = net(batch, state)
        return head(y).float().square().sum(), state

    result = []
    for method in (bptt.Full(), bptt.Checkpointed(slots=3)):
        with torch.autocast("cpu", torch.bfloat16):
            method.backward(loss, batch, None)
        result.append([p.grad for p in (*net.parameters(), *head.parameters())])
        net.zero_grad()
        head.zero_grad()
    for full, ours in zip(*result, strict=True):
        assert float((full - ours).norm()) <= 0.02 * float(full.norm())


def alive(shape):
    """How many tensors of a shape there are that do not share their memory."""
    result = [t for t in gc.get_objects() if type(t) is torch.Tensor and t.shape == shape]
    return len({t.untyped_storage().data_ptr() for t in result})


@pytest.mark.parametrize("slots", [2, 4])
def test_no_more_states_are_alive_than_declared(slots):
    net, most = tt.GRU(2, 5), 0
    batch = torch.randn(5 * slots, 3, 2)

    def loss(batch, state):
        nonlocal most
        most = max(most, alive(torch.Size([1, 3, 5])))
        y, state = net(batch, state)
        return y.square().sum(), state

    bptt.Checkpointed(slots=slots).advance(loss, batch, bptt.Position())
    assert most <= slots + 5  # the running ones, see memory_model._RUNNING


def test_measuring_leaves_nothing_behind():
    net = tt.GRU(2, 5)
    batch = torch.randn(16, 3, 2)

    def loss(batch, state):
        y, state = net(batch, state)
        return y.tanh().square().sum(), state  # tanh saves its own output

    gc.collect()
    before = alive(torch.Size([8, 3, 5])), alive(torch.Size([1, 3, 5]))
    for _ in range(3):
        memory_model.measure(loss, batch, 0, None)
    assert (alive(torch.Size([8, 3, 5])), alive(torch.Size([1, 3, 5]))) == before


class Saved:
    """Bytes that autograd holds, counted as they come and go."""

    def __init__(self):
        self.now = self.most = 0

    def pack(self, tensor):
        return Held(self, tensor)

    def __enter__(self):
        hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda held: held.tensor)
        self.hooks = hooks
        hooks.__enter__()
        return self

    def __exit__(self, *error):
        self.hooks.__exit__(*error)


class Held:
    def __init__(self, count, tensor):
        self.count, self.tensor = count, tensor.detach()
        own = not isinstance(tensor, nn.Parameter) and tensor._base is None
        self.bytes = tensor.untyped_storage().nbytes() if own else 0
        count.now += self.bytes
        count.most = max(count.most, count.now)

    def __del__(self):
        self.count.now -= self.bytes


@pytest.mark.parametrize("share", [0.05, 0.2, 0.6])
def test_what_autograd_holds_stays_within_the_budget(share):
    case = Case(tt.GRU(2, 16), steps=400)
    with Saved() as whole:
        bptt.Full().advance(case.loss, case.batch, bptt.Position())
    method = bptt.Checkpointed(memory=int(share * whole.most))
    with Saved() as part:
        method.advance(case.loss, case.batch, bptt.Position())
    assert 0 < part.most <= share * whole.most


def test_a_budget_that_cannot_be_met_names_the_least():
    case = Case(tt.GRU(2, 16), steps=50)
    with pytest.raises(SettingError, match=r"memory='1KB' cannot hold .*; the least is [\d.]+ kB"):
        bptt.Checkpointed(memory="1KB").backward(case.loss, case.batch, None)
    try:
        bptt.Checkpointed(memory=1).backward(case.loss, case.batch, None)
    except SettingError as error:
        least = str(error).rpartition(" is ")[2]
    bptt.Checkpointed(memory=least).backward(case.loss, case.batch, None)
    smaller = memory_model.measure(case.loss, case.batch, 0, None).needed(1, 1) - 1
    with pytest.raises(SettingError, match="cannot hold"):
        bptt.Checkpointed(memory=smaller).backward(case.loss, case.batch, None)


def test_plenty_of_memory_is_one_block():
    case = Case(tt.GRU(2, 4))
    plan = bptt.Checkpointed(memory="1GB").plan(case.loss, case.batch, None)
    assert plan.block == len(case.batch)


def test_sizes_are_read_and_shown():
    known = {"512MB": 512 * 10**6, "1.5GB": 15 * 10**8, "300 kB": 300_000, "2GiB": 2**31}
    known |= {"77": 77, 1000: 1000, "5b": 5}
    for text, count in known.items():
        assert memory_model.size(text) == count
    for text in ("", "lots", "5XB", "-1MB", "0MB", "1e3", "MB"):
        with pytest.raises(SettingError, match="is not a size like 512MB"):
            bptt.Checkpointed(memory=text)
    for count in (1, 999, 1000, 37_001, 9_950, 123_456_789, 10**12):
        assert count <= memory_model.size(memory_model.readable(count)) <= 1.1 * count + 1
    assert memory_model.readable(37_000) == "37 kB"


def test_what_was_asked_for_must_make_sense():
    for options in ({}, {"memory": "1MB", "slots": 3}):
        with pytest.raises(SettingError, match="give one of them"):
            bptt.Checkpointed(**options)
    with pytest.raises(SettingError, match="slots=0: at least one"):
        bptt.Checkpointed(slots=0)
    case = Case(tt.GRU(2, 4))
    with pytest.raises(SettingError, match="must return a scalar"):
        bptt.Checkpointed(slots=3).backward(
            lambda batch, state: (batch.sum(), state), case.batch, None
        )


def test_a_generator_that_is_not_listed_is_noticed():
    case = Case(tt.GRU(2, 4), generator=torch.Generator())
    with pytest.raises(SettingError, match=r"steps \d+ to \d+ did not give the same .*generators="):
        bptt.Checkpointed(slots=3).backward(case.loss, case.batch, None)


def test_hidden_state_that_advances_with_the_calls_is_noticed():
    net = nn.Linear(1, 1, dtype=DOUBLE)
    memory = torch.zeros((), dtype=DOUBLE)

    def loss(batch, state):
        nonlocal memory
        memory = memory + batch.sum()
        return (net(batch) * memory).sum(), state

    with pytest.raises(SettingError, match="did not give the same loss and state"):
        bptt.Checkpointed(slots=2).advance(loss, torch.ones(9, 1, 1, dtype=DOUBLE), bptt.Position())


def test_fit_trains_inside_a_budget(here, capsys):
    write_series(here / "prices.csv", walk(120))
    run = tt.fit("prices.csv", bptt="memory=2MB", steps=3, hidden=4, model="gru", out="one")
    assert 'bptt = "memory=2MB"' in (run.folder / "config.toml").read_text()
    words = "fit prices.csv --bptt memory=2MB --steps 3 --hidden 4 --model gru -o two --json"
    main(words.split(" "))
    result = json.loads(capsys.readouterr().out)
    ours = {row.name: row.nats_per_step for row in run.scores.models}
    assert {row["name"]: row["nats_per_step"] for row in result["models"]} == ours


def test_fit_says_what_budget_would_do(here):
    write_series(here / "prices.csv", walk(120))
    with pytest.raises(SettingError, match=r"memory='2kB' cannot hold .*; the least is \d+ kB"):
        tt.fit("prices.csv", bptt="memory=2kB", steps=3, hidden=4, model="gru", out="run")


def test_full_bptt_over_too_much_is_pointed_to_a_budget():
    chosen = SimpleNamespace(hidden=512, members=1, layers=2, train=SimpleNamespace(bptt="full"))
    train = SimpleNamespace(steps=1_000_000)
    with pytest.raises(SettingError, match=r"needs about 66 GB; .* such as --bptt memory=2GB"):
        defaults.check_memory(chosen, train)
    chosen.train.bptt = "memory=2GB"
    defaults.check_memory(chosen, train)
