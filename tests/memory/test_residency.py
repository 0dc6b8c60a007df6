"""Residency: four ways of asking the kernel, one answer."""

import os
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pagetide import linux
from pagetide.memory.guest_ram import Backing, GuestRam
from pagetide.memory.residency import mapped_resident_blocks, resident_blocks, resident_bytes, resident_ranges

PAGE = 4096
WORDS = PAGE // 8
NR_PAGES = 1536
SIZE = NR_PAGES * PAGE
HUGE = 2 << 20


@pytest.fixture
def ram() -> Iterator[GuestRam]:
    """6 MiB of small pages."""
    with GuestRam.create(SIZE, "memfd") as made:
        yield made


def touch(ram: GuestRam, first: int, pages: int) -> None:
    """Write a word in each of these pages, as a guest would."""
    ram.words[first * WORDS : (first + pages) * WORDS : WORDS] = 1


def punch(ram: GuestRam, first: int, pages: int) -> None:
    """Discard these pages, as a host would."""
    linux.punch_hole(ram.fd, first * PAGE, pages * PAGE)


OPERATIONS = st.lists(
    st.tuples(st.sampled_from([touch, punch]), st.integers(0, NR_PAGES - 1), st.integers(1, 600)).map(
        lambda drawn: (drawn[0], drawn[1], min(drawn[2], NR_PAGES - drawn[1]))
    ),
    max_size=12,
)


@settings(max_examples=30)
@given(operations=OPERATIONS, block_pages=st.sampled_from([1, 7, 16, 512, 1024, 4096]))
def test_all_agree(backing: Backing, operations: list[tuple[Callable[..., None], int, int]], block_pages: int) -> None:
    """After any touches and punches, st_blocks, SEEK_DATA and mincore agree; on small pages, with the operations."""
    block_bytes = block_pages * PAGE
    with GuestRam.create(SIZE, backing) as ram:
        pages = np.zeros(NR_PAGES, dtype=np.int64)
        for operation, first, count in operations:
            operation(ram, first, count)
            pages[first : first + count] = operation is touch
        by_seek = resident_blocks(ram.fd, SIZE, block_bytes)
        assert by_seek.tolist() == mapped_resident_blocks(ram.address, SIZE, block_bytes).tolist()
        assert by_seek.sum() == resident_bytes(ram.fd)
        assert by_seek.sum() == sum(end - start for start, end in resident_ranges(ram.fd, 0, SIZE))
        if backing == "memfd":
            expected = [int(pages[at : at + block_pages].sum()) * PAGE for at in range(0, NR_PAGES, block_pages)]
            assert by_seek.tolist() == expected


def test_a_huge_page_is_resident_as_a_whole(hugetmpfs: None) -> None:
    """On huge pages one touched word holds 2 MiB, and a punch of them all frees them all."""
    with GuestRam.create(SIZE, "hugetmpfs") as ram:
        touch(ram, 600, 1)
        assert resident_blocks(ram.fd, SIZE, HUGE).tolist() == [0, HUGE, 0]
        punch(ram, 512, 512)
        assert resident_bytes(ram.fd) == 0


def test_dontneed_frees_nothing_and_a_punch_does(backing: Backing) -> None:
    """MADV_DONTNEED on the shared mapping leaves every byte resident by every count; a punch leaves none."""
    with GuestRam.create(SIZE, backing) as ram:
        touch(ram, 0, NR_PAGES)
        linux.madvise(ram.address, SIZE, linux.MADV_DONTNEED)
        assert resident_bytes(ram.fd) == SIZE
        assert resident_blocks(ram.fd, SIZE, SIZE).tolist() == [SIZE]
        assert mapped_resident_blocks(ram.address, SIZE, SIZE).tolist() == [SIZE]
        punch(ram, 0, NR_PAGES)
        assert resident_bytes(ram.fd) == 0
        assert not resident_blocks(ram.fd, SIZE, PAGE).any()
        assert not mapped_resident_blocks(ram.address, SIZE, PAGE).any()


def test_reading_a_hole_makes_it_resident(ram: GuestRam) -> None:
    """Even a read through the mapping takes memory: a shared file has no common zero page."""
    assert not ram.words[:WORDS].any()
    assert resident_bytes(ram.fd) == PAGE


def test_ranges_stay_within_what_was_asked(ram: GuestRam) -> None:
    """Runs of data are cut at the ends of the range asked for, and joined within it."""
    touch(ram, 10, 10)
    touch(ram, 40, 2)
    assert list(resident_ranges(ram.fd, 0, SIZE)) == [(10 * PAGE, 20 * PAGE), (40 * PAGE, 42 * PAGE)]
    assert list(resident_ranges(ram.fd, 12 * PAGE, 41 * PAGE)) == [(12 * PAGE, 20 * PAGE), (40 * PAGE, 41 * PAGE)]
    assert list(resident_ranges(ram.fd, 20 * PAGE, 40 * PAGE)) == []
    assert list(resident_ranges(ram.fd, 50 * PAGE, SIZE)) == []
    assert list(resident_ranges(ram.fd, PAGE, PAGE)) == []


def test_the_end_of_a_file_is_not_data(ram: GuestRam) -> None:
    """Asking beyond the end of the file finds what there is, and no failure."""
    touch(ram, NR_PAGES - 1, 1)
    assert list(resident_ranges(ram.fd, 0, 2 * SIZE)) == [(SIZE - PAGE, SIZE)]
    assert list(resident_ranges(ram.fd, 2 * SIZE, 3 * SIZE)) == []


def test_what_cannot_tell_fails() -> None:
    """A pipe has no data ranges to tell: the failure is the kernel's, not an empty answer."""
    reader, writer = os.pipe()
    try:
        with pytest.raises(OSError, match="Illegal seek"):
            list(resident_ranges(reader, 0, PAGE))
    finally:
        os.close(reader)
        os.close(writer)


def test_no_memory_has_no_blocks(ram: GuestRam) -> None:
    """Nothing to look at gives no blocks."""
    assert resident_blocks(ram.fd, 0, PAGE).tolist() == []
