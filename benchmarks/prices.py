"""Daily index returns: one-step nats per day on the last fifth, beside the `arch` models."""

from __future__ import annotations

import numpy as np
import polars as pl
from common import Timed, arguments, finish, rows_of

BASELINES = {  # measured with `arch`, parameters fitted on the first 80 % and then fixed
    "S&P 500": {"constant Student-t": 1.235, "ARCH(5)-t": 1.103, "ARCH(20)-t": 1.091,
                "GARCH(1,1)-t": 1.074, "GJR skew-t": 1.059, "plain torch GRU(8)": 1.048},
    "NASDAQ": {"constant Student-t": 1.475, "ARCH(5)-t": 1.329, "ARCH(20)-t": 1.321,
               "GARCH(1,1)-t": 1.309, "GJR skew-t": 1.290, "plain torch GRU(8)": 1.271},
}  # fmt: skip
GOAL = {"S&P 500": 1.045, "NASDAQ": 1.262}
FILES = {"S&P 500": "arch_sp500.csv.gz", "NASDAQ": "arch_nasdaq.csv.gz"}


def main() -> None:
    args = arguments(__doc__ or "", column={"choices": ["returns", "price"], "default": "returns"})
    rows = []
    for index, file in FILES.items():
        price = pl.read_csv(args.data / "prices" / file)["Adj Close"].to_numpy()
        returns = 100 * np.diff(np.log(price))
        data = returns if args.column == "returns" else price[1:]
        run, seconds = Timed(args, index.split()[0].lower()).fit(data, valid=0.1, test=0.2)
        by_name = rows_of(run)
        # A price's density is its return's times 100 / price: back to nats per day of returns.
        test_days = run.scores.data.steps["test"]
        offset = 0.0 if args.column == "returns" else -np.log(price[-test_days:] / 100).mean()
        for name, row in by_name.items():
            rows.append(
                {
                    "index": index,
                    "model": name + (" (chosen)" if row.selected else ""),
                    "nats per day": row.nats_per_step + offset,
                    "against": run.scores.reference,
                    "difference": row.difference and row.difference.value,
                    "95 % interval": row.difference
                    and " … ".join(f"{x:+.4f}" for x in row.difference.interval),
                    "chosen is ahead by": row.to_best and row.to_best.value,
                    "its interval": row.to_best
                    and " … ".join(f"{x:+.4f}" for x in row.to_best.interval),
                    "seconds": row.seconds,
                    "peak MB": row.peak_memory_mb,
                }
            )
        for name, nats in {**BASELINES[index], "goal": GOAL[index]}.items():
            rows.append({"index": index, "model": f"published: {name}", "nats per day": nats})
        rows.append({"index": index, "model": "whole fit", "seconds": seconds})
    finish(args, f"Daily index {args.column}, last 20 % ({test_days} days)", rows)


if __name__ == "__main__":
    main()
