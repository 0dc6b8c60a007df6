"""A signal that ends whatever holds up the loop's thread in a system call.

Writes to eventfds that guests gave do not block while O_NONBLOCK is set, but who gave one shares the open file and may
clear it at any time. A blocked write then ends with EINTR at the next tick (`signals.py`). Ticks come only while
the loop does something for guests. What no signal ends, such as the wait for the lock of a file's inode, is dealt with
by who waits less often (`hold_ups.py`).
"""

import signal
from types import FrameType, TracebackType
from typing import Self

import numpy as np

from pagetide.host.device.queues.kick_step import BUSY, FIRST_TICK_US, TICK_US, TICKING, TICKS_WORDS

TICK_S = 0.1
"""Longest time for which a guest can hold up the loop in a call that a signal ends."""


class Interruption:
    """Ticks, as long as the context lasts, from `busy` until the loop sleeps. One, in the main thread.

    The loop's step says both itself, in the words at `address` (host/device/queues/kick_step.py).
    """

    def __init__(self) -> None:
        """Tick not yet."""
        self._words = np.zeros(TICKS_WORDS, np.int64)
        self._words[TICK_US] = self._words[FIRST_TICK_US] = round(TICK_S * 1e6)

    def __enter__(self) -> Self:
        self._words[[BUSY, TICKING]] = 0
        self._before = signal.signal(signal.SIGALRM, self._tick)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self._before)

    @property
    def address(self) -> int:
        """Where the words are."""
        return self._words.ctypes.data

    def busy(self) -> None:
        """The loop begins to do something for a guest, and may go on with others."""
        self._words[BUSY] = 1
        if not self._words[TICKING]:
            self._words[TICKING] = 1
            signal.setitimer(signal.ITIMER_REAL, TICK_S, TICK_S)

    def _tick(self, number: int, frame: FrameType | None) -> None:
        # Only once the loop sleeps: a call that blocks may come at any time before it, however many ticks after `busy`.
        if not self._words[BUSY]:
            self._words[TICKING] = 0
            signal.setitimer(signal.ITIMER_REAL, 0)
