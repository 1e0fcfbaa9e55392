"""All commands, and what becomes of their failures."""

from __future__ import annotations

import sys
from io import TextIOWrapper

from cyclopts import CycloptsError, UnusedCliTokensError

from throughtime.cli import fit as fitting
from throughtime.cli import inspect as look
from throughtime.cli import predict as use
from throughtime.cli import read as reading
from throughtime.cli.base import app
from throughtime.cli.messages import explained
from throughtime.errors import SettingError, ThroughtimeError
from throughtime.types import STDIN

__all__ = ["app", "fitting", "look", "reading", "run", "use"]


def run(tokens: list[str], interrupted: str) -> None:
    """Runs a command; every failure is one line and an exit code.

    Args:
        tokens: the command and its arguments.
        interrupted: the line for KeyboardInterrupt.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # what the terminal has no sign for becomes "?"
            stream.reconfigure(errors="replace")
    debug = "--debug" in tokens
    tokens = [token for token in tokens if token != "--debug"]
    options = next((i for i, t in enumerate(tokens) if t[:1] == "-" and t != "-"), len(tokens))
    # Among the arguments before the options, - is the standard input; it looks like an option.
    tokens = [STDIN if t == "-" and i < options else t for i, t in enumerate(tokens)]
    try:
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except UnusedCliTokensError as error:
        words = " ".join(error.unused_tokens or ())
        _fail(f"error: nothing takes '{words}'; options begin with two dashes, --help has them", 2)
    except CycloptsError as error:
        _fail(f"error: {error}", 2)
    except KeyboardInterrupt:
        _fail(interrupted, 1)
    except BrokenPipeError:
        sys.stderr.close()
        raise SystemExit(1) from None
    except (ThroughtimeError, OSError, MemoryError, RuntimeError) as error:
        message = explained(error)
        if debug or message is None:
            raise
        _fail(f"error: {message}", 2 if isinstance(error, SettingError) else 1)


def _fail(line: str, code: int) -> None:
    sys.stderr.write(f"{' '.join(line.split())}\n")
    raise SystemExit(code)
