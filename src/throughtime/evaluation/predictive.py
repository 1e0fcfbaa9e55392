"""The exact distribution of every step given the true past, in the data's own units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Difference, Flat, LinearQuantise, MuLaw, Transforms
from throughtime.emissions import Distribution
from throughtime.emissions.mixture import MixtureDistribution, WeightedMixture
from throughtime.evaluation.results import Risk
from throughtime.models.base import SequenceModel
from throughtime.predict.fitted import FittedModel

_TABLE = 64  # places at which the cdf of a mixture is tabulated
_REFINEMENTS = 4


def is_numeric(transforms: Transforms, raw: Sequences) -> bool:
    """Whether raw values and their distributions are amounts: real, counts, or quantised sound.

    Text, symbols without an order and columns of 0 and 1 are not.
    """
    if raw.domain.integer:
        return False
    if transforms.transforms and isinstance(transforms.transforms[-1], (MuLaw, LinearQuantise)):
        return True
    kind = transforms.output.kind if transforms.domain is not None else raw.domain.kind
    return kind in ("real", "sound", "count")


class Unwinding:
    """The way back from transformed values to raw ones where the true past of each is known.

    `Transforms.inverse` continues one past; here every step has its own, all at once.
    """

    def __init__(self, transforms: Transforms, raw: Sequences) -> None:
        self.stages = []
        flat = Flat.of(raw)
        for transform in transforms:
            after = transform.forward(flat)
            self.stages.append((transform, flat, after))
            flat = after

    def __call__(self, values: Tensor, index: Tensor) -> Tensor:
        """Raw values [K, n, D] of transformed ones [K, n, D] ([K, n] symbols) at steps `index`."""
        for transform, before, after in reversed(self.stages):
            if isinstance(transform, Difference):
                # What was taken off: the earlier value, or nothing from an initial value.
                values = values + (before.values - after.values)[index]
            else:
                values = transform.inverse(values, before.values[:0], before.differencing[index])
        return values


def walk(
    model: SequenceModel, transformed: Sequences, selected: Tensor
) -> Iterator[tuple[Tensor, Distribution]]:
    """The steps (indices [n] into ``transformed.values``) among `selected`, bool [total], and their
    distributions.
    """
    training = model.training
    model.eval()
    yield from model.distributions_at(transformed, selected)
    model.train(training)


def quantiles_of(distribution: Distribution, levels: Sequence[float]) -> Tensor:
    """Quantiles [L, n, D] (symbols: [L, n]) of a distribution with batch [n], float64, rising along
    L.

    Those of continuous mixtures come from a table of the cdf, refined by the secant rule: exact
    to a small fraction of the spread and far faster than bisecting each.
    """
    rising = torch.tensor(sorted(levels), dtype=torch.float64)
    axes = 1 if len(distribution.mean.shape) == len(distribution.batch_shape) else 2
    p = rising.reshape(-1, *[1] * axes)
    if (
        isinstance(distribution, (MixtureDistribution, WeightedMixture))
        and not distribution.discrete
    ):
        return _mixture_quantiles(distribution, p)
    return distribution.icdf(p)


def _mixture_quantiles(distribution: MixtureDistribution | WeightedMixture, p: Tensor) -> Tensor:
    """The quantiles at p [L, 1, 1], rising, of a mixture with batch [n]: [L, n, D]."""
    rough = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=p.dtype).reshape(-1, 1, 1)
    places = _leaf_quantiles(distribution, torch.cat([p[:1], rough, p[-1:]]))
    # The quantiles of the mixture lie between the least and the greatest of its components.
    places = places.movedim(-2, 1).flatten(0, 1).sort(0).values
    keep = torch.linspace(0, len(places) - 1, min(_TABLE, len(places))).round().long()
    places = places[keep].contiguous()
    heights = distribution.cdf(places)
    after = (heights[None] < p[:, None]).sum(1).clamp(1, len(places) - 1)
    left, right = places.gather(0, after - 1), places.gather(0, after)
    below, above = heights.gather(0, after - 1) - p, heights.gather(0, after) - p
    last = torch.zeros_like(below)  # -1: the left end moved last, 1: the right one
    for _ in range(_REFINEMENTS):
        x = _secant(left, right, below, above)
        height = distribution.cdf(x) - p
        less = height < 0
        # An end that stays a second time counts half, or it would stay for ever (Illinois rule).
        above = torch.where(less, torch.where(last < 0, above / 2, above), height)
        below = torch.where(less, height, torch.where(last > 0, below / 2, below))
        left, right = torch.where(less, x, left), torch.where(less, right, x)
        last = torch.where(less, -1.0, 1.0)
    return _secant(left, right, below, above)


def _secant(left: Tensor, right: Tensor, below: Tensor, above: Tensor) -> Tensor:
    """Where the line from (left, below) to (right, above) is zero, within the bracket."""
    rise = above - below
    share = torch.where(rise > 0, -below / rise.clamp(min=1e-300), 0.5)
    return left + (right - left) * share.clamp(0, 1)


def _leaf_quantiles(distribution: Distribution, p: Tensor) -> Tensor:
    """The quantiles [L, *batch, K, D] of all components, those of nested mixtures included."""
    if isinstance(distribution, WeightedMixture):
        return torch.cat([_leaf_quantiles(part, p) for part in distribution.distributions], dim=-2)
    if not isinstance(distribution, MixtureDistribution):
        return distribution.icdf(p).unsqueeze(-2)
    inner = distribution.components
    if isinstance(inner, MixtureDistribution):
        return _leaf_quantiles(inner, p.unsqueeze(-1)).flatten(-3, -2)
    return inner.icdf(p.unsqueeze(-1))


def raw_quantiles(
    fitted: FittedModel,
    raw: Sequences,
    transformed: Sequences,
    selected: Tensor,
    levels: Sequence[float],
) -> tuple[Tensor, np.ndarray]:
    """The steps [n] in order, and quantiles [L, n, D] of their distributions in the data's own
    units.

    The transforms are monotone, so quantiles go to quantiles. `levels` are symmetric about one
    half: a transform may turn the axis round.
    """
    back = Unwinding(fitted.transforms, raw)
    steps, quantiles = [], []
    for index, distribution in walk(fitted.model, transformed, selected):
        values = back(quantiles_of(distribution, levels), index)
        steps.append(index)
        quantiles.append(values.sort(0).values.numpy())
    if not steps:
        return torch.zeros(0, dtype=torch.int64), np.zeros((len(levels), 0, raw.values.shape[1]))
    index = torch.cat(steps)
    order = index.argsort()
    return index[order], np.concatenate(quantiles, axis=1)[:, order.numpy()]


def evenly(mask: Tensor, most: int) -> Tensor:
    """The mask [total] with at most `most` entries kept, spread evenly."""
    places = mask.nonzero()[:, 0]
    if len(places) <= most:
        return mask
    kept = torch.zeros_like(mask)
    kept[places[torch.linspace(0, len(places) - 1, most, dtype=torch.float64).round().long()]] = (
        True
    )
    return kept


def next_risk(fitted: FittedModel, raw: Sequences, level: float = 0.01) -> Risk | None:
    """The low quantile, at `level`, of the value after the end of raw data.

    For one series of one column without covariates (those of tomorrow are unknown); None for
    other data.
    """
    single = len(raw) == 1 and raw.values.shape[1:] == (1,)
    if not single or fitted.model.covariates or not is_numeric(fitted.transforms, raw):
        return None
    observed = raw.values[~raw.missing]
    if len(observed) == 0:
        return None
    context = fitted.model.condition(fitted.transformed(raw))
    with torch.no_grad():
        distribution, _ = fitted.model.step(context.previous, context.state, None, context.series)
    ends = fitted.transforms.inverse(quantiles_of(distribution, (level, 1.0 - level)), raw.values)
    return Risk(level=level, value=float(ends.min()), last=float(observed[-1, 0]))
