"""How time stamps are written: the formats that a cell may have, and reading a column by one."""

from __future__ import annotations

import datetime
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from throughtime.errors import SettingError

if TYPE_CHECKING:
    import polars as pl

_MARK = r"[-/. ]"
# A date by the shape of its first cell, with the formats it may have; SEP is the mark between.
_NUMERIC = (
    (r"\d{4}([-/. :])\d{1,2}\1\d{1,2}", ("%YSEP%mSEP%d",)),
    (rf"\d{{1,2}}({_MARK})\d{{1,2}}\1\d{{4}}", ("%mSEP%dSEP%Y", "%dSEP%mSEP%Y")),
    (rf"\d{{1,2}}({_MARK})\d{{1,2}}\1\d{{2}}", ("%mSEP%dSEP%y", "%dSEP%mSEP%y", "%ySEP%mSEP%d")),
    (r"\d{4}([-/:])\d{1,2}", ("%YSEP%m", "span")),
    (r"\d{1,2}([-/])\d{4}", ("%mSEP%Y",)),
    (r"\d{4}([-/])\d{4}", ("span",)),
    (r"\d{4}([-])\d{3}", ("%YSEP%j",)),
    (r"\d{8}()", ("%Y%m%d", "%d%m%Y")),
)
_NAMED = (
    (r"[A-Za-z]{3,9}([- /])\d{1,2},? ?\1?\d{4}", ("%BSEP%d, %Y", "%BSEP%dSEP%Y")),
    (
        r"\d{1,2}\.?([- /])[A-Za-z]{3,9},?\1\d{4}",
        ("%dSEP%BSEP%Y", "%d.SEP%BSEP%Y", "%dSEP%B,SEP%Y"),
    ),
    (r"\d{1,2}([- /])[A-Za-z]{3,9}\1\d{2}", ("%dSEP%BSEP%y",)),
    (r"\d{4}([- /])[A-Za-z]{3,9}\1\d{1,2}", ("%YSEP%BSEP%d",)),
    (r"\d{1,2}()[A-Za-z]{3}\d{4}", ("%d%b%Y",)),
    (r"\d{1,2}()[A-Za-z]{3}\d{2}", ("%d%b%y",)),
    (r"[A-Za-z]{3,9}([- /,]|, )\d{4}", ("%BSEP%Y",)),
    (r"\d{4}([- /])[A-Za-z]{3,9}", ("%YSEP%B",)),
    (r"[A-Za-z]{3,9}([- /'])\d{2}", ("%BSEP%y",)),
    (r"\d{2}([- /])[A-Za-z]{3,9}", ("%ySEP%B",)),
    (r"[A-Za-z]{3}()\d{2}", ("%b%y",)),
    (r"[A-Za-z]{3}()\d{4}", ("%b%Y",)),
    (r"\d{4}()[A-Za-z]{3}", ("%Y%b",)),
)
_CLOCKS = (
    (r"", ("",)),
    (r"[ T]\d{1,2}:\d{2}", ("GAP%H:%M",)),
    (r"[ T]\d{1,2}:\d{2}:\d{2}", ("GAP%H:%M:%S",)),
    (r"[ T]\d{1,2}:\d{2}:\d{2}\.\d+", ("GAP%H:%M:%S%.f",)),
    (r"[ T]\d{1,2}:\d{2} [AP]M", ("GAP%I:%M %p",)),
    (r"[ T]\d{1,2}:\d{2}:\d{2} [AP]M", ("GAP%I:%M:%S %p",)),
    (r"[ T]\d{1,2}:\d{2}:\d{2}\.\d+ [AP]M", ("GAP%I:%M:%S%.f %p",)),
    (r"[ T]\d{1,2} [AP]M", ("GAP%I %p",)),
    (r"[ T]\d{1,2}\.\d{2}\.\d{2}", ("GAP%H.%M.%S",)),
    (r"[ T]\d{1,2}\.\d{2}", ("GAP%H.%M",)),
    (r"[ T:]\d{4}", ("GAP%H%M",)),
    (r"[ T:]\d{6}", ("GAP%H%M%S",)),
    (r":\d{2}:\d{2}", (":%H:%M",)),
    (r":\d{2}:\d{2}:\d{2}", (":%H:%M:%S",)),
    (r"[ T]\d{2}", ("GAP%H",)),
)
_YEAR = r"'?(\d{4}|\d{2})"
_PERIODS = {
    "quarter": rf"(?:(\d{{4}})[-/: ]*Q([1-4])|Q([1-4])[-/: ]*{_YEAR}|([1-4])\.? ?Q[-/: ]*{_YEAR})",
    "week": r"(?:(\d{4})[- ]?K?W ?(\d{1,2})(?:-?([1-7]))?|K?W[- ]?(\d{1,2})[-/ ]+(\d{4}))",
    "half": rf"(?:(\d{{4}})[-/: ]*[HS]([12])|[HS]([12])[-/: ]*{_YEAR}|([12]) ?[HS][-/: ]*{_YEAR})",
    "monthnumber": r"(?:(\d{4})[-/: ]?M(\d{1,2})|M(\d{1,2})[-/: ]?(\d{4}))",
    "fiscal": rf"(?:FY|CY) ?{_YEAR}",
}
_ZONES = {"Z": 0, "UTC": 0, "GMT": 0, "CET": 60, "CEST": 120, "WET": 0, "WEST": 60, "EET": 120,
          "EEST": 180, "BST": 60, "EST": -300, "EDT": -240, "CST": -360, "CDT": -300, "MST": -420,
          "MDT": -360, "PST": -480, "PDT": -420, "JST": 540, "AEST": 600, "AEDT": 660}  # fmt: skip
