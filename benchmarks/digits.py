"""Spoken digits, 8 kHz, 8-bit mu-law: bits per sample on the official test recordings (index 0-4).

The official split shares its speakers; with --unseen one speaker is left out of training and the
test recordings are his alone.
"""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path

from common import Timed, arguments, finish, rows_of

import throughtime as tt


def recordings(archive: Path) -> tt.Sequences:
    """All recordings, named digit_speaker_index."""
    with tempfile.TemporaryDirectory() as folder, tarfile.open(archive) as file:
        file.extractall(folder, filter="data")
        return tt.read(folder)


def parts(data: tt.Sequences, unseen: str | None) -> tuple[tt.Sequences, ...]:
    """Train, validation (indices 5-7) and the official test recordings."""
    names = [Path(name).stem.split("_") for name in data.names]
    speaker, index = [n[1] for n in names], [int(n[2]) for n in names]
    rows = range(len(data))
    known = [i for i in rows if speaker[i] != unseen]
    test = [i for i in rows if index[i] <= 4 and unseen in (None, speaker[i])]
    valid = [i for i in known if 5 <= index[i] <= 7]
    train = [i for i in known if index[i] > 7]
    return data[train], data[valid], data[test]


def main() -> None:
    args = arguments(
        __doc__ or "",
        unseen={"help": "speaker left out, such as theo"},
        model={"default": "auto"},
        time_limit={"default": "12m"},
    )
    data = recordings(args.data / "sound" / "fsdd_recordings.tar.gz")
    run, seconds = Timed(args, f"digits-{args.unseen or 'all'}").fit(
        parts(data, args.unseen), model=args.model, time_limit=args.time_limit
    )
    rows = [
        {
            "model": name + (" (chosen)" if row.selected else ""),
            "bits per sample": row.bits_per_step,
            "against": run.scores.reference,
            "difference, nats": row.difference and row.difference.value,
            "seconds": row.seconds,
            "peak MB": row.peak_memory_mb,
        }
        for name, row in rows_of(run).items()
    ]
    rows.append({"model": f"whole fit, limit {args.time_limit}", "seconds": seconds})
    who = "official split" if args.unseen is None else f"{args.unseen} unseen"
    finish(args, f"Spoken digits, {who}", rows)
    print(run.verdict)


if __name__ == "__main__":
    main()
