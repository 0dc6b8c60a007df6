"""One guest's vhost-user connection: what its messages do to its memory, its queues and its device, and the answers."""

import contextlib
import logging
import os
import socket
from collections.abc import Callable

from pagetide import foreign_fds
from pagetide.host.device.balloon import QUEUES_MAX, BalloonDevice
from pagetide.host.device.inflight_memory import InflightTracking
from pagetide.host.device.kept_state import GuestKept, RegionKept, SessionKept
from pagetide.host.device.queues.place import NotSharedError, QueueLostError, QueuePlace
from pagetide.host.guest.fd_events import READABLE, WRITABLE, FdEvents
from pagetide.host.guest.gone import GuestGoneError
from pagetide.host.guest.keep import Keep
from pagetide.host.guest.kept_connection import KeptConnection
from pagetide.host.guest.kicks import Kicks
from pagetide.host.guest.signals import send_on_channel, signal_eventfd
from pagetide.host.memory import doors
from pagetide.host.memory.guest_memory import GuestMemory
from pagetide.host.memory.mapping import GuestMemoryError
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
from pagetide.virtio.vhost_user.messages import Message, RemoteProtocolError, Request
from pagetide.virtio.vhost_user.payloads import NO_FD, U64, Inflight, MemoryRegion, decode_u64
from pagetide.virtio.vhost_user.transport import Connection, PeerGoneError

_MESSAGES_PER_TURN = 16
_EVENTFDS_THAT_WE_WRITE = (Request.SET_VRING_CALL, Request.SET_VRING_ERR)


