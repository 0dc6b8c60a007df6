"""A ring may lie across two regions that adjoin in the front-end's addresses."""

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagetide.host.device.balloon import BalloonDevice
from pagetide.host.device.queues.place import QueueLostError
from pagetide.host.memory.guest_memory import GuestMemory
from pagetide.host.memory.ledger import Ledger
from pagetide.host.memory.mapping import GuestMemoryError
from pagetide.linux import memfd_create
from pagetide.memory.guest_ram import GuestRam
from pagetide.virtio.split_ring.ring import place_ring
from pagetide.virtio.vhost_user.payloads import MemoryRegion
from tests.host.device.test_device import PLAIN, REPORTING
from tests.host.guest_ring import GPA, PAGE, RING_PAGES, SIZE, USER, GuestRing

pytestmark = pytest.mark.slow

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
    device.queues.memory_changed()
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


def numbered(pages: int, sizes: list[int], fd: int) -> list[MemoryRegion]:
    """Regions of so many pages each, one after the other, of a file in whose every word is its number."""
    assert sum(sizes) == pages
    os.pwrite(fd, np.arange(pages * PAGE // 8).tobytes(), 0)
    starts = [sum(sizes[:index]) * PAGE for index in range(len(sizes))]
    return [
        MemoryRegion(GPA + start, size * PAGE, USER + start, start) for start, size in zip(starts, sizes, strict=True)
    ]


def test_a_window_on_every_border() -> None:
    """With as many regions as a table can have, each border has a window of its own, and keeps it."""
    sizes = [1, 2, 3, 4] * 8
    fd = memfd_create("many")
    os.ftruncate(fd, sum(sizes) * PAGE)
    regions = numbered(sum(sizes), sizes, fd)
    memory = GuestMemory()
    memory.replace(regions, [os.dup(fd) for _ in regions])
    windows: dict[int, int] = {}
    for _ in range(2):
        for region in regions[1:]:
            address = memory.address_of(region.user_address - 16, 40)
            assert windows.setdefault(region.gpa, address) == address
            first = (region.user_address - USER) // 8 - 2
            assert np.frombuffer(ctypes.string_at(address, 40), np.int64).tolist() == list(range(first, first + 5))
    assert len(memory._seams) == len(regions) - 1
    memory.close()
    os.close(fd)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=12), st.integers(0, 1 << 20), st.integers(8, 2 * PAGE))
