"""Bytes as characters: utf-8 first, then what the bytes themselves speak for; never in silence."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np

from throughtime.data.readers.files import Finding
from throughtime.errors import DataError, SettingError

AUTO = "auto"
# Longer marks first: that of utf-32 begins with that of utf-16.
MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)
SAMPLE = 1 << 16  # bytes that an encoding is judged by
UNKNOWN = "\ufffd"  # stands for what is no character
PUNCTUATION = "‘’‚“”„–—…•«»‹›°§©®™€£¥¢¡¿·×÷±²³½¼¾ºª†‡‰¶\u00a0´¨\u00ad"


def decode(data: bytes, path: Path | str, encoding: str = AUTO) -> str:
    """`decoded` without what was noticed."""
    return decoded(data, path, encoding)[0]


def decoded(
    data: bytes, path: Path | str, encoding: str = AUTO
) -> tuple[str, tuple[Finding, ...]]:
    """The bytes as characters, and what was noticed; newlines stay as they are.

    Args:
        data: a whole file; a byte order mark is removed.
        path: what messages call it.
        encoding: as Python names it, or "auto": by the byte order mark, utf-8, utf-16 and utf-32
            by their zeros, then the older encoding that the bytes are plausible in. Bytes that are
            no utf-8 in a text that otherwise is, and halves of surrogate pairs, become U+FFFD.

    Raises:
        DataError: naming the byte and the line that cannot be decoded.
        SettingError: for an encoding that does not exist.
    """
    if encoding == AUTO:
        text, findings = _automatic(data, path)
    else:
        text, findings = _as_told(data, path, encoding), []
    text = text.removeprefix("\ufeff")
    text, halves = mended(text)
    if halves:
        findings.append(_replaced("halves of surrogate pairs are", text, path))
    return text, tuple(findings)


def mended(text: str) -> tuple[str, int]:
    """The text with U+FFFD for each half of a surrogate pair, and how many there were."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        whole = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return whole, whole.count(UNKNOWN) - text.count(UNKNOWN)
    return text, 0


def text_findings(text: str, path: Path | str) -> list[Finding]:
    """What makes characters other than they look: two line ends, two spellings, NULs."""
    findings = []
    if "\r" in text:
        pairs, ends, lone = text.count("\r\n"), text.count("\n"), text.count("\r")
        what = "every" if pairs == ends else f"{pairs:,} of {ends:,}"
        findings.append(
            Finding(
                "lines end in CR LF, two characters, kept as they are"
                if pairs == lone
                else "CR occurs as a character of its own, kept as it is",
                f"{path} ({what} line end{'' if pairs == ends else 's'})"
                if pairs == lone
                else f"{path}:{text.count(chr(10), 0, text.index(chr(13))) + 1}",
            )
        )
    if "\0" in text:
        place = f"{path}:{text.count(chr(10), 0, text.index(chr(0))) + 1}"
        findings.append(Finding("NUL characters are kept as characters", place))
    if not text.isascii() and not unicodedata.is_normalized("NFC", text):
        composed = not unicodedata.is_normalized("NFD", text)
        line = next(
            number
            for number, part in enumerate(text.split("\n"), start=1)
            if not unicodedata.is_normalized("NFC", part)
        ) if not unicodedata.is_normalized("NFC", text) else 1  # fmt: skip
        findings.append(
            Finding(
                "letters with marks are written in two ways, composed and decomposed, and are "
                "different characters to a model; unicodedata.normalize('NFC', …) makes them one"
                if composed
                else "letters with marks are decomposed, two characters each, kept as they are",
                f"{path}:{line}",
            )
        )
    return findings


