"""Which ranges of guest memory an element names: those to be discarded, in order, and what is skipped, and why.

Nothing here trusts the guest: any int64 may stand in a descriptor.
"""

import numpy as np
import numpy.typing as npt

from pagetide.host.memory.ledger import (
    BLOCKS,
    REPORTED_BYTES,
    REPORTS,
    SKIPPED_DEVICE_READABLE,
    SKIPPED_OUT_OF_RANGE,
    SKIPPED_REPEATED,
    SKIPPED_UNALIGNED,
    ZERO_LENGTH_BLOCKS,
)
from pagetide.jit import inline_kernel, kernel
from pagetide.memory.region_map import REGION_BYTES, REGION_GPA, REGION_OFFSET, find_cover
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.virtio.split_ring.ring import DESC_F_WRITE

RANGE_START = 0
RANGE_END = 1
RANGE_REGION = 2
RANGE_PIECE_END = 3
RANGE_HELD = 4
RANGE_COLUMNS = 5
"""A range is a row of int64: first guest-physical address, end, and the region map's row in which it begins.

Then what pieces.py keeps of the piece with which it begins: its end, and what there was of it.
"""

_PAGE_MASK = PAGE_SIZE_BYTES - 1
_INSERTED = 33
"""The first gap leaves at most some so many ranges to be sorted by plain insertion."""


@kernel
def skip_bytes(length_bytes: int, reason: int, ledger: npt.NDArray[np.int64]) -> None:
    """Account for bytes that were reported and are not discarded: the word of the ledger says why."""
    ledger[REPORTED_BYTES] += length_bytes
    ledger[reason] += length_bytes


@inline_kernel
def _row_of(regions: npt.NDArray[np.int64], row: int, gpa: int, length_bytes: int) -> int:
    """As `find_cover` answers, for any int64; most likely all of it is in this row."""
    if row >= 0 and gpa >= regions[row, REGION_GPA]:
        into_bytes = gpa - regions[row, REGION_GPA]
        if length_bytes <= regions[row, REGION_BYTES] - into_bytes:
            return row
    return find_cover(regions, gpa, length_bytes)


@inline_kernel
def _is_aligned(regions: npt.NDArray[np.int64], row: int, gpa: int, end: int) -> bool:
    """Whether `gpa … end`, which begins in this row and goes on in those that follow, is whole pages of their files."""
    bits = gpa | end
    start = gpa
    while start < end:
        bits |= start | regions[row, REGION_OFFSET] - regions[row, REGION_GPA]
        start = regions[row, REGION_GPA] + regions[row, REGION_BYTES]
        row += 1
    return bits & _PAGE_MASK == 0


@kernel
def classify(
    regions: npt.NDArray[np.int64],
    gpas: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    flags: npt.NDArray[np.int64],
    count: int,
    ranges: npt.NDArray[np.int64],
    ledger: npt.NDArray[np.int64],
) -> int:
    """Sort an element's descriptors into ranges to discard, not yet accounted for, and bytes skipped.

    Args:
        regions: the region map's table.
        gpas: guest-physical address of each descriptor.
        lengths: bytes of each, 0 to 2^32 - 1.
        flags: virtio's descriptor flags of each.
        count: how many descriptors there are.
        ranges: at least `count` rows; receives what may be discarded, in the order of the descriptors.
        ledger: the ledger's words.

    Returns:
        How many ranges were written.
    """
    kept = 0
    row: int = -1
    for index in range(count):
        gpa = gpas[index]
        length_bytes = lengths[index]
        if length_bytes < 1:
            ledger[ZERO_LENGTH_BLOCKS] += 1
            continue
        row = _row_of(regions, row, gpa, length_bytes)
        if flags[index] & DESC_F_WRITE == 0:
            reason = SKIPPED_DEVICE_READABLE
        elif row < 0:
            reason = SKIPPED_OUT_OF_RANGE
        elif not _is_aligned(regions, row, gpa, gpa + length_bytes):
            reason = SKIPPED_UNALIGNED
        else:
            reason = 0
        if reason != 0:
            skip_bytes(length_bytes, reason, ledger)
        else:
            ranges[kept, RANGE_START] = gpa
            ranges[kept, RANGE_END] = gpa + length_bytes
            ranges[kept, RANGE_REGION] = row
            kept += 1
    ledger[REPORTS] += 1
    ledger[BLOCKS] += count
    return kept


