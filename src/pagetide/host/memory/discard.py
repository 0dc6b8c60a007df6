"""Discarding: reported ranges become holes in the file that backs the guest, and are read back.

A hole is punched with fallocate(2), `FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE`, on the file itself. The alternatives
were measured and lose: `MADV_DONTNEED` on a shared mapping returns 0 and frees nothing, for the page cache keeps the
pages; `MADV_REMOVE` does what the punch does but takes the mm lock, and stalled for up to 92 ms beside a thread that
maps and unmaps. The call's own cost is why ranges are joined first: 4 KiB pieces go at a fifth of the speed of 2 MiB
ones, and on huge pages at a hundredth.

A return code is not proof. What is to be verified is read back (presence.py) before the element is acknowledged, while
the driver may not yet use the memory again (virtio 1.2, 5.5.6.7): a page that shows as data is a page the host still
holds. And what was never there cannot come back: how much there was is asked before the punch, in the same pass.

Nothing here trusts the guest: any int64 may stand in a descriptor.
"""

import numpy as np
import numpy.typing as npt

from pagetide.host.memory.huge_pages import huge_piece_bytes, punch_huge
from pagetide.host.memory.ledger import SKIPPED_OUT_OF_RANGE
from pagetide.host.memory.pieces import begin_piece, end_pieces, punch_pieces
from pagetide.host.memory.presence import LARGE_BYTES
from pagetide.host.memory.ranges import (
    RANGE_END,
    RANGE_PIECE_END,
    RANGE_REGION,
    RANGE_START,
    join_ranges,
    skip_bytes,
)
from pagetide.jit import inline_kernel, kernel
from pagetide.memory.region_map import (
    REGION_BYTES,
    REGION_GPA,
    REGION_OFFSET,
    REGION_PIECE,
    REGION_UNIT,
    WHOLE,
    region_at,
)
from pagetide.units import PAGE_SIZE_BYTES

_Words = npt.NDArray[np.int64]


@kernel
def _pass_over(regions: _Words, ranges: _Words, index: int, ledger: _Words) -> None:
    """Account for the beginning of a range that is in no region; the range begins after it then.

    It was there when the element was taken, and is not any more.
    """
    start, end = ranges[index, RANGE_START], ranges[index, RANGE_END]
    for other in range(regions.shape[0]):
        if start < regions[other, REGION_GPA] < end:
            end = regions[other, REGION_GPA]
    skip_bytes(end - start, SKIPPED_OUT_OF_RANGE, ledger)
    ranges[index, RANGE_START] = ranges[index, RANGE_PIECE_END] = end


@inline_kernel
def _cut_piece(regions: _Words, ranges: _Words, index: int, bytes_max: int, ledger: _Words) -> bool:
    """Find the piece with which a range begins, of so many bytes at most; False if there was none, and is one less."""
    start = ranges[index, RANGE_START]
    row = region_at(regions, ranges[index, RANGE_REGION], start)
    ranges[index, RANGE_REGION] = row
    if row < 0:
        _pass_over(regions, ranges, index, ledger)
        return False
    into_bytes = start - regions[row, REGION_GPA]
    piece_bytes = regions[row, REGION_PIECE]
    piece_bytes -= regions[row, REGION_OFFSET] + into_bytes & piece_bytes - 1  # a power of two
    length_bytes = min(
        ranges[index, RANGE_END] - start, bytes_max, regions[row, REGION_BYTES] - into_bytes, piece_bytes
    )
    if regions[row, REGION_UNIT] > PAGE_SIZE_BYTES:
        length_bytes = huge_piece_bytes(regions, row, start, length_bytes)
    ranges[index, RANGE_PIECE_END] = start + length_bytes
    return True


