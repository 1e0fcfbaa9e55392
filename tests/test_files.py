"""Files: whole or not at all, the same values back, and one clear line for each kind of damage."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
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
    files.write_tensors(path, {"a": torch.ones(3)}, 1)
    (tmp_path / ".training.safetensors.x7").write_bytes(path.read_bytes()[:20])
    result, value = files.read_tensors(path)
    assert torch.equal(result["a"], torch.ones(3))
    assert value == 1


# Round trips


@examples(60)
@given(st.dictionaries(names, tensors(), max_size=5), json_values)
def test_tensors_and_values_come_back(given_tensors: dict[str, Tensor], value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        files.write_tensors(path, given_tensors, value)
        result, back = files.read_tensors(path)
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
@given(json_values | st.fixed_dictionaries({"value": json_values}))
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


UNSEALED = f"sha256:{'0' * 64}"  # may stand in what people give, too
GIVEN: dict[str, Any] = {UNSEALED: [f"sha256:{'a' * 64}", UNSEALED], "value": 1}


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    files.write_tensors(path, {UNSEALED: torch.arange(100.0)}, GIVEN)
    return path


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


def refused(read: Any, path: Path, content: bytes) -> str:
    """Why content is refused; the sentence is whole."""
    path.write_bytes(content)
    result = message(read, path)
    assert result.startswith(f"{path} is damaged (")
    assert result.endswith("); restore it from a copy, or fit again in another folder")
    return result


def test_the_digest_is_that_of_the_file_with_zeros_in_its_place(saved: Path) -> None:
    path = saved.with_name("x.json")
    files.write_json(path, GIVEN)
    for content in (saved.read_bytes(), path.read_bytes()):
        given = re.search(rb"sha256:([0-9a-f]{64})", content)
        assert given is not None
        bare = content[: given.start(1)] + b"0" * 64 + content[given.end(1) :]
        assert given[1].decode() == hashlib.sha256(bare).hexdigest()
    assert files.read_json(path) == GIVEN
    assert files.read_tensors(saved)[1] == GIVEN
    assert list(files.read_tensors(saved)[0]) == [UNSEALED]


def test_a_bit_anywhere_is_noticed(saved: Path) -> None:
    path = saved.with_name("x.json")
    files.write_json(path, GIVEN)
    for read, where in ((files.read_tensors, saved), (files.read_json, path)):
        whole = where.read_bytes()
        for at in range(len(whole)):
            content = bytearray(whole)
            content[at] ^= 1 << at % 8
            refused(read, where, content)


@pytest.mark.parametrize("kept", [0, 4, 8, 60, -1])
def test_a_truncated_file(saved: Path, kept: int) -> None:
    refused(files.read_tensors, saved, saved.read_bytes()[:kept])


def test_a_file_of_something_else(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    assert "it carries no digest" in refused(files.read_tensors, path, b"PK" + bytes(200))


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "x.json").mkdir()
    assert "Is a directory" in message(files.read_json, tmp_path / "x.json")


# With a digest of their own: what no parser can make sense of


def forged(content: bytes) -> bytes:
    """Content with its own digest."""
    digest = hashlib.sha256(content).hexdigest().encode()
    return content.replace(UNSEALED.encode(), b"sha256:" + digest, 1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b'"schema": 1, ', "Expecting property name enclosed in double quotes"),
        (b'"name": "\xff"}', "codec can't decode byte 0xff"),
        (b'"a": ' + b"[" * 200_000, "brackets nested more than 100 deep"),
        (b'"a": ' + b"[" * 101 + b"]" * 101 + b"}", "brackets nested more than 100 deep"),
        (b'"a": ' + b"9" * 9999 + b"}", "Exceeds the limit"),
    ],
)
def test_damaged_json(tmp_path: Path, text: bytes, why: str) -> None:
    content = forged(f'{{"digest": "{UNSEALED}", '.encode() + text)
    assert why in refused(files.read_json, tmp_path / "model.json", content)


def test_brackets_in_texts_are_no_depth(tmp_path: Path) -> None:
    path, value = tmp_path / "x.json", {"a": ['["\\{' * 999, "\\", '"[' * 999], "b": [[]] * 999}
    files.write_json(path, value)
    assert files.read_json(path) == value


def header(size: int | None, text: str, data: bytes = b"") -> bytes:
    """A safetensors file with a right digest and a header of one's own."""
    encoded = text.encode()
    return forged((len(encoded) if size is None else size).to_bytes(8, "little") + encoded + data)


def values(text: str, tensors: str = "") -> str:
    inner = json.dumps(f'{{"digest": "{UNSEALED}", "value": {text}}}')
    return f'{{"__metadata__": {{"throughtime": {inner}}}{tensors}}}'


def one(dtype: str, shape: str, end: int) -> str:
    return f', "a": {{"dtype": "{dtype}", "shape": {shape}, "data_offsets": [0, {end}]}}'


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (header(2**63 - 1, values("1")), "a header of 9,223,372,036,854,775,807 bytes in a file"),
        (header(10**8, values("1")), "a header of 100,000,000 bytes in a file of"),
        (header(None, values("[" * 9999)), "nested more than 100 deep"),
        (header(None, values("{nothing")), "Expecting property name"),
        (header(None, values("1", ', "a": ' + "[" * 9999)), "nested more than 100 deep"),
        (header(None, values("1", one("F32", "[1]", 4))), ""),
        (header(None, values("1", one("F32", "[4611686018427387904, 8]", 4)), bytes(4)), ""),
        (header(None, values("1", one("F32", "[9]", 4)), bytes(4)), ""),
        (header(None, values("1", one("F99", "[1]", 4)), bytes(4)), ""),
        (header(None, f'{{"a": "{UNSEALED}"}}'), "no '__metadata__'"),
        (header(None, f'["{UNSEALED}"]'), "list indices"),
    ],
)  # fmt: skip
def test_headers_that_lie(tmp_path: Path, content: bytes, why: str) -> None:
    assert why in refused(files.read_tensors, tmp_path / "x.safetensors", content)
