"""MATLAB files: what scipy writes and reads, and no damage that does more than be refused."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from hypothesis import given
from hypothesis import strategies as st
from support.profiles import examples
from support.reading import message, put

from throughtime.data.readers.matlab import load_mat
from throughtime.data.readers.read import read
from throughtime.data.sequences import Sequences
from throughtime.errors import DataError

ARRAYS = {
    "row": np.arange(5.0)[None],
    "column": np.arange(5.0)[:, None],
    "matrix": np.arange(6, dtype=np.int16).reshape(2, 3),
    "bytes": np.arange(6, dtype=np.uint8).reshape(3, 2),
    "single": np.ones((2, 2), dtype=np.float32),
    "truth": np.array([[True, False, True]]),
    "cube": np.arange(24.0).reshape(2, 3, 4),
}


def written(values: dict[str, Any], **how: Any) -> bytes:
    content = BytesIO()
    scipy.io.savemat(content, values, **how)
    return content.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_as_scipy_reads_it(compressed: bool) -> None:
    data = written(ARRAYS, do_compression=compressed)
    found, oracle = load_mat(data, Path("a.mat")), scipy.io.loadmat(BytesIO(data))
    assert set(found) == set(ARRAYS)
    for name in ARRAYS:
        np.testing.assert_array_equal(found[name], oracle[name])  # type: ignore[arg-type]


def test_version_4() -> None:
    two = {name: ARRAYS[name] for name in ("row", "column", "matrix", "single")}
    data = written(two, format="4")
    found, oracle = load_mat(data, Path("a.mat")), scipy.io.loadmat(BytesIO(data))
    for name in two:
        np.testing.assert_array_equal(found[name], oracle[name])  # type: ignore[arg-type]


def test_one_variable_and_several() -> None:
    assert read(put("a.mat", written({"y": np.arange(4.0)}))).domain.columns == ("y",)
    put("b.mat", written({"x": np.ones((4, 2)), "y": np.arange(3.0)}))
    assert message("b.mat") == "b.mat: holds 2 arrays: 'x' [4, 2], 'y' [3]; choose one with part="
    assert read("b.mat", part="y").values.flatten().tolist() == [0, 1, 2]


def cells(*arrays: np.ndarray) -> np.ndarray:
    result = np.empty((1, len(arrays)), dtype=object)
    for place, array in enumerate(arrays):
        result[0, place] = array
    return result


def test_a_cell_array_is_a_sequence_each() -> None:
    put("a.mat", written({"c": cells(np.eye(3), np.ones((2, 3)))}))
    got = read("a.mat")
    assert got.lengths.tolist() == [3, 2]
    assert got.names == ("c0", "c1")
    assert got.domain.columns == ("c0", "c1", "c2")


def test_cells_of_88_keys_are_piano_rolls() -> None:
    roll = (np.arange(5 * 88).reshape(5, 88) % 7 == 0).astype(np.uint8)
    got = read(put("a.mat", written({"train": cells(roll, roll[:3])})))
    assert got.domain.kind == "binary"
    assert got.domain.columns[0] == "note 21"
    assert got.domain.step == "frame"
    np.testing.assert_array_equal(got.sequence(0), roll)
    assert read(put("b.mat", written({"c": cells(roll * 2)}))).domain.kind == "real"


def test_what_holds_no_matrix_says_what_to_save() -> None:
    put("a.mat", written({"s": {"y": [1.0, 2.0]}, "t": "words"}))
    assert message("a.mat") == (
        "a.mat: holds no real matrix, only structures, texts or others ('s', 't'); in MATLAB save "
        "a field on its own: y = s.field; save('y.mat', 'y')"
    )


def test_version_73_says_how_to_save_it() -> None:
    head = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + b"\x89HDF\r\n\x1a\n"
    assert "save('y.mat', 'y', '-v7')" in message(put("a.mat", head))


@examples(150)
@given(data=st.data(), compressed=st.booleans())
def test_no_damage_ends_in_more_than_a_refusal(
    tmp_path_factory: Any, data: st.DataObject, compressed: bool
) -> None:
    whole = written({"y": np.arange(9.0), "c": cells(np.eye(2))}, do_compression=compressed)
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("fuzz") / "x.mat"
    path.write_bytes(damaged[: data.draw(st.integers(1, len(whole)))])
    try:
        assert isinstance(read(path), Sequences)
    except DataError as error:
        assert "\n" not in str(error)  # noqa: PT017 - most damage is an error, some is not
