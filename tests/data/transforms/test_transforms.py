"""Transforms: exact log-Jacobians, exact inverses, fitted on training data alone."""

from __future__ import annotations

import builtins
import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.profiles import examples
from torch import Tensor

from throughtime.data.sequences import Domain, Sequences
from throughtime.data.transforms import (
    Binary,
    Bytes,
    Characters,
    Counts,
    Difference,
    LinearQuantise,
    MuLaw,
    Scale,
    Standardise,
    Symbols,
    Tokens,
    Transform,
    Transforms,
    decode_text,
    encode_text,
)
from throughtime.data.transforms.base import Flat
from throughtime.data.transforms.chain import TABLE
from throughtime.errors import DataError, MissingExtra, SettingError, VocabularyError

NAN = float("nan")

CHAINS: list[list[Transform | str]] = [
    ["log"],
    ["difference"],
    [Difference(3)],
    ["standardise"],
    [Scale(-2.5)],
    ["log", "difference", "standardise"],
    ["difference", Difference(4), "standardise"],
    ["standardise", Difference(2), Scale(3.0), "standardise"],
    [Difference(7), "difference", Difference(2), "standardise"],
]


def positive(generator: torch.Generator, length: int, width: int) -> Tensor:
    steps = torch.randn(length, width, generator=generator, dtype=torch.float64)
    return (0.1 * steps).cumsum(0).exp() * torch.tensor([3.0, 500.0, 0.01])[:width].double()


def series(seed: int, *lengths: int, width: int = 2) -> Sequences:
    generator = torch.Generator().manual_seed(seed)
    return Sequences.of([positive(generator, n, width) for n in lengths])


# Likelihoods: log-Jacobians


@pytest.mark.parametrize("specs", CHAINS, ids=str)
@pytest.mark.parametrize("start", [0, 9])
def test_log_det_is_that_of_autograd(specs: list[Transform | str], start: int) -> None:
    train = series(0, 40, 25)
    chain = Transforms.fit(specs, train)
    raw = dataclasses.replace(series(1, 14, 12), starts=torch.tensor([start, start]))
    done = raw.transform(chain)
    for i in range(2):
        flat = Flat.of(raw[i])
        x = raw.sequence(i)

        def after(scored: Tensor, flat: Flat = flat, x: Tensor = x) -> Tensor:
            values = torch.cat([x[:start], scored])
            return chain.forward(dataclasses.replace(flat, values=values)).values[start:]

        jacobian = torch.autograd.functional.jacobian(after, x[start:])
        size = x[start:].numel()
        expected = torch.linalg.slogdet(jacobian.reshape(size, size)).logabsdet
        actual = done[i].log_det[start:].sum()
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-10)


def test_log_det_of_each_step_is_known() -> None:
    s = Sequences.of([torch.tensor([1.0, 2.0, 4.0]).double()])
    result = s.transform(["log", "difference"]).log_det
    torch.testing.assert_close(result, -torch.tensor([1.0, 2.0, 4.0]).double().log())
    scaled = s.transform([Scale(10.0)]).log_det
    torch.testing.assert_close(scaled, torch.full((3,), math.log(10.0)).double())


def test_a_likelihood_does_not_depend_on_the_units() -> None:
    """The density of a log-normal through Log equals SciPy's in the raw units."""
    from scipy import stats

    x = torch.tensor([0.5, 1.0, 7.0]).double()
    s = Sequences.of([x]).transform(["log", "standardise"])
    mean, std = s.chain.transforms[1].mean[0][0], s.chain.transforms[1].std[0][0]  # type: ignore
    nats = torch.distributions.Normal(0.0, 1.0).log_prob(s.values[:, 0]) + s.log_det
    expected = stats.lognorm(s=std, scale=math.exp(mean)).logpdf(x.numpy())
    np.testing.assert_allclose(nats.numpy(), expected, rtol=1e-12)


# Inverses


@examples(60)
@given(
    st.sampled_from(range(len(CHAINS))),
    st.integers(0, 2**31),
    st.integers(1, 30),
    st.data(),
)
def test_inverse_continues_any_past(which: int, seed: int, length: int, data: Any) -> None:
    chain = Transforms.fit(CHAINS[which], series(0, 40, 25))
    raw = series(seed, length)
    cut = data.draw(st.integers(0, length))
    x = raw.sequence(0)
    z = raw.transform(chain).sequence(0)
    back = chain.inverse(z[cut:], x[:cut])
    torch.testing.assert_close(back, x[cut:], rtol=1e-9, atol=1e-9)
    paths = chain.inverse(z[cut:].expand(2, 3, *z[cut:].shape), x[:cut])
    torch.testing.assert_close(paths, x[cut:].expand(2, 3, *x[cut:].shape), rtol=1e-9, atol=1e-9)


