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
from throughtime.types import Progress

LAG = 99  # steps between the number and the question: sequences of 100
HIDDEN, ROWS = 32, 64
UPDATES, LEARNING_RATE, CLIP = 300, 3e-3, 1.0
SHORT = 20  # a truncation that does not reach the number; the last window ends with the question
LEARNED = 0.5  # of the nats of a guess: below, the network knows more than it was told
_CELLS: dict[str, Any] = {"rnn": RNN, "gru": GRU, "lstm": LSTM}


@dataclass(frozen=True)
class Network:
    """One line of the picture. start: "torch", "orthogonal" or "chrono"; k: of the truncation."""

    name: str
    cell: str
    start: str = "torch"
    k: int = LAG + 1


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


def gradients(
    seed: int = 0, on_progress: Progress = lambda done, total, about: None
) -> dict[str, Any]:
    """Measures and trains every network of the picture; plain values.

    "lag", "updates", "guess" (nats of an answer that knows nothing) and "networks": each "name",
    "cell", "start", "k", "by_lag" (the share of the gradient that each lag has, before training; 0
    where it is cut off), "reach" (the lag within which 95 % of it lies), "arrives" (the share that
    comes from the very number, LAG steps back), "loss" (nats of an answer over each tenth of the
    training), "learned", "seconds".
    """
    rows = []
    with threads(1):
        for i, network in enumerate(NETWORKS):

            def told(update: int, network: Network = network, before: int = i * UPDATES) -> None:
                on_progress(before + update, len(NETWORKS) * UPDATES, f"training {network.name}")

            rows.append(_measured(network, seed, told))
    return {
        "lag": LAG, "short": SHORT, "updates": UPDATES, "guess": math.log(2.0), "networks": rows,
        "verdict": verdict(rows),
    }  # fmt: skip


def _measured(network: Network, seed: int, on_update: Callable[[int], None]) -> dict[str, Any]:
    begun = time.monotonic()
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = Recaller(network.cell, network.start)
    found = gradflow.ledger(
        model.double().loss, recall(seed, 0).double(), model.initial_state(ROWS),
        params=dict(model.layer.named_parameters()), max_lag=LAG,
    )  # fmt: skip
    shares = found.norms / found.norms.sum()
    shares = torch.where(torch.arange(LAG + 1) < network.k, shares, 0.0)
    losses = _trained(model.float(), network.k, seed, on_update)
    return {
        "name": network.name,
        "cell": network.cell,
        "start": network.start,
        "k": network.k,
        "by_lag": shares.tolist(),
        "reach": min(found.reach(0.95) or 0, network.k - 1),
        "arrives": float(shares[-1]),
        "loss": losses,
        "learned": losses[-1] < LEARNED * math.log(2.0),
        "seconds": round(time.monotonic() - begun, 2),
    }


def _trained(model: Recaller, k: int, seed: int, on_update: Callable[[int], None]) -> list[float]:
    """Nats of an answer over each tenth of the training."""
    method = bptt.Truncated(k)
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


def verdict(rows: list[dict[str, Any]]) -> str:
    """What the picture says."""
    plain = rows[0]
    said = (
        f"The gradient of a plain {plain['name']} vanishes: 95 % of it comes from the last "
        f"{plain['reach'] + 1} steps, {plain['arrives']:.0e} from {LAG} steps back."
    )
    learned = [row["name"] for row in rows if row["learned"]]
    return said + (f" These see that far, and learn: {'; '.join(learned)}." if learned else "")
