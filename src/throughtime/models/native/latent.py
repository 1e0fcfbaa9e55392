"""Which latent models the native loops of sampling draw from, and how they are told of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from throughtime import emissions
from throughtime.models.encoders import SymbolEncoder, known_covariates
from throughtime.models.native import sampler as sampling
from throughtime.models.native.sampler import Law, Network, Sampler

if TYPE_CHECKING:
    from throughtime.models.base import Start
    from throughtime.models.latent import LatentAutoregressive

_ENCODERS: dict[type[emissions.Emission], str] = {
    emissions.Bernoulli: "binaries",
    emissions.Poisson: "counts",
    emissions.NegativeBinomial: "counts",
}


def native_head(emission: emissions.Emission) -> Law | None:
    """The distribution for the native loops; None for one that they do not know."""
    if isinstance(emission, emissions.Categorical):
        return Law("categorical", "symbols", symbols=emission.num_symbols)
    if getattr(emission, "rank", 0):
        return None
    floor = float(getattr(emission, "min_scale", 0.0))
    if isinstance(emission, emissions.Mixture):
        sizes = emission.columns, emission.num_components
        return Law(emission.component, "reals", 0, *sizes, min_scale=floor)
    if emission.kind not in sampling.LAWS:
        return None
    encoder = _ENCODERS.get(type(emission), "reals")
    return Law(emission.kind, encoder, columns=emission.columns, min_scale=floor)


def sampler(model: LatentAutoregressive, start: Start) -> Sampler | None:
    """The native loop that draws these paths; None where the loop in Python has to."""
    distribution = native_head(model.emission)
    recurrent: Any = model.recurrent
    if (
        distribution is None
        or recurrent.backend not in ("auto", "cpu")
        or recurrent.weight_dtype != "float32"
    ):
        return None
    if tuple(recurrent._parameters) != recurrent._names:  # some are computed anew for each call
        return None
    network = Network(
        recurrent.kind, layers(model), codes(model), model.head_weight, model.head_bias,
        model.initial_raw if model.num_differencing and start.previous is None else None,
    )  # fmt: skip
    if not sampling.runs(network):
        return None
    like = model.start
    known = None
    if model.covariates:
        known = known_covariates(model.covariates, start.covariates, like)
    paths = sampling.Paths(
        start.num_paths, start.root, start.state, start.previous, known, identities(model, start)
    )
    return Sampler(distribution, network, paths, start.temperature, start.top_p)


def layers(model: LatentAutoregressive) -> list[Tensor]:
    """The weights of each layer of each member, cut out of the block-diagonal ones."""
    flat: list[Tensor] = model.recurrent._flat()
    if model.members == 1:
        return flat
    members, size = model.members, model.hidden_size
    found = []
    for m in range(members):
        for i, weight in enumerate(flat):
            rows = weight.unflatten(0, (-1, members, size))[:, m].flatten(0, 1)
            inner = rows.dim() == 2 and i > 0  # all but the first layer's inputs
            found.append(rows[:, m * size : (m + 1) * size] if inner else rows)
    return found


def codes(model: LatentAutoregressive) -> Tensor:
    """What the encoder gives for each symbol and for the start; no rows for values."""
    if isinstance(model.encoder, SymbolEncoder):
        return model.encoder.embedding.weight
    return model.start.new_empty(0, model.encoder.size)


def identities(model: LatentAutoregressive, start: Start) -> Tensor | None:
    """The learned vector of each path's series, zeros for an unknown one."""
    if model.identity is None:
        return None
    known = torch.full((start.num_paths,), -1) if start.series is None else start.series
    found: Tensor = model.identity(known.clamp(min=0)) * (known >= 0).unsqueeze(-1)
    return found
