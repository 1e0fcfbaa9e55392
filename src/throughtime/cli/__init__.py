"""The command line: every command prints for people on stderr or, with --json, one object.

base      the app, the consoles, what all commands share
reading   how data are read
fitting   fit, history
use       score, forecast, sample
look      report, gradients, demo, doctor, bench
"""

from __future__ import annotations

import sys

from cyclopts import CycloptsError

from throughtime.cli import fit as fitting
from throughtime.cli import inspect as look
from throughtime.cli import predict as use
from throughtime.cli.base import app
from throughtime.cli.messages import explained
from throughtime.errors import SettingError, ThroughtimeError

__all__ = ["app", "fitting", "look", "main", "use"]


def main(arguments: list[str] | None = None) -> None:
    """Runs a command; every failure is one line and an exit code."""
    tokens = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]
    try:
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        again = "; the same command goes on where it stopped" if tokens[:1] == ["fit"] else ""
        _fail(f"interrupted{again}", 1)
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None
    except (ThroughtimeError, OSError, MemoryError, RuntimeError) as error:
        message = explained(error)
        if debug or message is None:
            raise
        _fail(message, 2 if isinstance(error, SettingError) else 1)


def _fail(message: str, code: int) -> None:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    raise SystemExit(code)
