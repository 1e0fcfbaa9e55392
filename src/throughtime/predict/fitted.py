"""A fitted model: everything that scores, forecasts, samples and goes on, as one value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from throughtime import files, manifest
from throughtime.data.domain import Domain
from throughtime.data.frames import POLARS, library_of
from throughtime.data.readers.dispatch import is_table, kind_by_name
from throughtime.data.readers.files import quoted
from throughtime.data.readers.plan import ReadPlan, plan_json, plan_of
from throughtime.data.readers.read import read
from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Transforms
from throughtime.errors import DataError, SettingError, known_options
from throughtime.manifest import MODEL, Manifest
from throughtime.models import registry
from throughtime.models.base import SequenceModel
from throughtime.predict import end as ends
from throughtime.predict import sampling
from throughtime.predict.end import End
from throughtime.predict.forecast import QUANTILES, Forecast, Question, column_names, draw, places
from throughtime.predict.future import Future, futures
from throughtime.predict.scoring import SequenceScores, check_known
from throughtime.training.config import TrainSettings
from throughtime.types import Progress, silent
from throughtime.wording import stamp

WEIGHTS, END = "model.safetensors", "context.safetensors"


@dataclass(frozen=True)
class FittedModel:
    """A model with its transforms, its series and covariates, and the end of its training data.

    `tt.train` and `tt.fit` make it, `tt.load` reads it back. It never changes: `update` gives
    another one.

    Attributes:
        name: what it is called in comparisons and frames.
        model: the distribution of each transformed element given those before it.
        transforms: fitted; what the model sees of raw data, and the way back.
        end: where its training data ended, from which forecasts go on; None where nobody kept it.
        read_options: how tables and files are read, so that new ones are read alike.
        plan: what the table it was fitted on was taken for, or None.
        training: how it was trained; None for a closed form.
        library: the one that frames are made in, that of the training data.
        owner: what messages call it.
    """

    name: str
    model: SequenceModel
    transforms: Transforms
    end: End | None = None
    read_options: Mapping[str, Any] = field(default_factory=dict)
    plan: ReadPlan | None = None
    training: TrainSettings | None = None
    library: str = POLARS
    owner: str = field(default="", compare=False)

    # What it is

    def __repr__(self) -> str:
        steps = " → ".join(type(one).__name__ for one in self.transforms.transforms)
        parts = [f"{self.name!r}", type(self.model).__name__, *([steps] if steps else [])]
        return (
            f"FittedModel({', '.join(parts)}, {'no end' if self.end is None else self.end.history})"
        )

    @property
    def domain(self) -> Domain:
        """Of the raw data: their kind, columns, covariates and step."""
        if self.transforms.domain is None:
            raise SettingError(f"{self.whose} does not know its data: fit its transforms first")
        return self.transforms.domain

    @property
    def unit(self) -> str:
        """Of `nats_per_step`."""
        return f"nats per {self.domain.step}"

    @property
    def names(self) -> tuple[str, ...]:
        """The series that it was fitted on, where their end was kept."""
        return () if self.end is None else self.end.history.names

    @property
    def whose(self) -> str:
        """What messages call it."""
        return self.owner or f"the model '{self.name}'"

    def transformed(self, raw: Sequences) -> Sequences:
        """Raw data as the model sees them, the series it knows recognised by name."""
        seen = raw.transform(self.transforms)
        return seen.with_identity(self.model.identities) if self.model.identities else seen

    def read(self, source: Any, **options: Any) -> Sequences:
        """Data of the kind it was fitted on, read as those were.

        Args:
            source: whatever `tt.read` takes.
            options: of `tt.read`, where this source is to be read otherwise.

        Raises:
            DataError: for data of another kind or with other columns.
        """
        mine, domain = _KIND_NAMES.get(self.domain.kind, self.domain.kind), self.domain
        if isinstance(source, (str, Path)) and "kind" not in {*options, *self.read_options}:
            source_kind = kind_by_name(Path(source)) or mine
            if source_kind != mine and mine != "symbols":
                raise DataError(f"{source} is {a(source_kind)}; {self.whose} models {a(mine)}")
        table = is_table(source) or library_of(source, "") != ""
        raw = read(source, **{**(self.read_options if table else {}), **options})
        given = raw.domain
        if (domain.kind, len(domain.columns)) != (given.kind, len(given.columns)) or (
            domain.covariate_columns != given.covariate_columns
        ):
            columns = [*given.columns, *given.covariate_columns]
            wanted = [*domain.columns, *domain.covariate_columns]
            raise DataError(
                f"{_label(source)} gives {given.kind} data"
                + (f" with {quoted(columns)}" if columns else "")
                + f"; {self.whose} models {domain.kind} data"
                + (f" with {quoted(wanted)}" if wanted else "")
            )
        return raw

    # Scores

    def score(
        self, data: Any, *, unknown: bool = False, on_progress: Progress = silent, **options: Any
    ) -> SequenceScores:
        """The log-probability of every step of data, from one pass.

        Args:
            data: whatever `tt.read` takes, read as the training data were.
            unknown: accept characters never seen (each has the probability of "something new",
                spread evenly).
            on_progress: called with how far it is.
            options: of `tt.read`.

        Raises:
            DataError: for data of another kind.
            VocabularyError: for characters never seen.
        """
        raw = self.read(data, **options)
        seen = self.transformed(raw)
        if not unknown:
            check_known(self.transforms, raw, seen)
        library = library_of(data, self.library)
        return SequenceScores.of(self.model, (raw, seen), self.unit, library, on_progress)

    def log_prob(self, data: Any, **options: Any) -> Tensor:
        """Log-likelihood of each sequence, its first element included.

        Returns:
            float64 ``[N]``, nats in the data's own units.
        """
        return self.score(data, **options).log_prob

    def step_log_prob(self, raw: Sequences) -> Tensor:
        """Log-probability of each transformed step in the data's own units, float64 ``[total]``."""
        return self.model.step_log_prob(self.transformed(raw))

    def step_scores(self, data: Any, **options: Any) -> Any:
        """The surprisal of every scored step.

        Returns:
            A frame with the columns unique_id, ds (a stamp, or the step), step (from 0), symbol
            (text) or the values by their names, and surprisal: minus the log-probability, nats.
        """
        return self.score(data, **options).frame(self.transforms)

    # What comes next

    @known_options
    def forecast(
        self,
        horizon: int,
        *,
        data: Any = None,
        future: Any = None,
        series: Sequence[str] | None = None,
        quantiles: Sequence[float] = QUANTILES,
        num_paths: int | None = None,
        tolerance: float = 0.05,
        seed: int = 0,
        on_progress: Progress = silent,
    ) -> Forecast:
        """Joint paths of what comes next: after the training data, or after any other data.

        Args:
            horizon: steps ahead.
            data: whatever `tt.read` takes; series never seen included, and nothing is fitted
                again. None: after the end of the training data.
            future: the covariates of those steps, if the model was given any: a tensor
                ``[horizon, C]``, or a table with the same columns.
            series: only these.
            quantiles: levels that frames and JSON show.
            num_paths: how many; None: as many as the tolerance takes.
            tolerance: the standard error of a quantile, as a share of the width from the 10 % to
                the 90 % quantile.
            seed: of the paths; a path is tied to its series and index.
            on_progress: called with how far it is.

        Raises:
            SettingError: for settings that make no sense, text, and covariates that are missing.
            DataError: for data of another kind.
        """
        question = Question(horizon, tuple(quantiles), num_paths, tolerance, seed)
        if self.domain.integer:
            raise SettingError(
                f"{self.whose} models {a(self.domain.kind)}, whose symbols have no quantiles; "
                "use sample"
            )
        end = self._end() if data is None else self.condition(self.read(data), on_progress)
        end = end[places(end.history.names, series)]
        known = self._known(future, end.history, horizon)
        draws, times = draw(self.model, self.transforms, end, question, known, on_progress)
        columns = column_names(end.history, draws[0].shape[-1])
        stamped = end.history.times is not None
        library = library_of(data, self.library)
        return Forecast(
            end.history.names, columns, draws, times, stamped, question, self.name, library=library
        )

    def condition(self, raw: Sequences, on_progress: Progress = silent) -> End:
        """Where series stand after all of their raw data have been read.

        Args:
            raw: of the kind it was fitted on.
            on_progress: called with what is being read.
        """
        about = raw.names[0] if len(raw) == 1 else f"{len(raw):,} series"
        on_progress(0, 1, f"reading the past of {about}")
        context = self.model.condition(self.transformed(raw))
        return End(ends.latest(raw), context, raw.lengths)

    def ending(self, raw: Sequences) -> FittedModel:
        """The same with these raw data as those that forecasts go on from."""
        return replace(self, end=self.condition(raw))

    def update(self, rows: Any, **options: Any) -> FittedModel:
        """The same model with its end moved on by new rows; the history is not read again.

        Args:
            rows: whatever `tt.read` takes. By their times those after the end of each series
                count; rows without times all do. New series are taken up from their start.
            options: of `tt.read`.

        Returns:
            A fitted model whose weights are unchanged.

        Raises:
            DataError: where no row comes after the end.
        """
        return self.after(self.read(rows, **options), _label(rows))

    def after(self, raw: Sequences, label: str = "the data") -> FittedModel:
        """See `update`, of rows that have been read.

        Args:
            raw: the rows.
            label: what messages call them.

        Raises:
            DataError: where no row comes after the end.
        """
        end = self._end()
        places = ends.matched(end.history, raw, label)
        raw, _ = ends.after(end.history, raw, places)
        kept = [i for i, n in enumerate(raw.lengths.tolist()) if n > 0]
        if not kept:
            last = end.history.times
            until = "" if last is None else f", which is at {stamp(last.max())}"
            raise DataError(f"{label}: no row comes after the end of the data{until}")
        going = [i for i in kept if places[i] >= 0]
        fresh = [i for i in kept if places[i] < 0]
        moved = dict(enumerate(end[[i]] for i in range(len(end.history))))
        if going:
            at = [places[i] for i in going]
            before = end[at]
            both = ends.joined(before.history, raw[going])
            context = self.model.condition(self.transformed(both), before.context)
            after = End(ends.latest(both), context, before.steps + raw.lengths[going])
            moved |= {place: after[[k]] for k, place in enumerate(at)}
        parts = list(moved.values())
        parts += [self.condition(raw[i]) for i in fresh]
        return replace(self, end=ends.concatenated(parts))

    @known_options
    def sample(
        self,
        length: int,
        *,
        num_paths: int = 1,
        seed: int = 0,
        temperature: float = 1.0,
        top_p: float = 1.0,
        on_progress: Progress = silent,
    ) -> Tensor | list[Tensor]:
        """New sequences from their start, in the data's own units.

        Args:
            length: steps of each.
            num_paths: how many.
            seed: of the random numbers.
            temperature: of symbols: above 1 evens their probabilities out, below 1 sharpens them.
            top_p: of symbols: only the likeliest, up to this mass, are drawn.
            on_progress: called with how far it is.

        Returns:
            ``[num_paths, length]`` code points or symbols, or values ``[num_paths, length, D]``;
            for text modelled as bytes or tokens, of which a character may take several, a list of
            the code points of each path.
        """
        return sampling.sample(
            self.model, self.transforms, self.whose,
            sampling.Draw(length, num_paths, seed, temperature, top_p), on_progress,
        )  # fmt: skip

    @known_options
    def stream_text(
        self,
        length: int,
        *,
        prompt: str = "",
        seed: int = 0,
        temperature: float = 1.0,
        top_p: float = 1.0,
        path: int = 0,
    ) -> Iterator[str]:
        """Text as it is sampled, `length` symbols that go on from a prompt.

        Args:
            path: which of many; each is another text. A model of lines (`lines=True`) begins a
                new sequence after each newline.

        Raises:
            VocabularyError: for a prompt with unknown characters.
        """
        if self.domain.kind != "text":
            raise SettingError(f"{self.whose} models {a(self.domain.kind)}, not text")
        by_line = bool(self.read_options.get("lines"))
        prompt = prompt.rpartition("\n")[2] if by_line else prompt
        context = None
        if prompt:
            raw = Sequences.of([prompt], domain=self.domain, names=["the prompt"])
            seen = self.transformed(raw)
            check_known(self.transforms, raw, seen, "")
            context = self.model.condition(seen)
        wanted = sampling.Draw(length, 1, seed, temperature, top_p)
        return sampling.stream_text(
            self.model, self.transforms, self.whose, wanted, context, by_line, path
        )

    # Files

    def save(self, path: str | Path, beside: Sequence[str] = (), **extra: Any) -> Path:
        """Writes it as a folder: weights, the end of its data, and model.json, which comes last.

        Args:
            path: of the folder, made where it is missing.
            beside: names of other files in the folder that model.json vouches for.
            extra: JSON values that are kept beside in model.json.

        Returns:
            The folder.
        """
        folder = Path(path)
        contents = {WEIGHTS: files.tensor_bytes(registry.tensors_of(self.model))}
        if self.end is not None:
            contents[END] = self.end.content()
        description = {
            "name": self.name,
            "model": self.model.settings(),
            "transforms": self.transforms.to_json(),
            "read_options": dict(self.read_options),
            "plan": plan_json(self.plan),
            "library": self.library,
            "training": None if self.training is None else self.training.model_dump(mode="json"),
            **extra,
        }
        manifest.write(folder, contents, description, manifest.digests(folder, beside))
        return folder

    @staticmethod
    def load(path: str | Path, owner: str = "") -> FittedModel:
        """The model that `save` wrote.

        Args:
            path: of the folder.
            owner: what messages call it.

        Raises:
            RunError: if it is missing, damaged or from a newer version.
        """
        return FittedModel.kept(Manifest.read(Path(path)), owner)

    @staticmethod
    def kept(folder: Manifest, owner: str = "") -> FittedModel:
        """The model in a folder; see `load`.

        Args:
            folder: what is kept there.
            owner: what messages call it.
        """
        described, (tensors, _) = folder.description, folder.tensors(WEIGHTS)
        with files.reading(folder.folder / MODEL):
            training = described["training"]
            fitted = FittedModel(
                str(described["name"]),
                registry.restored(described["model"], tensors),
                Transforms.from_json(described["transforms"]),
                read_options=dict(described["read_options"]),
                plan=plan_of(described["plan"]),
                training=None if training is None else TrainSettings(**training),
                library=str(described["library"]),
                owner=owner,
            )
        if END not in folder:
            return fitted
        with files.reading(folder.folder / END):
            return replace(fitted, end=End.parse(*folder.tensors(END)))

    # Inside

    def _end(self) -> End:
        if self.end is None:
            raise SettingError(
                f"{self.whose} was kept without the end of its data; give data= to go on from"
            )
        return self.end

    def _known(self, future: Any, history: Sequences, horizon: int) -> dict[str, Future]:
        """The covariates of the steps to come, where the data have any."""
        wanted = self.domain.covariate_columns
        if not wanted:
            if future is not None:
                raise SettingError(f"{self.whose} was fitted without covariates")
            return {}
        if future is not None:
            return futures(future, history, horizon, self.read_options)
        if self.model.covariates:
            raise SettingError(
                f"{self.whose} was fitted with covariates ({', '.join(wanted)}); give "
                "their values after the end of the data with future="
            )
        return {}


_KIND_NAMES = {"real": "series", "count": "series", "binary": "series"}


def a(kind: str) -> str:
    """A kind of data inside a sentence."""
    return {"real": "a series", "series": "a series", "binary": "columns of 0 and 1"}.get(
        kind, kind
    )


def _label(source: Any) -> str:
    return str(source) if isinstance(source, (str, Path)) else "the data"