def _as_told(data: bytes, path: Path | str, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except LookupError as error:
        raise SettingError(
            f"encoding='{encoding}': no such encoding; the usual one is utf-8"
        ) from error
    except UnicodeError as error:
        raise _undecodable(data, path, encoding, error) from error


def _undecodable(data: bytes, path: Path | str, encoding: str, error: Exception) -> DataError:
    """The error for bytes that are not in the encoding, with one that they are in."""
    start = int(getattr(error, "start", 0))
    line = data.count(b"\n", 0, start) + 1
    guess = _guess(data)
    hint = f"; encoding='{guess}' reads it" if guess is not None else ""
    if not hint:
        hint = "; it looks like no text; encoding='bytes' takes the bytes as they are"
    return DataError(
        f"{path}:{line}: byte {start:,} (0x{data[start]:02x}) is not {encoding}{hint}"
    )


def _automatic(data: bytes, path: Path | str) -> tuple[str, list[Finding]]:
    name = _guess(data)
    try:
        text = data.decode(name or "utf-8")
    except UnicodeDecodeError as error:
        if name is None:
            raise _undecodable(data, path, "utf-8", error) from error
        text = data.decode(name, "replace")
        return text, [_replaced(f"bytes that are not {name} are", text, path)]
    if name in ("utf-8", "utf-8-sig"):
        return text, []
    return text, [Finding(f"read as {name}, not utf-8", _example(text, path))]


def _replaced(what: str, text: str, path: Path | str) -> Finding:
    line = text.count("\n", 0, text.index(UNKNOWN)) + 1
    return Finding(f"{what} read as U+FFFD", f"{path}:{line}")


def _example(text: str, path: Path | str) -> str:
    """The first word that is not plain ASCII, with its place: `a.txt:3 'naïve'`."""
    for number, line in enumerate(text.split("\n"), start=1):
        for word in line.split():
            if not word.isascii():
                return f"{path}:{number} '{word[:30]}'"
    return str(path)


def _guess(data: bytes) -> str | None:
    """The encoding that bytes are in, as Python names it; None where none is plausible."""
    for mark, name in MARKS:
        if data.startswith(mark):
            return name
    zeros = _by_zeros(data)
    if zeros is not None:
        return zeros
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        if _damaged_utf8(data):
            return "utf-8"
        return _older(data)
    return "utf-8"


def _by_zeros(data: bytes) -> str | None:
    """utf-16 or utf-32 without a mark: most characters have zeros in the same places."""
    sample = data[: min(len(data), SAMPLE) // 4 * 4]
    if b"\0" not in sample:
        return None
    share = (np.frombuffer(sample, dtype=np.uint8).reshape(-1, 4) == 0).mean(axis=0)
    patterns = {
        "utf-32-le": (2, 3), "utf-32-be": (0, 1), "utf-16-le": (1, 3), "utf-16-be": (0, 2)
    }  # fmt: skip
    for name, places in patterns.items():
        others = [place for place in range(4) if place not in places]
        least = 0.95 if "32" in name else 0.7
        if share[list(places)].min() >= least and share[others].max() <= 0.05 + 0.9 * ("32" in name):
            try:
                text = sample.decode(name, "strict" if "32" in name else "replace")
            except UnicodeDecodeError:
                continue
            if "\0" not in text:
                return name
    return None


def _damaged_utf8(data: bytes) -> bool:
    """Whether nine in ten characters beyond ASCII are valid utf-8, or only the last one is cut."""
    text = data[: 16 * SAMPLE].decode("utf-8", "replace")
    bad = text.count(UNKNOWN) - data.count(UNKNOWN.encode(), 0, 16 * SAMPLE)
    points = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    good = int(np.count_nonzero(points > 127)) - bad
    return good >= 9 * bad or (text.endswith(UNKNOWN) and good >= 1 and bad == 1)


def _older(data: bytes) -> str | None:
    """The single-byte or East Asian encoding that the lines beyond ASCII are plausible in."""
    from charset_normalizer import from_bytes

    lines = [line for line in data[: 64 * SAMPLE].split(b"\n") if not line.isascii()]
    sample = b"\n".join(lines)[:SAMPLE]
    if len(sample) == SAMPLE:
        sample = sample[: sample.rfind(b"\n") + 1] or sample
    best = from_bytes(sample).best()
    for name in (best.encoding if best is not None else None, "cp1252"):
        if name is not None and _plausible(data, sample, name):
            return str(name).replace("_", "-") if name.startswith("utf") else str(name)
    return None


def _plausible(data: bytes, sample: bytes, name: str) -> bool:
    """Whether the bytes decode, to letters and punctuation and to no control characters."""
    try:
        data.decode(name)
        text = sample.decode(name)
    except (UnicodeDecodeError, LookupError):
        return False
    beyond = [character for character in text if character > "\x7f"]
    usual = sum(c.isalpha() or c in PUNCTUATION for c in beyond)
    control = any(unicodedata.category(c) == "Cc" and c not in "\t\n\r\f\v\x1a" for c in text)
    return not control and len(beyond) > 0 and usual >= 0.9 * len(beyond)
