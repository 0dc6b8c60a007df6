"""Guest memory on hugetlbfs, where only whole huge pages can be given back.

A punch frees the huge pages that lie in it whole, and clears what it covers of others (fs/hugetlbfs/inode.c,
hugetlbfs_punch_hole, Linux 6.12). So what is named of a huge page is *partial*, and left alone, until all of the page
is out at one time: in one element, or inflated before and not deflated since.

A book of inflated pages is kept only for a driver that has accepted MUST_TELL_HOST. Such a driver uses a page again
after its deflation was acknowledged, and by then the book knows (virtio 1.2, 5.5.6.1); Linux has this order with and
without the feature (leak_balloon, drivers/virtio/virtio_balloon.c, 6.12). Any other driver may use a page earlier: with
a book, the last part that goes out would take with it what the guest has just written to the others. What such a driver
inflates is joined within one element only. So is what is reported: the guest may use a block again, without a word, as
soon as its element is given back.

Of what is discarded, `st_blocks` tells how much went. mincore(2) cannot: for hugetlbfs it looks into the caller's own
page table (mm/mincore.c, mincore_hugetlb), in which a page that only the guest has touched is not, and
SEEK_DATA calls everything data. A fall is counted as checked, verified and returned; without one (the page was a hole
before, or the guest touched another one meanwhile) nothing is known, and nothing is counted as checked.

The book of a region lies at an address of its own: room for statx(2), then two int64 for each huge page (how many of
its pages are out, and how many bytes are counted as partial), then a bit for each page.
"""

import os

import numpy as np
import numpy.typing as npt

from pagetide import linux
from pagetide.atomics import load_i64, load_u32, store_i64, store_u32
from pagetide.host.memory.ledger import (
    CHECKED_BYTES,
    DISCARDED_BYTES,
    PUNCHES,
    REPORTED_BYTES,
    RETURNED_BYTES,
    SKIPPED_FAILED,
    SKIPPED_PARTIAL,
    VERIFIED_BYTES,
)
from pagetide.host.memory.presence import STATX_ROOM_BYTES, allocated_bytes
from pagetide.host.memory.punch import punch_hole
from pagetide.host.memory.ranges import RANGE_REGION, RANGE_START, skip_bytes
from pagetide.jit import kernel
from pagetide.memory.region_map import (
    REGION_BOOK,
    REGION_BYTES,
    REGION_FD,
    REGION_GPA,
    REGION_OFFSET,
    REGION_UNIT,
)
from pagetide.units import PAGE_SHIFT, PAGE_SIZE_BYTES

_UNITS_AT = 512
assert _UNITS_AT >= STATX_ROOM_BYTES

_Words = npt.NDArray[np.int64]


def huge_page_bytes(fd: int) -> int:
    """The size of the pages that can be given back of a file, if it is on hugetlbfs; otherwise that of small pages.

    A tmpfs with huge pages is no such file: there the kernel splits a huge page of which a part is punched.

    Raises:
        OSError: not an open file.
    """
    if linux.filesystem_type(fd) != linux.HUGETLBFS_MAGIC:
        return PAGE_SIZE_BYTES
    return os.fstatvfs(fd).f_bsize


