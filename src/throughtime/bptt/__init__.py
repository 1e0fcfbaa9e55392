"""Gradient methods: how far back through time a loss is differentiated. Each is a value.

All differentiate any ``loss(batch, state) -> (summed loss, state)`` over any batch that can be cut
along time (a tensor ``[T, B, ...]``, a tuple, list or dict of such, anything that slices), and add
to ``.grad``. They are interchangeable and are tested against each other and against hand-built
graphs. ``parse(str(method)) == method``.

    base            what every method is, and where a pass over a batch stands
    truncated       Full, Truncated
    adaptive        Adaptive: truncated as far back as the gradient is measured to reach
    checkpointed    Checkpointed: the exact gradient in a declared amount of memory
    revolve         which states it keeps
    randomized      Randomized: truncated at random, unbiased
    rtrl            Online: exact and forward in time, for element-wise recurrences
    clipping        gradients kept to a joint norm

Beneath: _memory_model (what a graph and a state take, and how to cut time), _string_forms ("full",
"64,128": how settings name methods).
"""

from throughtime.bptt._string_forms import parse
from throughtime.bptt.adaptive import Adaptive
from throughtime.bptt.base import Estimate, GradientMethod, Position, Update
from throughtime.bptt.checkpointed import Checkpointed
from throughtime.bptt.clipping import clip
from throughtime.bptt.randomized import Randomized
from throughtime.bptt.rtrl import Online
from throughtime.bptt.truncated import Full, Truncated
from throughtime.gradflow import Loss, Timed

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
