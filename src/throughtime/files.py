"""Files that survive a power cut: atomic writes, tensors and values in one safetensors file.

Nothing here can execute anything when loaded: tensors are safetensors, values are JSON.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

from throughtime.errors import RunError

_META = "throughtime"


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
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_text(path: Path, content: str) -> None:
    """`write_bytes` for text, UTF-8."""
    write_bytes(path, content.encode())


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` for a JSON value; refuses NaN and infinity, which JSON does not have."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value of a run's file. Raises RunError if it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(f"{path.parent} has no {path.name}; it is not a finished run") from None
    except (ValueError, UnicodeDecodeError) as error:
        raise damaged(path, str(error)) from None


def read_described(path: Path, schema: int, fields: Sequence[str]) -> dict[str, Any]:
    """A JSON object of this schema with at least these fields.

    Raises:
        RunError: if it is missing, damaged or from a newer version.
    """
    values = read_json(path)
    given = values.get("schema") if isinstance(values, dict) else None
    if not isinstance(given, int):
        raise damaged(path, "no schema")
    if given > schema:
        raise RunError(
            f"{path} was written by a newer throughtime (schema {given}, this one reads up to "
            f"{schema}); upgrade with: pip install --upgrade throughtime"
        )
    missing = sorted(set(fields) - set(values))
    if missing:
        raise damaged(path, f"no {missing[0]}")
    whole: dict[str, Any] = values
    return whole


def damaged(path: Path, why: str) -> RunError:
    """The error for a file that is not what was written."""
    return RunError(f"{path} is damaged ({why}); fit the model again")


def write_tensors(path: Path, tensors: dict[str, Tensor], values: Any = None) -> str:
    """Writes named tensors, and JSON values beside them, as one file. Returns its SHA-256."""
    from safetensors.torch import save

    plain = {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}
    content = save(plain, {_META: json.dumps(values)})
    write_bytes(path, content)
    return hashlib.sha256(content).hexdigest()


def read_tensors(path: Path, sha256: str | None = None) -> tuple[dict[str, Tensor], Any]:
    """The tensors and values that `write_tensors` wrote.

    Raises RunError if the file is missing, damaged, or not the one with the given SHA-256.
    """
    import safetensors

    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise RunError(f"{path.parent} has no {path.name}; it is not a finished run") from None
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise RunError(f"{path} is not the file this run was saved with (its SHA-256 differs)")
    try:
        with safetensors.safe_open(str(path), "pt") as file:
            values = json.loads((file.metadata() or {}).get(_META, "null"))
            # Copied into memory of torch's own alignment, on which the last bit of a product can
            # depend: a state that was read back must go on exactly as the one that was saved.
            return {name: file.get_tensor(name).clone() for name in file.keys()}, values  # noqa: SIM118
    except (safetensors.SafetensorError, ValueError) as error:
        raise damaged(path, str(error)) from None


def finite(value: Any) -> Any:
    """The same value with None for every number that is infinite or NaN, which JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(part) for part in value]
    return value
