"""Sound as a file."""

from __future__ import annotations

import io

from torch import Tensor


def wav_bytes(wave: Tensor, rate: int) -> bytes:
    """A mono 16-bit wav file of amplitudes in [-1, 1]."""
    import soundfile

    content = io.BytesIO()
    samples = wave.flatten().clamp(-1.0, 1.0).double().numpy()
    soundfile.write(content, samples, rate, format="WAV", subtype="PCM_16")
    return content.getvalue()
