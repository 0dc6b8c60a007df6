"""Balloon devices to put to the test, all with the same few calls: ours, one behind a socket, and QEMU's."""

import contextlib
import os
import select
import socket
import threading
from types import TracebackType
from typing import Protocol, Self

from pagetide.guest.driver import BalloonTransport
from pagetide.guest.vhost_user_link import VhostUserLink
from pagetide.host.ledger import Ledger
from pagetide.host.server import Server
from pagetide.linux import eventfd, eventfd_read, eventfd_write
from pagetide.machine.qemu_device import QemuDevice
from pagetide.memory.guest_ram import GuestRam
from pagetide.virtio.balloon import Status
from pagetide.virtio.vhost_user_transport import PeerGoneError


class DeviceUnderTest(Protocol):
    """A device, and a driver's ways to it."""

    ram: GuestRam

    def connect(self) -> BalloonTransport:
        """A way to the device as a driver finds it that has just been reset."""

    def wait(self, timeout_s: float) -> None:
        """Sleep until the device may have done something, at most this long."""

    @property
    def broken(self) -> bool:
        """Whether the device has given this driver up until a reset."""

    def skipped_bytes(self) -> dict[str, int] | None:
        """What the device says that it did not discard, by reason; None if it cannot say."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class VhostUserDevice:
    """Whatever serves a vhost-user balloon at a socket."""

    def __init__(self, path: str, ram_bytes: int) -> None:
        """Take memory for a guest of this size; nobody is connected yet."""
        self.ram = GuestRam.create(ram_bytes, "memfd")
        self._path = path
        self._links = contextlib.ExitStack()
        self._link: VhostUserLink | None = None

    def _socket(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(self._path)
        except OSError:
            sock.close()
            raise
        return sock

    def connect(self) -> BalloonTransport:
        """Hang up, and connect anew."""
        self._links.close()
        self._link = self._links.enter_context(VhostUserLink(self._socket(), self.ram))
        return self._link

    def wait(self, timeout_s: float) -> None:
        """Sleep until the device calls or hangs up."""
        assert self._link is not None
        if self._link.call_fd in select.select([self._link.call_fd, self._link.connection_fd], [], [], timeout_s)[0]:
            eventfd_read(self._link.call_fd)

    @property
    def broken(self) -> bool:
        """Whether the back-end hung up, or set NEEDS_RESET."""
        assert self._link is not None
        try:
            return bool(self._link.status & Status.NEEDS_RESET)
        except PeerGoneError:
            return True

    def skipped_bytes(self) -> dict[str, int] | None:
        """A back-end does not tell."""
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._links.close()
        self.ram.close()


class OwnDevice(VhostUserDevice):
    """Our server, in a thread of this process, so that its ledger can be read."""

    def __init__(self, ram_bytes: int) -> None:
        """Start the server."""
        super().__init__("", ram_bytes)
        self._server = Server()
        self._ledger = Ledger()
        self._stop_fd = eventfd()
        self._thread = threading.Thread(target=self._server.run, args=(self._stop_fd,), name="server")
        self._thread.start()

    def _socket(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        # The server is its thread's: it is stopped for the moment in which a guest is added.
        self._halt()
        self._server.adopt(theirs, ledger=self._ledger)
        self._thread = threading.Thread(target=self._server.run, args=(self._stop_fd,), name="server")
        self._thread.start()
        return ours

    def skipped_bytes(self) -> dict[str, int] | None:
        """The ledger's account."""
        return self._ledger.skipped_bytes()

    def _halt(self) -> None:
        eventfd_write(self._stop_fd)
        self._thread.join()
        eventfd_read(self._stop_fd)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, trace)
        self._halt()
        self._server.close()
        os.close(self._stop_fd)


class StockQemu:
    """QEMU's own device, played through qtest."""

    def __init__(self, ram_bytes: int, properties: str = "free-page-reporting=on,page-poison=on") -> None:
        """Start QEMU."""
        self._qemu = QemuDevice(ram_bytes, properties=properties)
        self.ram = self._qemu.ram

    def connect(self) -> BalloonTransport:
        """The same PCI device; negotiating resets it."""
        return self._qemu.pci

    def wait(self, timeout_s: float) -> None:
        """QEMU has dealt with a kick when it answers it, or soon after: there is no interrupt to wait for."""
        select.select([], [], [], min(timeout_s, 0.001))

    @property
    def broken(self) -> bool:
        """Whether the device set NEEDS_RESET."""
        return bool(self._qemu.pci.status & Status.NEEDS_RESET)

    def skipped_bytes(self) -> dict[str, int] | None:
        """QEMU does not tell."""
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._qemu.close()
