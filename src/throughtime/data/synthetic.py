"""Made-up data whose memory is known: to try a certificate, a model or a gradient on.

Each process draws one sequence of `length` steps with `seed`, and says what is true of it; `adding`
and `copying` are the classic tasks of long memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from throughtime.data.domain import Domain
from throughtime.data.sequences import Sequences

LENGTH = 4000
LONGER = 10_000  # where the difference to be detected is a hundredth of a nat


@dataclass(frozen=True)
class Sample:
    """A sequence and the truth about it.

    lags: the oldest element that the distribution of the next one depends on, None where there is
    no last one. latent: whether a state says more than every finite-order model can, on so little
    data; None: open.
    """

    data: Sequences
    lags: int | None
    latent: bool | None
    about: str

    @property
    def order_matters(self) -> bool:
        return self.lags != 0


def iid(seed: int, length: int = LENGTH) -> Sample:
    """Independent values of a skewed distribution, or independent symbols of unequal odds."""
    draw = np.random.default_rng([seed, 1])
    if seed % 2:
        odds = draw.dirichlet(np.full(6, 2.0))
        return Sample(_symbols(draw.choice(6, length, p=odds), 6), 0, False, "six symbols")
    return Sample(_values(draw.gamma(2.0, size=length)), 0, False, "gamma")


def autoregression(seed: int, length: int = LENGTH) -> Sample:
    """A stationary Gaussian AR(p), p drawn from 1 to 8, whose last coefficient is 0.3 to 0.6.

    Drawn by its partial autocorrelations (Barndorff-Nielsen & Schou 1973).
    """
    draw = np.random.default_rng([seed, 2])
    order = int(draw.integers(1, 9))
    partial = draw.uniform(-0.5, 0.5, order)
    partial[-1] = draw.choice([-1, 1]) * draw.uniform(0.3, 0.6)
    weights = np.zeros(0)
    for last in partial:
        weights = np.append(weights - last * weights[::-1], last)
    x = np.zeros(length + 500)
    noise = draw.normal(size=len(x))
    for t in range(order, len(x)):
        x[t] = weights @ x[t - order : t][::-1] + noise[t]
    return Sample(_values(x[500:]), order, False, f"AR({order})")


def markov(seed: int, length: int = LENGTH) -> Sample:
    """A Markov chain of order 1 to 4 over three symbols, with sharp distributions."""
    draw = np.random.default_rng([seed, 3])
    order, count = int(draw.integers(1, 5)), 3
    distributions = draw.dirichlet(np.full(count, 0.3), size=(count,) * order)
    distributions = 0.95 * distributions + 0.05 / count  # ergodic: every symbol stays possible
    x = list(draw.integers(0, count, order))
    for u in draw.uniform(size=length + 100):
        x.append(int(np.searchsorted(distributions[tuple(x[-order:])].cumsum(), u)))
    values = _symbols(np.minimum(x[-length:], count - 1), count)
    return Sample(values, order, False, f"order {order}")


def copy(seed: int, length: int = LENGTH) -> Sample:
    """A noisy copy of the symbol L steps ago, L from 5 to 150; else any of six symbols."""
    draw = np.random.default_rng([seed, 4])
    lag, count = int(draw.integers(5, 151)), 6
    x = draw.integers(0, count, length + lag)
    copied = draw.uniform(size=len(x)) < 0.7
    for t in range(lag, len(x)):
        x[t] = x[t - lag] if copied[t] else x[t]
    return Sample(_symbols(x[lag:], count), lag, False, f"lag {lag}")


def seasonal(seed: int, length: int = LENGTH) -> Sample:
    """A seasonal autoregression: 0.8 of the value one season ago, and noise."""
    draw = np.random.default_rng([seed, 5])
    season = int(draw.choice([7, 12, 24, 52, 168]))
    x = np.zeros(length + 10 * season)
    noise = draw.normal(size=len(x))
    for t in range(season, len(x)):
        x[t] = 0.8 * x[t - season] + noise[t]
    return Sample(_values(x[-length:]), season, False, f"season {season}")


def hidden_markov(seed: int, length: int = LONGER) -> Sample:
    """Three hidden states that last 20 steps on average, each a distribution over six symbols."""
    draw = np.random.default_rng([seed, 6])
    distributions = draw.dirichlet(np.full(6, 1.0), size=3)
    jumps = draw.uniform(size=length) > 0.95
    state = np.cumsum(jumps * draw.integers(1, 3, length)) % 3
    x = [int(draw.choice(6, p=distributions[s])) for s in state]
    return Sample(_symbols(np.array(x), 6), None, True, "three states")


def garch(seed: int, length: int = 2 * LONGER) -> Sample:
    """GARCH(1, 1) with Gaussian noise: the variance is a state of long memory."""
    draw = np.random.default_rng([seed, 7])
    alpha = draw.uniform(0.06, 0.12)
    beta = 0.98 - alpha
    noise = draw.normal(size=length + 500)
    x, variance = np.zeros(len(noise)), 1.0
    for t in range(1, len(x)):
        variance = 0.02 + alpha * x[t - 1] ** 2 + beta * variance
        x[t] = variance**0.5 * noise[t]
    return Sample(_values(x[500:]), None, True, f"alpha {alpha:.2f}")


def chaotic(seed: int, length: int = LENGTH) -> Sample:
    """The logistic map x → 4 x (1 - x): no correlation at any lag, and one lag says it all."""
    draw = np.random.default_rng([seed, 8])
    x = np.empty(length)
    x[0] = draw.uniform(0.1, 0.9)
    for t in range(1, length):
        x[t] = 4 * x[t - 1] * (1 - x[t - 1])
    return Sample(_values(x), 1, False, "logistic map")


def shuffled(seed: int, length: int = LENGTH) -> Sample:
    """The steps of one of the other processes in random order."""
    others = (autoregression, markov, copy, seasonal, hidden_markov, garch, chaotic)
    origin = others[seed % len(others)](seed, length=length)
    order = np.random.default_rng([seed, 9]).permutation(length)
    values = origin.data.values[torch.from_numpy(order)]
    data = Sequences.of([values], origin.data.domain)
    return Sample(data, 0, False, f"of {others[seed % len(others)].__name__}")


_COPIED = 8  # that `copying` draws from; one more is a blank, and one asks for the copy


def adding(count: int, length: int, seed: int) -> Sequences:
    """Sequences of one observed value, the last; numbers and markers are known beforehand."""
    source = torch.Generator().manual_seed(seed)
    value = torch.rand(count, length, generator=source, dtype=torch.float64)
    marker = torch.zeros(count, length, dtype=torch.float64)
    half, each = length // 2, torch.arange(count)
    marker[each, torch.randint(0, half, (count,), generator=source)] = 1
    marker[each, torch.randint(half, length, (count,), generator=source)] = 1
    asked = torch.full((count, length), math.nan, dtype=torch.float64)
    asked[:, -1] = (value * marker).sum(1)
    return Sequences(
        asked.reshape(-1, 1),
        torch.arange(count + 1) * length,
        starts=torch.zeros(count, dtype=torch.long),
        domain=Domain("real", columns=("sum",), covariate_columns=("value", "marker")),
        names=tuple(f"{seed}.{i}" for i in range(count)),
        covariates=torch.stack([value, marker], -1).flatten(0, 1),
    )


def copying(count: int, length: int, seed: int, kept: int = 10) -> Sequences:
    """Sequences of some symbols, blanks, a sign, and the same symbols again."""
    source = torch.Generator().manual_seed(seed)
    symbols = torch.randint(_COPIED, (count, kept), generator=source)
    blanks = torch.full((count, length - 1), _COPIED)
    sign = torch.full((count, 1), _COPIED + 1)
    rows = torch.cat([symbols, blanks, sign, symbols], 1)
    return Sequences.of(list(rows), Domain("symbols", num_symbols=_COPIED + 2))


FAMILIES: dict[str, Callable[..., Sample]] = {
    "iid": iid,
    "ar": autoregression,
    "markov": markov,
    "copy": copy,
    "seasonal": seasonal,
    "hmm": hidden_markov,
    "garch": garch,
    "chaotic": chaotic,
    "shuffled": shuffled,
}


def _values(x: np.ndarray) -> Sequences:
    return Sequences.of([torch.from_numpy(x.copy())])


def _symbols(x: np.ndarray, count: int) -> Sequences:
    return Sequences.of(
        [torch.from_numpy(x.astype(np.int64))], Domain("symbols", num_symbols=count)
    )
