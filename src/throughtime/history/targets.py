"""The steps that models of finite order are fitted to and tested on."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from throughtime.data.sequences import Sequences
from throughtime.models.base import SequenceModel
from throughtime.models.closed_form import ClosedForm
from throughtime.models.lag_regression import subsampled

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Targets:
    """Steps of transformed sequences, each with all that lies before it in its sequence.

    data: what the models see. rows: int64 ``[n]``, which steps of ``data.values``, ascending.
    """

    data: Sequences
    rows: Tensor

    @classmethod
    def of(cls, data: Sequences) -> Targets:
        """Every scored step; initial values of what is differenced count as missing."""
        if bool(data.initial.any()):
            values = torch.where(data.initial.unsqueeze(1), torch.nan, data.values)
            data = replace(data, values=values)
        return cls(data, data.scored().nonzero().flatten())

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def age(self) -> Tensor:
        """How many steps of its sequence lie before each target, int64 ``[n]``."""
        sequence = torch.searchsorted(self.data.offsets, self.rows, right=True) - 1
        return self.rows - self.data.offsets[sequence]

    @property
    def bounds(self) -> Ints:
        """Where the targets of each sequence begin among all targets, ``[N + 1]``."""
        return torch.searchsorted(self.rows, self.data.offsets).numpy()

    def subsampled(self, most: int) -> Targets:
        """At most so many targets, spread evenly; the past of each stays whole."""
        return replace(self, rows=subsampled(self.rows, most))

    def latest(self, most: int, past: int) -> Targets:
        """The last so many targets, with at most `past` steps before those of each sequence."""
        if len(self) <= most:
            return self
        first = self.rows[-most]
        i = int(torch.searchsorted(self.data.offsets, first, right=True)) - 1
        later = self.data[i:]
        starts = later.starts.clone()
        starts[0] = first - self.data.offsets[i]
        return Targets.of(replace(later, starts=starts).limit_past(past))

    def nats(self, model: SequenceModel) -> Floats:
        """Nats of every target in the data's own units, ``[n]``."""
        if isinstance(model, ClosedForm):
            log_prob = model.log_prob_at(self.data, self.rows) + self.data.log_det[self.rows]
        else:
            log_prob = model.step_log_prob(self.data)[self.rows]
        return -log_prob.numpy()

    def reordered(self, orders: Ints) -> Targets:
        """The targets' values in other orders, those before them as they are.

        orders: int64 ``[R, n]``. Returns R copies of the sequences, one after the other.
        """
        copies, data = len(orders), self.data
        total = len(data.values)
        values = data.values.repeat(copies, *(1,) * (data.values.dim() - 1))
        rows = self.rows + total * torch.arange(copies).unsqueeze(1)
        values[rows] = data.values[self.rows[torch.from_numpy(orders)]]
        lengths = torch.cat([torch.zeros(1, dtype=torch.int64), data.lengths.repeat(copies)])
        copied = Sequences(
            values,
            lengths.cumsum(0),
            starts=data.starts.repeat(copies),
            domain=data.domain,
            log_det=data.log_det.repeat(copies),
            differencing=data.differencing.repeat(copies),
        )
        return Targets(copied, rows.flatten())

    def truncated(self, steps: int) -> Targets:
        """The same targets, each in a sequence of its own with at most so many steps before it."""
        count = self.age.clamp(max=steps)
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), (count + 1).cumsum(0)])
        shift = torch.repeat_interleave(self.rows - count - offsets[:-1], count + 1)
        index = torch.arange(int(offsets[-1])) + shift
        data = Sequences(
            self.data.values[index],
            offsets,
            starts=count,
            domain=self.data.domain,
            log_det=self.data.log_det[index],
            differencing=self.data.differencing[index],
        )
        return Targets(data, offsets[1:] - 1)
