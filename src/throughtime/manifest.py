"""A folder whose files are vouched for by the one that is written last, model.json.

It holds the SHA-256 of every other file that is ever loaded. Files that are replaced are written
beside the old ones first (`NAME.new`); the new model.json makes them the ones that count; then they
get their names. A crash at any moment leaves the old folder or the new one, whole.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

from throughtime import files
from throughtime.errors import RunError
from throughtime.files import Damaged, Missing

MODEL = "model.json"
SCHEMA = 3
_FILES = "files"


class Rewritten(RunError):
    """A folder that another process wrote to while it was read."""


@dataclass(frozen=True)
class Manifest:
    """What model.json says of a folder.

    Attributes:
        folder: of a model or a run.
        description: JSON values, the folder's own.
        digests: SHA-256 of every other file that is loaded, by its path within the folder.
    """

    folder: Path
    description: dict[str, Any]
    digests: dict[str, str]

    @staticmethod
    def read(folder: Path) -> Manifest:
        """The manifest of a folder.

        Raises:
            RunError: if it is missing, damaged, or of an older or newer version.
        """
        path = folder / MODEL
        values = files.parse_described(files.read_bytes(path), path, SCHEMA)
        with files.reading(path):
            return Manifest(folder, values, dict(values.pop(_FILES)))

    def __contains__(self, name: str) -> bool:
        return name in self.digests

    def content(self, name: str) -> bytes:
        """The bytes of a file as they were written.

        Raises:
            RunError: if the file is missing or another one; `Rewritten` where the whole folder is.
        """
        path = self.folder / name
        if name not in self:
            raise RunError(f"{self.folder} has no {name} that its {MODEL} vouches for")
        found = False
        for place in (path, _staged(path), path):  # it may get its name meanwhile
            with contextlib.suppress(Missing):
                content = files.read_bytes(place)
                if files.digest(content) == self.digests[name]:
                    return content
                found = True
        if Manifest.read(self.folder).digests != self.digests:
            raise Rewritten(f"{self.folder} was written to while it was read; load it again")
        if found:
            raise Damaged(path, "its SHA-256 differs")
        raise Missing(
            f"{self.folder} has no {name}; restore it from a copy, or fit again in another folder"
        )

    def tensors(self, name: str) -> tuple[dict[str, Tensor], Any]:
        """The tensors and values of a safetensors file."""
        return files.parse_tensors(self.content(name), self.folder / name)

    def replace(self, contents: Mapping[str, bytes]) -> None:
        """Writes these files of the folder anew, all or none."""
        write(self.folder, contents, self.description, self.digests)


def write(
    folder: Path,
    contents: Mapping[str, bytes],
    description: Mapping[str, Any],
    others: Mapping[str, str],
) -> None:
    """Writes the files of a folder, all or none, and model.json.

    Args:
        folder: made where it is missing.
        contents: of the files, by name.
        description: JSON values for model.json.
        others: SHA-256 of files that are in the folder already.
    """
    settle(folder)
    for name, content in contents.items():
        files.write_bytes(_staged(folder / name), content)
    digests = {**others, **{name: files.digest(content) for name, content in contents.items()}}
    values = {**description, "schema": SCHEMA, _FILES: dict(sorted(digests.items()))}
    files.write_json(folder / MODEL, values)
    for name in contents:
        files.rename(_staged(folder / name), folder / name)


def digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """SHA-256 of files as they are in a folder."""
    return {name: files.digest(files.read_bytes(folder / name)) for name in names}


def settle(folder: Path) -> None:
    """Gives the files that an interrupted `write` made count their names."""
    try:
        kept = Manifest.read(folder)
    except RunError:  # nothing counts yet
        return
    for name, wanted in kept.digests.items():
        staged = _staged(folder / name)
        if staged.exists() and files.digest(files.read_bytes(staged)) == wanted:
            files.rename(staged, folder / name)
        staged.unlink(missing_ok=True)  # of a write that never counted


def _staged(path: Path) -> Path:
    return path.with_name(f"{path.name}.new")
