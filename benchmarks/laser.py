"""Santa Fe laser: one-step nats on the last fifth; does a latent state beat every AR(τ)?"""

from __future__ import annotations

import numpy as np
import torch
from common import Timed, arguments, finish, rows_of

import throughtime as tt


def main() -> None:
    args = arguments(__doc__ or "", emission={"default": "discretised_logistic"})
    values = np.load(args.data / "series" / "santafe_laser.npy").reshape(-1, 1).astype(float)
    data = tt.Sequences.of([torch.from_numpy(values)])
    rows = []
    for order in ("auto", 5, 10, 20, 50, 100):
        model = "auto" if order == "auto" else "ar"
        run, seconds = Timed(args, f"laser-{order}").fit(
            data, model=model, order=order, emission=args.emission, valid=0.08, test=0.2
        )
        for name, row in rows_of(run).items():
            if model == "auto" or row.family == "autoregressive":
                rows.append(
                    {
                        "model": name + (" (chosen)" if row.selected and model == "auto" else ""),
                        "nats per step": row.nats_per_step,
                        "validation": row.validation_nats_per_step,
                        "seconds": row.seconds,
                        "peak MB": row.peak_memory_mb,
                    }
                )
        if model == "auto":
            against = run.scores.comparisons.latent
            rows.append({"model": f"whole fit ({order})", "seconds": seconds})
    finish(args, "Santa Fe laser, last 20 %", rows)
    print(against)
    print("Negative: the latent state is better; the interval must exclude zero to say so.")


if __name__ == "__main__":
    main()
