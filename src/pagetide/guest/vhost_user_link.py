"""The balloon driver's way to a device over vhost-user: negotiation, queues, and the eventfds of kicks and calls."""

import os
import socket
from typing import Self

from pagetide.linux import eventfd, eventfd_write
from pagetide.memory.guest_ram import GuestRam
from pagetide.virtio.balloon import Status
from pagetide.virtio.vhost_user_messages import MemoryRegion, VringAddress
from pagetide.virtio.vhost_user_transport import FrontendChannel


class VhostUserLink:
    """A BalloonTransport over a connected socket.

    All of guest RAM is one region at guest-physical address 0. The user address of a region only has to be consistent
    (the text, "Memory region description"), so it is the address at which RAM is mapped here.

    Attributes:
        call_fd: the eventfd by which the device calls.
    """

    call_fd: int

    def __init__(self, sock: socket.socket, ram: GuestRam, *, timeout_s: float = 60.0) -> None:
        """Take over the socket; the timeout is for each reply."""
        self.call_fd = eventfd()
        self._kick_fds: dict[int, int] = {}
        self._channel = FrontendChannel(sock, timeout_s=timeout_s)
        self._ram = ram

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection: the device lets go of the guest's memory."""
        self._channel.close()
        os.close(self.call_fd)
        for fd in self._kick_fds.values():
            os.close(fd)

    @property
    def connection_fd(self) -> int:
        """Readable once the device's end is closed: nothing else comes unasked."""
        return self._channel.fileno()

    @property
    def status(self) -> int:
        """The device status."""
        return self._channel.get_status()

    def negotiate(self, wanted: int) -> int:
        """Agree on features and share the guest's memory; the features that both sides have."""
        features = self._channel.negotiate(wanted)
        region = MemoryRegion(0, self._ram.size_bytes, self._ram.address, 0)
        self._channel.set_mem_table([region], [self._ram.fd])
        self._channel.set_status(Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK)
        return features

    def start_queue(self, index: int, size: int, desc_gpa: int, avail_gpa: int, used_gpa: int) -> None:
        """Tell the device where the queue is, in user addresses, and start it."""
        base = self._ram.address
        address = VringAddress(index, 0, base + desc_gpa, base + used_gpa, base + avail_gpa)
        self._kick_fds[index] = eventfd()
        self._channel.start_queue(address, size, 0, self._kick_fds[index], self.call_fd)

    def driver_ok(self) -> None:
        """Say that the driver is ready."""
        self._channel.set_status(Status.ACKNOWLEDGE | Status.DRIVER | Status.FEATURES_OK | Status.DRIVER_OK)

    def kick(self, index: int) -> None:
        """Notify the device that this queue has elements."""
        eventfd_write(self._kick_fds[index])

    def read_config(self, offset: int) -> int:
        """Read 32 bits of the device's configuration."""
        return int.from_bytes(self._channel.get_config(offset, 4), "little")

    def write_config(self, offset: int, value: int) -> None:
        """Write 32 bits of the device's configuration."""
        self._channel.set_config(offset, value.to_bytes(4, "little"))
