"""Commands of pagetide as child processes that end when the time is over, or when the soak ends."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

from soak.part import CutShortError

PAGETIDE = (sys.executable, "-m", "pagetide.cli")


def run(command: Sequence[str], until_s: float) -> subprocess.CompletedProcess[str]:
    """Run a command to its end.

    Raises:
        CutShortError: it was still running at `until_s`.
    """
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        out, err = process.communicate(timeout=max(until_s - time.monotonic(), 0.0))
    except subprocess.TimeoutExpired:
        raise CutShortError from None
    finally:
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    return subprocess.CompletedProcess(command, process.returncode, out, err)