def test_inverse_paths_are_independent() -> None:
    x = torch.tensor([[10.0], [12.0]]).double()
    chain = Transforms.fit(["difference"], Sequences.of([x]))
    z = torch.tensor([[[1.0], [1.0]], [[-2.0], [5.0]]])
    back = chain.inverse(z, x)
    assert back.dtype == torch.float64
    assert back[..., 0].tolist() == [[13.0, 14.0], [10.0, 15.0]]
    assert chain.inverse(z)[..., 0].tolist() == [[1.0, 2.0], [-2.0, 3.0]]


def test_inverse_starts_from_the_last_observed_value() -> None:
    train = Sequences.of([torch.arange(20.0).double()])
    past = torch.tensor([1.0, 2.0, 5.0, NAN]).double()[:, None]
    one = torch.ones(3, 1).double()
    assert Transforms.fit(["difference"], train).inverse(one, past)[:, 0].tolist() == [
        6.0,
        7.0,
        8.0,
    ]
    # At lag 2 the phase counts: 5 and, for the missing one, 2.
    assert Transforms.fit([Difference(2)], train).inverse(one, past)[:, 0].tolist() == [
        6.0,
        3.0,
        7.0,
    ]


# Levels


def test_levels_are_marked_and_on_their_own_scale() -> None:
    train = series(3, 300, 200, 250)
    done = train.transform(["difference", Difference(5), "standardise"])
    for part in done:
        assert part.differencing[:7].tolist() == [1, 2, 2, 2, 2, 2, 0]
        assert part.initial.tolist() == [True] * 6 + [False] * (len(part.values) - 6)
    assert train.initial.sum() == 0
    for differencing in range(3):
        values = done.values[done.differencing == differencing]
        torch.testing.assert_close(values.mean(0), torch.zeros(2).double(), atol=1e-9, rtol=0)
        torch.testing.assert_close(values.std(0, correction=0), torch.ones(2).double())


def test_a_single_level_is_scaled_by_its_size() -> None:
    train = Sequences.of([torch.tensor([3000.0, 3001, 2999, 3004]).double()])
    chain = train.transform(["difference", "standardise"]).chain
    fitted = chain.transforms[1]
    assert isinstance(fitted, Standardise)
    assert fitted.mean is not None
    assert fitted.std is not None
    assert fitted.constant == ()
    # The differences 1, -2, 5 alone set the scale of differences.
    assert fitted.mean[0][0] == pytest.approx(4 / 3)
    assert fitted.std[0][0] == pytest.approx(np.std([1.0, -2.0, 5.0]))
    other = Sequences.of([torch.tensor([20.0, 21.0]).double()]).transform(chain)
    assert other.values[0, 0].abs() < 1.0


def test_too_short_for_a_difference() -> None:
    with pytest.raises(DataError, match=r"lag 24 leaves no differences.* 10 steps"):
        series(0, 10, 4).transform([Difference(24), "standardise"])
    # A short series beside a long one is all initial values.
    done = series(0, 10, 2).transform([Difference(3), Difference(2), "standardise"])
    assert done[1].differencing.tolist() == [1, 1]


# Pasts, gaps, bad values


@pytest.mark.parametrize("specs", CHAINS, ids=str)
def test_pasts_make_splits_seamless(specs: list[Transform | str]) -> None:
    """A part after a split has the values that the whole series has there."""
    raw = series(5, 60, 80)
    train, valid, _ = raw.split(0.2, 0.2, by="time")
    done = train.transform(specs)
    whole, part = raw.transform(done.chain), valid.transform(done.chain)
    assert part.starts.tolist() == valid.starts.tolist()
    for i in range(2):
        stop = len(part.sequence(i))
        assert torch.equal(part.sequence(i), whole.sequence(i)[:stop])
        assert torch.equal(part[i].log_det, whole[i].log_det[:stop])
        assert torch.equal(done.sequence(i), whole.sequence(i)[: len(done.sequence(i))])


@pytest.mark.parametrize("specs", CHAINS, ids=str)
def test_fitting_sees_training_data_only(specs: list[Transform | str]) -> None:
    raw = series(5, 60)
    values = raw.values.clone()
    values[48:] *= 100
    changed = dataclasses.replace(raw, values=values)
    chains = [s.split(0.1, 0.1, by="time")[0].transform(specs).chain for s in (raw, changed)]
    assert chains[0] == chains[1]
    assert chains[0] != Transforms.fit(specs, changed) or "standardise" not in specs


