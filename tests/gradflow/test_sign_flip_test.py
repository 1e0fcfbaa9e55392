"""Do gradients agree? The exact test of signs, and what it says of real losses."""

import itertools

import pytest
import torch

import throughtime as tt
from throughtime.gradflow.sign_flip_test import chance, sign_flip_test


def test_the_share_is_that_of_all_choices_of_signs():
    torch.manual_seed(0)
    vectors = torch.randn(6, 3, dtype=torch.float64)
    lengths = [
        float((torch.tensor(signs, dtype=torch.float64) @ vectors).norm())
        for signs in itertools.product([1.0, -1.0], repeat=6)
    ]
    expected = sum(length >= lengths[0] - 1e-12 for length in lengths) / len(lengths)
    assert chance(vectors) == expected
    assert chance(1e-250 * vectors) == expected
    same = torch.ones(6, 3, dtype=torch.float64)
    assert chance(same) == 1 / 32


def test_noise_is_called_significant_as_often_as_it_should_be():
    source = torch.Generator().manual_seed(1)
    result = torch.tensor(
        [chance(torch.randn(8, 5, generator=source, dtype=torch.float64)) for _ in range(1000)]
    )
    for level in (0.05, 0.1, 0.5):  # within three standard errors
        share = float((result <= level).double().mean())
        assert abs(share - level) < 3 * (level * (1 - level) / 1000) ** 0.5 + 1 / 128


class Pairs:
    """Inputs and targets."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.x)

    def __getitem__(self, steps):
        return self.x[steps], self.y[steps]


def problem(lag):
    """A linear network that forgets a factor of 1000 a step, at the floor for all but the lag."""
    torch.manual_seed(2)
    layer = tt.RNN(1, 2, nonlinearity="identity").double()
    with torch.no_grad():
        layer.weight_hh_l0.copy_(1e-3 * torch.eye(2))
        for name in ("bias_ih_l0", "bias_hh_l0"):
            getattr(layer, name).zero_()
    x = torch.randn(320, 4, 1, dtype=torch.float64)
    y = torch.randn(320, 4, 1, dtype=torch.float64)
    if lag is not None:
        y[lag:] += x[: 320 - lag]

    def loss(batch, state):
        out, state = layer(batch[0], state)
        return (1e-9 * out.sum(-1, keepdim=True) - batch[1]).square().sum(), state

    return loss, Pairs(x, y), torch.zeros(1, 4, 2, dtype=torch.float64), layer


@pytest.mark.parametrize("lag", [0, 3, 9])
def test_a_faint_part_from_far_back_is_found(lag):
    loss, batch, state, layer = problem(lag)
    params = dict(layer.named_parameters())
    assert sign_flip_test(loss, batch, state, params, 12) < 0.01


def test_targets_that_nothing_tells_have_no_signal():
    loss, batch, state, layer = problem(None)
    params = {n: p for n, p in layer.named_parameters() if n.startswith("weight")}
    assert sign_flip_test(loss, batch, state, params, 12) > 0.05
    assert sign_flip_test(loss, batch, state, params, 500) > 0.05
    short = Pairs(batch.x[:31], batch.y[:31])
    assert sign_flip_test(loss, short, state, params, 12) is None


def test_a_gradient_of_zero_has_no_signal():
    _, batch, state, layer = problem(0)

    def loss(batch, state):
        out, state = layer(batch[0], state)
        return 0.0 * out.sum(), state

    assert sign_flip_test(loss, batch, state, dict(layer.named_parameters()), 4) == 1.0
