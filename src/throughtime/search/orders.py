"""Autoregressions of several orders, compared: held-out nats, AIC and BIC."""

from __future__ import annotations

import torch

from throughtime.data.sequences import Sequences
from throughtime.emissions import Categorical, Emission
from throughtime.evaluation.results import OrderScore, or_infinite
from throughtime.models import linear_ar
from throughtime.models.autoregressive import Autoregressive, natural_predictor
from throughtime.models.ngram import NGram
from throughtime.search import views
from throughtime.search.candidates import closed_form_emission, orders
from throughtime.search.fitting import Case


def compared(case: Case) -> list[OrderScore]:
    """The orders that the data can carry, each in closed form; [] where there is no closed form."""
    emission = closed_form_emission(case.view.emission)
    kind = natural_predictor(emission)
    if "ar" not in case.settings.families or kind == "mlp":
        return []
    train = case.sample(case.parts.train)
    known = case.vocabulary or views.fitted(case.view.transforms, train)
    seen, valid = train.transform(known), case.valid.transform(known)
    ladder = _ladder(case, emission, seen)
    if isinstance(emission, Categorical):
        return _of_symbols(seen, valid, emission, max(ladder))
    if case.settings.order == "auto":
        most = views.highest_order(train, case.view.transforms, max(ladder))
        ladder = [order for order in ladder if order <= most] or [max(0, most)]
    return _of_values(seen, valid, emission, ladder, case.view.num_differencing)


def _ladder(case: Case, emission: Emission, seen: Sequences) -> list[int]:
    recommended = None if case.recommended is None else case.recommended.dense
    return orders(emission, seen, case.settings.order, recommended)


def selected(case: Case) -> int:
    """The order that was asked for, or the best on validation data."""
    if isinstance(case.settings.order, int):
        return case.settings.order
    if case.orders:
        return min(case.orders, key=lambda one: or_infinite(one.nats_per_step)).order
    seen = case.parts.train.transform(views.fitted(case.view.transforms, case.parts.train))
    return _ladder(case, closed_form_emission(case.view.emission), seen)[0]


def _of_values(
    train: Sequences,
    valid: Sequences,
    emission: Emission,
    ladder: list[int],
    num_differencing: int,
) -> list[OrderScore]:
    """Linear autoregressions of several orders."""
    scored = train.scored()
    offset = float(-train.log_det[scored].mean()) if bool(scored.any()) else 0.0
    values = torch.where(train.initial.unsqueeze(1), torch.nan, train.values)
    lengths, known = train.lengths.tolist(), train.covariates
    scanned = linear_ar.scan(
        values.split(lengths),
        ladder,
        covariates=None if known is None else known.split(lengths),
        noise="student_t" if emission.kind == "student_t" else "normal",
    )
    rows = []
    for row in scanned:
        model = Autoregressive(
            row["order"], emission=emission, num_differencing=num_differencing,
            covariates=0 if known is None else known.shape[1],
        )  # fmt: skip
        model.begin(train)
        own_units = 2 * row["steps"] * offset  # what the transforms add
        nats = views.held_out(model, valid)
        rows.append(
            OrderScore(
                order=row["order"],
                nats_per_step=nats,
                aic=row["aic"] + own_units,
                bic=row["bic"] + own_units,
            )
        )
    return rows


def _of_symbols(
    train: Sequences, valid: Sequences, emission: Categorical, highest: int
) -> list[OrderScore]:
    """N-grams of every order, all nested in one fit."""
    core = NGram.fit(train.values, train.offsets, emission.num_symbols, highest)
    counts, levels = core.tensors()["counts"][0], core.tensors()["levels"]
    scored, steps, rows = valid.scored(), len(train.values), []
    for order in range(1, highest + 1):
        held = core.log_prob(valid.values, valid.offsets, order)[scored]
        inside = float(core.log_prob(train.values, train.offsets, order).sum())
        p = int((counts[: levels[order + 1]] > 0).sum())
        nats = -float(held.mean()) - float(valid.log_det[scored].mean())
        bic = p * float(torch.tensor(steps).log()) - 2 * inside
        rows.append(OrderScore(order=order, nats_per_step=nats, aic=2 * p - 2 * inside, bic=bic))
    return rows
