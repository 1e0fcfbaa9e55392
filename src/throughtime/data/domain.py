"""What the numbers of a set of sequences mean."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from throughtime.errors import DataError, SettingError

KINDS = ("text", "sound", "real", "symbols", "count", "binary")
INTEGER_KINDS = ("text", "symbols")  # values are int64 [total]; the others are float64 [total, D]


@dataclass(frozen=True)
class Domain:
    """What the values of a `Sequences` are, and what one step of it is called.

    Attributes:
        kind: "text" (Unicode code points), "sound" (amplitudes in [-1, 1]), "real", and after
            transforms also "symbols", "count" and "binary".
        columns: names of the D columns of values.
        num_symbols: of symbols, which are 0 … num_symbols - 1.
        sample_rate: of sound, Hz.
        step: what one step is called: "day", "character", "sample", …
        covariate_columns: names of the C covariates.

    Raises:
        SettingError: for an unknown kind, and for symbols without their number.
    """

    kind: str
    columns: tuple[str, ...] = ()
    num_symbols: int | None = None
    sample_rate: float | None = None
    step: str = "step"
    covariate_columns: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise SettingError(f"unknown kind of data '{self.kind}': use one of {', '.join(KINDS)}")
        if self.kind == "symbols" and (self.num_symbols is None or self.num_symbols < 1):
            raise SettingError("symbols need num_symbols, the number of different symbols")

    @property
    def integer(self) -> bool:
        """True where values are int64 ``[total]`` without a column axis."""
        return self.kind in INTEGER_KINDS

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back."""
        fields = asdict(self)
        fields["columns"] = list(self.columns)
        fields["covariate_columns"] = list(self.covariate_columns)
        return fields

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Domain:
        """The domain that `to_json` wrote; raises DataError for anything else."""
        try:
            known = dict(fields)
            known["columns"] = tuple(known.get("columns", ()))
            known["covariate_columns"] = tuple(known.get("covariate_columns", ()))
            return cls(**known)
        except TypeError as error:
            raise DataError(f"not a description of a domain: {error}") from error
