"""The map from guest-physical addresses to the files that back them, with bounds checks.

The table is what kernels read: int64, one row a region, columns as named below. It holds no references: whoever maps
the regions keeps their descriptors open and their mappings in place for as long as the table is in use.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pagetide.atomics import load_u8
from pagetide.jit import inline_kernel, kernel
from pagetide.units import PAGE_SIZE_BYTES

REGION_GPA = 0
REGION_BYTES = 1
REGION_FD = 2
REGION_OFFSET = 3
REGION_ADDRESS = 4
REGION_MARKS = 5
REGION_PIECE = 6
REGION_UNIT = 7
REGION_BOOK = 8
REGION_COLUMNS = 9

WHOLE = 1 << 62
"""A piece larger than any region."""


class Region(NamedTuple):
    """A run of guest-physical addresses backed by one stretch of a file, mapped at an address of this process.

    `marks_address` is where a bit for each of its pages is kept, which is set when the page is returned, with room for
    kernels after them (host/memory/presence.py); 0 for none.
    `piece_bytes`, a power of two, is how much of it one call is to discard at most, `unit_bytes` the least that can be
    given back, and `book_address` where a book is kept of what is out, if that is more than a small page
    (host/memory/huge_pages.py).
    """

    gpa: int
    size_bytes: int
    fd: int
    offset_bytes: int
    address: int
    marks_address: int = 0
    piece_bytes: int = WHOLE
    unit_bytes: int = PAGE_SIZE_BYTES
    book_address: int = 0


@kernel
def find_region(table: npt.NDArray[np.int64], gpa: int, length_bytes: int) -> int:
    """Row of the region that holds all of `gpa … gpa + length_bytes`; -1 if none does. Rows are in order of address.

    Safe for any int64 values: a length below 1, a negative address, a range that wraps around or that crosses from one
    region to the next answers -1.
    """
    if length_bytes < 1 or gpa < 0:
        return -1
    first = 0
    end: int = table.shape[0]
    while first < end:  # the first row that begins above it, by halves: a guest may have hundreds
        middle = first + end >> 1
        if table[middle, REGION_GPA] <= gpa:
            first = middle + 1
        else:
            end = middle
    row = first - 1
    if row < 0:
        return -1
    size = table[row, REGION_BYTES]
    into_bytes = gpa - table[row, REGION_GPA]
    return row if into_bytes < size and length_bytes <= size - into_bytes else -1


@kernel
def find_cover(table: npt.NDArray[np.int64], gpa: int, length_bytes: int) -> int:
    """Row of the region in which `gpa … gpa + length_bytes` begins, if it and those that adjoin hold all; -1 if not.

    As safe as `find_region`. The range goes on in the rows that follow.
    """
    if length_bytes < 1 or gpa < 0:
        return -1
    rows = table.shape[0]
    for row in range(rows):
        into = gpa - table[row, REGION_GPA]
        if 0 <= into < table[row, REGION_BYTES]:
            left = length_bytes - (table[row, REGION_BYTES] - into)
            for after in range(row + 1, rows):
                if (
                    left <= 0
                    or table[after, REGION_GPA] != table[after - 1, REGION_GPA] + table[after - 1, REGION_BYTES]
                ):
                    break
                left -= table[after, REGION_BYTES]
            return row if left <= 0 else -1
    return -1


@kernel
def linear_address(table: npt.NDArray[np.int64], row: int, gpa: int, length_bytes: int) -> int:
    """Where in this process a range is that begins in this row; -1 if it goes on in the next (`load_across`)."""
    into_bytes = gpa - table[row, REGION_GPA]
    return int(table[row, REGION_ADDRESS] + into_bytes) if length_bytes <= table[row, REGION_BYTES] - into_bytes else -1


@inline_kernel
def region_at(table: npt.NDArray[np.int64], row: int, gpa: int) -> int:
    """Row of the region that holds an address, or -1; it is most likely this row, whatever that is, or the next."""
    for here in range(max(row, 0), min(row + 2, table.shape[0])):
        if 0 <= gpa - table[here, REGION_GPA] < table[here, REGION_BYTES]:
            return here
    return find_region(table, gpa, 1)


@kernel
def load_across(table: npt.NDArray[np.int64], gpa: int, count: int) -> int:
    """Load up to four bytes in regions that adjoin, each once, as a little-endian number; what is nowhere is 0."""
    row: int = -1
    value: int = 0
    for place in range(count):
        row = region_at(table, row, gpa + place)
        if row >= 0:
            value |= load_u8(table[row, REGION_ADDRESS] + gpa + place - table[row, REGION_GPA]) << 8 * place
    return value


class RegionMap:
    """The regions of one guest.

    Attributes:
        table: int64 array of shape (regions, 7), for `find_region` and other kernels.
    """

    table: npt.NDArray[np.int64]

    def __init__(self, regions: list[Region]) -> None:
        """Check the regions and build the table.

        Raises:
            ValueError: a region is empty, or beyond 2^63 in the guest, the file or this process, or overlaps another.
        """
        end = 0
        for region in sorted(regions):
            for start in (region.gpa, region.offset_bytes, region.address):
                if region.size_bytes < 1 or start < 0 or start + region.size_bytes >= 1 << 63:
                    raise ValueError(f"a region of {region.size_bytes} bytes at {start:#x} is empty or too high")
            if region.gpa < end:
                raise ValueError(f"the region at {region.gpa:#x} overlaps the one before it, which ends at {end:#x}")
            end = region.gpa + region.size_bytes
        self.table = np.array(sorted(regions), dtype=np.int64).reshape(len(regions), REGION_COLUMNS)

    def locate(self, gpa: int, length_bytes: int) -> tuple[int, int] | None:
        """The descriptor and file offset that back this range, or None if no one region holds all of it."""
        row = find_region(self.table, gpa, length_bytes) if gpa < 1 << 63 and length_bytes < 1 << 63 else -1
        if row < 0:
            return None
        region = Region(*(int(value) for value in self.table[row]))
        return region.fd, region.offset_bytes + gpa - region.gpa