_ZONE = rf"(?:{'|'.join(sorted(_ZONES, key=len, reverse=True))})?(?:[-+]\d{{1,2}}(?::?\d{{2}})?)?"
_ENDING = (
    r"(.*?\d{1,2}[:.]\d{2}(?:[:.]\d{2})?(?:[.,]\d+)?(?: [AP]M)?|\d[-\d/]{7,9})"
    rf" ?({_ZONE})"
)
# Months by their first letters, in the languages of Europe; English ones stay as they are.
_MONTHS = {
    "Jan": "januar jänner jän janvier janv januari gennaio gen enero ene janeiro ocak styczeń",
    "Feb": "februar feber février févr fév fevrier februari febbraio febrero fevereiro fev",
    "Mar": "märz mrz mär maerz mars maart mrt marzo março marco",
    "Apr": "avril avr aprile abril abr",
    "May": "mai mei maggio mag mayo maio maj",
    "Jun": "juni juin giugno giu junio junho",
    "Jul": "juli juillet juil luglio lug julio julho",
    "Aug": "août aout augustus agosto ago augusti",
    "Sep": "sept septembre settembre set septiembre setembro",
    "Oct": "okt oktober octobre ottobre ott octubre outubro out",
    "Nov": "novembre noviembre novembro",
    "Dec": "dez dezember décembre déc decembre dicembre dic diciembre dezembro des desember",
}
_MONTH_OF = {word: month for month, words in _MONTHS.items() for word in words.split()}
_ENGLISH = re.compile(
    "jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sep(tember)?|oct(ober)?|"
    "nov(ember)?|dec(ember)?"
)
_WORD = r"([^\W\d_]{3,})"
# What is written otherwise in a stamp, and how we write it; the order counts.
_REWRITES = (
    (r"\s+", " "),
    (r"^(?:(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*\.?,?|(?:Mo|Di|Mi|Do|Fr|Sa|So)[.,]+) ", ""),
    (r"^(\d{4}) ?[年년] ?(\d{1,2}) ?[月월] ?(\d{1,2}) ?[日일]", "${1}-${2}-${3}"),
    (r"^(\d{4}) ?[年년] ?(\d{1,2}) ?[月월]", "${1}-${2}"),
    (r"^(\d{1,4})\. ?(\d{1,2})\. ?(\d{1,4})\.?( |$)", "${1}.${2}.${3}${4}"),
    (r"^(\d{1,2})(?:st|nd|rd|th) ", "${1} "),
    (r" (\d{1,2})(?:st|nd|rd|th),? ", " ${1}, "),
    (r"^([A-Z][a-z]{2} \d{1,2}) (\d{2}:\d{2}:\d{2})( \S+)? (\d{4})$", "${1} ${4} ${2}${3}"),
    (r" \([^)]*\)$", ""),
    (r" ?@ ?(\d)", " ${1}"),
    (r"(?i)(\d) ?a\.? ?m\.?( |$)", "${1} AM${2}"),
    (r"(?i)(\d) ?p\.? ?m\.?( |$)", "${1} PM${2}"),
    (r" (\d{1,2})\.(\d{2})\.(\d{2})\.(\d+) ([AP]M)$", " ${1}:${2}:${3}.${4} ${5}"),
    (r"^(.*\d)(?: - | bis | – |/)\d[-\d./]{7,}(?:[ T][\d:]+)?$", "${1}"),  # from the first on
    (r"^([1-4])\. ?(?:Quartal|Quarter|kwartaal|trimestre) ", "Q${1} "),
    (r"(?i)^(?:KW|week|wk) ?(\d{1,2})", "W${1}"),
)
_PLAIN = r"^\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[ T]\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?)?$"
CLOCK = r"\d{1,2}[:.]\d{2}(?:[:.]\d{2}(?:[.,]\d+)?)?(?: ?[AaPp]\.?[Mm]\.?)?"
EPOCHS = {"epoch": 1_000_000, "epoch_ms": 1_000, "epoch_us": 1, "epoch_ns": 0.001}
EPOCH_NAMES = {"epoch": "seconds", "epoch_ms": "milliseconds", "epoch_us": "microseconds",
               "epoch_ns": "nanoseconds"}  # fmt: skip
