"""Models to draw from, by the native loop and by the one in Python."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import throughtime as tt
from support.close import assert_same
from throughtime import emissions
from throughtime.emissions import Emission
from throughtime.layers import LAYERS
from throughtime.models.context import Context

CELLS = [cell for cell in LAYERS if cell != "mingru"]

HEADS: dict[str, Emission] = {
    "categorical": emissions.Categorical(11),
    "bernoulli": emissions.Bernoulli(3),
    "normal": emissions.Normal(2),
    "student_t": emissions.StudentT(2),
    "laplace": emissions.Laplace(1),
    "poisson": emissions.Poisson(2),
    "negative_binomial": emissions.NegativeBinomial(2),
    "normals": emissions.Mixture("normal", 3, 2),
    "students": emissions.Mixture("student_t", 4, 1),
}


def model(
    emission: Emission, cell: str = "gru", size: int = 9, dtype: Any = torch.float64, **options: Any
) -> Any:
    """A model whose distributions depend on the past and are not degenerate."""
    torch.manual_seed(3)
    made = tt.LatentAutoregressive(cell, size, emission=emission, **options)
    with torch.no_grad():
        made.head_weight.normal_(std=size**-0.5)
        made.head_bias.normal_(std=0.5)
        made.start.normal_(std=0.5)
        made.recurrent.weight_ih_l0.normal_(std=0.4)
        for name, bias in made.recurrent.named_parameters():
            if name.startswith("bias"):
                bias.normal_(std=0.5)
        if cell.startswith("rnn"):  # without gates nothing else keeps it from growing
            made.head_weight.mul_(0.3)
            made.recurrent.weight_hh_l0.mul_(0.5)
    return made.to(dtype).eval()


def starting(made: Any, paths: int = 4, context: Context | None = None, **more: Any) -> Any:
    asked = {"covariates": None, "series": None, "temperature": 1.0, "top_p": 1.0} | more
    return made._start(context, paths, 0, name="", **asked)


def both(made: Any, length: int, **options: Any) -> tuple[Tensor, Tensor]:
    """The same paths from the native loop and from the one in Python."""
    covariates, series = options.get("covariates"), options.get("series")
    start = starting(made, options["num_paths"], covariates=covariates, series=series)
    assert made._sampler(start) is not None
    actual = made.sample(length, **options)
    made.recurrent.backend = "reference"
    assert made._sampler(start) is None
    expected = made.sample(length, **options)
    made.recurrent.backend = "auto"
    return actual, expected


def same(actual: Tensor, expected: Tensor, tolerance: float = 1e-9) -> None:
    assert actual.dtype == expected.dtype
    assert_same([actual], [expected], ["paths"], rtol=tolerance, atol=tolerance)
