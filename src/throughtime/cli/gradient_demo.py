"""`throughtime demo gradients`: the vanishing gradient of a plain recurrent network, and its cures.

The task: one number, +1 or −1, is shown at the first step; noise follows; at the last step the
number is asked for. Every network is looked at before training (how much of its gradient comes from
how far back) and after the same few hundred updates (whether it has learned).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from throughtime import bptt, gradflow, rng
from throughtime.layers.recurrent import GRU, LSTM, RNN
from throughtime.runtime import threads
from throughtime.state import State
from throughtime.types import Progress, silent

LAG = 99  # steps between the number and the question: sequences of 100
HIDDEN, ROWS = 32, 64
UPDATES, LEARNING_RATE, CLIP = 300, 3e-3, 1.0
SHORT = 20  # a truncation that does not reach the number; the last segment ends with the question
GUESS = math.log(2.0)  # nats of an answer that knows nothing
LEARNED = 0.5  # of the nats of a guess: below, the number has been learnt
_CELLS: dict[str, Any] = {"rnn": RNN, "gru": GRU, "lstm": LSTM}


@dataclass(frozen=True)
class Network:
    """One line of the picture.

    Attributes:
        name: of the network and its start.
        cell: "rnn", "gru" or "lstm".
        start: "torch", "orthogonal" or "chrono".
        k2: steps that its gradient may travel in training.
    """

    name: str
    cell: str
    start: str = "torch"
    k2: int = LAG + 1


NETWORKS = (
    Network("RNN", "rnn"),
    Network("GRU", "gru"),
    Network("LSTM", "lstm"),
    Network("RNN, orthogonal start", "rnn", "orthogonal"),
    Network("GRU, chrono start", "gru", "chrono"),
    Network("LSTM, chrono start", "lstm", "chrono"),
    Network(f"LSTM, chrono, truncated at {SHORT}", "lstm", "chrono", SHORT),
)


class Recaller(nn.Module):
    """A recurrent layer and a read-out of one number.

    start: "torch" leaves torch's own; "orthogonal" recurrent weights neither grow nor shrink a
    state (Saxe et al. 2014), with inputs halved so that tanh stays steep; "chrono" spreads the
    memories of the gates over 1 … LAG steps (Tallec & Ollivier 2018).
    """

    def __init__(self, cell: str, start: str) -> None:
        super().__init__()
        self.layer, self.head = _CELLS[cell](3, HIDDEN), nn.Linear(HIDDEN, 1)
        with torch.no_grad():
            if start != "torch":
                self.layer.bias_ih_l0.zero_()
                self.layer.bias_hh_l0.zero_()
            if start == "orthogonal":
                nn.init.orthogonal_(self.layer.weight_hh_l0)
                self.layer.weight_ih_l0.mul_(0.5)
            elif start == "chrono":
                keep = torch.linspace(0.1, math.log(LAG), HIDDEN).expm1().log()
                gates = self.layer.bias_hh_l0.split(HIDDEN)
                gates[1].copy_(keep)
                if cell == "lstm":
                    gates[0].copy_(-keep)

    def initial_state(self, rows: int) -> State:
        """Zeros."""
        zeros = torch.zeros(1, rows, HIDDEN, dtype=self.head.weight.dtype)
        return (zeros, zeros) if isinstance(self.layer, LSTM) else zeros

    def loss(self, batch: Tensor, state: State) -> tuple[Tensor, State]:
        """Nats of the answers in a batch ``[T, B, 4]``: number, noise, question, right answer."""
        y, state = self.layer(batch[..., :3], state)
        said, asked, right = self.head(y)[..., 0], batch[..., 2], batch[..., 3]
        nats = F.binary_cross_entropy_with_logits(said, right, reduction="none")
        return (nats * asked).sum(), state


def recall(seed: int, number: int, rows: int = ROWS) -> Tensor:
    """Batch `number` of the task, ``[LAG + 1, rows, 4]``."""
    source = rng.generator(seed, "recall", number)
    right = torch.randint(2, (rows,), generator=source).float()
    batch = torch.zeros(LAG + 1, rows, 4)
    batch[0, :, 0] = 2 * right - 1
    batch[..., 1] = torch.randn(LAG + 1, rows, generator=source)
    batch[-1, :, 2] = 1
    batch[..., 3] = right
    return batch


@dataclass(frozen=True)
class Outcome:
    """What was measured of one network.

    Attributes:
        network: which.
        by_lag: before training, the share of the gradient at each lag; 0 where it is cut off.
        reach: the lag within which 95 % of it lies.
        loss: nats of an answer over each tenth of the training.
        seconds: of measuring and training.
    """

    network: Network
    by_lag: list[float]
    reach: int
    loss: list[float]
    seconds: float

    @property
    def arrives(self) -> float:
        """The share that comes from the very number, LAG steps back."""
        return self.by_lag[-1]

    @property
    def learned(self) -> bool:
        """Whether the network knows more in the end than half of what there is to know."""
        return self.loss[-1] < LEARNED * GUESS

    def to_json(self) -> dict[str, Any]:
        """The fields of docs/commands.md, `networks[]`."""
        measured = {name: value for name, value in vars(self).items() if name != "network"}
        return vars(self.network) | measured | {"arrives": self.arrives, "learned": self.learned}


@dataclass(frozen=True)
class Demonstration:
    """Every network of the picture, measured and trained on the same batches."""

    networks: tuple[Outcome, ...]

    @property
    def verdict(self) -> str:
        """What the picture says."""
        plain = self.networks[0]
        sentence = (
            f"The gradient of a plain {plain.network.name} vanishes: 95 % of it lies within lag "
            f"{plain.reach}, {plain.arrives:.0e} at lag {LAG}."
        )
        learned = "; ".join(one.network.name for one in self.networks if one.learned)
        return sentence + (f" These see that far, and learn: {learned}." if learned else "")

    def to_json(self) -> dict[str, Any]:
        """The fields of docs/commands.md, `demo`, but for the page."""
        return {
            "lag": LAG,
            "short": SHORT,
            "updates": UPDATES,
            "guess": GUESS,
            "networks": [one.to_json() for one in self.networks],
            "verdict": self.verdict,
        }


def demonstrate(seed: int = 0, on_progress: Progress = silent) -> Demonstration:
    """Measures and trains every network of the picture. on_progress: called after each update."""
    outcomes = []
    with threads(1):
        for i, network in enumerate(NETWORKS):

            def trained(update: int, name: str = network.name, before: int = i * UPDATES) -> None:
                on_progress(before + update, len(NETWORKS) * UPDATES, f"training {name}")

            outcomes.append(_measured(network, seed, trained))
    return Demonstration(tuple(outcomes))


def _measured(network: Network, seed: int, on_update: Callable[[int], None]) -> Outcome:
    begun = time.monotonic()
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = Recaller(network.cell, network.start)
    book = gradflow.ledger(
        model.double().loss, recall(seed, 0).double(), model.initial_state(ROWS),
        params=dict(model.layer.named_parameters()), max_lag=LAG,
    )  # fmt: skip
    shares = book.norms / book.norms.sum()
    shares = torch.where(torch.arange(LAG + 1) < network.k2, shares, 0.0)
    reach = min(book.reach(0.95) or 0, network.k2 - 1)
    losses = _trained(model.float(), network.k2, seed, on_update)
    return Outcome(network, shares.tolist(), reach, losses, round(time.monotonic() - begun, 2))


def _trained(model: Recaller, k2: int, seed: int, on_update: Callable[[int], None]) -> list[float]:
    """Nats of an answer over each tenth of the training."""
    method = bptt.Truncated(k2)
    parameters: list[Tensor] = list(model.parameters())
    optimiser = torch.optim.Adam(parameters, lr=LEARNING_RATE)
    losses = []
    for update in range(UPDATES):
        optimiser.zero_grad()
        total, _ = method.backward(model.loss, recall(seed, 1 + update), model.initial_state(ROWS))
        torch._foreach_div_([p.grad for p in parameters if p.grad is not None], ROWS)
        bptt.clip(parameters, CLIP)
        optimiser.step()
        losses.append(float(total) / ROWS)
        on_update(update + 1)
    return [sum(part) / len(part) for part in zip(*[iter(losses)] * (UPDATES // 10), strict=True)]
