"""What to set, from what was measured: order, truncation, time scale, warm-up."""

from __future__ import annotations

from dataclasses import dataclass

from throughtime import bptt
from throughtime.bptt import Truncated
from throughtime.history.lag_selection import Selected
from throughtime.history.networks import settings_of
from throughtime.history.study import Study
from throughtime.search import defaults


@dataclass(frozen=True)
class Recommendation:
    """Recommended settings, in steps.

    order: τ of an autoregression. dense: how many of the nearest lags are worth using, all of them;
    far: the lags beyond that are, and where there are any, using all τ would be wasteful. k1, k2:
    of truncated backpropagation; each loss travels at least k2 - k1 steps back, most of them more.
    time_scale: expected length of memory, for chrono initialisation. warmup: steps to run before
    the first prediction is as good as it gets. default_k2: the truncation that `fit` uses for such
    data by itself, None if it is full.
    """

    order: int
    dense: int
    far: tuple[int, ...]
    k1: int
    k2: int
    time_scale: float
    warmup: int
    default_k2: int | None

    @property
    def bptt(self) -> str:
        """As `fit --bptt` takes it."""
        return f"{self.k1},{self.k2}"

    @property
    def beyond_default(self) -> bool:
        """Whether the data remember more than the default truncation lets through."""
        return self.default_k2 is not None and self.warmup > self.default_k2


def recommended(study: Study, selected: Selected, order: int, memory: int) -> Recommendation:
    """Settings for data of which a finite-order model needs `order` lags, and a state `memory`.

    Where the memory is well inside the default truncation, that stays. Else the losses of k1 steps
    go back through k2 = k1 + memory steps, so that the first of them, too, sees all that matters.

    Args:
        study: the data.
        selected: the best lags.
        order: the lags that suffice.
        memory: steps that the best model makes use of.
    """
    usual = defaults.recipe(study.raw[0], study.view.emission, settings_of(0))
    method = bptt.parse(usual.train.bptt)
    default = method.k2 if isinstance(method, Truncated) else None
    longest = max(2, int(study.raw[0].lengths.max()))
    k1 = k2 = default or longest
    if default is not None and 2 * memory > default:
        # Lanes hold one sequence after the other, so that a segment may begin anywhere in one.
        k1 = max(memory, min(default, 100))
        k2 = k1 + memory
    return Recommendation(
        order=order,
        dense=min(order, selected.dense),
        far=tuple(lag for lag in selected.far if selected.dense < lag <= order),
        k1=k1,
        k2=k2,
        time_scale=float(max(2, memory)),
        warmup=memory,
        default_k2=default,
    )
