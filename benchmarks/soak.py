"""Damaged files for as long as it is told: each is refused in a line, or read as what it is.

    python benchmarks/soak.py [SECONDS] [--seed N] [--only NAME ...] [--case NAME:SEED:NUMBER]

Exit 1 at the first error that is not the product's own, the first process that dies or does not
come back, and the first damaged file used in silence that is vouched for. What repeats it is
printed, and the damaged folder is kept.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

from mutations import Target, damaged

_LONGEST, _MORE_MEMORY = 120, 4 * 2**30  # seconds and bytes that one file may take


class Fault(Exception):
    """Something that must not happen."""


def targets() -> dict[str, Target]:
    """Everything that reads files, by name."""
    import soak_loaders
    import soak_readers

    return {one.name: one for one in (*soak_loaders.TARGETS, *soak_readers.TARGETS)}


class Bench:
    """A target with its whole files and what they give."""

    def __init__(self, target: Target, place: Path) -> None:
        self.target, self.whole, self.folder = target, place / "whole", place / "damaged"
        self.whole.mkdir(parents=True)
        files = [path.relative_to(self.whole) for path in target.make(self.whole)]
        self.files = sorted(files)
        self.contents = {file: (self.whole / file).read_bytes() for file in files}
        self.number, self.spent, self._truth = 0, 0.0, dict[Path, Any]()

    def truth(self, file: Path) -> Any:
        """What is read where nothing is damaged; of vouched folders it is always the same."""
        file = self.files[0] if self.target.vouched else file
        if file not in self._truth:
            self._truth[file] = self._read(file)
        return self._truth[file]

    def _read(self, file: Path, content: bytes | None = None) -> Any:
        shutil.rmtree(self.folder, ignore_errors=True)
        shutil.copytree(self.whole, self.folder)
        if content is not None:
            (self.folder / file).write_bytes(content)
        return self.target.read(self.folder, self.folder / file)

    def case(self, name: str) -> str:
        """What became of the case of this name: refused, same or read; raises Fault."""
        from throughtime.errors import ThroughtimeError

        chance = random.Random(name)
        file = chance.choice(self.files)
        content, kind = damaged(self.contents[file], chance)
        try:
            found = self._read(file, content)
        except ThroughtimeError as error:
            if "\n" in str(error) or not str(error):
                raise Fault(f"{file}, {kind}: not a line: {error!s:.300}") from error
            if self.target.vouched and file.name not in str(error):
                raise Fault(f"{file}, {kind}: not named: {error!s:.300}") from error
            return "refused"
        except Exception as error:
            last = "".join(traceback.format_exception(error)[-3:])
            raise Fault(f"{file}, {kind}: {type(error).__name__}\n{last:.3000}") from error
        if found == self.truth(file):
            return "same"
        if self.target.vouched:
            raise Fault(f"{file}, {kind}: used in silence")
        return "read"


def work(wanted: list[str], seconds: float, seed: int, case: str, place: Path, at: Any) -> None:
    """One process that damages files; `at` tells what it is doing: target, number, since when."""
    every = targets()
    benches = [Bench(every[name], place / name) for name in wanted]
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _MORE_MEMORY, resource.RLIM_INFINITY))
    counts, begun, now = Counter[tuple[str, str]](), time.monotonic(), time.monotonic()
    while now - begun < seconds:
        bench = min(benches, key=lambda one: one.spent)  # the same time for each
        name = case or f"{bench.target.name}:{seed}:{bench.number}"
        at[0], at[1], at[2] = benches.index(bench), bench.number, now
        try:
            counts[bench.target.name, bench.case(name)] += 1
        except Fault as fault:
            print(f"FAULT in {name} {fault}\nrepeat it: python benchmarks/soak.py --case {name}"
                  f"\nthe damaged folder: {bench.folder}", flush=True)  # fmt: skip
            sys.exit(1)
        bench.number += 1
        bench.spent += time.monotonic() - now
        now = time.monotonic()
        if case:
            break
    at[2] = 0.0
    outcomes = ("refused", "same", "read")
    print(f"{'':22}" + "".join(f"{outcome:>10}" for outcome in outcomes))
    for name in wanted:
        print(f"{name:22}" + "".join(f"{counts[name, one]:>10,}" for one in outcomes))
    print(f"{counts.total():,} damaged files in {time.monotonic() - begun:.0f} s, no fault")
    shutil.rmtree(place)


def main() -> int:
    """Runs the worker and watches it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("seconds", nargs="?", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=[], help="names of targets")
    parser.add_argument("--case", default="", help="NAME:SEED:NUMBER, as a fault prints it")
    args = parser.parse_args()
    every = targets()
    wanted = [args.case.split(":")[0]] if args.case else args.only or list(every)
    if unknown := sorted(set(wanted) - set(every)):
        parser.error(f"no target {unknown[0]}; there are: {', '.join(every)}")
    place = Path(tempfile.mkdtemp(prefix="soak-"))
    context = multiprocessing.get_context("spawn")
    at = context.Array("d", 3)
    given = (wanted, args.seconds, args.seed, args.case, place, at)
    worker = context.Process(target=work, args=given)
    worker.start()
    while worker.is_alive():
        worker.join(1)
        if at[2] and time.monotonic() - at[2] > _LONGEST:
            worker.kill()
    if worker.exitcode not in (0, 1):
        name = args.case or f"{wanted[int(at[0])]}:{args.seed}:{int(at[1])}"
        why = "did not come back" if worker.exitcode == -9 else f"died ({worker.exitcode})"
        print(f"FAULT in {name}: it {why}\nrepeat it: python benchmarks/soak.py --case {name}"
              f"\nthe damaged folder: {place}")  # fmt: skip
    return 1 if worker.exitcode else 0


if __name__ == "__main__":
    sys.exit(main())
