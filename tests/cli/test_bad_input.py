"""Whatever is wrong with data or settings: one line that says what, and nothing left behind."""

from __future__ import annotations

import errno
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from support.small_runs import WORDS, Fails, days, walk, write_series, write_tone

import throughtime as tt
from throughtime.errors import DataError, NonFiniteError, SettingError
from throughtime.models.base import SequenceModel

pytestmark = pytest.mark.usefixtures("here")
QUICK = ("--steps", "4", "--hidden", "4", "--model", "gru")


def fit_fails(fails: Fails, *arguments: str, code: int = 1) -> str:
    return fails("fit", *arguments, *QUICK, code=code)


def prices(values: Any = None, head: str = "date,price") -> str:
    write_series(Path("prices.csv"), walk(60) if values is None else values, head)
    return "prices.csv"


# ------------------------------------------------------------------------------------------- files


def test_files_that_are_not_there_or_hold_nothing(fails: Fails) -> None:
    prices()
    Path("empty.csv").touch()
    Path("head.csv").write_text("date,price\n")
    Path("blank.txt").touch()
    Path("folder").mkdir()
    assert fit_fails(fails, "price.csv") == ("price.csv: no such file; did you mean 'prices.csv'?")
    assert fit_fails(fails, "there/prices.csv") == (
        "there/prices.csv: no such file: there is no folder 'there'"
    )
    assert fit_fails(fails, "empty.csv") == "empty.csv: the file is empty"
    assert fit_fails(fails, "head.csv") == "head.csv: there are column names but no rows"
    assert fit_fails(fails, "blank.txt") == "blank.txt: the file is empty"
    assert fit_fails(fails, "folder") == (
        "folder: no file that can be read; the folder holds nothing, needed are .csv .parquet "
        ".json .xlsx .txt .md .jsonl .wav .flac .mp3 or others of the guide"
    )


