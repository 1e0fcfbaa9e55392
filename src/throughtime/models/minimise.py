"""The search that all closed forms use, which stops where it stands when time is up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from throughtime.runtime import out_of_time

Floats = NDArray[np.float64]


def lbfgs(
    objective: Callable[[Floats], tuple[float, Floats]],
    first: Floats,
    bounds: Sequence[tuple[float | None, float | None]],
    **options: float,
) -> Any:
    """The minimum of a function that gives its gradient too, by L-BFGS-B.

    Args:
        objective: value and gradient at a point.
        first: where the search begins.
        bounds: of each coordinate.
        options: of scipy's method: maxiter, ftol, gtol, ….

    Returns:
        What `scipy.optimize.minimize` returns.
    """

    def look_at_the_clock(intermediate_result: Any) -> None:
        if out_of_time():
            raise StopIteration

    return minimize(
        objective, first, jac=True, method="L-BFGS-B", bounds=bounds, options=options,
        callback=look_at_the_clock,
    )  # fmt: skip
