"""Gradients kept to a joint norm."""

from __future__ import annotations

import torch
from torch import Tensor


def clip(parameters: list[Tensor], limit: float) -> tuple[Tensor, bool]:
    """Scales the gradients down to a joint norm of at most `limit` (Pascanu et al. 2013).

    Args:
        parameters: whose ``.grad`` is scaled in place; those without one are passed over.
        limit: of the norm over all of them.

    Returns:
        The norm before clipping, and whether it was above the limit. Gradients that are not finite
        are left as they are, for the caller to skip.
    """
    norm = torch.nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
    clipped = bool(norm > limit) and bool(torch.isfinite(norm))
    if clipped:
        torch.nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return norm, clipped
