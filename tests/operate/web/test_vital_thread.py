"""A process whose thread has failed."""

import subprocess
import sys

from pagetide.operate.web.vital_thread import STATUS

SCRIPT = """
import sys
from pagetide.operate.web.vital_thread import start_vital
thread = start_vital(lambda: {does})
thread.join() if {waits} else sys.stdin.read()
"""


def test_a_process_ends_with_its_thread() -> None:
    """Though it waits for something else, and with what was met; a thread that has done its work ends nothing."""
    for does, waits, status in (("1 / 0", False, STATUS), ("None", True, 0)):
        words = [sys.executable, "-c", SCRIPT.format(does=does, waits=waits)]
        with subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stderr is not None
            told = process.stderr.read()  # stdin is open: it ends by itself
            assert process.wait() == status
        assert ("ZeroDivisionError" in told) == bool(status)
