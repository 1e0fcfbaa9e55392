"""Who may take how much of a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from throughtime import files
from throughtime.types import Event, unheard

CERTIFICATE_SECONDS = 30.0  # worth of work of the history certificate, at most
LEAST_SECONDS = 2.0  # the same, at least
_CERTIFICATE, _LAG_NETWORK, _EVALUATION = 1 / 8, 1 / 10, 1 / 6  # of the limit
_LEAST_EVALUATION, _LEAST_NETWORK = 1 / 12, 1 / 50
# How many steps are looked at, pasts included, for each second of the limit.
_CLOSED_FORM_STEPS, _HELD_OUT_STEPS = 200, 500


class TimeBudget:
    """Every share of a time limit.

    The clock is read where a share is decided and nowhere else. What was decided is kept, so that
    an interrupted run goes on with the same decisions, and with the time it has used counted.

    Args:
        limit: seconds for everything; None: no limit, and nothing depends on the clock.
        path: the file that keeps the decisions; None: they are not kept.
        clock: seconds, from anywhere.
        begun: when the limit began, by that clock; now if not given.
        on_event: is told of a file that is damaged: its decisions are made anew.
    """

    def __init__(
        self,
        limit: float | None = None,
        path: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
        begun: float | None = None,
        on_event: Event = unheard,
    ) -> None:
        self.limit = limit
        self._path, self._clock = (None if limit is None else path), clock
        spent, self._shares = 0.0, dict[str, float]()
        if self._path is not None and self._path.exists():
            try:
                with files.reading(self._path):
                    kept = files.read_json(self._path)
                    spent = float(kept["spent"])
                    self._shares = {str(k): float(v) for k, v in kept["shares"].items()}
            except files.Damaged as error:
                on_event({"event": "note", "message": error.anew})
        self._begun = (clock() if begun is None else begun) - spent

    def kept_in(self, path: Path, on_event: Event) -> TimeBudget:
        """The same limit, begun at the same moment, with its decisions in a file."""
        return TimeBudget(self.limit, path, self._clock, self._begun, on_event)

    @property
    def spent(self) -> float:
        """Seconds so far, those before an interruption counted."""
        return self._clock() - self._begun

    def certificate(self) -> float:
        """How many seconds' worth of work the history certificate is."""
        share = CERTIFICATE_SECONDS if self.limit is None else _CERTIFICATE * self.limit
        return max(LEAST_SECONDS, min(CERTIFICATE_SECONDS, share))

    @property
    def closed_form_steps(self) -> int | None:
        """How many steps views and closed forms are fitted to; None: all there are."""
        return None if self.limit is None else round(_CLOSED_FORM_STEPS * self.limit)

    @property
    def held_out_steps(self) -> int | None:
        """How many steps models are validated or tested on; None: all there are."""
        return None if self.limit is None else round(_HELD_OUT_STEPS * self.limit)

    def lag_network(self, name: str) -> float | None:
        """Seconds for the network that sees some lags; None: as many as it takes."""
        return self._decided(name, lambda limit: min(_LAG_NETWORK * limit, self._left(limit) / 3))

    def network(self, name: str, weights: Sequence[float]) -> float | None:
        """Seconds for a network; None: as many as it takes; 0: there is too little time for it.

        Args:
            name: of the network.
            weights: its own, then those of the networks to come: they share the time left.
        """

        def share(limit: float) -> float:
            seconds = self._left(limit) * weights[0] / sum(weights)
            return seconds if seconds >= _LEAST_NETWORK * limit else 0.0

        return self._decided(name, share)

    def evaluation(self) -> float | None:
        """Seconds for the evaluation of all models; None: as many as it takes."""
        least = _LEAST_EVALUATION
        return self._decided("evaluation", lambda limit: max(least * limit, limit - self.spent))

    def keep(self) -> None:
        """Writes down what was decided and how much time is gone."""
        if self._path is not None:
            files.write_json(self._path, {"spent": self.spent, "shares": self._shares})

    def _left(self, limit: float) -> float:
        """For models: what is left without the share of the evaluation."""
        return limit - self.spent - _EVALUATION * limit

    def _decided(self, name: str, seconds: Callable[[float], float]) -> float | None:
        if self.limit is None:
            return None
        if name not in self._shares:
            self._shares[name] = max(0.0, seconds(self.limit))
            self.keep()
        return self._shares[name]
