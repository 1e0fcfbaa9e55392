"""What the normal and the Student t share when columns are correlated through a few factors.

X = location + scale * (ε + V η), with ε of D and η of `rank` independent standard elements.
"""

from __future__ import annotations

import torch
from torch import Tensor

from throughtime.emissions import numeric
from throughtime.emissions.base import (
    Distribution,
    Emission,
    check_positive,
    check_size,
    standardise,
)
from throughtime.errors import SettingError

MAX_LOADING = 1e3  # a correlation of 1 - 1e-6


def bounded(loadings: Tensor) -> Tensor:
    """Loadings as used: cut off where float32 could no longer tell the columns apart."""
    return loadings.clamp(-MAX_LOADING, MAX_LOADING)


class FactorDistribution(Distribution):
    """Joint distribution of D columns: location, scale [..., D] and loadings [..., D, rank]."""

    location: Tensor
    scale: Tensor
    loadings: Tensor

    @property
    def batch_shape(self) -> torch.Size:
        return self.location.shape[:-1]

    @property
    def mean(self) -> Tensor:
        return self.location

    @property
    def marginal_scale(self) -> Tensor:
        """The scale of each column by itself, [..., D]."""
        return self.scale * torch.sqrt(1 + (self.loadings**2).sum(-1))

    def _quadratic(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(squared Mahalanobis distance, half log-determinant, number) of the observed columns.

        The distance is the least |e - V c|^2 + |c|^2 over factors c, a form that cannot cancel; a
        missing column drops out by zeroing its residual and loadings.
        """
        seen = ~torch.isnan(x)
        residual = (torch.where(seen, x, self.location) - self.location) / self.scale
        loadings = self.loadings * seen[..., None]
        wide = loadings.double()  # I + VᵀV is tiny, but must stay positive definite
        identity = torch.eye(wide.shape[-1], dtype=wide.dtype, device=wide.device)
        # cholesky_ex: a NaN from a diverged network comes out as NaN nats, which training reports
        root = torch.linalg.cholesky_ex(identity + wide.mT @ wide).L
        best = torch.cholesky_solve(wide.mT @ residual.double()[..., None], root)
        rest = residual.double() - (wide @ best)[..., 0]
        distance = (rest**2).sum(-1) + (best[..., 0] ** 2).sum(-1)
        log_volume = torch.log(root.diagonal(dim1=-2, dim2=-1)).sum(-1)
        log_volume = log_volume + torch.where(seen, torch.log(self.scale), 0).sum(-1)
        dtype = residual.dtype
        return distance.to(dtype), log_volume.to(dtype), seen.sum(-1, dtype=dtype)

    def _correlate(self, z: Tensor, stretch: Tensor | float) -> Tensor:
        """The draw made of independent standard normals z [..., D + rank]."""
        own, shared = z.split([self.loadings.shape[-2], self.loadings.shape[-1]], -1)
        noise = own + (self.loadings.double() @ shared[..., None])[..., 0]
        return (self.location + self.scale * noise * stretch).to(self.location.dtype)

    def _cdf(self, x: Tensor) -> Tensor:
        return self.marginals()._cdf(x)

    def _icdf(self, q: Tensor) -> Tensor:
        return self.marginals()._icdf(q)

    def _crps(self, x: Tensor) -> Tensor:
        return self.marginals()._crps(x)


class FactorEmission(Emission):
    """Real columns with a location and scale each and, for `rank` > 0, shared factors.

    Raw parameters begin with location [D], scale [D] and loadings [rank, D].
    """

    rank: int
    min_scale: float

    def __post_init__(self) -> None:
        check_size("columns", self.columns)
        check_size("rank", self.rank, at_least=0)
        check_positive("min_scale", self.min_scale)
        if self.rank >= self.columns:
            raise SettingError(
                f"rank={self.rank} needs more than {self.rank} columns, not {self.columns}"
            )

    def _initial_factors(self, values: Tensor, *others: float) -> Tensor:
        """The likeliest raw parameters, from principal factors; `others` start the rest."""
        values, centre, spread = standardise(values)
        complete = values[~values.isnan().any(-1)]
        location, own = torch.zeros_like(centre), torch.ones_like(centre)
        loadings = torch.zeros(self.columns, self.rank, dtype=centre.dtype)
        enough = len(complete) > self.columns  # to tell how the columns go together
        if enough:
            location = complete.mean(0)
            loadings, own = _principal_factors(complete, self.rank)
        scale = numeric.positive_raw(own, self.min_scale)
        raw = torch.cat([location, scale, loadings.mT.flatten(), torch.tensor(others).to(scale)])
        if enough:
            raw = numeric.maximise(self.distribution, values, raw)
        location, scale = raw[: 2 * self.columns].chunk(2)
        scale = spread * numeric.positive(scale, self.min_scale)
        scale = numeric.positive_raw(scale, self.min_scale)
        return torch.cat([centre + spread * location, scale, raw[2 * self.columns :]])


def _principal_factors(values: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(loadings [D, rank] in units of the scale, scale [D]) from the leading eigenvectors."""
    covariance = torch.cov(values.T)
    power, vectors = torch.linalg.eigh(covariance)
    common = vectors[:, -rank:] * (power[-rank:] - power[:-rank].mean()).clamp_min(0).sqrt()
    variance = covariance.diagonal()
    own = torch.maximum(variance - (common**2).sum(-1), 0.05 * variance).clamp_min(1e-12).sqrt()
    return common / own[:, None], own
