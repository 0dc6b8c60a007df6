"""A stretch of a file that a front-end gave, mapped: whatever file it is, and whatever becomes of it.

It is mapped in whole pages of its file system. They are larger than the processor's on hugetlbfs, where a mapping can
begin, end and be replaced between two of them only, and a front-end may have a region begin or end within one.
"""

import os

from pagetide import linux
from pagetide.bus_error import GuardedRange
from pagetide.units import PAGE_SIZE_BYTES


class FileWindow:
    """The mapping, shared and writable. A file that is cut short under it is found out (`bus_error.py`).

    Attributes:
        address: where in this process the stretch begins.
    """

    address: int

    def __init__(self, fd: int, offset_bytes: int, size_bytes: int) -> None:
        """Map it; the descriptor stays the caller's.

        Args:
            fd: the file.
            offset_bytes: where in it, on a boundary of the processor's pages.
            size_bytes: how much of it, at least 1.

        Raises:
            OSError: the kernel refused.
        """
        page_bytes = max(os.fstatvfs(fd).f_bsize, PAGE_SIZE_BYTES)
        start = offset_bytes // page_bytes * page_bytes
        self._bytes = -(-(offset_bytes + size_bytes) // page_bytes) * page_bytes - start
        protection, flags = linux.PROT_READ | linux.PROT_WRITE, linux.MAP_SHARED | linux.MAP_NORESERVE
        self._start = linux.mmap(0, self._bytes, protection, flags, fd, start)
        self.address = self._start + offset_bytes - start
        is_aligned = page_bytes & page_bytes - 1 == 0 and self._start % page_bytes == 0
        self._guard = GuardedRange(self._start, self._bytes, page_bytes if is_aligned else PAGE_SIZE_BYTES)

    @property
    def was_cut(self) -> bool:
        """Whether an access found no page: the file was cut short, or the system has no huge page left for it."""
        return self._guard.was_cut

    def close(self) -> None:
        """Unmap it."""
        self._guard.close()
        linux.munmap(self._start, self._bytes)
