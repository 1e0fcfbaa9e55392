"""Invertible, fitted transforms of sequences; their log-Jacobians keep likelihoods comparable.

A chain's log-Jacobian is added to the log-likelihood of each step, so that models of returns,
differences or levels are compared in the data's own units.
"""

from throughtime.data.transforms.base import Flat, Ragged, Transform
from throughtime.data.transforms.casts import Binary, Counts, Symbols
from throughtime.data.transforms.chain import Transforms, transform_from_json
from throughtime.data.transforms.quantise import LinearQuantise, MuLaw
from throughtime.data.transforms.real import Difference, Log, Scale, Standardise
from throughtime.data.transforms.text import Bytes, Characters, Tokens, decode_text, encode_text

__all__ = [
    "Binary",
    "Bytes",
    "Characters",
    "Counts",
    "Difference",
    "Flat",
    "LinearQuantise",
    "Log",
    "MuLaw",
    "Ragged",
    "Scale",
    "Standardise",
    "Symbols",
    "Tokens",
    "Transform",
    "Transforms",
    "decode_text",
    "encode_text",
    "transform_from_json",
]
