"""The history certificate on processes whose memory is known, its parts, and its command."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from support.profiles import examples
from support.small_runs import write_series

import throughtime as tt
from throughtime.cli import main
from throughtime.data import synthetic
from throughtime.data.domain import Domain
from throughtime.history import hidden, lag_scan, leaky
from throughtime.history.lag_selection import Point, Pool, curve, explore, sufficient
from throughtime.history.parts import Part
from throughtime.history.permutation_test import in_blocks, order_matters
from throughtime.history.picture import HEIGHT, picture
from throughtime.history.symbols import Symbols, ngram_distribution
from throughtime.history.values import Values

Capture = pytest.CaptureFixture[str]


def targets(data: tt.Sequences) -> tuple[Part, Part, Part]:
    """Three fifths to learn from, a fifth each to choose and to judge by."""
    if not data.domain.integer:
        data = data.transform(["standardise"])
    learn, choose, judge = data.split(valid=0.2, test=0.2)
    return Part.of(learn), Part.of(choose), Part.of(judge)


def pool_of(data: tt.Sequences) -> Pool:
    """The windows tried on some data, of the kind that does best."""
    learn, choose, judge = targets(data)
    kinds: list[Any]
    if data.domain.integer:
        kinds = [Symbols(learn, int(data.domain.num_symbols or 0), 6)]
    else:
        kinds = [Values(learn, "linear"), Values(learn, "additive")]
    pools = [explore(family, choose, judge, lambda about: None) for family in kinds]
    return min(pools, key=lambda pool: pool.score)


# ------------------------------------------------------------------------------ lags, by family


@pytest.mark.parametrize("seed", [0, 5])
@pytest.mark.parametrize("family", ["ar", "markov", "copy", "seasonal", "chaotic"])
def test_the_lags_needed_are_found(family: str, seed: int) -> None:
    sample = synthetic.FAMILIES[family](seed)
    points, needed = curve(pool_of(sample.data), seed)
    assert abs(needed - sample.lags) <= 0.2 * sample.lags, sample.about
    assert [point.lags for point in points] == sorted({point.lags for point in points})
    assert min(point.lost for point in points) == 0


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("family", ["iid", "shuffled", "ar", "copy", "hmm", "garch"])
def test_order_is_judged_rightly(family: str, seed: int) -> None:
    length = synthetic.LONGER if family in ("hmm", "garch") else synthetic.LENGTH
    sample = synthetic.FAMILIES[family](seed, length=length)
    window = pool_of(sample.data).best(least=1)
    found = order_matters(
        window.distribution(), window.family.fit(0), window.reach, window.held[1], "", seed, 60
    )
    assert bool(found) == sample.order_matters
    if sample.order_matters:
        assert found.p_value == 1 / (found.permutations + 1)
        assert found.interval is not None
        assert 0 < found.interval[0] < found.gain < found.interval[1]
        assert found.over_shuffled > found.gain


def test_the_permutation_test_holds_its_level() -> None:
    """p-values on independent steps are uniform, however badly the distribution was chosen."""
    source = np.random.default_rng(0)
    data = tt.Sequences.of([torch.from_numpy(source.normal(size=200) ** 3)])
    family = Values(Part.of(data), "additive")
    distribution = family.fit(4)  # overfitted to few, heavy-tailed steps
    chances = []
    for seed in range(40):
        fresh = tt.Sequences.of([torch.from_numpy(source.normal(size=60) ** 3)])
        found = order_matters(distribution, family.fit(0), 4, Part.of(fresh), "", seed, 60)
        chances.append(found.p_value)
    assert stats.kstest(chances, "uniform").pvalue > 0.01
    assert np.mean(np.array(chances) <= 0.05) <= 0.15


@examples(40)
@given(count=st.integers(2, 60), block=st.integers(1, 30), seed=st.integers(0, 2**31))
def test_shuffled_blocks_are_a_reordering_that_leaves_none_in_place(
    count: int, block: int, seed: int
) -> None:
    order = in_blocks(count, block, seed)
    assert sorted(order.tolist()) == list(range(count))
    if 2 * block <= count and count % block == 0:
        assert not (order == np.arange(count)).any()


# ----------------------------------------------------------------------------------- latent states


@pytest.mark.parametrize(("family", "wins"), [("hmm", True), ("garch", True), ("ar", False)])
def test_the_decision_for_a_latent_state(family: str, wins: bool) -> None:
    length = synthetic.LENGTH if family == "ar" else synthetic.LONGER
    sample = synthetic.FAMILIES[family](1, length=length)
    found = tt.history.certificate(sample.data, time_limit=60, seed=0)
    assert found.order_matters
    assert found.latent_gain.wins == wins, found.verdict
    if wins:
        assert found.latent_gain.interval is not None
        assert found.latent_gain.interval[0] > 0
        assert found.lags.model == found.latent_gain.model
        assert "A finite window is not enough" in found.verdict
    else:
        assert found.lags == found.windows
        assert found.settings.order == sample.lags
        assert "A finite window is enough" in found.verdict


def test_a_hidden_chain_is_the_exact_filter() -> None:
    """Its nats are those of the sum over all paths of states."""
    chain = hidden.HiddenChain(
        np.array([0.3, 0.7]), np.array([[0.9, 0.1], [0.2, 0.8]]), np.array([[0.6, 0.4], [0.1, 0.9]])
    )
    symbols = [0, 1, 1, 0, 1]
    part = Part.of(tt.Sequences.of([torch.tensor(symbols)], Domain("symbols", num_symbols=2)))
    total = 0.0
    for path in range(2**5):
        states = [path >> i & 1 for i in range(5)]
        p = chain.begin[states[0]]
        for before, after in itertools.pairwise(states):
            p *= chain.move[before, after]
        total += p * np.prod([chain.emit[h, x] for h, x in zip(states, symbols, strict=True)])
    assert chain.nats(part).sum() == pytest.approx(-math.log(total), rel=1e-12)
    whole = chain.restarted(part, np.array([4]), 4)
    assert whole == pytest.approx(chain.nats(part)[4:], rel=1e-12)
    alone = -math.log(float(chain.begin @ chain.emit[:, 1]))
    assert chain.restarted(part, np.array([4]), 0) == pytest.approx([alone])


def test_em_finds_the_chain_and_never_gets_worse() -> None:
    sample = synthetic.hidden_markov(0, length=3000)
    part = Part.of(sample.data)
    chain = hidden.fitted(part, 6, 3, seed=0)
    for distribution in (chain.begin, chain.move, chain.emit):
        assert distribution.sum(-1) == pytest.approx(np.ones(distribution.shape[:-1]))
    count = np.bincount(sample.data.values.numpy(), minlength=6) / len(part)
    alone = -(count * np.log(count)).sum()
    assert chain.nats(part).mean() < alone - 0.05
    lanes, known = hidden._lanes(part)
    rounds = [hidden.HiddenChain(np.full(3, 1 / 3), np.full((3, 3), 1 / 3), chain.emit[::-1])]
    nats = []
    for _ in range(8):
        better, before = hidden._one_round(rounds[-1], lanes, known)
        rounds.append(better)
        nats.append(before)
    assert all(after <= before + 1e-3 for before, after in itertools.pairwise(nats))


def test_leaky_averages_are_what_they_say() -> None:
    source = np.random.default_rng(0)
    x = source.normal(size=(2, 30))
    data = tt.Sequences.of([torch.from_numpy(row) for row in x])
    part = Part.of(data)
    for steps in (None, 7):
        found = leaky._averages(part, part.values[:, 0], 5.0, steps)
        for i, half in enumerate(leaky.HALF_LIVES):
            keep = 0.5 ** (1 / half)
            for target in (0, 1, 12, 29, 30, 45):
                row, t = divmod(target, 30)
                past = x[row, max(0, t - (steps or 30)) : t][::-1]
                weights = keep ** np.arange(len(past))
                expected = (1 - keep) * past @ weights + keep ** len(past) * 5.0
                assert found[target, i] == pytest.approx(expected, rel=1e-9)


# ----------------------------------------------------------------------- distributions and the scan


@pytest.mark.parametrize("shape", ["linear", "additive"])
def test_distribution_of_values_are_most_likely(shape: str) -> None:
    """Nothing near the weights found is better, and the distribution integrates to one."""
    source = np.random.default_rng(1)
    x = source.standard_t(5, size=(600, 2))
    x[3:, 0] += 0.6 * x[:-3, 1]
    part = Part.of(tt.Sequences.of([torch.from_numpy(x)]).transform(["standardise"]))
    distribution = Values(part, shape).fit(3)
    best = distribution.nats(part).mean()
    assert best < Values(part, shape).fit(0).nats(part).mean() - 0.05
    for column in distribution.columns:
        for weights in (column.location, column.scale):
            for i in range(0, len(weights), 5):
                kept = weights[i]
                for step in (-0.05, 0.05):
                    weights[i] = kept + step
                    assert distribution.nats(part).mean() > best - 1e-3
                weights[i] = kept


def test_distribution_of_symbols_sum_to_one_and_agree_with_the_ngram() -> None:
    sample = synthetic.copy(3, length=1500)
    part = Part.of(sample.data)
    family = Symbols(part, 6, 4)
    plain, far = family.fit(2), family.fit(1, (sample.lags,))
    for distribution in (plain, far):
        table = np.exp(distribution.log_distribution(part, slice(None)))
        assert table.sum(1) == pytest.approx(np.ones(len(part)))
        picked = -np.log(table[np.arange(len(part)), part.values])
        assert picked == pytest.approx(distribution.nats(part), rel=1e-9)
    expected = ngram_distribution(plain.ngram, 2, part, slice(None))
    assert np.exp(plain.log_distribution(part, slice(None))) == pytest.approx(expected)
    assert far.nats(part).mean() < plain.nats(part).mean() - 0.5


def test_the_scan_is_pearsons_test_and_holds_its_level() -> None:
    """At one lag its statistic is χ² of the table of pairs; noise is rarely taken for a lag."""
    source = np.random.default_rng(2)
    x = source.integers(0, 3, 400)
    part = Part.of(tt.Sequences.of([torch.from_numpy(x)], Domain("symbols", num_symbols=3)))
    table = np.zeros((3, 3))
    for now, then in zip(x[5:], x[:-5], strict=True):
        table[then, now] += 1
    one_hot = np.eye(3)[x]
    past, now = lag_scan._whitened(one_hot, part.rows), lag_scan._whitened(one_hot, None)
    size = ((past[:-5].T @ now[5:]) ** 2).sum() / len(x[5:])
    assert size == pytest.approx(stats.chi2_contingency(table).statistic, rel=0.1)
    hits = 0
    for seed in range(60):
        z = np.random.default_rng(seed).normal(size=(300, 1))
        noise = Part.of(tt.Sequences.of([torch.from_numpy(z)]))
        hits += lag_scan.strongest(z, z, noise, range(1, 100)) is not None
    assert hits <= 4


def test_the_smallest_window_within_the_interval_is_enough() -> None:
    def point(lags: int, lost: float, low: float) -> Point:
        return Point(lags, 1.0 + lost, lost, (low, 2 * lost - low))

    points = [point(0, 0.5, 0.4), point(1, 0.1, 0.05), point(2, 0.02, -0.01), point(3, 0.0, 0.0)]
    assert sufficient(points) == 2
    assert sufficient([points[0], points[1], points[3]]) == 3
    close = point(1, 0.004, 0.001)  # significant, and less than a hundredth of what there is
    assert sufficient([points[0], close, points[3]]) == 1


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
    found = tt.history.certificate(tt.Sequences.of(kinds()[kind]), time_limit=4, seed=1)
    check_schema(found.to_json())
    assert bool(found.order_matters) == found.order_matters.matters


def check_schema(found: dict[str, Any]) -> None:
    """Finite plain values; the curve falls from no lags to the best; the settings make sense."""
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    for name in ("lags", "windows"):
        points = found[name]["curve"]
        assert points[0]["lags"] == 0
        assert points[0]["gain"] == 0
        assert all(math.isfinite(point["nats"]) for point in points)
    advice = found["settings"]
    assert 1 <= advice["k1"] <= advice["k2"]
    assert advice["bptt"] == f"{advice['k1']},{advice['k2']}"
    assert advice["dense"] <= advice["order"]
    assert 0 < found["order_matters"]["p_value"] <= 1
    assert all(value > 0 for value in found["steps"].values())
    assert found["verdict"].endswith(".")
    assert max(map(len, picture(found))) <= 80


def test_sound_gets_a_certificate() -> None:
    found = tt.history.certificate("demo:sound", time_limit=6)
    check_schema(found.to_json())
    assert found.order_matters


def test_a_memory_beyond_the_truncation_is_named() -> None:
    """A lag of 120 steps is more than the 80 that networks on symbols reach by themselves."""
    source = np.random.default_rng(4)
    x = source.integers(0, 4, 3000)
    x[120:][source.uniform(size=2880) < 0.8] = -1
    for t in range(120, 3000):
        x[t] = x[t - 120] if x[t] < 0 else x[t]
    data = tt.Sequences.of([torch.from_numpy(x)], Domain("symbols", num_symbols=4))
    found = tt.history.certificate(data, time_limit=20)
    assert found.lags.needed == 120
    assert found.settings.beyond_default
    assert found.settings.k2 - found.settings.k1 >= 120
    assert "longer than the default truncation of 80" in found.verdict


def test_the_test_part_of_a_fit_is_never_seen() -> None:
    class Parts:
        def __init__(self, train: tt.Sequences, valid: tt.Sequences) -> None:
            self.train, self.valid = train, valid

        @property
        def test(self) -> tt.Sequences:
            raise AssertionError("the test part was looked at")

    train, valid, _ = synthetic.autoregression(0).data.split()
    found = tt.history.certificate_of(Parts(train, valid), time_limit=8, seed=0)
    assert found.lags.needed == 8
    assert found.steps[2] == valid.steps


def test_the_same_seed_gives_the_same_answers() -> None:
    data = synthetic.iid(0).data
    a, b = (tt.history.certificate(data, time_limit=30, seed=3).to_json() for _ in range(2))
    a.pop("seconds"), b.pop("seconds")
    assert a == b


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
    found = json.loads(printed)
    assert fields(found) == documented("history")
    check_schema(found)
    assert not found["order_matters"]["matters"]
    assert "Order does not matter" in found["verdict"]


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
