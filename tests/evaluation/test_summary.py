"""The sentences of the verdict, branch by branch."""

from __future__ import annotations

from typing import Any

import pytest

from throughtime.evaluation.results import Comparison, Comparisons, Risk
from throughtime.evaluation.summary import verdict


def comparison(model: str, against: str, value: Any, interval: Any, **more: Any) -> Comparison:
    return Comparison(model=model, against=against, value=value, interval=interval, **more)


BETTER = comparison("gru", "constant", -0.161, [-0.182, -0.14])
GRU_AR = ("gru", "ar(5)")
CASES = {
    "nothing to compare": (
        {"past": None},
        "The best by validation is gru.",
    ),
    "impossible test data": (
        {"past": comparison("gru", "constant", None, None)},
        "The best by validation is gru; the test data do not allow a comparison.",
    ),
    "past matters": (
        {"past": BETTER},
        "The past matters: gru gains 0.161 nats per day (95 % interval 0.140 to 0.182) over "
        "constant.",
    ),
    "constant as good": (
        {"past": comparison("gru", "constant", 0.001, [-0.012, 0.014])},
        "A constant is as good: gru differs from it by −0.001 nats per day "
        "(95 % interval −0.014 to +0.012).",
    ),
    "constant better": (
        {"past": comparison("gru", "random walk", 0.1, [0.05, 0.15])},
        "Random walk is better: gru loses 0.100 nats per day (95 % interval 0.050 to 0.150) to it.",
    ),
    "too few": (
        {"past": comparison("gru", "constant", -0.1, None)},
        "The test data are too few to tell: gru differs from constant by +0.100 nats per day.",
    ),
    "latent adds": (
        {"past": BETTER, "latent": comparison(*GRU_AR, -0.05, [-0.07, -0.03])},
        "; a finite order is not enough: the latent state of gru adds 0.050 nats per day "
        "(95 % interval 0.030 to 0.070) over ar(5).",
    ),
    "finite order better": (
        {"past": BETTER, "latent": comparison(*GRU_AR, 0.05, [0.03, 0.07])},
        "; a finite order is enough: ar(5) beats the latent state of gru by 0.050 nats per day "
        "(95 % interval 0.030 to 0.070).",
    ),
    "finite order as good": (
        {"past": BETTER, "latent": comparison(*GRU_AR, -0.01, [-0.03, 0.01])},
        "; a finite order is as good: the latent state of gru differs from ar(5) by +0.010 nats "
        "per day (95 % interval −0.010 to +0.030).",
    ),
    "latent cut short": (
        {"past": BETTER, "latent": comparison(*GRU_AR, 0.05, [0.03, 0.07], passes=0.346)},
        "; whether a latent state adds to ar(5) is open: gru was trained on 35 % of the "
        "training data only; give it more time.",
    ),
    "latent cut short, yet better": (
        {"past": BETTER, "latent": comparison(*GRU_AR, -0.05, [-0.07, -0.03], passes=0.9)},
        "; a finite order is not enough: the latent state of gru adds 0.050 nats per day "
        "(95 % interval 0.030 to 0.070) over ar(5).",
    ),
    "latent trained through": (
        {"past": BETTER, "latent": comparison(*GRU_AR, 0.05, [0.03, 0.07], passes=1.0)},
        "; a finite order is enough: ar(5) beats the latent state of gru by 0.050 nats per day "
        "(95 % interval 0.030 to 0.070).",
    ),
    "latent unknown": (
        {"past": BETTER, "latent": comparison(*GRU_AR, -0.01, None)},
        "; whether a latent state adds to ar(5) these test data are too few to tell.",
    ),
    "baseline better": (
        {"past": BETTER, "baseline": comparison("garch", "gru", -0.02, [-0.03, -0.01])},
        "; the baseline garch is better than gru by 0.020 nats per day "
        "(95 % interval 0.010 to 0.030).",
    ),
    "baseline worse": (
        {"past": BETTER, "baseline": comparison("garch", "gru", 0.1, [0.0, 0.2])},
        "stant.",
    ),
    "loss": (
        {"past": BETTER, "risk": Risk(level=0.01, value=97.6, last=100.0)},
        " over constant. One day in a hundred falls by more than 2.4 %.",
    ),
    "low value": (
        {"past": BETTER, "risk": Risk(level=0.05, value=-1.25, last=0.5)},
        ". The next day lies below -1.25 with a probability of 5 %.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_verdict(case: str) -> None:
    given, expected = CASES[case]
    given = dict(given)
    risk = given.pop("risk", None)
    sentence = verdict("gru", "day", Comparisons(**given), risk)
    assert sentence.endswith(expected)
    if expected[0].isupper():
        assert sentence == expected
