"""epoll(7), with a function to call for each descriptor."""

import select
import time
from collections.abc import Callable

READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT
EDGE = select.EPOLLIN | select.EPOLLET
"""Readable again: told after each write to an eventfd, which is never read; the kernel's own vhost does not either.

A read could block: whether it does is for the peer to say, who shares the open file.
"""


class FdEvents:
    """Which descriptors are watched, and what is to happen when they are ready.

    Attributes:
        since_ns: no descriptor whose action is being called was ready before this time, by the clock given.
    """

    since_ns: int

    def __init__(self, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock_ns = clock_ns
        self._looked_ns = self.since_ns = clock_ns()
        self._epoll = select.epoll()
        self._actions: dict[int, Callable[[], None]] = {}

    def watch(self, fd: int, events: int, action: Callable[[], None]) -> None:
        """Call the action whenever the descriptor is ready, or closed by its peer.

        Raises:
            OSError: it is a descriptor of something that cannot be waited for.
        """
        assert fd not in self._actions
        self._epoll.register(fd, events)
        self._actions[fd] = action

    def rewatch(self, fd: int, events: int) -> None:
        """Wait for something else on a watched descriptor."""
        assert fd in self._actions
        self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        """Forget a descriptor, which must be done before it is closed: epoll goes on as long as anyone has it open."""
        if self._actions.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def wait(self, timeout_s: float) -> float:
        """Wait for at most this long (for ever if it is negative), then call the action of each that is ready.

        Returns:
            For how long it slept, in seconds.
        """
        self.since_ns = self._looked_ns
        slept_s = 0.0
        found = self._epoll.poll(0)
        if not found and timeout_s != 0:
            start_s = time.monotonic()
            found = self._epoll.poll(timeout_s)  # what comes from now on ends the wait as it comes
            slept_s = time.monotonic() - start_s
            self.since_ns = self._clock_ns()
        self._looked_ns = self._clock_ns()
        ready = [(fd, self._actions[fd]) for fd, _ in found]
        for fd, action in ready:
            # An action before this one may have closed the descriptor, and opened another of the same number.
            if self._actions.get(fd) is action:
                action()
        return slept_s

    def close(self) -> None:
        """Stop watching."""
        self._actions.clear()
        self._epoll.close()
