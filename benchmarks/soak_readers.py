"""What `soak.py` damages: files of data of every kind that is read."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import scipy.io
import soundfile
import torch
from mutations import Target
from safetensors.torch import save

import throughtime as tt

DAYS = [f"2020-01-{day:02d}" for day in range(1, 29)]
CSV = "date,y\n" + "".join(f"{day},{k * 1.5}\n" for k, day in enumerate(DAYS))
RECORDS = [{"date": day, "y": k * 1.0} for k, day in enumerate(DAYS)]
FRAME = pl.DataFrame({"date": pl.Series(DAYS).str.to_date(), "y": np.arange(28.0)})
TONE = 0.5 * np.sin(np.arange(3000) * 0.1)
XLSX = {
    "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/><Override PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/><Override PartName="/xl/worksheets/sheet1.xml" ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>',  # noqa: E501
    "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>',  # noqa: E501
    "xl/workbook.xml": '<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets><sheet name="A" sheetId="1" r:id="r1"/></sheets></workbook>',  # noqa: E501
    "xl/_rels/workbook.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships"><Relationship Id="r1" Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',  # noqa: E501
}


def _written(write: Callable[[io.BytesIO], Any]) -> bytes:
    """What a library writes into a file."""
    content = io.BytesIO()
    write(content)
    return content.getvalue()


def _tables() -> dict[str, bytes]:
    quoted = CSV.replace(",", ";").replace("date;y", '"date";"y"')
    return {
        "a.csv": CSV.encode(),
        "b.tsv": CSV.replace(",", "\t").encode(),
        "c.csv": quoted.encode("utf-16"),
        "d.dat": CSV.encode(),
    }


def _packed() -> dict[str, bytes]:
    def zipped(content: io.BytesIO, *names: str) -> None:
        with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(name, CSV)

    def tarred(content: io.BytesIO) -> None:
        with tarfile.open(fileobj=content, mode="w") as archive:
            entry = tarfile.TarInfo("a.csv")
            entry.size = len(CSV)
            archive.addfile(entry, io.BytesIO(CSV.encode()))

    files = {
        "a.csv.gz": gzip.compress(CSV.encode(), mtime=0),
        "b.csv.bz2": bz2.compress(CSV.encode()),
        "c.csv.xz": lzma.compress(CSV.encode()),
        "d.zip": _written(lambda content: zipped(content, "a.csv")),
        "e.zip": _written(lambda content: zipped(content, "a.csv", "b.csv")),
        "f.tar": _written(tarred),
    }
    try:
        import zstandard
    except ImportError:
        return files
    return files | {"g.csv.zst": zstandard.compress(CSV.encode())}


def _columnar() -> dict[str, bytes]:
    lists = pl.DataFrame({"id": ["a", "b"], "target": [[1.0, 2.0, 3.0] * 5, [4.0, 5.0] * 6]})
    return {
        "a.parquet": _written(FRAME.write_parquet),
        "b.feather": _written(FRAME.write_ipc),
        "c.arrow": _written(FRAME.write_ipc_stream),
        "d.parquet": _written(lists.write_parquet),
    }


def _sheets() -> dict[str, bytes]:
    rows = "".join(f"<row><c><v>{k}</v></c></row>" for k in range(20))
    sheet = (
        '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'
        '<row><c t="inlineStr"><is><t>y</t></is></c></row>' + rows + "</sheetData></worksheet>"
    )

    def book(content: io.BytesIO) -> None:
        with zipfile.ZipFile(content, "w") as archive:
            for name, text in {**XLSX, "xl/worksheets/sheet1.xml": sheet}.items():
                archive.writestr(name, text)

    return {"a.xlsx": _written(book)}


def _arrays() -> dict[str, bytes]:
    fields = np.array([(1, 2.0), (3, 4.0)], dtype=[("t", "i4"), ("b", "f8")])
    cells = np.empty((1, 2), dtype=object)
    cells[0, 0], cells[0, 1] = np.eye(3), np.ones((2, 3))

    def mat(**how: Any) -> bytes:
        return _written(lambda content: scipy.io.savemat(content, {"y": np.arange(50.0)}, **how))

    return {
        "a.npy": _written(lambda content: np.save(content, np.arange(60.0))),
        "b.npy": _written(lambda content: np.save(content, fields)),
        "c.npz": _written(lambda content: np.savez(content, x=np.arange(30.0))),
        "d.npz": _written(lambda content: np.savez_compressed(content, x=np.arange(30.0))),
        "e.mat": mat(),
        "f.mat": mat(do_compression=True),
        "g.mat": mat(format="4"),
        "h.mat": _written(lambda content: scipy.io.savemat(content, {"c": cells})),
        "i.safetensors": save({"y": torch.arange(40.0)}),
    }


def _json() -> dict[str, bytes]:
    def lines(records: Sequence[Any]) -> bytes:
        return "\n".join(map(json.dumps, records)).encode()

    series = [{"start": "2020-01-01", "freq": "D", "target": [1, 2, 3.5], "item_id": str(k)}
              for k in range(9)]  # fmt: skip
    return {
        "a.json": json.dumps(RECORDS).encode(),
        "b.json": json.dumps({"y": [1, 2, 3.5] * 9}).encode(),
        "c.json": json.dumps([1, 2, None] * 9).encode(),
        "d.jsonl": lines(RECORDS),
        "e.jsonl": lines([{"text": f"hello wörld \U0001f600 {k}"} for k in range(9)]),
        "f.jsonl": lines(series),
    }


def _texts() -> dict[str, bytes]:
    return {
        "a.txt": ("Käse \U0001f9c0 and some text\nmore lines here\n" * 9).encode(),
        "b.txt": ("naïve café\r\n" * 9).encode("latin-1"),
        "c.txt": ("naïve\n" * 9).encode("utf-16"),
        "d": ("some words\n" * 20).encode(),
    }


def _repositories() -> dict[str, bytes]:
    return {
        "a.tsf": b"# c\n@relation x\n@attribute series_name string\n@attribute start date\n"
        b"@frequency daily\n@data\nT1:1979-01-01 00-00-00:1,2,3\nT2:1980-01-01 00-00-00:5,?\n",
        "b.ts": b"@problemName X\n@timeStamps false\n@classLabel true a b\n@data\n"
        b"1,2,3:4,5,6:a\n3,2,3:4,5,7:b\n",
        "c.arff": b"@relation r\n@attribute y numeric\n@attribute 'w x' {a,b}\n@data\n1,a\n3,'b'\n",
    }


def _sounds() -> dict[str, bytes]:
    files = {}
    for end, form, subtype in [
        ("wav", "WAV", "PCM_16"), ("wav", "WAVEX", "FLOAT"), ("flac", "FLAC", "PCM_16"),
        ("ogg", "OGG", "VORBIS"), ("mp3", "MP3", None), ("aiff", "AIFF", "PCM_16"),
        ("au", "AU", "PCM_16"), ("caf", "CAF", "PCM_16"), ("w64", "W64", "PCM_16"),
        ("opus", "OGG", "OPUS"),
    ]:  # fmt: skip
        content = io.BytesIO()
        soundfile.write(content, TONE, 48000, format=form, subtype=subtype)
        files[f"{len(files)}.{end}"] = content.getvalue()
    return files


def _midi() -> dict[str, bytes]:
    notes = b"".join(bytes([0, 0x90, 60 + k, 64, 120, 0x80, 60 + k, 0]) for k in range(8))
    track = notes + b"\x00\xff\x2f\x00"
    head = b"MThd\x00\x00\x00\x06\x00\x00\x00\x01\x00\x60MTrk"
    return {"a.mid": head + len(track).to_bytes(4, "big") + track}


def _read(folder: Path, path: Path) -> str:
    return tt.read(path).fingerprint()


def _target(name: str, files: Callable[[], dict[str, bytes]]) -> Target:
    def make(folder: Path) -> Sequence[Path]:
        for file, content in files().items():
            (folder / file).write_bytes(content)
        return sorted(folder.iterdir())

    return Target(name, make, _read)


TARGETS: tuple[Target, ...] = tuple(
    _target(f"read-{files.__name__.strip('_')}", files)
    for files in (
        _tables, _packed, _columnar, _sheets, _arrays, _json, _texts, _repositories, _sounds, _midi
    )
)  # fmt: skip
