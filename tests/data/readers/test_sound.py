"""Reading sound: amplitudes, rates and channels, and files that are damaged."""

from __future__ import annotations

import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.profiles import examples
from support.reading import message

from throughtime.data.readers.read import read
from throughtime.data.sequences import Sequences
from throughtime.errors import DataError, SettingError

TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(4000) / 8000)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in its own folder, so that messages name files as `a.wav`."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, samples: np.ndarray = TONE, rate: int = 8000, **options: Any) -> str:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(name, samples, rate, **options)
    return name


@pytest.mark.parametrize("end", ["wav", "flac", "ogg", "mp3"])
def test_formats(end: str) -> None:
    got = read(write(f"tone.{end}"))
    assert got.values.dtype == torch.float64
    assert got.values.shape[1] == 1
    assert got.names == ("tone",)
    assert (got.domain.kind, got.domain.sample_rate, got.domain.step) == ("sound", 8000, "sample")
    if end in ("wav", "flac"):
        np.testing.assert_allclose(got.values[:, 0], TONE, atol=1 / 32768)
    else:
        assert abs(len(got.values) - len(TONE)) < 3000
        assert 0.4 < got.values.abs().max() < 0.6


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "PCM_U8", "FLOAT", "DOUBLE"])
@pytest.mark.parametrize("form", ["WAV", "WAVEX"])
def test_every_plain_wav(subtype: str, form: str) -> None:
    got = read(write("a.wav", subtype=subtype, format=form))
    np.testing.assert_allclose(got.values[:, 0], TONE, atol=1 / 100)


def test_channels_are_averaged() -> None:
    stereo = np.stack([TONE, -TONE / 2], axis=1)
    np.testing.assert_allclose(
        read(write("a.wav", stereo, subtype="DOUBLE")).values[:, 0], TONE / 4, atol=1e-12
    )


def test_resampling() -> None:
    got = read(write("a.wav", subtype="DOUBLE"), rate=16000)
    assert got.domain.sample_rate == 16000
    assert len(got.values) == 8000
    finer = 0.5 * np.sin(2 * np.pi * 440 * np.arange(8000) / 16000)
    np.testing.assert_allclose(got.values[500:-500, 0], finer[500:-500], atol=1e-3)
    assert read("a.wav", rate=8000.0).values.shape == (4000, 1)


def test_a_folder() -> None:
    write("in/b.wav", TONE[:100])
    write("in/deep/a.flac", TONE[:50])
    (Path("in") / "README").write_text("words")
    seen: list[tuple[int, int]] = []
    got = read("in", on_progress=lambda done, total: seen.append((done, total)))
    assert got.names == ("b", "a")
    assert got.lengths.tolist() == [100, 50]
    assert seen == [(1, 2), (2, 2)]
    write("in/deep/b.wav", TONE[:10])
    assert read("in").names == ("b", "deep/a", "deep/b")


def test_mixed_rates() -> None:
    write("in/a.wav")
    write("in/b.wav", rate=16000)
    assert message("in") == (
        "in: mixed sample rates: 'a.wav' has 8,000 Hz, 'b.wav' 16,000 Hz; rate=8000 resamples them"
    )
    got = read("in", rate=8000)
    assert got.lengths.tolist() == [4000, 2000]


@pytest.mark.parametrize("rate", [0, -1, 8000.5, float("nan"), float("inf"), "8k", True])
def test_rates_that_make_no_sense(rate: Any) -> None:
    assert message("a.wav", SettingError, rate=rate) == (
        f"rate={rate!r}: a sample rate is a whole number of Hz, such as 8000"
    )


def test_a_little_over_1_is_clipped_and_said() -> None:
    loud = TONE.copy()
    loud[3] = 1.2
    got = read(write("a.wav", loud, subtype="DOUBLE"))
    assert got.values.max() == 1
    assert got.notes == ("1 of 4,000 samples lie beyond 1 and are clipped",)
    loud[3] = -20000.0
    assert message(write("a.wav", loud, subtype="DOUBLE")) == (
        "a.wav: sample 3 is -20000; sound lies between -1 and 1, scale it"
    )
    loud[3] = np.nan
    assert message(write("a.wav", loud, subtype="DOUBLE")) == (
        "a.wav: sample 3 is not a finite number"
    )


