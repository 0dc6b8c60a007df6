"""Balloon devices to put to the test, all with the same few calls: ours, one behind a socket, and QEMU's.

Some of what a device does is asked of it by its host, not by its driver: a target, statistics, a pause. Ours is asked
directly, QEMU through its monitor; behind a socket there is nobody to ask, and a call raises NotTestableError.
"""

import contextlib
import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from typing import Self, cast

from pagetide.conformance.devices.device_under_test import NotTestableError, Probe
from pagetide.conformance.devices.vhost_user_probe import VhostUserProbe
from pagetide.guest.driver.link import connect
from pagetide.host.daemon.server import Server
from pagetide.host.device.balloon import FEATURES
from pagetide.host.guest.attached import AttachedGuest
from pagetide.host.memory.ledger import Ledger
from pagetide.linux import eventfd, eventfd_read, eventfd_write
from pagetide.machine.live.host_warm_up import warm_up_host
from pagetide.machine.qemu.device import QemuDevice
from pagetide.machine.qemu.qmp import QmpError
from pagetide.memory.guest_ram import GuestRam
from pagetide.virtio.balloon import Feature, Stat, Status
from pagetide.virtio.vhost_user.messages import ProtocolFeature
from pagetide.virtio.vhost_user.transport import PeerGoneError

_NOBODY = "a vhost-user socket has no way to ask for that"
_BALLOON = "/machine/peripheral/balloon0"
_EVERYTHING = "free-page-reporting=on,page-poison=on,free-page-hint=on,iothread=iothread0,deflate-on-oom=on"
_LOOK_AGAIN_S = 0.0005
_ANSWER_MAX_S = 10.0
_NEVER_TOLD = (1 << 64) - 1
_QEMU_STATISTICS = {
    "stat-swap-in": Stat.SWAP_IN,
    "stat-swap-out": Stat.SWAP_OUT,
    "stat-major-faults": Stat.MAJFLT,
    "stat-minor-faults": Stat.MINFLT,
    "stat-free-memory": Stat.MEMFREE,
    "stat-total-memory": Stat.MEMTOT,
    "stat-available-memory": Stat.AVAIL,
    "stat-disk-caches": Stat.CACHES,
    "stat-htlb-pgalloc": Stat.HTLB_PGALLOC,
    "stat-htlb-pgfail": Stat.HTLB_PGFAIL,
}


class VhostUserDevice:
    """Whatever serves a vhost-user balloon at a socket."""

    def __init__(self, path: str, ram_bytes: int) -> None:
        """Take memory for a guest of this size; nobody is connected yet."""
        self.ram = GuestRam.create(ram_bytes, "memfd")
        self._path = path
        self._links = contextlib.ExitStack()
        self._link: VhostUserProbe | None = None

    def _socket(self) -> socket.socket:
        return connect(self._path, _ANSWER_MAX_S)

    def connect(self) -> Probe:
        """Hang up, and connect anew."""
        self._links.close()
        self._link = self._links.enter_context(VhostUserProbe(self._socket(), self.ram, timeout_s=_ANSWER_MAX_S))
        return self._link

    def wait(self, timeout_s: float) -> bool:
        """Sleep until the device calls or hangs up."""
        assert self._link is not None
        ready = select.select([self._link.call_fd, self._link.connection_fd, self._link.err_fd], [], [], timeout_s)[0]
        if self._link.call_fd not in ready:
            return False
        eventfd_read(self._link.call_fd)
        return True

    @property
    def broken(self) -> bool:
        """Whether the back-end hung up, set NEEDS_RESET, or signalled an error of a queue."""
        assert self._link is not None
        try:
            needs_reset = self.tells_broken and bool(self._link.status & Status.NEEDS_RESET)
            return needs_reset or self._link.told_of_error or self._link.offered < 0
        except PeerGoneError:
            return True

    @property
    def tells_broken(self) -> bool:
        """Only a device status must be used for that: the descriptor for errors may be left alone."""
        assert self._link is not None
        return self._link.has(ProtocolFeature.STATUS)

    def account(self) -> dict[str, int] | None:
        """A back-end does not tell."""
        return None

    def set_target_bytes(self, target_bytes: int) -> None:
        """A socket has no way to ask."""
        raise NotTestableError(_NOBODY)

    def ask_for_statistics(self) -> None:
        """A socket has no way to ask."""
        raise NotTestableError(_NOBODY)

    def statistics(self) -> dict[str, int]:
        """A socket has no way to ask."""
        raise NotTestableError(_NOBODY)

    def begin_hinting(self) -> None:
        """A socket has no way to ask."""
        raise NotTestableError(_NOBODY)

    def pause(self, *, paused: bool) -> None:
        """A socket has no way to ask."""
        raise NotTestableError(_NOBODY)

    def inhibit(self, *, inhibited: bool) -> None:
        """A socket has no way to ask."""
        raise NotTestableError(_NOBODY)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._links.close()
        self.ram.close()


