"""How long the command line takes to say what it can do: `pagetide --help`, from its start to its end.

The least of some runs: what other processes of the machine take of the processors is not the command's.
"""

import subprocess
import sys
import time
from collections.abc import Iterator

from benchmarks.rows import Row

_REPEATS = 15


def _help_s() -> float:
    start_s = time.perf_counter()
    subprocess.run([sys.executable, "-m", "pagetide.cli", "--help"], check=True, capture_output=True)
    return time.perf_counter() - start_s


def run() -> Iterator[Row]:
    """Measure, after a run that reads the files."""
    _help_s()
    spent_s = [_help_s() for _ in range(_REPEATS)]
    yield Row("command line, --help", min(spent_s), "s", at_most=0.25, note=f"to {max(spent_s):.2f}")
