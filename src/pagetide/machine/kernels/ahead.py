"""Compiles kernels into the cache before they are needed: the guest's and the host's beside one another, and aloud.

A step is marked in the cache's folder once it is done, so that all this costs the next process nothing. Whoever is
not told of it here compiles what it needs as it goes.
"""

import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from pagetide.jit import JIT_DISABLED, kernel_names, telling_compiled
from pagetide.kernel_cache import is_compiled

SIMULATED = (("guest",), ("host", "simulated"))
"""What a simulated machine needs: the steps of each of the processes that compile."""

ALL = (("guest", "designs"), ("host", "taking", "simulated"))

_PROGRAM = "pagetide.machine.kernels.process"
_EVERY_S = 1.0
_READ_BYTES = 1 << 16
KNOWN, DONE = "?", "+"
"""What a process that compiles says of a kernel, before its name: that there is one, and that it was compiled."""


class _Progress:
    """Which kernels there are, and which are done."""

    def __init__(self, tell: Callable[[str], None], whose: str = "") -> None:
        """Have this told about once a second; whose kernels they are is a word and a space."""
        self.known: set[str] = set()
        self.done: set[str] = set()
        self._tell, self._whose = tell, whose
        self._told_s = time.monotonic()

    def show(self) -> None:
        """Tell, if that is due."""
        done = self.done & self.known  # numba compiles helpers of its own, too
        if done and time.monotonic() - self._told_s >= _EVERY_S:
            self._told_s = time.monotonic()
            self._tell(f"compiling {self._whose}kernels {len(done)}/{len(self.known)} (first run only)")


@contextmanager
def compiling_aloud(whose: str, tell: Callable[[str], None]) -> Iterator[None]:
    """What this process compiles meanwhile is told about once a second, of the kernels that it has imported."""
    progress = _Progress(tell, f"the {whose}'s ")
    progress.known.update(kernel_names())

    def compiled(name: str) -> None:
        progress.done.add(name)
        progress.show()

    with telling_compiled(compiled):
        yield


def compile_kernels(lanes: Sequence[Sequence[str]], tell: Callable[[str], None]) -> bool:
    """Have kernels compiled, unless that was done before; whether it went well.

    Args:
        lanes: steps, of each process those that it does one after the other.
        tell: gets a line about once a second of how many kernels there are, and how many of them are done.
    """
    left = [[step for step in lane if not is_compiled(step)] for lane in lanes]
    if JIT_DISABLED or not any(left):
        return True
    processes = [
        subprocess.Popen([sys.executable, "-m", _PROGRAM, *steps], stdout=subprocess.PIPE)  # noqa: S603 - our own
        for steps in left
        if steps
    ]
    try:
        _watch(processes, tell)
        return all(process.wait() == 0 for process in processes)
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def _watch(processes: Sequence["subprocess.Popen[bytes]"], tell: Callable[[str], None]) -> None:
    """Tell how far they are, until they have ended."""
    progress = _Progress(tell)
    unread: dict[int, bytes] = {}
    tell("compiling kernels (first run only)")
    with selectors.DefaultSelector() as selector:
        for process in processes:
            selector.register(process.stdout, selectors.EVENT_READ)  # type: ignore[arg-type]
        while selector.get_map():
            for key, _ in selector.select():
                read = os.read(key.fd, _READ_BYTES)
                if not read:
                    selector.unregister(key.fileobj)
                *lines, unread[key.fd] = (unread.get(key.fd, b"") + read).split(b"\n")
                for line in lines:
                    what, name = line.decode().split()
                    (progress.known if what == KNOWN else progress.done).add(name)
            progress.show()


def _tell(line: str) -> None:
    """Over the line before on a terminal."""
    sys.stdout.write(f"\r\033[K{line}" if sys.stdout.isatty() else f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(0 if compile_kernels(ALL, _tell) else 1)
