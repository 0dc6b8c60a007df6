"""The life of one connection's queues, without I/O (QEMU's docs/interop/vhost-user.rst, "the text").

The rules, from the text ("Ring states") and from what real front-ends do:

- A queue is started once its size, its addresses and a kick descriptor are known, in whatever order they came, unless
  SET_VRING_ENABLE said 0. The text has a ring disabled until SET_VRING_ENABLE when protocol features are negotiated,
  but Linux's UML negotiates them and never sends it: a kick enables.
- GET_VRING_BASE stops it, as does a kick without a descriptor. So does a new size, address or base; the next kick
  starts it anew.
- SET_VRING_CALL and SET_VRING_ERR may come at any time, before everything else too, and a new one replaces the old.
"""

from collections.abc import Callable

from pagetide.virtio.vhost_user.events import CallReplaced, QueueStarted, QueueStopped
from pagetide.virtio.vhost_user.messages import RemoteProtocolError
from pagetide.virtio.vhost_user.payloads import INDEX_MASK, VringAddress
from pagetide.virtio.vhost_user.state import VringState

VringEvents = tuple[QueueStarted | QueueStopped | CallReplaced, ...]


class _Vring:
    """What is known of a queue; a descriptor is -1 for none."""

    def __init__(self) -> None:
        self.size = 0
        self.address: VringAddress | None = None
        self.base = 0
        self.base_is_given = False
        self.enabled = True
        self.started = self.was_started = False
        self.kick_fd = self.call_fd = self.err_fd = -1


