"""Verdicts from tables of numbers: each name, its sentence, and which fault comes first."""

import math

import pytest

from throughtime.gradflow.diagnosis import Evidence, diagnose

LAG = 40


def falling(factor, lag=LAG):
    return [factor**k for k in range(lag + 1)]


def evidence(norms=None, **changes):
    norms = falling(0.95) if norms is None else norms
    plain = {
        "state_norm": norms,
        "norms": norms,
        "rest": 0.0,
        "max_lag": len(norms) - 1,
        "steps": 1000,
        "gradient_norm": 3.0,
        "parameter_norm": 5.0,
        "loss": 100.0,
    }
    return Evidence(**plain | changes)


CASES = [
    ("healthy", evidence()),
    ("healthy", evidence(falling(1.0))),
    ("healthy", evidence(k2=LAG + 1, lyapunov=-0.05, sign_flip_p=1e-3, state_growth=0.0)),
    ("healthy", evidence(saturation={"l0.f": 0.9, "l0.z": 0.9, "l0.g": 0.4, "l0.relu": 0.6})),
    ("healthy", evidence(lyapunov=0.001, state_growth=0.0)),
    ("healthy", evidence(falling(0.8, 20), lyapunov=-0.2)),
    ("vanishing", evidence(falling(0.5))),
    ("vanishing", evidence([1.0] + [0.0] * LAG)),
    ("vanishing", evidence(falling(0.5), k2=LAG, saturation={"l0.tanh": 0.1})),
    ("vanishing", evidence(falling(0.5), state_norm=[math.nan, *falling(0.5)[1:]])),
    ("exploding", evidence(falling(1.2))),
    ("exploding", evidence(falling(1.2), k2=5)),
    ("exploding", evidence(falling(1.1), lyapunov=0.095, state_growth=0.095)),
    ("exploding", evidence(falling(1.2), lyapunov=-0.01)),
    ("exploding", evidence(gradient_norm=math.inf)),
    ("exploding", evidence(loss=math.nan)),
    ("exploding", evidence([1.0] * LAG + [math.inf])),
    ("chaotic", evidence(falling(1.2), lyapunov=0.18, state_growth=0.001)),
    ("chaotic", evidence(lyapunov=0.1, state_growth=-0.001, saturation={"l0.tanh": 0.7})),
    ("chaotic", evidence(lyapunov=0.3, sign_flip_p=0.7)),
    ("saturated", evidence(falling(0.1), saturation={"l0.r": 0.1, "l0.n": 0.8})),
    ("saturated", evidence(falling(0.1), saturation={"l0.tanh": 0.8}, sign_flip_p=0.5)),
    ("nothing to learn", evidence(sign_flip_p=0.4)),
    ("nothing to learn", evidence(falling(0.5), sign_flip_p=0.4, k2=2)),
    ("nothing to learn", evidence([0.0] * LAG, gradient_norm=0.0)),
    ("truncated too short", evidence(k2=10)),
    ("truncated too short", evidence(k2=10, sign_flip_p=1e-3, lyapunov=-0.05)),
    ("truncated too short", evidence(falling(0.5), k2=1)),
    ("truncated too short", evidence(rest=30.0, k2=LAG + 1)),
    ("healthy", evidence(k2=LAG + 2)),
    # one loss, at the end of 200 steps: fewer and fewer steps have a past of k
    ("healthy", evidence([1 / (201 - k) for k in range(200)], steps=200)),
    ("vanishing", evidence([0.8**k / (201 - k) for k in range(200)], steps=200)),
]


@pytest.mark.parametrize(("name", "given"), CASES)
def test_names(name, given):
    result = diagnose(given)
    assert result.name == name
    assert str(result) == f"{name}: {result.sentence}. {result.remedy}."
    assert all(isinstance(value, float) for value in result.evidence.values())


def test_the_words_hold_their_numbers():
    result = diagnose(evidence(falling(0.8, 70)))
    assert result.name == "vanishing"
    assert str(result) == (
        "vanishing: the gradient falls by half every 3.1 steps; 95 % of it lies within lag "
        "13; less than a thousandth of it gets further than 35 steps. If the data remember "
        "longer: a GRU or LSTM with chrono initialisation for 70 steps, or orthogonal recurrent "
        "weights."
    )
    assert result.evidence["half_life"] == pytest.approx(math.log(2) / -math.log(0.8))
    assert result.evidence["reach"] == 13
    result = diagnose(evidence(falling(0.9), k2=5))
    share = sum(falling(0.9)[5:]) / sum(falling(0.9))
    assert result.evidence == {"k2": 5.0, "beyond": pytest.approx(share), "reach": 26.0}
    assert "after 5 steps, 58 % of it comes from beyond" in str(result)
    assert "k2 = k1 + 26" in result.remedy
    result = diagnose(evidence(lyapunov=0.2, state_growth=0.0))
    assert "twice as far every 3.5 steps (Lyapunov exponent +0.2 per step)" in result.sentence
    assert "beyond 35 steps" in result.sentence
    assert "after about 5 steps" in result.remedy
    result = diagnose(evidence(falling(2.0)))
    assert (
        "doubles every step on its way back: after 40 steps it is 1.1e+12 times as large"
        in result.sentence
    )
    assert result.evidence["growth_per_step"] == pytest.approx(2.0)
    result = diagnose(evidence(saturation={"rnn.l0.n": 0.8}))
    assert "80 % of the activations 'rnn.l0.n'" in result.sentence
    assert result.evidence == {"rnn.l0.n": 0.8}
    assert "p = 0.4" in diagnose(evidence(sign_flip_p=0.4)).sentence


def test_reach_rate_and_what_lies_beyond():
    e = evidence([4.0, 3.0, 2.0, 1.0], rest=10.0)
    assert e.reach(0.2) == 0
    assert e.reach(0.5) == 3
    assert e.reach(0.95) is None
    assert e.share == [0.2, 0.35, 0.45, 0.5]
    for k2, beyond in ((0, 1.0), (2, pytest.approx(13 / 20)), (4, 0.5), (5, None)):
        assert evidence([4.0, 3.0, 2.0, 1.0], rest=10.0, k2=k2).beyond == beyond
    assert e.beyond is None
    assert evidence([1.0, 1.0], k2=9).beyond == 0.0
    assert evidence([0.0, 0.0], k2=1).beyond == 0.0
    assert evidence(falling(0.7)).rate() == pytest.approx(math.log(0.7))
    assert evidence([1.0]).rate() == 0.0
    assert evidence([1.0, 0.0]).rate() == -math.inf
    assert "ends after one step" in diagnose(evidence([1.0] + [0.0] * LAG)).sentence


def test_truncation_leaves_out_more_than_what_lies_beyond_it() -> None:
    """Of k1 losses at once, a lag k is seen by (k2 - k) / k1: counted by hand."""
    norms = [1.0, 1.0, 1.0, 1.0]
    chunks = evidence(norms, k2=4, k1=4)
    assert chunks.beyond == 0.0
    assert chunks.lost == pytest.approx(1 - (4 + 3 + 2 + 1) / 16)
    assert evidence(norms, k2=4).lost == 0.0
    assert evidence(norms, k2=2, k1=1).lost == 0.5
    assert evidence(norms).lost is None
    assert "using 4 losses at once leaves out 38 % in all" in str(diagnose(chunks))
    hardly = diagnose(evidence(norms, k2=3, k1=3))
    assert hardly.name == "truncated too short"