@pytest.mark.parametrize("specs", CHAINS, ids=str)
def test_missing_values_stay_missing(specs: list[Transform | str]) -> None:
    raw = series(6, 50)
    values = raw.values.clone()
    values[20, 0] = NAN
    gap = dataclasses.replace(raw, values=values)
    done = gap.transform(specs)
    lags = [t.lag for t in done.chain if isinstance(t, Difference)]
    expected = {20}
    for lag in lags:
        expected |= {i + lag for i in expected}
    assert set(done.missing.nonzero()[:, 0].tolist()) == expected
    assert bool(done.log_det.isfinite().all())
    # A missing column adds nothing to the Jacobian of its step.
    single = dataclasses.replace(raw, values=values[:, 1:], domain=Domain("real", ("b",)))
    if specs == ["log"]:
        assert done.log_det[20] == single.transform(specs).log_det[20]


def test_log_names_the_value_it_cannot_take() -> None:
    s = Sequences.of([torch.ones(4, 1), torch.tensor([[1.0], [2.0], [-3.0]])], names=["a", "b"])
    with pytest.raises(DataError, match=r"series 'b', step 2: .*positive.*'value' is -3"):
        s.transform(["log"])
    with pytest.raises(DataError, match="is 0"):
        Sequences.of([torch.zeros(2)]).transform(["log"])


def test_constant_column_is_left_unscaled_with_a_note() -> None:
    values = torch.stack([torch.full((9,), 0.1), torch.arange(9.0)], 1).double()
    train = Sequences.of([values], Domain("real", columns=("flat", "up")))
    done = train.transform(["standardise"])
    assert done.values[:, 0].abs().max() < 1e-12
    assert done.log_det[0] == -math.log(np.std(np.arange(9.0)))
    assert done.notes == ("Constant in the training part, left unscaled: column 'flat'.",)
    moved = dataclasses.replace(train, values=values + 2).transform(done.chain)
    assert moved.values[0, 0].item() == pytest.approx(2.0)
    assert moved.notes == done.notes


def test_column_without_values() -> None:
    values = torch.full((4, 1), NAN).double()
    with pytest.raises(DataError, match="column 'value' has no values"):
        Sequences.of([values]).transform(["standardise"])


# Sound


@pytest.mark.parametrize("transform", [MuLaw(), LinearQuantise(), MuLaw(5), LinearQuantise(12)])
def test_quantising(transform: MuLaw | LinearQuantise) -> None:
    x = torch.cat([torch.linspace(-1, 1, 4001), torch.zeros(1)]).double()
    domain = Domain("sound", columns=("value",), sample_rate=8000.0, step="sample")
    done = Sequences.of([x], domain).transform([transform])
    levels = 1 << transform.bits
    assert done.domain.kind == "symbols"
    assert (done.domain.num_symbols, done.domain.sample_rate) == (levels, 8000.0)
    assert (int(done.values.min()), int(done.values.max())) == (0, levels - 1)
    assert done.log_det.abs().max() == 0
    assert bool((done.values[:-1].diff() >= 0).all())
    symbols = torch.arange(levels)
    # Decoding a symbol and encoding it again gives the symbol.
    assert torch.equal(transform.encode(transform.decode(symbols)), symbols)
    back = done.chain.inverse(done.values)
    assert back.shape == (4002, 1)
    error = (back[:, 0] - x).abs()
    if isinstance(transform, LinearQuantise):
        assert error.max() <= 1 / levels + 1e-12
    else:
        assert error[-1] < error.max() / 10  # finer near silence
    paths = done.chain.inverse(done.values.expand(2, 3, -1), x[:5, None])
    assert torch.equal(paths, back.expand(2, 3, -1, -1))


def test_mulaw_by_hand() -> None:
    x = torch.tensor([-1.0, -0.5, 0.0, 0.001, 0.5, 1.0]).double()
    # floor((sign(x) log(1 + 255 |x|) / log 256 + 1) / 2 * 255 + 0.5)
    assert MuLaw().encode(x).tolist() == [0, 16, 128, 133, 239, 255]


def test_clipping_is_counted() -> None:
    s = Sequences.of([torch.tensor([0.0, 1.5, -2.0])]).transform([MuLaw()])
    assert s.notes == ("Clipped to [-1, 1] before mulaw: 2 values.",)
    assert s.values.tolist() == [128, 255, 0]
    with pytest.raises(DataError, match="series '0', step 1: a missing sample"):
        Sequences.of([torch.tensor([0.0, NAN])]).transform([MuLaw()])
    with pytest.raises(SettingError, match="one column"):
        Sequences.of([torch.zeros(3, 2)]).transform([MuLaw()])


