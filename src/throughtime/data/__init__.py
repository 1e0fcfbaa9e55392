"""Sequences as values: reading, splitting, transforming and packing into batches."""

from throughtime.data.batching import Batch, Lanes
from throughtime.data.domain import Domain
from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Chain

__all__ = ["Batch", "Chain", "Domain", "Lanes", "Sequences"]