@kernel
def _deal_alone(regions: _Words, ranges: _Words, index: int, keep: int, verify: int, ledger: _Words) -> int:
    """Discard the piece with which a range begins, and account for it; 0, or the errno of the call if it failed."""
    row, start, end = ranges[index, RANGE_REGION], ranges[index, RANGE_START], ranges[index, RANGE_PIECE_END]
    if regions[row, REGION_UNIT] > PAGE_SIZE_BYTES:
        ranges[index, RANGE_START] = end
        return punch_huge(regions, row, start, end - start, keep, verify, ledger)
    begin_piece(regions, ranges, index, verify)
    failed = punch_pieces(regions, ranges, index, index + 1, ledger)
    end_pieces(regions, ranges, index, index + 1, verify, ledger)
    return failed


@kernel
def punch_next(
    regions: _Words, ranges: _Words, index: int, bytes_max: int, keep: int, verify: int, ledger: _Words
) -> int:
    """Discard the next piece of a range in one call, and account for it; the range begins after it then.

    A piece ends with its region, and at each multiple of the region's piece in its file.

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
    if not _cut_piece(regions, ranges, index, bytes_max, ledger):
        return 0
    return _deal_alone(regions, ranges, index, keep, verify, ledger)


@kernel
def _begin_pieces(regions: _Words, ranges: _Words, first: int, end: int, verify: int, ledger: _Words) -> int:
    """Begin the next piece of each of these ranges, or deal with it alone; 0, or the errno of a call that failed."""
    failure: int = 0
    for index in range(first, end):
        if ranges[index, RANGE_START] == ranges[index, RANGE_END]:
            continue
        if not _cut_piece(regions, ranges, index, WHOLE, ledger):
            continue
        length_bytes = ranges[index, RANGE_PIECE_END] - ranges[index, RANGE_START]
        is_weighed = verify != 0 and length_bytes >= LARGE_BYTES  # by what its file holds, so nothing may come between
        if is_weighed or regions[ranges[index, RANGE_REGION], REGION_UNIT] > PAGE_SIZE_BYTES:
            failed = _deal_alone(regions, ranges, index, 0, verify, ledger)
            failure = failed if failed != 0 else failure
        else:
            begin_piece(regions, ranges, index, verify)
    return failure


@kernel
def _punch_apart(regions: _Words, ranges: _Words, first: int, end: int, verify: int, ledger: _Words) -> int:
    """Discard the ranges `first … end`, none of which overlaps another; 0, or the errno of a call that failed."""
    failure: int = 0
    left_bytes = WHOLE
    while left_bytes > 0:
        failed = _begin_pieces(regions, ranges, first, end, verify, ledger)
        failure = failed if failed != 0 else failure
        failed = punch_pieces(regions, ranges, first, end, ledger)
        failure = failed if failed != 0 else failure
        left_bytes = end_pieces(regions, ranges, first, end, verify, ledger)
    return failure


@kernel
def punch_together(regions: _Words, ranges: _Words, count: int, verify: int, ledger: _Words) -> int:
    """Discard ranges, all of them: of small pieces all are looked at, then all are discarded, then all are read back.

    That is quicker than each piece with its three calls by turns, as the processor has at hand what one kind of call
    needs. A range that overlaps the one before it comes after that: what both name was there once.

    Args:
        regions: the region map's table.
        ranges: sorted ranges, none empty, each within regions and aligned to pages when it was taken.
        count: how many ranges there are.
        verify: not 0 to read back what was discarded.
        ledger: the queue's account.

    Returns:
        0, or the errno of a call that failed.
    """
    failure: int = 0
    first = 0
    while first < count:
        end = first + 1
        while end < count and ranges[end, RANGE_START] >= ranges[end - 1, RANGE_END]:
            end += 1
        failed = _punch_apart(regions, ranges, first, end, verify, ledger)
        failure = failed if failed != 0 else failure
        first = end
    return failure


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
        0, or the errno of a call that failed.
    """
    return punch_together(regions, ranges, join_ranges(ranges, count, ledger), verify, ledger)
