"""The inflate and deflate queues: arrays of page frame numbers (virtio 1.2, 5.5.6).

An element of either is device-readable and holds le32 numbers of 4 KiB pages. Inflated pages are the host's: they are
discarded, sorted and joined like reported blocks, before the acknowledgement. Deflated pages are the guest's again:
they fault in when it touches them, so there is nothing to do but count.

PAGE_POISON does not matter here, nor does it to QEMU: a driver that poisons writes a deflated page as it frees it,
whatever the page holds.
"""

import numpy as np
import numpy.typing as npt

from pagetide.atomics import load_u32
from pagetide.host.memory.ledger import (
    BLOCKS,
    MALFORMED,
    REPORTS,
    SKIPPED_OUT_OF_RANGE,
    SKIPPED_UNALIGNED,
)
from pagetide.host.memory.ranges import RANGE_END, RANGE_REGION, RANGE_START, join_ranges, skip_bytes, sort_ranges
from pagetide.jit import kernel
from pagetide.memory.region_map import (
    REGION_GPA,
    REGION_OFFSET,
    find_cover,
    find_region,
    linear_address,
    load_across,
)
from pagetide.units import PAGE_SHIFT, PAGE_SIZE_BYTES
from pagetide.virtio.split_ring.ring import DESC_F_WRITE

PFNS_MAX = 1024
"""Most pages that one element may name, the rest is counted as malformed; Linux's driver sends at most 256."""

_PFN_BYTES = 4
_PAGE_MASK = PAGE_SIZE_BYTES - 1

_Words = npt.NDArray[np.int64]


@kernel
def read_pfns(
    regions: _Words, gpas: _Words, lengths: _Words, flags: _Words, count: int, ranges: _Words, ledger: _Words
) -> int:
    """Read an element's page frame numbers as ranges of one page each, not yet accounted for; each is loaded once.

    Args:
        regions: the region map's table.
        gpas: guest-physical address of each descriptor.
        lengths: bytes of each.
        flags: virtio's descriptor flags of each.
        count: how many descriptors there are.
        ranges: at least PFNS_MAX rows; receives the pages that the guest has, in the order in which they are named.
        ledger: the queue's account.

    Returns:
        How many ranges were written.
    """
    ledger[REPORTS] += 1
    named = 0
    kept = 0
    for index in range(count):
        length_bytes = lengths[index]
        array = find_cover(regions, gpas[index], length_bytes)
        pfns = length_bytes // _PFN_BYTES
        if array < 0 or flags[index] & DESC_F_WRITE or length_bytes % _PFN_BYTES != 0 or pfns > PFNS_MAX - named:
            ledger[MALFORMED] += 1
            continue
        address = linear_address(regions, array, gpas[index], length_bytes)
        named += pfns
        for place in range(pfns):
            if address >= 0:
                gpa = load_u32(address + place * _PFN_BYTES) << PAGE_SHIFT
            else:
                gpa = load_across(regions, gpas[index] + place * _PFN_BYTES, _PFN_BYTES) << PAGE_SHIFT
            row = find_region(regions, gpa, PAGE_SIZE_BYTES)
            if row < 0:
                skip_bytes(PAGE_SIZE_BYTES, SKIPPED_OUT_OF_RANGE, ledger)
            elif (regions[row, REGION_OFFSET] - regions[row, REGION_GPA]) & _PAGE_MASK != 0:
                skip_bytes(PAGE_SIZE_BYTES, SKIPPED_UNALIGNED, ledger)
            else:
                ranges[kept, RANGE_START] = gpa
                ranges[kept, RANGE_END] = gpa + PAGE_SIZE_BYTES
                ranges[kept, RANGE_REGION] = row
                kept += 1
    ledger[BLOCKS] += named
    return kept


@kernel
def inflated_ranges(
    regions: _Words, gpas: _Words, lengths: _Words, flags: _Words, count: int, ranges: _Words, ledger: _Words
) -> int:
    """The pages that one element names, as sorted ranges that do not adjoin: how many. Arguments as for `read_pfns`."""
    kept = read_pfns(regions, gpas, lengths, flags, count, ranges, ledger)
    sort_ranges(ranges, kept)
    return join_ranges(ranges, kept, ledger)
