"""Splits and forecast origins: nothing is lost, shuffled or seen too early."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from throughtime.data.sequences import Sequences
from throughtime.errors import DataError, SettingError


def series(*lengths: int, times: list[list[int]] | None = None) -> Sequences:
    """Values count up over the set, so that each step can be told apart."""
    total = sum(lengths)
    return Sequences(
        torch.arange(total, dtype=torch.float64)[:, None],
        torch.tensor([0, *lengths]).cumsum(0),
        names=tuple(f"s{i}" for i in range(len(lengths))),
        times=None if times is None else np.concatenate([np.array(t) for t in times]),
    )


def scored_values(s: Sequences) -> list[float]:
    return s.values[s.scored(), 0].tolist()


@given(
    st.lists(st.integers(20, 60), min_size=1, max_size=4),
    st.sampled_from([0.1, 0.2, 0.25]),
    st.sampled_from([0.1, 0.3]),
    st.integers(0, 1),
)
def test_by_time_keeps_order_and_loses_only_the_gap(
    lengths: list[int], valid: float, test: float, gap: int
) -> None:
    s = series(*lengths)
    parts = s.split(valid, test, by="time", gap=gap)
    for i, n in enumerate(lengths):
        pieces = [scored_values(part[i]) for part in parts]
        whole = s.sequence(i)[:, 0].tolist()
        assert sorted(chain(*pieces)) == list(chain(*pieces))
        assert pieces[0][0] == whole[0]
        assert pieces[2][-1] == whole[-1]
        assert pieces[1][0] - pieces[0][-1] == 1 + gap
        assert pieces[2][0] - pieces[1][-1] == 1 + gap
        assert len(pieces[0]) == int(n * (1 - valid - test) + 1e-6)
        # Everything before a part is its past, the gap included.
        for part in parts[1:]:
            assert part[i].values[:, 0].tolist() == whole[: len(part[i].values)]
        assert parts[0][i].starts.tolist() == [0]


def test_same_instants_for_series_that_share_time_stamps() -> None:
    # The second series begins late, the third ends early.
    s = series(10, 6, 5, times=[list(range(10)), list(range(4, 10)), list(range(5))])
    train, valid, test = s.split(0.2, 0.2, by="time")
    assert train.names == ("s0", "s1", "s2")
    assert valid.names == test.names == ("s0", "s1")
    for part, begin, stop in ((train, 0, 6), (valid, 6, 8), (test, 8, 10)):
        assert part.times is not None
        at = part.times[part.scored().numpy()]
        assert (at.min(), at.max()) == (begin if part is not train else 0, stop - 1)
    assert train.notes == valid.notes
    assert any("1 of 3 series has no steps in the validation part" in n for n in valid.notes)
    # Without shared stamps each series is cut at its own fractions instead.
    alone = series(10, 10, times=[list(range(10)), list(range(100, 110))])
    assert alone.split(0.2, 0.2, by="time")[2].lengths.tolist() == [10, 10]


def test_by_sequence_is_in_file_order() -> None:
    s = series(*[3] * 10)
    train, valid, test = s.split(0.2, 0.1, by="sequence")
    assert train.names == tuple(f"s{i}" for i in range(7))
    assert valid.names == ("s7", "s8")
    assert test.names == ("s9",)
    assert valid.starts.tolist() == [0, 0]


@given(st.integers(10, 400))
def test_spread_is_a_partition_without_runs(count: int) -> None:
    s = series(*[2] * count)
    parts = s.split(0.1, 0.1, by="spread")
    rows = [[int(name[1:]) for name in part.names] for part in parts]
    assert sorted(chain(*rows)) == list(range(count))
    assert all(part == sorted(part) for part in rows)
    assert len(rows[0]) == int(count * 0.8 + 1e-6)
    test = rows[2]
    # Each tenth of the file gives about its share: never more than three of ten neighbours.
    assert all(sum(a <= i < a + 10 for i in test) <= 3 for a in range(count))


def test_auto() -> None:
    assert series(*[3] * 100).split()[2].names != series(*[3] * 100).names
    assert series(200, 300).split()[2].names == ("s0", "s1")
    one_long = series(1000, *[20] * 60)
    assert len(one_long.split()[2]) == 61
    linked = series(*[20] * 60, times=[list(range(20))] * 60)
    assert len(linked.split()[2]) == 60


def test_zero_fractions_give_empty_parts() -> None:
    train, valid, test = series(10, 10).split(0, 0.2, by="time")
    assert (train.steps, len(valid), valid.steps, test.steps) == (16, 0, 0, 4)
    train, valid, test = series(*[2] * 60).split(0.1, 0)
    assert (len(train), len(valid), len(test)) == (54, 6, 0)
    train, valid, test = series(10, 10, times=[list(range(10))] * 2).split(0.2, 0)
    assert (train.steps, valid.steps, len(test)) == (16, 4, 0)


def test_a_series_too_short_for_a_part_is_named_and_the_others_go_on() -> None:
    train, valid, test = series(50, 3).split(by="time")
    assert (len(train), len(valid), len(test)) == (2, 1, 2)
    assert any("1 of 2 series has no steps in the validation part: 's1'" in n for n in train.notes)


def test_splitting_a_part_again() -> None:
    _, valid, _ = series(100).split(0.4, 0.1, by="time")
    first, second, _ = valid.split(0.5, 0, by="time")
    assert scored_values(first) == [float(v) for v in range(50, 70)]
    assert scored_values(second) == [float(v) for v in range(70, 90)]


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: series(3).split(by="time"), DataError, "series 's0' has 3 steps.*validation"),
        (lambda: series(50).split(gap=10), DataError, "series 's0' has 50 steps.*gap=10"),
        (lambda: series(5, 5).split(by="sequence"), DataError, "2 sequences are too few"),
        (
            lambda: series(3, 3, times=[[0, 1, 2]] * 2).split(),
            DataError,
            "share 3 time stamps; the validation part",
        ),
        (lambda: series(9).split(0.5, 0.5), SettingError, "leave a training part"),
        (lambda: series(9).split(-0.1, 0.5), SettingError, "valid=-0.1"),
        (lambda: series(9).split(by="random"), SettingError, "'random'"),
        (lambda: series(9).split(gap=-1), SettingError, "gap=-1"),
        (lambda: series(9)[:0].split(), DataError, "no sequences"),
        (lambda: series(9).origins(9, 2), DataError, "horizon of 9: the longest has 9"),
        (lambda: series(9).origins(0, 2), SettingError, "horizon=0"),
    ],
)
def test_errors(call: object, error: type[Exception], words: str) -> None:
    assert callable(call)
    with pytest.raises(error, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_transformed_text_is_not_split_by_time() -> None:
    s = Sequences.of(["hello world, hello again"]).transform(["characters"])
    with pytest.raises(SettingError, match="split the raw text"):
        s.split(0.2, 0.2, by="time")


@given(st.lists(st.integers(1, 30), min_size=1, max_size=4), st.integers(1, 8), st.integers(1, 6))
def test_origins_roll(lengths: list[int], horizon: int, count: int) -> None:
    s = series(*lengths)
    if max(lengths) < horizon + 1:
        with pytest.raises(DataError):
            s.origins(horizon, count)
        return
    pairs = s.origins(horizon, count)
    ends: dict[str, list[int]] = {}
    for past, future in pairs:
        assert past.names == future.names
        for i, name in enumerate(past.names):
            whole = s.sequence(s.names.index(name))
            origin = int(future.starts[i])
            assert torch.equal(past.sequence(i), whole[:origin])
            assert torch.equal(future.sequence(i), whole[: origin + horizon])
            assert len(future.sequence(i)) == origin + horizon
            ends.setdefault(name, []).append(origin)
    for name, origins in ends.items():
        n = int(s.lengths[s.names.index(name)])
        assert origins == sorted(set(origins))
        assert origins[0] >= 1
        assert origins[-1] == n - horizon
        assert len(origins) == min(count, n - horizon)


def test_origins_stay_in_the_scored_part() -> None:
    _, _, test = series(100).split(0.1, 0.2, by="time")
    starts = [int(future.starts[0]) for _, future in test.origins(5, 4)]
    assert starts == [83, 87, 91, 95]
    assert min(starts) >= 80
