"""The protocol that every model satisfies: the distribution of X_t given X_1 … X_{t-1}, step by
step.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from throughtime import rng
from throughtime import state as states
from throughtime.data.batching import Batch, Lanes
from throughtime.data.pieces import in_groups, latest
from throughtime.data.sequences import Sequences
from throughtime.emissions import Distribution, Emission, MixtureOf
from throughtime.errors import SettingError, VocabularyError
from throughtime.models.context import Context, Start
from throughtime.state import State
from throughtime.types import Counted, uncounted

_CHUNK = 512  # steps scored per call: bounds memory, does not change the result
_LANES = 64


class SequenceModel(nn.Module, ABC):
    """A conditional distribution ``P(X_t | X_1 … X_{t-1})``; the product over t is the exact
    likelihood.

    State goes in and comes out and is never kept on the module. `members` equally weighted
    distributions (an ensemble trained side by side) are averaged step by step, which is again such
    a distribution.
    """

    emission: Emission
    members: int = 1
    covariates: int = 0  # known columns that it looks at
    identities: tuple[str, ...] = ()  # training series that it tells apart by name
    closed_form: bool = False  # whether `begin` is all the training there is
    lookback: int | None = None  # steps of the past that its state depends on; None: on all
    initial_raw: Tensor

    def __init__(self, emission: Emission, num_differencing: int = 0) -> None:
        super().__init__()
        self.emission = emission
        self.num_differencing = num_differencing
        self.register_buffer("initial_raw", torch.zeros(emission.num_parameters))

    @abstractmethod
    def initial_state(self, batch_size: int) -> State:
        """The state before the first element of `batch_size` sequences."""

    @abstractmethod
    def members_distribution(self, batch: Batch, state: State) -> tuple[Distribution, State]:
        """The distribution of each x in a batch ``[T, B]``, or ``[T, B, M]`` if the model has M
        members.
        """

    def read(self, batch: Batch, state: State) -> State:
        """The state after a batch, where nobody asks for the distributions."""
        return self.members_distribution(batch, state)[1]

    @abstractmethod
    def members_step(
        self,
        previous: Tensor | None,
        state: State,
        covariates: Tensor | None,
        series: Tensor | None,
    ) -> tuple[Distribution, State]:
        """As `step`, with the member dimension last if there are several."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What rebuilds the model, as JSON values."""

    def begin(self, train: Sequences) -> None:
        """Fits the distribution of a differenced sequence's initial values."""
        values = _columns(train.values)[train.initial] if self.num_differencing else None
        if values is not None and len(values):
            self.initial_raw.copy_(self.emission.initial(values))

    def forward(self, batch: Batch, state: State = None) -> tuple[Distribution, State]:
        """The predictive distribution of each x in a batch ``[T, B]`` and the state after it."""
        if state is None:
            state = self.initial_state(batch.x.shape[1])
        distribution, state = self.members_distribution(batch, state)
        return self._average(distribution), state

    def loss(self, batch: Batch, state: State) -> tuple[Tensor, State]:
        """Summed nats of the scored steps (averaged over members), and the state after them."""
        distribution, state = self.members_distribution(batch, state)
        return self._loss_of(distribution, batch), state

    def _loss_of(self, distribution: Distribution, batch: Batch) -> Tensor:
        nats = -distribution.log_prob(self._per_member(batch.x))
        weight = batch.weight if self.members == 1 else batch.weight.unsqueeze(-1) / self.members
        return (nats * weight).sum()

    def step(
        self,
        x_prev: Tensor | None = None,
        state: State = None,
        covariates: Tensor | None = None,
        series: Tensor | None = None,
    ) -> tuple[Distribution, State]:
        """One step: the distribution of X_t given everything before it.

        x_prev: X_{t-1}, ``[B]`` symbols or ``[B, D]`` values; None at the start of a sequence.
        state: what the last step returned; None at the start. covariates ``[B, C]`` and series
        ``[B]`` where the model uses them. Returns the distribution ``[B]`` of X_t and the next
        state.
        """
        if state is None:
            state = self.initial_state(1 if x_prev is None else len(x_prev))
        distribution, state = self.members_step(x_prev, state, covariates, series)
        return self._average(distribution), state

    @torch.no_grad()
    def step_log_prob(
        self, sequences: Sequences | Sequence[Tensor], on_steps: Counted = uncounted
    ) -> Tensor:
        """Nats of every element in the data's own units, float64 ``[total]``.

        The log-Jacobian of the transforms is included; past and missing elements have 0.
        """
        data = as_sequences(sequences, self.emission)
        training = self.training
        self.eval()
        nats = self.step_nats(data, on_steps)
        self.train(training)
        return torch.where(data.scored(), nats + data.log_det, 0.0)

    def step_nats(self, data: Sequences, on_steps: Counted = uncounted) -> Tensor:
        """Nats of every scored element as the model sees it (transformed), float64 ``[total]``.

        on_steps: called with how many more steps are done, where they are not done all at once.
        """
        nats, done = torch.empty(len(data.values), dtype=torch.float64), 0
        for run in self.runs(data, on_steps):
            nats[done : done + len(run)] = run
            done += len(run)
        return nats

    def runs(self, data: Sequences, on_steps: Counted = uncounted) -> Iterator[Tensor]:
        """The nats of `step_nats` in consecutive runs of steps, so that no one need hold them all.

        Of one sequence a run is no longer than what is computed at once; several make one run.
        """
        nats = torch.zeros(len(data.values) if len(data) != 1 else 0, dtype=torch.float64)
        for batch, distribution in self.distributions(data):
            real = batch.weight > 0
            log_prob = torch.where(real, distribution.log_prob(batch.x).double(), 0.0)
            if len(data) == 1:
                yield log_prob[:, 0]
            else:
                nats[batch.index[real]] = log_prob[real]
            on_steps(int((batch.index >= 0).sum()))
        if len(data) != 1:
            yield nats

    @torch.no_grad()
    def log_prob(
        self, sequences: Sequences | Sequence[Tensor], on_steps: Counted = uncounted
    ) -> Tensor:
        """Log-likelihood of each whole sequence in nats, float64 ``[N]``, by the chain rule.

        sequences: a `Sequences` (elements before `starts` are conditioned on, not scored), or a
        list of ``[T_i]`` symbols / ``[T_i, D]`` values. The first element is included.
        """
        data = as_sequences(sequences, self.emission)
        training = self.training
        self.eval()
        totals = [self._totals(part, on_steps) for part in in_groups(data)]
        self.train(training)
        return torch.cat([torch.zeros(0, dtype=torch.float64), *totals])

    def _totals(self, data: Sequences, on_steps: Counted) -> Tensor:
        """The log-likelihood of each sequence, none of whose steps are held all at once."""
        # Each sequence is summed by itself: one of probability 0 must not spoil the others.
        total, done = torch.zeros(len(data), dtype=torch.float64), 0
        scored, rows = data.scored(), data.rows if len(data) > 1 else None
        for run in self.runs(data, on_steps):
            part = slice(done, done + len(run))
            nats = torch.where(scored[part], run + data.log_det[part], 0.0)
            row = torch.zeros(len(run), dtype=torch.int64) if rows is None else rows[part]
            total.index_add_(0, row, nats)
            done = part.stop
        return total

    def distributions(
        self, data: Sequences, wanted: Tensor | None = None
    ) -> Iterator[tuple[Batch, Distribution]]:
        """The predictive distribution of every element, chunk by chunk; no sequence is ever cut.

        wanted: bool ``[total]``; chunks without one of these steps are only read.
        """
        lanes = Lanes(data, min(_LANES, max(1, len(data))), cut=False, dtype=self._dtype())
        state = self.initial_state(lanes.num_lanes)
        for t in range(0, len(lanes), _CHUNK):
            batch = lanes[t : t + _CHUNK]
            if wanted is not None and not bool(wanted[batch.index[batch.weight > 0]].any()):
                state = self.read(batch, state)
                continue
            distribution, state = self.forward(batch, state)
            yield batch, distribution

    @torch.no_grad()
    def distributions_at(
        self, data: Sequences, wanted: Tensor
    ) -> Iterator[tuple[Tensor, Distribution]]:
        """The predictive distributions of some scored steps, some at a time.

        Args:
            data: as the model sees them.
            wanted: which steps of ``data.values``, bool ``[total]``.

        Yields:
            The steps, int64 ``[n]``, and their distributions ``[n]``.
        """
        for batch, distribution in self.distributions(data, wanted):
            mask = (batch.weight > 0) & wanted[batch.index.clamp(min=0)]
            yield batch.index[mask], distribution[mask]

    @torch.no_grad()
    def condition(
        self, sequences: Sequences | Sequence[Tensor], after: Context | None = None
    ) -> Context:
        """Where each sequence stands at its end, ready for `step` or `sample`.

        Args:
            sequences: read from their starts, pasts included, all side by side.
            after: where they stand before their scored parts, if that is known: only the scored
                parts are read then.

        Returns:
            The state and the last element of each of the N sequences.
        """
        data = as_sequences(sequences, self.emission)
        if bool((data.lengths == 0).any()):
            raise SettingError("a sequence without elements has no context: give none instead")
        if after is None and self.lookback is not None:
            data = latest(data, self.lookback + 1)  # the last one is not in the state yet
        training = self.training
        self.eval()
        order = (data.lengths - (data.starts if after is not None else 0)).argsort(stable=True)
        parts = []
        for rows in self._groups(data, order, after):
            part = data[rows]
            lanes = Lanes.aligned(part, self._dtype(), scored_only=after is not None)
            state = self.initial_state(len(rows)) if after is None else after[rows].state
            for t in range(0, len(lanes), _CHUNK):
                state = self.read(lanes[t : t + _CHUNK], state)
            parts.append(self._context(part, part.offsets[1:] - 1, state))
        self.train(training)
        return Context.concatenate(parts)[order.argsort()]

    def _groups(self, data: Sequences, order: Tensor, after: Context | None) -> Sequence[Tensor]:
        """Rows that are read side by side: of like length, or of the same if they go on."""
        if after is None:  # more of them where they are short
            longest = int(data.lengths.max()) if len(data) else 1
            return order.split(max(_LANES, _LANES * _CHUNK // longest))
        lengths = (data.lengths - data.starts)[order]
        _, counts = lengths.unique_consecutive(return_counts=True)
        return [part for same in order.split(counts.tolist()) for part in same.split(_LANES)]

    def _context(self, data: Sequences, at: Tensor, state: State) -> Context:
        """The context after the elements at the places `at` of ``data.values``."""
        last = data.values[at]
        last = last.to(self._dtype() if last.is_floating_point() else torch.int64)
        rows = torch.searchsorted(data.offsets, at, right=True) - 1
        series = data.identity[rows]
        return Context(state, last, series if bool((series >= 0).any()) else None)

    @torch.no_grad()
    def condition_at(self, one: Sequences, stops: Sequence[int]) -> Context:
        """As `condition`, after each of several rising numbers of steps of one sequence.

        Args:
            one: a single sequence, read once.
            stops: how many of its steps each context has read, at least 1.

        Returns:
            A context with a row for each stop.
        """
        if self.lookback is not None:
            whole = torch.zeros(1, dtype=torch.int64)
            ends = [torch.tensor([stop]) for stop in stops]
            return Context.concatenate(
                [self.condition(one._window(whole, end, end)) for end in ends]
            )
        training = self.training
        self.eval()
        lanes = Lanes.aligned(one, self._dtype())
        state, at_stops, at = self.initial_state(1), [], 0
        for stop in stops:
            while at < stop:
                end = min(stop, at + _CHUNK)
                state = self.read(lanes[at:end], state)
                at = end
            at_stops.append(state)
        self.train(training)
        return self._context(one, torch.tensor(stops) - 1, states.concatenate(at_stops))

    @torch.no_grad()
    def sample(
        self,
        length: int,
        context: Context | None = None,
        num_paths: int | None = None,
        seed: int = 0,
        *,
        covariates: Tensor | None = None,
        series: Tensor | None = None,
        name: str = "",
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> Tensor:
        """Draws paths from the exact joint distribution of the next elements.

        A path depends on (seed, name, its index) only, not on how many are drawn.

        Args:
            length: steps of each path.
            context: where to go on from, as `condition` returns it: one row, or one per path;
                None starts new sequences.
            num_paths: how many; None: one for each row of a context of several, else 100.
            seed: of the random numbers.
            covariates: ``[length, C]`` or ``[num_paths, length, C]``, where the model has some.
            series: which training series new sequences belong to, int64 ``[1]`` or one per path;
                that of the context where there is one.
            name: of the series, which ties the random numbers to it.
            temperature: of symbols: above 1 evens their probabilities out, below 1 sharpens them.
            top_p: of symbols: only the likeliest, up to this mass, are drawn.

        Returns:
            ``[num_paths, length]`` symbols or ``[num_paths, length, D]`` values.

        Raises:
            SettingError: for a context of the wrong size, covariates that end too early, or
                a temperature where there are no symbols.
        """
        if covariates is not None and covariates.shape[-2] < length:
            raise SettingError(
                f"there are covariates for {covariates.shape[-2]} steps; sampling {length} "
                "steps needs as many"
            )
        if num_paths is None:
            num_paths = len(context) if context is not None and len(context) > 1 else 100
        start = self._start(context, num_paths, seed, covariates, series, name, temperature, top_p)
        blocks = list(self._draw(start, length))
        if blocks:
            return torch.cat(blocks, 1)
        tail = () if self.emission.symbols else (self.emission.columns,)
        return torch.empty(num_paths, 0, *tail)

    @torch.no_grad()
    def stream(
        self,
        context: Context | None = None,
        num_paths: int = 1,
        seed: int = 0,
        *,
        covariates: Tensor | None = None,
        series: Tensor | None = None,
        name: str = "",
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> Iterator[Tensor]:
        """What `sample` returns, a step ``[num_paths]`` or ``[num_paths, D]`` at a time."""
        start = self._start(context, num_paths, seed, covariates, series, name, temperature, top_p)
        for block in self._draw(start, None):
            yield from block.unbind(1)

    def _start(
        self,
        context: Context | None,
        num_paths: int,
        seed: int,
        covariates: Tensor | None,
        series: Tensor | None,
        name: str,
        temperature: float,
        top_p: float,
    ) -> Start:
        """What `sample` was given, a row for each path. Raises SettingError for what is wrong."""
        if context is not None and not isinstance(context, Context):
            raise SettingError(
                "sampling goes on from a Context, which holds the last element beside the state: "
                "take it from model.condition(data)"
            )
        if temperature != 1.0 or top_p != 1.0:  # refused before the first step
            _shaped(self.emission.distribution(self.initial_raw), temperature, top_p)
        wide = None if context is None else context.widened(num_paths)
        if series is None and wide is not None:
            series = wide.series
        return Start(
            num_paths,
            rng.root(seed, name),
            self.initial_state(num_paths) if wide is None else wide.state,
            None if wide is None else wide.previous,
            covariates,
            None if series is None else series.expand(num_paths),
            temperature,
            top_p,
        )

    def _draw(self, start: Start, length: int | None) -> Iterator[Tensor]:
        """The next steps of paths, ``[num_paths, n]`` or ``[num_paths, n, D]`` at a time.

        length: how many, or None: until the covariates end, if ever.
        """
        state, previous, known = start.state, start.previous, start.covariates
        step, streams = 0, rng.streams(start.root, torch.arange(start.num_paths))
        while (length is None or step < length) and (known is None or step < known.shape[-2]):
            now = None if known is None else known[..., step, :].expand(start.num_paths, -1)
            training = self.training
            self.eval()
            distribution, state = self.step(previous, state, now, start.series)
            self.train(training)
            if start.temperature != 1.0 or start.top_p != 1.0:
                distribution = _shaped(distribution, start.temperature, start.top_p)
            previous = distribution.sample_from_uniforms(
                rng.uniforms(streams, step, distribution.num_uniforms)
            )
            if previous.is_floating_point():
                previous = previous.to(self._dtype())
            yield previous.unsqueeze(1)
            step += 1

    def extra_tensors(self) -> dict[str, Tensor]:
        """Fitted arrays that are not in the state_dict."""
        return {}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Puts back what `extra_tensors` gave."""

    def num_parameters(self) -> int:
        """How many numbers were fitted."""
        return sum(p.numel() for p in self.parameters())

    def _average(self, distribution: Distribution) -> Distribution:
        return distribution if self.members == 1 else MixtureOf(distribution, dim=-1)

    def _per_member(self, x: Tensor) -> Tensor:
        if self.members == 1:
            return x
        return x.unsqueeze(-1) if self.emission.symbols else x.unsqueeze(-2)

    def _dtype(self) -> torch.dtype:
        return next((p.dtype for p in self.parameters()), torch.float64)


def as_sequences(sequences: Sequences | Sequence[Tensor], emission: Emission) -> Sequences:
    """The data as a set of sequences, refused where the emission cannot have emitted them."""
    if isinstance(sequences, Sequences):
        data = sequences
    elif emission.symbols:
        data = Sequences.of(list(sequences))
    else:
        data = Sequences.of([torch.as_tensor(part).double() for part in sequences])
    values = data.values
    if emission.symbols:
        if values.is_floating_point():
            raise SettingError("this model takes int64 symbols [T]; got real values")
        known = emission.num_symbols  # type: ignore[attr-defined]
        if len(values) and int(values.max()) >= known:
            place = int((values >= known).nonzero()[0])
            raise VocabularyError(
                f"{data.where(place)}: the symbol {int(values[place])} is not one of the "
                f"{known} that this model knows (0 to {known - 1})"
            )
    elif not values.is_floating_point() or values.shape[1] != emission.columns:
        given = f"[T, {values.shape[1]}]" if values.is_floating_point() else "symbols"
        raise SettingError(f"this model takes values [T, {emission.columns}]; got {given}")
    return data


def _columns(values: Tensor) -> Tensor:
    return values if values.dim() > 1 else values.unsqueeze(-1)


def _shaped(distribution: Any, temperature: float, top_p: float) -> Distribution:
    if not hasattr(distribution, "tempered"):
        raise SettingError(
            "temperature and top_p shape the distribution of symbols; this model emits values"
        )
    return distribution.tempered(temperature).nucleus(top_p)