_EXCEL = np.datetime64("1899-12-30", "us")
DAY = 86_400_000_000
DIGITS = {4: ("%Y",), 6: ("%Y%m", "%y%m%d"), 7: ("%Y%j",), 8: ("%Y%m%d", "%d%m%Y"),
          10: ("%Y%m%d%H", "epoch"), 12: ("%Y%m%d%H%M",), 13: ("epoch_ms",), 14: ("%Y%m%d%H%M%S",),
          9: ("epoch",), 16: ("epoch_us",), 19: ("epoch_ns",)}  # fmt: skip
NOT_DATES = ("quarter", "week", "half", "monthnumber", "fiscal", "span", "number", "excel", *EPOCHS)


def tidy(cell: str) -> str:
    """A stamp without weekday, zone and superfluous blanks (see `tidied`, which does columns)."""
    cell = cell.strip()
    for pattern, replacement in _REWRITES:
        cell = re.sub(pattern, re.sub(r"\$\{(\d)\}", r"\\g<\1>", replacement), cell)
    cell = re.sub(rf"{_WORD}\.?", lambda word: _english(word[1]) or word[0], cell).strip()
    match = re.fullmatch(
        rf"(.*\d[:.]\d{{2}}(?:[.,]\d+)?(?: [AP]M)?|\d[-\d/]{{7,9}}) ?({_ZONE})", cell
    )
    cell = match[1].strip() if match and match[2] else cell
    return re.sub(r"(:\d{2}),(\d)", r"\1.\2", cell)


def _english(word: str) -> str | None:
    """The month that a word in another language means."""
    return _MONTH_OF.get(word.lower()) or (word if _ENGLISH.fullmatch(word.lower()) else None)


def formats_of(cell: str) -> list[str]:
    """The formats that a stamp may have, as strftime or by a name of ours; none for no date."""
    cell = tidy(cell)
    for name, pattern in _PERIODS.items():
        if re.fullmatch(pattern, cell, re.IGNORECASE):
            return [name]
    if cell.isdigit():
        return list(DIGITS.get(len(cell), ()))
    found = []
    for pattern, formats in (*_NUMERIC, *_NAMED):
        match = re.match(pattern, cell)
        if match is None:
            continue
        rest = cell[match.end() :]
        for clock_pattern, clocks in _CLOCKS:
            if re.fullmatch(clock_pattern, rest):
                gap = rest[:1]
                found += [
                    form.replace("SEP", match[1]) + clock.replace("GAP", gap)
                    for form in formats
                    for clock in clocks
                    if not rest or re.search("%[dj]", form)  # a month has no clock
                ]
    return found


def looks_like_stamp(cell: str) -> bool:
    """Whether a cell is a date in some writing, more than a bare number."""
    tidied = tidy(cell)
    return not tidied.isdigit() and bool(formats_of(tidied)) and bool(re.search(r"\d", tidied))


def looks_like_clock(cell: str) -> bool:
    """Whether a cell is a time of day alone."""
    return bool(re.fullmatch(CLOCK, cell.strip()))


def shape(cells: pl.Series) -> pl.Series:
    """What the cells have in common: digits as 9, letters as a, runs of letters as one."""
    return cells.str.replace_all(r"\d", "9").str.replace_all(r"[A-Za-z]+", "a")