class Vrings:
    """All queues of one connection. What changes one answers what that means for the device.

    Every method raises RemoteProtocolError for a queue that there is not.
    """

    def __init__(self, count: int, give_up_fd: Callable[[int], None]) -> None:
        """Know nothing of so many queues.

        Args:
            count: how many there can be.
            give_up_fd: told of each descriptor that is no longer needed.
        """
        assert 0 < count <= INDEX_MASK + 1
        self._vrings = [_Vring() for _ in range(count)]
        self._give_up_fd = give_up_fd

    def __len__(self) -> int:
        return len(self._vrings)

    @property
    def started(self) -> tuple[int, ...]:
        """The queues that are started."""
        return tuple(index for index, vring in enumerate(self._vrings) if vring.started)

    @property
    def any_is_started(self) -> bool:
        """Whether a queue is started."""
        return True in [vring.started for vring in self._vrings]

    @property
    def any_was_started(self) -> bool:
        """Whether a queue was started since the device was reset, even if none is now."""
        return any(vring.was_started for vring in self._vrings)

    def base(self, index: int) -> int:
        """The available index that a queue begins with, or stood at when it was stopped (GET_VRING_BASE)."""
        return self._vring(index).base

    def call_fd(self, index: int) -> int:
        """A queue's call descriptor as it is now, -1 for none."""
        return self._vring(index).call_fd

    def err_fd(self, index: int) -> int:
        """A queue's error descriptor as it is now, -1 for none."""
        return self._vring(index).err_fd

    def state(self, number_of: Callable[[int], int]) -> list[VringState]:
        """All of it, for a successor; `number_of` says what a descriptor is called there."""
        return [
            VringState(
                vring.size,
                () if vring.address is None else tuple(vring.address),
                vring.base,
                vring.base_is_given,
                vring.enabled,
                vring.started,
                vring.was_started,
                number_of(vring.kick_fd),
                number_of(vring.call_fd),
                number_of(vring.err_fd),
            )
            for vring in self._vrings
        ]

    def restore(self, states: list[VringState], fd_of: Callable[[int], int]) -> tuple[QueueStarted, ...]:
        """Know what a predecessor knew; the queues that are to be served again, from where they stand in memory."""
        started = []
        for index, (vring, state) in enumerate(zip(self._vrings, states, strict=True)):
            vring.size = state.size
            vring.address = VringAddress(*state.address) if state.address else None
            vring.base, vring.base_is_given = state.base, state.base_is_given
            vring.enabled, vring.started, vring.was_started = state.enabled, state.started, state.was_started
            vring.kick_fd, vring.call_fd, vring.err_fd = map(fd_of, (state.kick, state.call, state.err))
            if vring.started and vring.address is not None:
                started.append(QueueStarted(index, vring.size, vring.address, vring.kick_fd))
        return tuple(started)

    def set_size(self, index: int, size: int) -> VringEvents:
        """SET_VRING_NUM."""
        vring = self._vring(index)
        changed, vring.size = vring.size != size, size
        return self._redefined(index, changed)

    def set_address(self, address: VringAddress) -> VringEvents:
        """SET_VRING_ADDR."""
        vring = self._vring(address.queue)
        changed, vring.address = vring.address != address, address
        return self._redefined(address.queue, changed)

    def set_base(self, index: int, base: int) -> VringEvents:
        """SET_VRING_BASE."""
        vring = self._vring(index)
        vring.base, vring.base_is_given = base & 0xFFFF, True
        return self._redefined(index, True)

    def set_kick_fd(self, index: int, fd: int) -> VringEvents:
        """SET_VRING_KICK; -1 for a queue that is polled, which we do not: it is stopped."""
        stopped = self.stop(index)
        self._vring(index).kick_fd = fd
        return stopped + self._start(index)

    def set_call_fd(self, index: int, fd: int) -> VringEvents:
        """SET_VRING_CALL; -1 for none."""
        vring = self._vring(index)
        self._drop(vring.call_fd)
        vring.call_fd = fd
        return (CallReplaced(index),) if vring.started and fd >= 0 else ()

    def set_err_fd(self, index: int, fd: int) -> VringEvents:
        """SET_VRING_ERR; -1 for none."""
        vring = self._vring(index)
        self._drop(vring.err_fd)
        vring.err_fd = fd
        return ()

    def enable(self, index: int, enable: int) -> VringEvents:
        """SET_VRING_ENABLE.

        Raises:
            RemoteProtocolError: it is neither 0 nor 1.
        """
        vring = self._vring(index)
        if enable > 1:
            raise RemoteProtocolError(f"SET_VRING_ENABLE says {enable}, neither 0 nor 1")
        vring.enabled = bool(enable)
        return self._start(index) if vring.enabled else self._pause(index)

    def stop(self, index: int) -> VringEvents:
        """Stop a queue, if it is started (GET_VRING_BASE); it takes a new kick descriptor to start it again."""
        vring = self._vring(index)
        self._drop(vring.kick_fd)
        vring.kick_fd = -1
        return self._pause(index)

    def stopped_at(self, index: int, base: int) -> None:
        """The queue that an event stopped had this available index next, unless SET_VRING_BASE has said otherwise."""
        vring = self._vring(index)
        if not vring.base_is_given:
            vring.base = base

    def reset(self, *, forget: bool) -> tuple[int, ...]:
        """Stop every queue, and have it begin at 0; which were started.

        Args:
            forget: also forget sizes and addresses, and that any was disabled.
        """
        started = self.started
        for index, vring in enumerate(self._vrings):
            self.stop(index)
            vring.base, vring.base_is_given, vring.was_started = 0, False, False
            if forget:
                vring.size, vring.address, vring.enabled = 0, None, True
        return started

    def close(self) -> None:
        """Give up every descriptor."""
        for vring in self._vrings:
            for fd in (vring.kick_fd, vring.call_fd, vring.err_fd):
                self._drop(fd)
            vring.kick_fd = vring.call_fd = vring.err_fd = -1

    def _vring(self, index: int) -> _Vring:
        if index >= len(self._vrings):
            raise RemoteProtocolError(f"there is no queue {index}, only {len(self._vrings)}")
        return self._vrings[index]

    def _redefined(self, index: int, changed: bool) -> VringEvents:
        if self._vrings[index].started:
            return self.stop(index) if changed else ()
        return self._start(index)

    def _start(self, index: int) -> VringEvents:
        """Start a queue, if all that it takes is known."""
        vring = self._vrings[index]
        if vring.started or not vring.size or vring.address is None or not vring.enabled or vring.kick_fd < 0:
            return ()
        vring.started, vring.was_started, vring.base_is_given = True, True, False
        return (QueueStarted(index, vring.size, vring.address, vring.kick_fd),)

    def _pause(self, index: int) -> VringEvents:
        """Stop a queue, if it is started, and keep its kick descriptor."""
        vring = self._vrings[index]
        was_started, vring.started = vring.started, False
        return (QueueStopped(index),) if was_started else ()

    def _drop(self, fd: int) -> None:
        if fd >= 0:
            self._give_up_fd(fd)