def test_truncated_files() -> None:
    data = Path(write("a.wav")).read_bytes()
    Path("a.wav").write_bytes(data[:1044])
    assert message("a.wav") == "a.wav: cut short: 1,000 of 8,000 bytes of sound are there"
    Path("a.wav").write_bytes(data[:30])
    assert message("a.wav") == "a.wav: cut short: the wav has no sound in it"
    data = Path(write("a.flac", np.random.RandomState(0).uniform(-0.9, 0.9, 40000))).read_bytes()
    Path("a.flac").write_bytes(data[: len(data) // 2])
    assert message("a.flac").startswith("a.flac: ")
    assert "cut short" in message("a.flac")


@pytest.mark.parametrize(
    ("subtype", "name"),
    [
        ("ULAW", "7: mu-law"),
        ("ALAW", "6: A-law"),
        ("IMA_ADPCM", "17: IMA ADPCM"),
        ("MS_ADPCM", "2: Microsoft ADPCM"),
        ("GSM610", "49: GSM 6.10"),
    ],
)
def test_compressed_wavs(subtype: str, name: str) -> None:
    assert message(write("a.wav", subtype=subtype)) == (
        f"a.wav: a compressed wav (format {name}); save it as plain PCM, for example with: ffmpeg "
        f"-i 'a.wav' -c:a pcm_s16le out.wav"
    )


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFDB])
def test_a_wav_of_unknown_length_is_read_to_its_end(size: int) -> None:
    data = bytearray(Path(write("a.wav")).read_bytes())
    place = data.index(b"data")
    data[place + 4 : place + 8] = struct.pack("<I", size)
    data[4:8] = struct.pack("<I", size)
    Path("a.wav").write_bytes(data)
    got = read("a.wav")
    np.testing.assert_allclose(got.values[:, 0], TONE, atol=1 / 32768)
    assert got.notes == ("the header holds no length, read to the end of the file: a.wav",)


def test_a_flac_of_unknown_length_is_read_to_its_end() -> None:
    data = bytearray(Path(write("a.flac")).read_bytes())
    data[21] &= 0xF0  # the number of samples: 36 bits of the first block
    data[22:26] = bytes(4)
    Path("a.flac").write_bytes(data)
    assert len(read("a.flac").values) == 4000


def test_a_length_that_lies_allocates_nothing() -> None:
    data = bytearray(Path(write("a.flac")).read_bytes())
    data[21] |= 0x0F
    data[22:26] = b"\xff" * 4
    Path("a.flac").write_bytes(data)
    assert message("a.flac").startswith("a.flac: cut short: 4,000 of 68,719,476,735 samples")


@pytest.mark.parametrize("end", ["aiff", "au", "caf", "w64", "opus", "oga"])
def test_more_formats(end: str) -> None:
    options = {"format": "OGG", "subtype": "OPUS"} if end == "opus" else {}
    options = {"format": "OGG"} if end == "oga" else options
    got = read(write(f"tone.{end}", rate=8000, **options))
    assert 0.4 < got.values.abs().max() < 0.6
    assert got.domain.sample_rate in (8000, 48000)  # opus always decodes to the latter


def test_silence_constants_and_offsets_are_noticed() -> None:
    assert read(write("a.wav", np.zeros(100))).notes == ("the recording is silence: a.wav",)
    assert read(write("a.wav", np.full(100, 0.25))).notes == (
        "the recording is nothing but the constant 0.25: a.wav",
    )
    assert read(write("a.wav", 0.1 * TONE + 0.3)).notes == (
        "the samples lie off zero: a.wav (mean 0.3)",
    )
    assert read(write("a.wav", TONE)).notes == ()


def test_a_dead_channel_is_left_out_of_the_mean() -> None:
    got = read(write("a.wav", np.stack([TONE, 0 * TONE], axis=1), subtype="DOUBLE"))
    np.testing.assert_allclose(got.values[:, 0], TONE, atol=1e-12)
    assert got.notes == ("a silent channel is left out of the mean: a.wav (channel 2)",)
    got = read(write("a.wav", np.stack([TONE, -TONE], axis=1), subtype="DOUBLE"))
    assert "the channels cancel each other in their mean: a.wav" in got.notes


