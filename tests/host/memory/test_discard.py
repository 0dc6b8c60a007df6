"""Discarding, on real memory files: what is punched, joined, read back and skipped."""

import errno
import fcntl
import os
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagetide.host.memory.discard import punch_ranges
from pagetide.host.memory.guest_memory import GuestMemory
from pagetide.host.memory.ledger import Ledger
from pagetide.host.memory.presence import gone_bytes, mark_pages
from pagetide.host.memory.punch import punch_hole
from pagetide.host.memory.ranges import (
    RANGE_COLUMNS,
    RANGE_END,
    RANGE_REGION,
    RANGE_START,
    reported_ranges,
    sort_ranges,
)
from pagetide.huge_tmpfs import huge_tmpfs_file
from pagetide.memory.region_map import WHOLE, Region, RegionMap
from pagetide.virtio.vhost_user.payloads import MemoryRegion
from tests.host.memory.file_guest import ranges_of

PAGE = 4096
WRITE = 2
_F_SEAL_FUTURE_WRITE = 0x10  # include/uapi/linux/fcntl.h; forbids punching, too, and may be set while it is mapped


class Descriptor(NamedTuple):
    """One descriptor of an element."""

    gpa: int
    length: int
    flags: int = WRITE


def report(regions: RegionMap, descriptors: list[Descriptor], ledger: Ledger, verify: bool = True) -> int:
    """Discard one element of these descriptors."""
    columns = np.array(descriptors, dtype=np.int64).reshape(len(descriptors), 3)
    gpas, lengths, flags = (np.ascontiguousarray(columns[:, column]) for column in range(3))
    ranges = np.zeros((max(len(descriptors), 1), RANGE_COLUMNS), dtype=np.int64)
    kept = reported_ranges(regions.table, gpas, lengths, flags, len(descriptors), ranges, ledger.words)
    return int(punch_ranges(regions.table, ranges, kept, int(verify), ledger.words))


