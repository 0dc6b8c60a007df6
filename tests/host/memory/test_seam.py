"""A ring may lie across two regions that adjoin in the front-end's addresses."""

import ctypes
import os
from collections.abc import Iterator

import pytest

from pagetide.host.device.balloon import BalloonDevice
from pagetide.host.memory.guest_memory import GuestMemory
from pagetide.host.memory.ledger import Ledger
from pagetide.host.memory.mapping import GuestMemoryError
from pagetide.linux import memfd_create
from pagetide.virtio.split_ring.ring import place_ring
from pagetide.virtio.vhost_user.payloads import MemoryRegion
from tests.host.device.test_device import PLAIN, REPORTING
from tests.host.guest_ring import GPA, PAGE, RING_PAGES, SIZE, USER, GuestRing

pytestmark = pytest.mark.alone

PAGES = 64
MIB = 1 << 20


def halves(border_pages: int, *, apart: bool = False) -> list[MemoryRegion]:
    """The memory as two regions, which adjoin; or do only in the guest's addresses."""
    first = border_pages * PAGE
    shift = PAGE if apart else 0
    return [
        MemoryRegion(GPA, first, USER, 0),
        MemoryRegion(GPA + first, PAGES * PAGE - first, USER + first + shift, first),
    ]


def shared(guest: GuestRing, regions: list[MemoryRegion]) -> GuestMemory:
    """The guest's memory in these regions."""
    memory = GuestMemory()
    for region in regions:
        memory.add(region, os.dup(guest.ram.fd))
    return memory


@pytest.fixture
def guest() -> Iterator[GuestRing]:
    """A guest whose ring has no indirect tables."""
    with GuestRing(PAGES, PLAIN) as guest:
        yield guest


@pytest.mark.parametrize("before_bytes", [16, 512, 1024, 1040, 1152, 1168, 1680])
def test_a_ring_across_two_regions_is_served(guest: GuestRing, before_bytes: int) -> None:
    """Wherever the border is: in the table, the available or the used ring, or between them."""
    guest.place = place_ring(SIZE, GPA + 2 * PAGE - before_bytes)
    guest.reset_driver()
    memory = shared(guest, halves(2))
    device = BalloonDevice(memory, Ledger())
    device.start_queue(REPORTING, guest.queue_place, 0, PLAIN)
    for page in range(RING_PAGES, RING_PAGES + 40):
        guest.add([(page, 1)])
        guest.driver.publish()
        assert device.process(REPORTING, 8).reports == 1
        assert len(guest.driver.take_used()) == 1
    assert device.ledger.snapshot()["verified_bytes"] == 40 * PAGE
    memory.replace(halves(2), [os.dup(guest.ram.fd) for _ in range(2)])
    device.memory_changed()
    guest.add([(RING_PAGES, 1)])
    guest.driver.publish()
    assert device.process(REPORTING, 8).reports == 1
    memory.close()


def test_what_lies_across_is_the_files(guest: GuestRing) -> None:
    """Each byte on both sides of the border, for stretches that begin anywhere before it."""
    memory = shared(guest, halves(2))
    border = USER + 2 * PAGE
    for before in (1, 7, 100, PAGE, 2 * PAGE):
        address = memory.address_of(border - before, before + 300)
        found = ctypes.string_at(address, before + 300)
        assert found == os.pread(guest.ram.fd, before + 300, 2 * PAGE - before)
        ctypes.memset(address + before - 1, before, 2)
        assert os.pread(guest.ram.fd, 2, 2 * PAGE - 1) == bytes([before % 256]) * 2
    assert len(memory._seams) == 1, "one window for all"
    memory.close()
    assert len(memory._seams) == 0


def test_what_does_not_adjoin_for_the_front_end_is_refused(guest: GuestRing) -> None:
    """Guest-physical addresses do not decide, and nothing lies beyond the last region."""
    memory = shared(guest, halves(2, apart=True))
    with pytest.raises(GuestMemoryError, match="no memory region holds 200 bytes"):
        memory.address_of(USER + 2 * PAGE - 100, 200)
    memory.close()
    memory = shared(guest, halves(2))
    with pytest.raises(GuestMemoryError, match="no memory region holds"):
        memory.address_of(USER + PAGES * PAGE - 100, 200)
    memory.close()


def test_a_border_within_a_huge_page_is_a_sentence() -> None:
    """Where a file's pages are too large to be put beside another file's, the front-end is told so."""
    with pytest.MonkeyPatch.context() as patch:
        fds = [memfd_create("one"), memfd_create("other")]
        for fd in fds:
            os.ftruncate(fd, 4 * MIB)
        memory = GuestMemory()
        memory.add(MemoryRegion(GPA, MIB, USER, 0), fds[0])
        memory.add(MemoryRegion(GPA + MIB, MIB, USER + MIB, 0), fds[1])
        real = os.fstatvfs

        class Huge:
            f_bsize = 2 * MIB

        patch.setattr(os, "fstatvfs", lambda fd: Huge if fd == fds[0] else real(fd))
        with pytest.raises(GuestMemoryError, match="within a page of 2097152 bytes of a file"):
            memory.address_of(USER + MIB - 100, 200)
        memory.close()
