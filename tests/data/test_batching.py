"""Lanes: every scored step once, true predecessors, honest resets, full lanes, quick slices."""

from __future__ import annotations

import dataclasses
import io
import tarfile
import wave
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.paths import SHARED
from support.profiles import examples
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from throughtime.data.batching import Batch, Lanes
from throughtime.data.sequences import Domain, Sequences
from throughtime.errors import SettingError

RECORDINGS = SHARED / "sound/fsdd_recordings.tar.gz"


def counting(lengths: list[int], starts: list[int] | None = None, offset: int = 0) -> Sequences:
    """Symbols that are all different, so that each can be traced."""
    total = sum(lengths)
    return Sequences(
        torch.arange(total) + offset,
        torch.tensor([0, *lengths]).cumsum(0),
        None if starts is None else torch.tensor(starts),
        Domain("symbols", num_symbols=max(1, total + offset)),
    )


def generator(seed: int | None) -> torch.Generator | None:
    return None if seed is None else torch.Generator().manual_seed(seed)


def check_lanes(
    s: Sequences, lanes: Lanes, past: int | None = None, segment: int | None = None
) -> None:
    """Everything that must hold of any pass, read lane by lane from the gathered batch."""
    batch = lanes[:]
    real = batch.index >= 0
    # Each scored step exactly once, and nothing else with weight.
    counts = torch.bincount(batch.index[batch.weight > 0], minlength=len(s.values))
    assert torch.equal(counts, s.scored().long())
    assert bool(((batch.weight == 0) | (batch.weight == 1)).all())
    heads = set(s.offsets[:-1][s.lengths > 0].tolist())
    first_scored = (s.offsets[:-1] + s.starts).tolist()
    rows = s.rows
    for b in range(lanes.num_lanes):
        index = batch.index[:, b]
        length = int(real[:, b].sum())
        assert bool((index[:length] >= 0).all())  # padding only at the end
        since = 0
        for t in range(length):
            i = int(index[t])
            reset, start = bool(batch.reset[t, b]), bool(batch.start[t, b])
            assert start == (i in heads)
            assert reset or not start
            follows = t > 0 and int(index[t - 1]) == i - 1 and rows[i] == rows[i - 1]
            assert follows or reset
            if not follows and i in heads:
                assert start
            since = 0 if reset else since
            scored_from = first_scored[int(rows[i])]
            since += i >= scored_from
            if i < scored_from:  # a past leads up to its first scored step
                assert t + 1 < length
                assert index[t + 1] == i + 1
            assert segment is None or since <= segment
            assert past is None or i >= scored_from - past
            if not start:
                assert torch.equal(batch.previous[t, b], batch.x[t, b] - 1)
            assert torch.equal(batch.x[t, b], s.values[i])
    padding = ~real
    assert not bool((batch.start | batch.reset)[padding].any())
    assert not bool(batch.x[padding].any() or batch.weight[padding].any())
    assert not bool(batch.previous[batch.start].any())


@st.composite
def ragged(draw: Any) -> Sequences:
    lengths = draw(st.lists(st.integers(0, 25), max_size=12))
    starts = [draw(st.integers(0, n)) for n in lengths]
    return counting(lengths, starts)


@examples(200)
@given(
    ragged(),
    st.integers(1, 6),
    st.none() | st.integers(1, 9),
    st.none() | st.integers(0, 99),
    st.none() | st.integers(0, 5),
)
def test_every_pass_is_sound(
    s: Sequences, num_lanes: int, segment: int | None, seed: int | None, past: int | None
) -> None:
    lanes = Lanes(s, num_lanes, segment, generator(seed), past=past)
    check_lanes(s, lanes, past, segment)
    again = Lanes(s, num_lanes, segment, generator(seed), past=past)
    assert torch.equal(lanes[:].index, again[:].index)


@examples(50)
@given(ragged(), st.integers(1, 6), st.none() | st.integers(0, 99))
def test_uncut_passes_keep_sequences_whole(s: Sequences, num_lanes: int, seed: int | None) -> None:
    lanes = Lanes(s, num_lanes, generator=generator(seed), cut=False)
    check_lanes(s, lanes)
    batch = lanes[:]
    assert torch.equal(batch.reset, batch.start)
    # The past is there in full.
    with_scores = s.starts < s.lengths
    assert int((batch.index >= 0).sum()) == int(s.lengths[with_scores].sum())


@examples(50)
@given(ragged(), st.integers(1, 4), st.data())
def test_slices_are_slices_of_the_whole(s: Sequences, num_lanes: int, data: Any) -> None:
    lanes = Lanes(s, num_lanes)
    begin = data.draw(st.integers(-3, len(lanes) + 2))
    end = data.draw(st.integers(-3, len(lanes) + 2))
    part, whole = lanes[begin:end], lanes[:][begin:end]
    assert len(part) == len(whole) == len(range(len(lanes))[begin:end])
    for name in ("x", "previous", "start", "reset", "weight", "index"):
        assert torch.equal(getattr(part, name), getattr(whole, name))


