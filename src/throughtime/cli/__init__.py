"""The command line: every command prints for people on stderr or, with --json, one object.

interruption  what Ctrl-C does
base          the app, the consoles, what all commands share
reading       how data are read
fit           fit, history
predict       score, forecast, update, sample
inspect       report, gradients, demo, doctor, bench

The commands are imported when one is run, so that nothing is interrupted by a traceback.
"""

from __future__ import annotations

import sys

from throughtime.cli.interruption import leave_on_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from throughtime.cli.base import app as app

__all__ = ["app", "main"]


def main(arguments: list[str] | None = None) -> None:
    """Runs a command; every failure is one line and an exit code.

    Args:
        arguments: of the command; None: those of the process, which Ctrl-C then ends at once.
    """
    tokens = sys.argv[1:] if arguments is None else arguments
    again = "; the same command goes on where it stopped" if tokens[:1] == ["fit"] else ""
    interrupted = f"error: interrupted{again}"
    if arguments is None:
        leave_on_signals(interrupted)
    from throughtime.cli.commands import run

    run(tokens, interrupted)


def __getattr__(name: str) -> Any:
    if name != "app":
        raise AttributeError(f"module 'throughtime.cli' has no attribute '{name}'")
    from throughtime.cli.commands import app

    return app
