"""What Ctrl-C and SIGTERM do to a command: one line, and the process is gone.

Whatever a run keeps is written so that a kill at any moment loses no more than the last seconds of
work, so there is nothing to unwind: neither imports nor loops of native code nor the end of the
process are waited for. A caller's own process, in which `main` is given its arguments, is left as
it is: there Python raises KeyboardInterrupt.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

_LIBRARY = Path(__file__).parent.parent / "kernels" / "_native.so"
_CLEARED = "\r\x1b[K\x1b[?25h"  # a terminal's line of progress is taken away, its cursor given back


def leave_on_signals(line: str) -> None:
    """From now on both signals write a line to stderr and end the process with exit code 1."""
    content = ((_CLEARED if sys.stderr.isatty() else "") + line + "\n").encode()

    def leave(number: int, frame: object) -> None:
        os.write(2, content)
        os._exit(1)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, leave)
    # Python waits for the native code that is running; a handler in C does not.
    if _LIBRARY.exists():
        import ctypes

        try:
            handle = ctypes.CDLL(str(_LIBRARY)).tt_leave_on_signals
        except (OSError, AttributeError):  # of another machine or version: the kernels tell
            return
        for number in (signal.SIGINT, signal.SIGTERM):  # else Python's end would undo it
            signal.signal(number, signal.SIG_DFL)
        handle(content, ctypes.c_int64(len(content)))
