"""What the messages of one connection do: to the guest's memory, to its queues and to its device."""

import logging
from collections.abc import Callable

from pagetide.host.device.balloon import QUEUES_MAX, BalloonDevice
from pagetide.host.device.inflight_memory import InflightTracking
from pagetide.host.device.queues.place import NotSharedError, QueueLostError, QueuePlace
from pagetide.host.guest.gone import GuestGoneError
from pagetide.host.guest.keep import Keep
from pagetide.host.guest.kicks import Kicks
from pagetide.host.guest.signals import Notices, signal_eventfd
from pagetide.host.memory.guest_memory import GuestMemory
from pagetide.virtio.balloon import Status
from pagetide.virtio.vhost_user.backend import VhostUserBackend
from pagetide.virtio.vhost_user.events import (
    CallReplaced,
    ConfigWritten,
    DeviceReset,
    Event,
    FeaturesSet,
    InflightAsked,
    InflightGiven,
    MemoryRegionAdded,
    MemoryRegionRemoved,
    MemoryTableSet,
    QueueStarted,
    QueueStopped,
    SessionBegun,
)
from pagetide.virtio.vhost_user.payloads import Inflight
from pagetide.virtio.vhost_user.transport import Connection


class Effects:
    """Acts on the events of a connection's messages.

    Attributes:
        inflight: where the guest's queues keep track of what is in flight.
        inflight_kept: what a successor needs to find that: an Inflight's fields, and its descriptor's number.
        not_shared: whether a queue could not be served because it is in memory that is not shared.
        failed_queues: how often `fail_queue` was called.
    """

    inflight: InflightTracking
    inflight_kept: tuple[tuple[int, ...], int]
    not_shared: bool
    failed_queues: int

    def __init__(
        self,
        memory: GuestMemory,
        device: BalloonDevice,
        kicks: Kicks,
        backend: VhostUserBackend,
        connection: Connection,
        notices: Notices,
        *,
        keep: Keep | None,
        on_memory_changed: Callable[[], object],
        on_session: Callable[[], object],
        log: logging.LoggerAdapter[logging.Logger],
    ) -> None:
        """Act on these; all but `keep` and what follows are the session's own.

        Args:
            memory: the guest's.
            device: the guest's.
            kicks: the guest's.
            backend: what the front-end has told.
            connection: keeps what has changed.
            notices: tell the driver.
            keep: where descriptors are kept for a successor, if they are.
            on_memory_changed: called after each change of the memory that the guest shares.
            on_session: called when a front-end owns the device anew, after its memory was forgotten.
            log: where to say what goes wrong.
        """
        self.inflight = InflightTracking(QUEUES_MAX)
        self.inflight_kept = (), -1
        self.not_shared = False
        self.failed_queues = 0
        self._memory = memory
        self._device = device
        self._kicks = kicks
        self._backend = backend
        self._connection = connection
        self._notices = notices
        self._keep = keep
        self._on_memory_changed = on_memory_changed
        self._on_session = on_session
        self._log = log

    def keep_state(self) -> None:
        """Keep for a successor what the driver was told and has told; whatever changes that calls this."""
        self.inflight.keep_state(self._device.state)
        self._connection.changed()

    def fail_queue(self, index: int, reason: str) -> None:
        """The driver broke a rule of the ring: say so, and leave its queues alone until it resets the device.

        The driver is told in the ways it has given: NEEDS_RESET in the device status with a notification of a changed
        configuration (virtio 1.2, 2.1.2), and the queue's error descriptor. With neither, the connection is closed.

        Raises:
            GuestGoneError: the driver has given no way to tell it.
        """
        self.failed_queues += 1
        self._log.error("queue %d needs a reset: %s", index, reason)
        for started in self._kicks.watched:
            self._stop_queue(started)
        self._backend.status |= int(Status.NEEDS_RESET)
        self._connection.changed()
        err_fd = self._backend.vrings.err_fd(index)
        if not self._notices.config_changed() and err_fd < 0:
            raise GuestGoneError(f"queue {index}: {reason}")
        signal_eventfd(err_fd)

    def act(self, event: Event) -> None:
        """Do what an event says.

        Raises:
            GuestMemoryError: memory that the front-end gave cannot be used.
            ValueError: it cannot be done.
            GuestGoneError: there is no way to go on.
        """
        try:
            self._act(event)
        except NotSharedError:
            self.not_shared = True
            raise

    def go_on_with_queue(self, event: QueueStarted) -> None:
        """Serve a queue that a predecessor has served, from where it stands; errors as `act`."""
        place = _place(event)
        self._serve_queue(event, place, self._device.queues.where_it_stands(place))

    def leave_queue(self, index: int) -> int | None:
        """Serve a queue no more; where it stood, if it was served."""
        self._kicks.unwatch(index)
        return self._device.queues.stop(index)

    def _act(self, event: Event) -> None:
        match event:
            case QueueStarted():
                self._serve_queue(event, _place(event), self._backend.vrings.base(event.queue))
            case QueueStopped(index):
                self._stop_queue(index)
            case CallReplaced(index):
                self._notices.call(index)
            case DeviceReset(stopped) | SessionBegun(stopped):
                for index in stopped:
                    self.leave_queue(index)
                self._device.reset()
                self._begin_session() if isinstance(event, SessionBegun) else self.keep_state()
            case ConfigWritten(config):
                self._device.config.write(config.offset, config.data)
                self.keep_state()
            case FeaturesSet():
                pass  # they count when a queue is started
            case InflightAsked(queue_count, queue_size):
                self._backend.inflight_made(*self.inflight.make(queue_count, queue_size))
            case InflightGiven(inflight, fd):
                self._take_over(inflight, fd)
            case _:
                self._change_memory(event)
                self.not_shared = False
                self._on_memory_changed()

    def _begin_session(self) -> None:
        """Forget what the session before shared; its queues are left, and the device is reset."""
        self._memory.replace([], [])
        self.inflight.close()
        self.inflight = InflightTracking(QUEUES_MAX)
        self.inflight_kept = (), -1
        self._on_session()

    def _take_over(self, inflight: Inflight, fd: int) -> None:
        """Track in this memory, and go on as the device left it that did before."""
        number = -1 if self._keep is None else self._keep.number_of(fd)
        self.inflight.use(inflight, fd)
        self.inflight_kept = tuple(inflight), number
        left = self.inflight.state
        if left is not None and self._device.take_over(left):
            self._notices.config_changed()

    def _change_memory(self, event: MemoryTableSet | MemoryRegionAdded | MemoryRegionRemoved) -> None:
        match event:
            case MemoryTableSet(regions, fds):
                self._memory.replace(regions, fds)
            case MemoryRegionAdded(region, fd):
                self._memory.add(region, fd)
            case MemoryRegionRemoved(region):
                self._memory.remove(region.gpa, region.size_bytes, region.user_address)
        try:
            self._device.queues.memory_changed()
        except QueueLostError as error:
            self.fail_queue(error.queue, str(error))
            raise

    def _serve_queue(self, event: QueueStarted, place: QueuePlace, base: int) -> None:
        index = event.queue
        self._device.start_queue(index, place, base, self._backend.features, self.inflight.region(index))
        self.keep_state()
        self._kicks.watch(index, event.kick_fd, self._device.queues.offered(index))
        self._notices.call(index)  # the call for what was given back before may have been lost

    def _stop_queue(self, index: int) -> None:
        stopped_at = self.leave_queue(index)
        if stopped_at is not None:
            self._backend.vrings.stopped_at(index, stopped_at)


def _place(event: QueueStarted) -> QueuePlace:
    return QueuePlace(event.size, event.address.desc, event.address.avail, event.address.used)
