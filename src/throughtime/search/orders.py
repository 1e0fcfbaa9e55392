"""Autoregressions of several orders, compared: held-out nats, AIC and BIC."""

from __future__ import annotations

import torch

from throughtime.data.sequences import Sequences
from throughtime.emissions import Emission
from throughtime.evaluation.results import OrderScore
from throughtime.models import linear_ar
from throughtime.models.autoregressive import Autoregressive
from throughtime.models.ngram import NGram
from throughtime.search import views


def real_orders(
    train: Sequences,
    valid: Sequences,
    distribution: Emission,
    ladder: list[int],
    num_differencing: int,
) -> list[OrderScore]:
    """Held-out nats, AIC and BIC of linear autoregressions of several orders."""
    offset = validation_offset(train)
    values = torch.where(train.initial.unsqueeze(1), torch.nan, train.values)
    covariates = (
        None if train.covariates is None else train.covariates.split(train.lengths.tolist())
    )
    noise = "student_t" if distribution.kind == "student_t" else "normal"
    scanned = linear_ar.scan(
        values.split(train.lengths.tolist()), ladder, covariates=covariates, noise=noise
    )
    rows = []
    for row in scanned:
        count = 0 if train.covariates is None else train.covariates.shape[1]
        model = Autoregressive(
            row["order"], emission=distribution, num_differencing=num_differencing, covariates=count
        )
        model.begin(train)
        rows.append(
            OrderScore(
                order=row["order"],
                nats_per_step=views.held_out(model, valid),
                aic=row["aic"] + 2 * row["steps"] * offset,
                bic=row["bic"] + 2 * row["steps"] * offset,
            )
        )
    return rows


def symbol_orders(
    train: Sequences, valid: Sequences, distribution: Emission, highest: int
) -> list[OrderScore]:
    """Held-out nats, AIC and BIC of n-grams of every order, all nested in one fit."""
    core = NGram.fit(train.values, train.offsets, distribution.num_symbols, highest)  # type: ignore[attr-defined]
    counts, levels = core.tensors()["counts"][0], core.tensors()["levels"]
    scored = valid.scored()
    steps = len(train.values)
    rows = []
    for order in range(1, highest + 1):
        held = core.log_prob(valid.values, valid.offsets, order)[scored]
        inside = float(core.log_prob(train.values, train.offsets, order).sum())
        p = int((counts[: levels[order + 1]] > 0).sum())
        rows.append(
            OrderScore(
                order=order,
                nats_per_step=-float(held.mean()) - float(valid.log_det[scored].mean()),
                aic=2 * p - 2 * inside,
                bic=p * float(torch.tensor(steps).log()) - 2 * inside,
            )
        )
    return rows


def validation_offset(data: Sequences) -> float:
    """What the transforms add to nats per step."""
    scored = data.scored()
    return float(-data.log_det[scored].mean()) if bool(scored.any()) else 0.0
