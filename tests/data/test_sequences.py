"""Sequences: construction, indexing, pasts, text sizes, fingerprints."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from throughtime.data.sequences import Domain, Sequences
from throughtime.errors import DataError, SettingError, VocabularyError

NAN = float("nan")


def ragged(lengths: list[int], starts: list[int] | None = None) -> Sequences:
    """Real sequences whose values count up over the whole set."""
    total = sum(lengths)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    return Sequences(
        torch.arange(total, dtype=torch.float64)[:, None],
        offsets,
        None if starts is None else torch.tensor(starts),
        times=np.arange(total),
        covariates=torch.arange(total, dtype=torch.float64)[:, None] * 2,
        names=tuple(f"s{i}" for i in range(len(lengths))),
    )


def test_of_integers_are_symbols() -> None:
    s = Sequences.of([torch.tensor([0, 3, 1]), [2]])
    assert s.domain == Domain("symbols", num_symbols=4)
    assert s.values.dtype == torch.int64
    assert s.values.tolist() == [0, 3, 1, 2]
    assert s.offsets.tolist() == [0, 3, 4]
    assert s.starts.tolist() == [0, 0]
    assert (len(s), s.steps, s.lengths.tolist()) == (2, 4, [3, 1])
    assert s.identity.tolist() == [-1, -1]


def test_of_floats_get_a_column_axis() -> None:
    s = Sequences.of([torch.rand(5), np.ones(2)], names=["a", "b"])
    assert s.values.shape == (7, 1)
    assert s.values.dtype == torch.float64
    assert (s.domain.kind, s.domain.columns, s.names) == ("real", ("value",), ("a", "b"))
    assert Sequences.of([torch.rand(5, 2)]).domain.columns == ("value0", "value1")


def test_of_strings_are_text() -> None:
    s = Sequences.of(["aé€😀", "b"])
    assert s.domain.kind == "text"
    assert s.values.tolist() == [0x61, 0xE9, 0x20AC, 0x1F600, 0x62]
    assert s.sizes["characters"].tolist() == [4, 1]
    assert s.sizes["bytes"].tolist() == [1 + 2 + 3 + 4, 1]


@pytest.mark.parametrize(
    ("parts", "error", "words"),
    [
        ([], DataError, "empty"),
        ([torch.zeros(0)], DataError, "sequence '0'"),
        ([torch.zeros(2, 2, 2)], DataError, r"\[2, 2, 2\]"),
        ([torch.zeros(2), torch.tensor([1, 2])], DataError, "differ"),
        ([torch.zeros(2, 1), torch.zeros(2, 3)], DataError, "differ"),
        ([torch.zeros(2), torch.tensor([1.0, float("inf")])], DataError, "series '1', step 1"),
        ([torch.tensor([0, -1])], VocabularyError, "series '0', step 1: the symbol -1"),
        (torch.zeros(3), DataError, "list"),
        ([["a", "b"]], DataError, "sequence 0"),
    ],
)
def test_of_refuses(parts: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        Sequences.of(parts)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_symbols_outside_the_domain_are_refused() -> None:
    with pytest.raises(VocabularyError, match=r"series 'b', step 1: the symbol 5 .* 0 to 4"):
        Sequences.of([[0, 1], [1, 5]], Domain("symbols", num_symbols=5), names=["a", "b"])


@pytest.mark.parametrize(
    "change",
    [
        {"offsets": torch.tensor([0, 9])},
        {"offsets": torch.tensor([0, 4, 2, 5])},
        {"starts": torch.tensor([0, 3])},
        {"starts": torch.tensor([-1, 0])},
        {"names": ("a",)},
        {"times": np.arange(4)},
        {"covariates": torch.zeros(6, 1)},
        {"log_det": torch.zeros(3)},
        {"values": torch.zeros(5, 1)},
        {"values": torch.zeros(5, 2, dtype=torch.float64)},
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, object]) -> None:
    s = ragged([3, 2])
    with pytest.raises(DataError):
        dataclasses.replace(s, **change)


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ragged([2]).notes = ("x",)  # type: ignore[misc]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=6), st.data())
def test_indexing_agrees_with_a_list(lengths: list[int], data: st.DataObject) -> None:
    starts = [data.draw(st.integers(0, n)) for n in lengths]
    s = ragged(lengths, starts)
    count = len(lengths)
    begin = data.draw(st.integers(-count - 1, count + 1))
    stop = data.draw(st.integers(-count - 1, count + 1))
    stride = data.draw(st.sampled_from([1, 2, -1]))
    index = data.draw(st.lists(st.integers(-count, count - 1), max_size=8))
    mask = torch.tensor(data.draw(st.lists(st.booleans(), min_size=count, max_size=count)))
    everyone = list(range(count))
    for which, expected in (
        (slice(begin, stop, stride), everyone[begin:stop:stride]),
        (index, [everyone[i] for i in index]),
        (torch.tensor(index, dtype=torch.int64), [everyone[i] for i in index]),
        (mask, [i for i in everyone if mask[i]]),
    ):
        part = s[which]
        assert part.names == tuple(f"s{i}" for i in expected)
        assert part.starts.tolist() == [starts[i] for i in expected]
        assert part.lengths.tolist() == [lengths[i] for i in expected]
        for k, i in enumerate(expected):
            assert torch.equal(part.sequence(k), s.sequence(i))
        assert part.times is not None
        assert part.times.tolist() == part.values[:, 0].tolist()
        assert part.covariates is not None
        assert torch.equal(part.covariates, part.values * 2)
    for i, single in enumerate(s):
        assert len(single) == 1
        assert torch.equal(single.values, s.sequence(i))
        assert torch.equal(s[i - count].values, s.sequence(i))


def test_neighbouring_sequences_share_memory() -> None:
    s = ragged([4, 3, 2])
    assert s[1].values.data_ptr() == s.sequence(1).data_ptr()
    assert s[1:3].values.data_ptr() == s.sequence(1).data_ptr()


def test_index_errors() -> None:
    s = ragged([2, 2])
    with pytest.raises(IndexError):
        s[2]
    with pytest.raises(IndexError):
        s.sequence(-3)
    with pytest.raises(SettingError):
        s[torch.tensor([True])]
    with pytest.raises(SettingError):
        s[torch.tensor([0.5])]


def test_scored_leaves_out_past_and_missing() -> None:
    values = torch.tensor([[1.0, 1], [2, NAN], [3, 3], [4, 4], [NAN, NAN], [6, 6]]).double()
    s = Sequences(values, torch.tensor([0, 3, 6]), torch.tensor([0, 1]))
    assert s.missing.tolist() == [False, True, False, False, True, False]
    assert s.scored().tolist() == [True, False, True, False, False, True]
    assert s.steps == 3


def test_identity() -> None:
    s = ragged([1, 1, 1])
    assert s.with_identity(["s2", "s0"]).identity.tolist() == [1, -1, 0]
    assert s.with_identity(["s2", "s0"])[2].identity.tolist() == [0]


def test_fingerprint_sees_what_matters() -> None:
    s = ragged([4, 3])
    same = ragged([4, 3])
    assert s.fingerprint() == same.fingerprint()
    assert len(s.fingerprint()) == 64
    values = s.values.clone()
    values[3] += 1e-12
    assert s.times is not None
    different = [
        dataclasses.replace(s, values=values),
        dataclasses.replace(s, offsets=torch.tensor([0, 3, 7])),
        dataclasses.replace(s, starts=torch.tensor([1, 0])),
        dataclasses.replace(s, times=s.times + 1),
        dataclasses.replace(s, names=("a", "b")),
        dataclasses.replace(s, covariates=None),
        s.transform(["difference"]),
        s[0],
    ]
    prints = {s.fingerprint(), *(d.fingerprint() for d in different)}
    assert len(prints) == 1 + len(different)
    # A NaN is a NaN, whatever its bits; and notes are for people.
    one = Sequences.of([torch.tensor([NAN, 0.0]).double()])
    two = Sequences.of([torch.tensor([-NAN, -0.0]).double()]).with_notes("read")
    assert one.fingerprint() == two.fingerprint()


def test_repr_says_what_it_is() -> None:
    times = np.array(["2020-01-01", "2020-01-02", "2020-01-03"], dtype="datetime64[us]")
    s = Sequences(
        torch.tensor([[1.0], [2.0], [NAN]]).double(),
        torch.tensor([0, 3]),
        torch.tensor([1]),
        Domain("real", columns=("close",), step="day"),
        ("prices",),
        times,
    )
    text = repr(s)
    for part in ("real", "1 sequence;", "1 scored days", "1 past", "1 missing", "close"):
        assert part in text
    assert "2020-01-01 to 2020-01-03" in text
    assert "\n" not in text
    assert "after log" in repr(s.transform(["log"]))


def test_domain_json() -> None:
    d = Domain("sound", columns=("left",), sample_rate=8000.0, step="sample")
    assert Domain.from_json(d.to_json()) == d
    with pytest.raises(DataError):
        Domain.from_json({"kind": "real", "colour": 1})
    with pytest.raises(SettingError):
        Domain("symbols")
    with pytest.raises(SettingError):
        Domain("video")