def tidied(cells: pl.Series) -> tuple[pl.Series, np.ndarray | None]:
    """The column as `tidy` leaves a cell, and minutes ahead of UTC where it says a zone."""
    import polars as pl

    if bool(cells.str.contains(_PLAIN).all()):
        return cells, None
    cells = cells.str.strip_chars()
    for pattern, replacement in _REWRITES:
        cells = cells.str.replace_all(pattern, replacement)
    for word in cells.str.extract(_WORD).drop_nulls().unique():
        month = _english(word)
        if month is not None:
            cells = cells.str.replace(rf"{word}\.?", month)
    cells = cells.str.strip_chars()
    zones = cells.str.extract(f"^{_ENDING}$", 2)
    zones = zones.set(zones == "", None)
    if zones.null_count() == len(zones):
        return cells.str.replace(r"(:\d{2}),(\d)", "${1}.${2}"), None
    ends = zones.str.len_chars().fill_null(0)
    kept = (cells.str.len_chars() - ends).cast(pl.UInt32)
    cells = pl.select(
        pl.lit(cells).str.slice(0, pl.lit(kept)).str.strip_chars().alias("cell")
    ).to_series()
    minutes = {zone: _minutes(zone) for zone in zones.drop_nulls().unique()}
    ahead = zones.replace_strict(minutes, default=0, return_dtype=pl.Int64).fill_null(0).to_numpy()
    return cells.str.replace(r"(:\d{2}),(\d)", "${1}.${2}"), ahead


def _minutes(zone: str) -> int:
    """Minutes ahead of UTC of `+0530`, `GMT-8`, `CET`."""
    match = re.fullmatch(r"([A-Z]*)(?:([-+])(\d{1,2}):?(\d{2})?)?", zone)
    if match is None:
        return 0
    ahead = _ZONES.get(match[1], 0)
    if match[2]:
        ahead += (int(match[3]) * 60 + int(match[4] or 0)) * (-1 if match[2] == "-" else 1)
    return ahead


def parse(cells: pl.Series, form: str) -> np.ndarray:
    """The tidied column by one format: datetime64[us], NaT where the cell does not fit.

    `19%y` and `20%y` in a format say the century of years of two digits; `%y` alone is 1970 to
    2069. Raises: SettingError for what is no format.
    """
    import polars as pl

    if form in _PERIODS:
        return _period(cells, form)
    if form == "span":
        year = cells.str.slice(0, 4).cast(pl.Int64, strict=False)
        next_year = cells.str.extract(r"[^\d](?:\d{2})?(\d{2})$").cast(pl.Int64, strict=False)
        fits = ((year + 1) % 100 == next_year).fill_null(False)
        return _years(pl.select(pl.when(fits).then(year)).to_series())
    if form == "excel" or form in EPOCHS:
        return from_numbers(cells.cast(pl.Float64, strict=False).to_numpy(), form)
    century = re.search(r"(19|20)%y", form)
    form = form.replace("19%y", "%y").replace("20%y", "%y") if century else form
    if form == "%Y":
        fits = cells.str.contains(r"^\d{4}$").fill_null(False)
        return _years(pl.select(pl.when(fits).then(cells)).to_series().cast(pl.Int64, strict=False))
    late = None
    if "%H" in form and bool(cells.str.contains(r"[ T]24[:.]?00").any()):
        late = cells.str.contains(r"[ T]24[:.]?00").fill_null(False).to_numpy()
        cells = cells.str.replace(r"([ T])24([:.]?00)", "${1}00${2}")
    if not re.search(r"%[djDFe]", form):
        cells, form = cells + " 1", form + " %d"  # a month is its first day
    if re.search(r"%H(?!.*%M)", form) or re.search(r"%I(?!.*%M)", form):
        cells, form = cells + ":00", form + ":%M"
    try:
        parsed = cells.str.to_datetime(form, strict=False, time_unit="us")
    except pl.exceptions.PolarsError as error:
        raise SettingError(
            f"time_format='{form}' is not a time format: use %Y, %m, %d, …"
        ) from error
    stamps: np.ndarray = parsed.dt.replace_time_zone(None).to_numpy()
    stamps = stamps.astype("datetime64[us]", copy=False)
    if late is not None:
        stamps = np.where(late, stamps + np.timedelta64(1, "D"), stamps)
    return stamps if century is None else _in_century(stamps, int(century[1]))


