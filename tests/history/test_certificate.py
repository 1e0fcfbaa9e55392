"""The history certificate on processes whose memory is known, and its command."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.small_runs import write_series

import throughtime as tt
from throughtime.cli import main
from throughtime.data import synthetic
from throughtime.data.domain import Domain
from throughtime.errors import RunError, SettingError
from throughtime.history import Certificate, Lags, Point
from throughtime.history.picture import HEIGHT, picture

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("family", "wins", "limit"),
    [
        ("hmm", True, 20),
        pytest.param("garch", True, 60, marks=pytest.mark.slow),
        pytest.param("ar", False, 60, marks=pytest.mark.slow),
    ],
)
def test_the_decision_for_a_latent_state(family: str, wins: bool, limit: float) -> None:
    length = synthetic.LENGTH if family == "ar" else synthetic.LONGER
    sample = synthetic.FAMILIES[family](1, length=length)
    result = tt.history.certificate(sample.data, time_limit=limit, seed=0)
    assert result.order_matters
    assert result.latent_gain.wins == wins, result.verdict
    if wins:
        assert result.latent_gain.interval is not None
        assert result.latent_gain.interval[0] > 0
        assert result.lags.model == result.latent_gain.model
        assert "A finite order is not enough" in result.verdict
    else:
        assert result.lags == result.finite_order
        assert result.recommendation.order == sample.lags
        assert "A finite order is enough" in result.verdict


# --------------------------------------------------------------------------- all kinds of data


def kinds() -> dict[str, Any]:
    source = np.random.default_rng(3)
    walk = np.exp(source.normal(0, 0.01, 500).cumsum())
    gaps = source.normal(size=(400, 1))
    gaps[source.uniform(size=400) < 0.1] = np.nan
    return {
        "text": ["the cat sat on the mat and the dog sat on the cat " * 12],
        "names": ["anna", "bella", "hannah", "otto", "bob", "eve"] * 40,
        "prices": [torch.from_numpy(walk)],
        "columns": [torch.from_numpy(source.normal(size=(400, 3)).cumsum(0) % 5)],
        "many columns": [torch.from_numpy(source.normal(size=(300, 12)))],
        "gaps": [torch.from_numpy(gaps)],
        "binary": [torch.from_numpy((source.uniform(size=(400, 1)) < 0.5).astype(float))],
        "rolls": [torch.from_numpy((source.uniform(size=(300, 4)) < 0.3).astype(float))],
        "short": [torch.from_numpy(source.normal(size=30))],
    }


@pytest.mark.parametrize("kind", kinds())
def test_every_kind_of_data_gets_a_certificate(kind: str) -> None:
    result = tt.history.certificate(tt.Sequences.of(kinds()[kind]), time_limit=4, seed=1)
    check_schema(result)
    assert bool(result.order_matters) == result.order_matters.matters


def check_schema(certificate: Certificate) -> None:
    """Finite plain values, from which the certificate comes back; settings that make sense."""
    result = certificate.to_json()
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    back = Certificate.from_json(result)
    assert back.to_json() == result
    assert back == replace(certificate, seconds=back.seconds)
    for name in ("lags", "finite_order"):
        points = result[name]["curve"]
        assert points[0]["lags"] == 0
        assert points[0]["gain"] == 0
        assert all(math.isfinite(point["nats"]) for point in points)
    advice = result["recommendation"]
    assert 1 <= advice["k1"] <= advice["k2"]
    assert advice["bptt"] == f"{advice['k1']},{advice['k2']}"
    assert advice["dense"] <= advice["order"]
    assert 0 < result["order_matters"]["p_value"] <= 1
    assert all(value > 0 for value in result["steps"].values())
    assert result["verdict"].endswith(".")
    assert max(map(len, picture(certificate))) <= 80


def test_sound_gets_a_certificate() -> None:
    result = tt.history.certificate("demo:sound", time_limit=6)
    check_schema(result)
    assert result.order_matters


def test_a_memory_beyond_the_truncation_is_named() -> None:
    """A lag of 120 steps is more than the 80 that networks on symbols reach by themselves."""
    source = np.random.default_rng(4)
    x = source.integers(0, 4, 3000)
    x[120:][source.uniform(size=2880) < 0.8] = -1
    for t in range(120, 3000):
        x[t] = x[t - 120] if x[t] < 0 else x[t]
    data = tt.Sequences.of([torch.from_numpy(x)], Domain("symbols", num_symbols=4))
    result = tt.history.certificate(data, time_limit=20)
    assert result.lags.needed == 120
    assert result.recommendation.beyond_default
    assert result.recommendation.k2 - result.recommendation.k1 >= 120
    assert "longer than the default truncation of 80" in result.verdict


def test_the_test_part_of_a_fit_is_never_seen() -> None:
    class Parts:
        def __init__(self, train: tt.Sequences, valid: tt.Sequences) -> None:
            self.train, self.valid = train, valid

        @property
        def test(self) -> tt.Sequences:
            raise AssertionError("the test part was looked at")

    train, valid, _ = synthetic.autoregression(0).data.split()
    result = tt.history.certificate_of(Parts(train, valid), time_limit=8, seed=0)
    assert result.lags.needed == 8
    assert result.steps.test == valid.steps


def test_the_same_seed_and_limit_give_the_same_bits() -> None:
    """On data that a network wins, whatever the global generator says."""
    source = np.random.default_rng(5)
    flips = source.uniform(size=(600, 4)) < 0.2
    data = tt.Sequences.of([torch.from_numpy((flips.cumsum(0) % 2).astype(float))])
    result = []
    for noise in (1, 2):
        torch.manual_seed(noise)
        before = torch.get_rng_state()
        certificate = tt.history.certificate(data, time_limit=6, seed=3)
        assert torch.equal(torch.get_rng_state(), before)
        result.append(replace(certificate, seconds=None))
    assert result[0].order_matters
    assert result[0].latent_gain.passes is not None
    assert result[0].latent_gain.wins
    assert result[0] == result[1]


def test_a_network_that_beats_the_rest_is_named() -> None:
    certificate = tt.history.certificate(synthetic.iid(0).data, time_limit=4)
    points = (Point(0, 1.0, 0.2, None), Point(9, 0.8, 0.0, None))
    extended = replace(certificate, network=Lags(9, "gru", points))
    assert extended.verdict == (
        f"{certificate.verdict} The network gru beats the finite order; its state makes use of "
        "9 steps of the past."
    )
    assert certificate.to_json()["network"] is None
    assert extended.to_json()["network"]["curve"][1]["gain"] == pytest.approx(0.2)
    assert Certificate.from_json(extended.to_json()).network == extended.network


def test_a_misspelt_option_is_one_line() -> None:
    with pytest.raises(SettingError, match="certificate has no option 'time_limt'; did you mean"):
        tt.history.certificate(synthetic.iid(0).data, time_limt=4)


def test_what_is_no_certificate_is_an_error() -> None:
    result = tt.history.certificate(synthetic.iid(0).data, time_limit=4).to_json()
    with pytest.raises(RunError, match="schema 1, not 2"):
        Certificate.from_json(result | {"schema": 1})
    with pytest.raises(RunError, match=r"no certificate: lags\.needed"):
        Certificate.from_json(result | {"lags": {"model": "a", "curve": []}})


# ---------------------------------------------------------------------------------- the command


def test_history_prints_a_picture_and_a_verdict(here: Path, capsys: Capture) -> None:
    x = synthetic.autoregression(1, length=1200).data.values[:, 0].numpy()
    write_series(Path("sales.csv"), x.round(4))
    main(["history", "sales.csv", "--value", "price", "--time-limit", "20"])
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("nats per day above the best, by lags seen")
    assert sum("┤" in line for line in lines) == HEIGHT
    assert any("▲ 6 needed" in line for line in lines)
    text = " ".join(lines)
    assert "Order matters" in text
    assert "lags carry" in text


def test_history_json(here: Path, capsys: Capture) -> None:
    from support.documentation import documented, fields

    Path("noise.txt").write_text(
        "".join("ab"[i] for i in np.random.default_rng(0).integers(0, 2, 900))
    )
    main(["history", "noise.txt", "--time-limit", "10", "--json"])
    printed = capsys.readouterr().out
    assert printed.count("\n") == 1
    result = json.loads(printed)
    assert fields(result) == documented("history")
    check_schema(Certificate.from_json(result))
    assert not result["order_matters"]["matters"]
    assert "Order does not matter" in result["verdict"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing.csv"], 1, "nothing.csv"),
        (["sales.csv", "--value", "sold"], 1, "sold"),
        (["flat.csv", "--value", "price"], 1, "is 1 at every step of the training part"),
        (["sales.csv", "--value", "price", "--time-limit", "soon"], 2, "time limit 'soon'"),
        (["sales.csv", "--value", "price", "--time-limit", "1s"], 2, "--time-limit 1"),
    ],
)
def test_bad_input_is_one_clear_line(
    fails: Any, here: Path, arguments: list[str], code: int, message: str
) -> None:
    write_series(Path("sales.csv"), np.random.default_rng(0).normal(size=80).round(3))
    write_series(Path("flat.csv"), [1.0] * 80)
    assert message in fails("history", *arguments, code=code)
