"""Models of changing volatility as entries of a comparison.

Their distribution is that of the transformed values (returns, mostly); the log-Jacobian of the
transforms puts the likelihood into the data's own units, so they stand beside the other models.
"""

from __future__ import annotations

import time
from dataclasses import replace

import torch

from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Transforms
from throughtime.evaluation.comparison import Entry, StepScores
from throughtime.models.garch import VOLATILITIES, Garch, arch_library, unsuitable


def baselines(
    raw_valid: Sequences,
    raw_test: Sequences,
    transforms: Transforms,
    names: tuple[str, ...] = tuple(VOLATILITIES),
) -> list[Entry]:
    """An `Entry` for each volatility model.

    Validation nats come from parameters fitted on the training steps alone, test nats from
    parameters fitted on everything before the test span; they stay fixed while the conditional
    variance follows the data.

    Args:
        raw_valid, raw_test: one series of one column each, everything before `starts` as its past.
        transforms: under which the values have a steady mean, such as log and difference.
        names: of the models.

    Returns:
        [] where they do not apply: to several series or columns, missing values in between,
        constant series and fewer than 200 training steps.

    Raises:
        MissingExtra: without the package arch.
    """
    arch_library()
    if raw_test.domain.integer or (transforms.domain and transforms.output.kind != "real"):
        return []
    spans = [raw.transform(transforms) for raw in (raw_valid, raw_test)]
    if any(
        unsuitable(replace(transformed, starts=torch.zeros_like(transformed.starts)))
        for transformed in spans
    ):
        return []
    if any(unsuitable(_before(transformed)) for transformed in spans):
        return []
    return [_entry(name, (raw_valid, raw_test), spans) for name in names]


def _before(transformed: Sequences) -> Sequences:
    """The steps before `starts`, as a series to be fitted to."""
    whole = torch.tensor([0])
    return transformed._window(whole, torch.zeros_like(transformed.starts), transformed.starts)


def _entry(name: str, raw: tuple[Sequences, Sequences], spans: list[Sequences]) -> Entry:
    begun = time.monotonic()
    models = []
    for transformed in spans:
        model = Garch(name, num_differencing=int(transformed.initial.sum()))
        model.begin(_before(transformed))
        models.append(model)
    valid, test = (
        StepScores.aligned(model.step_log_prob(transformed), transformed, span)
        for model, transformed, span in zip(models, spans, raw, strict=True)
    )
    note = "" if all(m.converged for m in models) else " (its optimiser did not converge)"
    return Entry(
        name=name,
        family="baseline",
        description=f"{VOLATILITIES[name].description}, fitted by arch{note}",
        parameters=models[1].num_parameters(),
        test=test,
        validation=valid.nats_per_step,
        seconds=time.monotonic() - begun,
    )
