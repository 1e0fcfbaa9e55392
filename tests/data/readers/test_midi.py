"""MIDI files: notes as they sound, sixteenth by sixteenth."""

from __future__ import annotations

import sys

import pytest
from support.reading import message, put

from throughtime.data.readers.read import read
from throughtime.errors import MissingExtra

ON, OFF = 0x90, 0x80
BEAT = 96


def midi(*events: tuple[int, int, int], beat: int = BEAT) -> bytes:
    """A file of one track; events: time since the last, on or off with its channel, note."""
    track = b""
    for time, status, note in events:
        long = bytes([0x80 | time >> 7, time & 0x7F]) if time > 127 else bytes([time])
        track += long + bytes([status, note, 64])
    track += b"\x00\xff\x2f\x00"
    head = b"MThd\x00\x00\x00\x06\x00\x00\x00\x01" + beat.to_bytes(2, "big")
    return head + b"MTrk" + len(track).to_bytes(4, "big") + track


def test_keys_that_sound() -> None:
    pytest.importorskip("mido")
    # A quarter of C4, an eighth of E4 from the second half of it, together for an eighth.
    data = midi((0, ON, 60), (48, ON, 64), (48, OFF, 60), (0, OFF, 64))
    got = read(put("a.mid", data))
    assert (got.domain.kind, got.domain.step) == ("binary", "frame")
    assert got.names == ("a",)
    sounding = [
        [name for name, on in zip(got.domain.columns, row, strict=True) if on]
        for row in got.values.tolist()
    ]
    assert sounding == [["note 60"], ["note 60"], ["note 60", "note 64"], ["note 60", "note 64"]]
    assert got.notes == ("a.mid: a frame for each sixteenth note, 1 while a key sounds",)


def test_what_is_left_out_is_said() -> None:
    pytest.importorskip("mido")
    drums = ((0, ON | 9, 40), (10, OFF | 9, 40))
    data = midi((0, ON, 60), (96, OFF, 60), (0, ON, 5), (9, OFF, 5), *drums)
    assert read(put("a.mid", data)).notes[1:] == (
        "a.mid: 1 notes beyond the 88 keys are left out",
        "a.mid: 1 strokes of percussion are left out",
    )


def test_what_cannot_be_read() -> None:
    pytest.importorskip("mido")
    assert message(put("a.mid", midi())) == "a.mid: holds no note of the 88 keys of a piano"
    whole = midi((0, ON, 60), (96, OFF, 60))
    assert message(put("b.mid", whole[:-9])).startswith("b.mid: not a readable MIDI file")
    huge = whole.replace(b"MThd\x00\x00\x00\x06", b"MThd\xff\xff\xff\xff")
    assert message(put("c.mid", huge)).startswith("c.mid: ")
    assert message(put("d.mid", midi((0, ON, 60), (96, OFF, 60), beat=0))).startswith("d.mid: its")


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mido", None)
    assert message(put("a.mid", midi()), MissingExtra) == (
        "a.mid: a MIDI file needs the package 'mido': pip install 'throughtime[midi]'"
    )