def resident_pages(fd: int, size_bytes: int) -> set[int]:
    """Pages of the file that hold data, by Python's own walk."""
    pages: set[int] = set()
    position = 0
    while position < size_bytes:
        try:
            position = os.lseek(fd, position, os.SEEK_DATA)
        except OSError:  # ENXIO: a hole to the end
            break
        end = os.lseek(fd, position, os.SEEK_HOLE)
        pages.update(range(position // PAGE, -(-end // PAGE)))
        position = end
    return {page for page in pages if page < size_bytes // PAGE}


def fill(fd: int, pages: int) -> None:
    """Give every page of the file data."""
    os.pwrite(fd, b"\xa5" * (pages * PAGE), 0)


@pytest.fixture
def memory() -> Iterator[int]:
    """A memfd of 64 pages, all of them resident."""
    fd = os.memfd_create("test-discard", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 64 * PAGE)
    fill(fd, 64)
    yield fd
    os.close(fd)


def test_one_block_is_gone_and_its_neighbours_are_not(memory: int) -> None:
    """The pages named become a hole; the pages on both sides keep what was in them."""
    ledger = Ledger()
    regions = RegionMap([Region(0, 64 * PAGE, memory, 0, 0)])
    assert report(regions, [Descriptor(8 * PAGE, 4 * PAGE)], ledger) == 0
    assert resident_pages(memory, 64 * PAGE) == set(range(64)) - {8, 9, 10, 11}
    assert os.pread(memory, PAGE, 7 * PAGE) == os.pread(memory, PAGE, 12 * PAGE) == b"\xa5" * PAGE
    assert (
        ledger.snapshot()
        | {
            "reports": 1,
            "blocks": 1,
            "reported_bytes": 4 * PAGE,
            "discarded_bytes": 4 * PAGE,
            "checked_bytes": 4 * PAGE,
            "verified_bytes": 4 * PAGE,
            "returned_bytes": 4 * PAGE,
            "punches": 1,
        }
        == ledger.snapshot()
    )


def test_adjacent_blocks_are_one_call_in_any_order(memory: int) -> None:
    """Blocks that touch are joined, whatever their order in the element; a gap makes a second call."""
    ledger = Ledger()
    regions = RegionMap([Region(0, 64 * PAGE, memory, 0, 0)])
    blocks = [Descriptor(page * PAGE, PAGE) for page in (5, 3, 20, 4, 2, 21)]
    assert report(regions, blocks, ledger) == 0
    assert ledger.snapshot()["punches"] == 2
    assert resident_pages(memory, 64 * PAGE) == set(range(64)) - {2, 3, 4, 5, 20, 21}


def test_blocks_of_two_regions_are_never_joined(memory: int) -> None:
    """Regions that touch in guest-physical addresses lie apart in the file: each gets its own call, at its place."""
    ledger = Ledger()
    regions = RegionMap([Region(0, 8 * PAGE, memory, 32 * PAGE, 0), Region(8 * PAGE, 8 * PAGE, memory, 0, 0)])
    assert report(regions, [Descriptor(8 * PAGE, PAGE), Descriptor(7 * PAGE, PAGE)], ledger) == 0
    assert ledger.snapshot()["punches"] == 2
    assert resident_pages(memory, 64 * PAGE) == set(range(64)) - {39, 0}


def test_a_block_named_twice_is_counted_once(memory: int) -> None:
    """Overlapping descriptors discard their union; the rest is skipped as repeated."""
    ledger = Ledger()
    regions = RegionMap([Region(0, 64 * PAGE, memory, 0, 0)])
    blocks = [Descriptor(4 * PAGE, 4 * PAGE), Descriptor(4 * PAGE, 4 * PAGE), Descriptor(6 * PAGE, 4 * PAGE)]
    assert report(regions, blocks, ledger) == 0
    assert ledger.words[[2, 3, 5]].tolist() == [12 * PAGE, 6 * PAGE, 6 * PAGE]
    assert ledger.skipped_bytes()["repeated"] == 6 * PAGE


def test_a_file_that_refuses_is_counted_as_failed(memory: int) -> None:
    """A sealed file makes fallocate fail: nothing is discarded, the errno comes back, all is accounted for."""
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    ledger = Ledger()
    regions = RegionMap([Region(0, 64 * PAGE, memory, 0, 0)])
    assert report(regions, [Descriptor(0, 2 * PAGE), Descriptor(8 * PAGE, PAGE)], ledger) == errno.EPERM
    assert ledger.skipped_bytes()["failed"] == 3 * PAGE
    assert ledger.snapshot()["discarded_bytes"] == ledger.snapshot()["checked_bytes"] == 0
    assert len(resident_pages(memory, 64 * PAGE)) == 64


def test_one_file_that_refuses_keeps_nothing_of_the_others_from_going(memory: int) -> None:
    """A report of large and small blocks in two files, one of them sealed: of the other all goes, and all is told."""
    other, large = os.memfd_create("test-other"), 2 << 20
    os.ftruncate(other, 2 * large)
    fill(other, 2 * large // PAGE)
    guest, ledger = GuestMemory(), Ledger()
    guest.add(MemoryRegion(0, 2 * large, 0, 0), other)
    guest.add(MemoryRegion(2 * large, 64 * PAGE, 0, 0), os.dup(memory))
    fcntl.fcntl(memory, fcntl.F_ADD_SEALS, _F_SEAL_FUTURE_WRITE)
    pages = range(0, 32, 2)
    blocks = [Descriptor(gpa + page * PAGE, PAGE) for page in pages for gpa in (0, 2 * large)]
    assert report(guest.region_map, [*blocks, Descriptor(large, large)], ledger) == errno.EPERM
    told = ledger.snapshot()
    assert told["punches"] == 2 * len(pages) + 1
    assert ledger.skipped_bytes()["failed"] == len(pages) * PAGE
    gone_pages = len(pages) + large // PAGE
    assert {told[f"{what}_bytes"] for what in ("discarded", "checked", "verified", "returned")} == {gone_pages * PAGE}
    assert os.fstat(other).st_blocks * 512 == 2 * large - gone_pages * PAGE
    assert len(resident_pages(memory, 64 * PAGE)) == 64
    fill(other, 2 * large // PAGE)
    assert guest.take_refaulted_bytes() == gone_pages * PAGE
    guest.close()


def test_a_region_at_an_odd_place_in_its_file_is_unaligned(memory: int) -> None:
    """A page of the guest that is no page of the file cannot be discarded whole."""
    ledger = Ledger()
    regions = RegionMap([Region(0, 8 * PAGE, memory, 512, 0)])
    assert report(regions, [Descriptor(0, PAGE)], ledger) == 0
    assert ledger.skipped_bytes()["unaligned"] == PAGE
    assert len(resident_pages(memory, 64 * PAGE)) == 64


def test_without_verification_nothing_is_checked(memory: int) -> None:
    """What is not read back is discarded but neither checked nor verified."""
    ledger = Ledger()
    regions = RegionMap([Region(0, 64 * PAGE, memory, 0, 0)])
    assert report(regions, [Descriptor(0, PAGE)], ledger, verify=False) == 0
    snapshot = ledger.snapshot()
    assert (snapshot["discarded_bytes"], snapshot["checked_bytes"], snapshot["verified_bytes"]) == (PAGE, 0, 0)


def test_reading_back_finds_what_is_still_there(memory: int) -> None:
    """Holes and data that alternate are told apart, inside the file and past its end."""
    assert gone_bytes(memory, 8 * PAGE, 8 * PAGE) == 0
    for page in (10, 11, 14):
        assert punch_hole(memory, page * PAGE, PAGE) == 0
    assert gone_bytes(memory, 8 * PAGE, 8 * PAGE) == 3 * PAGE
    assert gone_bytes(memory, 10 * PAGE, 4 * PAGE) == 2 * PAGE
    assert gone_bytes(memory, 60 * PAGE, 8 * PAGE) == 4 * PAGE
    assert gone_bytes(memory, 64 * PAGE, PAGE) == PAGE


def test_a_file_that_cannot_tell_is_not_counted_as_checked() -> None:
    """A pipe has no holes to ask for: reading back answers -1."""
    read_end, write_end = os.pipe()
    assert gone_bytes(read_end, 0, PAGE) == -1
    os.close(read_end)
    os.close(write_end)


@given(st.lists(st.integers(0, 1 << 40), max_size=200))
@settings(max_examples=40)
def test_ranges_are_sorted_whole(starts: list[int]) -> None:
    """Sorting orders ranges by their start and keeps each row together."""
    ranges = ranges_of(*((start, start + 1, start % 7) for start in starts))
    sort_ranges(ranges, len(starts))
    assert ranges[:, RANGE_START].tolist() == sorted(starts)
    assert ranges[:, RANGE_END].tolist() == [start + 1 for start in sorted(starts)]
    assert ranges[:, RANGE_REGION].tolist() == [start % 7 for start in sorted(starts)]


def _hostile(values: st.SearchStrategy[int]) -> st.SearchStrategy[int]:
    return values | st.sampled_from([-(1 << 63), -1, 0, 1, 4095, (1 << 63) - 1, 1 << 52])


_DESCRIPTORS = st.lists(
    st.builds(
        Descriptor,
        st.integers(0, 70).map(lambda page: page * PAGE) | _hostile(st.integers(0, 70 * PAGE)),
        st.integers(0, 12).map(lambda pages: pages * PAGE) | st.sampled_from([0, 1, 4097, (1 << 32) - 1]),
        st.sampled_from([WRITE, WRITE, WRITE, WRITE | 1, 0, 1]),
    ),
    max_size=24,
)


@given(st.lists(_DESCRIPTORS, max_size=3), st.booleans(), st.sampled_from([1, 4, WHOLE // PAGE]))
@settings(max_examples=80)
def test_any_descriptors_do_what_the_model_does(
    elements: list[list[Descriptor]], verify: bool, piece_pages: int
) -> None:
    """Whatever a guest reports: the file's residency and every word of the ledger are the plain model's."""
    fd = os.memfd_create("test-discard-model")
    os.ftruncate(fd, 64 * PAGE)
    fill(fd, 64)
    # Guest-physical pages 0…31 and 40…63, at file pages 16…47 and 50…63 with 0…9 after them: (gpa, pages, file page).
    placed = [(0, 32, 16), (40, 14, 50), (54, 10, 0)]
    piece = piece_pages * PAGE
    regions = RegionMap([Region(gpa * PAGE, pages * PAGE, fd, at * PAGE, 0, 0, piece) for gpa, pages, at in placed])
    ledger = Ledger()
    file_page = {gpa + page: at + page for gpa, pages, at in placed for page in range(pages)}
    resident, expected = set(range(64)), dict.fromkeys(ledger.snapshot(), 0)
    for element in elements:
        assert report(regions, element, ledger, verify) == 0
        expected["reports"] += 1
        seen: set[int] = set()
        before = set(resident)
        for gpa, length, flags in element:
            expected["blocks"] += 1
            expected["reported_bytes"] += length
            named = range(gpa // PAGE, -(-(gpa + length) // PAGE)) if length and abs(gpa) < 1 << 40 else ()
            named = named if len(named) < 100 else ()
            if length == 0:
                expected["zero_length_blocks"] += 1
            elif not flags & WRITE:
                expected["skipped_device_readable_bytes"] += length
            elif not named or not set(named) <= set(file_page):
                expected["skipped_out_of_range_bytes"] += length
            elif gpa % PAGE or length % PAGE:
                expected["skipped_unaligned_bytes"] += length
            else:
                expected["skipped_repeated_bytes"] += PAGE * len(seen & set(named))
                seen |= set(named)
                resident -= {file_page[page] for page in named}
        expected["discarded_bytes"] += PAGE * len(seen)
        if verify:
            expected["checked_bytes"] += PAGE * len(seen)
            expected["verified_bytes"] += PAGE * len(seen)
            expected["returned_bytes"] += PAGE * len(before - resident)
        for page in seen:  # a call begins with a run, where the file does not go on, and at each multiple of a piece
            goes_on = page - 1 in seen and file_page[page] == file_page[page - 1] + 1
            expected["punches"] += not goes_on or file_page[page] % piece_pages == 0
    assert ledger.snapshot() == expected
    assert resident_pages(fd, 64 * PAGE) == resident
    assert expected["reported_bytes"] == expected["discarded_bytes"] + sum(ledger.skipped_bytes().values())
    os.close(fd)


def test_small_pages_are_discarded_in_pieces_and_huge_ones_in_one_call(hugetmpfs: None) -> None:
    """Of 20 MiB that adjoin, calls discard 4 MiB of a memfd each, and all of a file of 2 MiB pages; all is verified."""
    size_bytes = 20 << 20
    for fd, punches in ((os.memfd_create("test-pieces"), 5), (huge_tmpfs_file(size_bytes), 1)):
        os.ftruncate(fd, size_bytes)
        fill(fd, size_bytes // PAGE)
        memory, ledger = GuestMemory(), Ledger()
        memory.add(MemoryRegion(0, size_bytes, 0, 0), fd)
        blocks = [Descriptor(start, 2 << 20) for start in range(0, size_bytes, 2 << 20)]
        assert report(memory.region_map, blocks, ledger) == 0
        assert os.fstat(fd).st_blocks == 0
        told = ledger.snapshot()
        assert (told["punches"], told["verified_bytes"]) == (punches, size_bytes)
        memory.close()


def test_huge_pages_are_discarded_and_verified(hugetmpfs: None) -> None:
    """On 2 MiB pages a whole block goes, and a 4 KiB hole in a large page is told truthfully."""
    huge = 2 << 20
    with os.fdopen(huge_tmpfs_file(4 * huge), "w+b", buffering=0) as file:
        file.truncate(4 * huge)
        fill(file.fileno(), 4 * huge // PAGE)
        ledger = Ledger()
        regions = RegionMap([Region(0, 4 * huge, file.fileno(), 0, 0)])
        assert report(regions, [Descriptor(huge, huge)], ledger) == 0
        assert os.fstat(file.fileno()).st_blocks * 512 == 3 * huge
        assert ledger.snapshot()["verified_bytes"] == huge
        assert report(regions, [Descriptor(2 * huge + 5 * PAGE, PAGE)], ledger) == 0
        still_there = resident_pages(file.fileno(), 4 * huge)
        assert ledger.snapshot()["verified_bytes"] == huge + (0 if (2 * huge) // PAGE + 5 in still_there else PAGE)


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 200)), max_size=8))
def test_marks_are_the_bits_of_the_pages(runs: list[tuple[int, int]]) -> None:
    """Any runs of pages, within a word or over several: their bits are set, and no other."""
    words = np.zeros(8, np.int64)
    expected = np.zeros(512, np.uint8)
    for first, pages in runs:
        mark_pages(words.ctypes.data, first, first + pages, 1)
        expected[first : first + pages] = 1
    assert (np.unpackbits(words.view(np.uint8), bitorder="little") == expected).all()
