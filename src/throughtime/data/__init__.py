"""Sequences as values: reading, splitting, transforming and packing into batches."""

from .batch import Batch, Lanes
from .domain import Domain
from .sequences import Sequences
from .transforms import Chain

__all__ = ["Batch", "Chain", "Domain", "Lanes", "Sequences"]
