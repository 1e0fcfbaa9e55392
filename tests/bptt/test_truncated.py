"""Gradient methods against graphs that are built by hand, segment by segment."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.profiles import examples

from throughtime import bptt
from throughtime import state as states
from throughtime.errors import NonFiniteError, SettingError

STEPS, ROWS, SIZE = 13, 2, 3


class Problem:
    """A small recurrent loss whose per-step losses a test can address one by one."""

    def __init__(self, seed=0, steps=STEPS, pair=False):
        torch.manual_seed(seed)
        make = lambda *shape: torch.randn(*shape, dtype=torch.float64)  # noqa: E731
        self.w_x = make(SIZE, SIZE).requires_grad_()
        self.w_rec = (0.5 * make(SIZE, SIZE)).requires_grad_()
        self.parameters = [self.w_x, self.w_rec]
        self.batch = make(steps, ROWS, SIZE)
        self.pair = pair  # an LSTM-like state of two tensors
        first = 0.1 * make(1, ROWS, SIZE)
        self.state = (first, 0.5 * first) if pair else first

    def step(self, x, state):
        h, c = state if self.pair else (state, 0.0)
        new = torch.tanh(h[0] @ self.w_rec + x @ self.w_x + 0.1 * (c[0] if self.pair else 0.0))
        loss = (new * new * torch.arange(1.0, SIZE + 1, dtype=torch.float64)).sum()
        new = new.unsqueeze(0)
        return loss, (new, 0.9 * c + new) if self.pair else new

    def loss(self, batch, state):
        total = torch.zeros((), dtype=torch.float64)
        for x in batch:
            part, state = self.step(x, state)
            total = total + part
        return total, state

    def take_gradients(self):
        result = [p.grad.clone() for p in self.parameters]
        for p in self.parameters:
            p.grad = None
        return result


def oracle(problem, k1, k2, rate=0.0):
    """TBPTT(k1, k2) from the definition: every segment's graph is built from scratch.

    `rate` changes the parameters after each segment, as training does; the state that a segment
    starts from is the one found when that step was last passed.
    """
    length = len(problem.batch)
    latest = {0: problem.state}
    totals = [torch.zeros_like(p) for p in problem.parameters]
    for target in range(0, length, k1):
        stop = min(target + k1, length)
        begin = max(0, stop - k2) if stop - target == k1 else max(0, target + k1 - k2)
        state, used = latest[begin], []
        for t in range(begin, stop):
            loss, state = problem.step(problem.batch[t], state)
            latest[t + 1] = states.detach(state)
            if t >= target:
                used.append(loss)
        grads = torch.autograd.grad(sum(used), problem.parameters)
        for total, grad in zip(totals, grads, strict=True):
            total += grad
        with torch.no_grad():
            for p, grad in zip(problem.parameters, grads, strict=True):
                p -= rate * grad
    return totals, latest[length]


@pytest.mark.parametrize("pair", [False, True])
def test_full_equals_autograd_of_the_unrolled_graph(pair):
    problem = Problem(pair=pair)
    expected_loss, expected_state = problem.loss(problem.batch, problem.state)
    expected = torch.autograd.grad(expected_loss, problem.parameters)
    loss, state = bptt.Full().backward(problem.loss, problem.batch, problem.state)
    torch.testing.assert_close(loss, expected_loss.detach(), rtol=1e-12, atol=0)
    torch.testing.assert_close(problem.take_gradients(), list(expected), rtol=1e-12, atol=0)
    torch.testing.assert_close(
        list(states.leaves(state)), list(states.leaves(expected_state)), rtol=1e-12, atol=0
    )
    assert not any(leaf.requires_grad for leaf in states.leaves(state))


@examples(80)
@given(
    k1=st.integers(1, 8),
    extra=st.integers(0, 12),
    steps=st.integers(1, 20),
    pair=st.booleans(),
    rate=st.sampled_from([0.0, 0.02]),
    seed=st.integers(0, 1000),
)
def test_truncated_equals_segments_built_by_hand(k1, extra, steps, pair, rate, seed):
    ours, theirs = Problem(seed, steps, pair), Problem(seed, steps, pair)
    actual = [torch.zeros_like(p) for p in ours.parameters]

    def on_update(loss):
        for total, p in zip(actual, ours.parameters, strict=True):
            total += p.grad
            with torch.no_grad():
                p -= rate * p.grad
            p.grad = None

    method = bptt.Truncated(k1, k1 + extra)
    _, state = method.backward(ours.loss, ours.batch, ours.state, on_update)
    expected, expected_state = oracle(theirs, k1, k1 + extra, rate)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        list(states.leaves(state)), list(states.leaves(expected_state)), rtol=1e-10, atol=1e-12
    )


def test_a_k2_over_everything_is_the_full_gradient():
    problem = Problem()
    bptt.Truncated(1, STEPS).backward(problem.loss, problem.batch, problem.state)
    sliding = problem.take_gradients()
    bptt.Full().backward(problem.loss, problem.batch, problem.state)
    torch.testing.assert_close(sliding, problem.take_gradients(), rtol=1e-10, atol=1e-12)


def test_truncation_at_one_step_loses_gradient():
    problem = Problem()
    bptt.Truncated(1, 1).backward(problem.loss, problem.batch, problem.state)
    short = problem.take_gradients()
    bptt.Full().backward(problem.loss, problem.batch, problem.state)
    assert (short[1] - problem.take_gradients()[1]).norm() > 1e-2


@pytest.mark.parametrize("method", [bptt.Full(), bptt.Truncated(4), bptt.Truncated(3, 7)])
def test_updates_are_called_once_per_segment_and_sum_to_the_loss(method):
    problem, parts = Problem(), []
    loss, _ = method.backward(problem.loss, problem.batch, problem.state, parts.append)
    torch.testing.assert_close(sum(parts), loss)
    segments = 1 if isinstance(method, bptt.Full) else -(-STEPS // method.k1)
    assert len(parts) == segments


def test_positions_resume_where_they_stopped():
    """A pass that is cut off between any two updates and taken up again is the same pass."""
    method, problem = bptt.Truncated(3, 8), Problem()
    method.backward(problem.loss, problem.batch, problem.state)
    whole = problem.take_gradients()
    at = bptt.Position.start(problem.state)
    while at.target < STEPS:
        again = bptt.Position(
            at.target, states.clone(at.state), at.begin, states.clone(at.begin_state)
        )
        _, at = method.advance(problem.loss, problem.batch, again)
    torch.testing.assert_close(problem.take_gradients(), whole, rtol=0, atol=0)


def test_errors_say_what_to_do():
    with pytest.raises(SettingError, match=r"k2=4 is shorter than k1=8: .* choose k2 >= k1"):
        bptt.Truncated(8, 4)
    with pytest.raises(SettingError, match="k1 must be at least 1, got 0"):
        bptt.Truncated(0)
    with pytest.raises(SettingError, match="no time steps"):
        bptt.Full().backward(Problem().loss, torch.zeros(0, ROWS, SIZE), None)
    with pytest.raises(SettingError, match="must return a scalar"):
        bptt.Full().backward(lambda batch, state: (batch.sum(0), state), torch.zeros(3, 2), None)
    with pytest.raises(SettingError, match=r"bptt='many' is not full, .* memory=512MB or adaptive"):
        bptt.parse("many")
    with pytest.raises(SettingError, match="memory='much' is not a size like 512MB"):
        bptt.parse("memory=much")
    for text in ("slots=", "slots=-1", "slots=x", "full=3"):
        with pytest.raises(SettingError, match="is not full, K or K1,K2"):
            bptt.parse(text)


NAMED = {
    "full": bptt.Full(),
    "5": bptt.Truncated(5),
    "5,9": bptt.Truncated(5, 9),
    "memory=1.5GB": bptt.Checkpointed(memory="1.5 GB"),
    "memory=1000B": bptt.Checkpointed(memory=1000),
    "slots=7": bptt.Checkpointed(slots=7),
    "adaptive": bptt.Adaptive(),
    "bias=0.1": bptt.Adaptive(bias=0.1),
    "bias=0.05,every=7": bptt.Adaptive(every=7),
    "bias=0.3,max_lag=64,every=1": bptt.Adaptive(0.3, 64, 1),
    "mean_lag=16": bptt.Randomized(mean_lag=16),
    "mean_lag=12.5,every=4,alpha=3": bptt.Randomized(12.5, every=4, alpha=3.0),
    "online": bptt.Online(),
    "online=8": bptt.Online(k1=8),
}


@pytest.mark.parametrize("text", NAMED)
def test_the_string_of_a_method_names_it(text):
    assert bptt.parse(text) == NAMED[text]
    assert str(NAMED[text]) == text


def test_other_spellings_name_methods_too():
    assert bptt.parse("5,5") == bptt.Truncated(5)
    assert bptt.parse("adaptive, every=7") == bptt.Adaptive(every=7)
    assert bptt.parse("online=1") == bptt.Online()
    mine = torch.Generator()  # no part of a method's value
    assert bptt.parse(str(bptt.Randomized(9, generator=mine))) == bptt.Randomized(9)
    assert bptt.parse(str(bptt.Checkpointed(slots=2, generators=(mine,)))).slots == 2
    for text in ("5,6,7", "bias=0.1,slots=3", "full,every=2", "adaptive=3", "memory", "", "bias"):
        with pytest.raises(SettingError, match="is not full, K or K1,K2"):
            bptt.parse(text)


def test_clipping_reports_the_norm_and_scales_to_the_limit():
    p = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    p.grad = torch.tensor([3.0, 4.0])
    norm, clipped = bptt.clip([p], 10.0)
    assert (float(norm), clipped) == (5.0, False)
    norm, clipped = bptt.clip([p], 1.0)
    assert (float(norm), clipped) == (5.0, True)
    assert abs(float(p.grad.norm()) - 1.0) < 1e-4
    p.grad = torch.tensor([float("nan"), 1.0])
    assert bptt.clip([p], 1.0)[1] is False


METHODS = [bptt.Full(), bptt.Truncated(3, 5), bptt.Checkpointed(slots=3)]


class Hidden(torch.nn.Module):
    """A network that keeps its state to itself."""

    def __init__(self, cut):
        super().__init__()
        self.cell, self.cut, self.h = torch.nn.RNN(SIZE, SIZE, dtype=torch.float64), cut, None

    def loss(self, batch, state):
        y, self.h = self.cell(batch, self.h)
        if self.cut:
            self.h = self.h.detach()
        return y.square().sum(), None


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cut", [True, False])
def test_a_module_that_keeps_its_state_inside_is_refused(method, cut):
    module = Hidden(cut)
    message = r"step 0 gives loss \S+, and \S+ when .* keeps hidden state inside; pass it"
    for _ in range(2):
        with pytest.raises(SettingError, match=message):
            method.backward(module.loss, Problem().batch, None)


def test_a_graph_used_twice_is_explained():
    module, batch = Hidden(cut=False), Problem().batch
    _, at = bptt.Truncated(4).advance(module.loss, batch, bptt.Position())
    with pytest.raises(SettingError, match=r"differentiated before: .* keeps hidden state inside"):
        bptt.Truncated(4).advance(module.loss, batch, at)


@pytest.mark.parametrize("method", METHODS)
def test_dropout_and_own_generators_are_not_mistaken_for_hidden_state(method):
    problem, mine = Problem(), torch.Generator()
    calls = []

    def loss(batch, state):
        calls.append((torch.get_rng_state(), mine.get_state()))
        noise = torch.rand(1, generator=mine, dtype=torch.float64)
        total, state = problem.loss(torch.nn.functional.dropout(batch, 0.5), state)
        return total * noise.squeeze(), state

    before = torch.get_rng_state(), mine.get_state()
    if isinstance(method, bptt.Checkpointed):
        method = bptt.Checkpointed(slots=3, generators=(mine,))
    loss_of_all, _ = method.backward(loss, problem.batch, problem.state)
    assert torch.isfinite(loss_of_all)
    run = [call for call in calls if len(call[0])]
    for begin in (run[0], run[1], run[2]):  # the two trials, and the first step that counts
        assert all(torch.equal(a, b) for a, b in zip(begin, before, strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_a_loss_that_is_not_a_sum_over_time(method):
    problem = Problem()

    def mean(batch, state):
        total, state = problem.loss(batch, state)
        return total / len(batch), state

    if isinstance(method, bptt.Full):  # never cuts, so any loss will do
        method.backward(mean, problem.batch, problem.state)
        return
    with pytest.raises(SettingError, match="not a sum over time: steps 0 to 1 give"):
        method.backward(mean, problem.batch, problem.state)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_is_not_mistaken_for_a_loss_that_is_no_sum(dtype):
    w = torch.full((3,), 1.1, dtype=dtype, requires_grad=True)
    batch = torch.linspace(-7.0, 5.0, 60).reshape(20, 3).to(dtype)
    bptt.Truncated(5).backward(lambda x, state: ((x * w).cumsum(0)[-1].sum(), None), batch, None)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_becomes_infinite_or_nan_is_placed(method, bad):
    problem = Problem()
    factor = torch.ones(STEPS, ROWS, 1, dtype=torch.float64)
    factor[7] = bad
    batch = torch.cat([problem.batch, factor], -1)

    def loss(batch, state):
        total, state = problem.loss(batch[..., :-1], state)
        return total * batch[..., -1].prod(), state

    begin = 6 if isinstance(method, bptt.Truncated) else 0
    message = rf"infinite or NaN in steps {begin} to \d+, first in step 7; look"
    with pytest.raises(NonFiniteError, match=message):
        method.backward(loss, batch, problem.state)


def test_what_is_wrong_with_a_late_loss_is_found_where_it_is():
    """Losses of zero at first show nothing; the first that are not are looked at again."""
    weight = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))
    x = torch.cat([torch.zeros(8), torch.arange(1.0, 9.0)]).double().reshape(-1, 1)

    def mean(batch, state):
        state = 0.9 * state + batch.sum() * 0
        return (weight * batch.square()).mean(), state

    with pytest.raises(SettingError, match=r"not a sum over time: steps 8 to 11 give"):
        bptt.Truncated(4).backward(mean, x, torch.zeros(1, 1, 1, dtype=torch.float64))

    kept = []

    def hidden(batch, state):
        kept.append(float(batch.sum()))
        return (weight * batch.sum() * sum(kept)), state

    with pytest.raises(SettingError, match="a module keeps hidden state inside"):
        bptt.Truncated(4).backward(hidden, x, None)


def test_a_state_of_another_kind_is_refused():
    for state in ({"h": torch.zeros(1)}, [torch.zeros(1)]):
        with pytest.raises(SettingError, match=r"a state is a tensor, .* put its parts"):
            bptt.Full().backward(lambda batch, state: (batch.sum(), state), torch.ones(3, 1), state)
