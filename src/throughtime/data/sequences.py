"""A ragged, immutable set of sequences: the one value that data travels in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from throughtime.data import compact
from throughtime.data import split as splitting
from throughtime.data._checks import as_tensor, check, check_same_data, domain_of, plain_values
from throughtime.data.domain import Domain
from throughtime.data.readers.plan import ReadPlan
from throughtime.data.transforms import Flat, Transform, Transforms
from throughtime.data.transforms.base import rows_of
from throughtime.data.transforms.text import utf8_width
from throughtime.errors import DataError, SettingError, known_options
from throughtime.wording import stamp

__all__ = ["Domain", "Sequences"]

_UNSET: Any = None  # replaced in __post_init__, so that every field has its declared type


@dataclass(frozen=True, repr=False, eq=False)
class Sequences:
    """N sequences one after the other in one tensor, each with a past that is never scored.

    Nothing in here is ever changed in place: every method returns a new set, and slices share
    memory with the set they come from, so neither change the tensors that you pass in or get out.

    Attributes:
        values: whole numbers ``[total]`` (text, symbols) in the smallest of uint8, int16, int32
            and int64 that was found to hold them, or float64 ``[total, D]``, NaN where missing;
            `sequence` and batches give int64.
        offsets: int64 ``[N + 1]``; sequence i is ``values[offsets[i]:offsets[i + 1]]``, its past
            included.
        starts: int64 ``[N]``, the first scored step of each; those before are conditioned on only.
        domain: what the values are.
        names: of the sequences, N.
        times: datetime64[us] or numbers ``[total]``, or None.
        covariates: float64 ``[total, C]``, known at time t before X_t, or None.
        chain: the transforms already applied.
        log_det: what they add to the log-likelihood of each step, nats, float64 ``[total]``; 0 for
            raw data.
        notes: what was guessed or noticed, a sentence each.
        differencing: uint8 ``[total]``: 0, or k where the k-th differencing kept the value as it
            was (see `initial`).
        identity: int64 ``[N]``, index of the series in the training set, -1 unknown.
        text_sizes: read them as `sizes`.

    Raises:
        DataError, SettingError: where the parts do not fit together.
    """

    values: Tensor
    offsets: Tensor
    starts: Tensor = _UNSET
    domain: Domain = _UNSET
    names: tuple[str, ...] = _UNSET
    times: np.ndarray | None = None
    covariates: Tensor | None = None
    chain: Transforms = field(default_factory=Transforms)
    log_det: Tensor = _UNSET
    notes: tuple[str, ...] = ()
    differencing: Tensor = _UNSET
    identity: Tensor = _UNSET
    text_sizes: dict[str, Tensor] | None = None  # read them as `sizes`
    read_options: Mapping[str, Any] = field(
        default_factory=dict
    )  # with which others are read alike
    plan: ReadPlan | None = None  # what a table was taken for
    library: str = "polars"  # of the frame that they came in

    def __post_init__(self) -> None:
        count, total = len(self.offsets) - 1, self.values.shape[0]
        filled: dict[str, Any] = {
            "starts": lambda: torch.zeros(count, dtype=torch.int64),
            "domain": lambda: domain_of(self.values),
            "names": lambda: tuple(str(i) for i in range(count)),
            "log_det": lambda: compact.constant(0.0, total, torch.float64),
            "differencing": lambda: compact.constant(0, total, torch.uint8),
            "identity": lambda: torch.full((count,), -1, dtype=torch.int64),
        }
        for name, make in filled.items():
            if getattr(self, name) is None:
                object.__setattr__(self, name, make())
        object.__setattr__(self, "names", tuple(self.names))
        check(self)

    @classmethod
    @known_options
    def of(
        cls,
        parts: Iterable[Any],
        domain: Domain | None = None,
        names: Sequence[str] | None = None,
    ) -> Sequences:
        """Sequences from tensors, arrays or texts.

        Args:
            parts: one each: integers ``[T]`` (symbols), numbers ``[T]`` or ``[T, D]`` (NaN:
                missing), or a string.
            domain: what they are; without it, integers are symbols up to the largest one seen.
            names: of the sequences; their numbers if None.

        Raises:
            DataError: naming the sequence, for an empty one, infinities, and shapes that differ.
            VocabularyError: for symbols outside the domain.
        """
        if isinstance(parts, (Tensor, np.ndarray, str)):
            raise DataError("sequences are a list of tensors, one each: put a single one in a list")
        given = list(parts)
        if not given:
            raise DataError("no sequences: the list is empty")
        if domain is None and all(isinstance(part, str) for part in given):
            domain = Domain("text", step="character")
        tensors = [as_tensor(part, i) for i, part in enumerate(given)]
        labels = tuple(names) if names is not None else tuple(str(i) for i in range(len(tensors)))
        if len(labels) != len(tensors):
            raise DataError(f"{len(labels)} names for {len(tensors)} sequences: give one each")
        tensors = [
            plain_values(part, name, domain) for part, name in zip(tensors, labels, strict=True)
        ]
        shapes = {(part.dtype, part.shape[1:]) for part in tensors}
        if len(shapes) > 1:
            raise DataError(
                "sequences differ in kind or columns: give all as [T] integers or all as [T, D]"
            )
        lengths = torch.tensor([0] + [len(part) for part in tensors])
        return cls(torch.cat(tensors), lengths.cumsum(0), domain=domain or _UNSET, names=labels)

    # What is in it

    def __len__(self) -> int:
        return len(self.starts)

    def __iter__(self) -> Iterator[Sequences]:
        return (self[i] for i in range(len(self)))

    @property
    def lengths(self) -> Tensor:
        """Steps of each sequence, its past included, int64 [N]."""
        return self.offsets[1:] - self.offsets[:-1]

    @property
    def rows(self) -> Tensor:
        """The sequence that each step belongs to, int64 [total]."""
        return rows_of(self.offsets)

    @property
    def missing(self) -> Tensor:
        """True where any column of a step is missing, bool [total]."""
        if not self.values.is_floating_point():
            return compact.constant(0, len(self.values), torch.bool)
        return self.values.isnan().any(1)

    @property
    def initial(self) -> Tensor:
        """True where a value is an initial value, which is not differenced, bool [total]."""
        return self.differencing > 0

    def scored(self) -> Tensor:
        """True where a step counts in the likelihood: not past, not missing; bool [total]."""
        counts = torch.stack([self.starts, self.lengths - self.starts], 1).long().flatten().numpy()
        after = torch.from_numpy(np.repeat(np.tile([False, True], len(self)), counts))
        return after if self.domain.integer else after & ~self.missing

    @property
    def steps(self) -> int:
        """How many steps are scored."""
        if self.domain.integer:
            return int((self.lengths - self.starts).sum())
        return int(self.scored().sum())

    @property
    def sizes(self) -> dict[str, Tensor]:
        """Of text: "characters" and "bytes" (UTF-8) of the part after the past, int64 [N] each.

        They stay those of the raw text after any tokenisation; empty for other data.
        """
        if self.text_sizes is not None:
            return self.text_sizes
        if self.domain.kind != "text":
            return {}
        after, ends = self.lengths - self.starts, self.offsets[1:]
        spans = torch.stack([ends - after, ends], 1)
        sums = compact.counted(self.values, spans.flatten(), utf8_width).reshape(-1, 2)
        return {"characters": after, "bytes": sums[:, 1] - sums[:, 0]}

    def sequence(self, i: int) -> Tensor:
        """The values of sequence i with its past, int64 [T_i] or float64 [T_i, D]."""
        i = _row(i, len(self))
        values = self.values[int(self.offsets[i]) : int(self.offsets[i + 1])]
        return values.long() if self.domain.integer else values

    def where(self, position: int) -> str:
        """The place of a step (an index into `values`) for messages."""
        return Flat.of(self).where(position)

    # Smaller and bigger sets

    def __getitem__(self, which: Any) -> Sequences:
        """The chosen sequences: an int (a set of one), a slice, a bool mask [N] or indices."""
        count = len(self)
        if isinstance(which, (int, np.integer)):
            i = _row(int(which), count)
            return self._contiguous(i, i + 1)
        if isinstance(which, slice):
            begin, stop, stride = which.indices(count)
            if stride == 1:
                return self._contiguous(begin, max(begin, stop))
            return self._gathered(torch.tensor(range(begin, stop, stride), dtype=torch.int64))
        index = torch.as_tensor(which)
        if index.dtype == torch.bool:
            if index.shape != (count,):
                raise SettingError(f"a mask over {count} sequences has {count} entries")
            index = index.nonzero()[:, 0]
        if index.numel() == 0:
            return self._contiguous(0, 0)
        if index.dim() != 1 or index.is_floating_point():
            raise SettingError("choose sequences by an int, a slice, a mask or a list of ints")
        return self._gathered(torch.tensor([_row(int(i), count) for i in index]))

    def with_identity(self, names: Sequence[str]) -> Sequences:
        """The same with `identity` set to each name's place in `names` (the training set's)."""
        places = {name: i for i, name in enumerate(names)}
        indices = [places.get(name, -1) for name in self.names]
        return replace(self, identity=torch.tensor(indices, dtype=torch.int64))

    def with_notes(self, *notes: str) -> Sequences:
        """The same with these notes added."""
        return replace(self, notes=(*self.notes, *(n for n in notes if n not in self.notes)))

    @known_options
    def split(
        self, valid: float = 0.1, test: float = 0.1, by: str = "auto", gap: int = 0
    ) -> tuple[Sequences, Sequences, Sequences]:
        """Training, validation and test parts, never shuffled inside a sequence.

        Args:
            valid, test: shares of the scored steps; 0 gives an empty part.
            by: "time": each series is cut at the same shares of its scored steps or, where several
                share their time stamps, at the same instants; validation and test keep everything
                before them as past. "sequence": whole sequences, in file order, the first to
                training, the last to test. "spread": whole sequences, chosen evenly through the
                file by their place alone, for files that are sorted. "auto": "spread" for 50 or
                more short sequences, else "time".
            gap: steps between the parts that are scored in none.

        Raises:
            DataError: where a part would be empty.
            SettingError: for shares that make no sense.
        """
        plan = splitting.plan(self, valid, test, by, gap)
        parts = [self._window(part.keep, part.starts, part.stops) for part in plan.parts]
        if plan.notes:
            parts = [part.with_notes(*plan.notes) for part in parts]
        return parts[0], parts[1], parts[2]

    def limit_past(self, most: int) -> Sequences:
        """The same with at most `most` steps of past in each sequence, the latest ones."""
        dropped = (self.starts - most).clamp(min=0)
        if not bool(dropped.any()):
            return self
        kept = self.lengths - dropped
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), kept.cumsum(0)])
        steps = self._steps(self.offsets[:-1] + dropped, kept)
        return self._taken(steps, torch.arange(len(self)), offsets, self.starts - dropped)

    def origins(self, horizon: int, count: int) -> list[tuple[Sequences, Sequences]]:
        """Rolling forecast origins, earliest first, spread evenly over the scored steps.

        Sequences too short for an origin are left out of it.

        Args:
            horizon: steps ahead; the last origin is so many before the end.
            count: of origins.

        Returns:
            Pairs (past, future). The past holds every step up to the origin; the future holds the
            same past and `horizon` scored steps, so ``future.sequence(i)[future.starts[i]:]`` is
            what came.

        Raises:
            DataError: where all sequences are too short.
        """
        pairs = []
        for keep, stops in splitting.origins(self, horizon, count):
            past = self._window(keep, torch.minimum(self.starts, stops), stops)
            pairs.append((past, self._window(keep, stops, stops + horizon)))
        return pairs

    # Transforms

    def transform(self, chain: Transforms | Iterable[Transform | str]) -> Sequences:
        """The set after fitted transforms, or after ones that are fitted on this very set.

        Fit on training data, then ``valid.transform(train.chain)``.

        Args:
            chain: transforms or their names, to be fitted here; or `Transforms`, of which those
                that have been applied already are left out.

        Raises:
            SettingError: where others have been applied already, or the data are of another kind.
        """
        applied = self.chain.transforms
        if self.domain.kind == "text":  # long, and seen alike by one model after the other
            known, seen = self.__dict__.get("_seen", (None, None))
            if known is None or known != chain:
                seen = self._transformed(applied, chain)
                self.__dict__["_seen"] = (seen.chain, seen)
            return cast("Sequences", seen)
        return self._transformed(applied, chain)

    def _transformed(
        self, applied: tuple[Transform, ...], chain: Transforms | Iterable[Transform | str]
    ) -> Sequences:
        if isinstance(chain, Transforms):
            if chain.transforms[: len(applied)] != applied:
                raise SettingError("already transformed otherwise: apply the chain to raw data")
            if chain.domain is not None and not applied:
                check_same_data(self.domain, chain.domain)
            new, whole = chain.transforms[len(applied) :], chain
            flat = Transforms(new, self.domain).forward(Flat.of(self))
        else:
            fitted, flat = Transforms.fit_forward(chain, self)
            new = fitted.transforms
            whole = Transforms(applied + new, self.chain.domain or self.domain)
        moved = flat.offsets is not self.offsets
        if moved and self.covariates is not None:
            raise SettingError("a transform that changes lengths cannot keep covariates")
        return replace(
            self,
            values=flat.values,
            offsets=flat.offsets,
            starts=flat.starts,
            domain=flat.domain,
            log_det=flat.log_det,
            differencing=flat.differencing,
            notes=flat.notes,
            times=None if moved else self.times,
            chain=whole,
            text_sizes=(self.sizes or None) if new else self.text_sizes,
        )

    # Identity

    def fingerprint(self) -> str:
        """SHA-256 (hex) of all that matters to a model: values, cuts, times, names, chain."""
        digest = hashlib.sha256()
        description = [self.domain.to_json(), self.names, self.chain.to_json()]
        digest.update(json.dumps(description, sort_keys=True).encode())
        numbers = [self.values, self.offsets, self.starts]
        if self.covariates is not None:
            numbers.append(self.covariates)
        for part in numbers:
            if part.is_floating_point():
                # One bit pattern for every NaN and for both zeros: they are the same data.
                part = torch.where(part.isnan(), torch.nan, part) + 0.0
            integer = not part.is_floating_point()
            kind = torch.int64 if integer else part.dtype  # in whatever type they are held
            digest.update(f"{kind}{tuple(part.shape)}".encode())
            for steps in compact.blocks(len(part)):
                digest.update(part[steps].to(kind).contiguous().numpy().data)
        if self.times is not None:
            digest.update(str(self.times.dtype).encode())
            digest.update(np.ascontiguousarray(self.times).view(np.uint8).data)
        return digest.hexdigest()

    def __repr__(self) -> str:
        count = len(self)
        parts = [self.domain.kind, f"{count:,} sequence{'' if count == 1 else 's'}"]
        total = self.values.shape[0]
        scored = self.steps
        missing = int(self.missing.sum())
        parts.append(f"{scored:,} scored {self.domain.step}s")
        if total > scored:
            past = int(self.starts.sum())
            parts.append(f"{past:,} past" + (f", {missing:,} missing" if missing else ""))
        if self.domain.columns:
            first_columns = ", ".join(self.domain.columns[:6])
            more = len(self.domain.columns) - 6
            parts.append(f"columns {first_columns}" + (f" and {more} more" if more > 0 else ""))
        if self.domain.num_symbols is not None:
            parts.append(f"{self.domain.num_symbols:,} symbols")
        if self.domain.sample_rate is not None:
            parts.append(f"{self.domain.sample_rate:g} Hz")
        if self.times is not None and total:
            ends = (stamp(self.times.min()), stamp(self.times.max()))
            parts.append(" to ".join(f"{e:g}" if isinstance(e, float) else e for e in ends))
        if len(self.chain):
            parts.append("after " + ", ".join(self.chain.kinds))
        return f"Sequences({'; '.join(parts)})"

    # Inside

    def _contiguous(self, begin: int, stop: int) -> Sequences:
        """Neighbouring sequences: views, no copies."""
        first, last = int(self.offsets[begin]), int(self.offsets[stop])
        which, offsets = slice(begin, stop), self.offsets[begin : stop + 1] - first
        return self._taken(slice(first, last), which, offsets, self.starts)

    def _gathered(self, index: Tensor) -> Sequences:
        return self._window(index, self.starts, self.lengths)

    def _window(self, index: Tensor, starts: Tensor, stops: Tensor) -> Sequences:
        """The sequences `index`, each ending before step `stops` and scored from `starts` (of N).

        Only raw text can end earlier: a token does not know how many characters it stood for.
        """
        ends_early = bool((stops[index] < self.lengths[index]).any())
        moved = ends_early or not torch.equal(starts[index], self.starts[index])
        if moved and self.text_sizes is not None:
            raise SettingError("text is split before it is transformed: split the raw text")
        kept = stops[index]
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), kept.cumsum(0)])
        steps: Tensor | slice
        if torch.equal(index, torch.arange(len(self))) and not ends_early:
            steps = slice(None)
        else:
            steps = self._steps(self.offsets[index], kept)
        return self._taken(steps, index, offsets, starts)

    @staticmethod
    def _steps(begins: Tensor, lengths: Tensor) -> Tensor | slice:
        """The steps of stretches that begin in these places, one stretch after the other."""
        if len(begins) == 1:
            return slice(int(begins[0]), int(begins[0] + lengths[0]))
        shift = begins - (lengths.cumsum(0) - lengths)
        return torch.arange(int(lengths.sum())) + torch.repeat_interleave(shift, lengths)

    def _taken(
        self, steps: Tensor | slice, which: Tensor | slice, offsets: Tensor, starts: Tensor
    ) -> Sequences:
        """The chosen steps of the chosen sequences; `starts` are those of all N."""
        chosen = np.arange(len(self))[which if isinstance(which, slice) else which.numpy()]
        at = steps if isinstance(steps, slice) else steps.numpy()
        sizes = self.text_sizes
        return replace(
            self,
            values=self.values[steps],
            offsets=offsets,
            starts=starts[which],
            names=tuple(self.names[i] for i in chosen),
            times=None if self.times is None else self.times[at],
            covariates=None if self.covariates is None else self.covariates[steps],
            log_det=compact.picked(self.log_det, steps),
            differencing=compact.picked(self.differencing, steps),
            identity=self.identity[which],
            text_sizes=None if sizes is None else {k: v[which] for k, v in sizes.items()},
        )


def _row(i: int, count: int) -> int:
    if not -count <= i < count:
        raise IndexError(f"sequence {i} of {count}")
    return i % count
