"""Windows of values: a distribution whose location is a sum of functions of chosen lags.

    x_t = a_0 + Σ_j f_j(x_{t-j}) + σ_t e_t,   log σ_t = b_0 + Σ_m b_m log s²_{t,m},   e ~ Student

"linear": f is a line and σ constant, an autoregression. "additive": f also holds a square and an
absolute value, and g logarithms of mean squares of the last few steps (Corsi 2009): it sees
volatility, and maps that no correlation shows.
Maximum likelihood with a light ridge, by L-BFGS from the least squares. Columns are modelled one
by one, each given the past of all. A lag before the beginning of its sequence counts as average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.optimize import minimize

from throughtime.history.parts import Floats, Part
from throughtime.models.regression import student_nats

SHAPES = ("linear", "additive")
_RIDGE = 1e-3  # per step, on standardised features
LIMIT = 5.0  # standard deviations beyond which a value shapes squares and volatility no further
FLOOR = 0.05  # of a mean square, below which it is taken for no smaller
_AVERAGED = (1, 3, 8, 20)  # steps over which squares are averaged, and the whole window
_SCALES = (math.log(1e-3), math.log(1e2))  # of a column's standard deviation
_COUPLED = 8  # columns up to which each is given the past of all


@dataclass(frozen=True)
class Column:
    """The distribution of one column: weights of the location and the logarithm of the scale, and
    df.
    """

    location: Floats
    scale: Floats
    df: float


@dataclass(frozen=True)
class ValueLaw:
    """The distribution of each step given the lags that it looks at."""

    lags: tuple[int, ...]
    shape: str
    columns: tuple[Column, ...]

    def residuals(self, part: Part) -> Floats:
        """(x - location) / scale of every target, ``[n, D]``."""
        x = part.values[part.rows]
        found = np.empty_like(x)
        for i, column in enumerate(self.columns):
            f, g = designs(part, self.lags, self.shape, i)
            scale = (g @ column.scale).clip(*_SCALES)
            found[:, i] = (x[:, i] - f @ column.location) / np.exp(scale)
        return found

    def nats(self, part: Part) -> Floats:
        """Nats of every target in the data's own units, ``[n]``."""
        distributions = []
        for i, column in enumerate(self.columns):
            f, g = designs(part, self.lags, self.shape, i)
            distributions.append((f @ column.location, g @ column.scale, column.df))
        return law_nats(part, distributions)

    def scores(self, part: Part) -> Floats:
        """Residuals as normal scores and their squares, less 1: ``[n, 2 D]``."""
        residual = self.residuals(part)
        df = np.array([column.df for column in self.columns])
        z = stats.norm.ppf(stats.t.cdf(residual, df).clip(1e-6, 1 - 1e-6)).clip(-3, 3)
        return np.concatenate([z, z**2 - 1], 1)


