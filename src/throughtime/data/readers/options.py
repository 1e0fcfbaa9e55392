"""How a source is to be read: the options of `tt.read` as one value."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, Literal, TypedDict, get_args

if sys.version_info >= (3, 11):
    from typing import Unpack as Unpack
else:
    from typing_extensions import Unpack as Unpack

from throughtime.data.readers.files import quoted
from throughtime.data.readers.sound import check_rate
from throughtime.errors import SettingError, nearest

Names = str | Iterable[str] | None
Sort = Literal["time", "keep", "reverse"]
Duplicates = Literal["first", "last", "mean", "error"]
Gaps = Literal["keep", "fill"]
Layout = Literal["columns", "rows"]
Leading = Literal["cut", "keep"]


class ReadOptions(TypedDict, total=False):
    """The keywords of `tt.read`; `read` says what each means."""

    time: Names | Literal[False]
    value: Names
    id: Names
    covariates: Names
    layout: Layout | None
    time_format: str | None
    zone: str | None
    sort: Sort | None
    duplicates: Duplicates | None
    gaps: Gaps
    leading: Leading
    header: bool | None
    skip: int | None
    comment: str | None
    separator: str | None
    decimal: str | None
    thousands: str | None
    units: Names
    missing: Names
    part: str | None
    encoding: str | None
    text: str | None
    lines: bool | None
    rate: float | None


# Each option and the readers that it says something to.
_SERIES = ("series",)
READERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(ReadOptions.__annotations__, _SERIES),
    "value": ("series", "jsonl"),
    "id": ("series", "jsonl"),
    "part": ("series", "array", "text"),
    "encoding": ("series", "text", "jsonl"),
    "text": ("jsonl",),
    "lines": ("text",),
    "rate": ("sound",),
}
_CHOICES = {
    "sort": get_args(Sort),
    "duplicates": get_args(Duplicates),
    "gaps": get_args(Gaps),
    "layout": get_args(Layout),
    "leading": get_args(Leading),
}
_LISTS = ("value", "covariates", "units", "missing")


@dataclass(frozen=True)
class Options:
    """The options of `read` beside the source and its kind; None and () mean: find out."""

    time: str | tuple[str, ...] | Literal[False] | None = None
    value: tuple[str, ...] = ()
    id: str | tuple[str, ...] | None = None
    covariates: tuple[str, ...] = ()
    layout: Layout | None = None
    time_format: str | None = None
    zone: str | None = None
    sort: Sort | None = None
    duplicates: Duplicates | None = None
    gaps: Gaps = "keep"
    leading: Leading = "cut"
    header: bool | None = None
    skip: int | None = None
    comment: str | None = None
    separator: str | None = None
    decimal: str | None = None
    thousands: str | None = None
    units: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    part: str | None = None
    encoding: str | None = None
    text: str = "text"
    lines: bool = False
    rate: int | None = None

    @classmethod
    def of(cls, given: ReadOptions | dict[str, Any]) -> Options:
        """The keywords of `read`, checked.

        Raises: SettingError for an option that does not exist or for a value it cannot have.
        """
        values: dict[str, Any] = {}
        for name, value in given.items():
            if name not in READERS:
                raise SettingError(
                    f"read has no option '{name}'{nearest(name, READERS) or '; see help(tt.read)'}"
                )
            if value is None:
                continue
            if name in _CHOICES and value not in _CHOICES[name]:
                raise SettingError(f"{name}={value!r}: use one of {quoted(_CHOICES[name])}")
            values[name] = _tidy(name, value)
        return cls(**values)

    def given(self) -> dict[str, Any]:
        """What was asked for otherwise than by default, as `read` takes it again."""
        given = {}
        for part in fields(self):
            value = getattr(self, part.name)
            if value != part.default:
                given[part.name] = list(value) if isinstance(value, tuple) else value
        return given

    def check(self, *takers: str) -> None:
        """Raises SettingError for an option that none of these readers has a use for."""
        for option in fields(self):
            readers = READERS[option.name]
            if getattr(self, option.name) != option.default and not {*takers} & {*readers}:
                raise SettingError(
                    f"{option.name}= says nothing about this source; it is for {readers[0]}"
                )


def as_names(given: Names) -> tuple[str, ...]:
    """Column names from one name, several, or None."""
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else tuple(str(name) for name in given)


def _tidy(name: str, value: Any) -> Any:
    """A value as the fields of `Options` hold it."""
    if name in _LISTS:
        if isinstance(value, (int, float)):
            value = f"{value:g}"
        return as_names(value)
    if name in ("time", "id") and value is not False:
        names = as_names(value)  # "date,clock" may be one column or two: the table knows
        return names[0] if len(names) == 1 else names or None
    if name == "rate":
        return check_rate(value)
    if name == "skip" and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise SettingError(f"skip={value!r}: a number of lines, 0 or more")
    if name in ("separator", "decimal", "thousands", "comment") and not isinstance(value, str):
        raise SettingError(f"{name}={value!r}: a mark in quotes")
    return value