class VhostUserSession:
    """A connection, from its first message to its end. Its methods raise GuestGoneError when that has come.

    Attributes:
        inflight: where the guest's queues keep track of what is in flight.
    """

    inflight: InflightTracking

    def __init__(
        self,
        sock: socket.socket,
        events: FdEvents,
        memory: GuestMemory,
        device: BalloonDevice,
        kicks: Kicks,
        *,
        features: int,
        on_memory_changed: Callable[[], object],
        on_session: Callable[[], object],
        keep: Keep | None = None,
        describe: Callable[[SessionKept], GuestKept] | None = None,
        log: logging.LoggerAdapter[logging.Logger],
    ) -> None:
        """Take over a connected socket.

        Args:
            sock: the connection.
            events: where the caller watches it.
            memory: the guest's.
            device: the guest's.
            kicks: the guest's.
            features: what to offer the driver.
            on_memory_changed: called after each change of the memory that the guest shares.
            keep: where to keep the session for a successor, or what a predecessor kept, for `restore`.
            describe: completes what is kept.
            on_session: called when a front-end owns the device anew on this connection, after its memory was forgotten.
            log: where to say what goes wrong.
        """
        self.inflight = InflightTracking(QUEUES_MAX)
        self._events = events
        self._memory = memory
        self._device = device
        self._kicks = kicks
        self._on_memory_changed = on_memory_changed
        self._on_session = on_session
        self._config_to_tell = False
        self._not_shared = False
        self._unread = False
        self._log = log
        self._keep = keep
        self._inflight_kept: tuple[tuple[int, ...], int] = (), -1
        if keep is None or describe is None:
            self._connection = Connection(sock)
        else:
            self._connection = KeptConnection(sock, keep, lambda: describe(self._state()))
        self._told_unused: set[int] = set()
        self._backend = VhostUserBackend(features, QUEUES_MAX, device.config.data)

    def fileno(self) -> int:
        """The connection's descriptor."""
        return self._connection.fileno()

    @property
    def features(self) -> int:
        """What the driver accepted."""
        return self._backend.features

    @property
    def state(self) -> str:
        """What stands in the way of serving: `needs reset`, `no shared memory`, `no driver` or `stopped`; or nothing.

        A front-end stops the queues of a guest that stands still, and of one whose driver has gone without a reset;
        QEMU tells no difference.
        """
        if self._backend.status & Status.NEEDS_RESET:
            return "needs reset"
        if self._not_shared:
            return "no shared memory"
        if self._backend.driver_is_there:
            return ""
        return "stopped" if self._backend.vrings.any_was_started and not self._backend.vrings.started else "no driver"

    @property
    def end(self) -> str:
        """How the peer hung up, if it has and all that it sent is taken; empty otherwise."""
        if not self._connection.at_end:
            return ""
        return "disconnected within a message" if self._connection.is_amid_message else "disconnected"

    @property
    def waits_for_peer(self) -> bool:
        """Whether the peer has replies to read, more than the kernel holds for it, or a message to complete."""
        return self._unread or self._connection.is_amid_message

    def talk(self) -> int:
        """Take what messages have come, and answer them; not more than some at a time. How many there were.

        Raises:
            GuestGoneError: the connection was lost, or the peer broke the protocol.
        """
        taken = 0
        try:
            for _ in range(_MESSAGES_PER_TURN):
                self._unread = not self._connection.flush()
                if self._unread:
                    break
                message = self._connection.receive()
                if message is None:
                    break
                taken += 1
                self._take(message)
            # A peer that does not read its replies is not listened to.
            self._unread = not self._connection.flush()
            self._events.rewatch(self.fileno(), WRITABLE if self._unread else READABLE)
        except RemoteProtocolError as error:
            raise GuestGoneError(f"broke the protocol: {error}") from error
        except (PeerGoneError, OSError) as error:
            raise GuestGoneError(f"connection lost: {error}") from error
        return taken

    def call_fd(self, index: int) -> int:
        """How the driver is told that elements of a queue are given back; -1 if it is not."""
        return self._backend.vrings.call_fd(index)

    def call(self, index: int) -> None:
        """Tell the driver that elements of a queue are given back."""
        signal_eventfd(self.call_fd(index))

    def tell_config_changed(self) -> bool:
        """Tell the driver that the configuration has changed, now or when it is there; False if it has given no way to.

        A front-end need not expect to be told while no queue is started, and QEMU's generic device ends if it is.
        """
        told = self._backend.config_changed()
        self._config_to_tell = True
        self._connection.changed()  # it is a successor's to tell if we are killed now
        if told is not None:
            if send_on_channel(*told):
                self._config_to_tell = False
            else:
                self._backend.drop_channel()
        return self._backend.has_channel

    def keep_state(self) -> None:
        """Keep for a successor what the driver was told and has told; whatever changes that calls this."""
        self.inflight.keep_state(self._device.state)
        self._connection.changed()

    def restore(self, kept: SessionKept, fds: dict[int, int]) -> None:
        """Go on where a predecessor on this connection was, whatever it did last.

        Args:
            kept: what it kept.
            fds: the descriptors in it, by number; those that are used are taken out.

        Raises:
            GuestGoneError: it cannot be gone on with.
        """

        def fd_of(number: int) -> int:
            return -1 if number < 0 else fds.pop(number)

        try:
            self._connection.resume()
            for region in kept.memory:
                self._memory.add(MemoryRegion(*region.shared), fd_of(region.fd))
            started = self._backend.restore(kept.backend, fd_of)
            to_tell = self._device.restore(kept.device) or kept.untold
            if kept.inflight:
                self._inflight_kept = kept.inflight, kept.inflight_fd
                self.inflight.use(Inflight(*kept.inflight), fd_of(kept.inflight_fd))
            for event in () if self._backend.status & Status.NEEDS_RESET else started:
                place = _place(event)
                self._serve_queue(event, place, self._device.queues.where_it_stands(place))
        except (GuestMemoryError, ValueError, OSError) as error:
            raise GuestGoneError(f"cannot be taken over: {error}") from error
        if to_tell:
            self.tell_config_changed()
        self._events.rewatch(self.fileno(), READABLE | WRITABLE)  # a reply may not have gone yet

    def let_go(self) -> None:
        """Leave everything as it is for a successor, and close it here."""
        with contextlib.ExitStack() as parts:
            self._close_in(parts)
            for index in self._kicks.watched:
                parts.callback(self._kicks.unwatch, index)

    def fail_queue(self, index: int, reason: str) -> None:
        """The driver broke a rule of the ring: say so, and leave its queues alone until it resets the device.

        The driver is told in the ways it has given: NEEDS_RESET in the device status with a notification of a changed
        configuration (virtio 1.2, 2.1.2), and the queue's error descriptor. With neither, the connection is closed.

        Raises:
            GuestGoneError: the driver has given no way to tell it.
        """
        self._log.error("queue %d needs a reset: %s", index, reason)
        for started in self._kicks.watched:
            self._stop_queue(started)
        self._backend.status |= int(Status.NEEDS_RESET)
        self._connection.changed()
        err_fd = self._backend.vrings.err_fd(index)
        if not self.tell_config_changed() and err_fd < 0:
            raise GuestGoneError(f"queue {index}: {reason}")
        signal_eventfd(err_fd)

    def close(self) -> None:
        """Leave the queues, and give back what the connection held; each part also if another cannot be."""
        with contextlib.ExitStack() as parts:
            self._close_in(parts)
            for index in self._kicks.watched:
                parts.callback(self._leave_queue, index)

    def _close_in(self, parts: contextlib.ExitStack) -> None:
        parts.callback(self._connection.close)
        for fd in self._backend.close():
            parts.callback(foreign_fds.close, fd)
        parts.callback(self.inflight.close)

    def _take(self, message: Message) -> None:
        message = self._without_others(message)
        events = self._backend.take(message)
        if message.request in _EVENTFDS_THAT_WE_WRITE:
            for fd in message.fds:
                os.set_blocking(fd, False)  # a full one must not hold up the others
        refusal = None
        try:
            for event in events:
                self._act(event)
        except (GuestMemoryError, ValueError) as error:
            refusal = f"{Request(message.request).name} refused: {error}"
            self._not_shared |= isinstance(error, NotSharedError)
            self._log.error("%s", refusal)
        for fd in self._backend.take_unneeded_fds():
            foreign_fds.close(fd)
        answer = self._backend.answer(message, succeeded=refusal is None)
        if answer is None and refusal is not None:
            raise GuestGoneError(refusal)
        self._connection.done(answer)
        if self._config_to_tell:
            self.tell_config_changed()

    def _without_others(self, message: Message) -> Message:
        """The message without descriptors of kinds that nobody may give with it; nothing has touched them yet.

        A queue without its eventfds is one that is polled, for which the protocol has a way (the text,
        "VHOST_USER_SET_VRING_KICK"): it is not kicked or called, and everything else goes on.

        Raises:
            GuestGoneError: there is no way to go on without them.
        """
        allowed = doors.ALLOWED.get(message.request)
        if allowed is None or all(map(allowed.is_kind, message.fds)):
            return message
        given = ", ".join(foreign_fds.describe(fd) for fd in message.fds if not allowed.is_kind(fd))
        reason = f"{Request(message.request).name} comes with {given}, not with {allowed.what}"
        closed = [foreign_fds.close(fd) for fd in message.fds]
        if not all(closed) or not allowed.can_do_without or len(message.payload) != U64.size:
            raise GuestGoneError(reason)
        if message.request not in self._told_unused:
            self._told_unused.add(message.request)
            self._log.error("%s: it is not used", reason)
        return message._replace(payload=U64.pack(decode_u64(message.payload) | NO_FD), fds=())

    def _act(self, event: Event) -> None:
        match event:
            case QueueStarted():
                self._start_queue(event)
            case QueueStopped(index):
                self._stop_queue(index)
            case CallReplaced(index):
                self.call(index)
            case DeviceReset(stopped) | SessionBegun(stopped):
                for index in stopped:
                    self._leave_queue(index)
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
                self._not_shared = False
                self._on_memory_changed()

    def _begin_session(self) -> None:
        """Forget what the session before shared; its queues are left, and the device is reset."""
        self._memory.replace([], [])
        self.inflight.close()
        self.inflight = InflightTracking(QUEUES_MAX)
        self._inflight_kept = (), -1
        self._on_session()

    def _take_over(self, inflight: Inflight, fd: int) -> None:
        """Track in this memory, and go on as the device left it that did before."""
        number = -1 if self._keep is None else self._keep.number_of(fd)
        self.inflight.use(inflight, fd)
        self._inflight_kept = tuple(inflight), number
        left = self.inflight.state
        if left is not None and self._device.take_over(left):
            self.tell_config_changed()

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

    def _start_queue(self, event: QueueStarted) -> None:
        self._serve_queue(event, _place(event), self._backend.vrings.base(event.queue))

    def _serve_queue(self, event: QueueStarted, place: QueuePlace, base: int) -> None:
        index = event.queue
        self._device.start_queue(index, place, base, self.features, self.inflight.region(index))
        self.keep_state()
        self._kicks.watch(index, event.kick_fd, self._device.queues.offered(index))
        self.call(index)  # the call for what was given back before may have been lost

    def _state(self) -> SessionKept:
        """What a successor on this connection needs."""
        assert self._keep is not None
        number_of = self._keep.number_of
        return SessionKept(
            self._backend.state(number_of),
            self._device.keep(),
            [RegionKept(tuple(shared), number_of(fd)) for shared, fd in self._memory.regions],
            *self._inflight_kept,
            self._config_to_tell,
        )

    def _stop_queue(self, index: int) -> None:
        stopped_at = self._leave_queue(index)
        if stopped_at is not None:
            self._backend.vrings.stopped_at(index, stopped_at)

    def _leave_queue(self, index: int) -> int | None:
        """Serve a queue no more; where it stood, if it was served."""
        self._kicks.unwatch(index)
        return self._device.queues.stop(index)


def _place(event: QueueStarted) -> QueuePlace:
    return QueuePlace(event.size, event.address.desc, event.address.avail, event.address.used)
