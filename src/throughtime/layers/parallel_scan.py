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
_WIDE = 8 << 10  # bytes of a step from which on the loop was faster (x86, 2 MB of L2)
_BLOCK = 1 << 20  # bytes of a block of steps that stays in the cache while its pairs merge


def scan(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    """All h_t of ``h_t = a_t h_{t-1} + b_t``, ``[T, ...]``; a_t = 0 forgets everything before t.

    a, b: ``[T, ...]``, of one shape. start: ``h_{-1}``, ``[...]``. Derivatives of any order.
    """
    out: Tensor = _Scan.apply(a, b, start)
    return out


class _Scan(torch.autograd.Function):
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
        adjoint = _Adjoint.apply(a, grad)
        before = torch.cat([start.unsqueeze(0), h[:-1]])
        return adjoint * before, adjoint, a[0] * adjoint[0]


class _Adjoint(torch.autograd.Function):
    """``λ_t = g_t + a_{t+1} λ_{t+1}``: a scan from the end, whose own adjoint is `scan`."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, grad: Tensor) -> Tensor:
        out = torch.empty_like(grad)
        out[-1] = grad[-1]
        fill(out[:-1], a[1:], grad[:-1], grad[-1], backwards=True)
        ctx.save_for_backward(a, out)
        return out

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor, Tensor]:
        a, adjoint = ctx.saved_tensors
        back = scan(a, cotangent, torch.zeros_like(a[0]))
        return torch.cat([torch.zeros_like(a[:1]), back[:-1] * adjoint[1:]]), back


def values(a: Tensor, b: Tensor, start: Tensor) -> Tensor:
    """`scan` without its derivatives."""
    out = torch.empty_like(b)
    fill(out, a, b, start)
    return out


def fill(out: Tensor, a: Tensor, b: Tensor, start: Tensor, backwards: bool = False) -> None:
    """Writes every h_t, the fastest way for the sizes at hand; backwards: from the last step."""
    step = start.numel() * start.element_size()
    if len(b) <= _FEW or step >= _WIDE:
        loop(out, a, b, start, backwards)
        return
    size = max(_FEW, _BLOCK // max(step, 1))
    blocks = list(zip(out.split(size), a.split(size), b.split(size), strict=True))
    for part, x, y in reversed(blocks) if backwards else blocks:
        if backwards:
            turned = torch.empty_like(y)
            pairs(turned, x.flip(0), y.flip(0), start)
            part.copy_(turned.flip(0))
        else:
            pairs(part, x, y, start)
        start = part[0 if backwards else -1]


def loop(out: Tensor, a: Tensor, b: Tensor, start: Tensor, backwards: bool = False) -> None:
    """Step by step: the definition."""
    steps = list(zip(out.unbind(), a.unbind(), b.unbind(), strict=True))
    for h, x, y in reversed(steps) if backwards else steps:
        start = torch.addcmul(y, x, start, out=h)


def pairs(out: Tensor, a: Tensor, b: Tensor, start: Tensor) -> None:
    """Merges steps 2i and 2i + 1, scans the half as many, and fills in the even steps."""
    if len(b) <= _FEW:
        loop(out, a, b, start)
        return
    even = len(b) // 2 * 2
    first, second = a[0:even:2], a[1:even:2]
    merged = torch.addcmul(b[1:even:2], second, b[0:even:2])
    odd = torch.empty_like(merged)
    pairs(odd, second * first, merged, start)
    out[1::2] = odd
    before = torch.cat([start.unsqueeze(0), odd])[: len(b) - even // 2]
    torch.addcmul(b[0::2], a[0::2], before, out=out[0::2])
