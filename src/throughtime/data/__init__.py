"""Sequences as values: reading, splitting, transforming and packing into batches."""

from throughtime.data.batching import Batch, Lanes
from throughtime.data.domain import Domain
from throughtime.data.sequences import Sequences
from throughtime.data.transforms import Transforms

__all__ = ["Batch", "Domain", "Lanes", "Sequences", "Transforms"]
