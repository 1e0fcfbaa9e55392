"""The layers against torch.nn, hand-unrolled computations and the plain reference."""

import copy
import inspect
import math

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from support.close import assert_same, gradient_names, output_names
from support.profiles import examples
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pack_sequence

import throughtime as tt
from throughtime import kernels
from throughtime import state as states
from throughtime.errors import BackendError, SettingError
from throughtime.kernels import native

pytestmark = [
    pytest.mark.usefixtures("device"),
    # torch's hint about the speed of weights that were replaced one by one
    pytest.mark.filterwarnings("ignore:RNN module weights are not part of single contiguous"),
]
LAYERS = {
    "rnn_tanh": (tt.RNN, nn.RNN, {"nonlinearity": "tanh"}),
    "rnn_relu": (tt.RNN, nn.RNN, {"nonlinearity": "relu"}),
    "gru": (tt.GRU, nn.GRU, {}),
    "lstm": (tt.LSTM, nn.LSTM, {}),
}
TOLERANCE = {"rtol": 1e-10, "atol": 1e-12}


def needs(backend, device):
    """Skips what does not run on a device, or not here."""
    if backend == "cpu" and (device != "cpu" or not native.available()):
        pytest.skip("the native kernels run on the CPU, where they were built")


def pair(kind, *args, **kwargs):
    """Our layer and torch's with the same weights, float64."""
    ours, theirs, extra = LAYERS[kind]
    torch.manual_seed(0)
    theirs = theirs(*args, **extra, **kwargs).double()
    ours = ours(*args, **extra, **kwargs).double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def random_state(layer, batch):
    rows = layer.num_layers * (2 if layer.bidirectional else 1)
    make = lambda: torch.randn(rows, batch, layer.hidden_size, dtype=torch.float64)  # noqa: E731
    return (make(), make()) if isinstance(layer, (tt.LSTM, nn.LSTM)) else make()


def gradients(module, inputs, outputs):
    """Gradients of a random-cotangent sum over every output, for inputs and parameters."""
    torch.manual_seed(7)
    total = sum((out * torch.randn(out.shape, dtype=out.dtype)).sum() for out in outputs)
    wanted = [*inputs, *module.parameters()]
    return torch.autograd.grad(total, wanted, allow_unused=True, materialize_grads=True)


def stepwise(layer, x, state, reset):
    """The oracle for `reset`: torch's own layer, one row and one step at a time."""
    rows = []
    finals = []
    for b in range(x.shape[1]):
        now = states.index(state, torch.tensor([b]))
        outputs = []
        for t in range(len(x)):
            if reset[t, b]:
                now = states.zeros_like(now)
            y, now = layer(x[t : t + 1, b : b + 1], now)
            outputs.append(y)
        rows.append(torch.cat(outputs))
        finals.append(now)
    return torch.cat(rows, 1), states.concatenate(finals)


OURS_ALONE = {"weight_dtype": "float32", "backend": "auto"}


@pytest.mark.parametrize(
    ("ours", "theirs"), [(tt.RNN, nn.RNN), (tt.GRU, nn.GRU), (tt.LSTM, nn.LSTM)]
)
def test_signatures_are_those_of_torch_and_ours(ours, theirs):
    def defaults(layer, *arguments):
        module = layer(*arguments)
        names = ("num_layers", "bias", "batch_first", "dropout", "bidirectional", "proj_size")
        return {name: getattr(module, name) for name in names}

    actual = inspect.signature(ours).parameters
    sizes = {"input_size": inspect.Parameter.empty, "hidden_size": inspect.Parameter.empty}
    plain = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0}
    expected = sizes | plain | {"bidirectional": False}
    expected |= {"proj_size": 0} if ours is tt.LSTM else {}
    if ours is tt.RNN:  # torch's fourth positional argument
        expected = sizes | {"num_layers": 1, "nonlinearity": "tanh"} | expected
    expected |= OURS_ALONE | {"device": None, "dtype": None}
    assert {name: one.default for name, one in actual.items()} == expected
    assert list(actual) == list(expected)
    assert defaults(ours, 3, 4) == defaults(theirs, 3, 4)
    given = (3, 4, 2, "relu") if ours is tt.RNN else (3, 4, 2)
    given = (*given, False, True, 0.25, True)
    assert defaults(ours, *given) == defaults(theirs, *given)
    assert ours(3, 4, dtype=torch.float64).weight_ih_l0.dtype == torch.float64
    assert ours(3, 4, device="meta").weight_ih_l0.is_meta