def fake_ffmpeg(script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = Path("bin/ffmpeg")
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n" + script)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent.absolute()), prepend=":")


def test_what_only_ffmpeg_decodes(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.m4a").write_bytes(b"\x00\x00\x00\x20ftypM4A rest")
    monkeypatch.setenv("PATH", "/nowhere")
    assert message("a.m4a") == (
        "a.m4a: this kind of sound is read by the program ffmpeg, which is not installed here; "
        "install it, or give a .wav or .flac"
    )


def test_ffmpeg_makes_a_wav_of_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("whole.wav")
    Path("a.m4a").write_bytes(b"\x00\x00\x00\x20ftypM4A rest")
    fake_ffmpeg(f'for last; do :; done; cp "{here}/whole.wav" "$last"\n', monkeypatch)
    got = read("a.m4a")
    assert got.names == ("a",)
    np.testing.assert_allclose(got.values[:, 0], TONE, atol=1 / 32768)


def test_ffmpeg_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("a.m4a").write_bytes(b"\x00\x00\x00\x20ftypM4A rest")
    fake_ffmpeg("echo 'moov atom not found' >&2; exit 1\n", monkeypatch)
    assert message("a.m4a") == "a.m4a: ffmpeg cannot read it (moov atom not found)"


def test_files_that_are_no_sound() -> None:
    for end in ("wav", "flac", "ogg", "mp3"):
        name = f"a.{end}"
        Path(name).write_bytes(b"")
        assert message(name) == f"{name}: the file is empty"
        Path(name).write_bytes(b"just some words, not sound" * 10)
        text = message(name)
        assert text.startswith(f"{name}: not a readable {end} file, damaged or cut short (")
    assert message(write("b.wav", TONE[:0])) == "b.wav: the recording has no samples"
    assert message(write("b.wav", TONE[:1]), rate=100) == (
        "b.wav: 1 samples are too few to resample to 100 Hz"
    )


def test_options_that_say_nothing_here() -> None:
    assert message(write("a.wav"), SettingError, lines=True) == (
        "lines= says nothing about this source; it is for text"
    )


@examples(60)
@given(data=st.binary(max_size=80), end=st.sampled_from([".wav", ".flac", ".ogg", ".mp3"]))
def test_no_bytes_whatever_end_in_a_traceback(tmp_path_factory: Any, data: bytes, end: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / f"x{end}"
    path.write_bytes(data)
    try:
        assert isinstance(read(path), Sequences)
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017 - most drawn files are errors, some are not


@examples(100)
@given(place=st.integers(0, 59), byte=st.integers(0, 255))
def test_no_damage_to_a_wav_header_ends_in_a_traceback(
    tmp_path_factory: Any, place: int, byte: int
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "x.wav"
    soundfile.write(path, TONE[:100], 8000)
    data = bytearray(path.read_bytes())
    data[place] = byte
    path.write_bytes(data)
    try:
        assert isinstance(read(path), Sequences)
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017 - most damage is an error, some is not


def test_demo_sound_is_the_same_every_time() -> None:
    got = read("demo:sound")
    assert len(got) == 50
    assert got.lengths.tolist() == [4000] * 50
    assert got.domain.sample_rate == 8000
    assert 0.1 < got.values.abs().max() <= 1
    assert got.fingerprint() == read("demo:sound").fingerprint()


def test_demo_strings_sound_at_their_pitch() -> None:
    got = read("demo:sound")
    octave = got.sequence(got.names.index("string-12-0"))[:, 0].numpy()
    spectrum = np.abs(np.fft.rfft(octave))
    peak = np.argmax(spectrum[50:180]) + 50  # bins of 2 Hz
    assert peak * 2 == pytest.approx(220, rel=0.02)


def test_public_recordings(shared_data: Path, tmp_path: Path) -> None:
    with tarfile.open(shared_data / "sound/fsdd_recordings.tar.gz") as archive:
        for member in archive:
            if member.name.endswith(".wav"):
                (tmp_path / Path(member.name).name).write_bytes(
                    archive.extractfile(member).read()  # type: ignore[union-attr]
                )
    got = read(tmp_path)
    assert len(got) == 3000
    assert len(got.values) == 10_498_424
    assert got.domain.sample_rate == 8000
    assert got.names[:2] == ("0_george_0", "0_george_1")
