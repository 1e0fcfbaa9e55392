"""Autoregressive models AR(τ): ``X_t ~ P(X_t | X_{t-1}, …, X_{t-τ})``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from throughtime.data.batching import Batch
from throughtime.data.sequences import Sequences
from throughtime.emissions import Distribution, Emission
from throughtime.emissions.base import choose
from throughtime.emissions.categorical import CategoricalDistribution
from throughtime.errors import SettingError
from throughtime.models.base import SequenceModel
from throughtime.models.predictors import PREDICTORS, CountPredictor, Predictor
from throughtime.state import State
from throughtime.types import Counted, uncounted

_NUMBERS = 2**22  # of probabilities, held at once


class Autoregressive(SequenceModel):
    """A finite-order model: nothing older than `order` elements matters.

    The first elements, with fewer than `order` before them, have the distribution given those that
    there are.

    Args:
        order: τ, 0 or more.
        emission: the family of the distribution of a step.
        predictor: "linear" (least squares or maximum likelihood in closed form; Normal and
            Student-t), "ngram" (symbols by counts), "mlp" (a network over the last τ elements,
            trained) or "constant" (the marginal distribution, order 0); "auto" takes the n-gram for
            symbols, the linear one for Normal and Student-t, and the network otherwise.
        covariates: how many numbers are known beforehand at every step.
        num_differencing: initial values of each sequence, which are not differenced.
        options: of the predictor.

    Raises:
        SettingError: for an order below 0 and a predictor that there is not.
    """

    def __init__(
        self,
        order: int,
        *,
        emission: Emission,
        predictor: str = "auto",
        covariates: int = 0,
        num_differencing: int = 0,
        **options: Any,
    ) -> None:
        if order < 0:
            raise SettingError(f"order must be 0 or more, got {order}")
        super().__init__(emission, num_differencing)
        if predictor == "auto":
            predictor = natural_predictor(emission)
        if predictor not in PREDICTORS:
            raise SettingError(f"predictor '{predictor}' is not one of: {', '.join(PREDICTORS)}")
        self.order, self.kind, self.covariates, self.options = order, predictor, covariates, options
        self.predictor: Predictor = PREDICTORS[predictor](
            order, emission, covariates, num_differencing, **options
        )
        self.closed_form = self.predictor.closed_form
        self.lookback = order + num_differencing
        if self.closed_form:
            self.initial_raw = self.initial_raw.double()

    def settings(self) -> dict[str, Any]:
        return {
            "kind": "autoregressive",
            "order": self.order,
            "emission": self.emission.to_json(),
            "predictor": self.kind,
            "covariates": self.covariates,
            "num_differencing": self.num_differencing,
            **self.options,
        }

    def begin(self, train: Sequences) -> None:
        """Fits the model in closed form, or starts its network at the marginal distribution."""
        super().begin(train)
        self.predictor.fit(train)

    fit = begin

    def initial_state(self, batch_size: int) -> State:
        return self.predictor.initial_state(batch_size)

    def members_distribution(self, batch: Batch, state: State) -> tuple[Distribution, State]:
        distribution, state = self.predictor.distribution(batch, state)
        if self.num_differencing and batch.initial is not None:
            distribution = choose(
                batch.initial, self.emission.distribution(self.initial_raw), distribution
            )
        return distribution, state

    def read(self, batch: Batch, state: State) -> State:
        return self.predictor.read(batch, state)

    def members_step(
        self,
        previous: Tensor | None,
        state: State,
        covariates: Tensor | None,
        series: Tensor | None,
    ) -> tuple[Distribution, State]:
        distribution, state = self.predictor.step(previous, state, covariates)
        if self.num_differencing:
            known = state[1][0]
            distribution = choose(
                known < self.num_differencing,
                self.emission.distribution(self.initial_raw),
                distribution,
            )
        return distribution, state

    def runs(self, data: Sequences, on_steps: Counted = uncounted) -> Iterator[Tensor]:
        core = self.predictor.core if isinstance(self.predictor, CountPredictor) else None
        if core is None:
            yield from super().runs(data, on_steps)
            return
        for run in core.runs(data.values, data.offsets):  # many at once, not step by step
            yield run
            on_steps(len(run))

    def distributions_at(
        self, data: Sequences, wanted: Tensor
    ) -> Iterator[tuple[Tensor, Distribution]]:
        core = self.predictor.core if isinstance(self.predictor, CountPredictor) else None
        if core is None:
            yield from super().distributions_at(data, wanted)
            return
        at_once = max(1, _NUMBERS // core.num_symbols)
        for rows in (wanted & data.scored()).nonzero().flatten().split(at_once):
            yield rows, CategoricalDistribution(core.distribution_at(data, rows).log())

    def extra_tensors(self) -> dict[str, Tensor]:
        return self.predictor.tensors()

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.predictor.restore(tensors)

    def num_parameters(self) -> int:
        return self.predictor.num_parameters()


def natural_predictor(emission: Emission) -> str:
    """What "auto" means for an emission."""
    if emission.kind == "categorical":
        return "ngram"
    if emission.kind in ("normal", "student_t") and not getattr(emission, "rank", 0):
        return "linear"
    return "mlp"
