"""Guest RAM: a memory file, and one guarded mapping of all of it.

The mapping is one VMA with an inaccessible guard on either side. Linux takes only the lock of that VMA for faults and
for advice within it, and falls back to the lock of the whole address space for a range across two; without the guards
a neighbouring mapping of the same file could merge with it, and a stray access beyond the end would hit something.
"""

import ctypes
import errno
import os
import stat
from typing import Literal, Self

import numpy as np
import numpy.typing as npt

from pagetide import linux
from pagetide.huge_tmpfs import huge_tmpfs_file
from pagetide.memory.available import available_bytes, total_bytes
from pagetide.units import HUGE_PAGE_BYTES, PAGE_SIZE_BYTES, format_size

ALIGN_BYTES = HUGE_PAGE_BYTES
"""The mapping starts on a multiple of this, the size of a huge page, and each guard is at least this large."""

Backing = Literal["memfd", "hugetmpfs"]
"""Small pages, or pages of 2 MiB wherever the kernel finds them."""

_WORD_BYTES = 8


class GuestRamError(OSError):
    """Guest memory cannot be had; the message is one sentence that says why, and what would do."""


class GuestRam:
    """The memory of one guest, mapped here.

    Use as a context manager, or call `close`.

    Attributes:
        fd: the memory file.
        size_bytes: its size.
        address: where the mapping starts in this process, a multiple of 2 MiB.
        words: the memory as int64, shape (size_bytes // 8,), not copied. Must not be used after `close`.
    """

    fd: int
    size_bytes: int
    address: int
    words: npt.NDArray[np.int64]

    def __init__(self, fd: int, size_bytes: int) -> None:
        """Map a file that is at least this large; the object owns the descriptor from here on, also when this fails."""
        assert size_bytes > 0
        assert size_bytes % PAGE_SIZE_BYTES == 0
        self.fd, self.size_bytes = fd, size_bytes
        self._reserved_bytes = 3 * ALIGN_BYTES + -(-size_bytes // ALIGN_BYTES) * ALIGN_BYTES
        self._reserved = 0
        try:
            self._reserved = linux.mmap(
                0, self._reserved_bytes, linux.PROT_NONE, linux.MAP_PRIVATE | linux.MAP_ANONYMOUS | linux.MAP_NORESERVE
            )
            self.address = -(-self._reserved // ALIGN_BYTES) * ALIGN_BYTES + ALIGN_BYTES
            linux.mmap(
                self.address,
                size_bytes,
                linux.PROT_READ | linux.PROT_WRITE,
                linux.MAP_SHARED | linux.MAP_FIXED,
                fd,
            )
        except OSError as error:
            self.close()
            raise GuestRamError(
                f"{format_size(size_bytes)} of guest RAM cannot be mapped ({error.strerror})"
            ) from error
        assert self.address - ALIGN_BYTES >= self._reserved
        assert self.address + size_bytes + ALIGN_BYTES <= self._reserved + self._reserved_bytes
        buffer = (ctypes.c_int64 * (size_bytes // _WORD_BYTES)).from_address(self.address)
        self.words = np.ctypeslib.as_array(buffer)

    @classmethod
    def create(cls, size_bytes: int, backing: Backing) -> Self:
        """Make a memory file with `create_ram_file`, which says what is raised, and map it."""
        return cls(create_ram_file(size_bytes, backing), size_bytes)

    @classmethod
    def from_fd(cls, fd: int, size_bytes: int) -> Self:
        """Map a memory file that someone else made; the descriptor is this object's from here on, also on failure.

        Args:
            fd: the file, open for reading and writing.
            size_bytes: how much of it, from its start; a whole number of pages.

        Raises:
            GuestRamError: it is not a file, or smaller than that, or cannot be mapped.
        """
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size < size_bytes:
            os.close(fd)
            raise GuestRamError(
                f"{format_size(size_bytes)} of guest RAM do not fit into the file given for it, "
                f"which has {format_size(status.st_size)}"
            )
        return cls(fd, size_bytes)

    def close(self) -> None:
        """Unmap the memory and close the file; a second call does nothing."""
        if self._reserved != 0:
            self.words = np.zeros(0, dtype=np.int64)
            linux.munmap(self._reserved, self._reserved_bytes)
            self._reserved = 0
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def create_ram_file(size_bytes: int, backing: Backing) -> int:
    """Make a memory file of this size, all holes; its descriptor.

    Args:
        size_bytes: a whole number of pages.
        backing: `memfd`, which anyone may have and whose size is sealed, or `hugetmpfs`, which takes root.

    Raises:
        GuestRamError: there is not so much memory, or the kernel refused.
    """
    _check_fits(size_bytes)
    try:
        return linux.sealed_memfd("pagetide-guest", size_bytes) if backing == "memfd" else _hugetmpfs(size_bytes)
    except OSError as error:
        raise GuestRamError(_why_not(size_bytes, backing, error)) from error


def _check_fits(size_bytes: int) -> None:
    asked = f"{format_size(size_bytes)} of guest RAM"
    if size_bytes > total_bytes():
        raise GuestRamError(f"{asked} is more than this machine's {format_size(total_bytes())} of memory")
    if size_bytes > available_bytes():
        raise GuestRamError(f"{asked} do not fit: only {format_size(available_bytes())} of memory is available")


def _hugetmpfs(size_bytes: int) -> int:
    """A file on a huge tmpfs of its own; such files cannot be sealed."""
    fd = huge_tmpfs_file(-(-size_bytes // ALIGN_BYTES) * ALIGN_BYTES)
    try:
        linux.ftruncate(fd, size_bytes)
    except OSError:
        os.close(fd)
        raise
    return fd


def _why_not(size_bytes: int, backing: Backing, error: OSError) -> str:
    if backing == "hugetmpfs" and isinstance(error, PermissionError):
        reason = f"huge pages need a tmpfs of our own, which only root may mount ({error.strerror})"
        return f"{reason}: run as root, or use --backing memfd"
    if backing == "hugetmpfs" and error.errno in {errno.ENOSYS, errno.ENODEV, errno.EINVAL}:
        return f"this kernel has no huge pages for tmpfs ({error.strerror}): use --backing memfd"
    return f"no memory file of {format_size(size_bytes)} for the guest ({error.strerror})"
