"""Encodings: utf-8 first, others with a note that names them, and never a guess without words."""

from __future__ import annotations

import pytest
from support.reading import message, put, words

from throughtime.data.readers.encodings import decoded, mended
from throughtime.data.readers.read import read
from throughtime.errors import DataError

TEXTS = {
    "cp1252": "Le garçon a été fatigué après la fête – “vraiment”, dit-il… à 5 €.\n",
    "cp1250": "Příliš žluťoučký kůň úpěl ďábelské ódy, a děti si hrají venku na dvoře.\n",
    "cp1251": "Сегодня хорошая погода, и мы пойдём гулять в парк.\n",
    "koi8_r": "Сегодня хорошая погода, и мы пойдём гулять в парк.\n",
    "cp866": "Сегодня хорошая погода, и мы пойдём гулять в парк.\n",
    "cp1253": "Σήμερα ο καιρός είναι καλός και θα πάμε στο πάρκο.\n",
    "cp850": "Der Fluß fließt über die Brücke zurück, größer als früher.\n",
    "mac_roman": "Le garçon a été fatigué après la fête, à côté de l’école.\n",
    "euc_jp": "今日は天気がいいので、公園へ散歩に行きましょう。\n",
    "cp932": "今日は天気がいいので、公園へ散歩に行きましょう。\n",
    "gb18030": "今天天气很好，我们去公园散步吧。\n",
    "euc_kr": "오늘은 날씨가 좋아서 공원에 산책하러 갑니다.\n",
    "utf-16": "grüße\n",
    "utf-16-le": "grüße an alle\n",
    "utf-16-be": "grüße an alle\n",
    "utf-32": "grüße\n",
    "utf-32-le": "grüße an alle\n",
}


@pytest.mark.parametrize("encoding", TEXTS)
def test_an_encoding_is_noticed_and_named(encoding: str) -> None:
    text = "plain line\n" + TEXTS[encoding]
    found, findings = decoded(text.encode(encoding), "a.txt")
    assert found == text
    assert findings[0].what == f"read as {encoding}, not utf-8"
    assert findings[0].where.startswith("a.txt:2 '")


@pytest.mark.parametrize("mark", ["utf-8", "utf-8-sig"])
def test_utf8_needs_no_note(mark: str) -> None:
    assert decoded("Käse 🧀\n".encode(mark), "a.txt") == ("Käse 🧀\n", ())


@pytest.mark.parametrize("word", ["naïve", "5 €", "20 °C", "µm²", "Müller", "MÜLLER"])
def test_one_word_is_enough(word: str) -> None:
    text = f"some text\nand {word} here\n"
    got = read(put("a.txt", text.encode("cp1252")))
    assert words(got) == [text]
    assert got.notes[0].startswith("read as cp1252, not utf-8: a.txt:2 '")


def test_a_table_in_another_encoding_says_so() -> None:
    got = read(put("a.csv", "Größe;y\nÄ;1\nÖ;2\n".encode("cp1252")), value="y")
    assert got.values.tolist() == [[1], [2]]
    assert "read as cp1252, not utf-8: a.csv:1 'Größe;y'" in got.notes


def test_damaged_utf8_is_utf8_with_a_note() -> None:
    text = "größe über allem\n" * 10
    data = text.encode() + b"\xff\xfe!\n" + text.encode()
    found, findings = decoded(data, "a.txt")
    assert found == text + "\ufffd\ufffd!\n" + text
    assert [(one.what, one.where) for one in findings] == [
        ("bytes that are not utf-8 are read as U+FFFD", "a.txt:11")
    ]
    cut, findings = decoded("süß und groß".encode()[:-1], "a.txt")
    assert cut == "süß und gro\ufffd"
    assert len(findings) == 1


def test_halves_of_surrogate_pairs() -> None:
    data = "one\ntwo \ud83d three\n".encode("utf-8", "surrogatepass")
    found, findings = decoded(data, "a.txt")
    assert found == "one\ntwo \ufffd three\n"
    assert [(one.what, one.where) for one in findings] == [
        ("halves of surrogate pairs are read as U+FFFD", "a.txt:2")
    ]
    # Both halves, each written as three bytes, are the character.
    pair = "\ud83d\ude00\n".encode("utf-8", "surrogatepass")
    assert decoded(pair, "a.txt") == ("\U0001f600\n", ())
    assert mended("\ude00\ud83d") == ("\ufffd\ufffd", 2)


def test_what_is_no_text_is_refused() -> None:
    with pytest.raises(DataError, match=r"a\.txt:\d+: byte .* is not utf-8; it looks like no text"):
        decoded(bytes(range(128, 256)) * 4, "a.txt")


def test_a_wrong_encoding_is_refused_with_the_right_one() -> None:
    put("a.txt", "one\nFußgänger über die Brücke\n".encode("cp1252"))
    assert message("a.txt", encoding="utf-8") == (
        "a.txt:2: byte 6 (0xdf) is not utf-8; encoding='cp1252' reads it"
    )
    assert words(read("a.txt", encoding="cp1252")) == ["one\nFußgänger über die Brücke\n"]


def notes(text: str) -> tuple[str, ...]:
    return read(put("a.txt", text)).notes


def test_line_ends_are_noticed() -> None:
    assert notes("a\nb\n") == ()
    assert notes("a\r\nb\r\n") == ("lines end in CR LF, two characters, kept as they are: a.txt:1",)
    assert notes("a\nb\r\nc\n") == (
        "some lines end in CR LF, two characters, others in LF; they are kept so: a.txt:2",
    )
    assert notes("a\nb\rc\n") == ("CR without LF is kept as a character: a.txt:2",)


def test_letters_in_two_spellings_are_noticed() -> None:
    composed, decomposed = "é", "e\u0301"
    assert notes(f"{composed}\n") == ()
    assert notes(f"x\n{decomposed}\n") == (
        "letters with marks are decomposed, two characters each, and kept so: a.txt:2",
    )
    (note,) = notes(f"{composed}\n{composed}\n{decomposed}\n")
    assert note.startswith("letters with marks are written in two ways")
    assert note.endswith(": a.txt:3")


def test_nuls_are_noticed() -> None:
    assert notes("some words\nmore\0words\n") == ("NUL characters are kept as characters: a.txt:2",)


def test_notes_of_many_files_are_bounded() -> None:
    for name in "abcde":
        put(f"in/{name}.txt", f"{name}: Käse und Brötchen\r\n".encode("cp1252"))
    assert read("in").notes == (
        "read as cp1252, not utf-8: in/a.txt:1 'Käse', in/b.txt:1 'Käse', in/c.txt:1 'Käse' and 2 "
        "more",
        "lines end in CR LF, two characters, kept as they are: in/a.txt:1, in/b.txt:1, in/c.txt:1 "
        "and 2 more",
    )
