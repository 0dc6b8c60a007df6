"""Cloud Hypervisor's and OpenVMM's message sequences, played: neither was run here, since both need KVM.

From their public sources: cloud-hypervisor, virtio-devices/src/vhost_user (generic_vhost_user.rs, vu_common_ctrl.rs,
mod.rs), over rust-vmm's vhost crate (vhost_user/frontend.rs); openvmm, vm/devices/virtio/vhost_user_frontend.
"""

import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from pagetide.host.daemon.server import Server
from pagetide.host.guest.attached import AttachedGuest
from pagetide.virtio.balloon import CONFIG_ACTUAL, CONFIG_NUM_PAGES
from pagetide.virtio.vhost_user.messages import Request
from pagetide.virtio.vhost_user.payloads import (
    ConfigSpace,
    encode_config,
)
from tests.host.guest.front_ends import CloudHypervisor, OpenVmm
from tests.host.guest.served_guest import TIMEOUT_S, wait_readable
from tests.host.guest_ring import PAGE, RING_PAGES


class Served:
    """A server at a socket."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.server = Server()
        self.server.listen(path)
        self._stop_fd = os.eventfd(0)
        self._thread = threading.Thread(target=self.server.run, args=(self._stop_fd,), daemon=True)
        self._thread.start()

    @property
    def attached(self) -> AttachedGuest:
        """The one guest."""
        (guest,) = self.server.guests
        return guest

    def discarded_pages(self) -> int:
        """All that was discarded for reports, and is verified."""
        ledger = self.attached.ledger.snapshot()
        assert ledger["discarded_bytes"] == ledger["verified_bytes"]
        return ledger["verified_bytes"] // PAGE

    def halt(self) -> None:
        """Serve no more; what is asked then is asked in this thread."""
        if self._thread.is_alive():
            os.eventfd_write(self._stop_fd, 1)
            self._thread.join(TIMEOUT_S)

    def close(self) -> None:
        """Leave nothing."""
        self.halt()
        self.server.close()
        os.close(self._stop_fd)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[list[Served]]:
    """A server, and those that come after it."""
    servers = [Served(tmp_path / "vm1.sock")]
    yield servers
    servers[-1].close()


def test_cloud_hypervisor_is_served(served: list[Served]) -> None:
    """Its sequence, a pause, and a reset without a word; a target set meanwhile reaches it on its next channel."""
    played = CloudHypervisor(served[0].path)
    try:
        played.negotiate()
        assert served[0].attached.state == "no driver"
        played.activate()
        played.report(RING_PAGES, 4)
        assert served[0].discarded_pages() == 4
        played.enable(0)
        played.submit(RING_PAGES + 8, 2)
        assert served[0].attached.state == "stopped"
        assert served[0].discarded_pages() == 4
        played.enable(1)
        played.wait_used()
        assert served[0].discarded_pages() == 6
        played.reset()
        assert served[0].attached.state == "stopped"
        assert not served[0].attached.set_target_bytes(512 * PAGE) or served[0].attached.state == "stopped"
        played.ring.reset_driver()
        played.activate()
        assert played.told is not None
        wait_readable(played.told.fileno())
        assert struct.unpack("<III", played.told.recv(64)) == (2, 1, 0)
        assert int.from_bytes(played.read_config(CONFIG_NUM_PAGES, 4), "little") == 512
        played.report(RING_PAGES + 16, 3)
        assert served[0].discarded_pages() == 9
    finally:
        played.close()


@pytest.mark.parametrize("offset", [0, 1, 3, 4, 8, 12, 14, 15, 16, 20, 64, 255, 256, 4088, 4095])
@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_no_access_to_configuration_space_ends_cloud_hypervisor(served: list[Served], offset: int, size: int) -> None:
    """It ends when one fails, and passes on what the driver chooses within the 4 KiB that it maps, before all else."""
    played = CloudHypervisor(served[0].path)
    try:
        played.negotiate()
        data = played.read_config(offset, size)
        assert data == bytes(size)
        played.call(Request.SET_CONFIG, encode_config(ConfigSpace(offset, size, 1, b"\1" * size)))
        written = [
            1 if CONFIG_ACTUAL <= at < CONFIG_ACTUAL + 4 or 12 <= at < 16 else 0 for at in range(offset, offset + size)
        ]
        assert list(played.read_config(offset, size)) == written
    finally:
        played.close()


def test_cloud_hypervisor_reconnects(served: list[Served]) -> None:
    """To a successor, with the available index as the base and the in-flight memory of before."""
    played = CloudHypervisor(served[0].path)
    try:
        played.negotiate()
        played.activate()
        played.report(RING_PAGES, 4)
        served[0].close()
        served.append(Served(played.path))
        played.reconnect()
        played.report(RING_PAGES + 16, 1)
        assert served[1].discarded_pages() == 1
        assert served[1].attached.set_target_bytes(512 * PAGE)
        assert played.told is not None
        wait_readable(played.told.fileno())
    finally:
        played.close()


@pytest.mark.parametrize("end", ["stopped while paused", "stopped", "killed"])
def test_cloud_hypervisor_reconnects_with_a_report_outstanding(served: list[Served], tmp_path: Path, end: str) -> None:
    """Its base is beyond a report that nobody has given back: kept by a pause, or made while nobody served."""
    played = CloudHypervisor(served[0].path)
    try:
        played.negotiate()
        played.activate()
        played.report(RING_PAGES, 4)
        if end == "stopped":
            served[0].close()
        elif end == "killed":
            served[0].halt()  # nothing is said to anybody, and in-flight memory stays in use
        else:
            served[0].attached.wishes.want(paused=True)
            served[0].attached.follow_wishes()
        played.submit(RING_PAGES + 8, 2)
        if end == "stopped while paused":
            served[0].close()
        assert not played.ring.driver.take_used()
        played.path = tmp_path / "vm2.sock"
        served.append(Served(played.path))
        played.reconnect()
        assert played.avail_idx(played.index) == 2, "what it says is the base"
        played.wait_used()
        assert served[1].discarded_pages() == 2
        played.report(RING_PAGES + 16, 1)
        assert served[1].discarded_pages() == 3
    finally:
        played.close()
        if end == "killed":
            served[0].close()


@pytest.mark.parametrize("early", [True, False])
def test_openvmm_is_served(served: list[Served], early: bool) -> None:
    """Its sequence, a stop, and a reset after which memory is not shared again; it has no channel to be told on."""
    played = OpenVmm(served[0].path)
    try:
        played.negotiate(early=early)
        assert served[0].attached.state == "no driver"
        played.start(first=True)
        played.report(RING_PAGES, 4)
        assert served[0].discarded_pages() == 4
        assert not served[0].attached.set_target_bytes(512 * PAGE), "the driver sees it when it looks"
        assert int.from_bytes(played.read_config(CONFIG_NUM_PAGES, 4), "little") == 512
        assert played.read_config(252, 4) == bytes(4)
        played.call(Request.SET_CONFIG, encode_config(ConfigSpace(CONFIG_ACTUAL, 4, 0, b"\7\0\0\0")))
        assert served[0].attached.config.actual == 7
        assert played.stop() == [0, 0, 1]
        assert served[0].attached.state == "stopped"
        played.call(Request.RESET_DEVICE)
        assert served[0].attached.state == "no driver"
        played.ring.reset_driver()
        played.start(first=False)
        played.report(RING_PAGES + 8, 2)
        assert served[0].discarded_pages() == 6
    finally:
        played.close()