def _years(years: pl.Series) -> np.ndarray:
    numbers = years.cast(float).to_numpy()
    known = np.isfinite(numbers) & (numbers >= 1) & (numbers <= 9999)
    stamps = np.full(len(numbers), np.datetime64("NaT", "us"))
    stamps[known] = (numbers[known].astype(np.int64) - 1970).astype("datetime64[Y]")
    return stamps


def _in_century(stamps: np.ndarray, century: int) -> np.ndarray:
    """The same days of the year in 19yy or 20yy."""
    years = stamps.astype("datetime64[Y]").astype(np.int64) + 1970
    months = stamps.astype("datetime64[M]")
    rest = stamps - months.astype("datetime64[us]")
    shift = np.where(np.isnat(stamps), 0, century * 100 + years % 100 - years) * 12
    moved: np.ndarray = (months + shift).astype("datetime64[us]") + rest
    return moved


def _period(cells: pl.Series, form: str) -> np.ndarray:
    """Quarters, halves, numbered months and ISO weeks, as the day they begin."""
    import polars as pl

    groups = (
        pl.DataFrame({"cell": cells})
        .select(pl.col("cell").str.extract_groups(rf"(?i)^{_PERIODS[form]}$"))
        .unnest("cell")
    )
    parts = [groups[name].cast(pl.Int64, strict=False) for name in groups.columns]
    if form == "fiscal":
        return _years(_four_digits(parts[0]))
    if form == "week":
        parts[0], parts[1] = parts[0].fill_null(parts[4]), parts[1].fill_null(parts[3])
        week, day = parts[1].cast(pl.String).str.zfill(2), parts[2].fill_null(1).cast(pl.String)
        text = parts[0].cast(pl.String) + "-W" + week + "-" + day
        return text.str.to_datetime("%G-W%V-%u", strict=False, time_unit="us").to_numpy()
    years, numbers = parts[0], parts[1]
    for year, number in ((3, 2), (5, 4)):
        if len(parts) > year:
            years, numbers = years.fill_null(parts[year]), numbers.fill_null(parts[number])
    size = {"quarter": 3, "half": 6, "monthnumber": 1}[form]
    months = (numbers * size - (size - 1)).cast(pl.String)
    text = _four_digits(years).cast(pl.String) + "-" + months + "-1"
    return text.str.to_datetime("%Y-%m-%d", strict=False, time_unit="us").to_numpy()


def _four_digits(years: pl.Series) -> pl.Series:
    """Years of two digits in the century in which they lie before next year."""
    import polars as pl

    last = datetime.date.today().year + 1
    short = pl.select(pl.when(years < 100).then(years)).to_series()
    full = short + 2000
    full = pl.select(pl.when(full > last).then(full - 100).otherwise(full)).to_series()
    return full.fill_null(years)


def from_numbers(numbers: np.ndarray, form: str) -> np.ndarray:
    """Seconds (…) since 1970, or days as Excel counts them; NaT outside the years 1 to 9999."""
    size = DAY if form == "excel" else EPOCHS[form]
    microseconds = np.round(numbers * size)
    known = np.isfinite(microseconds) & (np.abs(microseconds) < 2.5e17)
    stamps = np.full(len(numbers), np.datetime64("NaT", "us"))
    base = _EXCEL if form == "excel" else np.datetime64(0, "us")
    stamps[known] = base + microseconds[known].astype(np.int64).astype("timedelta64[us]")
    return stamps


def column_times(names: Sequence[str]) -> np.ndarray | None:
    """Times from the names of columns: years, months or dates that rise."""
    import polars as pl

    if not names:
        return None
    cells = pl.Series([_named_time(name) for name in names])
    for form in formats_of(cells[0]) or []:
        if form in ("epoch", "epoch_ms", "epoch_us", "epoch_ns"):
            continue
        stamps = parse(cells, form)
        if not np.isnat(stamps).any() and bool((np.diff(stamps).astype(np.int64) > 0).all()):
            years = stamps.astype("datetime64[Y]").astype(np.int64) + 1970
            if years.min() >= 1500 and years.max() <= 2200:
                return stamps
    return None


def _named_time(name: str) -> str:
    """The time in a name such as `X2019` (of R) or `2019 [YR2019]` (of the World Bank)."""
    return tidy(re.sub(r"^[Xx](?=\d{4})| ?\[YR\d{4}\]$", "", name.strip()))


def today() -> np.datetime64:
    """Dates of recorded data lie before it."""
    return np.datetime64(datetime.date.today(), "us")