def test_any_stretch_is_the_files_or_refused(sizes: list[int], at: int, length_bytes: int) -> None:
    """What one region or two that adjoin hold is as it is in the file; what needs three is a sentence."""
    pages = sum(sizes)
    at, length_bytes = at // 8 * 8 % (pages * PAGE), length_bytes // 8 * 8
    with GuestRing(max(pages, RING_PAGES), PLAIN) as guest:
        regions = numbered(pages, sizes, guest.ram.fd)
        memory = shared(guest, regions)
        ends = [region.mmap_offset_bytes + region.size_bytes for region in regions]
        inner = [end for end in ends if at < end < at + length_bytes]
        if at + length_bytes > ends[-1] or len(inner) > 1:
            with pytest.raises(GuestMemoryError, match=f"no memory region holds {length_bytes} bytes"):
                memory.address_of(USER + at, length_bytes)
        else:
            address = memory.address_of(USER + at, length_bytes)
            found = np.frombuffer(ctypes.string_at(address, length_bytes), np.int64)
            assert (found == np.arange(at // 8, (at + length_bytes) // 8)).all()
        memory.close()


@pytest.mark.parametrize("gone", ["lower", "upper"])
def test_a_ring_across_a_region_that_is_removed_is_lost(guest: GuestRing, gone: str) -> None:
    """The window goes with the region, and the queue is served no more, until the region is there again."""
    guest.place = place_ring(SIZE, GPA + 2 * PAGE - 1040)
    guest.reset_driver()
    regions = halves(2)
    memory = shared(guest, regions)
    device = BalloonDevice(memory, Ledger())
    device.start_queue(REPORTING, guest.queue_place, 0, PLAIN)
    region = regions[0 if gone == "lower" else 1]
    memory.remove(*region[:3])
    assert len(memory._seams) == 0
    with pytest.raises(QueueLostError, match="a queue is not in the guest's memory"):
        device.queues.memory_changed()
    memory.add(region, os.dup(guest.ram.fd))
    device.queues.memory_changed()
    device.start_queue(REPORTING, guest.queue_place, 0, PLAIN)
    guest.add([(RING_PAGES, 1)])
    guest.driver.publish()
    assert device.process(REPORTING, 8).reports == 1
    memory.close()


def test_a_region_elsewhere_that_is_removed_moves_the_ring_and_no_more(guest: GuestRing) -> None:
    """Windows are made anew when the table changes, and a ring across two regions goes on."""
    guest.place = place_ring(SIZE, GPA + 2 * PAGE - 1040)
    guest.reset_driver()
    first, second = halves(2)
    rest = 40 * PAGE
    regions = [
        first,
        second._replace(size_bytes=second.size_bytes - rest),
        MemoryRegion(GPA + PAGES * PAGE - rest, rest, USER + PAGES * PAGE - rest, PAGES * PAGE - rest),
    ]
    memory = shared(guest, regions)
    device = BalloonDevice(memory, Ledger())
    device.start_queue(REPORTING, guest.queue_place, 0, PLAIN)
    for number in range(2):
        guest.add([(RING_PAGES + number, 1)])
        guest.driver.publish()
        assert device.process(REPORTING, 8).reports == 1
        if number == 0:
            memory.remove(*regions[2][:3])
            device.queues.memory_changed()
    assert device.ledger.snapshot()["verified_bytes"] == 2 * PAGE
    memory.close()


_CUT = """
import ctypes, os, sys
from pagetide import bus_error
from pagetide.host.device.queues.place import QueueLostError
from pagetide.host.memory.guest_memory import GuestMemory
from pagetide.virtio.vhost_user.payloads import MemoryRegion

part, unit, flags = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if part != "unguarded":
    bus_error.install()
fds = [os.memfd_create(name, flags) for name in ("lower", "upper")]
memory = GuestMemory()
for number, fd in enumerate(fds):
    os.ftruncate(fd, 2 * unit)
    memory.add(MemoryRegion(number * 2 * unit, 2 * unit, (1 << 40) + number * 2 * unit, 0), os.dup(fd))
border = (1 << 40) + 2 * unit
address = memory.address_of(border - 64, 128)
ctypes.memset(address, 7, 128)
assert not memory.was_cut
os.ftruncate(fds[0 if part == "lower" else 1], 0)
ctypes.memset(address, 9, 128)
assert memory.was_cut and bus_error.fault_count().value == 1
assert ctypes.string_at(address, 128) == bytes([9]) * 128
whole = fds[1 if part == "lower" else 0]
assert os.pread(whole, 64, 2 * unit - 64 if part == "upper" else 0) == bytes([9]) * 64
memory.close()
"""


def cut(part: str, unit: int, flags: int) -> int:
    """Have a process of its own write across a border, one side of which is cut short; its return code."""
    done = subprocess.run(
        [sys.executable, "-c", _CUT, part, str(unit), str(flags)], check=False, capture_output=True, text=True
    )
    assert not done.stderr or done.returncode < 0, done.stderr
    return done.returncode


@pytest.mark.parametrize("part", ["lower", "upper"])
def test_a_file_that_is_cut_short_behind_a_window_is_found_out(part: str) -> None:
    """Either side: the process lives, the access beyond the end is noted, and the other side is as it was written."""
    assert cut(part, PAGE, 0) == 0


def test_without_a_handler_it_would_be_the_end() -> None:
    """The test above can fail."""
    assert cut("unguarded", PAGE, 0) == -7, "SIGBUS"


@pytest.mark.usefixtures("huge_pages")
@pytest.mark.parametrize("part", ["lower", "upper"])
def test_a_file_of_huge_pages_that_is_cut_short_is_found_out(part: str) -> None:
    """There whole huge pages are put in the place of those that are gone."""
    assert cut(part, 2 * MIB, os.MFD_HUGETLB | os.MFD_HUGE_2MB) == 0


@pytest.mark.usefixtures("huge_pages")
@pytest.mark.parametrize("before_bytes", [16, 1040, 1392])
def test_a_ring_across_two_regions_of_huge_pages_is_served(before_bytes: int) -> None:
    """The border is between two huge pages of hugetlbfs; a whole one that is reported goes, and is verified gone."""
    fd = os.memfd_create("huge", os.MFD_CLOEXEC | os.MFD_HUGETLB | os.MFD_HUGE_2MB)
    os.ftruncate(fd, 8 * MIB)
    pages = 8 * MIB // PAGE
    with GuestRing(pages, PLAIN, GuestRam(fd, 8 * MIB)) as guest:
        guest.place = place_ring(SIZE, GPA + 2 * MIB - before_bytes)
        guest.reset_driver()
        regions = [MemoryRegion(GPA, 2 * MIB, USER, 0), MemoryRegion(GPA + 2 * MIB, 6 * MIB, USER + 2 * MIB, 2 * MIB)]
        memory = shared(guest, regions)
        device = BalloonDevice(memory, Ledger())
        device.start_queue(REPORTING, guest.queue_place, 0, PLAIN)
        assert len(memory._seams) == 1
        for unit in (2, 3):
            guest.add([(unit * 512, 512)])
            guest.driver.publish()
            assert device.process(REPORTING, 8).reports == 1
            assert len(guest.driver.take_used()) == 1
        assert device.ledger.snapshot()["verified_bytes"] == 4 * MIB
        assert os.fstat(fd).st_blocks * 512 == 4 * MIB
        memory.close()