def book_bytes(offset_bytes: int, size_bytes: int, unit_bytes: int) -> int:
    """Size of the book of a region, which begins at this offset of its file."""
    units = -(-(offset_bytes + size_bytes) // unit_bytes) - offset_bytes // unit_bytes
    return _UNITS_AT + 16 * units + -(-units * unit_bytes // PAGE_SIZE_BYTES // 64) * 8


@kernel
def _bits_at(regions: _Words, row: int) -> int:
    """Where the bits of a region's book begin."""
    unit_bytes, offset_bytes = regions[row, REGION_UNIT], regions[row, REGION_OFFSET]
    end = offset_bytes + regions[row, REGION_BYTES]
    units = (end + unit_bytes - 1) // unit_bytes - offset_bytes // unit_bytes
    return int(regions[row, REGION_BOOK] + _UNITS_AT + 16 * units)


@kernel
def _set_pages(bits: int, first: int, end: int, out: int) -> int:
    """Set (`out` 1) or clear (0) the bits of the pages `first … end`; how many changed."""
    changed = 0
    for page in range(first, end):
        address = bits + (page >> 5 << 2)
        word = load_u32(address)
        bit = 1 << (page & 31)
        if (word & bit != 0) != (out != 0):
            store_u32(address, word ^ bit)
            changed += 1
    return changed


@kernel
def _count_pages(bits: int, first: int, end: int) -> int:
    """How many of the bits of the pages `first … end` are set."""
    found = 0
    for page in range(first, end):
        if load_u32(bits + (page >> 5 << 2)) & 1 << (page & 31) != 0:
            found += 1
    return found


@kernel
def _allocated(regions: _Words, row: int) -> int:
    """Bytes that the region's file holds; -1 if the kernel does not say."""
    return allocated_bytes(regions[row, REGION_FD], regions[row, REGION_BOOK])


@kernel
def huge_piece_bytes(regions: _Words, row: int, start: int, length_bytes: int) -> int:
    """How much of `start … start + length_bytes` is one piece: whole huge pages, or a part of a single one."""
    unit_bytes = regions[row, REGION_UNIT]
    into_unit = (regions[row, REGION_OFFSET] + start - regions[row, REGION_GPA]) % unit_bytes
    if into_unit == 0 and length_bytes >= unit_bytes:
        return int(length_bytes // unit_bytes * unit_bytes)
    return int(min(length_bytes, unit_bytes - into_unit))


@kernel
def _punch_units(
    regions: _Words, row: int, offset_bytes: int, length_bytes: int, counted_bytes: int, verify: int, ledger: _Words
) -> int:
    """Punch whole huge pages, of which so much is to be accounted for; 0, or the errno of the call."""
    before = _allocated(regions, row) if verify != 0 else -1
    ledger[PUNCHES] += 1
    failed = punch_hole(regions[row, REGION_FD], offset_bytes, length_bytes)
    if failed != 0:
        skip_bytes(counted_bytes, SKIPPED_FAILED, ledger)
        return failed
    ledger[REPORTED_BYTES] += counted_bytes
    ledger[DISCARDED_BYTES] += counted_bytes
    if before >= 0:
        fallen = before - _allocated(regions, row)
        if fallen > 0:
            gone = min(counted_bytes, fallen)
            ledger[CHECKED_BYTES] += gone
            ledger[VERIFIED_BYTES] += gone
            ledger[RETURNED_BYTES] += gone
    return 0


@kernel
def punch_huge(regions: _Words, row: int, start: int, length_bytes: int, keep: int, verify: int, ledger: _Words) -> int:
    """Discard a piece of a region on hugetlbfs, if it is whole huge pages, or now all of one is out.

    Args:
        regions: the region map's table.
        row: the region.
        start: guest-physical address of the piece.
        length_bytes: its size, as `huge_piece_bytes` says.
        keep: not 0 if the piece stays out until it is deflated.
        verify: not 0 to look what went.
        ledger: the queue's account.

    Returns:
        0, or the errno of the call if it failed.
    """
    unit_bytes = regions[row, REGION_UNIT]
    region_offset = regions[row, REGION_OFFSET]
    book_offset = region_offset // unit_bytes * unit_bytes
    offset_bytes = region_offset + start - regions[row, REGION_GPA]
    first = offset_bytes - book_offset >> PAGE_SHIFT
    end = first + (length_bytes >> PAGE_SHIFT)
    unit = (offset_bytes - book_offset) // unit_bytes
    unit_pages = unit_bytes >> PAGE_SHIFT
    outs_at = regions[row, REGION_BOOK] + _UNITS_AT + 16 * unit
    bits = _bits_at(regions, row)
    if length_bytes >= unit_bytes:
        if keep != 0:
            for each in range(length_bytes // unit_bytes):
                _set_pages(bits, first + each * unit_pages, first + (each + 1) * unit_pages, 1)
                store_i64(outs_at + 16 * each, unit_pages)
                store_i64(outs_at + 16 * each + 8, 0)
        return _punch_units(regions, row, offset_bytes, length_bytes, length_bytes, verify, ledger)
    out_pages = load_i64(outs_at)
    partial_bytes = load_i64(outs_at + 8)
    if keep != 0:
        fresh = _set_pages(bits, first, end, 1)
        out_pages += fresh
        store_i64(outs_at, out_pages)
        is_whole = out_pages == unit_pages
    else:
        fresh = 0
        is_whole = out_pages - _count_pages(bits, first, end) + (end - first) == unit_pages
    if not is_whole:
        skip_bytes(length_bytes, SKIPPED_PARTIAL, ledger)
        store_i64(outs_at + 8, partial_bytes + (fresh << PAGE_SHIFT))
        return 0
    if keep != 0:  # what of it was counted as partial goes now
        moved_bytes = min(partial_bytes, ledger[SKIPPED_PARTIAL])
        ledger[SKIPPED_PARTIAL] -= moved_bytes
        ledger[REPORTED_BYTES] -= moved_bytes
        length_bytes += moved_bytes
        store_i64(outs_at + 8, 0)
    return _punch_units(regions, row, book_offset + unit * unit_bytes, unit_bytes, length_bytes, verify, ledger)


@kernel
def take_back(regions: _Words, ranges: _Words, count: int) -> None:
    """Forget that these pages are out: a row of `ranges` is a page, as `read_pfns` writes them."""
    for index in range(count):
        row = ranges[index, RANGE_REGION]
        unit_bytes = regions[row, REGION_UNIT]
        if unit_bytes > PAGE_SIZE_BYTES:
            book_offset = regions[row, REGION_OFFSET] // unit_bytes * unit_bytes
            into_book = (
                regions[row, REGION_OFFSET] + ranges[index, RANGE_START] - regions[row, REGION_GPA] - book_offset
            )
            page = into_book >> PAGE_SHIFT
            outs_at = regions[row, REGION_BOOK] + _UNITS_AT + 16 * (into_book // unit_bytes)
            cleared = _set_pages(_bits_at(regions, row), page, page + 1, 0)
            store_i64(outs_at, load_i64(outs_at) - cleared)
            store_i64(outs_at + 8, max(0, load_i64(outs_at + 8) - (cleared << PAGE_SHIFT)))


@kernel
def close_books(regions: _Words) -> None:
    """Forget of every page that it is out: what was taken back is not known."""
    for row in range(regions.shape[0]):
        if regions[row, REGION_UNIT] > PAGE_SIZE_BYTES:
            end = _bits_at(regions, row)
            unit_bytes, offset_bytes = regions[row, REGION_UNIT], regions[row, REGION_OFFSET]
            units = (offset_bytes + regions[row, REGION_BYTES] + unit_bytes - 1) // unit_bytes
            units -= offset_bytes // unit_bytes
            end += (units * unit_bytes // PAGE_SIZE_BYTES + 63) // 64 * 8
            for address in range(regions[row, REGION_BOOK] + _UNITS_AT, end, 8):
                if load_i64(address) != 0:
                    store_i64(address, 0)