@kernel
def sort_ranges(ranges: npt.NDArray[np.int64], count: int) -> None:
    """Sort the first `count` ranges by guest-physical address, which is by region and by place in its file as well.

    Plain insertion for a report as Linux makes them, which takes half as long as with gaps. Larger ones by Shell's sort
    with Knuth's gaps: a hostile guest's 1024 descriptors cost at most some 10^5 steps, where insertion would take 10^6.
    """
    gap = 1
    while gap < count // _INSERTED:
        gap = 3 * gap + 1
    while gap > 0:
        for index in range(gap, count):
            start = ranges[index, RANGE_START]
            end = ranges[index, RANGE_END]
            row = ranges[index, RANGE_REGION]
            place = index
            while place >= gap and ranges[place - gap, RANGE_START] > start:
                ranges[place, RANGE_START] = ranges[place - gap, RANGE_START]
                ranges[place, RANGE_END] = ranges[place - gap, RANGE_END]
                ranges[place, RANGE_REGION] = ranges[place - gap, RANGE_REGION]
                place -= gap
            ranges[place, RANGE_START] = start
            ranges[place, RANGE_END] = end
            ranges[place, RANGE_REGION] = row
        gap //= 3


@kernel
def join_ranges(ranges: npt.NDArray[np.int64], count: int, ledger: npt.NDArray[np.int64]) -> int:
    """Make one range of sorted ones that adjoin or overlap; bytes named more than once count as repeated.

    Returns:
        How many ranges there are now.
    """
    joined = 0
    for index in range(count):
        start, end = ranges[index, RANGE_START], ranges[index, RANGE_END]
        if joined > 0 and start <= ranges[joined - 1, RANGE_END]:
            before = ranges[joined - 1, RANGE_END]
            skip_bytes(min(end, before) - start, SKIPPED_REPEATED, ledger)
            ranges[joined - 1, RANGE_END] = max(end, before)
        else:
            ranges[joined, RANGE_START] = start
            ranges[joined, RANGE_END] = end
            ranges[joined, RANGE_REGION] = ranges[index, RANGE_REGION]
            joined += 1
    return joined


@kernel
def join_adjacent(ranges: npt.NDArray[np.int64], count: int) -> int:
    """Sort ranges, and make one of those that adjoin; how many there are now. Ranges that overlap stay apart."""
    for index in range(1, count):
        if ranges[index, RANGE_START] < ranges[index - 1, RANGE_START]:
            sort_ranges(ranges, count)
            break
    joined = 0
    for index in range(count):
        start, end = ranges[index, RANGE_START], ranges[index, RANGE_END]
        if joined > 0 and start == ranges[joined - 1, RANGE_END]:
            ranges[joined - 1, RANGE_END] = end
        else:
            ranges[joined, RANGE_START] = start
            ranges[joined, RANGE_END] = end
            ranges[joined, RANGE_REGION] = ranges[index, RANGE_REGION]
            joined += 1
    return joined


@kernel
def reported_ranges(
    regions: npt.NDArray[np.int64],
    gpas: npt.NDArray[np.int64],
    lengths: npt.NDArray[np.int64],
    flags: npt.NDArray[np.int64],
    count: int,
    ranges: npt.NDArray[np.int64],
    ledger: npt.NDArray[np.int64],
) -> int:
    """What one element reports, as sorted ranges that do not adjoin: how many. Arguments as for `classify`."""
    kept = classify(regions, gpas, lengths, flags, count, ranges, ledger)
    sort_ranges(ranges, kept)
    return join_ranges(ranges, kept, ledger)
