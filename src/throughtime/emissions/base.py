"""What every emission is: sizes, a map from raw numbers to a distribution, and the distribution
itself.

An `Emission` is a frozen value without parameters. It turns the raw output of a network into a
`Distribution`, the conditional distribution of one step, and it knows the raw numbers with which
the network starts as the best constant model. A `Distribution` has batch dimensions in front; real
and count values carry a last axis of D columns, symbols carry none.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor

from throughtime.emissions import numeric
from throughtime.errors import DataError, SettingError

Same = TypeVar("Same", bound="Distribution")


class Emission(ABC):
    """How one step is distributed given the state: sizes and constraint maps, no parameters."""

    kind: ClassVar[str]  # its name in files
    discrete: ClassVar[bool] = False  # probabilities of whole numbers rather than densities
    symbols: ClassVar[bool] = False  # values are int64 without a column axis
    columns: int = 1  # D; a symbol counts as one column

    @property
    @abstractmethod
    def num_parameters(self) -> int:
        """Numbers that a network puts out for each step."""

    @abstractmethod
    def distribution(self, raw: Tensor) -> Distribution:
        """The distribution with given raw parameters.

        Args:
            raw: ``[..., num_parameters]``; any real numbers will do.

        Returns:
            A distribution with batch ``[...]``, differentiable in `raw`.
        """

    @abstractmethod
    def initial(self, values: Tensor) -> Tensor:
        """The raw parameters of the best constant model, where training starts: the head's bias.

        Args:
            values: ``[N, D]`` (``[N]`` for symbols or one column); NaNs are ignored.

        Returns:
            float64 ``[num_parameters]``, which reproduce the marginal distribution of `values`.

        Raises:
            DataError: if a column holds no value.
            VocabularyError: for symbols that the emission does not have.
        """

    def to_json(self) -> dict[str, Any]:
        """A plain description, which `throughtime.emissions.from_json` reads back."""
        fields = dataclasses.fields(self)  # type: ignore[arg-type]
        return {"kind": self.kind, **{f.name: getattr(self, f.name) for f in fields}}

    def _observed(self, values: Tensor) -> Tensor:
        """The values as float64 [N, D]; every column must hold at least one number."""
        values = torch.as_tensor(values).detach().double().cpu().reshape(-1, self.columns)
        for column, count in enumerate((~values.isnan()).sum(0).tolist()):
            if count == 0:
                raise DataError(f"column {column} holds no value to train on: leave it out")
        return values


def check_size(name: str, value: int, at_least: int = 1) -> None:
    """Refuse a size that is not an integer of at least `at_least`."""
    if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
        raise SettingError(f"{name} must be an integer of at least {at_least}, not {value!r}")


def check_positive(name: str, value: float) -> None:
    """Refuse an option that is not a finite number above zero."""
    if not 0 < value < float("inf"):
        raise SettingError(f"{name} must be a finite number above zero, not {value!r}")


class Distribution(ABC):
    """The distribution of one step, for a whole batch [...] at once; reads like
    `torch.distributions`.

    Arguments broadcast against the batch from the front, so `icdf(q[:, None, None])` of a batch [B]
    with D columns is [len(q), B, D]. Only `log_prob`, `mean` and `variance` carry gradients; `cdf`,
    `icdf` and `crps` are of each column by itself, in float64, and NaN where x is NaN.
    """

    @property
    def discrete(self) -> bool:
        """Whether `log_prob` is the log of a probability (else of a density)."""
        return False

    @property
    @abstractmethod
    def batch_shape(self) -> torch.Size:
        """The shape of `log_prob`."""

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density (discrete: log-probability) of whole rows.

        Args:
            x: ``[..., D]`` (symbols: int64 ``[...]``); missing (NaN) columns count nothing.

        Returns:
            Nats ``[...]``, in the dtype of the parameters.
        """

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """The expectation, ``[..., D]`` (symbols: of the symbol as a number, ``[...]``)."""

    @property
    @abstractmethod
    def variance(self) -> Tensor:
        """Of each column, ``[..., D]`` (symbols: ``[...]``); inf where it does not exist."""

    def cdf(self, x: Tensor | float) -> Tensor:
        """``P(X <= x)`` of each column, float64 ``[..., D]`` (symbols: ``[...]``)."""
        return self._exact()._cdf(self._argument(x))

    def icdf(self, q: Tensor | float) -> Tensor:
        """The smallest x with ``cdf(x) >= q``, of each column.

        Args:
            q: probabilities in (0, 1).

        Returns:
            float64 ``[..., D]`` (symbols: ``[...]``).
        """
        return self._exact()._icdf(self._argument(q))

    def crps(self, x: Tensor | float) -> Tensor:
        """Continuous ranked probability score of each column, in units of x; 0 is perfect.

        The integral of ``(cdf(y) - [x <= y])^2`` over y (Gneiting & Raftery 2007, JASA 102).

        Args:
            x: what was observed, ``[..., D]`` (symbols: ``[...]``).

        Returns:
            float64 ``[..., D]`` (symbols: ``[...]``).
        """
        return self._exact()._crps(self._argument(x))

    @property
    @abstractmethod
    def num_uniforms(self) -> int:
        """How many uniforms one draw takes."""

    def sample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        """Independent draws, without gradient.

        Args:
            shape: of the draws, put in front of the batch.
            generator: source of randomness, on the device of the parameters; torch's global one if
                None.

        Returns:
            ``[*shape, ..., D]`` in the dtype of the parameters (symbols: int64 ``[*shape, ...]``).
        """
        size = (*shape, *self.batch_shape, self.num_uniforms)
        device = self.mean.device
        u = torch.rand(size, generator=generator, dtype=torch.float64, device=device)
        return self.sample_from_uniforms(u.clamp_min(2.0**-54))  # rand may return 0

    def sample_from_uniforms(self, u: Tensor) -> Tensor:
        """The draw that belongs to uniforms: a fixed map, for paths that can be repeated.

        Args:
            u: ``[..., num_uniforms]`` in (0, 1); leading dimensions may go beyond the batch:
                ``[paths, *batch, num_uniforms]``.

        Returns:
            The draws, as from `sample`.
        """
        with torch.no_grad():
            return self._sample(torch.as_tensor(u).double())

    def __getitem__(self: Same, index: Any) -> Same:
        """The distribution of some batch entries; `index` applies to the leading batch axes."""
        return self._map(lambda part: part[index])

    def marginals(self) -> Distribution:
        """A distribution with the same columns, but independent of each other."""
        return self

    @abstractmethod
    def _cdf(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _icdf(self, q: Tensor) -> Tensor: ...

    @abstractmethod
    def _crps(self, x: Tensor) -> Tensor: ...

    @abstractmethod
    def _sample(self, u: Tensor) -> Tensor: ...

    def _map(self: Same, function: Callable[[Tensor], Tensor]) -> Same:
        """The same distribution with `function` applied to every parameter tensor."""
        changes: dict[str, Any] = {}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            if isinstance(value, Tensor):
                changes[field.name] = function(value)
            elif isinstance(value, Distribution):
                changes[field.name] = value._map(function)
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def _exact(self: Same) -> Same:
        return self._map(lambda part: part.detach().double())

    def _argument(self, x: Tensor | float) -> Tensor:
        return torch.as_tensor(x, dtype=torch.float64, device=self.mean.device).detach()


class Columns(Distribution):
    """D scalar distributions, independent given the state. Parameters are [..., D]."""

    uniforms_per_column: ClassVar[int] = 1

    @property
    def batch_shape(self) -> torch.Size:
        return self.mean.shape[:-1]

    def log_prob(self, x: Tensor) -> Tensor:
        return self.column_log_prob(x).sum(-1)

    def column_log_prob(self, x: Tensor) -> Tensor:
        """Nats of each column, [..., D]; 0, with zero gradient, where x is NaN."""
        missing = torch.isnan(x)
        filled = torch.where(missing, 0, x)  # before the density: NaN would reach the gradient
        return torch.where(missing, 0, self._log_density(filled))

    @property
    def num_uniforms(self) -> int:
        return self.uniforms_per_column * self.mean.shape[-1]

    def _sample(self, u: Tensor) -> Tensor:
        u = u.unflatten(-1, (self.mean.shape[-1], self.uniforms_per_column))
        return self._draw(*u.unbind(-1)).to(self.mean.dtype)

    def _draw(self, *u: Tensor) -> Tensor:
        """The draw, [..., D], from uniforms of that shape: the inverse cdf unless overridden."""
        return self._exact()._icdf(u[0])

    @abstractmethod
    def _log_density(self, x: Tensor) -> Tensor:
        """Nats of each column [..., D]; x is never NaN."""


class LocationScale(Columns):
    """Columns of the form location + scale Z, with one standard distribution Z."""

    location: Tensor
    scale: Tensor

    @property
    def mean(self) -> Tensor:
        return self.location

    def _standardised(self, x: Tensor) -> Tensor:
        return (x - self.location) / self.scale


def standardise(values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(values in standard units, centre [D], spread [D]), by median and interquartile range.

    Optimisers need values near one, whatever the units of the data; outliers must not decide.
    """
    spread = numeric.nanquantile(values, 0.75) - numeric.nanquantile(values, 0.25)
    spread = spread / 1.349  # of a normal distribution: its standard deviation
    fallback = numeric.nanstd(values)
    spread = torch.where(spread > 0, spread, torch.where(fallback > 0, fallback, 1.0))
    centre = numeric.nanquantile(values, 0.5)
    return (values - centre) / spread, centre, spread


def scale_or_one(scale: Tensor, values: Tensor) -> Tensor:
    """The scale [D], but 1 where a column has a single value, which tells nothing of it."""
    return torch.where((~values.isnan()).sum(0) > 1, scale, 1.0)


def choose(mask: Tensor, first: Distribution, second: Distribution) -> Distribution:
    """The first distribution where mask ``[...]`` is True, the second elsewhere; both of one
    family.
    """
    changes: dict[str, Any] = {}
    for part in dataclasses.fields(second):  # type: ignore[arg-type]
        one, other = getattr(first, part.name), getattr(second, part.name)
        if isinstance(other, Tensor):
            where = mask[(..., *(None,) * (other.dim() - mask.dim()))]
            changes[part.name] = torch.where(where, one.to(other.dtype), other)
        elif isinstance(other, Distribution):
            changes[part.name] = choose(mask, one, other)
    return dataclasses.replace(second, **changes)  # type: ignore[type-var]
