"""Files: whole or not at all, the same values back, and one clear line for each kind of damage."""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.profiles import examples
from torch import Tensor

from throughtime import files
from throughtime.errors import RunError
from throughtime.training import checkpoint

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(
    lambda name: not name.startswith("__")  # safetensors keeps __metadata__ for itself
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@st.composite
def tensors(draw: Any) -> Tensor:
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    dtype = draw(st.sampled_from(DTYPES))
    seed = draw(st.integers(0, 99))
    values = 100 * torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    if dtype.is_floating_point and values.numel() and draw(st.booleans()):
        values.flatten()[0] = draw(st.sampled_from([math.nan, math.inf, -math.inf, -0.0]))
    made = values.to(dtype)
    return made.transpose(0, -1) if made.dim() > 1 and draw(st.booleans()) else made


def bits(tensor: Tensor) -> tuple[torch.dtype, tuple[int, ...], bytes]:
    whole = tensor.detach().contiguous()
    return whole.dtype, tuple(whole.shape), bytes(whole.flatten().view(torch.uint8).tolist())


states = st.recursive(
    st.none() | tensors(), lambda part: st.lists(part, max_size=3).map(tuple), max_leaves=6
)


def same_state(one: Any, other: Any) -> bool:
    if isinstance(one, tuple):
        pairs = isinstance(other, tuple) and len(one) == len(other)
        return pairs and all(map(same_state, one, other))
    if one is None or other is None:
        return one is other
    return bits(one) == bits(other)


# Atomic writes


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_file_is_written_with_its_folders(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.json"
    files.write_text(path, "größer\n")
    assert path.read_bytes() == "größer\n".encode()
    assert contents(path.parent).keys() == {"file.json"}
    assert path.stat().st_mode & 0o777 == 0o644
    files.write_bytes(path, b"")
    assert path.read_bytes() == b""


@pytest.mark.parametrize("place", ["replace", "fsync", "chmod", "fdopen"])
@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: BaseException
) -> None:
    path = tmp_path / "file"
    files.write_bytes(path, b"old")

    def fail(*_: Any, **__: Any) -> Any:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, place, fail)
        with pytest.raises(type(error)):
            files.write_bytes(path, b"new")
    assert contents(tmp_path) == {"file": b"old"}  # and no temporary file is left
    files.write_bytes(path, b"new")
    assert contents(tmp_path) == {"file": b"new"}


def test_the_new_content_is_complete_and_on_disk_before_it_takes_the_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, log = tmp_path / "file", []
    files.write_bytes(path, b"old")
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (log.append("fsync"), fsync(handle)))

    def spy(source: str, target: Path) -> None:
        log.append("replace")
        assert Path(source).parent == tmp_path  # the same file system: a rename, not a copy
        assert Path(source).read_bytes() == b"new" * 9999
        assert target.read_bytes() == b"old"
        replace(source, target)

    monkeypatch.setattr(os, "replace", spy)
    files.write_bytes(path, b"new" * 9999)
    assert log == ["fsync", "replace", "fsync"]  # the file, the rename, the folder


def test_a_half_written_temporary_file_of_a_killed_process_is_never_read(tmp_path: Path) -> None:
    path = tmp_path / "training.safetensors"
    sha = files.write_tensors(path, {"a": torch.ones(3)}, 1)
    (tmp_path / ".training.safetensors.x7").write_bytes(path.read_bytes()[:20])
    result, value = files.read_tensors(path, sha)
    assert torch.equal(result["a"], torch.ones(3))
    assert value == 1


# Round trips


