"""The history certificate on processes whose memory is known: does it find what is there?

Per family of `throughtime.data.synthetic`: in how many seeds the lags needed are within 20 % of the
truth, and the decisions on order and on a latent state are right; and what it took.
With --copy: a network on an echo beyond the default truncation, trained as usual and as advised.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from common import arguments, finish

import throughtime as tt
from throughtime.data.domain import Domain
from throughtime.data.synthetic import FAMILIES, Sample
from throughtime.training.config import TrainSettings
from throughtime.training.trainer import Trainer

ECHO = 120  # steps between a symbol and its echo


def tolerated(lags: int, truth: int | None) -> bool:
    return truth is None or abs(lags - truth) <= 0.2 * truth


def measured(sample: Sample, limit: float, seed: int) -> dict[str, Any]:
    """What the certificate says of one sample, beside the truth."""
    begun = time.process_time(), time.monotonic()
    cert = tt.history.certificate(sample.data, time_limit=limit, seed=seed)
    gain = cert.latent_gain
    return {
        "lags": tolerated(cert.lags.needed, sample.lags),
        "order": bool(cert.order_matters) == sample.order_matters,
        "latent": sample.latent in (None, cert.latent_gain.wins),
        "cpu": time.process_time() - begun[0],
        "wall": time.monotonic() - begun[1],
        "said": f"needed {cert.lags.needed} (true {sample.lags}), "
        f"p {cert.order_matters.p_value:.3f}, {gain.model} {gain.nats:+.4f} {gain.interval} "
        f"over {gain.against}",
    }


def row(family: str, seeds: range, limit: float) -> dict[str, Any]:
    """One family over all seeds."""
    certificates = []
    sample = None
    for seed in seeds:
        sample = FAMILIES[family](seed)
        one = measured(sample, limit, seed)
        certificates.append(one)
        wrong = [key for key in ("lags", "order", "latent") if not one[key]]
        print(
            f"  {family} {seed} ({sample.about}): {one['said']}, {one['wall']:.0f} s"
            + "".join(f"  WRONG {key}" for key in wrong),
            flush=True,
        )
    assert sample is not None

    def share(key: str) -> str:
        return f"{sum(one[key] for one in certificates)}/{len(certificates)}"

    return {
        "family": family,
        "lags within 20 %": share("lags") if sample.lags is not None else "",
        "order right": share("order"),
        "latent right": share("latent") if sample.latent is not None else "",
        "CPU seconds, median": float(np.median([one["cpu"] for one in certificates])),
    }


def echo(count: int, seed: int) -> tt.Sequences:
    """A symbol of four, noise of four others, a sign that asks for it, and the symbol again."""
    source = torch.Generator().manual_seed(seed)
    symbol = torch.randint(4, (count, 1), generator=source)
    noise = torch.randint(4, 8, (count, ECHO - 2), generator=source)
    rows = torch.cat([symbol, noise, torch.full((count, 1), 8), symbol], 1)
    return tt.Sequences.of(list(rows), Domain("symbols", num_symbols=9))


def echoed(
    name: str, bptt: str, time_scale: float | None, spans: tuple[tt.Sequences, ...], args: Any
) -> dict[str, Any]:
    """A GRU trained with these settings: nats of the echo, log 4 = 1.386 without memory."""
    begun = time.monotonic()
    torch.manual_seed(args.seed)
    train, valid, test = spans
    model = tt.LatentAutoregressive(
        "gru", 32, emission=tt.emissions.Categorical(9), time_scale=time_scale
    )
    model.begin(train)
    settings = TrainSettings(steps=args.steps, bptt=bptt, learning_rate=1e-2, weight_decay=0.0)
    Trainer(model, train, valid, settings).run()
    nats = -model.step_log_prob(test)[test.offsets[1:] - 1]
    return {
        "settings": name,
        "bptt": bptt,
        "time scale": time_scale,
        "nats of the echo": float(nats.mean()),
        "seconds": time.monotonic() - begun,
    }


def main() -> None:
    args = arguments(
        __doc__ or "", reads=False,
        seeds={"type": int, "default": 50, "help": "of each family"},
        first={"type": int, "default": 0, "help": "seed to begin with"},
        family={"action": "append", "choices": list(FAMILIES), "help": "only this (again: more)"},
        limit={"type": float, "default": 120.0, "help": "seconds for a certificate"},
        copy={"action": "store_true", "help": "the echo beyond the truncation instead"},
        steps={"type": int, "default": 2000, "help": "updates of the networks of --copy"},
    )  # fmt: skip
    torch.set_num_threads(1)
    if args.copy:
        spans = tuple(echo(count, args.seed + i) for i, count in enumerate((640, 80, 80)))
        cert = tt.history.certificate(spans, time_limit=args.limit, seed=args.seed)
        print(cert.verdict)
        advice = cert.recommendation
        rows = [
            echoed("default", str(advice.default_k2), None, spans, args),
            echoed("recommended", advice.bptt, advice.time_scale, spans, args),
        ]
        finish(args, f"an echo after {ECHO} steps", rows)
        return
    seeds = range(args.first, args.first + args.seeds)
    rows = [row(family, seeds, args.limit) for family in args.family or FAMILIES]
    finish(args, f"history certificate, {args.seeds} seeds", rows)


if __name__ == "__main__":
    main()
