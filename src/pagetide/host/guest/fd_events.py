"""epoll(7), with a function to call for each descriptor, but for queues that are served on the way (kick_step.py)."""

import ctypes
import errno
import math
import os
import select
import time
from collections.abc import Callable

import numpy as np

from pagetide import bus_error
from pagetide.host.device.queues.kick_step import (
    EPOLL_FD,
    EVENT_BYTES,
    EVENTS_AT,
    EVENTS_MAX,
    FAULTS_AT,
    LOOKED_NS,
    LOOP_WORDS,
    ONE_AT,
    OTHERS_AT,
    PASSED_NS,
    QUEUES,
    QUEUES_AT,
    SINCE_NS,
    SLEPT_NS,
    TICKS_AT,
    TIMEOUT_MS,
    UNTIL_NS,
    look_and_serve,
)

READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT
EDGE = select.EPOLLIN | select.EPOLLET
"""Readable again: told after each write to an eventfd, which is never read; the kernel's own vhost does not either.

A read could block: whether it does is for the peer to say, who shares the open file.
"""

_NS = 1e-9
_FOR_EVER_NS = (1 << 63) - 1
_FEW = 1024


class FdEvents:
    """Which descriptors are watched, and what is to happen when they are ready."""

    def __init__(self, clock_ns: Callable[[], int] = time.monotonic_ns, ticks_address: int = 0) -> None:
        """Watch nothing.

        Args:
            clock_ns: the time by which `since_ns` is told; queues are only served on the way by the usual one.
            ticks_address: the words of an Interruption that is to know when the loop is busy; 0 for none.
        """
        self.serves = clock_ns is time.monotonic_ns
        self._clock_ns = clock_ns
        self._looked_ns = self._since_ns = clock_ns()
        self._epoll = select.epoll()
        self._actions: dict[int, Callable[[], None]] = {}
        self._queues = np.zeros(_FEW, np.int64)
        self._others = np.zeros(EVENTS_MAX, np.int64)
        self._events = np.zeros(EVENTS_MAX * EVENT_BYTES, np.uint8)
        self._one = np.ones(1, np.int64)
        self._loop = np.zeros(LOOP_WORDS, np.int64)
        self._loop[EPOLL_FD] = self._epoll.fileno()
        self._loop[EVENTS_AT], self._loop[ONE_AT] = self._events.ctypes.data, self._one.ctypes.data
        self._loop[FAULTS_AT] = ctypes.addressof(bus_error.fault_count())
        self._loop[TICKS_AT] = ticks_address
        self._loop[OTHERS_AT] = self._others.ctypes.data
        self._loop[LOOKED_NS] = self._looked_ns
        self._loop[QUEUES_AT], self._loop[QUEUES] = self._queues.ctypes.data, len(self._queues)
        self._wait = 0.0, False  # as in the loop's words
        self._loop_address = self._loop.ctypes.data

    @property
    def since_ns(self) -> int:
        """No descriptor whose action is being called was ready before this time, by the clock given."""
        return self._loop.item(SINCE_NS) if self.serves else self._since_ns

    def take_passed_s(self) -> float:
        """For how long looks slept, and turns in them took, since this was last asked."""
        passed_s = self._loop.item(PASSED_NS) * _NS
        self._loop[PASSED_NS] = 0
        return passed_s

    def watch(self, fd: int, events: int, action: Callable[[], None], queue_address: int = 0) -> None:
        """Call the action whenever the descriptor is ready, or closed by its peer.

        Args:
            fd: the descriptor.
            events: what to wait for.
            action: what to call.
            queue_address: where the words of an `OfferedQueue` are that it kicks, which stay there until `unwatch`; the
                action is for when it is not offered, or a turn is left of it. 0 for none.

        Raises:
            OSError: it is a descriptor of something that cannot be waited for.
        """
        assert fd not in self._actions
        self._epoll.register(fd, events)
        self._actions[fd] = action
        if queue_address:
            if fd >= len(self._queues):
                self._queues = np.concatenate([self._queues, np.zeros(fd, np.int64)])
                self._loop[QUEUES_AT], self._loop[QUEUES] = self._queues.ctypes.data, len(self._queues)
            self._queues[fd] = queue_address

    def rewatch(self, fd: int, events: int) -> None:
        """Wait for something else on a watched descriptor."""
        assert fd in self._actions
        self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        """Forget a descriptor, which must be done before it is closed: epoll goes on as long as anyone has it open."""
        if self._actions.pop(fd, None) is not None:
            self._epoll.unregister(fd)
            if fd < len(self._queues):
                self._queues[fd] = 0

    def look(self, timeout_s: float, *, again: bool = False) -> int:
        """Wait for at most this long (for ever if it is negative), and serve the offered queues that were kicked.

        Args:
            timeout_s: how long.
            again: whether to go on for all of that time, as long as nothing but such queues is ready. The caller sees
                to it that a signal makes a descriptor ready (signal.set_wakeup_fd), or may miss it until then.

        Returns:
            How many descriptors have an action to be called (`act`).

        Raises:
            OSError: it cannot be waited.
        """
        if (timeout_s, again) != self._wait or again:
            self._wait = timeout_s, again
            until_ns = _FOR_EVER_NS if timeout_s < 0 else time.monotonic_ns() + math.ceil(timeout_s / _NS)
            self._loop[TIMEOUT_MS] = -1 if timeout_s < 0 else math.ceil(timeout_s * 1000)
            self._loop[UNTIL_NS] = until_ns if again else 0
        count: int = look_and_serve(self._loop_address)
        if count < 0:
            if count != -errno.EINTR:
                raise OSError(-count, os.strerror(-count))
            count = 0
        if not self.serves:
            self._since_ns = self._clock_ns() if self._loop.item(SLEPT_NS) else self._looked_ns
            self._looked_ns = self._clock_ns()
        return count

    def act(self, count: int) -> None:
        """Call the actions of the so many descriptors that the last look has left."""
        ready = [(fd, self._actions[fd]) for fd in self._others[:count].tolist()]
        for fd, action in ready:
            # An action before this one may have closed the descriptor, and opened another of the same number.
            if self._actions.get(fd) is action:
                action()

    def wait(self, timeout_s: float) -> None:
        """Look, and call the actions."""
        self.act(self.look(timeout_s))

    def close(self) -> None:
        """Stop watching."""
        self._actions.clear()
        self._queues[:] = 0
        self._epoll.close()
