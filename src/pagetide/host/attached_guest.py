"""One guest of the server: its vhost-user connection, its memory and its balloon, joined."""

import contextlib
import functools
import logging
import os
import socket
import time
from collections.abc import Callable

from pagetide import bus_error
from pagetide.host.device import FEATURES, QUEUES_MAX, BalloonDevice, QueuePlace, write_config
from pagetide.host.fd_events import EDGE, READABLE, WRITABLE, FdEvents
from pagetide.host.guest_memory import GuestMemory, GuestMemoryError
from pagetide.host.inflight_memory import InflightMemory, create_inflight
from pagetide.host.lag import Lag
from pagetide.host.ledger import REFAULTED_BYTES, Ledger
from pagetide.host.wishes import Wishes
from pagetide.virtio.balloon import Config, Feature, Queue, Status
from pagetide.virtio.ring import RingError
from pagetide.virtio.vhost_user_backend import VhostUserBackend
from pagetide.virtio.vhost_user_events import (
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
)
from pagetide.virtio.vhost_user_messages import Message, RemoteProtocolError, Request, encode
from pagetide.virtio.vhost_user_transport import Connection, PeerGoneError

ELEMENTS_PER_TURN = 16
"""Most elements served before another guest has its turn."""

_MESSAGES_PER_TURN = 16
_EVENTFDS_THAT_WE_WRITE = (Request.SET_VRING_CALL, Request.SET_VRING_ERR)

_log = logging.getLogger(__name__)


class GuestGoneError(Exception):
    """The guest is to be given up; the message says why."""


