"""Sound: recordings as amplitudes in [-1, 1], one channel, all at one rate."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from throughtime.data.readers.files import files_below, reason, stem, stems, suffix
from throughtime.data.sequences import Domain, Sequences
from throughtime.errors import DataError, SettingError

SOUNDS = (".wav", ".flac", ".ogg", ".mp3")
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
UNKNOWN_SIZE = 0xFFFFFFFF  # written by programs that stream and cannot go back


@dataclass(frozen=True)
class Recording:
    """samples: float64 [T], channels averaged; rate in Hz."""

    path: Path
    samples: np.ndarray
    rate: int


def read_sound(path: Path, rate: int | None = None) -> Sequences:
    """One recording, [T, 1], resampled to `rate` Hz when that is given."""
    return _assemble([_recording(path, rate)], [stem(path)], str(path))


def read_sound_folder(
    folder: Path,
    rate: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Sequences:
    """Every recording below a folder, sorted by path; the file's stem is its name.

    Raises: DataError when two files have different rates and no `rate` is asked for.
    """
    paths = [path for path in files_below(folder) if suffix(path) in SOUNDS]
    recordings: list[Recording] = []
    for done, path in enumerate(paths):
        recording = _recording(path, rate)
        first = recordings[0] if recordings else recording
        if recording.rate != first.rate:
            low = min(recording.rate, first.rate)
            raise DataError(
                f"{folder}: mixed sample rates: '{first.path.name}' has {first.rate:,} Hz, "
                f"'{path.name}' {recording.rate:,} Hz; rate={low} resamples them"
            )
        recordings.append(recording)
        if on_progress is not None:
            on_progress(done + 1, len(paths))
    return _assemble(recordings, stems(paths, folder), str(folder))


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


def _assemble(recordings: list[Recording], names: list[str], label: str) -> Sequences:
    clipped = [int(np.count_nonzero(np.abs(one.samples) > 1)) for one in recordings]
    notes = []
    if sum(clipped):
        total = sum(len(one.samples) for one in recordings)
        notes.append(f"{sum(clipped):,} of {total:,} samples lie beyond 1 and are clipped")
    samples = [np.clip(one.samples, -1, 1) for one in recordings]
    return sound_sequences(samples, names, recordings[0].rate, notes)


def _recording(path: Path, rate: int | None) -> Recording:
    """One file, decoded, mixed to one channel, checked and resampled."""

    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path}: the file is empty")
        if suffix(path) == ".wav":
            _check_wav(path)
        with soundfile.SoundFile(path) as file:
            samples = _decode(path, file)
            file_rate = int(file.samplerate)
    except (soundfile.SoundFileError, RuntimeError, OSError) as error:
        raise DataError(
            f"{path}: not a readable {suffix(path)[1:]} file, damaged or cut short "
            f"({reason(error).rstrip('.')})"
        ) from error
    if not len(samples):
        raise DataError(f"{path}: the recording has no samples")
    mono = samples.mean(axis=1) if samples.shape[1] > 1 else samples[:, 0]
    bad = ~np.isfinite(mono)
    if bad.any():
        raise DataError(f"{path}: sample {int(np.argmax(bad)):,} is not a finite number")
    loud = np.abs(mono)
    if loud.max() > LOUDEST:
        place = int(np.argmax(loud > LOUDEST))
        raise DataError(
            f"{path}: sample {place:,} is {mono[place]:g}; sound lies between -1 and 1, scale it"
        )
    if rate is not None and rate != file_rate:
        mono = _resample(path, mono, file_rate, rate)
    return Recording(path, mono, rate or file_rate)


def _decode(path: Path, file: soundfile.SoundFile) -> np.ndarray:
    """All samples [T, channels]; fewer than the file announces is an error."""
    samples: np.ndarray = file.read(dtype="float64", always_2d=True)
    if len(samples) < file.frames:
        raise DataError(f"{path}: cut short: {len(samples):,} of {file.frames:,} samples are there")
    return samples


def _resample(path: Path, samples: np.ndarray, file_rate: int, rate: int) -> np.ndarray:
    import soxr

    result: np.ndarray = soxr.resample(samples, file_rate, rate, quality="HQ")
    if not len(result):
        raise DataError(f"{path}: {len(samples)} samples are too few to resample to {rate:,} Hz")
    return result


def _check_wav(path: Path) -> None:
    """Raises DataError for a wav that is cut short or compressed.

    The decoder reads a truncated file without a word, so its chunks are walked here.
    """
    total = path.stat().st_size
    with path.open("rb") as file:
        if file.read(12)[:4] != b"RIFF":
            return  # RF64, or no wav at all: the decoder says so
        while len(head := file.read(8)) == 8:
            size = struct.unpack("<I", head[4:])[0]
            if head[:4] == b"data":
                there = total - file.tell()
                if size > there and size != UNKNOWN_SIZE:
                    raise DataError(
                        f"{path}: cut short: {there:,} of {size:,} bytes of sound are there"
                    )
                return
            content = file.read(min(size, 40)) if head[:4] == b"fmt " else b""
            if len(content) >= 16:
                _check_format(path, content)
            file.seek(size + size % 2 - len(content), 1)
    raise DataError(f"{path}: cut short: the wav has no sound in it")


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


def wav_bytes(wave: Tensor, rate: int) -> bytes:
    """A mono 16-bit wav file of amplitudes in [-1, 1]."""
    content = io.BytesIO()
    samples = wave.flatten().clamp(-1.0, 1.0).double().numpy()
    soundfile.write(content, samples, rate, format="WAV", subtype="PCM_16")
    return content.getvalue()
