"""Bytes as characters: utf-8 first, then what the bytes themselves speak for; never in silence."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import numpy as np

from throughtime.data.readers.files import Finding
from throughtime.errors import DataError, SettingError

# Longer marks first: that of utf-32 begins with that of utf-16.
MARKS = (
    (b"\xff\xfe\x00\x00", "utf-32"),
    (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
    (b"\xef\xbb\xbf", "utf-8-sig"),
)
# Without a mark: the places among four bytes that are mostly zeros, and those that are not.
PATTERNS = (
    ("utf-32-le", (2, 3), (0,)),
    ("utf-32-be", (0, 1), (3,)),
    ("utf-16-le", (1, 3), (0, 2)),
    ("utf-16-be", (0, 2), (1, 3)),
)
# Before utf-8, the likeliest first; another is taken for being likelier by MARGIN.
OLDER = (
    "cp1252", "cp1250", "mac_roman", "cp850", "cp1254", "cp1257", "cp1251", "koi8_r", "cp866",
    "cp1253", "cp1255", "cp1256", "euc_kr", "cp932", "euc_jp", "gb18030", "big5",
)  # fmt: skip
MARGIN = 0.03
FEW = 8  # bytes beyond ASCII that say nothing about a language
SAMPLE = 1 << 16  # bytes that an encoding is judged by
UNKNOWN = "\ufffd"  # stands for what is no character
PUNCTUATION = "‘’‚“”„–—…•«»‹›°§©®™€£¥¢¡¿·×÷±²³½¼¾ºª†‡‰¶\u00a0´¨\u00ad"


def decoded(
    data: bytes, path: Path | str, encoding: str | None = None
) -> tuple[str, tuple[Finding, ...]]:
    """The bytes as characters, and what was noticed; newlines stay as they are.

    Args:
        data: a whole file; a byte order mark is removed.
        path: what messages call it.
        encoding: as Python names it; None finds it out: by the byte order mark, utf-8,
            utf-16 and utf-32 by their zeros, then the older encoding that the bytes are plausible
            in. Bytes that are no utf-8 in a text that otherwise is, and halves of surrogate pairs,
            become U+FFFD.

    Raises:
        DataError: naming the byte and the line that cannot be decoded.
        SettingError: for an encoding that does not exist.
    """
    if encoding is None:
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
        pairs, lone = text.count("\r\n"), text.count("\r")
        what = "lines end in CR LF, two characters, kept as they are"
        if pairs < lone:
            what = "CR without LF is kept as a character"
        elif pairs < text.count("\n"):
            what = "some lines end in CR LF, two characters, others in LF; they are kept so"
        place = text.replace("\r\n", "\n ").index("\r") if pairs < lone else text.index("\r")
        findings.append(Finding(what, f"{path}:{_line(text, place)}"))
    if "\0" in text:
        first = f"{path}:{_line(text, text.index(chr(0)))}"
        findings.append(Finding("NUL characters are kept as characters", first))
    if not text.isascii() and not unicodedata.is_normalized("NFC", text):
        what = "letters with marks are decomposed, two characters each, and kept so"
        if not unicodedata.is_normalized("NFD", text):
            what = (
                "letters with marks are written in two ways, composed and decomposed: different "
                "characters to a model (unicodedata.normalize('NFC', text) makes them one)"
            )
        lines = enumerate(text.split("\n"), start=1)
        line = next((n for n, part in lines if not unicodedata.is_normalized("NFC", part)), 1)
        findings.append(Finding(what, f"{path}:{line}"))
    return findings


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


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
    return DataError(f"{path}:{line}: byte {start:,} (0x{data[start]:02x}) is not {encoding}{hint}")


def _automatic(data: bytes, path: Path | str) -> tuple[str, list[Finding]]:
    name = _guess(data)
    try:
        text = data.decode(name or "utf-8")
    except UnicodeDecodeError as error:
        if name is None:
            raise _undecodable(data, path, "utf-8", error) from error
        try:
            return data.decode(name, "surrogatepass"), []
        except UnicodeDecodeError:
            text = data.decode(name, "replace")
        return text, [_replaced(f"bytes that are not {name} are", text, path)]
    if name is None or name.startswith("utf-8"):
        return text, []
    return text, [Finding(f"read as {name}, not utf-8", _example(text, path))]


def _replaced(what: str, text: str, path: Path | str) -> Finding:
    return Finding(f"{what} read as U+FFFD", f"{path}:{_line(text, text.index(UNKNOWN))}")


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
        data.decode("utf-8", "surrogatepass")
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
    for name, zeros, others in PATTERNS:
        if share[list(zeros)].min() >= 0.7 and share[list(others)].max() <= 0.05:
            try:
                text = data.decode(name)
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
    """The older encoding in which the lines beyond ASCII are plausible, the likeliest first.

    Words decide: letters of one alphabet, capitals where words begin, no signs inside words. Among
    the encodings that this leaves, the letters of languages do (charset-normalizer).
    """
    from charset_normalizer import from_bytes

    lines = [line for line in data[: 64 * SAMPLE].split(b"\n") if not line.isascii()]
    sample = b"\n".join(lines)[:SAMPLE]
    if len(sample) == SAMPLE:
        sample = sample[: sample.rfind(b"\n") + 1] or sample
    best, most = None, -MARGIN
    for name in OLDER:
        if not _plausible(data, sample, name):
            continue
        match = from_bytes(sample[: SAMPLE // 4], cp_isolation=[name]).best()
        if match is None and sum(byte > 127 for byte in sample) > FEW:
            continue
        likely = 0.0 if match is None else match.coherence
        if likely >= most + MARGIN:
            best, most = name, likely
    return best


def _plausible(data: bytes, sample: bytes, name: str) -> bool:
    """Whether the bytes decode, and to what words are written with."""
    text = sample.decode(name, "ignore")  # a sample may end inside a character
    if len(text.encode(name, "ignore")) < 0.99 * len(sample):
        return False
    beyond = [place for place, character in enumerate(text) if character > "\x7f"]
    good = sum(_fits(text, place) for place in beyond)
    if not beyond or good < 0.95 * len(beyond):
        return False
    try:
        data.decode(name)
    except UnicodeDecodeError:
        return False
    return True


def _fits(text: str, place: int) -> bool:
    """Whether a character beyond ASCII is plausible between its neighbours."""
    character = text[place]
    before, after = text[place - 1 : place], text[place + 1 : place + 2]
    kind = unicodedata.category(character)
    if character == "µ":
        return True
    if kind in ("Cc", "Co", "Cn", "Lm") or "\uff61" <= character <= "\uff9f":
        return False
    if kind[0] != "L" or character in "ªº":
        if character not in PUNCTUATION and not _wide(character):
            return False
        inside = before.isalpha() and after.isalpha() and not _wide(before)
        return not inside or character in "’‘·\u00ad–—"
    for neighbour in (before, after):
        if neighbour.isalpha() and _alphabet(neighbour) != _alphabet(character):
            return False
    if (before.islower() and character.isupper()) or (character.islower() and after.isupper()):
        return False
    run = text[max(place - 4, 0) : place + 1]
    foreign = len(run) == 5 and all(c > "\x7f" and c.isalpha() for c in run)
    return not (foreign and _alphabet(character) == "LATIN")


def _alphabet(character: str) -> str:
    name = unicodedata.name(character, "").partition(" ")[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA") else name


def _wide(character: str) -> bool:
    """Whether a character belongs to East Asian writing."""
    return unicodedata.east_asian_width(character) in ("W", "F")
