"""Reading an element's descriptors (virtio 1.2, 2.7.5): a chain, of which the last may refer to an indirect table.

The driver is not trusted: whatever it writes, and whenever, nothing is read but the descriptor table and an indirect
table within the guest's regions, each descriptor once, and no more of them than a table has.
"""

import numpy as np
import numpy.typing as npt

from pagetide.atomics import load_i64
from pagetide.jit import kernel
from pagetide.memory.region_map import find_cover, linear_address, load_across
from pagetide.virtio.split_ring.ring import (
    CHAIN_LOOPS,
    DESC_BYTES,
    DESC_F_INDIRECT,
    DESC_F_NEXT,
    DESC_F_WRITE,
    DESC_WORD,
    FLAGS_SHIFT,
    INDEX_MASK,
    INDIRECT_NESTED,
    INDIRECT_NOT_NEGOTIATED,
    INDIRECT_WITH_NEXT,
    LENGTH_MASK,
    NEXT_RANGE,
    NEXT_SHIFT,
    TABLE_LENGTH,
    TABLE_OUTSIDE,
    TABLE_TOO_LONG,
)

_HALF_BITS = 32
_HALF_BYTES = 4
_SIGN = 1 << 31

_Words = npt.NDArray[np.int64]


@kernel
def _load_across_i64(regions: _Words, gpa: int) -> int:
    """Load 64 bits that may lie in regions that adjoin."""
    low = load_across(regions, gpa, _HALF_BYTES)
    high = load_across(regions, gpa + _HALF_BYTES, _HALF_BYTES)
    return ((high ^ _SIGN) - _SIGN << _HALF_BITS) | low


@kernel
def _follow(
    table: int,
    table_gpa: int,
    regions: _Words,
    entries: int,
    index: int,
    gpas: _Words,
    lengths: _Words,
    flags: _Words,
    count: int,
) -> int:
    """Add a chain's descriptors to the arrays, up to one that ends it or is indirect; the new count or an error.

    The table is at an address, or, if that is -1, at a guest-physical address in regions that adjoin.
    """
    for _ in range(entries):
        place = index * DESC_BYTES
        if table != -1:
            gpa = load_i64(table + place)
            word = load_i64(table + place + DESC_WORD)
        else:
            gpa = _load_across_i64(regions, table_gpa + place)
            word = _load_across_i64(regions, table_gpa + place + DESC_WORD)
        bits = word >> FLAGS_SHIFT
        gpas[count] = gpa
        lengths[count] = word & LENGTH_MASK
        flags[count] = bits & (DESC_F_WRITE | DESC_F_INDIRECT)
        count += 1
        if bits & DESC_F_INDIRECT:
            return INDIRECT_WITH_NEXT if bits & DESC_F_NEXT else count
        if not bits & DESC_F_NEXT:
            return count
        index = word >> NEXT_SHIFT & INDEX_MASK
        if index >= entries:
            return NEXT_RANGE
    return CHAIN_LOOPS


@kernel
def read_chain(
    table: int, entries: int, head: int, indirect: int, regions: _Words, gpas: _Words, lengths: _Words, flags: _Words
) -> int:
    """Read the descriptors of one element, those of its indirect table in place of the one that refers to it.

    Args:
        table: address of the queue's descriptor table.
        entries: how many descriptors it has, which the three arrays have room for.
        head: index of the first, less than `entries`.
        indirect: whether VIRTIO_F_INDIRECT_DESC was negotiated.
        regions: the guest's region table (`RegionMap.table`), in which the indirect table is looked up.
        gpas: int64, receives guest-physical addresses; those of 2^63 and above come out negative.
        lengths: int64, receives lengths in bytes, from 0 to 2^32 - 1.
        flags: int64, receives DESC_F_WRITE or 0. The three arrays are equally long; an indirect table with more
            descriptors than there is room for is refused.

    Returns:
        The number of descriptors, at least 1; a negative code that `ring.error_text` explains.
    """
    count = _follow(table, 0, regions, entries, head, gpas, lengths, flags, 0)
    if count < 0 or not flags[count - 1] & DESC_F_INDIRECT:
        return count
    if not indirect:
        return INDIRECT_NOT_NEGOTIATED
    count -= 1  # the table's descriptors take the place of the one that refers to it
    table_gpa, table_bytes = gpas[count], lengths[count]
    if table_bytes == 0 or table_bytes % DESC_BYTES != 0:
        return TABLE_LENGTH
    table_entries = table_bytes // DESC_BYTES
    if table_entries > gpas.shape[0] - count:
        return TABLE_TOO_LONG
    row = find_cover(regions, table_gpa, table_bytes)
    if row < 0:
        return TABLE_OUTSIDE
    table_address = linear_address(regions, row, table_gpa, table_bytes)
    count = _follow(table_address, table_gpa, regions, table_entries, 0, gpas, lengths, flags, count)
    return INDIRECT_NESTED if count > 0 and flags[count - 1] & DESC_F_INDIRECT else count
