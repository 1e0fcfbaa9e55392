"""Whether the gradients of different segments of time agree: is there anything to be learnt?"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from throughtime.gradflow._contract import Loss
from throughtime.gradflow._jacobian_products import generator
from throughtime.gradflow._passes import states_at
from throughtime.gradflow.batches import Segment, along_time
from throughtime.gradflow.ledger import ledger
from throughtime.state import State

SEGMENTS = 16  # their 2¹⁵ patterns of signs resolve one chance in thirty thousand
_SHORTEST = 2 * SEGMENTS  # steps of a batch that can be cut up at all
_ENTRIES = 2048  # of the gradient that are looked at: more of them say little more


def sign_flip_test(
    loss: Loss,
    batch: Any,
    state: State,
    params: Mapping[str, Tensor],
    max_lag: int,
    seed: int = 0,
) -> float | None:
    """The probability that gradients of pure noise would agree as much as those of this batch do.

    The batch is cut into sixteen segments of time. If the losses hold nothing to be learnt, a
    segment's gradient is as likely as its negative, and their sum is no longer than with any other
    choice of the signs: an exact test (Fisher 1935), by the length of the sum among all 2¹⁵. It is
    made of the whole gradient and of each G_k by itself, so that a part from far back, however
    faint, counts as much as a strong one near by; the smallest probability is multiplied by their
    number (Bonferroni). Of many parameters, 2048 entries drawn with `seed` are looked at. Costs
    about one more ledger.

    Args:
        loss: ``loss(batch, state) -> (summed loss, state)``.
        batch: T steps, see `along_time`.
        state: before the first step.
        params: by name.
        max_lag: the longest lag that is tested by itself, in each segment.
        seed: of the entries that are looked at.

    Returns:
        The p-value; None where the batch has fewer than 32 steps.

    Raises:
        SettingError, NonFiniteError: as `ledger` does.
    """
    batch = along_time(batch)
    length = len(batch)
    if length < _SHORTEST:
        return None
    cuts = [round(i * length / SEGMENTS) for i in range(SEGMENTS + 1)]
    before = states_at(loss, batch, state, cuts[:-1])
    lags = min([max_lag, *(end - begin - 1 for begin, end in pairwise(cuts))])
    size = sum(p.numel() for p in params.values() if p.requires_grad)
    entries = torch.randperm(size, generator=generator(seed))[:_ENTRIES]
    gradients = []
    for begin, end in pairwise(cuts):
        book = ledger(loss, Segment(batch, begin, end), before[begin], params, lags, tensors=True)
        parts = torch.cat([book.gradient(n).flatten(1) for n in book.parameters], 1)
        parts = parts[:, entries.to(parts.device)].double().cpu()
        gradients.append(torch.cat([parts.sum(0, keepdim=True), parts]))
    tests = [chance(vectors) for vectors in torch.stack(gradients, 1) if bool(vectors.any())]
    return min(1.0, min(tests) * len(tests)) if tests else 1.0


def chance(vectors: Tensor) -> float:
    """The share of all choices of signs for which the sum of the vectors ``[m, n]`` is as long."""
    scaled = vectors / vectors.abs().max()
    gram = scaled @ scaled.T
    count = len(vectors)
    bits = torch.arange(2 ** (count - 1))[:, None] >> torch.arange(count) & 1
    signs = 1.0 - 2.0 * bits.double()
    lengths = ((signs @ gram) * signs).sum(1)
    return float((lengths >= lengths[0] * (1 - 1e-12)).double().mean())
