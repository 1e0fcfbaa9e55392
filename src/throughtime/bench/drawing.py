"""Whole loops of sampling: text symbol by symbol, and many forecast paths at once.

What is drawn at random cannot be compared number by number. The gate takes paths that the model
drew and asks torch, in float64, for the distribution of each step given the steps before it: the
values of its distribution function must be uniform (Rosenblatt 1952), by a test of Kolmogorov and
Smirnov.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from throughtime.bench.cases import Shape
from throughtime.bench.timing import Contender
from throughtime.emissions import Categorical, StudentT
from throughtime.errors import BackendError
from throughtime.models.latent import LatentAutoregressive

SYMBOLS = 65  # as many characters as English text has
TEXTS = (
    ("gru", Shape(1, 200, 64, 64)),
    ("gru", Shape(1, 200, 64, 256)),
    ("lstm", Shape(1, 200, 64, 256)),
    ("gru", Shape(1, 200, 64, 512)),
)
FORECASTS = (("gru", Shape(10_000, 48, 5, 64)),)
_LEAST_P = (
    1e-6  # of the test of the distributions; the same draws every time, so no chance is involved
)
_CHECKED = 4096  # draws that are tested, at least


@dataclass
class Drawing:
    """A model whose head is far from indifferent, so that a wrong distribution shows.

    task: "sample" (symbols) or "forecast" (one real column with a Student-t distribution).
    """

    task: str
    cell: str
    shape: Shape
    model: LatentAutoregressive = field(init=False)

    def __post_init__(self) -> None:
        emission = Categorical(SYMBOLS) if self.task == "sample" else StudentT()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = LatentAutoregressive(
                self.cell, self.shape.hidden, emission=emission, embedding_size=self.shape.inputs,
                backend="cpu",
            )  # fmt: skip
            self._sharpen()
        self.model.eval()

    @torch.no_grad()
    def _sharpen(self) -> None:
        """Makes the distribution of each step depend on the past as much as in a model that has
        learned.
        """
        model, steps = self.model, 32
        if self.task == "sample":
            model.encoder.embedding.weight.normal_()  # type: ignore[operator, union-attr]
            previous = torch.randint(SYMBOLS, (steps, 1))
        else:
            previous = torch.randn(steps, 1, 1)
        x = model.encoder(previous, torch.zeros(steps, 1, dtype=torch.bool))
        y, _ = model.recurrent(x)
        size = y.norm(dim=-1).mean().item()
        model.head_weight.normal_(std=(2.0 if self.task == "sample" else 0.5) / size)

    def contenders(self) -> list[Contender]:
        """Ours, and a loop of torch's cell, written as well as torch allows."""
        loop = _text_loop if self.task == "sample" else _forecast_loop
        size, model = self.shape, self.model

        def ours(count: int) -> None:
            for _ in range(count):
                model.sample(size.steps, num_paths=size.batch, seed=0)

        def torchs(count: int) -> None:
            with torch.no_grad():
                for _ in range(count):
                    loop(model, torch_cell(model), size)

        return [Contender("ours", ours), Contender("torch", torchs)]

    def check(self) -> float:
        """The p-value of the test of the draws. Raises BackendError where it is too small."""
        import scipy.stats

        rows = -(-_CHECKED // self.shape.steps)
        drawn = self.model.sample(self.shape.steps, num_paths=rows, seed=1)
        p_value = float(scipy.stats.kstest(self._uniform(drawn).numpy(), "uniform").pvalue)
        if not p_value >= _LEAST_P:
            raise BackendError(
                f"the kernels draw from a wrong distribution here: {self}: p = {p_value:.1e}; use "
                "backend='torch' and report this with what throughtime doctor prints"
            )
        return p_value

    @torch.no_grad()
    def _uniform(self, drawn: Tensor) -> Tensor:
        """The distribution function of each drawn step given those before it, float64."""
        previous = torch.cat([torch.zeros_like(drawn[:, :1]), drawn[:, :-1]], 1).transpose(0, 1)
        start = torch.zeros(previous.shape[:2], dtype=torch.bool)
        start[0] = True
        x = self.model.encoder(previous, start).double()
        layer = {"gru": nn.GRU, "lstm": nn.LSTM}[self.cell](self.shape.inputs, self.shape.hidden)
        layer.load_state_dict(self.model.recurrent.state_dict())
        y, _ = layer.double()(x)
        raw = (y @ self.model.head_weight[0].double().T).transpose(0, 1)
        raw = raw + self.model.head_bias[0].double()
        if self.task == "forecast":
            return self.model.emission.distribution(raw).cdf(drawn.double()).flatten()
        # Symbols in the order of their chances: too bold or too even a distribution shows, which it
        # would not in an order that means nothing. Within its symbol a draw is put anywhere.
        shares, order = torch.softmax(raw, -1).sort(-1, descending=True)
        place = (order == drawn[..., None]).long().argmax(-1, keepdim=True)
        above, share = (part.gather(-1, place)[..., 0] for part in (shares.cumsum(-1), shares))
        within = torch.rand(drawn.shape, generator=torch.Generator().manual_seed(0))
        return (above - share * within).flatten()

    def __str__(self) -> str:
        return f"{self.task} of {self.cell.upper()} at {self.shape}"


def torch_cell(model: LatentAutoregressive) -> Any:
    """torch's cell with the model's weights."""
    kind = {"gru": nn.GRUCell, "lstm": nn.LSTMCell}[model.cell]
    cell = kind(model.recurrent.input_size, model.hidden_size)
    weights = model.recurrent.state_dict()
    cell.load_state_dict({name.removesuffix("_l0"): value for name, value in weights.items()})
    return cell


def _text_loop(model: LatentAutoregressive, cell: Any, size: Shape) -> Tensor:
    encoder: Any = model.encoder
    table = encoder.embedding.weight
    weight, bias = model.head_weight[0], model.head_bias[0]
    x = table[-1:].expand(size.batch, -1)
    h = torch.zeros(size.batch, size.hidden)
    c = torch.zeros(size.batch, size.hidden)
    drawn = []
    for _ in range(size.steps):
        if model.cell == "lstm":
            h, c = cell(x, (h, c))
        else:
            h = cell(x, h)
        symbol = torch.multinomial(torch.softmax(F.linear(h, weight, bias), -1), 1)[:, 0]
        drawn.append(symbol)
        x = table[symbol]
    return torch.stack(drawn, 1)


def _forecast_loop(model: LatentAutoregressive, cell: Any, size: Shape) -> Tensor:
    weight, bias = model.head_weight[0], model.head_bias[0]
    start = torch.ones(size.batch, dtype=torch.bool)
    value, h = torch.zeros(size.batch, 1), torch.zeros(size.batch, size.hidden)
    drawn = []
    for _ in range(size.steps):
        h = cell(model.encoder(value, start), h)
        distribution: Any = model.emission.distribution(F.linear(h, weight, bias))
        value = torch.distributions.StudentT(
            distribution.df, distribution.location, distribution.scale, validate_args=False
        ).sample()
        drawn.append(value)
        start = torch.zeros_like(start)
    return torch.stack(drawn, 1)