# Text


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int32, torch.int64])
def test_characters_leave_the_raw_text_as_it_is(dtype: torch.dtype) -> None:
    known = Sequences.of(["abc"])
    seen = Transforms.fit(["characters"], known)
    codes = torch.tensor([97, 120, 122], dtype=dtype)  # x and z come after all that are known
    raw = Sequences(codes, torch.tensor([0, 3]), domain=known.domain, names=("a",))
    assert raw.transform(seen).values.tolist() == [0, 3, 3]
    assert raw.values.tolist() == codes.tolist() == [97, 120, 122]


def test_characters_give_every_text_a_probability() -> None:
    train = Sequences.of(["hello"]).transform(["characters"])
    assert train.domain.num_symbols == 5  # e h l o and unknown
    assert train.values.tolist() == [1, 0, 2, 2, 3]
    assert train.log_det.abs().max() == 0
    test = Sequences.of(["hey", "ol"]).transform(train.chain)
    assert test.values.tolist() == [1, 0, 4, 3, 2]
    spread = -math.log(0x110000 - 4)
    assert test.log_det.tolist() == [0, 0, spread, 0, 0]
    assert train.chain.text(test.values) == "he\ufffdol"


def test_texts_with_pasts_change_lengths_exactly() -> None:
    text = "naïve café — 😀 déjà vu; " * 4
    raw = dataclasses.replace(Sequences.of([text, "plain"]), starts=torch.tensor([9, 0]))
    sizes = {"characters": [len(text) - 9, 5], "bytes": [len(text[9:].encode()), 5]}
    for spec in (Characters(), Bytes(), Tokens(300)):
        done = raw.transform([spec])
        assert {k: v.tolist() for k, v in done.sizes.items()} == sizes
        assert {k: v.tolist() for k, v in raw.sizes.items()} == sizes
        values, start = done.sequence(0), int(done.starts[0])
        assert done.chain.text(values[:start]) == text[:9]
        assert done.chain.text(values[start:]) == text[9:]
        assert done.chain.text(done.sequence(1)) == "plain"
        assert done[1].sizes["bytes"].tolist() == [5]
        assert int(done.values.max()) < (done.domain.num_symbols or 0)
    assert Bytes().forward(Flat.of(raw)).values.tolist() == list((text + "plain").encode())


@examples(40)
@given(st.lists(st.text(), min_size=1, max_size=4))
def test_bytes_and_tokens_lose_nothing(texts: list[str]) -> None:
    kept = [text for text in texts if text] or ["x"]
    raw = Sequences.of(kept)
    for chain in (Transforms.fit([Bytes()], raw), TOKENS):
        done = raw.transform(chain)
        assert [chain.text(done.sequence(i)) for i in range(len(done))] == kept
        assert done.sizes["bytes"].tolist() == [len(text.encode()) for text in kept]


TOKENS = Transforms.fit([Tokens(300)], Sequences.of(["the cat and the hat and the bat"]))


def test_tokens() -> None:
    text = "the cat sat on the mat and the cat sat " * 20
    first, second = (Sequences.of([text]).transform([Tokens(280)]) for _ in range(2))
    assert first.chain == second.chain  # training is deterministic
    assert 256 < (first.domain.num_symbols or 0) <= 280
    assert first.steps < len(text) / 2
    assert first.domain.step == "token"
    with pytest.raises(SettingError, match="256"):
        Tokens(100)
    with pytest.raises(SettingError, match="one sequence"):
        first.chain.inverse(first.values[None])
    with pytest.raises(DataError, match="fit the tokens again"):
        Sequences.of(["a"]).transform(Transforms((Tokens(300, "{}"),), Domain("text")))


def test_missing_tokenizers_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "tokenizers":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match=r"throughtime\[bpe\]"):
        Sequences.of(["abc"]).transform([Tokens(300)])


def test_text_helpers() -> None:
    assert decode_text(encode_text("a😀")) == "a😀"
    with pytest.raises(DataError, match="character 1"):
        encode_text("a\ud800")
    with pytest.raises(DataError, match="character 1"):
        decode_text(torch.tensor([65, 0xD800]))


# Casts


def test_casts() -> None:
    s = Sequences.of([torch.tensor([0.0, 1.0, 0.0]), torch.tensor([1.0])])
    assert s.transform(["binary"]).domain.kind == "binary"
    assert s.transform(["counts"]).domain.kind == "count"
    done = s.transform(["symbols"])
    assert done.domain.num_symbols == 2
    assert done.values.tolist() == [0, 1, 0, 1]
    assert done.chain.inverse(done.values)[:, 0].tolist() == [0.0, 1.0, 0.0, 1.0]
    two = Sequences.of([torch.tensor([0.0, 2.0])], names=["b"])
    with pytest.raises(VocabularyError, match="series 'b', step 1: the symbol 2"):
        two.transform(done.chain)
    gap = torch.tensor([0.0, NAN])
    assert Sequences.of([gap]).transform(["counts"]).missing.tolist() == [False, True]


