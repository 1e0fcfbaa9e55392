"""Files that survive a power cut, and that are what was written or are refused.

Writes are atomic. JSON and safetensors files carry their digest: the SHA-256 of the file with zeros
in its place. Nothing here can execute anything when loaded: tensors are safetensors, values JSON.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import tempfile
from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

from throughtime.errors import RunError, ThroughtimeError

_META, _SEAL, _BARE = "throughtime", "digest", "value"
UNSEALED = "sha256:" + 64 * "0"  # what stands where the digest of a file will be
_DIGEST = re.compile(rb"sha256:([0-9a-f]{64})")
_STRINGS = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_DEEPEST = 100  # brackets within brackets; what is written has a dozen
# What parsers and constructors raise on values that are not those that were written.
_UNREADABLE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
    ThroughtimeError,
)


class Damaged(RunError):
    """A file that is not what was written."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} is damaged ({why}); restore it from a copy, or fit again in another folder"
        )
        self.anew = f"{path} is damaged ({why}); it is made anew"


class Missing(RunError):
    """A file that is not there."""


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns whatever reading a file raises about its content into `Damaged`."""
    try:
        yield
    except RunError:
        raise
    except _UNREADABLE as error:
        why = " ".join(str(error).split())
        raise Damaged(path, f"no {why}" if isinstance(error, KeyError) else why[:160]) from error


# Bytes


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file so that a crash leaves either the old content or the new, never a part.

    Raises OSError naming `path` where it cannot be written.
    """
    try:
        _replace(path, content)
    except OSError as error:
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        rename(Path(temporary), path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def rename(source: Path, path: Path) -> None:
    """Gives a file another name in its folder, on disk when this returns."""
    os.replace(source, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read_bytes(path: Path) -> bytes:
    """The content of a run's file.

    Raises:
        RunError: if it is `Missing`, cannot be read, or is `Damaged`: the disk has lost it.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise Missing(f"{path.parent} has no {path.name}; it is not a finished run") from None
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno == errno.EIO:
            raise Damaged(path, why) from error
        raise RunError(f"{path} cannot be read: {why}") from error


def write_text(path: Path, content: str) -> None:
    """`write_bytes` for text, UTF-8."""
    write_bytes(path, content.encode())


# Digests


def digest(content: bytes) -> str:
    """SHA-256, hex."""
    return hashlib.sha256(content).hexdigest()


def sealed(text: str) -> bytes:
    """Text with its own digest where `UNSEALED` first stands."""
    return _seal(text.encode())


def _seal(content: bytes) -> bytes:
    return content.replace(UNSEALED.encode(), f"sha256:{digest(content)}".encode(), 1)


def check_seal(content: bytes, path: Path) -> None:
    """Raises `Damaged` for content that is not what its digest says."""
    found = _DIGEST.search(content)
    if found is None:
        raise Damaged(path, "it carries no digest: changed, or of an older throughtime")
    whole = hashlib.sha256(memoryview(content)[: found.start(1)])
    whole.update(64 * b"0")
    whole.update(memoryview(content)[found.end(1) :])
    if whole.hexdigest().encode() != found[1]:
        raise Damaged(path, "its SHA-256 differs")


# JSON


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` for a JSON value; refuses NaN and infinity, which JSON does not have."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """A file that holds a JSON value and its digest."""
    return sealed(json.dumps(_with_seal(value), indent=1, allow_nan=False) + "\n")


def _with_seal(value: Any) -> dict[str, Any]:
    named = isinstance(value, dict) and _SEAL not in value and value.keys() != {_BARE}
    return {_SEAL: UNSEALED, **(value if named else {_BARE: value})}


def read_json(path: Path) -> Any:
    """The JSON value that `write_json` wrote. Raises RunError if it is missing or damaged."""
    return parse_json(read_bytes(path), path)


def parse_json(content: bytes, path: Path) -> Any:
    """The value in what `json_bytes` made; `path` is what errors call it."""
    check_seal(content, path)
    with reading(path):
        return _without_seal(loads(content))


def _without_seal(value: Any) -> Any:
    value.pop(_SEAL)
    return value[_BARE] if value.keys() == {_BARE} else value


def loads(content: bytes) -> Any:
    """JSON, refused before anything is made of it where it is nested without end."""
    bare = _STRINGS.sub(b"", content)
    steps = ((c in b"[{") - (c in b"]}") for c in bare if c in b"[]{}")
    if max(accumulate(steps), default=0) > _DEEPEST:
        raise ValueError(f"brackets nested more than {_DEEPEST} deep")
    return json.loads(content.decode())


def parse_described(content: bytes, path: Path, schema: int) -> dict[str, Any]:
    """A JSON object of this schema; see `parse_json`.

    Raises:
        RunError: if it is damaged, or from an older or newer version.
    """
    if _DIGEST.search(content) is None:  # older versions wrote none
        with reading(path):
            check_schema(dict(loads(content)), path, schema)
    values = parse_json(content, path)
    check_schema(values, path, schema)
    whole: dict[str, Any] = values
    return whole


def check_schema(values: Any, path: Path, schema: int) -> None:
    """Raises RunError for JSON values that are not of this schema."""
    given = values.get("schema") if isinstance(values, dict) else None
    if not isinstance(given, int):
        raise Damaged(path, "no schema")
    if given > schema:
        raise RunError(
            f"{path} was written by a newer throughtime (schema {given}, this one reads "
            f"{schema}); upgrade with: pip install --upgrade throughtime"
        )
    if given < schema:
        raise RunError(
            f"{path} was written by an older throughtime (schema {given}, this one reads "
            f"{schema}); fit again in another folder"
        )


# Tensors


def write_tensors(path: Path, tensors: dict[str, Tensor], values: Any = None) -> None:
    """Writes named tensors, and JSON values beside them, as one file."""
    write_bytes(path, tensor_bytes(tensors, values))


def tensor_bytes(tensors: dict[str, Tensor], values: Any = None) -> bytes:
    """A safetensors file of named tensors, with JSON values and its digest in the header."""
    from safetensors.torch import save

    plain = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    return _seal(save(plain, {_META: json.dumps({_SEAL: UNSEALED, _BARE: values})}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Any]:
    """The tensors and values that `write_tensors` wrote. Raises RunError if they are not there."""
    return parse_tensors(read_bytes(path), path)


def parse_tensors(content: bytes, path: Path) -> tuple[dict[str, Tensor], Any]:
    """What is in a file that `tensor_bytes` made; `path` is what errors call it.

    Raises:
        RunError: if it is damaged.
    """
    import safetensors
    from safetensors.torch import load

    check_seal(content, path)
    with reading(path):
        size = int.from_bytes(content[:8], "little")
        if size > len(content) - 8:
            raise ValueError(f"a header of {size:,} bytes in a file of {len(content):,}")
        header = loads(content[8 : 8 + size])
        values = loads(header["__metadata__"][_META].encode())[_BARE]
        try:
            tensors = load(content)
        except safetensors.SafetensorError as error:
            raise ValueError(error) from error
        # Copied into memory of torch's own alignment, on which the last bit of a product can
        # depend: a state that was read back must go on exactly as the one that was saved.
        return {name: tensor.clone() for name, tensor in tensors.items()}, values


def finite(value: Any) -> Any:
    """The same value with None for every number that is infinite or NaN, which JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(part) for part in value]
    return value
