"""JSB chorales: test nats per frame of 88 notes, in the data's own split."""

from __future__ import annotations

import numpy as np
import torch
from common import Timed, arguments, finish, rows_of
from scipy.io import loadmat

from throughtime import Sequences
from throughtime.data.domain import Domain

PUBLISHED = {"RNN": 8.91, "LSTM": 8.45, "LSTM tuned": 8.33, "GRU": 8.43, "GRU tuned": 8.20,
             "TCN": 8.10, "RRU": 7.72, "plain torch LSTM, 150 s": 8.18}  # fmt: skip


def rolls(table: dict, key: str) -> Sequences:
    """The pieces of one part as binary sequences ``[T, 88]``."""
    pieces = [torch.from_numpy(np.asarray(p, dtype=np.float64)) for p in table[key][0]]
    notes = tuple(f"note {n}" for n in range(21, 109))
    return Sequences.of(pieces, Domain("binary", columns=notes, step="frame"))


def main() -> None:
    args = arguments(__doc__ or "", model={"default": "lstm"}, time_limit={"default": "5m"})
    table = loadmat(args.data / "music" / "JSB_Chorales.mat")
    parts = tuple(rolls(table, key) for key in ("traindata", "validdata", "testdata"))
    run, seconds = Timed(args, "chorales").fit(parts, model=args.model, time_limit=args.time_limit)
    rows = [
        {
            "model": name + (" (chosen)" if row.selected else ""),
            "nats per frame": row.nats_per_step,
            "seconds": row.seconds,
            "peak MB": row.peak_memory_mb,
        }
        for name, row in rows_of(run).items()
    ]
    rows += [{"model": f"published: {k}", "nats per frame": v} for k, v in PUBLISHED.items()]
    rows.append({"model": f"whole fit, limit {args.time_limit}", "seconds": seconds})
    finish(args, "JSB chorales, test pieces", rows)


if __name__ == "__main__":
    main()