@examples(60)
@given(
    st.lists(st.integers(1, 200), min_size=1, max_size=8),
    st.integers(1, 16),
    st.none() | st.integers(0, 99),
)
def test_without_pasts_no_lane_idles_and_cuts_are_few(
    lengths: list[int], num_lanes: int, seed: int | None
) -> None:
    s = counting(lengths)
    lanes = Lanes(s, num_lanes, generator=generator(seed))
    total = sum(lengths)
    # Either good with whole sequences, or as short as it can be at all.
    cuts = int((lanes[:].reset & ~lanes[:].start).sum())
    assert cuts <= num_lanes
    if cuts:
        assert len(lanes) == -(-total // num_lanes)
    else:
        assert lanes.utilisation >= 0.98 or len(lanes) == -(-total // num_lanes)
    assert lanes.utilisation == pytest.approx(total / (len(lanes) * num_lanes))


def test_by_hand() -> None:
    # LPT: 5 | 4, then 3 to the second lane (4 + 3), 2 to the first: 7 and 7.
    lanes = Lanes(counting([4, 2, 5, 3]), 2)
    batch = lanes[:]
    assert lanes.utilisation == 1.0
    assert batch.index.T.tolist() == [[6, 7, 8, 9, 10, 4, 5], [0, 1, 2, 3, 11, 12, 13]]
    assert batch.start.T.int().tolist() == [[1, 0, 0, 0, 0, 1, 0], [1, 0, 0, 0, 1, 0, 0]]
    assert batch.previous.T.tolist() == [[0, 6, 7, 8, 9, 0, 4], [0, 0, 1, 2, 0, 11, 12]]
    assert torch.equal(batch.reset, batch.start)
    # One long sequence in two lanes: one cut, which knows the true previous value.
    batch = Lanes(counting([6]), 2)[:]
    assert batch.index.T.tolist() == [[0, 1, 2], [3, 4, 5]]
    assert batch.start.T.int().tolist() == [[1, 0, 0], [0, 0, 0]]
    assert batch.reset.T.int().tolist() == [[1, 0, 0], [1, 0, 0]]
    assert batch.previous.T.tolist() == [[0, 0, 1], [2, 3, 4]]


def test_pasts_have_no_weight_and_can_be_limited() -> None:
    s = counting([6, 5], [4, 0])
    batch = Lanes(s, 2, cut=False)[:]
    assert batch.index.T.tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, -1]]
    assert batch.weight.T.tolist() == [[0, 0, 0, 0, 1, 1], [1, 1, 1, 1, 1, 0]]
    limited = Lanes(s, 2, past=2, cut=False)[:]
    assert limited.index.T.tolist() == [[6, 7, 8, 9, 10], [2, 3, 4, 5, -1]]
    # A past that was shortened begins with a reset, but it is not the start of the sequence.
    assert limited.start.T.int().tolist() == [[1, 0, 0, 0, 0], [0, 0, 0, 0, 0]]
    assert limited.reset.T.int().tolist() == [[1, 0, 0, 0, 0], [1, 0, 0, 0, 0]]
    assert limited.previous[0, 1] == 1


def test_a_long_past_is_never_cut_off() -> None:
    s = counting([100, 100], [90, 0])
    for seed in (None, 0, 1, 2):
        batch = Lanes(s, 8, generator=generator(seed))[:]
        lane = (batch.index == 90).any(0).nonzero()[0, 0]
        at = int((batch.index[:, lane] == 90).nonzero()[0, 0])
        assert batch.index[at - 90 : at + 1, lane].tolist() == list(range(91))


def test_missing_steps_are_not_scored_and_padding_holds_no_nan() -> None:
    x = torch.tensor([float("nan"), 1.0, 2.0, float("nan")]).double()
    s = Sequences.of([x, torch.tensor([5.0, 6.0])])
    batch = Lanes(s, 2, cut=False)[:]
    assert batch.weight.T.tolist() == [[0, 1, 1, 0], [1, 1, 0, 0]]
    assert batch.x.dtype == torch.float32
    assert batch.x[..., 0].isnan().T.tolist() == [[True, False, False, True], [False] * 4]
    assert batch.previous[..., 0].isnan().T.tolist() == [[False, True, False, False], [False] * 4]
    assert Lanes(s, 2, dtype=torch.float64)[0:1].x.dtype == torch.float64


