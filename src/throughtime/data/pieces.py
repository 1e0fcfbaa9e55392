"""Parts of a set of sequences that are looked at by themselves."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import torch

from throughtime.data.compact import BLOCK
from throughtime.data.sequences import Sequences


def latest(data: Sequences, steps: int) -> Sequences:
    """The last steps of each sequence, none of which is to be scored."""
    return dataclasses.replace(data, starts=data.lengths).limit_past(steps)


def in_groups(data: Sequences) -> Iterator[Sequences]:
    """Neighbouring sequences in sets of a few million steps; a longer one is a set of its own."""
    begin = 0
    while begin < len(data):
        last = int(torch.searchsorted(data.offsets, data.offsets[begin] + BLOCK, right=True)) - 1
        stop = max(begin + 1, last)
        yield data if stop - begin == len(data) else data[begin:stop]
        begin = stop
