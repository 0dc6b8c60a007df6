"""A process that touches a guest's memory when asked to, on every processor, as its vCPUs do.

What a host discards was last written by somebody else: its pages are in that process's page tables, and the kernel's
records of them in the caches of the processors that its vCPUs ran on. That is a sixth to a quarter of what discarding
them costs, so calibration has it too (discarding.py).
"""

import contextlib
import mmap
import os
import signal
import subprocess
import sys
from typing import Self

import numpy as np

from pagetide.processes import set_parent_death_signal
from pagetide.units import PAGE_SIZE_BYTES

_STRETCH_BYTES = 4 << 20


class TouchProcess:
    """The process, and how to ask it. A context manager: it ends with it."""

    def __init__(self, fd: int) -> None:
        """Start it, for the memory behind this descriptor."""
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            [sys.executable, "-m", "pagetide.machine.calibration.touch_process", str(fd)],
            pass_fds=[fd],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def touch(self) -> None:
        """Have it write to every page.

        Raises:
            OSError: it is gone.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(b"t")
        if not self._process.stdout.read(1):
            raise OSError(f"the process that touches memory ended with status {self._process.wait()}")

    def __enter__(self) -> Self:
        """Nothing more is to be done."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


def main() -> int:
    """Run as `python -m pagetide.machine.calibration.touch_process FD`: each byte that comes in is answered by one."""
    set_parent_death_signal(signal.SIGKILL)
    fd = int(sys.argv[1])
    pages = np.frombuffer(mmap.mmap(fd, os.fstat(fd).st_size), np.int64)[:: PAGE_SIZE_BYTES // 8]
    stretches = np.array_split(pages, max(1, len(pages) * PAGE_SIZE_BYTES // _STRETCH_BYTES))
    processors = sorted(os.sched_getaffinity(0))
    while os.read(0, 1):
        for first, processor in enumerate(processors):
            os.sched_setaffinity(0, {processor})
            for stretch in stretches[first :: len(processors)]:
                np.add(stretch, 1, out=stretch)
        os.write(1, b".")
    return 0


if __name__ == "__main__":
    sys.exit(main())