@pytest.mark.parametrize(
    ("cast", "value"),
    [
        (Counts(), -1.0),
        (Counts(), 0.5),
        (Binary(), 2.0),
        (Symbols(), 0.5),
        (Symbols(), -1.0),
        (Symbols(), NAN),
    ],
)
def test_casts_refuse(cast: Transform, value: float) -> None:
    s = Sequences.of([torch.tensor([1.0, value])], names=["a"])
    with pytest.raises(DataError, match="series 'a', step 1"):
        s.transform([cast])


# Chains


def every_fitted_transform() -> list[Transform]:
    real = series(0, 30, 20, width=1)
    text = Sequences.of(["hello"])
    binary = Sequences.of([torch.tensor([0.0, 1.0])])
    return [
        *Transforms.fit(["log", Difference(2), "standardise", Scale(2.0)], real),
        *Transforms.fit(["characters"], text),
        *Transforms.fit(["bytes"], text),
        *Transforms.fit([Tokens(260)], text),
        *Transforms.fit(["counts", "binary", "symbols"], binary),
        MuLaw(6),
        LinearQuantise(4),
    ]


def test_json_round_trip_of_every_kind() -> None:
    transforms = every_fitted_transform()
    assert {t.kind for t in transforms} == set(TABLE)
    for transform in transforms:
        chain = Transforms((transform,), Domain("real", columns=("close",)))
        again = Transforms.from_json(json.loads(json.dumps(chain.to_json())))
        assert again == chain
        assert again.transforms[0].fitted
    assert Transforms.from_json(json.loads(json.dumps(Transforms().to_json()))) == Transforms()


@pytest.mark.parametrize(
    "description",
    [
        {},
        {"domain": None, "transforms": [{"kind": "os.system"}]},
        {"domain": None, "transforms": [{"kind": "log", "base": 2}]},
        {"domain": {"kind": "real", "x": 1}, "transforms": []},
    ],
)
def test_strange_json_is_refused(description: dict[str, Any]) -> None:
    with pytest.raises(DataError):
        Transforms.from_json(description)


def test_chains_are_applied_once() -> None:
    raw = series(0, 30)
    logs = raw.transform(["log"])
    full = logs.transform(["difference", "standardise"])
    assert full.chain.kinds == ("log", "difference", "standardise")
    assert full.chain == raw.transform(["log", "difference", "standardise"]).chain
    assert torch.equal(raw.transform(full.chain).values, full.values)
    assert torch.equal(logs.transform(full.chain).log_det, full.log_det)
    assert torch.equal(full.transform(full.chain).values, full.values)
    with pytest.raises(SettingError, match="raw data"):
        raw.transform(["difference"]).transform(full.chain)
    assert raw.chain == Transforms()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: series(0, 9).transform(["squash"]), "unknown transform 'squash'"),
        (lambda: series(0, 9).transform(["scale"]), "scale has settings"),
        (lambda: series(0, 9).transform(["characters"]), "needs text data, not real"),
        (lambda: Sequences.of(["abc"]).transform(["log"]), "not text"),
        (lambda: Sequences.of([[1, 2]]).transform(["standardise"]), "not symbols"),
        (lambda: Scale(0.0), "other than 0"),
        (lambda: Difference(0), "lag 0"),
        (lambda: MuLaw(17), "17 bits"),
        (
            lambda: series(0, 9).transform(Transforms((Standardise(),), series(0, 9).domain)),
            "not been fitted",
        ),
        (
            lambda: series(0, 9, width=1).transform(series(0, 9).transform(["log"]).chain),
            "fitted on real data with 2 columns, this is real with 1",
        ),
        (lambda: Transforms().text(torch.tensor([1])), "fitted on text"),
    ],
)
def test_setting_errors(call: Any, words: str) -> None:
    with pytest.raises(SettingError, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_sample_rates_must_agree() -> None:
    def sound(rate: float) -> Sequences:
        return Sequences.of([torch.zeros(4)], Domain("sound", ("a",), sample_rate=rate))

    chain = sound(8000.0).transform(["mulaw"]).chain
    with pytest.raises(SettingError, match="8000 Hz: resample, this has 16000 Hz"):
        sound(16000.0).transform(chain)
