"""HTML as values: text is escaped unless it is already markup, so no name from a file leaks."""

from __future__ import annotations

import json
import math
from typing import Any

import markupsafe
from markupsafe import Markup

from throughtime.wording import MINUS, NONE, fixed

# What HTML cannot hold: lone surrogates become the replacement character, and control characters
# (a sampled text may well contain them) the little pictures Unicode has for them.
_CONTROLS = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}
_CONTROLS |= {0x7F: 0x2421} | dict.fromkeys((*range(0x80, 0xA0), 0xFFFE, 0xFFFF), 0xFFFD)
_CONTROLS |= dict.fromkeys(range(0xD800, 0xE000), 0xFFFD)
_VOID = frozenset({"br", "hr", "link", "meta"})


def escape(text: str) -> Markup:
    """HTML in which `text` reads as it is, inside an element or a quoted attribute."""
    if isinstance(text, Markup):
        return text
    return markupsafe.escape(text.replace("\r\n", "\n").translate(_CONTROLS))


def join(*parts: str | None, by: str = "") -> Markup:
    """The parts one after the other; None is left out, plain text is escaped."""
    return Markup(escape(by).join(escape(part) for part in parts if part is not None))


def el(name: str, /, *children: str | None, **attributes: Any) -> Markup:
    """One element. `class_` and `aria_label` become `class` and `aria-label`.

    An attribute that is None or False is left out, True is written bare.
    """
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = key.rstrip("_").replace("_", "-")
        written.append(f" {key}" if value is True else f' {key}="{escape(str(value))}"')
    opening = f"<{name}{''.join(written)}>"
    return Markup(opening if name in _VOID else f"{opening}{join(*children)}</{name}>")


def data_block(value: Any, **attributes: Any) -> Markup:
    """A JSON data block that no text inside can close, whatever it contains."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return el("script", Markup(text), type="application/json", **attributes)


def number(value: object) -> float | None:
    """A finite float, or None for everything that is not a number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        result = float(value)
    except OverflowError:
        return None
    return result if math.isfinite(result) else None


def significant(value: float | None, digits: int = 4) -> str:
    """A number with about so many significant digits, an exponent only where it must be."""
    if not value:
        return NONE if value is None else "0"
    size = math.floor(math.log10(abs(value)))
    if size < -5 or size >= 12:
        return f"{value:.{digits - 1}e}".replace("-", MINUS)
    return fixed(value, max(0, digits - 1 - size))


def count(value: float | None) -> str:
    """A whole number with thousands apart."""
    return fixed(value, 0)


def percent(value: float | None) -> str:
    """A share in per cent with one decimal."""
    return NONE if value is None else f"{value:.1%}"


def megabytes(size: float | None) -> str:
    """Megabytes: 512 MB, 1.5 GB."""
    if size is None:
        return NONE
    return f"{size:,.0f} MB" if size < 1000 else f"{size / 1000:,.1f} GB"


def shorten(text: str, limit: int) -> str:
    """The beginning of a long text and what was left out, said plainly."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]} … ({len(text) - limit:,} more characters)"
