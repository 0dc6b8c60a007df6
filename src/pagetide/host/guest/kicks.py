"""One guest's kicks: which of its queues may have elements waiting, in which order they are served, and since when."""

import functools
from collections.abc import Callable

from pagetide.host.device.queues.offered import LeftTurn, OfferedQueue
from pagetide.host.guest.fd_events import EDGE, FdEvents
from pagetide.host.guest.gone import GuestGoneError


class Kicks:
    """Watches the kick descriptors of started queues, and keeps the queues that are ready in order.

    Attributes:
        again: whether the queue that was taken last had become ready more than once, so that a turn that is left of it
            may have been before what came last.
    """

    again: bool

    def __init__(self, events: FdEvents, on_work: Callable[[], None]) -> None:
        """Watch nothing yet.

        Args:
            events: where to watch.
            on_work: called whenever a queue has become ready.
        """
        self._events = events
        self._on_work = on_work
        self._fds: dict[int, int] = {}
        self._offered: dict[int, OfferedQueue | None] = {}
        self._ready: dict[int, bool] = {}  # in order; whether it was told more than once
        self.again = False
        self._since_ns: dict[int, int] = {}
        self._resting = False

    @property
    def any_ready(self) -> bool:
        """Whether a queue is ready, and may be served."""
        return bool(self._ready) and not self._resting

    @property
    def watched(self) -> tuple[int, ...]:
        """The queues that are watched."""
        return tuple(self._fds)

    def watch(self, index: int, fd: int, offered: OfferedQueue | None = None) -> None:
        """Watch a queue's kick descriptor; the queue is ready, for elements may have come before.

        Args:
            index: the queue's.
            fd: the descriptor.
            offered: its words, if it may be served by the loop's step.

        Raises:
            GuestGoneError: it is a descriptor of something that cannot be waited for.
        """
        address = 0 if offered is None or not self._events.serves else offered.words.ctypes.data
        try:
            self._events.watch(fd, EDGE, functools.partial(self.make_ready, index), address)
        except OSError as error:
            raise GuestGoneError(f"queue {index}'s kick descriptor cannot be waited for: {error}") from error
        self._fds[index] = fd
        self._offered[index] = offered if address else None
        self.make_ready(index)

    def unwatch(self, index: int) -> None:
        """Forget a queue, if it is watched."""
        fd = self._fds.pop(index, None)
        if fd is not None:
            self._events.unwatch(fd)
        self._offered.pop(index, None)
        self._ready.pop(index, None)
        self._since_ns.pop(index, None)

    def make_ready(self, index: int) -> None:
        """A queue may have elements waiting, or a turn is left of it."""
        self.withdraw(index)
        self._ready[index] = index in self._ready
        self._since_ns.setdefault(index, self._events.since_ns)
        self._on_work()

    def take_left(self, index: int) -> LeftTurn | None:
        """The turn that the loop's step has left of a queue, if any."""
        offered = self._offered.get(index)
        return None if offered is None else offered.take_left()

    def take_earned_pages(self) -> int:
        """What the step's turns on all queues named since this was last asked (`OfferedQueue.take_earned_pages`)."""
        return sum(offered.take_earned_pages() for offered in self._offered.values() if offered is not None)

    @property
    def quiet(self) -> list[tuple[int, OfferedQueue]]:
        """The queues that only a kick makes ready, and that the step may serve then."""
        if self._resting:
            return []
        return [(index, one) for index, one in self._offered.items() if one is not None and index not in self._ready]

    def withdraw(self, index: int) -> None:
        """Offer a queue no more."""
        offered = self._offered.get(index)
        if offered is not None:
            offered.withdraw()

    def withdraw_all(self) -> None:
        """Offer no queue, for now."""
        for index in self._offered:
            self.withdraw(index)

    def take_ready(self) -> int:
        """The queue that is to be served next; there must be one."""
        index = next(iter(self._ready))
        self.again = self._ready.pop(index)
        return index

    def since_ns(self, index: int) -> int:
        """When the oldest element of a queue came, or before that; for a queue that is not yet `emptied`."""
        return self._since_ns[index]

    def emptied(self, index: int) -> None:
        """All elements of a queue are served, so what comes is newer."""
        self._since_ns.pop(index, None)

    def rest(self) -> None:
        """Hear no kicks until `go_on`."""
        self._resting = True
        for fd in self._fds.values():
            self._events.unwatch(fd)

    def go_on(self) -> None:
        """Hear kicks again; every queue is ready, for some may have come meanwhile."""
        self._resting = False
        for index, fd in self._fds.items():
            self.watch(index, fd, self._offered[index])
