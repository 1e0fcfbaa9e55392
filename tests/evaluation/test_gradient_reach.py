"""The gradient of a run's network: examined by fit, reported by a command, the same anew."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from support import report_runs
from support.small_runs import SmallRuns, walk, write_series
from support.training_cases import small_model, toy

import throughtime as tt
from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Transforms
from throughtime.errors import NonFiniteError, RunError, SettingError
from throughtime.evaluation import gradient_reach
from throughtime.evaluation.results import GradientRecord
from throughtime.models.latent import Dropout
from throughtime.predict.fitted import FittedModel
from throughtime.report.picture import gradient
from throughtime.runs.assessment import best_network
from throughtime.search.candidates import FittedCandidate
from throughtime.training.config import TrainSettings


def network(model: Any, settings: TrainSettings, name: str = "gru") -> FittedModel:
    return FittedModel(name, model, Transforms(), training=settings)


def candidate(model: Any, name: str, valid: float) -> FittedCandidate:
    fitted = network(model, TrainSettings(), name)
    return FittedCandidate(fitted, "latent", valid, torch.zeros(1), 0.0, 0.0)


# ----------------------------------------------------------------------------------- the segment


def test_a_segment_comes_from_the_middle_with_the_state_it_has_there() -> None:
    model = small_model(cell="lstm").double()
    data = toy((90,))
    batch, state = gradient_reach.segment(model, data, 30)
    assert batch.index[:, 0].tolist() == list(range(30, 60))
    whole = gradient_reach.Lanes(data, 1, dtype=torch.float64)
    _, known = model.loss(whole[0:30], model.initial_state(1))
    assert all(torch.allclose(a, b, atol=1e-14) for a, b in zip(state, known, strict=True))


def test_short_sequences_lie_side_by_side() -> None:
    batch, _ = gradient_reach.segment(small_model(), toy((20, 18, 16, 20, 9, 12)), 80)
    assert batch.x.shape[1] == 4
    assert 18 <= len(batch) <= 20
    assert bool(batch.reset.any())


def test_sizes_follow_the_truncation_the_data_and_the_work() -> None:
    def sizes(longest: int = 10_000, weights: int = 10_000, k2: Any = 80, lag: Any = None) -> Any:
        return gradient_reach.sizes(longest, weights, k2, lag, gradient_reach.WORK)

    assert sizes() == (120, 2000)  # beyond the truncation
    assert sizes(longest=100)[0] == 99
    assert sizes(k2=None)[0] == 400
    lags, steps = sizes(weights=3_000_000, k2=400)
    assert steps >= 2 * lags
    assert lags * steps * 3_000_000 <= 1.1 * gradient_reach.WORK
    assert sizes(lag=7)[0] == 7
    for wrong in (0, 100):
        with pytest.raises(SettingError, match=r"max_lag=.*: from 1 to 99; the longest sequence"):
            sizes(longest=100, lag=wrong)


# ------------------------------------------------------------------------------- the examination


def test_the_norms_are_those_of_the_ledger_and_k2_is_what_training_uses() -> None:
    model, data = small_model(num_layers=2), toy((300,))
    one = network(model, TrainSettings(bptt="8,20", segment=12))
    reach = gradient_reach.examine(one, data, False)
    result = reach.to_json()
    assert result["k2"] == 12
    assert result["max_lag"] == 100
    assert result["model"] == "gru"
    batch, state = gradient_reach.segment(model, data, 300)
    params = dict(model.recurrent.named_parameters())
    book = tt.gradflow.ledger(model.loss, batch, state, params, 100)
    assert result["norms"] == pytest.approx(book.norms.tolist(), rel=1e-5)
    assert result["beyond"] == pytest.approx(1 - float(book.share[11]), abs=1e-6)
    assert result["reach"]["0.9"] == book.reach(0.9)
    assert reach.reach(0.9) == book.reach(0.9)
    text = json.loads(json.dumps(result, allow_nan=False))
    assert gradient_reach.GradientReach.from_json(text).to_json() == result


DISTRIBUTIONS: dict[str, dict[str, Any]] = {
    "normal": {"columns": 2},
    "student_t": {"columns": 1},
    "laplace": {"columns": 1},
    "mixture": {"columns": 1, "component": "student_t", "num_components": 3},
    "poisson": {"columns": 1},
    "negative_binomial": {"columns": 1},
    "bernoulli": {"columns": 3},
    "discretised_logistic": {"num_symbols": 9},
    "categorical": {"num_symbols": 9},
}


@pytest.mark.parametrize("kind", DISTRIBUTIONS)
@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_every_distribution_can_be_examined(kind: str, cell: str) -> None:
    distribution = tt.emissions.from_json({"kind": kind, **DISTRIBUTIONS[kind]})
    torch.manual_seed(0)
    columns = DISTRIBUTIONS[kind].get("columns")
    whole = torch.randint(0, 2 if kind == "bernoulli" else 9, (60, columns or 1))
    values = whole[:, 0] if columns is None else whole.double()
    model = small_model(
        cell=cell,
        hidden_size=4,
        members=2,
        dropout=Dropout(0.2, recurrent=0.1),
        emission=distribution,
    )
    one = network(model, TrainSettings(bptt="5"))
    result = gradient_reach.examine(one, Sequences.of([values]), True).to_json()
    assert all(norm is not None and norm > 0 for norm in result["norms"][:3])
    assert result["jacobian_norm"]["mean"][0] > 0
    assert result["verdict"]["sentence"]


def test_what_has_been_learned_is_not_called_nothing() -> None:
    torch.manual_seed(0)
    noise = Sequences.of([torch.randint(0, 4, (600,))], domain=toy().domain)
    one = network(small_model(), TrainSettings(bptt="20"))
    with torch.no_grad():
        one.model.head_weight.zero_()  # type: ignore[operator]
        one.model.head_weight.normal_(std=1e-3)  # type: ignore[operator]
    for learned in (False, True):
        result = gradient_reach.examine(one, noise, learned)
        assert (result.verdict.name == "nothing to learn") != learned
        assert result.examination.sign_flip_p is not None


def test_the_network_is_the_chosen_one_or_the_best() -> None:
    a, b = candidate(small_model(), "a", 1.0), candidate(small_model(), "b", 2.0)
    ar = candidate(tt.Autoregressive(1, emission=small_model().emission), "ar(1)", 0.5)
    assert best_network([ar, a, b], "b") is b
    assert best_network([ar, b, a], "blend") is a
    assert best_network([ar], "ar(1)") is None


# -------------------------------------------------------------------------------------- the run


def test_fit_examines_the_network_and_the_run_examines_it_anew(small_runs: SmallRuns) -> None:
    run = tt.load(small_runs("series"))
    assert run.scores.gradients is not None
    kept = run.scores.gradients.to_json()
    assert kept["model"] in {row.name for row in run.scores.models if row.family == "latent"}
    assert run.gradients().to_json() == kept
    again = run.gradients(max_lag=kept["max_lag"]).to_json()
    assert again["rows"] == kept["rows"]
    assert again["steps"] == kept["steps"]
    assert again["norms"] == pytest.approx(kept["norms"], rel=1e-4)
    assert len(run.gradients(max_lag=5).examination.ledger.norms) == 6
    page = (run.folder / "report.html").read_text(encoding="utf-8")
    assert "How far back the gradient reaches" in page
    assert f"The gradient that {kept['model']} is trained by" in page


def test_a_gradient_that_is_not_finite_does_not_end_a_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def explode(*_: Any, **__: Any) -> Any:
        raise NonFiniteError("the gradient explodes")

    monkeypatch.setattr(gradient_reach, "examine", explode)
    write_series(tmp_path / "prices.csv", walk(100))
    events: list[dict[str, Any]] = []
    run = tt.fit(
        tmp_path / "prices.csv", value="price", model="gru", steps=2, hidden=2,
        out=tmp_path / "run", on_event=events.append,
    )  # fmt: skip
    assert run.scores.gradients is None
    note = {"event": "note", "model": "gru", "message": "the gradient explodes"}
    assert note in events
    assert "the gradient explodes" in (tmp_path / "run" / "report.html").read_text()


def test_a_run_without_a_network_says_what_it_sees(small_runs: SmallRuns) -> None:
    run = tt.load(small_runs("sales"))
    assert run.scores.gradients is None
    if run.best.name != "ar(1)":
        pytest.fail(f"the run of sales chose {run.best.name}")
    with pytest.raises(
        RunError, match=r"has no recurrent network; its ar\(1\) sees exactly 1 step$"
    ):
        run.gradients()


def test_a_run_whose_network_is_gone_says_so(small_runs: SmallRuns, tmp_path: Path) -> None:
    run = tt.load(small_runs("series"))
    with pytest.raises(RunError, match=r"model\.json"):
        replace(run, folder=tmp_path).gradients(max_lag=3)


# ---------------------------------------------------------------------------------- the picture


def drawn(result: GradientRecord) -> list[str]:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(gradient(result))
    return [line.rstrip() for line in console.export_text().splitlines()]


def examination(decay: float = 0.95, cut: int | None = 80, **more: Any) -> GradientRecord:
    result = report_runs.gradients(decay, cut, 200)
    return result.model_copy(update={"step": "business day"} | more)


def test_the_picture_fits_80_columns_and_adds_up() -> None:
    result = examination()
    lines = drawn(result)
    assert max(map(len, lines)) <= 80
    rows = [re.search(r"^ +([\d–]+) .* ([\d.]+) % +([\d.]+) %$", line) for line in lines]
    known = [row.groups() for row in rows if row]
    assert [row[0] for row in known][-3:] == ["64–79", "80–127", "128–200"]
    assert sum(float(row[1]) for row in known) == pytest.approx(100 * result.share[-1], abs=0.6)
    cut = next(i for i, line in enumerate(lines) if "truncated at 80 business days" in line)
    assert lines[cut - 1].split()[0] == "64–79"
    assert lines[cut + 1].split()[0] == "80–127"
    assert f"{100 * result.beyond:.1f} % of the gradient lies beyond" in lines[cut]
    reach = result.reach
    assert f"50 % within {reach[0.5]}, 90 % within {reach[0.9]}" in " ".join(lines)
    assert lines[-2].startswith("healthy: The gradient reaches")


def test_bars_are_logarithmic() -> None:
    result = examination(
        norms=[10.0 ** -(k // 64) for k in range(201)], share=[1.0] * 201, cut=None
    )
    lines = drawn(result)
    lengths = {line.split()[0]: line.count("█") for line in lines if "█" in line}
    full = lengths["0"]
    scale = next(line for line in lines if "logarithmic" in line)
    decades = int(scale[scale.index("⁻") + 1].translate(str.maketrans("¹²³⁴⁵⁶⁷⁸⁹", "123456789")))
    assert lengths["32–63"] == full
    assert lengths["64–79" if "64–79" in lengths else "64–127"] == pytest.approx(
        full * (1 - 1 / decades), abs=1
    )


def test_what_is_not_known_is_said() -> None:
    reach = {0.5: 90, 0.9: None, 0.95: None, 0.99: None}
    lines = " ".join(drawn(examination(cut=None, reach=reach)))
    assert "truncated" not in lines
    assert "50 % within 90; 90 %, 95 %, 99 % beyond 200" in lines
    far = " ".join(drawn(examination(k2=500, beyond=None)))
    assert "truncated at 500 business days: what lies beyond is older than" in far
    nothing = examination(norms=[0.0] * 201, share=[1.0] * 201)
    assert any("there is no gradient" in line for line in drawn(nothing))
    assert not any("█" in line for line in drawn(nothing))