@dataclass(frozen=True)
class Values:
    """Fits distributions of values. Windows are described by their lags."""

    learn: Part
    shape: str = "linear"
    work: float = 8e6  # numbers in the designs of a distribution, at most

    @property
    def name(self) -> str:
        return "linear autoregression" if self.shape == "linear" else "additive autoregression"

    @property
    def most(self) -> int:
        """The longest window in which every lag is used."""
        columns = seen_columns(self.learn) * (1 if self.shape == "linear" else 4)
        longest = int((self.learn.rows - self.learn.first[self.learn.rows]).max(initial=0))
        return max(0, min(40, len(self.learn) // (10 * columns), longest // 4))

    def fit(self, dense: int, sparse: tuple[int, ...] = ()) -> ValueLaw:
        """The distribution given the last `dense` values and those at the lags `sparse`."""
        lags = (*range(1, dense + 1), *(lag for lag in sparse if lag > dense))
        d = self.learn.values.shape[1]
        each = seen_columns(self.learn) * (1 if self.shape == "linear" else 4)
        width = d * (1 + len(lags) * each)
        part = self.learn.thinned(max(1000, int(self.work) // width))
        x = part.values[part.rows]
        found = [
            most_likely(*designs(part, lags, self.shape, column), x[:, column])
            for column in range(d)
        ]
        return ValueLaw(lags, self.shape, tuple(found))

    def features(self, part: Part) -> Floats:
        """What the scan looks at of each step of the past."""
        return _features(part.values, "additive")[:, : 2 * part.values.shape[1]]

    def unseen(self, dense: int, sparse: tuple[int, ...]) -> tuple[Part, Floats]:
        """Targets and what the distribution of this window leaves of them."""
        part = self.learn.thinned(50_000)
        return part, self.fit(dense, sparse).scores(part)


def designs(
    part: Part, lags: tuple[int, ...], shape: str, column: int, steps: int | None = None
) -> tuple[Floats, Floats]:
    """What location and log-scale of a column are linear in, the constant first.

    ``[n, P]`` and ``[n, Q]``. Of many columns each has only its own past. steps: lags beyond it
    count as unknown.
    """
    ones = np.ones((len(part), 1))
    if not lags:
        return ones, ones
    values = part.values if seen_columns(part) > 1 else part.values[:, column : column + 1]
    place, begun = part.before(np.array(lags))
    if steps is not None:
        begun = begun & (np.array(lags) <= steps)
    seen = _features(values, shape)[place] * begun[..., None]
    f = np.concatenate([ones, seen.reshape(len(part), -1)], 1)
    if shape == "linear":
        return f, ones
    square = squares(values)
    dense = sum(lag == i + 1 for i, lag in enumerate(lags))
    over = [m for m in _AVERAGED if m < dense] + [dense] * (dense > 0)
    recent = [_mean_of_last(part, square, m, steps) for m in over]
    far = np.where(begun[..., None], square[place], 1.0)[:, dense:]
    spread = [*recent, *far.transpose(1, 0, 2)]
    return f, np.concatenate([ones, *(np.log(part + FLOOR) for part in spread)], 1)


def squares(values: Floats) -> Floats:
    """Squares, of no more than `LIMIT` standard deviations; 1, their mean, where missing."""
    return np.where(np.isnan(values), 1.0, values.clip(-LIMIT, LIMIT) ** 2)


def _mean_of_last(part: Part, square: Floats, count: int, steps: int | None) -> Floats:
    """Means over the last `count` steps before each target, or as many as there are, ``[n, D]``."""
    first = part.first[part.anchors]
    reach = np.minimum(part.anchors - first, count if steps is None else min(count, steps))
    running = np.concatenate([np.zeros((1, square.shape[1])), square.cumsum(0)])
    total = running[part.anchors] - running[part.anchors - reach]
    found: Floats = np.where(reach[:, None] > 0, total / np.maximum(reach, 1)[:, None], 1.0)
    return found


def seen_columns(part: Part) -> int:
    """How many columns the distribution of each is given."""
    columns = part.values.shape[1]
    return columns if columns <= _COUPLED else 1


def _features(values: Floats, shape: str) -> Floats:
    """x, and for "additive" also |x| and x², centred; 0 where missing."""
    x = np.nan_to_num(values)
    if shape == "linear":
        return x
    near = values.clip(-LIMIT, LIMIT)
    return np.concatenate([x, np.nan_to_num(np.abs(near) - 0.8), np.nan_to_num(near**2 - 1)], 1)


def law_nats(part: Part, distributions: list[tuple[Floats, Floats, float]]) -> Floats:
    """Nats of every target in the data's own units, from location, log-scale, df of each column."""
    x = part.values[part.rows]
    total = -part.log_det[part.rows]
    for i, (location, log_scale, df) in enumerate(distributions):
        scale = log_scale.clip(*_SCALES)
        total += scale - stats.t.logpdf((x[:, i] - location) / np.exp(scale), df)
    return total


def most_likely(f: Floats, g: Floats, y: Floats) -> Column:
    """Location, scale and df of one column by maximum likelihood, with a ridge."""
    n, p, q = len(y), f.shape[1], g.shape[1]
    # In coordinates in which the design is white, L-BFGS needs few steps.
    f_root, g_root = _root(f), _root(g)
    f_white, g_white = f @ f_root, g @ g_root
    start = np.linalg.lstsq(f_white.T @ f_white, f_white.T @ y, rcond=None)[0]
    spread = max(float(np.std(y - f_white @ start)), 1.1e-3)
    first = np.concatenate([start, np.zeros(q), [math.log(8.0)]])
    first[p : p + q] = g_white.T @ np.full(n, math.log(spread)) / n

    def objective(point: Floats) -> tuple[float, Floats]:
        beta, gamma, log_df = point[:p], point[p : p + q], point[-1]
        raw = g_white @ gamma
        log_scale = raw.clip(*_SCALES)
        residual = (y - f_white @ beta) / np.exp(log_scale)
        slope, by_scale, total, by_df = _slopes(residual, float(log_df))
        inside = (raw > _SCALES[0]) & (raw < _SCALES[1])
        gradient = np.concatenate(
            [
                -f_white.T @ (slope / np.exp(log_scale)) / n,
                g_white.T @ (by_scale * inside) / n,
                [by_df / n],
            ]
        )
        penalty = 0.5 * _RIDGE * float(gamma[1:] @ gamma[1:])
        gradient[p + 1 : p + q] += _RIDGE * gamma[1:]
        return total / n + float(log_scale.mean()) + penalty, gradient

    bounds = [(None, None)] * (p + q) + [(math.log(2.05), math.log(200.0))]
    settings = {"maxiter": 60, "ftol": 1e-9, "gtol": 1e-5}
    found = minimize(
        objective, first, jac=True, method="L-BFGS-B", bounds=bounds, options=settings
    ).x
    return Column(f_root @ found[:p], g_root @ found[p : p + q], float(np.exp(found[-1])))


def _slopes(residual: Floats, log_df: float) -> tuple[Floats, Floats, float, float]:
    """d/d residual, d/d log scale (per step), the summed nats, and d/d log df."""
    total, slope, by_noise = student_nats(residual[:, None], np.array([0.0, log_df]))
    slope = slope[:, 0]
    return slope, 1.0 - slope * residual, total, float(by_noise[1])


def _root(design: Floats) -> Floats:
    """A square root of the inverse of the design's second moments, steadied by the ridge."""
    moments = design.T @ design / len(design) + _RIDGE * np.eye(design.shape[1])
    return np.asarray(np.linalg.inv(np.linalg.cholesky(moments)).T)
