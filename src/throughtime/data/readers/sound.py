"""Sound: recordings as amplitudes in [-1, 1], one channel, all at one rate."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import soundfile
import torch
from torch import Tensor

from throughtime.data.readers.files import (
    Finding,
    check_memory,
    free_memory,
    gathered,
    parsing,
    quiet,
    suffix,
)
from throughtime.data.sequences import Domain, Sequences
from throughtime.errors import DataError, SettingError

LOUDEST = 1.5  # decoders and resamplers overshoot a little; beyond this it is another scale
# Names of the compressed formats that a wav file most often wraps.
WAV_FORMATS = {
    2: "Microsoft ADPCM",
    6: "A-law",
    7: "mu-law",
    17: "IMA ADPCM",
    49: "GSM 6.10",
    80: "MPEG",
    85: "MP3",
}
PLAIN = (1, 3)  # integers and floats; 0xFFFE says which of them in its extension
UNKNOWN_SIZE = 0xFFFFFFFF
LEAST_PLACEHOLDER = 0x7FFFF000  # such sizes, and 0, write programs that stream and cannot go back
NO_LENGTH = 1 << 62  # frames that the decoder announces where a file does not say how many
BLOCK = 1 << 18  # samples decoded at a time


@dataclass(frozen=True)
class Recording:
    """samples: float64 [T], channels averaged; rate in Hz; findings: what was noticed."""

    path: Path
    samples: np.ndarray
    rate: int
    findings: tuple[Finding, ...] = ()


def sound_sequences(
    recordings: Sequence[np.ndarray], names: Sequence[str], rate: float, notes: Sequence[str] = ()
) -> Sequences:
    """Sequences from amplitudes float64 [T_i] in [-1, 1] at `rate` Hz."""
    lengths = np.array([0] + [len(samples) for samples in recordings], dtype=np.int64)
    return Sequences(
        values=torch.from_numpy(np.concatenate(recordings)[:, None]),
        offsets=torch.from_numpy(np.cumsum(lengths)),
        domain=Domain("sound", columns=("amplitude",), sample_rate=float(rate), step="sample"),
        names=tuple(names),
        notes=tuple(notes),
    )


def check_rate(rate: float | None) -> int | None:
    """A rate in Hz as a whole number. Raises: SettingError for what is none."""
    if rate is None:
        return None
    number = isinstance(rate, (int, float)) and not isinstance(rate, bool)
    if not number or not 1 <= rate <= 10_000_000 or rate != int(rate):
        raise SettingError(f"rate={rate!r}: a sample rate is a whole number of Hz, such as 8000")
    return int(rate)


def join_recordings(recordings: Sequence[Recording], names: Sequence[str], label: str) -> Sequences:
    """A sequence [T, 1] from each recording, all at one rate.

    Raises: DataError when two have different rates and no `rate` was asked for.
    """
    rates: dict[int, list[str]] = {}
    for one in recordings:
        rates.setdefault(one.rate, []).append(one.path.name)
    if len(rates) > 1:
        held = [f"{_whose(files)} {rate:,} Hz" for rate, files in rates.items()]
        if len(rates[recordings[0].rate]) == 1:
            held[0] = held[0].replace("' ", "' has ", 1)
        whose = ", ".join(held)
        raise DataError(f"{label}: mixed sample rates: {whose}; rate={min(rates)} resamples them")
    clipped = sum(int(np.count_nonzero(np.abs(one.samples) > 1)) for one in recordings)
    notes = list(gathered(found for one in recordings for found in one.findings))
    if clipped:
        total = sum(len(one.samples) for one in recordings)
        notes.append(f"{clipped:,} of {total:,} samples lie beyond 1 and are clipped")
    samples = [np.clip(one.samples, -1, 1) for one in recordings]
    return sound_sequences(samples, names, recordings[0].rate, notes)


def _whose(files: Sequence[str]) -> str:
    """`'a.wav'`, or that and how many more files."""
    return f"'{files[0]}'" + (f" and {len(files) - 1:,} more" if len(files) > 1 else "")


def recording_of(path: Path, rate: int | None) -> Recording:
    """One file, decoded, mixed to one channel, checked and resampled to `rate` Hz if given."""
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty")
    with TemporaryDirectory(prefix="throughtime-") as room:
        findings: list[Finding] = []
        what = f"{suffix(path)[1:] or 'sound'} file"
        with parsing(path, what, soundfile.SoundFileError, RuntimeError, OSError, ValueError,
                     TypeError, OverflowError), quiet():  # fmt: skip
            source = mended_wav(path, Path(room), findings)
            with _Forward(source) as file:
                samples = _decode(path, file)
                file_rate = int(file.samplerate)
    if not len(samples):
        raise DataError(f"{path}: the recording has no samples")
    mono = _mixed(path, samples, findings)
    _check_samples(path, mono, findings)
    if rate is not None and rate != file_rate:
        mono = _resample(path, mono, file_rate, rate)
    return Recording(path, mono, rate or file_rate, tuple(findings))


class _Forward(soundfile.SoundFile):
    """A file that is only read onwards: seeking fails where a header lies about the length."""

    def seekable(self) -> bool:
        return False


def _decode(path: Path, file: soundfile.SoundFile) -> np.ndarray:
    """All samples [T, channels] as they come: what the header announces is not allocated."""
    count = max(1, BLOCK // file.channels)
    blocks, there = [], 0
    while len(block := file.read(count, dtype="float64", always_2d=True)):
        blocks.append(block)
        there += len(block)
        if there % (64 * count) == 0:
            check_memory(path, 2 * there * file.channels * 8)
    if there < file.frames < NO_LENGTH:
        raise DataError(f"{path}: cut short: {there:,} of {file.frames:,} samples are there")
    return np.concatenate(blocks) if blocks else np.zeros((0, file.channels))


def _mixed(path: Path, samples: np.ndarray, findings: list[Finding]) -> np.ndarray:
    """The mean of the channels [T], without those in which nothing sounds."""
    if samples.shape[1] == 1:
        return samples[:, 0]
    live = (samples != 0).any(axis=0)
    if live.any() and not live.all():
        silent = ", ".join(str(channel + 1) for channel in np.flatnonzero(~live)[:8])
        findings.append(
            Finding("a silent channel is left out of the mean", f"{path} (channel {silent})")
        )
        samples = samples[:, live]
    mono: np.ndarray = samples.mean(axis=1)
    if np.abs(samples).max() > 0 and np.abs(mono).max() < 1e-3 * np.abs(samples).max():
        findings.append(Finding("the channels cancel each other in their mean", str(path)))
    return mono


def _check_samples(path: Path, mono: np.ndarray, findings: list[Finding]) -> None:
    """Raises DataError for samples on another scale; notes silence and an offset."""
    bad = ~np.isfinite(mono)
    if bad.any():
        raise DataError(f"{path}: sample {int(np.argmax(bad)):,} is not a finite number")
    loud = np.abs(mono)
    if loud.max() > LOUDEST:
        place = int(np.argmax(loud > LOUDEST))
        raise DataError(
            f"{path}: sample {place:,} is {mono[place]:g}; sound lies between -1 and 1, scale it"
        )
    offset, spread = float(mono.mean()), float(mono.std())
    if (mono == mono[0]).all():
        what = "silence" if mono[0] == 0 else f"nothing but the constant {mono[0]:.3g}"
        findings.append(Finding(f"the recording is {what}", str(path)))
    elif abs(offset) > max(0.02, spread):
        findings.append(Finding("the samples lie off zero", f"{path} (mean {offset:.2g})"))


def _resample(path: Path, samples: np.ndarray, file_rate: int, rate: int) -> np.ndarray:
    import soxr

    result: np.ndarray = soxr.resample(samples, file_rate, rate, quality="HQ")
    if not len(result):
        raise DataError(f"{path}: {len(samples)} samples are too few to resample to {rate:,} Hz")
    return result


# ---------------------------------------------------------------------------------- headers of wavs


def mended_wav(path: Path, room: Path, findings: list[Finding]) -> Path:
    """The file itself or, where a wav holds a placeholder for its length, a copy with the length.

    The decoder reads a wav that is cut short without a word, so its chunks are walked here.
    Raises: DataError for a wav that is cut short or compressed.
    """
    total = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(12)
        if head[:4] != b"RIFF":
            return path  # RF64, or no wav at all: the decoder says so
        while len(head := file.read(8)) == 8:
            size = struct.unpack("<I", head[4:])[0]
            if head[:4] == b"data":
                start = file.tell()
                there = total - start
                if size in range(1, there + 1) or (size == 0 and there == 0):
                    return path
                if size < LEAST_PLACEHOLDER and size > 0:
                    raise DataError(
                        f"{path}: cut short: {there:,} of {size:,} bytes of sound are there"
                    )
                findings.append(
                    Finding("the header holds no length, read to the end of the file", str(path))
                )
                return _with_length(path, room, start, there)
            content = file.read(min(size, 40)) if head[:4] == b"fmt " else b""
            if len(content) >= 16:
                _check_format(path, content)
            file.seek(size + size % 2 - len(content), 1)
    raise DataError(f"{path}: cut short: the wav has no sound in it")


def _with_length(path: Path, room: Path, start: int, size: int) -> Path:
    """A copy whose header says how many bytes of sound there are."""
    copy = room / "mended.wav"
    shutil.copyfile(path, copy)
    with copy.open("r+b") as file:
        file.seek(4)
        file.write(struct.pack("<I", min(start + size - 8, UNKNOWN_SIZE)))
        file.seek(start - 4)
        file.write(struct.pack("<I", min(size, UNKNOWN_SIZE)))
    return copy


def _check_format(path: Path, content: bytes) -> None:
    """content: the format chunk of a wav."""
    tag = struct.unpack_from("<H", content)[0]
    if tag == 0xFFFE and len(content) >= 26:
        tag = struct.unpack_from("<H", content, 24)[0]
    if tag not in PLAIN:
        raise DataError(
            f"{path}: a compressed wav (format {tag}: {WAV_FORMATS.get(tag, 'unknown')}); save it "
            f"as plain PCM, for example with: ffmpeg -i '{path.name}' -c:a pcm_s16le out.wav"
        )


# --------------------------------------------------------------------------- what needs the program


def converted(path: Path, room: Path) -> Path:
    """The sound of a file that only the program `ffmpeg` decodes, as a wav in `room`.

    Raises: DataError where the program is not installed or cannot read the file.
    """
    program = shutil.which("ffmpeg")
    if program is None:
        raise DataError(
            f"{path}: this kind of sound is read by the program ffmpeg, which is not installed "
            f"here; install it, or give a .wav or .flac"
        )
    wav = room / f"{path.stem}.wav"
    limit = min(free_memory(), shutil.disk_usage(room).free) // 8
    command = [program, "-v", "error", "-nostdin", "-i", f"file:{path}", "-vn", "-fs", str(limit),
               "-c:a", "pcm_s16le", str(wav)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode or not wav.is_file():
        said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise DataError(f"{path}: ffmpeg cannot read it ({said[:120]})")
    return wav


def wav_bytes(wave: Tensor, rate: int) -> bytes:
    """A mono 16-bit wav file of amplitudes in [-1, 1]."""
    content = io.BytesIO()
    samples = wave.flatten().clamp(-1.0, 1.0).double().numpy()
    soundfile.write(content, samples, rate, format="WAV", subtype="PCM_16")
    return content.getvalue()
