"""The element-wise linear recurrence ``h_t = a_t h_{t-1} + b_t`` over a whole sequence at once.

Maps ``h -> a h + b`` compose to maps of the same kind, so that pairs of steps merge to one, pairs
of pairs to one, and so on: about 2 log2 T vectorised passes in place of T (Blelloch 1990; for
recurrent networks Martin & Cundy 2018). Where a single step is work enough for the machine, passes
save nothing and the plain loop runs.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_FEW = 8  # steps that are not worth merging
_WIDE = 8 << 10  # bytes of a step from which on the loop was found faster (x86, 2 MB of L2)
_BLOCK = 1 << 20  # bytes of a block of steps that stays in the cache while its pairs merge


def scan(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    """All h_t of ``h_t = a_t h_{t-1} + b_t``, ``[T, ...]``; a_t = 0 forgets everything before t.

    a, b: ``[T, ...]``, of one shape. start: ``h_{-1}``, ``[...]``. Derivatives of any order.
    """
    found: Tensor = _Scan.apply(a, b, start)
    return found


class _Scan(torch.autograd.Function):
    """The adjoint ``λ_t = g_t + a_{t+1} λ_{t+1}`` is a scan too, from the end to the beginning."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, start: Tensor) -> Tensor:
        h = values(a, b, start)
        ctx.save_for_backward(a, start, h)
        return h

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, start, h = ctx.saved_tensors
        if len(a) == 0:
            return a, a, torch.zeros_like(start)
        later = torch.cat([a[1:], torch.zeros_like(a[:1])])
        adjoint = scan(later.flip(0), grad.flip(0), torch.zeros_like(start)).flip(0)
        before = torch.cat([start.unsqueeze(0), h[:-1]])
        return adjoint * before, adjoint, a[0] * adjoint[0]


def values(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    """`scan` without its derivatives, the fastest way for the sizes at hand."""
    step = start.numel() * start.element_size()
    if len(b) <= _FEW or step >= _WIDE:
        return loop(a, b, start)
    found = torch.empty_like(b)
    size = max(_FEW, _BLOCK // max(step, 1))
    for part, x, y in zip(found.split(size), a.split(size), b.split(size), strict=True):
        pairs(x, y, start, part)
        start = part[-1]
    return found


def loop(a: Tensor, b: Tensor, start: Tensor, found: Tensor | None = None) -> Tensor:
    """Step by step: the definition."""
    found = torch.empty_like(b) if found is None else found
    for x, y, h in zip(a.unbind(), b.unbind(), found.unbind(), strict=True):
        start = torch.addcmul(y, x, start, out=h)
    return found


def pairs(a: Tensor, b: Tensor, start: Tensor, found: Tensor) -> None:
    """Merges steps 2i and 2i + 1, scans the half as many, and fills in the even steps."""
    if len(b) <= _FEW:
        loop(a, b, start, found)
        return
    even = len(b) // 2 * 2
    first, second = a[0:even:2], a[1:even:2]
    merged = torch.addcmul(b[1:even:2], second, b[0:even:2])
    odd = torch.empty_like(merged)
    pairs(second * first, merged, start, odd)
    found[1::2] = odd
    before = torch.cat([start.unsqueeze(0), odd])[: len(b) - even // 2]
    torch.addcmul(b[0::2], a[0::2], before, out=found[0::2])
