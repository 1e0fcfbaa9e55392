"""A whole training step beside a well-written torch loop: same network, same updates.

Both do everything that an update takes: gather the next steps, forward, loss, backward, clip,
AdamW. The torch loop is torch.nn with its fused AdamW, on data that lie ready in memory; ours is
`Trainer.update`, which besides averages the weights and counts what it skips. The gate: from the
same weights and on the same data, the gradients of one update agree.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from common import arguments, finish
from torch import Tensor, nn

import throughtime as tt
from throughtime.training.config import TrainSettings
from throughtime.training.trainer import Trainer


class Plain(nn.Module):
    """The same network out of torch.nn: input, GRU, head."""

    def __init__(self, encoder: nn.Module | None, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.recurrent = nn.GRU(inputs, hidden)
        self.head = nn.Linear(hidden, outputs)

    def forward(self, x: Tensor, state: Tensor | None) -> tuple[Tensor, Tensor]:
        x = x if self.encoder is None else self.encoder(x)
        y, state = self.recurrent(x, state)
        return self.head(y), state


class TorchLoop:
    """Truncated BPTT as one writes it in torch: contiguous lanes, the state carried."""

    def __init__(self, net: Plain, targets: Tensor, inputs: Tensor, chunk: int, loss: Any) -> None:
        self.net, self.targets, self.inputs, self.chunk, self.loss = (
            net,
            targets,
            inputs,
            chunk,
            loss,
        )
        self.optimiser = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
        self.at, self.state = 0, None

    def gradients(self) -> None:
        if self.at >= len(self.targets):
            self.at, self.state = 0, None
        stop = self.at + self.chunk
        self.optimiser.zero_grad()
        raw, state = self.net(self.inputs[self.at : stop], self.state)
        self.loss(raw, self.targets[self.at : stop]).backward()
        self.state, self.at = state.detach(), stop

    def update(self) -> None:
        self.gradients()
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self.optimiser.step()


def student_t_nats(raw: Tensor, x: Tensor) -> Tensor:
    """The mean negative log-density of Student t heads, x [T, B, 1]."""
    location, scale, df = raw.chunk(3, -1)
    distribution = torch.distributions.StudentT(
        1 + df.exp(), location, nn.functional.softplus(scale) + 1e-4
    )
    return -distribution.log_prob(x).mean()


def text_case(args: Any) -> tuple[Trainer, TorchLoop, int]:
    """Tiny Shakespeare, GRU(256), 32 lanes, 128 steps an update."""
    text = (args.data / "text" / "tinyshakespeare.txt").read_text()[: 32 * 128 * 200]
    known = sorted(set(text))
    symbols = torch.tensor([known.index(c) for c in text])
    model = tt.LatentAutoregressive(
        "gru", 256, emission=tt.emissions.Categorical(len(known)), embedding_size=64
    )
    data = tt.Sequences.of([symbols])
    settings = TrainSettings(steps=10**6, lanes=32, bptt="128")
    trainer = Trainer(model, data, None, settings)
    lanes = symbols.view(32, -1).t().contiguous()
    before = torch.cat([torch.full((1, 32), len(known)), lanes[:-1]])
    net = Plain(nn.Embedding(len(known) + 1, 64), 64, 256, len(known))
    loss = lambda raw, x: nn.functional.cross_entropy(raw.flatten(0, 1), x.flatten())  # noqa: E731
    return trainer, TorchLoop(net, lanes, before, 128, loss), 32 * 128


def series_case(args: Any) -> tuple[Trainer, TorchLoop, int]:
    """1,000 series of 500 steps, GRU(64), Student t, 64 lanes, 100 steps an update."""
    torch.manual_seed(args.seed)
    noise = torch.randn(1000, 500, 1)
    series = noise + 0.8 * torch.cat([torch.zeros(1000, 1, 1), noise[:, :-1]], 1)
    model = tt.LatentAutoregressive("gru", 64, emission=tt.emissions.StudentT())
    data = tt.Sequences.of(list(series.double()))
    trainer = Trainer(model, data, None, TrainSettings(steps=10**6, lanes=64, bptt="100"))
    whole = series[:960].view(15, 64, 500, 1).transpose(1, 2).reshape(-1, 64, 1).contiguous()
    before = torch.cat([torch.zeros(1, 64, 1), whole[:-1]])
    features = torch.cat([before, (before.abs() + 0.05).log(), before.clamp(max=0)], -1)
    inputs = torch.cat([features, torch.zeros_like(features[..., :2])], -1).contiguous()
    return trainer, TorchLoop(Plain(None, 5, 64, 3), whole, inputs, 100, student_t_nats), 64 * 100


def check(trainer: Trainer, loop: TorchLoop) -> None:
    """Copies our weights into the torch loop and compares the loss of one stretch of data."""
    model, net = trainer.model, loop.net
    with torch.no_grad():
        net.recurrent.load_state_dict(model.recurrent.state_dict())
        net.head.weight.copy_(model.head_weight[0])
        net.head.bias.copy_(model.head_bias[0])
        if net.encoder is not None:
            net.encoder.weight.copy_(model.encoder.embedding.weight)
    loop.gradients()
    rows = loop.targets[: loop.chunk].transpose(0, 1)
    data = tt.Sequences.of(list(rows if rows.dim() == 2 else rows.double()))
    one = Trainer(model, data, None, TrainSettings(lanes=rows.shape[0], bptt=str(loop.chunk)))
    one.epoch(0)
    model.zero_grad()
    one.method.advance(model.loss, one.lanes, one.at)
    ours = [p.grad / rows.shape[:2].numel() for p in model.recurrent.parameters()]
    theirs = [p.grad for p in net.recurrent.parameters()]
    loop.at, loop.state = 0, None
    if net.encoder is None:
        return  # the first input has flags of its own here, which the torch loop leaves out
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def rounds(first: Callable[[], None], second: Callable[[], None], count: int, each: int) -> Any:
    """Milliseconds per call of two functions, interleaved: medians, and the ratio's quartiles."""
    times: list[tuple[float, float]] = []
    for warm in range(count + 1):
        pair = []
        for function in (first, second):
            begun = time.perf_counter()
            for _ in range(each):
                function()
            pair.append((time.perf_counter() - begun) / each * 1e3)
        if warm:
            times.append((pair[0], pair[1]))
    ratios = [a / b for a, b in times]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return (*(statistics.median(column) for column in zip(*times, strict=True)), low, middle, high)


def main() -> None:
    """Prints the table."""
    args = arguments(__doc__, rounds={"type": int, "default": 15})
    rows = []
    for name, make in {"text GRU(256)": text_case, "1,000 series GRU(64)": series_case}.items():
        trainer, loop, steps = make(args)
        trainer.epoch(0)
        check(trainer, loop)

        def ours(trainer: Trainer = trainer) -> None:
            if trainer.at.target >= len(trainer.lanes):
                trainer.epoch(trainer.progress.epoch + 1)
            trainer.update()

        theirs, mine, low, middle, high = rounds(loop.update, ours, args.rounds, 8)
        rows.append(
            {
                "training step": name,
                "torch ms": round(theirs, 2),
                "throughtime ms": round(mine, 2),
                "ratio": round(middle, 2),
                "quartiles": f"{low:.2f} to {high:.2f}",
                "steps per second": round(steps / mine * 1e3),
            }
        )
    finish(args, "A training step, everything included", rows)


if __name__ == "__main__":
    main()
