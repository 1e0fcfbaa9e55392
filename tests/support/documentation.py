"""What docs/commands.md says of the JSON of each command."""

from __future__ import annotations

import re
from typing import Any

from support.paths import ROOT


def documented(command: str) -> set[str]:
    """The fields that docs/commands.md gives a command's object, nested ones with a dot."""
    text = (ROOT / "docs/commands.md").read_text(encoding="utf-8")
    section = text.split(f"## {command}\n")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `([\w.\[\]]+)` \|", section, re.M))


def fields(value: Any, prefix: str = "") -> set[str]:
    """Every field of an object; those of the objects in a list under `name[].`."""
    result = set()
    for key, part in value.items():
        result.add(prefix + key)
        if key == "quantiles":
            continue  # its keys are the levels asked for
        if isinstance(part, dict):
            result |= fields(part, f"{prefix}{key}.")
        if isinstance(part, list) and part and isinstance(part[0], dict):
            result |= fields(part[0], f"{prefix}{key}[].")
    return result
