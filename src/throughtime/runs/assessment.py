"""Every fitted model on untouched test data: what scores.json holds."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from throughtime import evaluation
from throughtime.data.readers.sound import wav_bytes
from throughtime.data.sequences import Sequences
from throughtime.emissions import Emission, Mixture
from throughtime.errors import NonFiniteError, SettingError
from throughtime.evaluation import Entry, StepScores, arch_baselines, gradient_reach
from throughtime.history import Certificate, with_network
from throughtime.models.autoregressive import Autoregressive
from throughtime.models.latent import LatentAutoregressive
from throughtime.runtime import version
from throughtime.search.candidates import FittedCandidate
from throughtime.search.fitting import Parts
from throughtime.search.search import Found
from throughtime.training.config import RunSettings
from throughtime.types import Event

SCHEMA = 1
_PATHS = 200
_ORIGINS = 10
_HORIZON = 20
_MOST_SERIES = 20
_MOST_LAWS = 20_000  # test steps beyond which forecasts and calibration would take minutes
_HURRIED, _UNHURRIED = 30.0, 120.0  # seconds of a fit: no time for gradients; time for all of it
_SAMPLE_STEPS = {"text": 600, "sound": 16_000}


@dataclass(frozen=True)
class Fitted:
    """What is assessed: the models, their data, what was asked for, and the certificate."""

    found: Found
    parts: Parts
    settings: RunSettings
    certificate: Certificate | None

    def best_network(self, selected: str) -> FittedCandidate | None:
        """See `best_network`."""
        return best_network(self.found.candidates, selected)


def assess(fitted: Fitted, summary: dict[str, Any], on_event: Event) -> dict[str, Any]:
    """Scores, intervals, forecasts, calibration, surprisal and samples of fitted models.

    The model is chosen by validation; the test data only judge.
    """
    parts, seed, models = fitted.parts, fitted.settings.seed, fitted.found.candidates
    entries = []
    for one in models:
        on_event({"event": "evaluate", "what": one.name})
        entries.append(
            Entry(
                one.name,
                one.family,
                describe(one),
                one.model.num_parameters(),
                StepScores.of(one.fitted, parts.test),
                one.valid,
                round(one.seconds, 2),
                round(one.peak_memory_mb, 1),
                one.passes,
            )
        )
    if parts.test.domain.kind == "real" and version("arch"):
        on_event({"event": "evaluate", "what": "arch models"})
        view = fitted.found.view.transforms.kinds
        alike = next(one.fitted for one in reversed(models) if one.fitted.transforms.kinds == view)
        entries.extend(arch_baselines.peers(parts.valid, parts.test, alike.transforms))
    scores = {"schema": SCHEMA, **evaluation.table(entries, parts.test, seed)}
    best = next(one for one in models if one.name == scores["best"])
    scores["data"] = summary | {"transforms": list(best.fitted.transforms.kinds)}
    scores["orders"] = [asdict(order) for order in fitted.found.orders]
    certificate = _history(fitted, scores["best"], on_event)
    scores["history"] = None if certificate is None else certificate.to_json()
    on_event({"event": "evaluate", "what": f"forecasts of {best.name}"})
    test = _limited(parts.test)
    season = fitted.found.view.season
    horizon = max(season or 0, _HORIZON)
    scores["forecast"] = evaluation.forecast(
        best.fitted, test, horizon, _ORIGINS, _PATHS, seed,
        season=season or 1, max_series=_MOST_SERIES, train=parts.train,
    )  # fmt: skip
    if scores["forecast"] is not None:
        scores["forecast"]["models"] = {}
        for one in models:
            on_event({"event": "evaluate", "what": f"forecasts of {one.name}"})
            scores["forecast"]["models"][one.name] = _accuracy(one, test, horizon, season, seed)
    scores["calibration"] = evaluation.calibration(best.fitted, test, seed)
    chosen = next(entry for entry in entries if entry.name == best.name)
    scores["surprisal"] = evaluation.surprisal(chosen.test, parts.test, best.fitted)
    scores["risk"] = evaluation.next_risk(best.fitted, parts.test)
    scores["gradients"] = _gradients(fitted, scores, on_event)
    on_event({"event": "evaluate", "what": f"samples of {best.name}"})
    scores["samples"] = samples(best, parts.test, seed)
    scores["verdict"] = evaluation.verdict(scores)
    return scores


def best_network(fitted: Sequence[FittedCandidate], selected: str) -> FittedCandidate | None:
    """The selected model, or where that is no network the best one by validation, if any is."""
    networks = [one for one in fitted if isinstance(one.model, LatentAutoregressive)]
    return min(networks, key=lambda one: (one.name != selected, one.valid), default=None)


def _history(fitted: Fitted, best: str, on_event: Event) -> Certificate | None:
    """The certificate; where a network beats every finite order, with its memory."""
    found, parts, network = fitted.certificate, fitted.parts, fitted.best_network(best)
    orders = [one.valid for one in fitted.found.candidates if one.family == "autoregressive"]
    if found is None or network is None or network.valid >= min(orders, default=math.inf):
        return found
    on_event({"event": "evaluate", "what": f"memory of {network.name}"})
    test = _limited(parts.test)
    return with_network(found, network.fitted, parts.train, test, fitted.settings.seed)


def _gradients(fitted: Fitted, scores: dict[str, Any], on_event: Event) -> dict[str, Any] | None:
    """How far back the gradient of the best network reaches; None where there is none."""
    network, data = fitted.best_network(scores["best"]), fitted.parts.fitting
    limit = fitted.settings.time_limit
    if network is None or int(data.lengths.max()) < 2 or (limit or math.inf) < _HURRIED:
        return None
    on_event({"event": "evaluate", "what": f"gradient of {network.name}"})
    work = gradient_reach.WORK * (1.0 if limit is None else min(1.0, limit / _UNHURRIED))
    row = next(row for row in scores["models"] if row["name"] == network.name)
    learned = gradient_reach.has_learned(row)
    try:
        return gradient_reach.examine(
            network.fitted, data, learned, work=work, seed=fitted.settings.seed
        ).to_json()
    except (NonFiniteError, SettingError) as error:  # a diagnosis that fails ends no fit
        on_event({"event": "note", "model": network.name, "message": str(error)})
        return None


def _accuracy(
    one: FittedCandidate, test: Sequences, horizon: int, season: int | None, seed: int
) -> dict[str, Any]:
    """One model's forecasts in short: a few origins, averaged over the horizon, beside one-step."""
    found = evaluation.forecast(
        one.fitted, test, horizon, 5, 100, seed, season=season or 1, max_series=10
    )
    if found is None:
        return {}
    rows = found["free_running"]
    means = {key: _mean([row[key] for row in rows]) for key in ("crps", "mase", "smape", "rmse")}
    coverage = {
        level: _mean([row["coverage"][level] for row in rows]) for level in rows[0]["coverage"]
    }
    pit = evaluation.calibration(one.fitted, test, seed)
    return {
        "free_running": {**means, "coverage": coverage},
        "one_step": {k: found["one_step"][k] for k in (*means, "coverage")},
        "pit": None if pit is None else pit["pit"],
    }


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _limited(test: Sequences) -> Sequences:
    """The test data, or a part of them where every distribution of all would take minutes."""
    if test.steps <= _MOST_LAWS:
        return test
    if len(test) == 1:  # its last steps; those before become past
        return replace(test, starts=torch.maximum(test.starts, test.lengths - _MOST_LAWS))
    upto = int((test.scored().cumsum(0)[test.offsets[1:] - 1] <= _MOST_LAWS).sum())
    return test[: max(1, upto)]


