"""Says that a command is at work, as long as it has said nothing itself: loading takes a while, and compiling more."""

import contextlib
import datetime as dt
import os
import sys
import threading
import time

from pagetide.terminal import standard_output

FIRST_S = 0.7
"""After so long without a word it is said what is being done."""

EVERY_S = 5.0
"""And after so long again that it still is."""

_SLOW = frozenset({"run", "boot", "compare", "report", "show", "serve", "calibrate", "conformance", "explore", "fleet"})


def be_patient(command: str) -> None:
    """Until something is written to standard output or error, tell now and then on standard error what is being done.

    Args:
        command: the command's name; one that loads and compiles nothing is not waited for.
    """
    if command in _SLOW and sys.stderr is not None:
        threading.Thread(target=_tell, args=(command, time.monotonic()), name="patience", daemon=True).start()


def _tell(command: str, start_s: float) -> None:
    text = "loading; a first run also compiles kernels, which takes up to a minute"
    time.sleep(FIRST_S)
    while not standard_output.has_written:
        with contextlib.suppress(OSError, ValueError):
            os.write(sys.stderr.fileno(), f"{_line(command, text)}\n".encode())  # its lock could be in hand at the end
        time.sleep(EVERY_S)
        text = f"still loading or compiling, {time.monotonic() - start_s + EVERY_S:.0f} s so far"


def _line(command: str, text: str) -> str:
    """As the command's other lines on standard error are."""
    if command != "serve":
        return text
    when = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
    return f'time={when} level=info event="{text}"'
