"""Numbers as people write them: decimal and thousands marks, currencies, per cent, k and M.

Which mark means what is a property of the file: it is found from the cells that leave no doubt,
and asked for where none does.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from throughtime.data.readers.files import quoted

if TYPE_CHECKING:
    import polars as pl

# Cells that hold nothing, in lower case.
MISSING = (
    "", "na", "n/a", "n.a.", "#n/a", "#na", "<na>", "nan", "-nan", "nat", "null", "(null)", "nil",
    "none", "missing", "nd", "n.d.", "m", "-", "--", "---", ".", "..", "...", "?", "*", "**", "***",
    ":", "\\n", "#value!", "#div/0!", "#ref!", "#num!", "#null!", "–", "—", "1.#qnan",
    "1.#ind",
)  # fmt: skip
_SPACES = "\u00a0\u202f\u2009 "
_MINUS = "[\u2212\u2012\u2013\ufe63\uff0d]"
_CURRENCY = (
    r"(?:(?:US|R|HK|NT|C|A|S|MX)?\$|[€£¥₹₽₩₺₴₫฿₱₪]|zł|Kč|kr\.?|Ft|lei|Rp\.?|RM|Rs\.?|USD|EUR|GBP|CHF|"
    r"JPY|CNY|INR|RUB|BRL|SEK|NOK|DKK|PLN|CZK|HUF|RON|TRY|CAD|AUD|NZD|MXN|ZAR|KRW|SGD|HKD|THB)"
)
_SUFFIX = r"(?:%|‰|[kKMBT]|bn|mn|Mio|Mrd|°C|°F|°)"
SCALES = {
    "k": 1e3,
    "K": 1e3,
    "M": 1e6,
    "mn": 1e6,
    "Mio": 1e6,
    "B": 1e9,
    "bn": 1e9,
    "Mrd": 1e9,
    "T": 1e12,
}
_CORE = rf"\d[\d.,'{_SPACES}’]*|[.,]\d+"
_WRITTEN = re.compile(
    rf"\(?[-+]?\s*{_CURRENCY}?\s*\(?[-+]?\s*(?P<core>{_CORE})(?P<exponent>[eE][-+]?\d+)?-?\s*"
    rf"(?P<suffix>{_SUFFIX}|{_CURRENCY})?\)?"
)
_THREES = re.compile(r"[-+]?[1-9]\d{0,2}(?:\.\d{3})+")
_PARTS = (
    rf"^(?P<open>\()?\s*(?P<sign>[-+])?\s*(?P<money>{_CURRENCY})?\s*(?P<open2>\()?(?P<sign2>[-+])?\s*"
    rf"(?P<core>{_CORE})(?P<exponent>[eE][-+]?\d+)?(?P<behind>-)?\s*"
    rf"(?P<suffix>{_SUFFIX}|{_CURRENCY})?(?P<close>\))?$"
)
_SAMPLE = 3_000  # cells of a column whose marks are looked at


@dataclass(frozen=True)
class Marks:
    """decimal and thousands mark, None where no cell shows one; evidence: the cell that does."""

    decimal: str | None = None
    thousands: str | None = None
    evidence: str = ""


@dataclass(frozen=True)
class Numbers:
    """A column read as numbers.

    values: float64 [height], NaN where missing or bad; bad: bool [height], cells that are no
    numbers; markers: cells that occur again and again in place of a number; notes: sentences;
    doubt: a cell whose marks can be read in two ways, or None.
    """

    values: np.ndarray
    bad: np.ndarray
    markers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    doubt: str | None = None

    @property
    def known(self) -> int:
        return int(np.count_nonzero(~np.isnan(self.values)))

    @property
    def numeric(self) -> bool:
        """Whether the column is meant as numbers: nine in ten of its cells that hold something."""
        return self.known > 0 and int(self.bad.sum()) * 9 <= self.known


def looks_like_number(cell: str) -> bool:
    """Whether a cell is a number in some writing, its unit included."""
    cell = re.sub(_MINUS, "-", cell)
    return bool(_WRITTEN.fullmatch(cell)) or cell.lower() in ("inf", "-inf", "+inf", "infinity")


def marks_of(cells: list[str]) -> Marks:
    """What the cells of a column say about their marks.

    A cell with both marks, with one mark several times, or whose digits do not come in threes
    leaves no doubt; `12,003` does.
    """
    decimal: dict[str, str] = {}
    thousands: dict[str, str] = {}
    for cell in cells:
        match = _WRITTEN.fullmatch(re.sub(_MINUS, "-", cell))
        if match is None:
            continue
        core = re.sub(f"[{_SPACES}]", " ", match["core"].strip()).replace("’", "'")
        found = [mark for mark in core if mark in ".,"]
        grouping = next((mark for mark in " '" if mark in core), None)
        if grouping:
            thousands.setdefault(grouping, cell)
            if found:
                decimal.setdefault(found[-1], cell)
        elif len(set(found)) == 2:
            thousands.setdefault(found[0], cell)
            if found.count(found[-1]) == 1:
                decimal.setdefault(found[-1], cell)
        elif len(found) > 1:
            thousands.setdefault(found[0], cell)
        elif found:
            before, after = core.split(found[0])
            if len(after) != 3 or len(before) > 3 or before in ("", "0") or match["exponent"]:
                decimal.setdefault(found[0], cell)
    # What both are said of is not settled by either: a cell with other digits came in between.
    for both in set(decimal) & set(thousands):
        del thousands[both]
    if not decimal and not thousands:
        return Marks()
    mark: str | None = next(iter(decimal), None)
    group = next((one for one in thousands if one != mark), None)
    if mark is None and group in (".", ","):
        mark = "," if group == "." else "."
    evidence = decimal.get(mark or "") or thousands.get(group or "") or ""
    return Marks(mark, group, f"'{evidence}'")


def lone_thousands(cells: list[str]) -> str | None:
    """A cell of a column in which every point stands before its last three digits, else None."""
    pattern = re.compile(r"[-+]?[1-9]\d{0,2}\.\d{3}")
    return cells[0] if len(cells) > 4 and all(map(pattern.fullmatch, cells)) else None


def shows_decimal_point(cells: list[str]) -> str | None:
    """A plain number whose point is not before three digits: it can only be a decimal point."""
    pattern = re.compile(r"[-+]?(?:0?|\d+)\.(?:\d{1,2}|\d{4,})|[-+]?0?\.\d+")
    return next((cell for cell in cells if pattern.fullmatch(cell)), None)


def plain(cells: pl.Series) -> tuple[pl.Series, pl.Series]:
    """The cells without blanks around them, and which hold nothing.

    Long columns are not copied where nothing is to be stripped.
    """
    import polars as pl

    blanks = _SPACES + "\t\r\ufeff"
    padded = cells.str.contains(f"^[{blanks}]|[{blanks}]$").any()
    stripped = cells.str.strip_chars(blanks) if padded else cells
    short = stripped.str.len_chars() <= max(map(len, MISSING))
    empty = stripped.is_null()
    if short.any():
        words = pl.select(pl.when(short).then(stripped)).to_series().str.to_lowercase()
        empty = empty | words.is_in(list(MISSING)).fill_null(False)
    return stripped, empty


def read_numbers(
    cells: pl.Series, file: Marks, missing: tuple[str, ...] = (), units: tuple[str, ...] = ()
) -> Numbers:
    """A column of text as numbers.

    file: the marks that the file or the user settles; missing: further cells that mean nothing;
    units: texts that are left out of cells.
    """
    import polars as pl

    stripped, empty = plain(cells)
    for unit in units:
        stripped = stripped.str.replace(unit, "", literal=True).str.strip_chars()
    if missing:
        empty = empty | stripped.is_in(list(missing)) | _equals(stripped, missing)
    parsed: pl.Series | None = None
    notes: list[str] = []
    doubt: str | None = None
    if file.decimal in (None, ".") and file.thousands is None:
        parsed = stripped.cast(pl.Float64, strict=False)
    grouped = parsed is not None and file.decimal is None and _points_in_threes(stripped, empty)
    if parsed is None or grouped or bool((parsed.is_null() & ~empty).any()):
        parsed, notes, doubt = _read_written(stripped, empty, file)
    bad = (parsed.is_null() & ~empty).to_numpy()
    numbers = pl.select(pl.when(~empty).then(parsed)).to_series().fill_null(math.nan).to_numpy()
    infinite = np.isinf(numbers)
    if infinite.any():
        bad, numbers = bad | infinite, np.where(infinite, np.nan, numbers)
    markers, bad = _markers(stripped, numbers, bad)
    return Numbers(numbers, bad, markers, tuple(notes), doubt)


def _points_in_threes(stripped: pl.Series, empty: pl.Series) -> bool:
    """Whether some cells have no point and the others one before each three digits."""
    import polars as pl

    some_cells = stripped.filter(~empty).head(_SAMPLE)
    marked = some_cells.filter(some_cells.str.contains(".", literal=True))
    bare = some_cells.filter(~some_cells.str.contains(".", literal=True))
    near = bare.cast(pl.Float64, strict=False).abs().max()
    few = len(marked) > 4 and isinstance(near, float) and 100 <= near < 1000
    return few and all(map(_THREES.fullmatch, marked.to_list()))


def _equals(stripped: pl.Series, missing: tuple[str, ...]) -> pl.Series:
    """Which cells are one of the markers as a number: -999 is also -999.0 and -999,00."""
    import polars as pl

    numbers = [number for number in map(_float, missing) if number is not None]
    as_numbers = stripped.str.replace(",", ".", literal=True).cast(pl.Float64, strict=False)
    return as_numbers.is_in(numbers).fill_null(False)


def _float(text: str) -> float | None:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return None


def _read_written(
    stripped: pl.Series, empty: pl.Series, file: Marks
) -> tuple[pl.Series, list[str], str | None]:
    """Numbers with marks and units; the third: a cell that can be read in two ways."""
    import polars as pl

    marks, notes, doubt = _settled(stripped.filter(~empty).head(_SAMPLE).to_list(), file)
    frame = pl.DataFrame({"cell": stripped.str.replace_all(_MINUS, "-").str.replace_all("’", "'")})
    parts = frame.select(pl.col("cell").str.extract_groups(_PARTS)).unnest("cell")
    core = parts["core"].str.replace_all(f"[{_SPACES}]", " ").str.strip_chars()
    number = _plain_numbers(core, parts["exponent"].fill_null(""), marks)
    opened = parts["open"].fill_null(parts["open2"])
    negative = (
        (parts["sign"].fill_null("") == "-")
        | (parts["sign2"].fill_null("") == "-")
        | (parts["behind"].fill_null("") == "-")
        | (opened.is_not_null() & parts["close"].is_not_null())
    )
    scale = parts["suffix"].replace_strict(SCALES, default=1.0, return_dtype=pl.Float64)
    sign = pl.select(pl.when(negative).then(-1.0).otherwise(1.0)).to_series()
    number = number * scale.fill_null(1.0) * sign
    return number, notes + _unit_notes(parts, number), doubt


def _settled(sample: list[str], file: Marks) -> tuple[Marks, list[str], str | None]:
    """What the marks of a column are, by the file or by its own cells; a note; a cell in doubt."""
    own = marks_of(sample)
    decimal = file.decimal or own.decimal
    thousands = file.thousands or own.thousands
    if decimal is None and file.thousands is not None:
        decimal = "," if file.thousands == "." else "."
    if decimal is None:
        lone = next((c for c in sample if re.search(r"\d,\d{3}(?!\d)", c)), None)
        if lone is not None:
            # 950 beside 1,002: what has no mark is below a thousand.
            plain_below = any("," not in c for c in sample) and _small(sample, ",")
            return Marks(".", ","), [], None if plain_below else lone
        decimal = "."
    if thousands is None and file.decimal is not None:
        # The other mark before three digits can only part thousands.
        other = "," if decimal == "." else "."
        if any(re.search(rf"\d{re.escape(other)}\d{{3}}(?!\d)", cell) for cell in sample):
            return Marks(decimal, other), [], None
    marked = [c for c in sample if "." in c]
    threes = bool(marked) and _small(sample, ".") and all(map(_THREES.fullmatch, marked))
    if decimal == "." and file.decimal is None and thousands is None and threes:
        # 994 beside 1.001, never 1.25: numbers cut to three places do not look so.
        note = (
            f"the point in '{marked[0]}' parts thousands, as no other number has places; "
            f"decimal='.' reads it otherwise"
        )
        return Marks(",", "."), [note], None
    return Marks(decimal, None if thousands == decimal else thousands), [], None


def _plain_numbers(core: pl.Series, exponent: pl.Series, marks: Marks) -> pl.Series:
    """Digits with marks as float64; null where the marks do not stand where they must."""
    import polars as pl

    point, group = re.escape(marks.decimal or "."), re.escape(marks.thousands or ",")
    # In threes, or as in India, the last three and then in twos: 1,23,45,678.
    grouped = rf"(?:\d{{1,3}}(?:{group}\d{{3}})+|\d{{1,2}}(?:{group}\d{{2}})+{group}\d{{3}})"
    grouped = grouped if marks.thousands else r"\d+"
    fits = core.str.contains(rf"^(?:{grouped}|\d*)(?:{point}\d*)?$")
    if marks.thousands:
        core = core.str.replace_all(marks.thousands, "", literal=True)
    core = core.str.replace(marks.decimal or ".", ".", literal=True) + exponent
    return pl.select(pl.when(fits).then(core)).to_series().cast(pl.Float64, strict=False)


def _small(sample: list[str], mark: str) -> bool:
    """Whether every cell without the mark is below a thousand."""
    return all(_is_below_thousand(cell) for cell in sample if mark not in cell)


def _is_below_thousand(cell: str) -> bool:
    number = _float(cell)
    return number is not None and abs(number) < 1000


def _unit_notes(parts: pl.DataFrame, number: pl.Series) -> list[str]:
    """Which units were left out, and which were multiplied in."""
    read = number.is_not_null()
    seen = [
        str(unit)
        for name in ("money", "suffix")
        for unit in parts[name].filter(read).drop_nulls().unique(maintain_order=True)
    ]
    left = [unit for unit in seen if unit not in SCALES]
    scaled = [f"{unit} = {SCALES[unit]:,.0f}" for unit in seen if unit in SCALES]
    notes = [f"the unit {quoted(left, 5)} is left out of the numbers"] if left else []
    return notes + ([f"multiplied in: {', '.join(scaled)}"] if scaled else [])


def _markers(
    stripped: pl.Series, numbers: np.ndarray, bad: np.ndarray
) -> tuple[tuple[str, ...], np.ndarray]:
    """Texts that stand again and again where a number should be, and the cells that remain bad."""
    if not bad.any() or np.isnan(numbers).all():
        return (), bad
    counts = stripped.filter(_series(bad)).value_counts(sort=True)
    words, times = counts[counts.columns[0]].to_list(), counts["count"].to_list()
    known = int(np.count_nonzero(~np.isnan(numbers)))
    often = [
        w for w, n in zip(words, times, strict=True) if n >= 2 and not any(map(str.isdigit, w))
    ]
    # A few words for a closed day or a sleeping sensor; many different ones are a column of words.
    if len(often) > 3 or sum(times) > known:
        return (), bad
    return tuple(often), bad & ~stripped.is_in(often).fill_null(False).to_numpy()


def _series(mask: np.ndarray) -> pl.Series:
    import polars as pl

    return pl.Series(mask)
