"""Text: code points (or bytes) of files, or of their lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from throughtime.data.compact import blocks, compact
from throughtime.data.readers.encodings import decoded, text_findings
from throughtime.data.readers.files import Finding, gathered, read_bytes
from throughtime.data.readers.options import Options
from throughtime.data.sequences import Domain, Sequences
from throughtime.errors import DataError

NEWLINE = 10


def text_sequences(
    texts: Sequence[np.ndarray],
    names: Sequence[str],
    step: str,
    lengths: Sequence[np.ndarray] | None = None,
) -> Sequences:
    """Sequences of code points (step "character") or of bytes (step "byte").

    texts: integers [T_i]; lengths: those of the sequences that each text is cut into.
    """
    if lengths is None:
        lengths = [np.array([len(text)]) for text in texts]
    values = compact(texts[0] if len(texts) == 1 else np.concatenate(texts))
    domain = Domain("text", step=step)
    if step == "byte":
        domain = Domain("symbols", num_symbols=256, step=step)
    return Sequences(
        values=values,
        offsets=torch.from_numpy(np.cumsum(np.concatenate([[0], *lengths]), dtype=np.int64)),
        domain=domain,
        names=tuple(names),
    )


def code_points(text: str) -> np.ndarray:
    """The Unicode code points of a text [T], in the smallest type that holds them."""
    if text.isascii():
        return np.frombuffer(text.encode("ascii"), dtype=np.uint8)
    parts = [
        compact(np.frombuffer(text[part].encode("utf-32-le", "surrogatepass"), dtype=np.uint32))
        for part in blocks(len(text))
    ]
    return torch.cat(parts).numpy()


@dataclass(frozen=True)
class Text:
    """Code points or bytes [T] of one file, and what was noticed in it."""

    path: Path
    content: np.ndarray
    findings: tuple[Finding, ...] = ()


def text_of(path: Path, encoding: str | None) -> Text:
    """One file; encoding "bytes" takes the bytes as they are."""
    data = read_bytes(path)
    if encoding == "bytes":
        return Text(path, np.frombuffer(data, dtype=np.uint8))
    text, findings = decoded(data, path, encoding)
    if not text:
        raise DataError(f"{path}: the file is empty")
    return Text(path, code_points(text), (*findings, *text_findings(text, path)))


def join_texts(texts: Sequence[Text], names: Sequence[str], options: Options) -> Sequences:
    """One sequence from each file, or one from each of its lines.

    Newlines are kept, also at the end of each line: the sequences of a file, one after the other,
    are the file, and the end of a line is something that a model predicts.
    """
    lengths, labels = [], []
    for text, name in zip(texts, names, strict=True):
        cuts = _line_lengths(text.content) if options.lines else np.array([len(text.content)])
        lengths.append(cuts)
        labels += [f"{name}:{line + 1}" for line in range(len(cuts))] if options.lines else [name]
    step = "byte" if options.encoding == "bytes" else "character"
    sequences = text_sequences([text.content for text in texts], labels, step, lengths)
    return sequences.with_notes(*gathered(found for text in texts for found in text.findings))


def _line_lengths(text: np.ndarray) -> np.ndarray:
    """Lengths of the lines, their newlines included; the last may have none."""
    ends = np.flatnonzero(text == NEWLINE) + 1
    if not len(ends) or ends[-1] != len(text):
        ends = np.append(ends, len(text))
    return np.diff(ends, prepend=0)
