"""Folders whose files model.json vouches for: whole after any crash, or refused by name."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from throughtime import files, manifest
from throughtime.errors import RunError
from throughtime.manifest import Manifest, Rewritten

OLD = {"a.safetensors": b"old a", "b.safetensors": b"old b"}
NEW = {"a.safetensors": b"new a", "c.safetensors": b"new c"}


def contents(folder: Path, names: Any) -> dict[str, bytes]:
    kept = Manifest.read(folder)
    return {name: kept.content(name) for name in names}


def test_a_folder_comes_back(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    manifest.write(folder, OLD, {"name": "x"}, {})
    (folder / "log.jsonl").write_bytes(b"{}\n")
    manifest.write(folder, OLD, {"name": "y"}, manifest.digests(folder, ["log.jsonl"]))
    kept = Manifest.read(folder)
    assert kept.description == {"schema": manifest.SCHEMA, "name": "y"}
    assert kept.content("log.jsonl") == b"{}\n"
    assert contents(folder, OLD) == OLD
    assert {path.name for path in folder.iterdir()} == {*OLD, "log.jsonl", "model.json"}
    assert "z" not in kept
    with pytest.raises(RunError, match=r"has no z that its model.json vouches for"):
        kept.content("z")


def test_tensors_come_back(tmp_path: Path) -> None:
    content = files.tensor_bytes({"a": torch.arange(3)}, {"b": 1})
    manifest.write(tmp_path, {"x.safetensors": content}, {}, {})
    tensors, values = Manifest.read(tmp_path).tensors("x.safetensors")
    assert tensors["a"].tolist() == [0, 1, 2]
    assert values == {"b": 1}


class Crash(BaseException):
    """Stands for a kill."""


def test_a_crash_leaves_the_old_folder_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off before each change of a name, and after a crash before each change once more."""
    rename, seen = os.replace, set[str]()

    def write(folder: Path, given: dict[str, bytes], name: str, left: int) -> bool:
        def replace(source: Any, target: Any) -> None:
            nonlocal left
            if left == 0:
                raise Crash
            left -= 1
            rename(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", replace)
            try:
                manifest.write(folder, given, {"name": name}, {})
            except Crash:
                return False
        return True

    for first in range(8):
        for second in range(8):
            folder = tmp_path / f"{first}-{second}"
            write(folder, OLD, "old", 99)
            write(folder, NEW, "new", first)
            newest = {"name": "newest", "content": {"a.safetensors": b"newest"}}
            done = write(folder, newest["content"], "newest", second)  # type: ignore[arg-type]
            name = Manifest.read(folder).description["name"]
            wanted = {"old": OLD, "new": NEW, "newest": newest["content"]}[name]
            assert contents(folder, wanted) == wanted  # type: ignore[arg-type]
            assert name == "newest" or not done
            seen.add(name)
    assert seen == {"old", "new", "newest"}


def test_damage_is_named(tmp_path: Path) -> None:
    manifest.write(tmp_path, OLD, {}, {})
    kept, path = Manifest.read(tmp_path), tmp_path / "a.safetensors"
    path.write_bytes(b"old A")
    with pytest.raises(RunError, match=rf"^{path} is damaged \(its SHA-256 differs\); restore it"):
        kept.content("a.safetensors")
    path.unlink()
    with pytest.raises(RunError, match=rf"^{tmp_path} has no a.safetensors; restore it"):
        kept.content("a.safetensors")


def test_a_folder_written_to_while_it_is_read(tmp_path: Path) -> None:
    manifest.write(tmp_path, OLD, {}, {})
    kept = Manifest.read(tmp_path)
    manifest.write(tmp_path, NEW, {}, {})
    with pytest.raises(Rewritten, match="was written to while it was read; load it again"):
        kept.content("a.safetensors")


def test_names_are_given_once_more_after_a_crash(tmp_path: Path) -> None:
    """As a process leaves them that ends between model.json and the new names."""
    manifest.write(tmp_path, OLD, {}, {})
    (tmp_path / "a.safetensors").rename(tmp_path / "a.safetensors.new")
    (tmp_path / "b.safetensors.new").write_bytes(b"of a write that never counted")
    assert contents(tmp_path, OLD) == OLD
    manifest.settle(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {*OLD, "model.json"}
    assert contents(tmp_path, OLD) == OLD


def test_a_manifest_that_is_changed_or_missing(tmp_path: Path) -> None:
    manifest.write(tmp_path, OLD, {"name": "x"}, {})
    path = tmp_path / "model.json"
    whole = path.read_bytes()
    for at in range(len(whole)):
        for bit in (0, 5, 7):
            changed = bytearray(whole)
            changed[at] ^= 1 << bit
            path.write_bytes(changed)
            with pytest.raises(RunError, match=rf"^{path} is damaged \("):
                Manifest.read(tmp_path)
    values = json.loads(whole)
    for other in ({**values, "files": {}}, {k: v for k, v in values.items() if k != "digest"}):
        path.write_text(json.dumps(other))
        with pytest.raises(RunError, match=rf"^{path} is damaged \("):
            Manifest.read(tmp_path)
    path.unlink()
    with pytest.raises(RunError, match=rf"^{tmp_path} has no model.json"):
        Manifest.read(tmp_path)


def test_folders_of_other_versions(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text('{"schema": 2, "sha256": "9f"}')
    with pytest.raises(RunError, match=r"by an older throughtime \(schema 2, this one reads 3\)"):
        Manifest.read(tmp_path)
    for write in (path.write_text, lambda text: files.write_json(path, json.loads(text))):
        write('{"schema": 4}')
        with pytest.raises(RunError, match=r"by a newer throughtime \(schema 4, .*pip install"):
            Manifest.read(tmp_path)
    files.write_json(path, {"schema": 3})
    with pytest.raises(RunError, match=r"model.json is damaged \(no 'files'\)"):
        Manifest.read(tmp_path)


def test_a_file_that_gets_its_name_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest.write(tmp_path, OLD, {}, {})
    path, read = tmp_path / "a.safetensors", files.read_bytes
    staged = path.rename(tmp_path / "a.safetensors.new")
    path.write_bytes(b"the one before")

    def then_named(place: Path) -> bytes:
        content = read(place)
        if staged.exists():
            staged.replace(path)
        return content

    kept = Manifest.read(tmp_path)
    monkeypatch.setattr(files, "read_bytes", then_named)
    assert kept.content("a.safetensors") == OLD["a.safetensors"]
