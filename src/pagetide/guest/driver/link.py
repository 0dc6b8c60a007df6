"""The balloon driver's way to a device over vhost-user: negotiation, queues, and the eventfds of kicks and calls.

A link with a socket's path outlives the device. When the device's end closes, `reconnect` tries to find a successor at
the path: it gets the memory in which its predecessor kept track of what was in flight, the guest's memory, and the
queues, which begin at their used index. The driver is not told: its rings, and the eventfds, are the same.
"""

import os
import socket
from typing import NamedTuple, Self

from pagetide.linux import eventfd, eventfd_read, eventfd_write
from pagetide.memory.guest_ram import GuestRam
from pagetide.virtio.balloon import Queue, Status
from pagetide.virtio.split_ring.ring import used_idx
from pagetide.virtio.vhost_user.messages import RemoteProtocolError
from pagetide.virtio.vhost_user.payloads import Inflight, MemoryRegion, VringAddress
from pagetide.virtio.vhost_user.transport import FrontendChannel, PeerGoneError

RECONNECT_FIRST_S = 0.05
"""How long after the first attempt to reconnect that fails the next one is due; then twice as long each time."""

RECONNECT_MAX_S = 1.0
"""The longest time between two attempts."""

_DRIVER = Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK


class _StartedQueue(NamedTuple):
    address: VringAddress
    size: int
    used_gpa: int


def connect(path: str, timeout_s: float = 60.0) -> socket.socket:
    """A connection to a device's socket.

    Raises:
        OSError: nobody listens there, or accepts within the time.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        sock.settimeout(timeout_s)
        sock.connect(path)
    except OSError:
        sock.close()
        raise
    return sock


class VhostUserLink:
    """A BalloonTransport over a connected socket.

    All of guest RAM is one region at guest-physical address 0. The user address of a region only has to be consistent
    (the text, "Memory region description"), so it is the address at which RAM is mapped here.

    Attributes:
        call_fd: the eventfd by which the device calls.
        reconnections: how many devices have taken over.
    """

    call_fd: int
    reconnections: int
    _channel_type = FrontendChannel

    def __init__(self, sock: socket.socket, ram: GuestRam, *, path: str | None = None, timeout_s: float = 60.0) -> None:
        """Take over the socket.

        Args:
            sock: connected to the device.
            ram: the guest's memory.
            path: where to look for a successor when the device has gone; None if there will be none.
            timeout_s: longest wait for each reply, and for a connection.
        """
        self.call_fd, self._kick_fd = eventfd(), eventfd()
        self.reconnections = 0
        self._channel = self._channel_type(sock, timeout_s=timeout_s)
        self._ram = ram
        self._path, self._timeout_s = path, timeout_s
        self._features = 0
        self._status = Status(0)
        self._inflight: tuple[Inflight, int] | None = None
        self._queues: list[_StartedQueue] = []
        self._wait_s = RECONNECT_FIRST_S

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection: the device lets go of the guest's memory."""
        self._channel.close()
        os.close(self.call_fd)
        os.close(self._kick_fd)
        self._drop_inflight()

    @property
    def connection_fd(self) -> int:
        """Readable once the device's end is closed: nothing else comes unasked."""
        return self._channel.fileno()

    @property
    def status(self) -> int:
        """The device status."""
        return self._channel.get_status()

    def take_call(self) -> None:
        """Take what made `call_fd` readable."""
        eventfd_read(self.call_fd)

    def negotiate(self, wanted: int) -> int:
        """Agree on features and share the guest's memory; the features that both sides have."""
        self._queues.clear()
        self._drop_inflight()
        self._features = self._channel.negotiate(wanted)
        self._share_memory()
        self._set_status(_DRIVER)
        return self._features

    def start_queue(self, index: int, size: int, desc_gpa: int, avail_gpa: int, used_gpa: int) -> None:
        """Tell the device where the queue is, in user addresses, and start it.

        What is in flight is tracked in queues of at most as many descriptors as the first one.
        """
        if self._inflight is None:
            self._inflight = self._channel.get_inflight(self._channel.queue_count(len(Queue)), size)
            if self._inflight is not None:
                self._channel.set_inflight(*self._inflight)
        base = self._ram.address
        address = VringAddress(index, 0, base + desc_gpa, base + used_gpa, base + avail_gpa)
        self._channel.start_queue(address, size, 0, self._kick_fd, self.call_fd)
        self._queues.append(_StartedQueue(address, size, used_gpa))

    def driver_ok(self) -> None:
        """Say that the driver is ready."""
        self._set_status(_DRIVER | Status.DRIVER_OK)

    def kick(self, index: int) -> None:
        """Notify the device; all queues share one eventfd."""
        eventfd_write(self._kick_fd)

    def read_config(self, offset: int) -> int:
        """Read 32 bits of the device's configuration."""
        return int.from_bytes(self._channel.get_config(offset, 4), "little")

    def write_config(self, offset: int, value: int) -> None:
        """Write 32 bits of the device's configuration."""
        self._channel.set_config(offset, value.to_bytes(4, "little"))

    def reconnect(self, now_s: float) -> float | None:
        """The device's end has closed: try once to find a successor, and have it go on.

        Returns:
            None if it goes on; otherwise when to try again, on the clock of `now_s`.

        Raises:
            PeerGoneError: there is no path to look for one.
            RemoteProtocolError: a successor lacks what the driver uses, or broke a rule.
            RefusedError: a successor could not do what its predecessor did.
        """
        if self._path is None:
            raise PeerGoneError("the host closed the connection")
        try:
            sock = connect(self._path, self._timeout_s)
            # Another thread may be looking for `connection_fd`: there always is one.
            gone, self._channel = self._channel, FrontendChannel(sock, timeout_s=self._timeout_s)
            gone.close()
            self._resume()
        except (OSError, PeerGoneError):  # nobody there, or gone again
            due_s = now_s + self._wait_s
            self._wait_s = min(2 * self._wait_s, RECONNECT_MAX_S)
            return due_s
        self._wait_s = RECONNECT_FIRST_S
        self.reconnections += 1
        return None

    def _resume(self) -> None:
        features = self._channel.negotiate(self._features)
        if features != self._features:
            missing = self._features & ~features
            raise RemoteProtocolError(f"the device that took over lacks features {missing:#x} that the driver uses")
        self._share_memory()
        if self._inflight is not None:
            self._channel.set_inflight(*self._inflight)
        for queue in self._queues:
            # Whatever was given back is published: the used index is where an orderly stop would have been.
            base = used_idx(self._ram.address + queue.used_gpa)
            self._channel.start_queue(queue.address, queue.size, base, self._kick_fd, self.call_fd)
        self._channel.set_status(self._status)

    def _share_memory(self) -> None:
        region = MemoryRegion(0, self._ram.size_bytes, self._ram.address, 0)
        self._channel.set_mem_table([region], [self._ram.fd])

    def _set_status(self, status: Status) -> None:
        self._status = status
        self._channel.set_status(status)

    def _drop_inflight(self) -> None:
        if self._inflight is not None:
            os.close(self._inflight[1])
            self._inflight = None
