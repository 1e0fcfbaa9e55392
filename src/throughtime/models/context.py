"""Where sequences stand: the one value that conditioning returns and sampling takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from throughtime import state as states
from throughtime.errors import SettingError
from throughtime.state import State


@dataclass(frozen=True)
class Context:
    """State and last element of N sequences, ready for what comes next.

    The two belong together: a state says what came before the last element, so neither goes on
    without the other. A new sequence has no context (None).

    Attributes:
        state: what a model returned after the last element was predicted, batch N on dim 1.
        previous: the last elements, ``[N]`` symbols or ``[N, D]`` values.
        series: the index of each in the training set, int64 ``[N]``, -1 unknown; None without.
    """

    state: State
    previous: Tensor
    series: Tensor | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.previous, Tensor):
            raise SettingError(
                "a context needs the last element of each sequence beside the state: "
                "take both from model.condition(data), or give no context for new sequences"
            )

    def __len__(self) -> int:
        return len(self.previous)

    def __getitem__(self, rows: int | slice | Tensor | Sequence[int]) -> Context:
        """The context of the chosen sequences."""
        if isinstance(rows, int):
            rows = slice(rows, rows + 1 or None)
        chosen = rows if isinstance(rows, slice) else torch.as_tensor(rows, dtype=torch.int64)
        return Context(
            states.index(self.state, chosen),
            self.previous[chosen],
            None if self.series is None else self.series[chosen],
        )

    def repeat(self, count: int) -> Context:
        """Each sequence `count` times in a row: a row for each path."""
        return self[torch.arange(len(self)).repeat_interleave(count)]

    def widened(self, rows: int) -> Context:
        """One context for each of so many paths: itself, or its single row for all.

        Raises:
            SettingError: for a context of another number of sequences.
        """
        if len(self) == rows:
            return self
        if len(self) != 1:
            raise SettingError(
                f"the context has {len(self)} rows; sampling {rows} paths needs 1 or {rows}"
            )

        def widen(part: Tensor) -> Tensor:
            return part.expand(-1, rows, *part.shape[2:])

        return replace(
            self,
            state=states.apply(widen, self.state),
            previous=self.previous.expand(rows, *self.previous.shape[1:]),
            series=None if self.series is None else self.series.expand(rows),
        )

    @staticmethod
    def concatenate(parts: Sequence[Context]) -> Context:
        """Several contexts of one model as one, in order."""
        series = [part.series for part in parts if part.series is not None]
        return Context(
            states.concatenate([part.state for part in parts]),
            torch.cat([part.previous for part in parts]),
            torch.cat(series) if len(series) == len(parts) else None,
        )


@dataclass(frozen=True)
class Start:
    """Where sampled paths go on from: what `SequenceModel.sample` takes, a row for each path.

    root: of the random numbers, see `rng.root`; previous: None at the start of a sequence.
    """

    num_paths: int
    root: int
    state: State
    previous: Tensor | None
    covariates: Tensor | None
    series: Tensor | None
    temperature: float
    top_p: float
