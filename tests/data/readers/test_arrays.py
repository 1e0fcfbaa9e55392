"""Arrays, tensors and lists, and the files that hold them."""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from support.profiles import examples
from support.reading import message, put

from throughtime.data.readers import files
from throughtime.data.readers.arrays import load_npy
from throughtime.data.readers.read import read
from throughtime.errors import DataError, SettingError


def test_lists_of_plain_numbers_are_one_series() -> None:
    for numbers in ([1.5, 2.0, 4.0], [1, 2, 4], (1, 2.0, np.float32(4))):
        got = read(numbers)
        assert len(got) == 1
        assert got.domain.kind == "real"
        assert got.values[-1].item() == 4
    assert read([1.0, None, 3.0]).missing.tolist() == [False, True, False]
    assert message([1.0, 10**400]) == "list: step 1 (counted from 0), column 0: not finite"


def test_tensors_and_lists_of_lists() -> None:
    assert read(torch.arange(5.0)).values.flatten().tolist() == [0, 1, 2, 3, 4]
    assert read(torch.arange(5)).domain.kind == "symbols"
    assert read([[1.0, 2.0], [3.0]]).lengths.tolist() == [2, 1]
    assert read([np.ones(3), np.ones(2)]).lengths.tolist() == [3, 2]
    assert message(["a"], SettingError).startswith("a list of texts is")


def test_masked_values_are_missing() -> None:
    masked = np.ma.masked_greater(np.array([1, 2, 999, 4]), 900)
    got = read(masked)
    assert got.missing.tolist() == [False, False, True, False]
    assert got.values[3].item() == 4
    two = read([masked, masked[:2].astype(float)])
    assert two.lengths.tolist() == [4, 2]
    assert two.missing.tolist() == [False, False, True, False, False, False]


@pytest.mark.parametrize(
    ("dtype", "order"),
    [("<f8", "C"), (">f8", "F"), ("<i2", "C"), ("|u1", "F"), ("<f2", "C"), ("|b1", "C")],
)
def test_npy_as_numpy_reads_it(dtype: str, order: str) -> None:
    array = np.asarray(np.arange(12).reshape(4, 3) % 2, dtype=dtype, order=order)  # type: ignore[call-overload]
    np.save("a.npy", array)
    np.testing.assert_array_equal(load_npy(Path("a.npy").read_bytes(), "a.npy"), np.load("a.npy"))
    np.testing.assert_array_equal(read("a.npy").values, array.astype(float))


def test_npy_with_named_fields_is_a_table() -> None:
    stamps = np.array(["2001-01-01", "2001-01-02", "2001-01-03"], dtype="datetime64[D]")
    records = np.zeros(3, dtype=[("when", "datetime64[D]"), ("y", "<f4")])
    records["when"], records["y"] = stamps, [1, 2, 4]
    np.save("a.npy", records)
    got = read("a.npy")
    assert got.values.tolist() == [[1], [2], [4]]
    assert got.domain.step == "day"


def header(text: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (9999999999999,)}", "cut short"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}", "not a .npy file"),
        ("{'descr': '<f8', 'fortran_order': False, 'shape': (1e3,)}", "not a .npy file"),
        ("{'descr': '<f8', 'fortran_order': 1, 'shape': (1,)}", "not a .npy file"),
        ("{'descr': '<q9', 'fortran_order': False, 'shape': (1,)}", "not a .npy file"),
        ("{'descr': '<S0', 'fortran_order': False, 'shape': (1,)}", "not a .npy file"),
        ("{'descr': '|O', 'fortran_order': False, 'shape': (1,)}", "holds Python objects"),
        ("{'descr': '<f8'}", "not a .npy file"),
        ("((((((((", "not a .npy file"),
        ("-" * 5000, "not a .npy file"),
        ("{" * 5000, "not a .npy file"),
        ("__import__('os')", "not a .npy file"),
    ],
)
def test_npy_headers_that_lie(text: str, problem: str) -> None:
    assert message(put("a.npy", header(text) + b"12345678")).startswith(f"a.npy: {problem}")


def test_npy_header_longer_than_the_file() -> None:
    assert message(put("a.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\x7f{}")).startswith("a.npy: not a")
    assert message(put("b.npy", b"\x93NUMPY\x09\x00")).startswith("b.npy: not a .npy file")


@examples(200)
@given(place=st.integers(0, 90), byte=st.integers(0, 255))
def test_no_damage_to_a_npy_header_ends_in_a_traceback(place: int, byte: int) -> None:
    np.save("x.npy", np.arange(4.0))
    data = bytearray(Path("x.npy").read_bytes())
    data[place] = byte
    try:
        assert load_npy(bytes(data), "x.npy").dtype is not None
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017 - most damage is an error, some is not


def test_npz() -> None:
    np.savez("one.npz", speed=np.array([1.0, 2.0]))
    assert read("one.npz").domain.columns == ("speed",)
    stamps = np.arange("2001-01-01", "2001-01-04", dtype="datetime64[D]")
    np.savez("table.npz", when=stamps, y=np.array([1.0, 2.0, 4.0]))
    got = read("table.npz")
    assert got.values.tolist() == [[1], [2], [4]]
    assert got.domain.step == "day"
    np.savez_compressed("several.npz", x=np.ones((5, 2)), y=np.arange(3.0))
    assert message("several.npz") == (
        "several.npz: holds 2 arrays: 'x' [5, 2], 'y' [3]; choose one with part="
    )
    assert read("several.npz", part="y").values.tolist() == [[0], [1], [2]]
    assert message("several.npz", part="z").startswith("several.npz: no part 'z'")
    np.savez("objects.npz", a=np.array([{}], dtype=object))
    assert message("objects.npz") == (
        "objects.npz: 'a': holds Python objects, a pickle; save an array of numbers"
    )


def test_an_npz_larger_than_memory_is_refused_before_it_is_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    np.savez_compressed("big.npz", x=np.zeros(1_000_000))
    monkeypatch.setattr(files, "free_memory", lambda: 1_000_000)
    monkeypatch.setattr(zipfile.ZipFile, "read", None)
    assert message("big.npz") == ("big.npz: needs 0.0 GB of memory, 0.0 GB are free")


def test_safetensors() -> None:
    save_file({"y": torch.arange(4, dtype=torch.bfloat16)}, "one.safetensors")
    assert read("one.safetensors").values.flatten().tolist() == [0, 1, 2, 3]
    save_file({"x": torch.ones(3, 2), "y": torch.arange(4.0)}, "two.safetensors")
    assert read("two.safetensors", part="y").values.flatten().tolist() == [0, 1, 2, 3]
    assert message("two.safetensors").startswith("two.safetensors: holds 2 arrays: ")
    data = Path("one.safetensors").read_bytes()
    assert message(put("cut.safetensors", data[:-3])).startswith(
        "cut.safetensors: not a readable safetensors file"
    )


def pickled(protocol: int) -> bytes:
    import pickle

    return pickle.dumps({"y": [1, 2]}, protocol=protocol)


def test_what_may_run_a_program_is_refused_and_the_way_works() -> None:
    torch.save(torch.arange(4.0), "y.pt")
    text = message("y.pt")
    assert text.startswith("y.pt: a PyTorch file, a pickle, which can run any program")
    assert "safetensors.torch.save_file({'y': y}, 'y.safetensors')" in text
    save_file({"y": torch.load("y.pt", weights_only=True)}, "y.safetensors")
    assert read("y.safetensors").values.flatten().tolist() == [0, 1, 2, 3]
    for protocol in (2, 4, 5):
        assert message(put("y.pkl", pickled(protocol))).startswith("y.pkl: a pickle, which can run")
