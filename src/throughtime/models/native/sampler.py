"""Whole loops of sampling in C++: from what was drawn to the next draw, many paths at once.

The maps from uniforms to draws are those of `throughtime.emissions` and the uniforms those of
`throughtime.rng`, so a seed gives the paths of the loop in Python up to rounding; and the same bits
whatever the number of paths, of threads, and of steps drawn at a time.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from throughtime import state as states
from throughtime.emissions import Categorical, Emission, Mixture
from throughtime.kernels import native
from throughtime.kernels.cells import CELLS
from throughtime.kernels.cpu import seen_by_torch
from throughtime.state import State

ENCODERS = {"symbols": 0, "reals": 1, "binaries": 2, "counts": 3}  # enums of throughtime.h
FAMILIES = {
    "categorical": 0, "bernoulli": 1, "normal": 2, "student_t": 3, "laplace": 4, "poisson": 5,
    "negative_binomial": 6,
}  # fmt: skip
_ENCODED = {"bernoulli": "binaries", "poisson": "counts", "negative_binomial": "counts"}
_MOST_STEPS = 64  # that a stream is ahead of who reads it
_MOST_WORK = 1e9  # products between two chances to interrupt: some tenths of a second


@native.mirrors("tt_sampler")
class _Arguments(ctypes.Structure):
    """A model that draws paths, and the paths."""

    _fields_ = native.fields(
        ("int", "kind type layers members H encoder symbols coded covariates identity"),
        ("int", "distribution columns components parameters threads paths"),
        ("double", "min_scale temperature top_p"),
        ("pointer", "weights codes head_w head_b initial packed"),
        ("int", "begin end step steps fresh root"),
        ("pointer", "covariate"),
        ("int", "covariate_path"),
        ("pointer", "identities previous h c out"),
        ("int", "out_path"),
    )


@dataclass(frozen=True)
class Head:
    """The distribution of a step, and what the network reads of the value drawn from it.

    family: of FAMILIES; encoder: of ENCODERS. symbols: how many, 0 for values; columns: of values.
    components: of a mixture of such distributions in each column, or 0. min_scale: as in the
    emissions.
    """

    family: str
    encoder: str
    symbols: int = 0
    columns: int = 1
    components: int = 0
    min_scale: float = 0.0


def head_of(emission: Emission) -> Head | None:
    """The head for an emission; None for one that the loops do not know."""
    if isinstance(emission, Categorical):
        return Head("categorical", "symbols", symbols=emission.num_symbols)
    floor = float(getattr(emission, "min_scale", 0.0))
    if isinstance(emission, Mixture):
        sizes = emission.columns, emission.num_components
        return Head(emission.component, "reals", 0, *sizes, min_scale=floor)
    if emission.kind not in FAMILIES or emission.to_json().get("rank"):
        return None
    encoder = _ENCODED.get(emission.kind, "reals")
    return Head(emission.kind, encoder, columns=emission.columns, min_scale=floor)


@dataclass(frozen=True)
class Network:
    """The weights of `members` networks of one shape, all of one type.

    kind: the cell. layers: w_ih, w_hh, b_ih, b_hh of each layer of each member. codes: what the
    encoder gives for each symbol, the last row for "before the first"; [0, size] for values.
    head_weight ``[members, parameters, H]``, head_bias ``[members, parameters]``. initial: the raw
    parameters of the first step if the head does not give them.
    """

    kind: str
    layers: Sequence[Tensor]
    codes: Tensor
    head_weight: Tensor
    head_bias: Tensor
    initial: Tensor | None = None

    def tensors(self) -> list[Tensor]:
        more = [] if self.initial is None else [self.initial]
        return [*self.layers, self.codes, self.head_weight, self.head_bias, *more]


def runs(network: Network) -> bool:
    """Whether the library takes these weights and nothing records what happens to them."""
    dtype = network.head_weight.dtype
    return (
        native.available()
        and dtype in native.TYPES
        and all(t.dtype == dtype and t.device.type == "cpu" for t in network.tensors())
        and not seen_by_torch()
        and not torch.is_autocast_enabled("cpu")
    )


@dataclass(frozen=True)
class Paths:
    """Where paths go on from, and what is known beforehand.

    root: of the random numbers. state ``[layers, 1 or paths, members * H]`` (LSTM: two). previous:
    ``[paths]`` or ``[paths, columns]``; None at the start. covariates ``[steps, C]`` or
    ``[paths, steps, C]``; identities ``[paths, n]``.
    """

    count: int
    root: int
    state: State
    previous: Tensor | None = None
    covariates: Tensor | None = None
    identities: Tensor | None = None


class Sampler:
    """A network, its weights packed for drawing, and the paths it draws."""

    def __init__(
        self,
        head: Head,
        network: Network,
        paths: Paths,
        temperature: float = 1.0,
        top_p: float = 1.0,
    ) -> None:
        dtype, count = network.head_weight.dtype, paths.count
        members, parameters, hidden = network.head_weight.shape
        self.head, self.dtype, self.count = head, dtype, count
        self.kept = [t.detach().contiguous() for t in network.tensors()]
        weights = self.kept[: len(network.layers)]
        self.table = (ctypes.c_uint64 * len(weights))(*(w.data_ptr() for w in weights))
        codes, head_w, head_b, *initial = (t.data_ptr() for t in self.kept[len(weights) :])
        self._take(paths)
        self.call = call = _Arguments(CELLS[network.kind].number, native.TYPES[dtype])
        call.layers, call.members, call.H = len(weights) // 4 // members, members, hidden
        call.encoder, call.symbols = ENCODERS[head.encoder], head.symbols
        call.coded = network.codes.shape[1]
        call.covariates = 0 if self.covariates is None else self.covariates.shape[-1]
        call.identity = 0 if self.identities is None else self.identities.shape[-1]
        call.distribution, call.parameters = FAMILIES[head.family], parameters
        call.columns, call.components = head.columns, head.components
        call.threads, call.paths = torch.get_num_threads(), count
        call.min_scale, call.temperature, call.top_p = head.min_scale, temperature, top_p
        call.weights, call.codes = ctypes.addressof(self.table), codes
        call.head_w, call.head_b, call.initial = head_w, head_b, initial[0] if initial else None
        self.library, self.place = native.library(), ctypes.byref(self.call)
        self.packed = torch.empty(self.library.tt_sampler_size(self.place) + 256, dtype=torch.uint8)
        call.packed = -(-self.packed.data_ptr() // 256) * 256
        self.library.tt_sampler_pack(self.place)
        products = sum(w.numel() for w in weights if w.dim() == 2) + network.head_weight.numel()
        self.work = max(1, products)  # of a step of a path
        self._point(paths)

    def _take(self, paths: Paths) -> None:
        """Copies of what the paths bring along, laid out for C."""
        self.state = [
            part.detach().to(self.dtype).expand(-1, self.count, -1).clone(
                memory_format=torch.contiguous_format
            )
            for part in states.leaves(paths.state)
        ]  # fmt: skip
        kind = torch.int64 if self.head.symbols else self.dtype
        tail = () if self.head.symbols else (self.head.columns,)
        self.previous = torch.zeros(self.count, *tail, dtype=kind)
        if paths.previous is not None:
            self.previous.copy_(paths.previous)
        known = paths.covariates
        self.covariates = None if known is None else known.to(self.dtype).contiguous()
        fixed = paths.identities
        self.identities = None if fixed is None else fixed.to(self.dtype).contiguous()

    def _point(self, paths: Paths) -> None:
        call, known = self.call, self.covariates
        call.fresh = paths.previous is None
        call.root, call.identities = paths.root, native.address(self.identities)
        call.covariate = native.address(known)
        call.covariate_path = 0 if known is None or known.dim() == 2 else known.stride(0)
        call.previous, call.h = self.previous.data_ptr(), self.state[0].data_ptr()
        call.c = self.state[1].data_ptr() if len(self.state) > 1 else None

    def blocks(self, length: int | None) -> Iterator[Tensor]:
        """The next `length` steps, ``[paths, n]`` or ``[paths, n, columns]`` at a time.

        None: without end, or as far as there are covariates; blocks then grow from a single step.
        """
        ahead, known = (1 if length is None else _MOST_STEPS), self.covariates
        limit = length if length is not None or known is None else known.shape[-2]
        rows = max(1, min(self.count, int(_MOST_WORK / self.work)))
        most = max(1, int(_MOST_WORK / self.work / rows))
        if length is not None:
            ahead = most
        while limit is None or self.call.step < limit:
            left = ahead if limit is None else limit - self.call.step
            yield self._steps(min(ahead, most, left), rows)
            ahead = min(2 * ahead, max(ahead, _MOST_STEPS))

    def _steps(self, steps: int, rows: int) -> Tensor:
        out = torch.empty(self.count, steps, *self.previous.shape[1:], dtype=self.previous.dtype)
        call = self.call
        call.out, call.out_path, call.steps = out.data_ptr(), out.stride(0), steps
        for begin in range(0, self.count, rows):
            call.begin, call.end = begin, min(begin + rows, self.count)
            native.check(self.library.tt_sample(self.place))
        call.step, call.fresh = call.step + steps, 0
        return out
