"""Text as symbols: characters, bytes or tokens.

All three give every text a probability; that of tokens is the probability of the one way of
writing the text that the tokeniser chooses, a lower bound of that of the text itself.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from throughtime.data import compact
from throughtime.data.domain import Domain
from throughtime.data.transforms.base import Flat, Ragged, Transform
from throughtime.errors import DataError, MissingExtra, SettingError

CODE_POINTS = 0x110000  # Unicode's
REPLACEMENT = 0xFFFD


def encode_text(text: str) -> Tensor:
    """The code points of a text, int64 ``[T]``.

    Raises:
        DataError: for a lone surrogate.
    """
    try:
        raw = text.encode("utf-32-le")
    except UnicodeEncodeError as error:
        raise DataError(f"character {error.start} is a lone surrogate, not text") from error
    return torch.from_numpy(np.frombuffer(raw, dtype="<u4").astype(np.int64))


def decode_text(points: Tensor) -> str:
    """The text of code points ``[T]``.

    Raises:
        DataError: for numbers that are none.
    """
    raw = points.cpu().numpy().astype("<u4").tobytes()
    try:
        return raw.decode("utf-32-le")
    except UnicodeDecodeError as error:
        raise DataError(f"character {error.start // 4} is no code point of Unicode") from error


def utf8_width(points: Tensor) -> Tensor:
    """How many bytes UTF-8 needs for each code point, int64, same shape."""
    if points.numel() and int(points.max()) < 0x80:
        return torch.ones(points.shape, dtype=torch.int64)
    limits = torch.tensor([0x80, 0x800, 0x10000])
    return torch.bucketize(points.long(), limits, right=True) + 1


@dataclass(frozen=True)
class Characters(Transform):
    """One symbol for each code point of the training part, and a last one for all others.

    An unknown character is one of ``0x110000 - V`` with equal probability, so log_det there is
    ``-log(0x110000 - V)`` and every text has a probability. It decodes to U+FFFD.
    """

    codes: tuple[int, ...] | None = None
    kind: ClassVar[str] = "characters"
    total: ClassVar[bool] = True

    @property
    def fitted(self) -> bool:
        return self.codes is not None

    def fit(self, train: Ragged) -> Characters:
        self._need(train.domain, ("text",))
        if train.values.numel() == 0:
            raise DataError("characters cannot be learnt from an empty text")
        seen = torch.zeros(CODE_POINTS, dtype=torch.bool)
        for part in compact.blocks(len(train.values)):
            seen[train.values[part].long()] = True
        return Characters(tuple(seen.nonzero()[:, 0].tolist()))

    def output(self, domain: Domain) -> Domain:
        self._need(domain, ("text",))
        self._need_fitted()
        return replace(
            domain, kind="symbols", num_symbols=len(self.codes or ()) + 1, step="character"
        )

    def forward(self, flat: Flat) -> Flat:
        domain = self.output(flat.domain)
        codes = torch.tensor(self.codes)
        new, kind = len(codes), compact.integer_type(len(codes))
        ids = torch.full((int(codes.max()) + 2,), new, dtype=kind)  # the last for all beyond
        ids[codes] = torch.arange(new, dtype=kind)
        values = compact.by_block(
            flat.values, lambda part: torch.from_numpy(ids.numpy().take(part, mode="clip")), kind
        )
        unknown, log_det = values == new, flat.log_det
        if bool(unknown.any()):
            log_det = log_det - unknown.double() * math.log(CODE_POINTS - new)
        return replace(flat, values=values, domain=domain, log_det=log_det)

    def inverse(self, values: Tensor, past: Tensor, differencing: Tensor) -> Tensor:
        self._need_fitted()
        return torch.tensor([*(self.codes or ()), REPLACEMENT])[values.long()]


@dataclass(frozen=True)
class Bytes(Transform):
    """The UTF-8 bytes of a text: 256 symbols, nothing to fit; lengths change."""

    kind: ClassVar[str] = "bytes"
    total: ClassVar[bool] = True

    def output(self, domain: Domain) -> Domain:
        self._need(domain, ("text",))
        return replace(domain, kind="symbols", num_symbols=256, step="byte")

    def forward(self, flat: Flat) -> Flat:
        domain = self.output(flat.domain)
        places = torch.cat([flat.offsets, flat.offsets[:-1] + flat.starts])
        sums = compact.counted(flat.values, places, utf8_width)
        offsets, starts = sums.tensor_split([len(flat.offsets)])
        starts = starts - offsets[:-1]
        values = torch.empty(int(offsets[-1]), dtype=torch.uint8)
        filled = 0
        for part in compact.blocks(len(flat.values)):
            raw = np.frombuffer(bytearray(decode_text(flat.values[part]).encode()), np.uint8)
            values[filled : filled + len(raw)] = torch.from_numpy(raw)
            filled += len(raw)
        return _resized(flat, values, offsets, starts, domain)

    def inverse(self, values: Tensor, past: Tensor, differencing: Tensor) -> Tensor:
        _need_single(self, values)
        raw = values.cpu().numpy().astype(np.uint8).tobytes()
        return encode_text(raw.decode("utf-8", errors="replace"))


@dataclass(frozen=True)
class Tokens(Transform):
    """Byte-pair encoding over bytes, fitted on the training part; lengths change.

    At most `vocab_size` tokens (at least 256, one for each byte, so nothing is unknown). `model`
    is the tokeniser as JSON. The past and the scored part are tokenised apart. Raises
    MissingExtra without the package tokenizers.
    """

    vocab_size: int = 1000
    model: str | None = None
    kind: ClassVar[str] = "tokens"
    total: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.vocab_size < 256:
            raise SettingError(f"{self.vocab_size} tokens: at least 256, one for each byte")

    @property
    def fitted(self) -> bool:
        return self.model is not None

    def fit(self, train: Ragged) -> Tokens:
        self._need(train.domain, ("text",))
        library = _library()
        tokenizer = library.Tokenizer(library.models.BPE())
        tokenizer.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = library.decoders.ByteLevel()
        trainer = library.trainers.BpeTrainer(
            vocab_size=self.vocab_size,
            initial_alphabet=sorted(library.pre_tokenizers.ByteLevel.alphabet()),
            special_tokens=[],
            show_progress=False,
        )
        tokenizer.train_from_iterator(filter(None, _texts(Flat.of(train))), trainer)
        return Tokens(self.vocab_size, tokenizer.to_str())

    def output(self, domain: Domain) -> Domain:
        self._need(domain, ("text",))
        self._need_fitted()
        size = _tokenizer(self.model or "").get_vocab_size()
        return replace(domain, kind="symbols", num_symbols=size, step="token")

    def forward(self, flat: Flat) -> Flat:
        domain = self.output(flat.domain)
        encoded = _tokenizer(self.model or "").encode_batch(_texts(flat))
        ids = [part.ids for part in encoded]
        lengths = torch.tensor([len(part) for part in ids], dtype=torch.int64).reshape(-1, 2)
        zero = torch.zeros(1, dtype=torch.int64)
        values = torch.tensor([i for part in ids for i in part], dtype=torch.int32)
        offsets = torch.cat([zero, lengths.sum(1).cumsum(0)])
        return _resized(flat, values, offsets, lengths[:, 0], domain)

    def inverse(self, values: Tensor, past: Tensor, differencing: Tensor) -> Tensor:
        self._need_fitted()
        _need_single(self, values)
        text = _tokenizer(self.model or "").decode(values.tolist(), skip_special_tokens=False)
        return encode_text(text)


def _resized(flat: Flat, values: Tensor, offsets: Tensor, starts: Tensor, domain: Domain) -> Flat:
    return replace(
        flat,
        values=values,
        offsets=offsets,
        starts=starts,
        domain=domain,
        differencing=compact.constant(0, len(values), torch.uint8),
        log_det=compact.constant(0.0, len(values), torch.float64),
    )


def _need_single(transform: Transform, values: Tensor) -> None:
    if values.dim() != 1:
        raise SettingError(f"{transform.kind} change lengths: decode one sequence [T] at a time")


def _texts(flat: Flat) -> list[str]:
    """The past and the scored part of each sequence, alternating."""
    text = decode_text(flat.values)
    offsets, starts = flat.offsets.tolist(), flat.starts.tolist()
    parts = []
    for begin, end, start in zip(offsets[:-1], offsets[1:], starts, strict=True):
        parts += [text[begin : begin + start], text[begin + start : end]]
    return parts


def _library() -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise MissingExtra("tokenizers", "bpe", "tokenising text by byte pairs") from error
    return tokenizers


@lru_cache(maxsize=8)
def _tokenizer(model: str) -> Any:
    """The tokeniser of its JSON, kept because reading it takes longer than using it."""
    # The library raises bare exceptions, so what it needs is looked at first.
    try:
        tokenizer = json.loads(model)["model"]
        valid = tokenizer["type"] == "BPE" and tokenizer["vocab"].keys() and "merges" in tokenizer
    except (ValueError, KeyError, TypeError, AttributeError):
        valid = False
    if not valid:
        raise DataError("not the JSON of a byte-pair tokeniser: fit the tokens again")
    return _library().Tokenizer.from_str(model)
