"""A piece of a range, which one call discards: what comes before the call, the call itself, and what comes after it.

A call goes over its pages twice, to unmap and to free them, and 64 bytes of the kernel's go with each page of 4 KiB:
what is much more than a processor's own cache can hold is discarded in pieces (`PIECE_BYTES`).

The pieces of several ranges may take each of these steps together. All functions have the region map's table, ranges
whose first piece is known (`RANGE_PIECE_END`), and the account.
"""

import numpy as np
import numpy.typing as npt

from pagetide.host.memory.block_states import note_discarded
from pagetide.host.memory.ledger import (
    CHECKED_BYTES,
    DISCARDED_BYTES,
    PUNCHES,
    REPORTED_BYTES,
    RETURNED_BYTES,
    SKIPPED_FAILED,
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
from pagetide.host.memory.ranges import RANGE_END, RANGE_HELD, RANGE_PIECE_END, RANGE_REGION, RANGE_START, skip_bytes
from pagetide.jit import inline_kernel, kernel
from pagetide.memory.region_map import (
    REGION_BYTES,
    REGION_FD,
    REGION_GPA,
    REGION_MARKS,
    REGION_OFFSET,
    REGION_PIECE,
)
from pagetide.units import HUGE_PAGE_BYTES, PAGE_SHIFT

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


_Words = npt.NDArray[np.int64]


@inline_kernel
def _weighs(regions: _Words, row: int, length_bytes: int) -> int:
    """Whether `st_blocks` may tell what there was of a piece."""
    is_large = length_bytes >= LARGE_BYTES and regions[row, REGION_PIECE] <= PIECE_BYTES
    return 1 if is_large and regions[row, REGION_MARKS] != 0 else 0


@kernel
def _ask(regions: _Words, ranges: _Words, index: int) -> None:
    """See what there is of a piece; if that is a part, it is marked as returned already.

    What was marked before had come back since, and that is noted.
    """
    row, start = ranges[index, RANGE_REGION], ranges[index, RANGE_START]
    fd, marks = regions[row, REGION_FD], regions[row, REGION_MARKS]
    room = room_after(marks, regions[row, REGION_BYTES])
    length_bytes = ranges[index, RANGE_PIECE_END] - start
    into_bytes = start - regions[row, REGION_GPA]
    offset_bytes = regions[row, REGION_OFFSET] + into_bytes
    held = ask_before(fd, offset_bytes, length_bytes, room, _weighs(regions, row, length_bytes))
    if marks != 0 and 0 < held < length_bytes:
        again = mark_data(fd, offset_bytes, length_bytes, marks, into_bytes >> PAGE_SHIFT)
        if again != 0:
            note_again(room, again)
    ranges[index, RANGE_HELD] = held


@inline_kernel
def begin_piece(regions: _Words, ranges: _Words, index: int, verify: int) -> None:
    """Do what comes before a piece is discarded."""
    row, start = ranges[index, RANGE_REGION], ranges[index, RANGE_START]
    ranges[index, RANGE_HELD] = -1
    if verify != 0:
        _ask(regions, ranges, index)
    room = room_after(regions[row, REGION_MARKS], regions[row, REGION_BYTES])
    if room != 0:
        gpa = regions[row, REGION_GPA]
        note_discarded(room, gpa, start - gpa, ranges[index, RANGE_PIECE_END] - start)


@kernel
def _give_up(regions: _Words, ranges: _Words, index: int, ledger: _Words) -> None:
    """Account for a piece that could not be discarded; its range begins after it then."""
    row, start = ranges[index, RANGE_REGION], ranges[index, RANGE_START]
    length_bytes = ranges[index, RANGE_PIECE_END] - start
    first = start - regions[row, REGION_GPA] >> PAGE_SHIFT
    ledger[PUNCHES] += 1
    skip_bytes(length_bytes, SKIPPED_FAILED, ledger)
    if regions[row, REGION_MARKS] != 0 and 0 < ranges[index, RANGE_HELD] < length_bytes:
        mark_pages(regions[row, REGION_MARKS], first, first + (length_bytes >> PAGE_SHIFT), 0)
    ranges[index, RANGE_START] = ranges[index, RANGE_PIECE_END]


@kernel
def punch_pieces(regions: _Words, ranges: _Words, first: int, end: int, ledger: _Words) -> int:
    """Discard the pieces of the ranges `first … end`, a call each; 0, or the errno of the last call that failed.

    Between the calls is nothing that could be before or after them: what a call leaves of the processor's caches is
    little, and each line that is touched costs some ns.
    """
    failure: int = 0
    fd: int = -1
    row: int = -1
    offset_bytes: int = 0  # of the guest-physical address 0
    for index in range(first, end):
        start, piece_end = ranges[index, RANGE_START], ranges[index, RANGE_PIECE_END]
        if start < piece_end:
            if ranges[index, RANGE_REGION] != row:
                row = ranges[index, RANGE_REGION]
                fd = regions[row, REGION_FD]
                offset_bytes = regions[row, REGION_OFFSET] - regions[row, REGION_GPA]
            failed = punch_hole(fd, offset_bytes + start, piece_end - start)
            if failed != 0:
                failure = failed
                _give_up(regions, ranges, index, ledger)
    return failure


@kernel
def _read_back(regions: _Words, ranges: _Words, index: int, ledger: _Words) -> None:
    """See what is gone of a piece that was discarded, and account for that.

    Marked as returned is all of it, if it was all there; a part was marked before. Of a large piece that was only
    weighed, and was not all there, nothing is.
    """
    row, start = ranges[index, RANGE_REGION], ranges[index, RANGE_START]
    fd, marks = regions[row, REGION_FD], regions[row, REGION_MARKS]
    room = room_after(marks, regions[row, REGION_BYTES])
    length_bytes = ranges[index, RANGE_PIECE_END] - start
    into_bytes = start - regions[row, REGION_GPA]
    gone = gone_bytes(fd, regions[row, REGION_OFFSET] + into_bytes, length_bytes)
    if gone < 0:
        return
    weigh = _weighs(regions, row, length_bytes)
    returned = returned_bytes(fd, length_bytes, room, weigh, ranges[index, RANGE_HELD], gone)
    ledger[CHECKED_BYTES] += length_bytes
    ledger[VERIFIED_BYTES] += gone
    ledger[RETURNED_BYTES] += returned
    if marks != 0 and returned == length_bytes:
        first = into_bytes >> PAGE_SHIFT
        again = marked_pages(marks, first, first + (length_bytes >> PAGE_SHIFT))
        mark_pages(marks, first, first + (length_bytes >> PAGE_SHIFT), 1)
        if again != 0:
            note_again(room, again)


@kernel
def end_pieces(regions: _Words, ranges: _Words, first: int, end: int, verify: int, ledger: _Words) -> int:
    """Account for the pieces of the ranges `first … end`, which begin after them then; how many bytes are left."""
    left_bytes: int = 0
    for index in range(first, end):
        length_bytes = ranges[index, RANGE_PIECE_END] - ranges[index, RANGE_START]
        if length_bytes > 0:
            ledger[PUNCHES] += 1
            ledger[REPORTED_BYTES] += length_bytes
            ledger[DISCARDED_BYTES] += length_bytes
            if verify != 0:
                _read_back(regions, ranges, index, ledger)
            ranges[index, RANGE_START] = ranges[index, RANGE_PIECE_END]
        left_bytes += ranges[index, RANGE_END] - ranges[index, RANGE_START]
    return left_bytes
