"""Discarding: reported ranges become holes in the file that backs the guest, and are read back.

A hole is punched with fallocate(2), `FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`, on the file itself. The alternatives
were measured and lose: `MADV_DONTNEED` on a shared mapping returns 0 and frees nothing, for the page cache keeps the
pages; `MADV_REMOVE` does what the punch does but takes the mm lock, and stalled for up to 92 ms beside a thread that
maps and unmaps. The call's own cost is why ranges are joined first: 4 KiB pieces go at a fifth of the speed of 2 MiB
ones, and on huge pages at a hundredth.

A call goes over its pages twice, to unmap and to free them, and 64 bytes of the kernel's go with each page of 4 KiB:
what is much more than a processor's own cache can hold is discarded in pieces (`PIECE_BYTES`).

A return code is not proof. What is to be verified is read back (presence.py) before the element is acknowledged, while
the driver may not yet use the memory again (virtio 1.2, 5.5.6.7): a page that shows as data is a page the host still
holds. And what was never there cannot come back: how much there was is asked before the punch, in the same pass.

Nothing here trusts the guest: any int64 may stand in a descriptor.
"""

import numpy as np
import numpy.typing as npt

from pagetide.host.memory.block_states import note_discarded
from pagetide.host.memory.huge_pages import huge_piece_bytes, punch_huge
from pagetide.host.memory.ledger import (
    CHECKED_BYTES,
    DISCARDED_BYTES,
    PUNCHES,
    REPORTED_BYTES,
    RETURNED_BYTES,
    SKIPPED_FAILED,
    SKIPPED_OUT_OF_RANGE,
    VERIFIED_BYTES,
)
from pagetide.host.memory.presence import (
    LARGE_BYTES,
    ask_before,
    gone_bytes,
    mark_data,
    mark_pages,
    marked_pages,
    note_again,
    returned_bytes,
    room_after,
)
from pagetide.host.memory.punch import punch_hole
from pagetide.host.memory.ranges import RANGE_END, RANGE_REGION, RANGE_START, join_ranges, skip_bytes
from pagetide.jit import kernel
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


def piece_bytes(page_bytes: int) -> int:
    """Most that one call is to discard of a file whose pages, by its `st_blksize`, are of this size."""
    return HUGE_PIECE_BYTES if page_bytes >= HUGE_PAGE_BYTES else PIECE_BYTES


@kernel
def _punch_piece(
    regions: npt.NDArray[np.int64],
    row: int,
    start: int,
    length_bytes: int,
    verify: int,
    ledger: npt.NDArray[np.int64],
) -> int:
    """Discard a piece of a region in one call, and account for it; 0, or the errno of the call.

    Marked as returned is what was there: all of the piece, or the runs of data that are found in it first. Of a large
    piece that was only weighed, and was not all there, nothing is marked. What was marked before had come back since.
    """
    fd = regions[row, REGION_FD]
    marks = regions[row, REGION_MARKS]
    room = room_after(marks, regions[row, REGION_BYTES])
    into_bytes = start - regions[row, REGION_GPA]
    offset_bytes = regions[row, REGION_OFFSET] + into_bytes
    first = into_bytes >> PAGE_SHIFT
    end = first + (length_bytes >> PAGE_SHIFT)
    weigh = 1 if room != 0 and length_bytes >= LARGE_BYTES and regions[row, REGION_PIECE] <= PIECE_BYTES else 0
    held = ask_before(fd, offset_bytes, length_bytes, room, weigh) if verify != 0 else -1
    is_part = marks != 0 and 0 < held < length_bytes
    again: int = 0
    if is_part:
        again = mark_data(fd, offset_bytes, length_bytes, marks, first)
    if room != 0:
        note_discarded(room, regions[row, REGION_GPA], into_bytes, length_bytes)
    ledger[PUNCHES] += 1
    failed = punch_hole(fd, offset_bytes, length_bytes)
    if failed != 0:
        if is_part:
            mark_pages(marks, first, end, 0)
        skip_bytes(length_bytes, SKIPPED_FAILED, ledger)
        return failed
    ledger[REPORTED_BYTES] += length_bytes
    ledger[DISCARDED_BYTES] += length_bytes
    if verify != 0:
        gone = gone_bytes(fd, offset_bytes, length_bytes)
        if gone >= 0:
            returned = returned_bytes(fd, length_bytes, room, weigh, held, gone)
            ledger[CHECKED_BYTES] += length_bytes
            ledger[VERIFIED_BYTES] += gone
            ledger[RETURNED_BYTES] += returned
            if marks != 0 and returned == length_bytes:
                again = marked_pages(marks, first, end)
                mark_pages(marks, first, end, 1)
            if again != 0:
                note_again(room, again)
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
        piece_bytes -= regions[row, REGION_OFFSET] + into_bytes & piece_bytes - 1  # a power of two
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
