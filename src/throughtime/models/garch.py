"""Volatility models: an AR(1) mean, and a variance that follows the residuals. Fitted by `arch`.

The value and, with z_t of mean 0 and variance 1, Student t or Hansen's skewed t, its noise::

    x_t = c + φ x_{t-1} + σ_t z_t

Of ARCH, GARCH and GJR, and of EGARCH::

    σ²_t     = ω + Σ α_i e²_{t-i} + Σ γ_i e²_{t-i} [e_{t-i} < 0] + Σ β_i σ²_{t-i}
    log σ²_t = ω + Σ α_i (|z_{t-i}| - √(2/π)) + Σ γ_i z_{t-i} + Σ β_i log σ²_{t-i}

Engle (1982), Econometrica 50; Bollerslev (1986), Journal of Econometrics 31; Glosten, Jagannathan &
Runkle (1993), Journal of Finance 48; Nelson (1991), Econometrica 59; Hansen (1994), International
Economic Review 35. The package arch finds the parameters; likelihood, state and sampling are ours.
Before its first value, and where the value before is missing, a step has the mean and variance of
the training data; residuals that nobody knows count as expected.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from throughtime.data.sequences import Sequences
from throughtime.emissions import Distribution, Emission, SkewStudentT, StudentT
from throughtime.emissions.skew_student_t import standardised_skew_student_t
from throughtime.emissions.student_t import StudentTDistribution
from throughtime.errors import DataError, MissingExtra, SettingError
from throughtime.models.closed_form import ClosedForm, NotConverged, Unfitted
from throughtime.state import State

FEWEST = 200  # steps below which so many parameters of the spread cannot be estimated
_WIDE = (1e-8, 1e8)  # bounds of the conditional variance, in units of the overall one
_EXPECTED = math.sqrt(2 / math.pi)  # of |z|, as EGARCH counts it


@dataclass(frozen=True)
class Volatility:
    """One member of the family: lags p, o, q of α, γ, β above, and the distribution of z."""

    description: str
    p: int
    o: int
    q: int
    skewed: bool
    logarithmic: bool = False

    @property
    def arch_name(self) -> str:
        """What arch calls it."""
        return "EGARCH" if self.logarithmic else "GARCH" if self.q else "ARCH"


VOLATILITIES = {
    "arch(5)-t": Volatility("AR(1) mean, ARCH(5), Student-t", 5, 0, 0, False),
    "garch(1,1)-t": Volatility("AR(1) mean, GARCH(1,1), Student-t", 1, 0, 1, False),
    "gjr-garch(1,1)-skew-t": Volatility(
        "AR(1) mean, GJR-GARCH(1,1), Hansen's skewed Student-t", 1, 1, 1, True
    ),
    "egarch(1,1)-skew-t": Volatility(
        "AR(1) mean, EGARCH(1,1), Hansen's skewed Student-t", 1, 1, 1, True, logarithmic=True
    ),
}


class Garch(ClosedForm):
    """``P(X_t | past)`` of one series of one column under a volatility model.

    Args:
        volatility: a name of `VOLATILITIES`.
        emission: StudentT or SkewStudentT of one column, as the volatility says; None: that one.
        num_differencing: initial values of each sequence, which are not differenced.

    The state is the value before, and what the variance is linear in: terms of the last residuals
    and of the last variance, in units of the training data's standard deviation.
    """

    def __init__(
        self,
        volatility: str = "garch(1,1)-t",
        *,
        emission: Emission | None = None,
        num_differencing: int = 0,
    ) -> None:
        if volatility not in VOLATILITIES:
            names = ", ".join(VOLATILITIES)
            raise SettingError(f"volatility '{volatility}' is not one of: {names}")
        self.name, self.spec = volatility, VOLATILITIES[volatility]
        natural = SkewStudentT() if self.spec.skewed else StudentT()
        if emission is not None and emission != natural:
            raise SettingError(f"{volatility} emits {natural}, not {emission}")
        super().__init__(natural, num_differencing)
        self.fitted: Tensor | None = None  # c, φ, ω, α…, γ…, β…, df, skew
        self.units: Tensor = torch.zeros(4, dtype=torch.float64)  # scale, backcast, mean, variance

    def settings(self) -> dict[str, Any]:
        return {
            "kind": "garch",
            "volatility": self.name,
            "emission": self.emission.to_json(),
            "num_differencing": self.num_differencing,
        }

    def begin(self, train: Sequences) -> None:
        """Maximum likelihood by arch on the scored steps.

        Raises: MissingExtra without the package; DataError for what it cannot be fitted to: several
            series or columns, missing values, fewer than 200 steps, a constant; NotConverged.
        """
        super().begin(train)
        why = unsuitable(train)
        if why:
            raise DataError(f"{self.name} needs {why}")
        library = arch_library()
        values = train.values[~train.initial, 0].numpy()
        scale = float(values.std())  # arch's optimiser wants values of order one
        model = library.arch_model(
            values / scale, mean="AR", lags=1, vol=self.spec.arch_name, p=self.spec.p,
            o=self.spec.o, q=self.spec.q, dist="skewt" if self.spec.skewed else "t", rescale=False,
        )  # fmt: skip
        result = model.fit(disp="off", show_warning=False)  # convergence is read from the result
        if result.convergence_flag != 0:
            raise NotConverged(f"{self.name}: the optimiser of arch did not converge on these data")
        coefficients = np.array(result.params, dtype=np.float64)
        rest = values[1:] / scale - coefficients[0] - coefficients[1] * values[:-1] / scale
        backcast = float(model.volatility.backcast(rest))
        own = values / scale
        self.fitted = torch.from_numpy(coefficients)
        self.units = torch.tensor([scale, backcast, own.mean(), own.var()], dtype=torch.float64)

    def predict(self, data: Sequences, rows: Tensor) -> Distribution:
        x = torch.where(data.initial, torch.nan, data.values[:, 0]) / self.units[0]
        coefficients = self._coefficients()
        last = torch.cat([x.new_full((1,), torch.nan), x[:-1]])
        last[data.offsets[:-1][data.lengths > 0]] = torch.nan
        residual = x - coefficients[0] - coefficients[1] * last
        variance = torch.empty_like(x)
        for begin, end in itertools.pairwise(data.offsets.tolist()):
            variance[begin:end] = x.new_tensor(self._path(residual[begin:end].tolist()))
        distribution = self._distribution(last[rows], variance[rows])
        return self._initial_apart(data.initial[rows], distribution)

    def _path(self, residuals: list[float]) -> list[float]:
        """The variance of every step of a sequence: `advance` in plain numbers, which is quick."""
        spec, weights = self.spec, self._coefficients()[2:].tolist()
        terms: list[float] = self.memory(1)[1][0, 0].tolist()
        p, o, q = (slice(0, spec.p), slice(spec.p, spec.p + spec.o), slice(spec.p + spec.o, None))
        low, high = _WIDE
        variances = []
        for t, residual in enumerate(residuals):
            variance = sum((w * x for w, x in zip(weights[1:], terms, strict=False)), weights[0])
            variance = math.exp(min(variance, 700.0)) if spec.logarithmic else variance
            if not low <= variance <= high:
                variance = low if variance < low else high + math.log(variance / high)
            variances.append(variance)
            known = not math.isnan(residual)
            if not known and t <= self.num_differencing:
                continue
            if spec.logarithmic:
                z = residual / math.sqrt(variance) if known else 0.0
                new = (abs(z) - _EXPECTED if known else 0.0, z, math.log(variance))
            else:
                size = residual**2 if known else variance
                signed = size * (residual < 0) if known else 0.5 * size
                new = (size, signed, variance)
            terms = [
                value
                for part, one in zip((p, o, q), new, strict=True)
                for value in ([one, *terms[part]][: len(terms[part])])
            ]
        return variances

    def memory(self, rows: int, cut: bool = False) -> State:
        """The value before ``[1, B]``, and the terms of the variance ``[1, B, p + o + q]``."""
        spec, backcast = self.spec, float(self.units[1])
        terms = [backcast] * spec.p + [0.5 * backcast] * spec.o
        if spec.logarithmic:
            terms = [0.0] * (spec.p + spec.o)
        first = torch.tensor([*terms, *[backcast] * spec.q], dtype=torch.float64)
        return torch.full((1, rows), torch.nan).double(), first.expand(1, rows, -1)

    def advance(self, x: Tensor, state: State) -> State:
        spec, (last, terms) = self.spec, state[1]
        value = x[:, 0].double().unsqueeze(0) / self.units[0]
        variance = self._variance(terms)
        residual = value - self._coefficients()[0] - self._coefficients()[1] * last
        unknown = residual.isnan()
        if spec.logarithmic:
            z = residual / variance.sqrt()
            symmetric, signed = z.abs() - _EXPECTED, z
            expected, persistent = torch.zeros_like(z), variance.log()
        else:
            symmetric = residual**2
            signed, expected, persistent = symmetric * (residual < 0), variance, variance
        new = [torch.where(unknown, expected, symmetric)]
        new += [torch.where(unknown, 0.5 * expected, signed)] * spec.o
        new += [persistent] * spec.q
        # A first value leaves what was taken for granted about the time before it.
        fresh = last.isnan() & (state[0] <= self.num_differencing)
        parts = zip(terms.split([spec.p, *[1] * (spec.o + spec.q)], -1), new, strict=True)
        after = torch.cat(
            [torch.cat([one.unsqueeze(-1), part[..., :-1]], -1) for part, one in parts], -1
        )
        return value, torch.where(fresh.unsqueeze(-1), terms, after)

    def predictive(self, state: State) -> Distribution:
        last, terms = state[1]
        return self._distribution(last, self._variance(terms))

    def extra_tensors(self) -> dict[str, Tensor]:
        return {} if self.fitted is None else {"fitted": self.fitted, "units": self.units}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        if tensors:
            self.fitted, self.units = tensors["fitted"], tensors["units"]

    def num_parameters(self) -> int:
        return 0 if self.fitted is None else len(self.fitted)

    def _distribution(self, last: Tensor, variance: Tensor) -> Distribution:
        """Given the value before, in units of the scale, and the variance, ``[...]`` each."""
        coefficients, (scale, _, mean, spread) = self._coefficients(), self.units
        centre = torch.where(last.isnan(), mean, coefficients[0] + coefficients[1] * last)
        variance = torch.where(last.isnan(), spread, variance)
        centre, variance = (scale * centre).unsqueeze(-1), (scale**2 * variance).unsqueeze(-1)
        df = coefficients[-2 if self.spec.skewed else -1].expand(centre.shape)
        if self.spec.skewed:
            return standardised_skew_student_t(
                centre, variance, df, coefficients[-1].expand(df.shape)
            )
        return StudentTDistribution(centre, (variance * (df - 2) / df).sqrt(), df)

    def _variance(self, terms: Tensor) -> Tensor:
        coefficients, count = self._coefficients(), terms.shape[-1]
        linear = coefficients[2] + terms @ coefficients[3 : 3 + count]
        variance = linear.clamp(max=700.0).exp() if self.spec.logarithmic else linear
        low, high = _WIDE
        return torch.where(variance > high, high + (variance / high).log(), variance.clamp(min=low))

    def _coefficients(self) -> Tensor:
        if self.fitted is None:
            raise Unfitted
        return self.fitted


def unsuitable(train: Sequences) -> str:
    """What is needed and these data are not, in a few words; "" where they will do."""
    if train.domain.integer or len(train) != 1 or train.values.shape[1] != 1:
        return "one series of one column of values"
    values = train.values[~train.initial]
    if bool(train.missing.any()):
        return "a series without missing values"
    if len(values) < FEWEST:
        return f"{FEWEST} values or more"
    return "" if bool((values != values[0]).any()) else "values that are not all the same"


def arch_library() -> Any:
    """The package arch. Raises MissingExtra, which says what to install."""
    try:
        from arch import univariate
    except ImportError as error:
        raise MissingExtra("arch", "arch", "comparing with GARCH models") from error
    return univariate
