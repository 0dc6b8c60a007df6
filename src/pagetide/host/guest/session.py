"""One guest's vhost-user connection: its messages are taken, acted on (effects.py) and answered."""

import contextlib
import logging
import os
import socket
from collections.abc import Callable

from pagetide import foreign_fds
from pagetide.host.device.balloon import QUEUES_MAX, BalloonDevice
from pagetide.host.device.kept_state import GuestKept, RegionKept, SessionKept
from pagetide.host.guest.doors import Door
from pagetide.host.guest.effects import Effects
from pagetide.host.guest.fd_events import READABLE, WRITABLE, FdEvents
from pagetide.host.guest.gone import GuestGoneError
from pagetide.host.guest.keep import Keep
from pagetide.host.guest.kept_connection import KeptConnection
from pagetide.host.guest.kicks import Kicks
from pagetide.host.guest.signals import Notices
from pagetide.host.memory.guest_memory import GuestMemory
from pagetide.host.memory.mapping import GuestMemoryError
from pagetide.virtio.balloon import Status
from pagetide.virtio.vhost_user.backend import VhostUserBackend
from pagetide.virtio.vhost_user.messages import Message, RemoteProtocolError, Request
from pagetide.virtio.vhost_user.payloads import Inflight, MemoryRegion
from pagetide.virtio.vhost_user.transport import Connection, PeerGoneError

_NEEDS_RESET = int(Status.NEEDS_RESET)  # bits of an enumeration take ten times as long as numbers
_MESSAGES_PER_TURN = 16
_EVENTFDS_THAT_WE_WRITE = (Request.SET_VRING_CALL, Request.SET_VRING_ERR)


class VhostUserSession:
    """A connection, from its first message to its end. Its methods raise GuestGoneError when that has come.

    Attributes:
        effects: what its messages do.
        notices: what the driver is told without having asked.
    """

    effects: Effects
    notices: Notices

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
        self._events = events
        self._memory = memory
        self._device = device
        self._kicks = kicks
        self._unread = self._left = False
        self._log = log
        self._keep = keep
        if keep is None or describe is None:
            self._connection = Connection(sock)
        else:
            self._connection = KeptConnection(sock, keep, lambda: describe(self._state()))
        self._door = Door(log)
        self._backend = VhostUserBackend(features, QUEUES_MAX, device.config.data)
        self.notices = Notices(self._backend, self._connection)
        self.effects = Effects(
            memory,
            device,
            kicks,
            self._backend,
            self._connection,
            self.notices,
            keep=keep,
            on_memory_changed=on_memory_changed,
            on_session=on_session,
            log=log,
        )

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
        if self._backend.status & _NEEDS_RESET:
            return "needs reset"
        if self.effects.not_shared:
            return "no shared memory"
        if self._backend.driver_is_there:
            return ""
        vrings = self._backend.vrings
        return "stopped" if vrings.any_was_started and not vrings.any_is_started else "no driver"

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

    @property
    def may_be_behind(self) -> bool:
        """Whether messages may be there that `talk` has left for later."""
        return self._unread or self._left

    @property
    def is_behind(self) -> bool:
        """Whether there are such messages: a kick is not served before what was sent before it."""
        return self.may_be_behind and self._connection.has_more

    def talk(self) -> int:
        """Take what messages have come, and answer them; not more than some at a time. How many there were.

        Raises:
            GuestGoneError: the connection was lost, or the peer broke the protocol.
        """
        taken, self._left = 0, False
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
            self._left = taken == _MESSAGES_PER_TURN and self._connection.has_more
            # A peer that does not read its replies is not listened to.
            self._unread = not self._connection.flush()
            self._events.rewatch(self.fileno(), WRITABLE if self._unread else READABLE)
        except RemoteProtocolError as error:
            raise GuestGoneError(f"broke the protocol: {error}") from error
        except (PeerGoneError, BrokenPipeError, ConnectionResetError) as error:
            raise GuestGoneError(f"disconnected: {error}", left=True) from error
        except OSError as error:
            raise GuestGoneError(f"connection lost: {error}") from error
        return taken

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
                self.effects.inflight_kept = kept.inflight, kept.inflight_fd
                self.effects.inflight.use(Inflight(*kept.inflight), fd_of(kept.inflight_fd))
            for event in () if self._backend.status & _NEEDS_RESET else started:
                self.effects.go_on_with_queue(event)
        except (GuestMemoryError, ValueError, OSError) as error:
            raise GuestGoneError(f"cannot be taken over: {error}") from error
        if to_tell:
            self.notices.config_changed()
        self._events.rewatch(self.fileno(), READABLE | WRITABLE)  # a reply may not have gone yet

    def let_go(self) -> None:
        """Leave everything as it is for a successor, and close it here."""
        with contextlib.ExitStack() as parts:
            self._close_in(parts)
            for index in self._kicks.watched:
                parts.callback(self._kicks.unwatch, index)

    def close(self) -> None:
        """Leave the queues, and give back what the connection held; each part also if another cannot be."""
        with contextlib.ExitStack() as parts:
            self._close_in(parts)
            for index in self._kicks.watched:
                parts.callback(self.effects.leave_queue, index)

    def _close_in(self, parts: contextlib.ExitStack) -> None:
        parts.callback(self._connection.close)
        for fd in self._backend.close():
            parts.callback(foreign_fds.close, fd)
        parts.callback(self.effects.inflight.close)

    def _take(self, message: Message) -> None:
        message = self._door.admit(message)
        events = self._backend.take(message)
        if message.request in _EVENTFDS_THAT_WE_WRITE:
            for fd in message.fds:
                os.set_blocking(fd, False)  # a full one must not hold up the others
        refusal = None
        try:
            for event in events:
                self.effects.act(event)
        except (GuestMemoryError, ValueError) as error:
            refusal = f"{Request(message.request).name} refused: {error}"
            self._log.error("%s", refusal)
        for fd in self._backend.take_unneeded_fds():
            foreign_fds.close(fd)
        answer = self._backend.answer(message, succeeded=refusal is None)
        if answer is None and refusal is not None:
            raise GuestGoneError(refusal)
        self._connection.done(answer)
        if self.notices.untold:
            self.notices.config_changed()

    def _state(self) -> SessionKept:
        """What a successor on this connection needs."""
        assert self._keep is not None
        number_of = self._keep.number_of
        return SessionKept(
            self._backend.state(number_of),
            self._device.keep(),
            [RegionKept(tuple(shared), number_of(fd)) for shared, fd in self._memory.regions],
            *self.effects.inflight_kept,
            self.notices.untold,
        )