class OwnDevice(VhostUserDevice):
    """Our server, in a thread of this process, so that it can be asked and its ledger be read."""

    def __init__(self, ram_bytes: int) -> None:
        """Start the server."""
        super().__init__("", ram_bytes)
        warm_up_host()  # a vector does not wait for a compiler
        self._server = Server(features=int(FEATURES | Feature.DEVICE_INIT_REPORTED))
        self._ledger = Ledger()
        self._guest: AttachedGuest | None = None
        self._stop_fd = eventfd()
        self._go_on()

    def _socket(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with self._halted():
            self._guest = self._server.adopt(theirs, ledger=self._ledger)
        return ours

    def account(self) -> dict[str, int] | None:
        """The ledger."""
        return self._ledger.snapshot()

    def set_target_bytes(self, target_bytes: int) -> None:
        """As `pagetide ctl set`."""
        with self._halted() as guest:
            guest.set_target_bytes(target_bytes)

    def ask_for_statistics(self) -> None:
        """As `pagetide serve --stats-interval` does."""
        with self._halted() as guest:
            guest.request_statistics()

    def statistics(self) -> dict[str, int]:
        """As in `pagetide ctl show`."""
        with self._halted() as guest:
            return guest.statistics

    def begin_hinting(self) -> None:
        """Begin a round."""
        with self._halted() as guest:
            guest.begin_hinting()

    def pause(self, *, paused: bool) -> None:
        """As `pagetide ctl pause` and `resume`."""
        with self._halted() as guest:
            guest.wishes.want(paused=paused)
            guest.follow_wishes()

    def inhibit(self, *, inhibited: bool) -> None:
        """As `pagetide ctl inhibit` and `uninhibit`."""
        with self._halted() as guest:
            guest.wishes.want(inhibited=inhibited)
            guest.follow_wishes()

    @contextlib.contextmanager
    def _halted(self) -> Iterator[AttachedGuest]:
        """The guest, for a moment in which its server, which is a thread's, is stopped."""
        self._halt()
        try:
            yield cast(AttachedGuest, self._guest)
        finally:
            self._go_on()

    def _go_on(self) -> None:
        self._thread = threading.Thread(target=self._server.run, args=(self._stop_fd,), name="server")
        self._thread.start()

    def _halt(self) -> None:
        eventfd_write(self._stop_fd)
        self._thread.join()
        eventfd_read(self._stop_fd)

    def __exit__(self, *raised: object) -> None:
        super().__exit__(*raised)
        self._halt()
        self._server.close()
        os.close(self._stop_fd)


class StockQemu:
    """QEMU's own device, its driver played through qtest, and asked through its monitor."""

    def __init__(self, ram_bytes: int) -> None:
        """Start QEMU, its balloon with every feature that it has."""
        self._qemu = QemuDevice(ram_bytes, properties=_EVERYTHING)
        self.ram = self._qemu.ram
        try:
            self._qemu.qmp.ask("cont")  # statistics are asked for by the machine's clock
        except QmpError:
            self._qemu.close()
            raise

    def connect(self) -> Probe:
        """The same PCI device, reset."""
        self._qemu.pci.reset()
        self._poll_statistics(0)
        return self._qemu.pci

    def wait(self, timeout_s: float) -> bool:
        """Look again and again whether the device has raised its interrupt."""
        end_s = time.monotonic() + timeout_s
        while not self._qemu.pci.take_queue_notification():
            if time.monotonic() >= end_s:
                return False
            select.select([], [], [], min(timeout_s, _LOOK_AGAIN_S))
        return True

    @property
    def broken(self) -> bool:
        """Whether the device set NEEDS_RESET."""
        return bool(self._qemu.pci.status & Status.NEEDS_RESET)

    tells_broken = True

    def account(self) -> dict[str, int] | None:
        """QEMU does not tell."""
        return None

    def set_target_bytes(self, target_bytes: int) -> None:
        """QMP's `balloon`."""
        self._qemu.qmp.ask("balloon", value=target_bytes)

    def ask_for_statistics(self) -> None:
        """Every second from now on, which is the shortest interval that QEMU has."""
        self._poll_statistics(1)

    def statistics(self) -> dict[str, int]:
        """The property `guest-stats`; what was never told is 2^64 - 1 there."""
        told = self._qemu.qmp.ask("qom-get", path=_BALLOON, property="guest-stats")["stats"]
        known = {_QEMU_STATISTICS[name]: value for name, value in told.items() if name in _QEMU_STATISTICS}
        return {stat.name.lower(): value for stat, value in known.items() if value != _NEVER_TOLD}

    def begin_hinting(self) -> None:
        """Only a migration begins one."""
        raise NotTestableError("QEMU begins a round of hints only when it migrates the guest")

    def pause(self, *, paused: bool) -> None:
        """The nearest that QEMU has: the whole machine is stopped."""
        self._qemu.qmp.ask("stop" if paused else "cont")

    def inhibit(self, *, inhibited: bool) -> None:
        """Only a device assigned to the guest makes QEMU do so."""
        raise NotTestableError("QEMU inhibits discarding only for a guest with an assigned device")

    def _poll_statistics(self, interval_s: int) -> None:
        """Have QEMU ask for statistics so often; 0 for never."""
        self._qemu.qmp.ask("qom-set", path=_BALLOON, property="guest-stats-polling-interval", value=interval_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._qemu.close()