def test_covariates_series_and_levels() -> None:
    s = Sequences.of([torch.arange(4.0), torch.arange(3.0)], names=["a", "b"])
    plain = Lanes(s, 2, cut=False)[:]
    assert plain.covariates is None
    assert plain.series is None
    assert plain.initial is None
    s = dataclasses.replace(s, covariates=torch.arange(14).double().reshape(7, 2))
    s = s.with_identity(["b"]).transform(["difference"])
    batch = Lanes(s, 2, cut=False)[:]
    assert batch.series is not None
    assert batch.covariates is not None
    assert batch.initial is not None
    assert batch.series.T.tolist() == [[-1] * 4, [0, 0, 0, -1]]
    assert batch.covariates[:, 1].tolist() == [[8, 9], [10, 11], [12, 13], [0, 0]]
    assert batch.initial.T.int().tolist() == [[1, 0, 0, 0], [1, 0, 0, 0]]


def test_a_generator_shuffles_sequences_and_cuts_but_not_their_insides() -> None:
    s = counting([10] * 40)
    passes = [Lanes(s, 4, generator=generator(seed))[:].index for seed in (0, 1, 0)]
    assert torch.equal(passes[0], passes[2])
    assert not torch.equal(passes[0], passes[1])
    one = counting([1000])
    cuts = set()
    for seed in range(20):
        batch = Lanes(one, 4, segment=100, generator=generator(seed))[:]
        cuts |= set(batch.index[batch.reset & ~batch.start].tolist())
    assert len({c % 100 for c in cuts}) > 15
    # In a lane the pieces of a long sequence follow each other in time, but for one turn.
    steps = Lanes(one, 1, segment=100, generator=generator(3))[:].index[:, 0]
    assert int((steps.diff() != 1).sum()) <= 1


def test_passes_over_random_pieces_begin_anywhere() -> None:
    """Without a bias to long sequences at the start of a pass."""
    s = counting([50] * 10 + [5] * 100)
    first = [Lanes(s, 2, generator=generator(seed))[:1].index for seed in range(40)]
    short = sum(int((index >= 500).sum()) for index in first)
    assert 50 < short < 80  # 10 of 11 sequences are short


def test_chunks_and_devices() -> None:
    s = counting([7, 6])
    lanes = Lanes(s, 2)
    chunks = list(lanes.chunks(3))
    assert [len(chunk) for chunk in chunks] == [3, 3, 1]
    assert torch.equal(torch.cat([chunk.x for chunk in chunks]), lanes[:].x)
    batch = lanes.to("meta")[0:2]
    assert isinstance(batch, Batch)
    assert batch.x.device.type == batch.weight.device.type == "meta"
    assert lanes[:].to("meta").reset.device.type == "meta"
    assert lanes[:].x.device.type == "cpu"


def test_nothing_to_do() -> None:
    empty = counting([3])[:0]
    for s in (empty, counting([3], [3])):
        lanes = Lanes(s, 4, generator=generator(0))
        assert len(lanes) == 0
        assert lanes.utilisation == 1.0
        assert lanes[:].x.shape == (0, 4)


@pytest.mark.parametrize(
    "call",
    [
        lambda s: Lanes(s, 0),
        lambda s: Lanes(s, 2, segment=0),
        lambda s: Lanes(s, 2, past=-1),
        lambda s: Lanes(s, 2, segment=4, cut=False),
        lambda s: Lanes(s, 2)[::2],
        lambda s: Lanes(s, 2)[0],
        lambda s: Lanes(s, 2)[:][0],
        lambda s: next(Lanes(s, 2).chunks(0)),
    ],
)
def test_refusals(call: Any) -> None:
    with pytest.raises(SettingError):
        call(counting([5]))


@pytest.mark.slow
def test_recordings_fill_64_lanes() -> None:
    if not RECORDINGS.exists():
        pytest.skip(f"{RECORDINGS.name} is not in the shared data folder")
    lengths = []
    with tarfile.open(RECORDINGS) as archive:
        for member in archive:
            stream = archive.extractfile(member) if member.name.endswith(".wav") else None
            if stream is not None:
                with wave.open(io.BytesIO(stream.read(512))) as sound:
                    lengths.append(sound.getnframes())
    assert len(lengths) == 3000
    assert max(lengths) > 10 * min(lengths)
    s = counting(lengths)
    for seed, segment in ((None, None), (0, None), (0, 1000)):
        lanes = Lanes(s, 64, segment, generator(seed))
        assert lanes.utilisation >= 0.98
        if seed is None:
            # Whole recordings balance 64 lanes already: nothing is cut.
            resets = sum(int(chunk.reset.sum()) for chunk in lanes.chunks(4096))
            assert resets == 3000


class Work(TorchDispatchMode):
    """Counts the numbers that torch's operators put out."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            self.numbers += sum(one.numel() for one in tree_leaves(out) if isinstance(one, Tensor))
        return out


def test_a_slice_costs_what_it_holds() -> None:
    """64 x 64 steps of a series: the same work however long the series is."""
    costs = []
    for length in (10_000, 1_000_000):
        lanes = Lanes(Sequences.of([torch.zeros(length)]), 64)
        with Work() as work:
            lanes[64:128]
        costs.append(work.numbers)
    assert costs[0] == costs[1]
    assert costs[0] < 50 * 64 * 64