def test_the_call_takes_reset_behind_the_state():
    names = list(inspect.signature(tt.GRU.forward).parameters)
    assert names == ["self", "input", "hx", "reset", "initial"]
    assert names == list(inspect.signature(tt.MinGRU.forward).parameters)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("backend", ["torch", "reference", "cpu"])
def test_values_and_gradients_equal_torch(kind, layers, bias, bidirectional, backend, device):
    needs(backend, device)
    ours, theirs = pair(kind, 3, 5, layers, bias=bias, bidirectional=bidirectional)
    ours.backend = backend
    x = torch.randn(7, 4, 3, dtype=torch.float64, requires_grad=True)
    state = states.apply(torch.Tensor.requires_grad_, random_state(theirs, 4))
    actual, expected = ours(x, state), theirs(x, state)
    inputs = [x, *states.leaves(state)]
    flat = [actual[0], *states.leaves(actual[1])], [expected[0], *states.leaves(expected[1])]
    assert_same(*flat, output_names(flat[0]), **TOLERANCE)
    slopes = gradients(ours, inputs, flat[0]), gradients(theirs, inputs, flat[1])
    assert_same(*slopes, gradient_names(inputs, ours), **TOLERANCE)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_li_gru_equals_the_hand_unrolled_equations(backend, device):
    """Equations 9 to 11 of Ravanelli et al. (2018), unit by unit, in plain numbers."""
    needs(backend, device)
    torch.manual_seed(0)
    layer = tt.LiGRU(2, 3, dtype=torch.float64, backend=backend)
    x = torch.randn(6, 1, 2, dtype=torch.float64)
    w, u, a, b = (weight.tolist() for weight in layer.parameters())
    h, outputs, signs = [0.0] * 3, [], set()
    for step in x[:, 0].tolist():
        sums = [
            sum(p * q for p, q in zip([*w[row], *u[row]], [*step, *h], strict=True))
            + a[row]
            + b[row]
            for row in range(6)
        ]
        z = [1 / (1 + math.exp(-one)) for one in sums[:3]]
        n = [max(0.0, one) for one in sums[3:]]
        signs |= {one > 0 for one in sums[3:]}
        h = [keep * old + (1 - keep) * new for keep, old, new in zip(z, h, n, strict=True)]
        outputs.append(h)
    y, state = layer(x)
    expected = torch.tensor(outputs, dtype=torch.float64)
    assert signs == {False, True}
    assert_same([y[:, 0], state[0, 0]], [expected, expected[-1]], ["y", "h_end"], **TOLERANCE)


def test_rnn_equals_the_hand_unrolled_equations():
    """S_t = σ(O_{t-1} + X_t W_x), O_t = S_t W_rec, with W_x = weight_ih.T, W_rec = weight_hh.T."""
    activations = {"tanh": torch.tanh, "relu": torch.relu, "identity": lambda pre: pre}
    for nonlinearity, activation in activations.items():
        layer = tt.RNN(2, 3, bias=False, nonlinearity=nonlinearity).double()
        w_x, w_rec = layer.weight_ih_l0.T, layer.weight_hh_l0.T
        x = torch.randn(4, 1, 2, dtype=torch.float64)
        s0 = torch.randn(1, 1, 3, dtype=torch.float64)
        s1 = activation(s0[0] @ w_rec + x[0] @ w_x)
        s2 = activation(s1 @ w_rec + x[1] @ w_x)
        s3 = activation(s2 @ w_rec + x[2] @ w_x)
        s4 = activation(s3 @ w_rec + x[3] @ w_x)
        y, state = layer(x, s0)
        torch.testing.assert_close(y, torch.stack([s1, s2, s3, s4]), **TOLERANCE)
        torch.testing.assert_close(state[0], s4, **TOLERANCE)


