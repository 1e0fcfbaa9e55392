"""Finished pieces of work: made once, and found again by a run that was interrupted."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from throughtime import files
from throughtime.types import Event, unheard

Value = TypeVar("Value")


@dataclass(frozen=True)
class Artifacts:
    """A store of finished pieces of work, in a folder or, without one, not kept at all.

    Attributes:
        folder: where they are kept.
        on_event: is told of pieces that are damaged.
    """

    folder: Path | None = None
    on_event: Event = unheard

    def within(self, name: str) -> Artifacts:
        """The store of one model, by the model's name."""
        place = re.sub(r"[^a-z0-9]+", "-", name.lower())
        return replace(self, folder=None if self.folder is None else self.folder / place)

    def path(self, name: str) -> Path | None:
        """Where a piece is kept, if it is kept."""
        return None if self.folder is None else self.folder / name

    def cached(
        self,
        name: str,
        compute: Callable[[], Value],
        save: Callable[[Path, Value], Any] = files.write_json,
        load: Callable[[Path], Value] = files.read_json,
    ) -> Value:
        """A piece of work: read back if it is there, else done, and kept where there is a folder.

        A piece that is damaged is told of and made anew.

        Args:
            name: of the file.
            compute: does the work.
            save: writes the value at once or not at all; JSON if not given.
            load: what `save` wrote, to the same bits.
        """
        path = self.path(name)
        if path is not None and path.exists():
            try:
                with files.reading(path):
                    return load(path)
            except files.Damaged as error:
                self.on_event({"event": "note", "message": error.anew})
        value = compute()
        if path is not None:
            save(path, value)
        return value

    def drop(self, *names: str) -> None:
        """Takes pieces away that are needed no more."""
        for name in names:
            path = self.path(name)
            if path is not None:
                path.unlink(missing_ok=True)