def test_a_file_that_may_not_be_read(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    prices()

    def refuse(self: Path) -> bytes:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert fit_fails(fails, "prices.csv") == "prices.csv: cannot be read: Permission denied"


def test_columns_and_cells(fails: Fails) -> None:
    rows = [f"{day},{v},{v + 1}" for day, v in zip(days(60), walk(60), strict=True)]
    Path("two.csv").write_text("date,open,close\n" + "\n".join(rows) + "\n")
    assert fit_fails(fails, "two.csv") == (
        "two.csv: 2 columns hold numbers: 'open', 'close'; choose one or several with --value, all "
        "of them with --value '*'"
    )
    assert fit_fails(fails, "two.csv", "--value", "clos") == (
        "two.csv: no column 'clos'; did you mean 'close'? the columns are 'date', 'open', 'close'"
    )
    values = walk(60).astype(str).astype(object)
    values[7:20] = [f"v{k}" for k in range(13)]
    assert fit_fails(fails, prices(values), "--value", "price").startswith(
        "prices.csv:9: column 'price': 'v0' is not a number, as 12 others; choose another column "
        "with --value, or say --missing 'v0'"
    )
    rows[4:20] = [row + ",1" for row in rows[4:20]]
    Path("two.csv").write_text("date,open,close\n" + "\n".join(rows) + "\n")
    assert fit_fails(fails, "two.csv", "--value", "close").startswith(
        "two.csv:6: more cells than the 3 columns, as in 16 of 60 rows"
    )


def test_missing_values_are_kept_as_gaps_unless_a_part_has_no_others(fails: Fails) -> None:
    values = walk(100).astype(str).astype(object)
    values[20:30] = ""
    run = tt.fit(prices(values), model="gru", steps=2, hidden=4, out="run")
    notes = run.scores.data.notes
    assert (
        "10 of 100 values of 'price' are missing; they are kept as gaps: not scored, models "
        in (notes[-1])
    )
    values[80:] = ""
    assert fit_fails(fails, prices(values)) == (
        "the validation part of prices.csv has no observed values; give more"
    )


def test_time_stamps(fails: Fails) -> None:
    rows = [f"{day},{k},{k * k}" for k, day in enumerate([*days(30), *days(30)])]
    Path("prices.csv").write_text("date,price,other\n" + "\n".join(rows) + "\n")
    assert "occurs twice with other values" in fit_fails(fails, "prices.csv", "--value", "price")
    assert "--duplicates 'first'" in fit_fails(fails, "prices.csv", "--value", "price")


def test_text_that_is_not_utf8(fails: Fails) -> None:
    Path("old.txt").write_bytes(b"one\ntwo caf\xe9 three\n" * 20)
    assert fit_fails(fails, "old.txt", "--encoding", "utf-8") == (
        "old.txt:2: byte 11 (0xe9) is not utf-8; --encoding 'cp1252' reads it"
    )


def test_sound_that_cannot_be_used(fails: Fails) -> None:
    Path("cut").mkdir()
    whole = write_tone(Path("cut/cut.wav")).read_bytes()
    Path("cut/cut.wav").write_bytes(whole[:-100])
    assert fit_fails(fails, "cut/cut.wav") == (
        "cut/cut.wav: cut short: 700 of 800 bytes of sound are there"
    )
    soundfile.write("packed.wav", np.zeros(800), 8000, subtype="ULAW")
    assert fit_fails(fails, "packed.wav") == (
        "packed.wav: a compressed wav (format 7: mu-law); save it as plain PCM, for example with: "
        "ffmpeg -i 'packed.wav' -c:a pcm_s16le out.wav"
    )
    Path("mixed").mkdir()
    write_tone(Path("mixed/a.wav"))
    write_tone(Path("mixed/b.wav"), rate=16000)
    assert fit_fails(fails, "mixed") == (
        "mixed: mixed sample rates: 'a.wav' has 8,000 Hz, 'b.wav' 16,000 Hz; --rate 8000 resamples "
        "them"
    )
    Path("none.wav").write_bytes(b"RIFF" + struct.pack("<I", 4) + b"WAVE")
    assert fit_fails(fails, "none.wav") == "none.wav: cut short: the wav has no sound in it"


# ---------------------------------------------------------------------------- too little, too much


@pytest.mark.parametrize(("count", "part"), [(1, "training"), (2, "validation"), (5, "validation")])
def test_series_too_short_to_split(fails: Fails, count: int, part: str) -> None:
    assert fit_fails(fails, prices(walk(count))) == (
        f"series 'prices' has {count} steps; its {part} part would be empty with --valid 0.1, "
        "--test 0.1: use larger fractions or split by sequence"
    )


def test_a_text_too_short_to_split(fails: Fails) -> None:
    Path("a.txt").write_text("abc")
    assert "its validation part would be empty" in fit_fails(fails, "a.txt")


def test_series_shorter_than_the_order(fails: Fails) -> None:
    assert fails("fit", prices(), "--model", "ar", "--order", "50") == (
        "order 50 needs sequences longer than 50 steps; the longest training sequence has 48"
    )


def test_a_constant_series(fails: Fails) -> None:
    flat = (
        "column 'price' of prices.csv is 5 at every step of the training part: there is nothing to "
        "learn; leave it out, or give data in which it changes"
    )
    assert fit_fails(fails, prices([5] * 60)) == flat
    assert fit_fails(fails, prices([5] * 55 + [6] * 5)) == flat


def test_ten_thousand_short_sequences() -> None:
    words = (WORDS.split() * 1000)[:10_000]
    Path("many.txt").write_text("".join(f"{w}{i % 7}\n" for i, w in enumerate(words)))
    run = tt.fit("many.txt", lines=True, model="ar", order=2, out="run")
    assert run.scores.data.sequences == 10_000
    assert len(run.score("many.txt").log_prob) == 10_000


def test_one_short_sequence() -> None:
    run = tt.fit(prices(walk(30)), model="gru", steps=2, hidden=4, out="run")
    assert run.scores.models[-1].difference is None or run.best.name
    assert run.forecast(2, num_paths=10).to_json()["series"][0]["times"] == [
        "2020-01-31",
        "2020-02-01",
    ]


# ---------------------------------------------------------------------------------------- settings


WRONG_SETTINGS = {
    ("--order", "x"): "--order x is not auto or a number of lags, 1 or more",
    ("--order", "0"): "--order 0 is not auto or a number of lags, 1 or more",
    ("--hidden", "0"): "--hidden 0: at least 1",
    ("--layers", "-1"): "--layers -1: at least 1",
    ("--steps", "0"): "--steps 0: at least 1",
    ("--bptt", "some"): "--bptt 'some' is not full, K or K1,K2 (for example 64 or 64,128), "
    "memory=512MB or adaptive",
    ("--bptt", "memory=x"): "memory='x' is not a size like 512MB, 1.5GB or 300kB",
    ("--bptt", "0"): "k1 must be at least 1, got 0",
    ("--bptt", "5,3"): (
        "k2=3 is shorter than k1=5: a gradient travels over all the steps whose losses are used at "
        "once; "
        "choose k2 >= k1"
    ),
    ("--emission", "norml"): (
        "--emission norml; did you mean 'normal'? use one of: auto, categorical, bernoulli, "
        "normal, student_t, skew_student_t, laplace, negative_binomial, poisson, mixture, "
        "discretised_logistic"
    ),
    ("--valid", "0"): (
        "--valid 0, --test 0.1: both are above 0, and together they leave a part to learn from"
    ),
    ("--test", "0.95"): (
        "--valid 0.1, --test 0.95: both are above 0, and together they leave a part to learn from"
    ),
    ("--time-limit", "5x"): "time limit '5x' is not like 90s, 5m or 1h",
    ("--time-limit", "-5"): "time limit must be positive, got '-5'",
    ("--rate", "8000"): "--rate says nothing about this source; it is for sound",
    ("--symbols", "bytes"): "--symbols bytes says nothing about prices.csv; it is for text",
    ("--model", "cnn"): (
        'Invalid value "cnn" for --model. Choose from: "auto", "ar", "rnn", "gru", "lstm"'
    ),
    ("--seed", "one"): 'Invalid value for --seed: unable to convert "one" into int.',
    ("--colour", "red"): "Unknown option: --colour.",
    ("hidden=4", "more"): (
        "nothing takes 'hidden=4 more'; options begin with two dashes, --help has them"
    ),
}


@pytest.mark.parametrize("given", WRONG_SETTINGS)
def test_settings_that_make_no_sense(fails: Fails, given: tuple[str, str]) -> None:
    result = fails("fit", prices(), *given, code=2)
    if given[0] in ("--model", "--seed", "--colour"):  # the parser's own words; a hint may follow
        assert result.startswith(WRONG_SETTINGS[given])
    else:
        assert result == WRONG_SETTINGS[given]


def test_settings_that_do_not_suit_the_data(fails: Fails) -> None:
    assert fails("fit", prices(), "--emission", "poisson", "-o", "new/run") == (
        "series 'prices', step 0: counts are whole and >= 0, found 100.126"
    )


def test_the_same_in_python() -> None:
    prices()
    for options in ({"model": "cnn"}, {"hidden": 0}, {"order": -1}, {"bptt": "8,4"}):
        with pytest.raises(SettingError):
            tt.fit("prices.csv", **options)
    with pytest.raises(DataError):
        tt.fit("nothing.csv")
    with pytest.raises(SettingError, match=r"a tuple of data is \(train, valid, test\)"):
        tt.fit((1, 2))
    assert not Path("runs").exists()


# ---------------------------------------------------------------------------------------- training


def test_a_loss_that_stays_infinite(
    fails: Fails, monkeypatch: pytest.MonkeyPatch, here: Path
) -> None:
    loss = SequenceModel.loss

    def broken(self: SequenceModel, batch: Any, state: Any) -> Any:
        result, state = loss(self, batch, state)
        return result * torch.nan, state

    prices()
    monkeypatch.setattr(SequenceModel, "loss", broken)
    with pytest.raises(NonFiniteError) as raised:
        tt.fit("prices.csv", model="gru", hidden=4, steps=50, out="run")
    assert str(raised.value) == (
        "20 training steps in a row had an infinite or NaN loss or gradient (last at step 20); "
        "lower the learning rate (0.01) or look for extreme values in the data"
    )
    events = [json.loads(line) for line in Path("run/log.jsonl").read_text().splitlines()]
    assert sum(event["event"] == "skip" for event in events) == 20
    assert not Path("run/model.json").exists()
    assert fails("score", "run", "prices.csv").startswith("run has no model.json: the run is not")


def test_memory_that_is_not_there(fails: Fails, monkeypatch: pytest.MonkeyPatch) -> None:
    def greedy(*args: Any, **options: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 EB")

    monkeypatch.setattr("throughtime.runs.fit.fit", greedy)
    assert fails("fit", prices()) == (
        "out of memory; use a smaller --hidden, fewer --paths or a shorter --horizon"
    )