class AttachedGuest:
    """One guest. Its methods raise GuestGoneError when it has gone, or broken a rule beyond repair.

    Attributes:
        name: what the log calls it.
        ledger: what was done for it.
        lag: how long reports waited, from when the queue was found ready to when they were given back. A report that
            comes while earlier ones are being served counts from when those came, so no time is told too short.
    """

    name: str
    ledger: Ledger
    lag: Lag

    def __init__(
        self,
        name: str,
        sock: socket.socket,
        ledger: Ledger,
        events: FdEvents,
        on_work: Callable[["AttachedGuest"], None],
        *,
        verify_share: float,
        features: int = int(FEATURES),
        wishes: Wishes | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """Take over a connected socket.

        Args:
            name: what the log calls the guest.
            sock: the connection.
            ledger: where to account for what is done.
            events: where to watch kick descriptors.
            on_work: called whenever `has_work` becomes true.
            verify_share: share of the elements whose discarding is read back.
            features: what to offer the driver.
            wishes: what the host wants of it, and where to note what it comes to want.
            clock_ns: the time, the same as that of `events`.
        """
        self.name = name
        self.ledger = ledger
        self._log = logging.LoggerAdapter(_log, {"guest": name})
        self._events = events
        self._on_work = on_work
        self._connection = Connection(sock)
        self._backend = VhostUserBackend(features, QUEUES_MAX, Config().encode())
        self._memory = GuestMemory()
        self._device = BalloonDevice(self._memory, ledger, verify_share=verify_share)
        self._backend.config = self._device.config
        self._wishes = Wishes() if wishes is None else wishes
        self._device.paused, self._device.inhibited = self._wishes.paused, self._wishes.inhibited
        self.lag = Lag()
        self._clock_ns = clock_ns
        self._since_ns: dict[int, int] = {}
        self._inflight: InflightMemory | None = None
        self._inflight_made_fd = -1
        self._fault_count = bus_error.fault_count()
        self._faults = self._fault_count.value
        self._kick_fds: dict[int, int] = {}
        self._ready: dict[int, None] = {}  # a set that keeps its order
        self._failure_logged = 0
        self._resting = False

    def fileno(self) -> int:
        """The connection's descriptor."""
        return self._connection.fileno()

    @property
    def has_work(self) -> bool:
        """Whether a turn would do something."""
        return bool(self._ready) and not self._resting

    def rest(self) -> None:
        """Hear nothing more from the guest, and serve nothing, until `go_on`: messages and elements wait."""
        self._resting = True
        for fd in (self.fileno(), *self._kick_fds.values()):
            self._events.unwatch(fd)

    def go_on(self, talk: Callable[[], None]) -> None:
        """Hear the guest again: call `talk` when messages come, and look into every queue for what came meanwhile."""
        self._resting = False
        self._events.watch(self.fileno(), READABLE, talk)
        for index, fd in self._kick_fds.items():
            self._events.watch(fd, EDGE, functools.partial(self._make_ready, index))
            self._make_ready(index)

    def close(self) -> None:
        """Give back all that is held for the guest."""
        for index in list(self._kick_fds):
            self._leave_queue(index)
        self._memory.close()
        if self._inflight is not None:
            self._inflight.close()
        for fd in self._backend.close():
            os.close(fd)
        if self._inflight_made_fd >= 0:
            os.close(self._inflight_made_fd)
        self._connection.close()

    def talk(self) -> float:
        """Take what messages have come, and answer them; not more than some at a time.

        Returns:
            The share of this that was in vain: all, for messages return no memory.
        """
        try:
            for _ in range(_MESSAGES_PER_TURN):
                if not self._connection.flush():
                    break
                message = self._connection.receive()
                if message is None:
                    break
                self._take(message)
            # A peer that does not read its replies is not listened to.
            self._events.rewatch(self.fileno(), READABLE if self._connection.flush() else WRITABLE)
        except RemoteProtocolError as error:
            raise GuestGoneError(f"broke the protocol: {error}") from error
        except (PeerGoneError, OSError) as error:
            raise GuestGoneError(f"connection lost: {error}") from error
        self._check_files()
        if self._connection.at_end:
            raise GuestGoneError("disconnected")
        return 1.0

    def turn(self) -> float:
        """Serve one of the queues that have elements waiting, within a turn's limits.

        Returns:
            The share of this that was in vain.
        """
        index = next(iter(self._ready))
        del self._ready[index]
        try:
            call, more, config_changed, in_vain, reports, failure = self._device.process(index, ELEMENTS_PER_TURN)
            self._check_files()
        except RingError as error:
            self._check_files()
            self._fail_queue(index, str(error))
            return 1.0
        if call:
            self._signal(self._backend.vrings.call_fd(index))
        if reports:
            self.lag.note(self._clock_ns() - self._since_ns[index], reports)
        if more:
            self._make_ready(index)
        elif not self.paused:
            self._since_ns.pop(index, None)
        if config_changed:
            self._tell_config_changed()
        if failure and failure != self._failure_logged:
            self._failure_logged = failure
            self._log.error("memory that was given back could not be discarded: fallocate: %s", os.strerror(failure))
        return in_vain

    @property
    def features(self) -> int:
        """What the driver accepted."""
        return self._backend.features

    @property
    def config(self) -> Config:
        """The configuration space as it is now."""
        return Config.decode(bytes(self._device.config))

    @property
    def ram_bytes(self) -> int:
        """Memory that the guest has shared."""
        return self._device.ram_bytes

    @property
    def statistics(self) -> dict[str, int]:
        """The guest's memory statistics as told last, by name."""
        return self._device.statistics

    @property
    def paused(self) -> bool:
        """Whether reports stay in the ring for now, so that none is lost."""
        return self._device.paused

    @paused.setter
    def paused(self, paused: bool) -> None:
        self._wishes.want(paused=paused)
        self._device.paused = paused
        index = self._device.index_of(Queue.REPORTING)
        if not paused and index is not None:
            self._make_ready(index)

    @property
    def inhibited(self) -> bool:
        """Whether nothing of this guest's is discarded."""
        return self._device.inhibited

    @inhibited.setter
    def inhibited(self, inhibited: bool) -> None:
        self._wishes.want(inhibited=inhibited)
        self._device.inhibited = inhibited

    @property
    def hinting(self) -> bool:
        """Whether a round of free page hints is asked for or under way."""
        return self._device.hinting

    def count_refaulted(self) -> None:
        """Look which discarded memory is resident again, and count it in the ledger.

        Raises:
            GuestGoneError: its memory cannot be looked at.
        """
        try:
            self.ledger.words[REFAULTED_BYTES] += self._memory.take_refaulted_bytes()
        except OSError as error:
            raise GuestGoneError(f"its memory cannot be looked at: {error}") from error

    def set_target_bytes(self, target_bytes: int) -> bool:
        """Want the guest to make do with this much memory; False if it cannot be told, and only sees it by polling.

        Raises:
            ValueError: the guest has no memory yet, or the target is negative, or it cannot be kept.
            GuestGoneError: it could not be told because it has gone.
        """
        self._device.set_target_bytes(target_bytes)
        self._wishes.want(target_bytes=target_bytes)
        return self._tell_config_changed()

    def begin_hinting(self) -> bool:
        """Ask for a round of free page hints; False as for `set_target_bytes`.

        Raises:
            ValueError: the guest has not accepted free page hinting.
            GuestGoneError: it could not be told because it has gone.
        """
        if not self.features & Feature.FREE_PAGE_HINT:
            raise ValueError(f"{self.name} has not accepted free page hinting (VIRTIO_BALLOON_F_FREE_PAGE_HINT)")
        self._device.begin_hinting()
        return self._tell_config_changed()

    def request_statistics(self) -> None:
        """Ask for new memory statistics, if the guest has any to tell.

        Raises:
            GuestGoneError: it could not be asked because it has gone.
        """
        asked = self._device.request_statistics()
        self._check_files()
        if asked is not None and asked[1].call:
            self._signal(self._backend.vrings.call_fd(asked[0]))

    def _check_files(self) -> None:
        """Give the guest up if one of its files was cut short: what was read since then is not what it wrote."""
        faults = self._fault_count.value
        if faults == self._faults:
            return
        self._faults = faults
        if self._memory.was_cut or (self._inflight is not None and self._inflight.was_cut):
            raise GuestGoneError("its memory file was cut short while it was in use")

    def _tell_config_changed(self) -> bool:
        told = self._backend.config_changed()
        if told is not None:
            self._tell(*told)
        return told is not None

    def _take(self, message: Message) -> None:
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
            self._log.error("%s", refusal)
        for fd in self._backend.take_unneeded_fds():
            os.close(fd)
        answer = self._backend.answer(message, succeeded=refusal is None)
        if answer is not None:
            self._connection.send(answer)
        elif refusal is not None:
            raise GuestGoneError(refusal)

    def _act(self, event: Event) -> None:
        match event:
            case QueueStarted():
                self._start_queue(event)
            case QueueStopped(index):
                self._stop_queue(index)
            case DeviceReset(stopped):
                for index in stopped:
                    self._leave_queue(index)
                self._device.reset()
            case ConfigWritten(config):
                write_config(self._backend.config, config.offset, config.data)
            case FeaturesSet():
                pass  # they count when a queue is started
            case _:
                self._change_memory(event)

    def _change_memory(
        self, event: MemoryTableSet | MemoryRegionAdded | MemoryRegionRemoved | InflightAsked | InflightGiven
    ) -> None:
        match event:
            case MemoryTableSet(regions, fds):
                self._memory.replace(regions, fds)
                self._device.memory_changed()
            case MemoryRegionAdded(region, fd):
                self._memory.add(region, fd)
            case MemoryRegionRemoved(region):
                self._memory.remove(region.gpa, region.size_bytes, region.user_address)
                self._device.memory_changed()
            case InflightAsked(queue_count, queue_size):
                self._make_inflight(queue_count, queue_size)
            case InflightGiven(inflight, fd):
                given = InflightMemory(inflight, fd, QUEUES_MAX)
                if self._inflight is not None:
                    self._inflight.close()
                self._inflight = given
        self._renew_target()

    def _renew_target(self) -> None:
        """Ask for the same target of what memory there is now."""
        target_bytes = self._wishes.target_bytes
        before = self.config.num_pages
        if target_bytes is not None and self.ram_bytes:
            self._device.set_target_bytes(target_bytes)
            if self.config.num_pages != before:
                self._tell_config_changed()

    def _make_inflight(self, queue_count: int, queue_size: int) -> None:
        inflight, fd = create_inflight(queue_count, queue_size, QUEUES_MAX)
        self._backend.inflight_made(inflight, fd)
        # It is kept until the reply has gone: no message is taken before that, so not a second one of these either.
        if self._inflight_made_fd >= 0:
            os.close(self._inflight_made_fd)
        self._inflight_made_fd = fd

    def _start_queue(self, event: QueueStarted) -> None:
        index, address = event.queue, event.address
        place = QueuePlace(event.size, address.desc, address.avail, address.used)
        inflight = None if self._inflight is None else self._inflight.region(index)
        self._device.start_queue(index, place, self._backend.vrings.base(index), self._backend.features, inflight)
        try:
            self._events.watch(event.kick_fd, EDGE, functools.partial(self._make_ready, index))
        except OSError as error:
            raise GuestGoneError(f"queue {index}'s kick descriptor cannot be waited for: {error}") from error
        self._kick_fds[index] = event.kick_fd
        # Elements may have come before the kick was watched, and the call for earlier ones may have been lost.
        self._make_ready(index)
        self._signal(self._backend.vrings.call_fd(index))

    def _stop_queue(self, index: int) -> None:
        stopped_at = self._leave_queue(index)
        if stopped_at is not None:
            self._backend.vrings.stopped_at(index, stopped_at)

    def _leave_queue(self, index: int) -> int | None:
        """Serve a queue no more; where it stood, if it was served."""
        kick_fd = self._kick_fds.pop(index, None)
        if kick_fd is not None:
            self._events.unwatch(kick_fd)
        self._ready.pop(index, None)
        self._since_ns.pop(index, None)
        return self._device.stop_queue(index)

    def _fail_queue(self, index: int, reason: str) -> None:
        """The driver broke a rule of the ring: say so, and leave its queues alone until it resets the device.

        The driver is told in the ways it has given: NEEDS_RESET in the device status with a notification of a changed
        configuration (virtio 1.2, 2.1.2), and the queue's error descriptor. With neither, the connection is closed.
        """
        self._log.error("queue %d needs a reset: %s", index, reason)
        for started in list(self._kick_fds):
            self._stop_queue(started)
        self._backend.status |= int(Status.NEEDS_RESET)
        err_fd = self._backend.vrings.err_fd(index)
        if not self._tell_config_changed() and err_fd < 0:
            raise GuestGoneError(f"queue {index}: {reason}")
        self._signal(err_fd)

    def _make_ready(self, index: int) -> None:
        self._ready[index] = None
        self._since_ns.setdefault(index, self._events.since_ns)
        self._on_work(self)

    def _signal(self, fd: int) -> None:
        """Signal an eventfd of the guest's, if it gave one: a driver that polls need not."""
        if fd < 0:
            return
        try:
            os.eventfd_write(fd, 1)
        except BlockingIOError:
            return  # full: the call is there already
        except OSError as error:
            raise GuestGoneError(f"cannot be signalled: {error}") from error

    def _tell(self, channel_fd: int, message: Message) -> None:
        """Send a request of ours on the guest's channel for them."""
        with contextlib.suppress(BlockingIOError):  # nobody reads there
            try:
                channel = socket.socket(fileno=channel_fd)
                try:
                    channel.send(encode(message), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                finally:
                    channel.detach()
            except BlockingIOError:
                raise
            except OSError as error:  # it is closed, or no socket at all
                raise GuestGoneError(f"cannot be told on its channel for requests: {error}") from error
