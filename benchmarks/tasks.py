"""The classic tests of long memory, with settings that throughtime finds for itself.

The adding problem (Hochreiter & Schmidhuber 1997): two of T numbers are marked, their sum is asked
for at the end. Copy memory: ten symbols come first and are asked for again T steps later. Published
figures are those of Bai, Kolter & Koltun (2018), "An empirical evaluation of generic convolutional
and recurrent networks for sequence modeling", table 1, and of their networks' sizes.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import torch
from common import Timed, arguments, finish

import throughtime as tt
from throughtime.data.synthetic import adding, copying

Row = dict[str, Any]
Parts = tuple[tt.Sequences, tt.Sequences, tt.Sequences]  # train, valid, test
Measure = Callable[[tt.Run, tt.Sequences], float]
PUBLISHED = {
    "adding": {"LSTM, 70K": 0.164, "GRU, 70K": 5.3e-5, "RNN, 70K": 0.177},
    "copying": {"LSTM, 16K": 0.0204, "GRU, 16K": 0.0197, "RNN, 16K": 0.0202},
}
SYMBOLS = 8  # differ; one more is a blank, and one asks for the copy
KEPT = 10  # of them are to be remembered


@torch.no_grad()
def squared_error(run: tt.Run, test: tt.Sequences) -> float:
    """Of the predicted sums, in their own units."""
    scales = [one.std[0][0] for one in run.best.transforms if one.kind == "standardise"]
    errors = []
    for batch, distribution in run.best.model.distributions(run.best.transformed(test)):
        asked = batch.weight > 0
        errors.append((distribution.mean - batch.x)[asked].square())
    return float(torch.cat(errors).mean() * math.prod(scales) ** 2)


def copied(run: tt.Run, test: tt.Sequences, kept: int = KEPT) -> float:
    """Nats per step of what can be known, as published: all but the symbols to remember."""
    nats = -float(run.best.model.log_prob(run.best.transformed(test)).mean())
    return (nats - kept * math.log(SYMBOLS)) / int(test.lengths[0])


def solved(args: argparse.Namespace, task: str, parts: Parts, measure: Measure) -> list[Row]:
    """The lines of a task: each network asked for, and the published ones."""
    rows: list[Row] = []
    for model in args.model:
        run, seconds = Timed(args, f"{task}-{model}").fit(
            parts, model=model, time_limit=args.time_limit
        )
        size = run.best.model.num_parameters()
        name = f"throughtime {run.best.name}, {size:,}"
        loss = f"{measure(run, parts[2]):.3g}"
        rows.append({"network, parameters": name, "loss": loss, "seconds": round(seconds)})
    published = PUBLISHED[task].items()
    return rows + [
        {"network, parameters": f"published {k}", "loss": f"{v:.3g}"} for k, v in published
    ]


def main() -> None:
    args = arguments(
        __doc__ or "",
        reads=False,
        task={"choices": ["adding", "copying", "both"], "default": "both"},
        model={"choices": ["gru", "lstm", "rnn"], "default": ["gru"], "nargs": "+"},
        time_limit={"default": None},
    )
    if args.task != "copying":
        parts = adding(10_000, 600, 1), adding(300, 600, 2), adding(1000, 600, 3)
        finish(args, "Adding, T = 600: squared error", solved(args, "adding", parts, squared_error))
    if args.task != "adding":
        parts = copying(4000, 1000, 1), copying(100, 1000, 2), copying(1000, 1000, 3)
        finish(args, "Copying, T = 1000: nats per step", solved(args, "copying", parts, copied))


if __name__ == "__main__":
    main()
