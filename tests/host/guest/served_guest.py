"""A guest that a server serves: its RAM and ring, a front-end on the other end of the socket, and its eventfds."""

import os
import select
import socket
from collections.abc import Sequence

import numpy as np

from pagetide.host.device.balloon import FEATURES
from pagetide.memory.guest_ram import Backing
from pagetide.virtio.balloon import Queue, queues
from pagetide.virtio.vhost_user.messages import Request
from pagetide.virtio.vhost_user.payloads import U64, VringAddress
from pagetide.virtio.vhost_user.transport import FrontendChannel
from tests.host.guest_ring import SIZE, GuestRing

TIMEOUT_S = 20.0


class ServedGuest:
    """A guest's memory, driver and front-end, attached and with one queue started, the reporting one unless told.

    Attributes:
        ring: the memory and the driver's half of the queue.
        channel: the front-end.
        index: the started queue's.
    """

    def __init__(
        self,
        sock: socket.socket,
        *,
        pages: int = 1024,
        features: int = int(FEATURES),
        backing: Backing = "memfd",
        with_err: bool = True,
        queue: Queue = Queue.REPORTING,
    ) -> None:
        """Attach over a connected socket; another thread must be serving."""
        self.channel = FrontendChannel(sock, timeout_s=TIMEOUT_S)
        agreed = self.channel.negotiate(features)
        self.ring = GuestRing(pages, agreed, backing)
        self.kick_fd, self.call_fd, self.err_fd = (os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK) for _ in range(3))
        self.index = queues(agreed).index(queue)
        self.channel.set_mem_table([self.ring.region], [self.ring.ram.fd])
        if with_err:
            self.channel.call(Request.SET_VRING_ERR, U64.pack(self.index), (self.err_fd,))
        self.start_queue()

    def start_queue(self, base: int = 0) -> None:
        """Start the queue; the call for elements of an earlier start is taken."""
        place = self.ring.queue_place
        address = VringAddress(
            self.index, 0, place.desc_user_address, place.used_user_address, place.avail_user_address
        )
        self.channel.start_queue(address, SIZE, base, self.kick_fd, self.call_fd)

    def __enter__(self) -> "ServedGuest":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave, and give everything back."""
        self.channel.close()
        for fd in (self.kick_fd, self.call_fd, self.err_fd):
            os.close(fd)
        self.ring.ram.close()

    def submit(self, blocks: Sequence[tuple[int, int]]) -> None:
        """Add one element and kick if the device wants it."""
        self.ring.add(blocks)
        if self.ring.driver.publish():
            os.eventfd_write(self.kick_fd, 1)

    def put(self, buffers: Sequence[tuple[int, int]], *, writable: bool) -> None:
        """Have one element of (gpa, bytes) buffers served, on any queue."""
        gpas, lengths = (np.array(column, np.int64) for column in zip(*buffers, strict=True))
        assert self.ring.driver.add_element(gpas, lengths, writable=writable) is not None
        if self.ring.driver.publish():
            os.eventfd_write(self.kick_fd, 1)
        self.wait_used()

    def wait_used(self) -> list[tuple[int, int]]:
        """Sleep until elements are used, and take them."""
        while not (used := self.ring.driver.take_used()):
            if not self.ring.driver.arm_call():
                wait_readable(self.call_fd)
                os.eventfd_read(self.call_fd)
        return used

    def report(self, blocks: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Report one element and wait for it."""
        self.submit(blocks)
        return self.wait_used()


def wait_readable(fd: int) -> None:
    """Sleep until a descriptor is readable or closed by its peer."""
    assert select.select([fd], [], [], TIMEOUT_S)[0], "nothing came"
