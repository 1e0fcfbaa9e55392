"""The options that say how data are read, the same for every command that reads some."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

_group = Group("Reading the data", sort_key=2)

Data = Annotated[
    str,
    Parameter(help="A file, a folder, - (standard input), or demo:prices, demo:nasdaq, demo:text."),
]


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Reading:
    """Options of `tt.read`; what was not given is not passed on."""

    time: Annotated[
        str | None,
        Parameter(
            help="Column of time stamps, or several: date,clock; none: rows as they come.",
            group=_group,
        ),
    ] = None
    value: Annotated[
        list[str] | None,
        Parameter(help="Column to model (again for more); '*': all.", negative=(), group=_group),
    ] = None
    id: Annotated[
        str | None,
        Parameter(help="Column that names the series, or several: shop,item.", group=_group),
    ] = None
    covariates: Annotated[
        list[str] | None,
        Parameter(help="Column known beforehand (again for more).", negative=(), group=_group),
    ] = None
    time_format: Annotated[
        str | None,
        Parameter(help="As in strftime (%d/%m/%Y), epoch, epoch_ms, number.", group=_group),
    ] = None
    zone: Annotated[
        str | None, Parameter(help="Of stamps that say none: Europe/Berlin.", group=_group)
    ] = None
    sort: Annotated[
        Literal["time", "keep", "reverse"] | None, Parameter(help="Rows.", group=_group)
    ] = None
    duplicates: Annotated[
        Literal["first", "last", "mean", "error"] | None,
        Parameter(help="Which of several rows with one stamp.", group=_group),
    ] = None
    layout: Annotated[
        Literal["columns", "rows"] | None,
        Parameter(help="rows: each row is a series.", group=_group),
    ] = None
    missing: Annotated[
        list[str] | None,
        Parameter(help="Cell that means no value (again for more).", negative=(), group=_group),
    ] = None
    leading: Annotated[
        Literal["cut", "keep"] | None,
        Parameter(help="Rows before the first value.", group=_group),
    ] = None
    decimal: Annotated[str | None, Parameter(help="Mark in numbers.", group=_group)] = None
    thousands: Annotated[str | None, Parameter(help="Mark in numbers.", group=_group)] = None
    units: Annotated[
        list[str] | None,
        Parameter(help="Text to leave out of numbers.", negative=(), group=_group),
    ] = None
    separator: Annotated[
        str | None, Parameter(help="Of cells; ' ' for any blanks.", group=_group)
    ] = None
    skip: Annotated[int | None, Parameter(help="Lines above the table.", group=_group)] = None
    comment: Annotated[str | None, Parameter(help="Mark of lines to leave out.", group=_group)] = (
        None
    )
    part: Annotated[
        str | None,
        Parameter(help="Sheet, member or array of a file with several.", group=_group),
    ] = None
    gaps: Annotated[
        Literal["keep", "fill"] | None, Parameter(help="Missing rows.", group=_group)
    ] = None
    header: Annotated[
        bool | None, Parameter(help="Whether a table's first line names columns.", group=_group)
    ] = None
    lines: Annotated[
        bool,
        Parameter(
            help="Each line of a text is a sequence.",
            negative=(),
            show_default=False,
            group=_group,
        ),
    ] = False
    text: Annotated[
        str | None, Parameter(help="Field of a .jsonl file that holds text.", group=_group)
    ] = None
    encoding: Annotated[
        str | None, Parameter(help="Of text: utf-8, latin-1, … or bytes.", group=_group)
    ] = None
    rate: Annotated[
        float | None, Parameter(help="Resample sound to this rate, Hz.", group=_group)
    ] = None
    kind: Annotated[
        Literal["series", "text", "sound"] | None,
        Parameter(help="If the name does not say it.", group=_group),
    ] = None

    def options(self) -> dict[str, Any]:
        """As `tt.read` takes them."""
        given = asdict(self) | {"time": False if self.time == "none" else self.time}
        names = ("value", "covariates", "lines", "missing", "units")
        lists = {name: given[name] or None for name in names}
        return given | lists
