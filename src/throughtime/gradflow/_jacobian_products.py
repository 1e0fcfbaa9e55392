"""Products with the Jacobian of many steps, ∂S_t/∂S_{t-k}, of several times t at once.

A whole state is one vector: of states ``[L, B, H]`` each row is one (all layers, all leaves; an
LSTM's h and c), of others everything together. Vectors are the rows of a matrix ``[R, n]``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from throughtime import state as states
from throughtime.errors import SettingError
from throughtime.gradflow._contract import Loss, Places, alike, check, check_finite
from throughtime.gradflow._unrolled import floating, gradients, has_rows, with_floating
from throughtime.gradflow.batches import Timed, join
from throughtime.state import State


def to_vectors(leaves: Sequence[Tensor]) -> Tensor:
    """The leaves of a state (or of its gradient) as vectors ``[R, n]``."""
    if all(leaf.dim() == 3 for leaf in leaves):
        return torch.cat([leaf.transpose(0, 1).flatten(1) for leaf in leaves], 1)
    return torch.cat([leaf.flatten() for leaf in leaves]).unsqueeze(0)


def from_vectors(vectors: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Vectors ``[R, n]`` as the leaves of a state that has the shapes of `like`."""
    if all(leaf.dim() == 3 for leaf in like):
        parts = vectors.split([leaf.shape[0] * leaf.shape[2] for leaf in like], 1)
        return [
            part.unflatten(1, (leaf.shape[0], -1)).transpose(0, 1).to(leaf.dtype)
            for part, leaf in zip(parts, like, strict=True)
        ]
    parts = vectors.flatten().split([leaf.numel() for leaf in like])
    return [p.reshape(leaf.shape).to(leaf.dtype) for p, leaf in zip(parts, like, strict=True)]


@contextmanager
def _without_onednn() -> Iterator[None]:
    """Within, torch runs its own code: oneDNN's LSTM has no forward mode.

    Not by `torch.backends.mkldnn.flags`, which sets more than it is asked to, and warns of that.
    """
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


def jvp(loss: Loss, batch: Any, state: State, vectors: Tensor) -> tuple[Tensor, State]:
    """``(∂S_T/∂S_0) v`` of each row through a batch of T steps by forward mode, and S_T.

    vectors: ``[R, n]``. Raises SettingError where the loss has operators without forward mode.
    """
    leaves = [leaf.detach() for leaf in floating(state)]
    with torch.no_grad(), _without_onednn(), forward_ad.dual_level():
        tangents = from_vectors(vectors, leaves)
        duals = [
            forward_ad.make_dual(leaf, tangent)
            for leaf, tangent in zip(leaves, tangents, strict=True)
        ]
        try:
            _, after = loss(batch, with_floating(state, duals))
        except NotImplementedError as error:
            raise SettingError(
                "an operator of this loss has no forward mode "
                f"({' '.join(str(error).split())[:80]}); call tt.accelerate on the module, "
                "or use float64"
            ) from error
        pairs = [forward_ad.unpack_dual(leaf) for leaf in floating(after)]
        outputs = [torch.zeros_like(p) if t is None else t.clone() for p, t in pairs]
        primal = with_floating(after, [p.clone() for p, _ in pairs])
    return to_vectors(outputs), primal


def generator(seed: int) -> torch.Generator:
    """Of directions. Far from the seeds that people give to torch: weights drawn with the same one
    could be made of the very same numbers."""
    return torch.Generator().manual_seed(seed + 0x6A61636F6269616E)


def stackable(loss: Loss, batch: Timed, state: State) -> bool:
    """Whether pieces of a batch can run side by side, as the rows of one; else one by one.

    Raises SettingError for a loss that draws random numbers, or whose rows know of each other.
    """
    start = states.detach(state)
    if not floating(start):
        raise SettingError("the state has no numbers in it; give the state before the batch")
    check(loss, batch, start, Places.first(batch, 1), sums=False)
    check_finite(loss, batch, start, 0, len(batch))
    with torch.no_grad():
        one = states.detach(loss(batch[0:1], start)[1])
        if not alike(floating(one), floating(loss(batch[0:1], start)[1])):
            raise SettingError(
                "the loss does not give the same state twice; it must not draw random numbers "
                "(call eval() on the module) nor keep a state of its own"
            )
    if not (has_rows(start) and has_rows(one)):
        return False
    step = Product(loss, [batch[0:1]], [start], joined=False)
    first = torch.zeros(step.shape, device=floating(start)[0].device)
    first[0] = 1.0
    if bool(step.vjp(first)[1:].any()):
        raise SettingError(
            "the rows of this loss depend on each other, so no row has a Jacobian of its own; "
            "give a batch of one row, or a loss that keeps the rows apart"
        )
    rows = join([batch[0:1], batch[1:2]]) if len(batch) > 1 else None
    if rows is None:
        return False
    with torch.no_grad():
        other = loss(batch[1:2], one)[1]
        try:
            after = loss(rows, states.concatenate([start, one]))[1]
        except (RuntimeError, ValueError, IndexError):
            return False  # another number of rows than this loss was made for
    return alike(floating(after), floating(states.concatenate([one, other])))


class Product:
    """The Jacobians of pieces of a batch, each from the state before it to the one after it.

    pieces: batches of one length. before: the states. joined: whether they run as the rows of one
    batch (see `stackable`). R is the number of pieces times the rows of each.
    """

    def __init__(
        self, loss: Loss, pieces: Sequence[Any], before: Sequence[State], joined: bool
    ) -> None:
        self.loss = loss
        self.calls = list(zip(pieces, before, strict=True))
        if joined:
            self.calls = [(join(pieces), states.concatenate(list(before)))]
        self.inputs, self.outputs = [], []
        for piece, state in self.calls:
            leaves = [leaf.detach().clone().requires_grad_() for leaf in floating(state)]
            with torch.enable_grad():
                _, after = loss(piece, with_floating(state, leaves))
            self.inputs.append(leaves)
            self.outputs.append(floating(after))

    @property
    def shape(self) -> tuple[int, int]:
        """(R, n)."""
        shapes = [to_vectors([leaf.detach() for leaf in leaves]).shape for leaves in self.inputs]
        return sum(shape[0] for shape in shapes), shapes[0][1]

    def vjp(self, vectors: Tensor) -> Tensor:
        """``(∂S_t/∂S_{t-k})ᵀ u`` of each row, ``[R, n]``."""
        parts = zip(self.inputs, self.outputs, self._parts(vectors), strict=True)
        return torch.cat(
            [
                to_vectors(gradients(list(zip(outs, from_vectors(part, outs), strict=True)), ins))
                for ins, outs, part in parts
            ]
        )

    def jvp(self, vectors: Tensor) -> Tensor:
        """``(∂S_t/∂S_{t-k}) v`` of each row, ``[R, n]``."""
        return torch.cat(
            [
                jvp(self.loss, piece, before, part)[0]
                for (piece, before), part in zip(self.calls, self._parts(vectors), strict=True)
            ]
        )

    def _parts(self, vectors: Tensor) -> Sequence[Tensor]:
        return vectors.chunk(len(self.calls))
