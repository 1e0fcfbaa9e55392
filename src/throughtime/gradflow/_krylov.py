"""Largest singular values and eigenvalues of matrices that are known by their products only."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Map = Callable[[Tensor], Tensor]


def largest_singular(
    forward: Map, back: Map, start: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """The spectral norm of each of R matrices, and its left singular vector.

    Power iteration that keeps every direction it has seen (Golub & Kahan 1965, with full
    reorthogonalisation): all R at once, one product with the matrix and one with its transpose per
    round, and no squares, so that products as small as 1e-300 are measured. Ends when the residual
    ``‖Aᵀu - σ v‖`` is below ``tolerance · σ`` everywhere, which bounds the relative error of σ,
    or when the whole space has been seen.

    start: ``[R, n]``, near the left singular vectors if these are known. Returns ``[R]`` float64
    and ``[R, n]``.
    """
    limit = max(tolerance, 20 * torch.finfo(start.dtype).eps)
    length, u = _unit(start)
    lefts, rights, diagonal, below = [u], [], [], []  # type: ignore[var-annotated]
    value, vector = torch.zeros_like(length), u
    for rounds in range(start.shape[1] + 1):
        alpha, v = _unit(_without(rights, back(u)))
        if rounds:
            x, sigma, _ = torch.linalg.svd(_bidiagonal(diagonal, below), full_matrices=False)
            value, weights = sigma[:, 0], x[:, :, 0]
            vector = torch.einsum("jrn,rj->rn", torch.stack(lefts), weights.to(u.dtype))
            done = alpha * weights[:, -1].abs() <= limit * value
            if bool(done.all()) or rounds == start.shape[1]:
                break
        rights.append(v)
        diagonal.append(alpha)
        beta, u = _unit(_without(lefts, forward(v)))
        lefts.append(u)
        below.append(beta)
    return value, vector


def largest_eigenvalue(forward: Map, start: Tensor, tolerance: float, most: int = 200) -> float:
    """The spectral radius of one matrix, the largest |eigenvalue|, by Arnoldi's iteration.

    start: ``[n]``. Ends as `largest_singular` does, by the residual, or after `most` rounds.
    """
    _, q = _unit(start[None])
    basis = [q[0]]
    size = min(len(start), most)
    columns = torch.zeros(size + 1, size, dtype=torch.float64)
    largest = 0.0
    for j in range(size):
        w = forward(basis[-1])
        for _ in range(2):  # twice is enough (Giraud et al. 2005)
            for i, b in enumerate(basis):
                part = b @ w
                columns[i, j] += float(part)
                w = w - part * b
        columns[j + 1, j] = float(w.norm())
        values, vectors = torch.linalg.eig(columns[: j + 1, : j + 1])
        best = int(values.abs().argmax())
        largest = float(values[best].abs())
        residual = float(columns[j + 1, j] * vectors[-1, best].abs())
        if residual <= tolerance * largest or columns[j + 1, j] == 0:
            break
        basis.append(w / w.norm())
    return largest


def _unit(vectors: Tensor) -> tuple[Tensor, Tensor]:
    """The lengths (float64 ``[R]``) and the directions; the direction of zero is zero."""
    largest = vectors.abs().amax(1, keepdim=True)
    scaled = vectors / torch.where(largest > 0, largest, torch.ones_like(largest))
    length = scaled.double().square().sum(1).sqrt()
    divisor = torch.where(length > 0, length, torch.ones_like(length)).to(vectors.dtype)
    return length * largest[:, 0], scaled / divisor[:, None]


def _without(seen: list[Tensor], vectors: Tensor) -> Tensor:
    """The vectors less their parts along those seen."""
    if not seen:
        return vectors
    basis = torch.stack(seen)
    for _ in range(2):
        vectors = vectors - torch.einsum(
            "jrn,jr->rn", basis, torch.einsum("jrn,rn->jr", basis, vectors)
        )
    return vectors


def _bidiagonal(diagonal: list[Tensor], below: list[Tensor]) -> Tensor:
    """``[R, j + 1, j]``."""
    j = len(diagonal)
    matrix = diagonal[0].new_zeros(len(diagonal[0]), j + 1, j)
    places = torch.arange(j)
    matrix[:, places, places] = torch.stack(diagonal, 1)
    matrix[:, places + 1, places] = torch.stack(below, 1)
    return matrix
