"""MIDI files as piano rolls: 88 keys, 1 while a note sounds."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np

from throughtime.data.readers.arrays import KEYS, LOWEST, piano_rolls
from throughtime.data.readers.files import parsing, read_bytes, stem
from throughtime.data.readers.options import Options
from throughtime.data.sequences import Sequences
from throughtime.errors import DataError, MissingExtra

FRAMES = 4  # in a quarter note
LONGEST = 1 << 20  # frames: three days of music
PERCUSSION = 9


def read_midi(path: Path, options: Options) -> Sequences:
    """All tracks together, a frame for each sixteenth note; percussion is left out."""
    try:
        import mido
    except ImportError as error:
        raise MissingExtra("mido", "midi", f"{path}: a MIDI file") from error
    data = read_bytes(path)
    with parsing(path, "MIDI file", OSError, EOFError, ValueError, IndexError, KeyError, TypeError,
                 AttributeError, mido.KeySignatureError):  # fmt: skip
        # From memory: a size in a header that lies is then no more than what is there.
        file = mido.MidiFile(file=BytesIO(data))
    ticks = int(file.ticks_per_beat)
    if not 1 <= ticks < 1 << 15:
        raise DataError(f"{path}: its clock counts frames of film, not parts of a beat")
    spans: list[tuple[int, int, int]] = []
    percussion, end = 0, 0
    for track in file.tracks:
        now, sounding = 0, dict[tuple[int, int], int]()
        for event in track:
            now += event.time
            if event.type not in ("note_on", "note_off"):
                continue
            if event.channel == PERCUSSION:
                percussion += event.type == "note_on"
                continue
            key = (event.channel, event.note)
            if key in sounding:
                spans.append((event.note, sounding.pop(key), now))
            if event.type == "note_on" and event.velocity > 0:
                sounding[key] = now
        spans.extend((note, start, now) for (_, note), start in sounding.items())
        end = max(end, now)
    return _roll(path, spans, ticks / FRAMES, end, percussion)


def _roll(
    path: Path, spans: list[tuple[int, int, int]], frame: float, end: int, percussion: int
) -> Sequences:
    inside = [span for span in spans if LOWEST <= span[0] < LOWEST + KEYS]
    if not inside:
        raise DataError(f"{path}: holds no note of the 88 keys of a piano")
    length = max(max(round(stop / frame) for _, _, stop in inside), 1)
    if length > LONGEST:
        raise DataError(f"{path}: {length:,} sixteenth notes long; its clock is damaged")
    roll = np.zeros((length, KEYS))
    for note, start, stop in inside:
        first = min(round(start / frame), length - 1)
        roll[first : max(round(stop / frame), first + 1), note - LOWEST] = 1
    notes = [f"{path}: a frame for each sixteenth note, 1 while a key sounds"]
    if len(inside) < len(spans):
        notes.append(f"{path}: {len(spans) - len(inside):,} notes beyond the 88 keys are left out")
    if percussion:
        notes.append(f"{path}: {percussion:,} strokes of percussion are left out")
    return piano_rolls([roll], [stem(path)]).with_notes(*notes)