@pytest.mark.parametrize("backend", ["torch", "reference", "cpu", "auto"])
@examples(25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(sorted(LAYERS)),
    steps=st.integers(1, 40),
    batch=st.integers(1, 4),
    layers=st.integers(1, 2),
    density=st.sampled_from([0.0, 0.03, 0.3, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_reset_equals_row_by_row_restarts(
    kind, steps, batch, layers, density, seed, backend, device
):
    needs(backend, device)
    ours, theirs = pair(kind, 2, 3, layers)
    ours.backend = backend
    torch.manual_seed(seed)
    x = torch.randn(steps, batch, 2, dtype=torch.float64, requires_grad=True)
    state = states.apply(torch.Tensor.requires_grad_, random_state(theirs, batch))
    reset = torch.rand(steps, batch) < density
    inputs = [x, *states.leaves(state)]
    y, final = ours(x, state, reset=reset)
    expected_y, expected_final = stepwise(theirs, x, state, reset)
    outputs, expected = [y, *states.leaves(final)], [expected_y, *states.leaves(expected_final)]
    torch.testing.assert_close(outputs, expected, **TOLERANCE)
    torch.testing.assert_close(
        gradients(ours, inputs, outputs), gradients(theirs, inputs, expected), **TOLERANCE
    )


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("backend", ["torch", "reference", "cpu"])
def test_packed_sequences_equal_torch(kind, ordered, bidirectional, backend, device):
    needs(backend, device)
    ours, theirs = pair(kind, 3, 5, 2, bidirectional=bidirectional)
    ours.backend = backend
    lengths = [6, 4, 4, 1] if ordered else [4, 1, 6, 4]
    x = torch.randn(6, 4, 3, dtype=torch.float64, requires_grad=True)
    state = states.apply(torch.Tensor.requires_grad_, random_state(theirs, 4))
    inputs, results = [x, *states.leaves(state)], []
    for module in (ours, theirs):
        packed = pack_padded_sequence(x, lengths, enforce_sorted=ordered)
        y, final = module(packed, state)
        assert isinstance(y, PackedSequence)
        outputs = [y.data, *states.leaves(final)]
        results.append((outputs, gradients(module, inputs, outputs)))
    torch.testing.assert_close(*results, **TOLERANCE)


@pytest.mark.parametrize("kind", [*LAYERS, "rnn_identity"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_everything_is_made_where_the_input_is(kind, bidirectional):
    """On torch's device without numbers, where a tensor of the CPU's among the others fails."""
    ours, _, extra = LAYERS.get(kind, (tt.RNN, None, {"nonlinearity": "identity"}))
    with torch.device("meta"):
        layer = ours(3, 5, 2, bidirectional=bidirectional, backend="reference", **extra)
        x, reset = torch.randn(6, 4, 3, requires_grad=True), torch.zeros(6, 4, dtype=torch.bool)
        order, back = torch.tensor([2, 0, 1]), torch.tensor([1, 2, 0])
        rows = torch.randn(6, 3)
    packed = PackedSequence(rows, torch.tensor([3, 2, 1], device="cpu"), order, back)
    from_afar = torch.zeros(6, 4, dtype=torch.bool, device="cpu")
    result = [layer(x, reset=reset), layer(packed), layer(x, reset=from_afar)]
    if not bidirectional:
        result.append(layer.step(x[0]))
    layer.backend = "auto"
    assert kernels.choose(layer.kind, "auto", x) == ("torch" if kind in LAYERS else "reference")
    result += [layer(x), layer(packed)]
    if not bidirectional:
        result.append(layer.step(x[0]))
    for y, state in result:
        y = y.data if isinstance(y, PackedSequence) else y
        assert all(part.is_meta for part in (y, *states.leaves(state)))
        assert y.shape[-1] == 5 * (2 if bidirectional else 1)
    result[0][0].sum().backward()
    assert x.grad.is_meta


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_restarting_from_a_given_state_equals_the_reference(kind, bidirectional):
    ours, _ = pair(kind, 2, 3, 2, bidirectional=bidirectional)
    torch.manual_seed(3)
    x, reset = torch.randn(50, 3, 2, dtype=torch.float64), torch.rand(50, 3) < 0.1
    state, initial = random_state(ours, 3), random_state(ours, 1)
    results = []
    for backend in ("torch", "reference"):
        ours.backend = backend
        start = states.apply(lambda part: part.clone().requires_grad_(), initial)
        y, final = ours(x, state, reset=reset, initial=start)
        outputs = [y, *states.leaves(final)]
        results.append((outputs, gradients(ours, list(states.leaves(start)), outputs)))
    torch.testing.assert_close(results[0], results[1], **TOLERANCE)
    assert any(g.abs().max() > 1e-3 for g in results[0][1][:1])


@pytest.mark.parametrize("kind", [*LAYERS, "rnn_identity"])
@pytest.mark.parametrize("layers", [1, 2])
def test_steps_equal_the_sequence_call(kind, layers):
    if kind == "rnn_identity":
        layer = tt.RNN(3, 4, layers, nonlinearity="identity").double()
    else:
        layer, _ = pair(kind, 3, 4, layers)
    x = torch.randn(6, 2, 3, dtype=torch.float64)
    y, final = layer(x)
    state, outputs = None, []
    for x_t in x:
        y_t, state = layer.step(x_t, state)
        outputs.append(y_t)
    torch.testing.assert_close(torch.stack(outputs), y, **TOLERANCE)
    torch.testing.assert_close(list(states.leaves(state)), list(states.leaves(final)), **TOLERANCE)


@pytest.mark.parametrize("kind", LAYERS)
def test_layouts_of_torch(kind):
    ours, theirs = pair(kind, 3, 4, batch_first=True)
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    torch.testing.assert_close(ours(x)[0], theirs(x)[0], **TOLERANCE)
    reset = torch.zeros(2, 5, dtype=torch.bool)
    torch.testing.assert_close(ours(x, reset=reset)[0], theirs(x)[0], **TOLERANCE)
    torch.testing.assert_close(
        ours(x[0], reset=reset[0])[0], theirs(x[0])[0], **TOLERANCE
    )  # unbatched
    packed = pack_sequence([x[0], x[1, :2]])
    actual, expected = ours(packed)[0], theirs(packed)[0]
    assert isinstance(actual, PackedSequence)
    torch.testing.assert_close(actual.data, expected.data, **TOLERANCE)


def test_state_dict_deepcopy_and_functional_call():
    layer = tt.GRU(2, 3)
    twin = copy.deepcopy(layer)
    x, reset = torch.randn(5, 1, 2), torch.zeros(5, 1, dtype=torch.bool)
    torch.testing.assert_close(layer(x)[0], twin(x)[0])
    doubled = {name: 2 * value for name, value in layer.state_dict().items()}
    twin.load_state_dict(doubled)
    result = torch.func.functional_call(layer, doubled, (x, None, reset))[0]
    torch.testing.assert_close(result, twin(x)[0])
    assert list(layer.state_dict()) == list(nn.GRU(2, 3).state_dict())


def test_dropout_between_layers_is_drawn_in_training_only():
    layer = tt.LSTM(2, 3, 2, dropout=0.5)
    x, reset = torch.randn(5, 4, 2), torch.zeros(5, 4, dtype=torch.bool)
    assert not torch.equal(layer(x, reset=reset)[0], layer(x, reset=reset)[0])
    layer.eval()
    assert torch.equal(layer(x, reset=reset)[0], layer(x, reset=reset)[0])


def test_errors_name_the_remedy():
    assert kernels.backends() == {"cpu": native.available(), "torch": True, "reference": True}
    with pytest.raises(BackendError, match="backend 'tpu' does not run here; choose one of: auto"):
        tt.GRU(2, 3, backend="tpu")
    layer = tt.RNN(2, 3, nonlinearity="identity", backend="torch")
    with pytest.raises(BackendError, match="use backend='reference'"):
        layer(torch.zeros(1, 1, 2))
    with pytest.raises(SettingError, match="nonlinearity 'sine' is not tanh, relu or identity"):
        tt.RNN(2, 3, nonlinearity="sine")
    with pytest.raises(SettingError, match=r"reset must be bool \[T, B\] = \[4, 1\]"):
        tt.GRU(2, 3)(torch.zeros(4, 1, 2), reset=torch.zeros(4, 2, dtype=torch.bool))
    with pytest.raises(SettingError, match="needs the future"):
        tt.GRU(2, 3, bidirectional=True).step(torch.zeros(1, 2))
