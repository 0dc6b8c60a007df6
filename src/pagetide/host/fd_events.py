"""epoll(7), with a function to call for each descriptor."""

import select
from collections.abc import Callable

READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT
EDGE = select.EPOLLIN | select.EPOLLET
"""Readable again: told after each write to an eventfd, which is never read; the kernel's own vhost does not either.

A read could block: whether it does is for the peer to say, who shares the open file.
"""


class FdEvents:
    """Which descriptors are watched, and what is to happen when they are ready."""

    def __init__(self) -> None:
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

    def wait(self, timeout_s: float) -> None:
        """Wait for at most this long (for ever if it is negative), then call the action of each that is ready."""
        ready = [(fd, self._actions[fd]) for fd, _ in self._epoll.poll(timeout_s)]
        for fd, action in ready:
            # An action before this one may have closed the descriptor, and opened another of the same number.
            if self._actions.get(fd) is action:
                action()

    def close(self) -> None:
        """Stop watching."""
        self._actions.clear()
        self._epoll.close()
