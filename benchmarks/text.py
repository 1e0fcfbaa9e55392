"""tinyshakespeare: nats per character on the last tenth, state carried through."""

from __future__ import annotations

from common import Timed, arguments, finish, rows_of

PUBLISHED = {
    "Witten-Bell n-gram, AR(4)": 1.669,
    "nanoGPT, two-minute CPU settings": 1.88,
    "plain torch LSTM(320), 10 min on one core": 1.464,
    "nanoGPT, 6 layers, A100": 1.4697,
}


def main() -> None:
    args = arguments(
        __doc__ or "",
        model={"default": "lstm", "help": "lstm, gru, rnn, ar or auto"},
        time_limit={"default": "10m"},
        hidden={"type": int, "default": None},
    )
    path = args.data / "text" / "tinyshakespeare.txt"
    run, seconds = Timed(args, f"text-{args.model}").fit(
        path, model=args.model, time_limit=args.time_limit, hidden=args.hidden,
        valid=0.05, test=0.1,
    )  # fmt: skip
    rows = [
        {
            "model": name + (" (chosen)" if row.selected else ""),
            "nats per character": row.nats_per_step,
            "bits per character": row.bits_per_character,
            "seconds": row.seconds,
            "peak MB": row.peak_memory_mb,
        }
        for name, row in rows_of(run).items()
    ]
    rows += [{"model": f"published: {k}", "nats per character": v} for k, v in PUBLISHED.items()]
    rows.append({"model": f"whole fit, limit {args.time_limit}", "seconds": seconds})
    finish(args, "tinyshakespeare, last 10 %", rows)


if __name__ == "__main__":
    main()
