"""The plan of a file: what it was taken for, each entry with the evidence it rests on."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One decision about a file.

    name: of the option of `tt.read` that overrides it; value: what was decided, as that option
    takes it; evidence: what it rests on; passed_over: what else was possible, and why not.
    """

    name: str
    value: Any
    evidence: str
    passed_over: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReadPlan:
    """How a table was read: separator, marks, header, columns and their roles, times, order, …

    Attributes:
        entries: the decisions, in the order in which they were made.
        given: names of the options that the user gave; they are not guesses.
    """

    entries: tuple[Entry, ...] = ()
    given: tuple[str, ...] = field(default=())

    def with_entry(
        self, name: str, value: Any, evidence: str, passed_over: tuple[str, ...] = ()
    ) -> ReadPlan:
        return replace(self, entries=(*self.entries, Entry(name, value, evidence, passed_over)))

    def value(self, name: str, otherwise: Any = None) -> Any:
        """What was decided under that name."""
        return next((entry.value for entry in self.entries if entry.name == name), otherwise)

    def again(self) -> dict[str, Any]:
        """Options with which other data of the same kind are read: what they might not settle.

        The shape of a file (separator, header, lines to skip) is found out anew for each.
        """
        return {
            entry.name: list(entry.value) if isinstance(entry.value, tuple) else entry.value
            for entry in self.entries
            if entry.name in ("value", "missing")
            or (entry.name == "time_format" and entry.passed_over)
        }

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> ReadPlan:
        def entry(one: dict[str, Any]) -> Entry:
            value = one["value"]
            return Entry(
                str(one["name"]),
                tuple(value) if isinstance(value, list) else value,
                str(one["evidence"]),
                tuple(map(str, one["passed_over"])),
            )

        return cls(tuple(map(entry, values["entries"])), tuple(map(str, values["given"])))


def plan_json(plan: ReadPlan | None) -> dict[str, Any] | None:
    """As files keep a plan; data that are no table have none."""
    return None if plan is None else plan.to_json()


def plan_of(values: dict[str, Any] | None) -> ReadPlan | None:
    """The plan that `plan_json` wrote."""
    return None if values is None else ReadPlan.from_json(values)
