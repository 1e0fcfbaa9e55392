"""Values as regressions on chosen lags, location and scale both, with Student t noise.

    x_t = a_0 + Σ_j f_j(x_{t-j}) + σ_t e_t,   log σ_t = b_0 + Σ_m b_m log s²_{t,m},   e ~ Student

"linear": f is a line and σ constant, an autoregression. "additive": f also holds a square and an
absolute value, and s² are mean squares of the last few steps and squares at the far lags, as in
Corsi (2009), Journal of Financial Econometrics 7: it sees volatility, and maps that no correlation
shows. Maximum likelihood with a light ridge, by L-BFGS from the least squares. Up to eight columns
are each given the past of all, more their own. Values are to be of order one, as `Standardise`
leaves them. A lag before the beginning of its sequence, or missing, counts as average.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from throughtime.data.sequences import Sequences
from throughtime.emissions import Distribution, StudentT
from throughtime.emissions.student_t import StudentTDistribution
from throughtime.errors import SettingError
from throughtime.models.closed_form import ClosedForm, Unfitted
from throughtime.models.minimise import lbfgs
from throughtime.models.regression import student_nats
from throughtime.state import State

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SHAPES = ("linear", "additive")
_RIDGE = 1e-3  # per step, on standardised features
_LIMIT = 5.0  # standard deviations beyond which a value shapes squares and volatility no further
_FLOOR = 0.05  # of a mean square, below which it is taken for no smaller
_AVERAGED = (1, 3, 8, 20)  # steps over which squares are averaged, and all the nearest lags
_SCALES = (math.log(1e-3), math.log(1e2))  # of a column's standard deviation
_COUPLED = 8  # columns up to which each is given the past of all
_NUMBERS = 8e6  # of a design, at most
_FEWEST = 1000  # targets of a fit of one column, however many numbers that is
_ROUNDS = 60  # of L-BFGS
_ROUND = 1e5  # numbers that one takes as long as, beside those of its designs


class LagRegression(ClosedForm):
    """``P(X_t | X_{t-j}, j in lags)``: see above.

    Args:
        lags: which of the values before are looked at, ascending; (): none.
        emission: StudentT of independent columns.
        shape: "linear" or "additive".
        num_differencing: initial values of each sequence, which are not differenced.
    """

    kind = "lag_regression"
    half_lives: tuple[float, ...] = ()  # of the averages beside the lags: `ExponentialSmoothing`

    def __init__(
        self,
        lags: Sequence[int] = (1,),
        *,
        emission: StudentT,
        shape: str = "additive",
        num_differencing: int = 0,
    ) -> None:
        if not isinstance(emission, StudentT) or emission.rank:
            raise SettingError(
                f"a regression on lags has StudentT noise with rank=0, not {emission}"
            )
        if shape not in SHAPES:
            raise SettingError(f"shape '{shape}' is not one of: {', '.join(SHAPES)}")
        if list(lags) != sorted(set(lags)) or min(lags, default=1) < 1:
            raise SettingError(f"lags {tuple(lags)} must be 1 or more and ascend")
        super().__init__(emission, num_differencing)
        self.lags, self.shape = tuple(lags), shape
        self.weights: Weights | None = None
        self.lookback = None if self.half_lives else self.order + num_differencing

    @property
    def order(self) -> int:
        """The longest lag."""
        return max(self.lags, default=0)

    def settings(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "lags": list(self.lags),
            "emission": self.emission.to_json(),
            "shape": self.shape,
            "num_differencing": self.num_differencing,
        }

    def begin(self, train: Sequences) -> None:
        """Fits the regression to every scored step, or to as many as make a design of 8e6."""
        self.fit(train, (train.scored() & ~train.initial).nonzero().flatten())

    def fit(self, train: Sequences, rows: Tensor, numbers: float = _NUMBERS) -> float:
        """Fits the regression to some steps.

        Args:
            train: the data.
            rows: int64 ``[n]``, the steps that are the targets.
            numbers: how many the designs may hold: of more targets, evenly spread ones are taken.

        Returns: how many numbers the search has gone through, a measure of its work.
        """
        super().begin(train)
        columns = train.values.shape[1]
        least = max(_FEWEST // 5, _FEWEST // columns)
        rows = subsampled(rows, max(least, int(numbers) // self.width(columns)))
        past = Past.of(train, rows)
        y = past.values[rows.numpy()]
        by_column, work = [], 0.0
        for i, (f, g) in enumerate(self._designs(past)):
            column, rounds = _most_likely(f, g, y[:, i])
            by_column.append(column)
            work += rounds * (_ROUND + len(y) * 2 * (f.shape[1] + g.shape[1] + 20))
        self.weights = Weights(
            *(torch.from_numpy(np.stack(part)) for part in zip(*by_column, strict=True))
        )
        return work

    def width(self, columns: int) -> int:
        """Numbers in the designs of one target."""
        coupled = columns if columns <= _COUPLED else 1
        each = coupled * (1 if self.shape == "linear" else 4)
        return columns * (1 + len(self.lags) * each + 2 * len(self.half_lives))

    def predict(self, data: Sequences, rows: Tensor) -> Distribution:
        distribution = self._distribution(self._designs(Past.of(data, rows)))
        return self._initial_apart(data.initial[rows], distribution)

    def memory(self, rows: int, cut: bool = False) -> State:
        """The last values, ``[1, B, L, D]``, and averages of x and x², ``[1, B, D, R, 2]``."""
        columns, rates = self.emission.columns, len(self.half_lives)
        last = torch.full((1, rows, self.order, columns), torch.nan, dtype=torch.float64)
        averages = torch.zeros(1, rows, columns, rates, 2, dtype=torch.float64)
        averages[..., 1] = 1.0
        return last, averages

    def advance(self, x: Tensor, state: State) -> State:
        last, averages = state[1]
        x = x.double().unsqueeze(0)
        last = torch.cat([last, x.unsqueeze(2)], 2)[:, :, last.shape[2] + 1 - self.order :]
        if self.half_lives:
            keep = torch.from_numpy(_kept(self.half_lives)).unsqueeze(-1)
            values = x[0].numpy()
            new = torch.from_numpy(np.stack([np.nan_to_num(values), _squares(values)], -1))
            averages = keep * averages + (1 - keep) * new[None, :, :, None]
        return last, averages

    def predictive(self, state: State) -> Distribution:
        count, (last, averages) = state
        steps, rows = count.shape
        length = max(1, self.order)
        values = last.reshape(-1, last.shape[-1]).numpy()
        if not self.order:
            values = np.full((steps * rows, self.emission.columns), np.nan)
        anchors = np.arange(1, steps * rows + 1) * length
        first = anchors - count.reshape(-1).clamp(max=self.order).numpy()
        known = averages.reshape(steps * rows, *averages.shape[2:]).numpy()
        designs = self._designs(Past(values, anchors, first), known)
        return self._distribution(designs)._map(lambda part: part.unflatten(0, (steps, rows)))

    def extra_tensors(self) -> dict[str, Tensor]:
        return {} if self.weights is None else self.weights._asdict()

    def restore(self, tensors: dict[str, Tensor]) -> None:
        if tensors:
            self.weights = Weights(**{name: tensors[name] for name in Weights._fields})

    def num_parameters(self) -> int:
        return sum(part.numel() for part in self.extra_tensors().values())

    def averages(self, past: Past) -> Floats:
        """What the lags are joined by: averages of x and x² ``[n, D, R, 2]``; here none."""
        return np.zeros((len(past.anchors), past.values.shape[1], 0, 2))

    def _distribution(self, designs: list[tuple[Floats, Floats]]) -> StudentTDistribution:
        if self.weights is None:
            raise Unfitted
        location, log_scale = (
            torch.stack(
                [
                    torch.from_numpy(design[part]) @ weight
                    for design, weight in zip(designs, self.weights[part], strict=True)
                ],
                1,
            )
            for part in (0, 1)
        )
        df = self.weights.df.expand(location.shape)
        return StudentTDistribution(location, log_scale.clamp(*_SCALES).exp(), df)

    def _designs(self, past: Past, averages: Floats | None = None) -> list[tuple[Floats, Floats]]:
        """What location and log-scale of each column are linear in, ``[n, P]`` and ``[n, Q]``."""
        columns = past.values.shape[1]
        averages = self.averages(past) if averages is None else averages
        coupled = columns <= _COUPLED
        groups = [slice(None)] if coupled else [slice(i, i + 1) for i in range(columns)]
        designs = [
            self._design(Past(past.values[:, group], *past[1:]), averages[:, group])
            for group in groups
        ] * (columns if coupled else 1)
        if not self.half_lives:
            return designs
        spread = np.log(averages[..., 1] + _FLOOR)
        return [(f, np.concatenate([g, spread[:, i]], 1)) for i, (f, g) in enumerate(designs)]

    def _design(self, past: Past, averages: Floats) -> tuple[Floats, Floats]:
        """The designs of columns that are given the same past, the constant first."""
        count, lags = len(past.anchors), np.array(self.lags, dtype=np.int64)
        ones = np.ones((count, 1))
        smooth = averages[..., 0].reshape(count, -1)
        if not self.lags:
            return np.concatenate([ones, smooth], 1), ones
        place = past.anchors[:, None] - lags
        begun = place >= past.first[:, None]
        place = np.where(begun, place, 0)
        seen = _features(past.values, self.shape)[place] * begun[..., None]
        f = np.concatenate([ones, seen.reshape(count, -1), smooth], 1)
        if self.shape == "linear":
            return f, ones
        square = _squares(past.values)
        dense = sum(lag == i + 1 for i, lag in enumerate(self.lags))
        over = [m for m in _AVERAGED if m < dense] + [dense] * (dense > 0)
        recent = [_mean_of_last(past, square, m) for m in over]
        far = np.where(begun[..., None], square[place], 1.0)[:, dense:].transpose(1, 0, 2)
        return f, np.concatenate([ones, *(np.log(part + _FLOOR) for part in (*recent, *far))], 1)


class Weights(NamedTuple):
    """Fitted: location ``[D, P]``, log-scale ``[D, Q]`` and df ``[D]`` of each column."""

    location: Tensor
    log_scale: Tensor
    df: Tensor


class Past(NamedTuple):
    """Values ``[total, D]``; of each target its place, and where its sequence begins, ``[n]``."""

    values: Floats
    anchors: Ints
    first: Ints

    @classmethod
    def of(cls, data: Sequences, rows: Tensor) -> Past:
        """The targets `rows`; initial values count as missing."""
        values = data.values.numpy()
        if bool(data.initial.any()):
            values = np.where(data.initial.numpy()[:, None], np.nan, values)
        first = data.offsets[torch.searchsorted(data.offsets, rows, right=True) - 1]
        return cls(values, rows.numpy(), first.numpy())


def subsampled(rows: Tensor, most: int) -> Tensor:
    """At most so many of the rows, spread evenly."""
    if len(rows) <= most:
        return rows
    return rows[torch.from_numpy(np.linspace(0, len(rows) - 1, most).astype(np.int64))]


def _kept(half_lives: Sequence[float]) -> Floats:
    """What each average keeps of itself at every step."""
    return np.asarray(0.5 ** (1.0 / np.array(half_lives)))


def _squares(values: Floats) -> Floats:
    """Squares, of no more than `_LIMIT` standard deviations; 1, their mean, where missing."""
    return np.where(np.isnan(values), 1.0, values.clip(-_LIMIT, _LIMIT) ** 2)


def _features(values: Floats, shape: str) -> Floats:
    """x, and for "additive" also |x| and x², centred; 0 where missing."""
    x = np.nan_to_num(values)
    if shape == "linear":
        return x
    near = values.clip(-_LIMIT, _LIMIT)
    return np.concatenate([x, np.nan_to_num(np.abs(near) - 0.8), np.nan_to_num(near**2 - 1)], 1)


def _mean_of_last(past: Past, square: Floats, count: int) -> Floats:
    """Means over the last `count` steps before each target, or as many as there are, ``[n, D]``."""
    available = np.minimum(past.anchors - past.first, count)
    running = np.concatenate([np.zeros((1, square.shape[1])), square.cumsum(0)])
    total = running[past.anchors] - running[past.anchors - available]
    means: Floats = np.where(available[:, None] > 0, total / np.maximum(available, 1)[:, None], 1.0)
    return means


@dataclass
class _Objective:
    """Nats per step of one column and their gradient, in coordinates in which designs are white."""

    f: Tensor  # [n, P]
    g: Tensor  # [n, Q]
    y: Floats

    def __call__(self, point: Floats) -> tuple[float, Floats]:
        n, p, q = len(self.y), self.f.shape[1], self.g.shape[1]
        beta, gamma, log_df = point[:p], point[p : p + q], float(point[-1])
        raw = torch.mv(self.g, torch.from_numpy(gamma)).numpy()
        scale = np.exp(raw.clip(*_SCALES))
        residual = (self.y - torch.mv(self.f, torch.from_numpy(beta)).numpy()) / scale
        total, slope, by_noise = student_nats(residual[:, None], np.array([0.0, log_df]))
        slope = slope[:, 0]
        inside = (raw > _SCALES[0]) & (raw < _SCALES[1])
        by_location = torch.mv(self.f.T, torch.from_numpy(slope / scale)).numpy()
        by_scale = torch.mv(self.g.T, torch.from_numpy((1.0 - slope * residual) * inside)).numpy()
        by_scale[1:] += n * _RIDGE * gamma[1:]
        gradient = np.concatenate([-by_location, by_scale, [by_noise[1]]]) / n
        nats = total / n + float(raw.clip(*_SCALES).mean())
        return nats + 0.5 * _RIDGE * float(gamma[1:] @ gamma[1:]), gradient


def _most_likely(f: Floats, g: Floats, y: Floats) -> tuple[tuple[Floats, Floats, Floats], int]:
    """Location, log-scale and df of one column by maximum likelihood; and the evaluations."""
    n, p, q = len(y), f.shape[1], g.shape[1]
    f_root, g_root = _root(f), _root(g)
    white = _Objective(torch.from_numpy(f) @ f_root, torch.from_numpy(g) @ g_root, y)
    moments, target = white.f.T @ white.f, torch.mv(white.f.T, torch.from_numpy(y))
    start = np.linalg.lstsq(moments.numpy(), target.numpy(), rcond=None)[0]
    left = y - torch.mv(white.f, torch.from_numpy(start)).numpy()
    spread = max(float(np.std(left)), 1.1e-3)
    first = np.concatenate([start, np.zeros(q), [math.log(8.0)]])
    first[p : p + q] = math.log(spread) * white.g.sum(0).numpy() / n
    bounds = [(None, None)] * (p + q) + [(math.log(2.05), math.log(200.0))]
    optimum = lbfgs(white, first, bounds, maxiter=_ROUNDS, ftol=1e-9, gtol=1e-5)
    location, log_scale = f_root.numpy() @ optimum.x[:p], g_root.numpy() @ optimum.x[p : p + q]
    return (location, log_scale, np.exp(optimum.x[-1])), int(optimum.nfev) + 3


def _root(design: Floats) -> Tensor:
    """A square root of the inverse of the design's second moments, steadied by the ridge."""
    tensor = torch.from_numpy(design)
    moments = (tensor.T @ tensor).numpy() / len(design) + _RIDGE * np.eye(design.shape[1])
    return torch.from_numpy(np.ascontiguousarray(np.linalg.inv(np.linalg.cholesky(moments)).T))
