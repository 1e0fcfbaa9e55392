"""Gradient methods: how far back through time a loss is differentiated. Each is a value.

All differentiate any ``loss(batch, state) -> (summed loss, state)`` over any batch that has
``len(batch) == T`` and ``batch[t0:t1]`` along time, and add to ``.grad``. They are interchangeable
and are tested against each other and against hand-built graphs.

    base        what every method is, and where a pass over a batch stands
    windows     Full, Truncated
    adaptive    Adaptive: windows as long as the gradient is measured to reach
    names       "full", "64,128": how settings name methods
    clipping    gradients kept to a joint norm
"""

from throughtime.bptt.adaptive import Adaptive
from throughtime.bptt.base import Estimate, GradientMethod, Position, Update
from throughtime.bptt.clipping import clip
from throughtime.bptt.names import describe, parse
from throughtime.bptt.windows import Full, Truncated
from throughtime.unrolled import Loss, Timed

__all__ = [
    "Adaptive",
    "Estimate",
    "Full",
    "GradientMethod",
    "Loss",
    "Position",
    "Timed",
    "Truncated",
    "Update",
    "clip",
    "describe",
    "parse",
]