def describe(fitted: FittedCandidate) -> str:
    """A model in a few words: sizes and distribution."""
    model = fitted.model
    if fitted.blended:
        return " + ".join(f"{weight:.2f} {name}" for name, weight in fitted.blended)
    distribution = _in_words(model.emission)
    if isinstance(model, LatentAutoregressive):
        size = f"{model.cell.upper()}({model.hidden_size})"
        if model.num_layers > 1:
            size += f", {model.num_layers} layers"
        if model.members > 1:
            size += f", {model.members} averaged"
        return f"{size}, {distribution}"
    if not isinstance(model, Autoregressive):
        return f"{str(model.settings().get('kind', fitted.name)).replace('_', ' ')}, {distribution}"
    if model.order == 0:
        return f"constant {distribution}"
    names = {"linear": "linear", "ngram": "interpolated n-gram", "mlp": "network"}
    return f"{names[model.kind]} over {model.order} lags, {distribution}"


def _in_words(emission: Emission) -> str:
    words = emission.kind.replace("_", " ")
    if isinstance(emission, Mixture):
        component = emission.component.replace("student_t", "Student-t").replace("normal", "Normal")
        words = f"mixture of {emission.num_components} {component}"
    return words.replace("student t", "Student-t")


def samples(best: FittedCandidate, test: Sequences, seed: int) -> list[dict[str, Any]]:
    """What the model writes, sounds or draws by itself."""
    kind = test.domain.kind
    model, chain = best.model, best.fitted.transforms
    if kind == "text":
        drawn = model.sample(_SAMPLE_STEPS["text"], num_paths=1, seed=seed)[0]
        return [{"kind": "text", "text": chain.text(drawn)}]
    if kind == "sound":
        rate = int(test.domain.sample_rate or 8000)
        steps = min(_SAMPLE_STEPS["sound"], 2 * rate)
        wave = chain.inverse(model.sample(steps, num_paths=1, seed=seed))[0]
        content = base64.b64encode(wav_bytes(wave, rate)).decode()
        return [{"kind": "sound", "wav_base64": content, "seconds": steps / rate, "rate": rate}]
    if test.domain.covariate_columns:
        return []  # what will be known beforehand is not ours to invent
    if kind == "binary" or (chain.domain is not None and chain.output.kind == "binary"):
        roll = model.sample(100, num_paths=1, seed=seed)[0]
        return [{"kind": "roll", "values": roll.long().tolist()}]
    if kind in ("real", "count"):
        return [_paths(best, test, seed)]
    return []


def _paths(best: FittedCandidate, test: Sequences, seed: int) -> dict[str, Any]:
    """Continuations of the first test series, in its own units."""
    one = test[0]
    context = best.model.condition(best.fitted.transformed(one))
    drawn = best.model.sample(50, context, 8, seed, name=one.names[0])
    raw = best.fitted.transforms.inverse(drawn.double(), one.values)
    raw = raw if raw.dim() == 3 else raw.unsqueeze(-1)
    return {"kind": "paths", "series": one.names[0], "values": raw[..., 0].tolist()}
