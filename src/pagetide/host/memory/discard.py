"""Discarding: reported ranges become holes in the file that backs the guest, and are read back.

A hole is punched with fallocate(2), `FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`, on the file itself. The alternatives
were measured and lose: `MADV_DONTNEED` on a shared mapping returns 0 and frees nothing, for the page cache keeps the
pages; `MADV_REMOVE` does what the punch does but takes the mm lock, and stalled for up to 92 ms beside a thread that
maps and unmaps. The call's own cost is why ranges are joined first: 4 KiB pieces go at a fifth of the speed of 2 MiB
ones, and on huge pages at a hundredth.

A call goes over its pages twice, to unmap and to free them, and 64 bytes of the kernel's go with each page of 4 KiB:
what is much more than a processor's own cache can hold is discarded in pieces (`PIECE_BYTES`).

A return code is not proof. What is to be verified is read back with lseek(2), `SEEK_DATA` and `SEEK_HOLE`, before the
element is acknowledged, while the driver may not yet use the memory again (virtio 1.2, 5.5.6.7): a page that shows as
data is a page the host still holds.

Nothing here trusts the guest: any int64 may stand in a descriptor.
"""

import errno as errors
import os

import numpy as np
import numpy.typing as npt

from pagetide.atomics import errno, load_i64, store_i64
from pagetide.host.memory.huge_pages import huge_piece_bytes, punch_huge
from pagetide.host.memory.ledger import (
    CHECKED_BYTES,
    DISCARDED_BYTES,
    PUNCHES,
    REPORTED_BYTES,
    SKIPPED_FAILED,
    SKIPPED_OUT_OF_RANGE,
    VERIFIED_BYTES,
)
from pagetide.host.memory.punch import punch_hole
from pagetide.host.memory.ranges import RANGE_END, RANGE_REGION, RANGE_START, join_ranges, skip_bytes
from pagetide.jit import external, int32, int64, kernel
from pagetide.memory.metadata import gone_metadata
from pagetide.memory.region_map import (
    REGION_BYTES,
    REGION_FD,
    REGION_GPA,
    REGION_MARKS,
    REGION_OFFSET,
    REGION_PIECE,
    REGION_UNIT,
    WHOLE,
    region_at,
)
from pagetide.units import HUGE_PAGE_BYTES, PAGE_SHIFT, PAGE_SIZE_BYTES

PIECE_BYTES = 4 << 20
"""Most that one call discards of a file with small pages: some 0.6 ms, and 64 KiB of the kernel's records of pages.

Of a file that a guest on another processor has mapped pieces of 4 MiB take 2 to 4 % less time than 64 MiB at once, and
1 % less than pieces of 2 or 8 MiB. With huge pages they take 18 % more: those have few records, and one call goes
through 64 MiB in 0.3 ms.
"""

HUGE_PIECE_BYTES = 1 << 30
"""Most that one call discards of a file with huge pages: some 5 ms, and whole pages whatever their size."""

_ENXIO = errors.ENXIO
_SEEK_DATA = os.SEEK_DATA
_SEEK_HOLE = os.SEEK_HOLE

_lseek = external("lseek", int64, int32, int64, int32)


def piece_bytes(page_bytes: int) -> int:
    """Most that one call is to discard of a file whose pages, by its `st_blksize`, are of this size."""
    return HUGE_PIECE_BYTES if page_bytes >= HUGE_PAGE_BYTES else PIECE_BYTES


