"""Gradient methods: how far back through time a loss is differentiated. Each is a value.

All differentiate any ``loss(batch, state) -> (summed loss, state)`` over any batch that has
``len(batch) == T`` and ``batch[t0:t1]`` along time, and add to ``.grad``. They are interchangeable
and are tested against each other and against hand-built graphs.

    base            what every method is, and where a pass over a batch stands
    windows         Full, Truncated
    adaptive        Adaptive: windows as long as the gradient is measured to reach
    checkpointed    Checkpointed: the exact gradient in a declared amount of memory
    schedule        which states it keeps
    budget          what a tape and a state cost, and how to cut time
    replay          running a loss again with the same random numbers
    randomized      Randomized: truncated at random, unbiased
    online          Online: exact and forward in time, for element-wise recurrences
    checks          losses that are refused
    names           "full", "64,128": how settings name methods
    clipping        gradients kept to a joint norm
"""

from throughtime.bptt.adaptive import Adaptive
from throughtime.bptt.base import Estimate, GradientMethod, Position, Update
from throughtime.bptt.checkpointed import Checkpointed
from throughtime.bptt.clipping import clip
from throughtime.bptt.names import parse
from throughtime.bptt.randomized import Randomized
from throughtime.bptt.rtrl import Online
from throughtime.bptt.truncated import Full, Truncated
from throughtime.gradflow.unrolled import Loss, Timed

__all__ = [
    "Adaptive",
    "Checkpointed",
    "Estimate",
    "Full",
    "GradientMethod",
    "Loss",
    "Online",
    "Position",
    "Randomized",
    "Timed",
    "Truncated",
    "Update",
    "clip",
    "parse",
]
