"""What the host really holds of a memory file, read back from the kernel.

Three questions with one answer for a tmpfs file: fstat(2) gives the sum, `SEEK_DATA` and `SEEK_HOLE` the ranges, and
mincore(2) the pages of a mapping. They part only when pages are swapped out: the first two go on counting them (they
are still the guest's data), mincore only while the swap cache has them. A punch frees RAM and swap alike, and
`host/memory/held.py` tells the two apart.
"""

import errno
import mmap
import os
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from pagetide.linux import mincore
from pagetide.units import PAGE_SIZE_BYTES

_STAT_BLOCK_BYTES = 512  # the unit of st_blocks, stat(3type)


def resident_bytes(fd: int) -> int:
    """Bytes that the file holds, by `st_blocks`.

    Raises:
        OSError: not an open file.
    """
    return os.fstat(fd).st_blocks * _STAT_BLOCK_BYTES


def resident_ranges(fd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The runs of data within `start … end`, as (first byte, end), in order.

    Moves the file's own position. The file may change meanwhile: each run was data when it was found.

    Raises:
        OSError: not an open file, or it cannot seek.
    """
    assert 0 <= start <= end
    position = start
    while position < end:
        try:
            data = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if _is_no_data(error):
                return
            raise
        if data >= end:
            return
        try:
            position = os.lseek(fd, data, os.SEEK_HOLE)
        except OSError as error:  # the file was cut short between the two calls
            if _is_no_data(error):
                return
            raise
        yield data, min(position, end)


def resident_blocks(fd: int, size_bytes: int, block_bytes: int) -> npt.NDArray[np.int64]:
    """Bytes resident in each block of the file, from its start, by `SEEK_DATA` and `SEEK_HOLE`.

    Args:
        fd: the memory file.
        size_bytes: how much of it to look at, a whole number of pages.
        block_bytes: size of a block, a whole number of pages; the last block may be cut short.

    Raises:
        OSError: not an open file, or it cannot seek.
    """
    assert size_bytes % PAGE_SIZE_BYTES == 0
    runs = np.array(list(resident_ranges(fd, 0, size_bytes)), dtype=np.int64).reshape(-1, 2)
    assert not np.any(runs % PAGE_SIZE_BYTES), "the kernel answers in pages"
    steps = np.zeros(size_bytes // PAGE_SIZE_BYTES + 1, dtype=np.int64)
    np.add.at(steps, runs[:, 0] // PAGE_SIZE_BYTES, 1)
    np.add.at(steps, runs[:, 1] // PAGE_SIZE_BYTES, -1)
    return _bytes_by_block(np.cumsum(steps)[:-1], block_bytes)


def mapped_resident_blocks(address: int, size_bytes: int, block_bytes: int) -> npt.NDArray[np.int64]:
    """Bytes resident in each block of a shared mapping, by mincore(2), whoever touched them.

    Args:
        address: where the mapping starts.
        size_bytes: how much of it to look at, a whole number of pages.
        block_bytes: size of a block, a whole number of pages; the last block may be cut short.

    Raises:
        OSError: the range is not mapped.
    """
    assert size_bytes % mmap.PAGESIZE == 0
    pages = np.frombuffer(mincore(address, size_bytes), dtype=np.uint8) & 1
    return _bytes_by_block(np.repeat(pages, mmap.PAGESIZE // PAGE_SIZE_BYTES), block_bytes)


def _bytes_by_block(resident_pages: npt.NDArray[np.integer], block_bytes: int) -> npt.NDArray[np.int64]:
    """Sum pages (1 resident, 0 not) by block, as bytes."""
    assert block_bytes >= PAGE_SIZE_BYTES
    assert block_bytes % PAGE_SIZE_BYTES == 0
    starts = np.arange(0, len(resident_pages), block_bytes // PAGE_SIZE_BYTES)
    if len(starts) == 0:
        return np.zeros(0, dtype=np.int64)
    return np.add.reduceat(resident_pages, starts, dtype=np.int64) * PAGE_SIZE_BYTES


def _is_no_data(error: OSError) -> bool:
    """Whether lseek(2) says that no data lies from there to the end of the file."""
    return error.errno == errno.ENXIO