@examples(60)
@given(st.dictionaries(names, tensors(), max_size=5), json_values)
def test_tensors_and_values_come_back(given_tensors: dict[str, Tensor], value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        sha = files.write_tensors(path, given_tensors, value)
        assert sha == hashlib.sha256(path.read_bytes()).hexdigest()
        result, back = files.read_tensors(path, sha)
    assert back == value
    assert {name: bits(t) for name, t in result.items()} == {
        name: bits(t) for name, t in given_tensors.items()
    }


@examples(60)
@given(states, states)
def test_states_come_back(one: Any, other: Any) -> None:
    packed: dict[str, Tensor] = {}
    structures = [checkpoint.pack(one, "state", packed), checkpoint.pack(other, "begin", packed)]
    structures = json.loads(json.dumps(structures))
    assert same_state(checkpoint.unpack(structures[0], packed), one)
    assert same_state(checkpoint.unpack(structures[1], packed), other)


@examples(40)
@given(json_values)
def test_json_comes_back(value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.json"
        files.write_json(path, value)
        assert files.read_json(path) == value


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_json_has_no_nan(tmp_path: Path, number: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "x.json", {"value": number})
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("updates", [0, 3])
def test_an_optimiser_comes_back(updates: int, tmp_path: Path) -> None:
    def made() -> tuple[list[Tensor], torch.optim.Optimizer]:
        weights = [torch.ones(2, 3, requires_grad=True), torch.ones(4, requires_grad=True)]
        return weights, torch.optim.AdamW(weights, lr=0.1, fused=True)

    def update(weights: list[Tensor], optimiser: torch.optim.Optimizer, step: int) -> None:
        weights[0].grad = torch.full((2, 3), 0.3 * step + 0.1)
        weights[1].grad = None if step == 0 else torch.arange(4.0)  # not used at first
        optimiser.step()

    weights, optimiser = made()
    for step in range(updates):
        update(weights, optimiser, step)
    packed: dict[str, Tensor] = {}
    rest = checkpoint.pack_optimiser(optimiser, packed)
    files.write_tensors(tmp_path / "x", packed, rest)
    copies, copy = made()
    with torch.no_grad():
        for target, source in zip(copies, weights, strict=True):
            target.copy_(source)
    checkpoint.unpack_optimiser(copy, *files.read_tensors(tmp_path / "x"))
    for step in range(5):
        update(weights, optimiser, step)
        update(copies, copy, step)
    assert all(map(torch.equal, weights, copies))
    assert not torch.equal(weights[0], torch.ones(2, 3))


def test_a_written_tensor_is_a_copy(tmp_path: Path) -> None:
    """Tensors that share memory (a state and its slice, tied weights) are written one by one."""
    whole = torch.arange(6.0, requires_grad=True)
    files.write_tensors(tmp_path / "x", {"whole": whole, "same": whole, "part": whole[2:]})
    result, value = files.read_tensors(tmp_path / "x")
    assert value is None
    assert result["whole"].tolist() == result["same"].tolist() == [0, 1, 2, 3, 4, 5]
    assert result["part"].tolist() == [2, 3, 4, 5]


def test_what_is_read_lies_in_aligned_memory(tmp_path: Path) -> None:
    """The last bits of a product depend on it: a resumed run must end as an uninterrupted one."""
    path = tmp_path / "x.safetensors"
    for size in range(1, 9):
        given_tensors = {f"{i}": torch.ones(size + i) for i in range(5)}
        files.write_tensors(path, given_tensors)
        result, _ = files.read_tensors(path)
        assert {tensor.data_ptr() % 64 for tensor in result.values()} == {0}


# Damage


@pytest.fixture
def saved(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "model.safetensors"
    return path, files.write_tensors(path, {"a": torch.arange(100.0)}, {"b": 1})


def message(call: Any, *arguments: Any) -> str:
    with pytest.raises(RunError) as error:
        call(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_missing_file(tmp_path: Path) -> None:
    expected = f"{tmp_path} has no {{}}; it is not a finished run"
    missing = tmp_path / "model.safetensors"
    assert message(files.read_tensors, missing) == expected.format("model.safetensors")
    missing = tmp_path / "model.json"
    assert message(files.read_json, missing) == expected.format("model.json")


def test_another_file_than_the_run_was_saved_with(saved: tuple[Path, str]) -> None:
    path, sha = saved
    expected = f"{path} is not the file this run was saved with (its SHA-256 differs)"
    assert message(files.read_tensors, path, "0" * 64) == expected
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # one bit of one weight
    path.write_bytes(content)
    assert message(files.read_tensors, path, sha) == expected
    assert "a" in files.read_tensors(path)[0]


@pytest.mark.parametrize("kept", [0, 4, 8, 60, -1])
def test_a_truncated_file(saved: tuple[Path, str], kept: int) -> None:
    path, sha = saved
    path.write_bytes(path.read_bytes()[:kept])
    result = message(files.read_tensors, path)
    assert result.startswith(f"{path} is damaged (")
    assert result.endswith("); fit the model again")
    assert "SHA-256 differs" in message(files.read_tensors, path, sha)


def test_a_file_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"PK\x03\x04" + bytes(200))
    assert message(files.read_tensors, path).startswith(f"{path} is damaged (")


def test_damaged_json(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text('{"schema": 1, ')
    assert message(files.read_json, path) == (
        f"{path} is damaged (Expecting property name enclosed in double quotes: "
        "line 1 column 15 (char 14)); fit the model again"
    )
    path.write_bytes(b'{"name": "\xff"}')
    result = message(files.read_json, path)
    assert result.startswith(f"{path} is damaged ('utf-8' codec can't decode byte 0xff")


def test_damaged_values_beside_the_tensors(tmp_path: Path) -> None:
    from safetensors.torch import save

    path = tmp_path / "x.safetensors"
    path.write_bytes(save({"a": torch.ones(1)}, {"throughtime": "{not json"}))
    assert message(files.read_tensors, path).startswith(f"{path} is damaged (")
    path.write_bytes(save({"a": torch.ones(1)}))
    assert files.read_tensors(path)[1] is None
