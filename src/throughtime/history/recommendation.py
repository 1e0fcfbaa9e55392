"""What to set, from what was measured: window, truncation, time scale, warm-up."""

from __future__ import annotations

from dataclasses import dataclass

from throughtime import bptt
from throughtime.bptt import Truncated
from throughtime.history.lag_selection import Window
from throughtime.history.networks import settings_of
from throughtime.history.study import Study
from throughtime.search import defaults


@dataclass(frozen=True)
class Settings:
    """Recommended settings, in steps.

    order: τ of an autoregression. dense: the lags of which every one is worth using; far: those
    beyond that are, and where there are any a window of all τ would be wasteful. k1, k2: of
    truncated backpropagation; each loss reaches at least k2 - k1 steps back, most of them more.
    time_scale: expected length of memory, for chrono initialisation. warmup: steps to run before
    the first prediction is as good as it gets. default_reach: the truncation that `fit` uses for
    such data by itself, None if it is full.
    """

    order: int
    dense: int
    far: tuple[int, ...]
    k1: int
    k2: int
    time_scale: float
    warmup: int
    default_reach: int | None

    @property
    def bptt(self) -> str:
        """As `fit --bptt` takes it."""
        return f"{self.k1},{self.k2}"

    @property
    def beyond_default(self) -> bool:
        """Whether the data remember more than the default truncation reaches."""
        return self.default_reach is not None and self.warmup > self.default_reach


def recommended(study: Study, window: Window, order: int, memory: int) -> Settings:
    """Settings for data of which a window needs `order` lags, and a model `memory` steps.

    window: the best one.

    Where the memory is well inside the default truncation, that stays. Else the losses of k1 steps
    go back through k2 = k1 + memory steps, so that the first of them, too, sees all that matters.
    """
    usual = defaults.recipe(study.raw[0], study.view.emission, settings_of(0))
    method = bptt.parse(usual.train.bptt)
    reach = method.k2 if isinstance(method, Truncated) else None
    longest = max(2, int(study.raw[0].lengths.max()))
    k1 = k2 = reach or longest
    if reach is not None and 2 * memory > reach:
        # Lanes hold one sequence after the other, so that a window may begin anywhere in one.
        k1 = max(memory, min(reach, 100))
        k2 = k1 + memory
    return Settings(
        order=order,
        dense=min(order, window.dense),
        far=tuple(lag for lag in window.sparse if window.dense < lag <= order),
        k1=k1,
        k2=k2,
        time_scale=float(max(2, memory)),
        warmup=memory,
        default_reach=reach,
    )
