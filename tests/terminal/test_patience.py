"""What tells that a command is at work keeps it from nothing."""

import subprocess
import sys

import pytest

SCRIPT = """
import sys, time
from pagetide.terminal import patience, standard_output
patience.FIRST_S = patience.EVERY_S = 0.0
standard_output.name_failures()
patience.be_patient("run")
time.sleep(0.05)
sys.stdout.write("said")  # which goes out at the end
"""


@pytest.mark.jit
def test_a_program_ends_whatever_the_thread_that_tells_is_at() -> None:
    """It writes without a pause, and is stopped anywhere; what it has in hand then nobody waits for."""
    for _ in range(10):
        done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=60)
        assert (done.returncode, done.stdout) == (0, "said"), done.stderr[-500:]
        assert done.stderr.startswith("loading; a first run also compiles kernels")
