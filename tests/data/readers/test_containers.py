"""Compressed files and archives: known by their first bytes, unpacked within bounds."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import sys
import tarfile
import threading
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from support.reading import message, put, words

from throughtime.data.readers import containers
from throughtime.data.readers.read import read
from throughtime.errors import DataError, MissingExtra

CSV = b"date,y\n2001-01-01,1\n2001-01-02,2\n2001-01-03,4\n"
PACK = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}


def zipped(name: str, members: dict[str, bytes], **options: Any) -> str:
    with zipfile.ZipFile(name, "w", **options) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    return name


def tarred(name: str, members: dict[str, bytes], mode: str = "w") -> str:
    with tarfile.open(name, mode) as archive:  # type: ignore[call-overload]
        for member, data in members.items():
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return name


@pytest.mark.parametrize("end", PACK)
def test_compressed_whatever_the_name_says(end: str) -> None:
    packed = PACK[end](CSV)
    for name in (f"sales.csv.{end}", "sales.csv", "sales.dat"):
        got = read(put(name, packed))
        assert got.values.tolist() == [[1], [2], [4]], name
        assert got.names == ("sales",)
        hidden = any("-compressed, though its name does not say so" in note for note in got.notes)
        assert hidden == (not name.endswith(end)), name


def test_zstandard() -> None:
    zstandard = pytest.importorskip("zstandard")
    packed = zstandard.compress(CSV)
    assert read(put("a.csv.zst", packed)).values.tolist() == [[1], [2], [4]]
    assert message(put("b.csv.zst", packed[:-4])) == (
        "b.csv.zst: the zstd file is damaged or cut short"
    )


def test_zstandard_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    assert message(put("a.csv.zst", b"\x28\xb5\x2f\xfd1234"), MissingExtra) == (
        "a.csv.zst: a zstd file needs the package 'zstandard': pip install 'throughtime[zstd]'"
    )


def test_a_compressed_recording_parquet_and_text() -> None:
    import polars as pl

    tone = 0.5 * np.sin(np.arange(800) * 0.3)
    soundfile.write("a.wav", tone, 8000)
    pl.DataFrame({"y": [1.0, 2.0]}).write_parquet("b.parquet")
    for name in ("a.wav", "b.parquet"):
        put(f"{name}.xz", lzma.compress(Path(name).read_bytes()))
        assert read(f"{name}.xz").fingerprint() == read(name).fingerprint()
    assert words(read(put("story.gz", gzip.compress(b"once upon a time\n")))) == [
        "once upon a time\n"
    ]


def test_a_zip_of_one_file_is_that_file() -> None:
    junk = {"__MACOSX/._a.csv": b"junk", ".DS_Store": b"junk"}
    got = read(zipped("export.zip", {"deep/sales.csv": CSV, **junk}))
    assert got.names == ("sales",)
    bad = zipped("bad.zip", {"x/a.csv": b"name,y\na,b\nc,d\n"})
    assert message(bad).startswith("bad.zip/x/a.csv: no column holds numbers")


@pytest.mark.parametrize("pack", [zipped, tarred])
def test_an_archive_of_several_is_a_folder(pack: Any) -> None:
    name = pack("all.bin", {"b.csv": CSV, "in/a.csv": CSV})
    got = read(name)
    assert got.names == ("b", "a")
    assert read(name, part="in/a.csv").names == ("a",)
    assert read(name, part="a.csv").names == ("a",)
    assert message(name, part="c.csv") == (
        "all.bin: no member 'c.csv'; did you mean 'b.csv'? there are 'b.csv', 'in/a.csv'"
    )
    mixed = pack("mixed.bin", {"a.csv": CSV, "a.txt": b"words\n"})
    assert message(mixed).startswith("mixed.bin: holds several kinds of data")
    assert words(read(mixed, kind="text")) == ["words\n"]
    assert words(read(mixed, part="a.txt")) == ["words\n"]


def test_a_compressed_tar() -> None:
    tarred("all.tgz", {"a.txt": b"one\n", "b.txt": b"two\n"}, "w:gz")
    assert words(read("all.tgz")) == ["one\n", "two\n"]


def test_members_cannot_leave_the_folder(here: Path) -> None:
    tarred("evil.tar", {"../../escaped.csv": CSV, "/absolute.csv": CSV})
    assert len(read("evil.tar")) == 2
    assert not (here.parent / "escaped.csv").exists()
    assert not Path("/absolute.csv").exists()


def test_links_in_a_tar_are_not_followed() -> None:
    put("secret.csv", CSV)
    with tarfile.open("links.tar", "w") as archive:
        entry = tarfile.TarInfo("a.csv")
        entry.type, entry.linkname = tarfile.SYMTYPE, str(Path("secret.csv").absolute())
        archive.addfile(entry)
    assert message("links.tar") == "links.tar: the archive holds no file"


@pytest.mark.parametrize("end", [*PACK, "zip"])
def test_damaged(end: str) -> None:
    whole = PACK[end](CSV * 50) if end in PACK else Path(zipped("z", {"a.csv": CSV})).read_bytes()
    form = {"gz": "gzip", "bz2": "bzip2"}.get(end, end)
    for data in (whole[:-9], whole[: len(whole) // 2], b"no such thing at all"):
        assert message(put(f"a.csv.{end}", data)) == (
            f"a.csv.{end}: the {form} file is damaged or cut short"
        )


def test_locked_and_empty_archives() -> None:
    data = bytearray(Path(zipped("a.zip", {"a.csv": CSV})).read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + place] |= 1  # "encrypted"
    assert message(put("a.zip", bytes(data))) == "a.zip: locked with a password; unpack it first"
    assert message(zipped("b.zip", {".hidden": b"x"})) == "b.zip: the archive holds no file"


def test_what_is_larger_than_the_machine_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    put("bomb.csv.gz", gzip.compress(b"0" * 10_000_000))
    zipped("bomb.zip", {"a.csv": b"0" * 10_000_000}, compression=zipfile.ZIP_DEFLATED)
    monkeypatch.setattr(containers, "free_memory", lambda: 4_000_000)
    for name in ("bomb.csv.gz", "bomb.zip"):
        assert message(name) == (
            f"{name}: unpacked it is larger than this machine has room for (half of the free "
            f"memory and disk); unpack it and give a part of it"
        )


def test_packed_again_and_again() -> None:
    data = CSV
    for _ in range(5):
        data = gzip.compress(data)
    assert message(put("a.csv.gz", data)) == ("a.csv.gz: packed more than 3 times; unpack it first")


def test_nothing_is_left_behind(monkeypatch: pytest.MonkeyPatch, here: Path) -> None:
    (here / "tmp").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(here / "tmp"))
    read(zipped("a.zip", {"a.csv": CSV, "b.csv": CSV}))
    with pytest.raises(DataError):
        read(zipped("b.zip", {"a.csv": b"nothing"}))
    assert list((here / "tmp").iterdir()) == []


def test_the_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    def given(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    given(CSV)
    got = read("-")
    assert got.values.tolist() == [[1], [2], [4]]
    assert got.names == ("stdin",)
    given(gzip.compress(CSV))
    assert read("-").values.tolist() == [[1], [2], [4]]
    given(b"just some words\nand more\n")
    assert words(read("-")) == ["just some words\nand more\n"]
    given(b"")
    assert message("-") == "stdin: the file is empty"
    given(b"name,y\na,b\nc,d\n")
    assert message("-", kind="series").startswith("stdin: no column holds numbers")


def test_a_pipe() -> None:
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_bytes(gzip.compress(CSV)))
    writer.start()
    assert read("pipe").values.tolist() == [[1], [2], [4]]
    writer.join()
