"""Planted faults: is each named rightly? Real networks and data, through `gradflow.examine`.

Every plant is a network on a task of recall or prediction, made anew from each seed. The
thresholds are those of the verdict's module, set from what they mean and not from these runs.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from common import arguments, finish
from torch import Tensor, nn

import throughtime as tt
from throughtime import state as states
from throughtime.gradflow.examination import examine

STEPS, ROWS, HIDDEN, MAX_LAG = 640, 8, 20, 40


class Pairs:
    """Inputs and targets ``[T, B, 1]``."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, steps: slice) -> tuple[Tensor, Tensor]:
        return self.x[steps], self.y[steps]


class Network(nn.Module):
    """A recurrent layer and a line to the target."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.rnn, self.out = layer, nn.Linear(layer.hidden_size, 1)

    def loss(self, batch: tuple[Tensor, Tensor], state: Any) -> tuple[Tensor, Any]:
        y, state = self.rnn(batch[0], state)
        return (self.out(y) - batch[1]).square().sum(), state

    def start(self, rows: int) -> Any:
        h = torch.zeros(1, rows, self.rnn.hidden_size)
        return (h, h.clone()) if self.rnn.mode == "LSTM" else h


def recall(lag: int, rows: int = ROWS, steps: int = STEPS) -> Pairs:
    """Noise, to be said again `lag` steps later."""
    x = torch.randn(steps, rows, 1)
    return Pairs(x, torch.cat([torch.zeros(lag, rows, 1), x[: steps - lag]]))


def chance(rows: int = ROWS, steps: int = STEPS) -> Pairs:
    """Targets that nothing tells."""
    return Pairs(torch.randn(steps, rows, 1), torch.randn(steps, rows, 1))


def train(
    network: Network, data: Callable[[], Pairs], updates: int, method: Any, rate: float = 3e-3
) -> Network:
    """Adam, fresh data for each pass, the rate going down to zero."""
    optimiser = torch.optim.Adam(network.parameters(), rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda i: max(0.0, 1 - i / updates))
    done = 0
    while done < updates:
        batch = data()

        def update(_: Tensor) -> None:
            nonlocal done
            nn.utils.clip_grad_norm_(network.parameters(), 10.0)
            optimiser.step()
            optimiser.zero_grad()
            schedule.step()
            done += 1

        method.backward(network.loss, batch, network.start(batch.x.shape[1]), update)
    return network


def with_weights(layer: nn.RNNBase, weight: Tensor) -> Network:
    with torch.no_grad():
        layer.weight_hh_l0.copy_(weight)
    return Network(layer)


def orthogonal(gain: float) -> Tensor:
    return gain * nn.init.orthogonal_(torch.empty(HIDDEN, HIDDEN))


def remembering(lag: int) -> Network:
    """A GRU with chrono initialisation (Tallec & Ollivier 2018) for `lag` steps."""
    layer = tt.GRU(1, HIDDEN)
    with torch.no_grad():
        layer.bias_hh_l0[HIDDEN : 2 * HIDDEN] = (1 + (lag - 1) * torch.rand(HIDDEN)).log()
        layer.bias_ih_l0[HIDDEN : 2 * HIDDEN] = 0
    return Network(layer)


Plant = tuple[Network, Pairs, int | None]


def vanishing(odd: bool) -> Plant:
    """Small recurrent weights, and a task of 25 steps; trained for what it is able to."""
    weight = 0.4 * torch.randn(HIDDEN, HIDDEN) / math.sqrt(HIDDEN) if odd else orthogonal(0.4)
    network = with_weights(tt.RNN(1, HIDDEN), weight)
    return train(network, lambda: recall(25, 16, 100), 100, tt.bptt.Full()), recall(25), None


def exploding(odd: bool) -> Plant:
    """Weights that stretch, and units that do not bound the state: linear ones, or ReLUs that start
    from the identity (Le et al. 2015)."""
    gain = 1.07 + 0.03 * float(torch.rand(()))
    if odd:
        return (
            with_weights(tt.RNN(1, HIDDEN, nonlinearity="relu"), gain * torch.eye(HIDDEN)),
            recall(10),
            None,
        )
    layer = tt.RNN(1, HIDDEN, nonlinearity="identity")
    return with_weights(layer, orthogonal(gain)), recall(10), None


def saturated(odd: bool) -> Plant:
    """Inputs that nobody standardised, such as prices."""
    batch = recall(10)
    batch = Pairs(300 + 50 * batch.x, batch.y)
    return Network((tt.GRU if odd else tt.RNN)(1, HIDDEN)), batch, None


def chaotic(odd: bool) -> Plant:
    """Gains of 3 to 5 in a network that hardly hears its input (Sompolinsky et al. 1988)."""
    gain = 3 + 2 * float(torch.rand(()))
    layer = tt.RNN(1, 3 * HIDDEN)
    weight = gain * torch.randn(3 * HIDDEN, 3 * HIDDEN) / math.sqrt(3 * HIDDEN)
    batch = recall(10)
    return with_weights(layer, weight), Pairs(0.01 * batch.x, batch.y), None


def truncated(odd: bool) -> Plant:
    """A task of 15 steps, trained with a gradient of 8, in a network that would carry it."""
    network = remembering(30) if odd else with_weights(tt.RNN(1, HIDDEN), orthogonal(1.0))
    method = tt.bptt.Truncated(8)
    return train(network, lambda: recall(15, 16, 160), 200, method), recall(15), 8


def nothing(odd: bool) -> Plant:
    """Targets that are independent of all there is, trained down to the floor."""
    network = remembering(10) if odd else Network(tt.RNN(1, HIDDEN))
    return train(network, lambda: chance(64, 100), 300, tt.bptt.Full()), chance(), None


def healthy(odd: bool) -> Plant:
    """A GRU or RNN that can carry a task of 12 steps, on its way there."""
    network = remembering(30) if odd else with_weights(tt.RNN(1, HIDDEN), orthogonal(0.95))
    return train(network, lambda: recall(12, 16, 100), 100, tt.bptt.Full()), recall(12), None


PLANTS: dict[str, Callable[[bool], Plant]] = {
    "vanishing": vanishing,
    "exploding": exploding,
    "saturated": saturated,
    "chaotic": chaotic,
    "truncated too short": truncated,
    "nothing to learn": nothing,
    "healthy": healthy,
}


def named(plant: str, seed: int) -> str:
    """The verdict on one plant."""
    torch.manual_seed(seed)
    network, batch, k2 = PLANTS[plant](bool(seed % 2))
    network.double().eval()  # what grows may leave float32
    examination = examine(
        network.loss,
        Pairs(batch.x.double(), batch.y.double()),
        states.apply(Tensor.double, network.start(ROWS)),
        dict(network.named_parameters()),
        MAX_LAG,
        k2=k2,
    )
    return examination.verdict.name


def main() -> None:
    args = arguments(
        __doc__ or "",
        reads=False,
        seeds={"type": int, "default": 20},
        plant={"choices": list(PLANTS), "default": None},
    )
    rows = []
    for plant in [args.plant] if args.plant else PLANTS:
        begun = time.monotonic()
        names = Counter(named(plant, args.seed + i) for i in range(args.seeds))
        others = ", ".join(f"{n} {c}" for n, c in names.items() if n != plant)
        rows.append(
            {
                "planted": plant,
                "named rightly": f"{names[plant]} of {args.seeds}",
                "otherwise": others,
                "seconds each": (time.monotonic() - begun) / args.seeds,
            }
        )
        print(rows[-1], flush=True)
    finish(args, "Planted faults", rows)


if __name__ == "__main__":
    main()
