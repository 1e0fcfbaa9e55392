"""Everything together: the parts are those of their own functions, and all is plain JSON."""

import json

import pytest
import torch

import throughtime as tt
from throughtime.gradflow.diagnosis import diagnose
from throughtime.gradflow.examination import Examination, examine
from throughtime.gradflow.jacobians import spectral_radius, step_radius
from throughtime.gradflow.ledger import ledger
from throughtime.gradflow.saturation import saturation

STEPS, ROWS, LAG = 96, 2, 10


class Pairs:
    """Inputs and targets."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, steps):
        return self.x[steps], self.y[steps]


def problem(layer, lag=1):
    torch.manual_seed(0)
    layer = layer()
    dtype = next(layer.parameters()).dtype
    x = torch.randn(STEPS, ROWS, 2, dtype=dtype)
    y = x.roll(lag, 0)[..., :1]

    def loss(batch, state):
        out, state = layer(batch[0], state)
        return (out.sum(-1, keepdim=True) - batch[1]).square().sum(), state

    h = torch.zeros(layer.num_layers, ROWS, layer.hidden_size, dtype=dtype)
    params = {f"rnn.{n}": p for n, p in layer.named_parameters()}
    return loss, Pairs(x, y), (h, h.clone()) if layer.mode == "LSTM" else h, params


LAYERS = {
    "rnn": lambda: tt.RNN(2, 5).double(),
    "gru": lambda: tt.GRU(2, 4, 2),
    "lstm": lambda: tt.LSTM(2, 4),
    "torch lstm": lambda: torch.nn.LSTM(2, 4),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_parts_are_those_of_their_own_functions(name):
    loss, batch, state, params = problem(LAYERS[name])
    parts = []
    result = examine(loss, batch, state, params, LAG, k2=4, on_progress=lambda *a: parts.append(a))
    assert [done for _, done in parts] == sorted(done for _, done in parts)
    assert parts[0] == ("ledger", 0.0)
    assert parts[-1] == ("verdict", 1.0)
    plain = json.loads(json.dumps(result.to_json(), allow_nan=False))
    book = ledger(loss, batch, state, params, LAG, k2=4)
    assert plain["lags"] == list(range(LAG + 1))
    assert plain["norms"] == pytest.approx(book.norms.tolist())
    assert plain["share"] == pytest.approx(book.share.tolist())
    assert plain["bias"][3] == pytest.approx(book.bias(3))
    assert plain["cosine"][3] == pytest.approx(book.cosine(3))
    assert plain["reach"] == {str(s): book.reach(s) for s in (0.5, 0.9, 0.95, 0.99)}
    assert plain["state_norm"]["mean"] == pytest.approx(book.state_norm.tolist())
    assert set(plain["state_norm"]) == {"mean", "low", "median", "high"}
    assert all(len(values) == LAG + 1 for values in plain["state_norm"].values())
    assert (plain["max_lag"], plain["steps"], plain["k2"]) == (LAG, STEPS, 4)
    whole = float(book.norms.sum()) + book.rest
    assert plain["beyond"] == pytest.approx((float(book.norms[4:].sum()) + book.rest) / whole)
    assert plain["jacobian_norm"]["lags"] == [1, 2, 4, 8]
    assert all(len(values) == 4 for values in plain["jacobian_norm"].values())
    assert plain["saturation"] == saturation(loss, batch, state, params)
    radii = spectral_radius(params) | {"mean step": step_radius(loss, batch, state, 8)}
    assert plain["spectral_radius"] == pytest.approx(radii)
    assert plain["lyapunov"] == result.lyapunov < 0
    assert plain["verdict"]["name"] == result.verdict.name == diagnose(result.evidence).name
    assert plain["verdict"]["sentence"] in str(result.verdict)
    assert Examination.from_json(plain).to_json() == plain
    again = examine(loss, batch, state, params, LAG, k2=4)
    assert again.to_json() == result.to_json()


def test_a_network_that_grows_and_one_that_forgets():
    def of(gain):
        def layer():
            layer = tt.RNN(2, 5, nonlinearity="identity").double()
            with torch.no_grad():
                layer.weight_hh_l0.copy_(gain * torch.eye(5))
            return layer

        loss, batch, state, params = problem(layer)
        return examine(loss, batch, state, params, 20)

    grown, faded = of(1.2), of(0.4)
    assert grown.verdict.name == "exploding"
    assert grown.lyapunov == pytest.approx(0.1823, abs=1e-4)
    assert grown.evidence.state_growth == pytest.approx(0.1823, abs=0.02)
    assert faded.verdict.name == "vanishing"
    assert faded.verdict.evidence["half_life"] == pytest.approx(0.756, abs=0.01)
    assert faded.jacobian_norm.mean == pytest.approx(
        [0.4**lag for lag in (1, 2, 4, 8, 16)], rel=1e-6
    )


def test_a_first_state_that_the_loss_makes():
    loss, batch, state, params = problem(LAYERS["gru"])
    result, given = (
        examine(loss, batch, None, params, LAG),
        examine(loss, batch, state, params, LAG),
    )
    assert result.evidence.norms == pytest.approx(given.evidence.norms)
    assert result.saturation == given.saturation
    assert result.lyapunov == pytest.approx(given.lyapunov, rel=0.05)
