"""A signal that ends whatever holds up the loop's thread in a system call.

Writes to eventfds that guests gave do not block while O_NONBLOCK is set, but who gave one shares the open file and may
clear it at any time. A blocked write then ends with EINTR at the next tick (`signals.py`). Ticks come only while
the loop does something for guests. What no signal ends, such as the wait for the lock of a file's inode, is dealt with
by who waits less often (`hold_ups.py`).
"""

import signal
from types import FrameType, TracebackType
from typing import Self

TICK_S = 0.1
"""Longest time for which a guest can hold up the loop in a call that a signal ends."""


class Interruption:
    """Ticks, as long as the context lasts, from when somebody says `busy` until `idle`. One, in the main thread."""

    def __enter__(self) -> Self:
        self._ticking = self._busy = False
        self._before = signal.signal(signal.SIGALRM, self._tick)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    def busy(self) -> None:
        """The loop begins to do something for a guest, and may go on with others."""
        self._busy = True
        if not self._ticking:
            self._ticking = True
            signal.setitimer(signal.ITIMER_REAL, TICK_S, TICK_S)

    def idle(self) -> None:
        """The loop is about to sleep: the next tick is the last."""
        self._busy = False

    def _tick(self, number: int, frame: FrameType | None) -> None:
        # Only from `idle` on: a call that blocks may come at any time before it, however many ticks after `busy`.
        if not self._busy:
            self._ticking = False
            signal.setitimer(signal.ITIMER_REAL, 0)
