"""A driver is not told that its daemon was killed: what it told the first one, the next one knows."""

import contextlib
import select
import signal
from pathlib import Path

import numpy as np
import pytest

from pagetide.guest.driver.link import VhostUserLink, connect
from pagetide.host.device.balloon import FEATURES
from pagetide.memory.guest_ram import GuestRam
from pagetide.memory.residency import resident_bytes
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.virtio.balloon import CONFIG_ACTUAL, CONFIG_POISON_VAL, Queue, queues
from pagetide.virtio.split_ring.driver import DriverRing
from pagetide.virtio.split_ring.ring import place_ring
from tests.host.daemon.process import Daemon, show
from tests.host.guest.served_guest import TIMEOUT_S, wait_readable

pytestmark = pytest.mark.slow

PAGES = 64
SIZE = 16
POISON = 0xAAAAAAAA


class Guest:
    """A guest whose front-end finds a successor of its device."""

    def __init__(self, path: Path, resources: contextlib.ExitStack) -> None:
        self.ram = resources.enter_context(GuestRam.create(PAGES * PAGE_SIZE_BYTES, "memfd"))
        self.ram.words[:] = -1
        self.link = resources.enter_context(VhostUserLink(connect(str(path)), self.ram, path=str(path)))
        features = self.link.negotiate(int(FEATURES))
        place = place_ring(SIZE, PAGE_SIZE_BYTES)
        self.ring = DriverRing(
            SIZE,
            ram_address=self.ram.address,
            place=place,
            event_idx=True,
        )
        self._index = queues(features).index(Queue.REPORTING)
        self.link.start_queue(self._index, SIZE, place.desc_gpa, place.avail_gpa, place.used_gpa)
        self.link.driver_ok()

    def report(self, page: int) -> int:
        """Report a page; how many pages are resident once it is back."""
        assert (
            self.ring.add_element(np.array([page * PAGE_SIZE_BYTES]), np.array([PAGE_SIZE_BYTES]), writable=True)
            is not None
        )
        self.ring.publish()
        self.link.kick(self._index)
        while not self.ring.take_used():
            if not self.ring.arm_call():
                wait_readable(self.link.call_fd)
                self.link.take_call()
        return resident_bytes(self.ram.fd) // PAGE_SIZE_BYTES

    def reconnect(self) -> None:
        """Find the device's successor, which listens already."""
        assert select.select([self.link.connection_fd], [], [], TIMEOUT_S)[0]
        assert self.link.reconnect(0.0) is None


@pytest.mark.parametrize("poison", [POISON, 0])
def test_poison_and_balloon_outlive_a_killed_daemon(
    poison: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pages that must keep their poison keep it at the next daemon; others are discarded; `actual` is as it was."""
    first = Daemon(tmp_path)
    second = None
    with contextlib.ExitStack() as resources:
        try:
            guest = Guest(tmp_path / "one.sock", resources)
            guest.link.write_config(CONFIG_POISON_VAL, poison)
            guest.link.write_config(CONFIG_ACTUAL, 5)
            assert guest.report(10) == PAGES - (poison == 0)
            first.stop(signal.SIGKILL)
            second = Daemon(tmp_path)
            guest.reconnect()
            assert guest.report(11) == PAGES - 2 * (poison == 0)
            shown = show(second, "one", capsys)
            assert shown["balloon_bytes"] == 5 * PAGE_SIZE_BYTES
            assert isinstance(shown["ledger"], dict)
            assert (shown["ledger"]["skipped_poisoned_bytes"] > 0) == (poison != 0)
            assert guest.link.read_config(CONFIG_POISON_VAL) == poison
        finally:
            for daemon in (first, second):
                if daemon is not None:
                    daemon.close()