@kernel
def gone_bytes(fd: int, offset_bytes: int, length_bytes: int) -> int:
    """How much of this stretch of the file is hole, by the kernel's word; -1 if the file cannot tell.

    Moves the file's own position, which nothing that is mapped uses. Of a negative descriptor by its metadata.
    """
    if fd < 0:
        return gone_metadata(-fd, offset_bytes, length_bytes)
    end = offset_bytes + length_bytes
    position = offset_bytes
    gone: int = 0
    for _ in range(length_bytes // PAGE_SIZE_BYTES + 1):
        data = _lseek(int(fd), int(position), _SEEK_DATA)
        if data < 0:
            # ENXIO: no data from here to the end of the file (lseek(2)).
            return gone + end - position if errno() == _ENXIO else -1
        if data >= end:
            return gone + end - position
        gone += data - position
        position = _lseek(int(fd), int(data), _SEEK_HOLE)
        if position < 0:
            return -1
        if position >= end:
            return gone
    return -1


@kernel
def mark_pages(marks: int, first: int, end: int) -> None:
    """Set the bits of the pages `first … end` in the words at an address, the first page's lowest."""
    for word in range(first >> 6, (end - 1 >> 6) + 1):
        low = max(first - (word << 6), 0)
        high = end - (word << 6)
        bits = -1 << low
        if high < 64:
            bits &= ~(-1 << high)
        address = marks + (word << 3)
        store_i64(address, bits if bits == -1 else load_i64(address) | bits)


@kernel
def _punch_piece(
    regions: npt.NDArray[np.int64],
    row: int,
    start: int,
    length_bytes: int,
    verify: int,
    ledger: npt.NDArray[np.int64],
) -> int:
    """Discard a piece of a region in one call, and account for it; 0, or the errno of the call."""
    fd = regions[row, REGION_FD]
    into_bytes = start - regions[row, REGION_GPA]
    offset_bytes = regions[row, REGION_OFFSET] + into_bytes
    ledger[PUNCHES] += 1
    failed = punch_hole(fd, offset_bytes, length_bytes)
    if failed != 0:
        skip_bytes(length_bytes, SKIPPED_FAILED, ledger)
        return failed
    ledger[REPORTED_BYTES] += length_bytes
    ledger[DISCARDED_BYTES] += length_bytes
    if regions[row, REGION_MARKS] != 0:
        first = into_bytes >> PAGE_SHIFT
        mark_pages(regions[row, REGION_MARKS], first, first + (length_bytes >> PAGE_SHIFT))
    if verify != 0:
        gone = gone_bytes(fd, offset_bytes, length_bytes)
        if gone >= 0:
            ledger[CHECKED_BYTES] += length_bytes
            ledger[VERIFIED_BYTES] += gone
    return 0


@kernel
def punch_next(
    regions: npt.NDArray[np.int64],
    ranges: npt.NDArray[np.int64],
    index: int,
    bytes_max: int,
    keep: int,
    verify: int,
    ledger: npt.NDArray[np.int64],
) -> int:
    """Discard the next piece of a range in one call, and account for it; the range begins after it then.

    A piece ends with its region, and at each multiple of the region's piece in its file. What is in no region was there
    when the element was taken, and is not any more.

    Args:
        regions: the region map's table as it is now.
        ranges: ranges as `classify` makes them.
        index: which of them; it is not empty.
        bytes_max: most bytes.
        keep: not 0 if it stays out until it is deflated.
        verify: not 0 to read back what was discarded.
        ledger: the queue's account.

    Returns:
        0, or the errno of the call if it failed.
    """
    start, end = ranges[index, RANGE_START], ranges[index, RANGE_END]
    row = region_at(regions, ranges[index, RANGE_REGION], start)
    ranges[index, RANGE_REGION] = row
    failed: int = 0
    if row < 0:
        for other in range(regions.shape[0]):
            if start < regions[other, REGION_GPA] < end:
                end = regions[other, REGION_GPA]
        skip_bytes(end - start, SKIPPED_OUT_OF_RANGE, ledger)
    else:
        into_bytes = start - regions[row, REGION_GPA]
        piece_bytes = regions[row, REGION_PIECE]
        piece_bytes -= (regions[row, REGION_OFFSET] + into_bytes) % piece_bytes
        length_bytes = min(end - start, bytes_max, regions[row, REGION_BYTES] - into_bytes, piece_bytes)
        if regions[row, REGION_UNIT] > PAGE_SIZE_BYTES:
            length_bytes = huge_piece_bytes(regions, row, start, length_bytes)
            failed = punch_huge(regions, row, start, length_bytes, keep, verify, ledger)
        else:
            failed = _punch_piece(regions, row, start, length_bytes, verify, ledger)
        end = start + length_bytes
    ranges[index, RANGE_START] = end
    return failed


@kernel
def punch_ranges(
    regions: npt.NDArray[np.int64],
    ranges: npt.NDArray[np.int64],
    count: int,
    verify: int,
    ledger: npt.NDArray[np.int64],
) -> int:
    """Discard sorted ranges, all of them, joined where they adjoin or overlap.

    Bytes that more than one range names are discarded once and otherwise counted as repeated.

    Args:
        regions: the region map's table.
        ranges: ranges sorted by `sort_ranges`, each within regions and aligned to pages.
        count: how many ranges there are.
        verify: not 0 to read back what was discarded.
        ledger: the ledger's words.

    Returns:
        0, or the errno of the last call that failed.
    """
    failure: int = 0
    for index in range(join_ranges(ranges, count, ledger)):
        while ranges[index, RANGE_START] < ranges[index, RANGE_END]:
            failed = punch_next(regions, ranges, index, WHOLE, 0, verify, ledger)
            if failed != 0:
                failure = failed
    return failure
