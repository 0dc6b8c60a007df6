"""The system calls that Python lacks, and those that we want to fail like them.

Every failure is an OSError (or its subclass) whose text begins with the call's name: `fallocate: No space left on
device`. What a kernel can do is found by calling it, never from its version. Numbers of calls and flags are those of
include/uapi/linux and include/uapi/asm-generic in Linux 6.12, which x86-64 and aarch64 share.
"""

import ctypes
import fcntl
import mmap as _mmap
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

PROT_NONE = 0
PROT_READ = _mmap.PROT_READ
PROT_WRITE = _mmap.PROT_WRITE
MAP_SHARED = _mmap.MAP_SHARED
MAP_PRIVATE = _mmap.MAP_PRIVATE
MAP_ANONYMOUS = _mmap.MAP_ANONYMOUS
MAP_FIXED = 0x10
MAP_NORESERVE = 0x4000
MAP_POPULATE = 0x8000

MADV_DONTNEED = _mmap.MADV_DONTNEED
MADV_PAGEOUT = 21
MADV_DONTDUMP = 16

SEAL_SHRINK = fcntl.F_SEAL_SHRINK
SEAL_GROW = fcntl.F_SEAL_GROW

HUGETLBFS_MAGIC = 0x958458F6
TMPFS_MAGIC = 0x01021994

_FALLOC_FL_KEEP_SIZE = 0x01
_FALLOC_FL_PUNCH_HOLE = 0x02
_AT_EMPTY_PATH = 0x1000
_AT_STATX_DONT_SYNC = 0x4000
_STATX_TYPE = 0x1
_STATX_MODE = 0x2
_STATX_MNT_ID = 0x1000
_STATX_BYTES = 256
_SYS_CACHESTAT = 451

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
_libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
_libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int64]
_libc.mmap.restype = ctypes.c_ssize_t
_libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
_libc.statx.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p]
_libc.syscall.argtypes = [ctypes.c_long] * 7
_libc.syscall.restype = ctypes.c_long


def check(call: str, result: int) -> int:
    """The result of a libc call; a negative one becomes an OSError from errno."""
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{call}: {os.strerror(number)}")
    return result


@contextmanager
def named(call: str) -> Iterator[None]:
    """Give the OSErrors of Python's own wrapper the call's name."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"{call}: {error.strerror}") from error


def syscall(call: str, number: int, *arguments: int) -> int:
    """What a system call without a wrapper in the C library returns (syscall(2)).

    Raises:
        OSError: it failed; the text begins with what `call` calls it.
    """
    padded = (*arguments, *[0] * (6 - len(arguments)))
    return check(call, _libc.syscall(number, *padded))


def memfd_create(name: str) -> int:
    """A new, empty memory file that can be sealed (memfd_create(2)); the descriptor is closed on exec.

    Raises:
        OSError: the kernel refused.
    """
    with named("memfd_create"):
        return os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)


def add_seals(fd: int, seals: int) -> None:
    """Forbid some changes of a memory file for good (fcntl(2), F_ADD_SEALS).

    Raises:
        OSError: the file cannot be sealed, or no further.
    """
    with named("fcntl(F_ADD_SEALS)"):
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)


def sealed_memfd(name: str, size_bytes: int) -> int:
    """A new memory file of this size: who has the descriptor can neither cut it short nor enlarge it.

    Raises:
        OSError: the kernel refused.
    """
    fd = memfd_create(name)
    try:
        ftruncate(fd, size_bytes)
        add_seals(fd, SEAL_SHRINK | SEAL_GROW)
    except OSError:
        os.close(fd)
        raise
    return fd


def can_have_seals(fd: int) -> bool:
    """Whether it is a file of tmpfs (a memfd is one) or hugetlbfs: no others have seals (fcntl(2), F_GET_SEALS)."""
    try:
        fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        return False
    return True


class FileFacts(NamedTuple):
    """Some of what `statx` tells.

    Attributes:
        mode: type and permissions.
        dev_major: the major number of the device that its file system is on, 0 for one without.
        mount_id: which mount, as in /proc/self/mountinfo; 0 if the kernel (before 5.8) does not say.
    """

    mode: int
    dev_major: int
    mount_id: int


def statx(fd: int) -> FileFacts:
    """What the kernel knows of an open file without asking a server (statx(2), AT_STATX_DONT_SYNC).

    Raises:
        OSError: it is not open.
    """
    told = ctypes.create_string_buffer(_STATX_BYTES)
    flags = _AT_EMPTY_PATH | _AT_STATX_DONT_SYNC
    check("statx", _libc.statx(fd, b"", flags, _STATX_TYPE | _STATX_MODE | _STATX_MNT_ID, told))
    (mode,), (dev_major,) = struct.unpack_from("=H", told, 28), struct.unpack_from("=I", told, 136)
    (mask,), (mount_id,) = struct.unpack_from("=I", told, 0), struct.unpack_from("=Q", told, 144)
    return FileFacts(mode, dev_major, mount_id if mask & _STATX_MNT_ID else 0)


def filesystem_type(fd: int) -> int:
    """The magic number of the file system that a file is on (fstatfs(2), include/uapi/linux/magic.h).

    Raises:
        OSError: not an open file.
    """
    status = (ctypes.c_long * 32)()  # struct statfs has 120 bytes; its first word is the type
    check("fstatfs", _libc.fstatfs(fd, ctypes.byref(status)))
    return int(status[0])


def ftruncate(fd: int, size_bytes: int) -> None:
    """Set a file's size (ftruncate(2)).

    Raises:
        OSError: the size is too large, or sealed.
    """
    with named("ftruncate"):
        os.ftruncate(fd, size_bytes)


def punch_hole(fd: int, offset_bytes: int, length_bytes: int) -> None:
    """Give a stretch of a file back; it reads as zeros afterwards (fallocate(2), FALLOC_FL_PUNCH_HOLE).

    Raises:
        OSError: the file has no holes, or the range is empty or negative.
    """
    mode = _FALLOC_FL_PUNCH_HOLE | _FALLOC_FL_KEEP_SIZE
    check("fallocate", _libc.fallocate(fd, mode, offset_bytes, length_bytes))


def mmap(
    address: int, length_bytes: int, protection: int, flags: int, file_descriptor: int = -1, offset_bytes: int = 0
) -> int:
    """Map memory; the address of the mapping (mmap(2)).

    Raises:
        OSError: the kernel refused.
    """
    result = _libc.mmap(address, length_bytes, protection, flags, file_descriptor, offset_bytes)
    return check("mmap", -1) if result == -1 else int(result)


def munmap(address: int, length_bytes: int) -> None:
    """Remove every mapping of a range of addresses (munmap(2)).

    Raises:
        OSError: the range is not aligned to pages.
    """
    check("munmap", _libc.munmap(address, length_bytes))


def madvise(address: int, length_bytes: int, advice: int) -> None:
    """Advise the kernel about a range of this process's addresses (madvise(2)).

    Raises:
        OSError: the range is not mapped, or the advice does not fit it.
    """
    check("madvise", _libc.madvise(address, length_bytes, advice))


def mincore(address: int, length_bytes: int) -> bytes:
    """Which pages of a mapping are in memory, one byte a page, its lowest bit set if so (mincore(2)).

    For a file mapping it answers for the file's pages, whether or not this process has touched them.

    Raises:
        OSError: the range is not aligned to pages, or not all of it is mapped.
    """
    residency = ctypes.create_string_buffer(-(-length_bytes // _mmap.PAGESIZE))
    check("mincore", _libc.mincore(address, length_bytes, ctypes.addressof(residency)))
    return residency.raw


def cachestat(fd: int, offset_bytes: int, length_bytes: int) -> tuple[int, int]:
    """Of a part of a file: pages in the page cache, and pages that were evicted from it (cachestat(2), Linux 6.5).

    For a file of tmpfs or a memfd the evicted ones are in swap, also while the swap cache has them in RAM, where
    mincore finds them. Goes through all that there is: some 4 ms for each GiB in small pages.

    Raises:
        OSError: the kernel does not say: it is older, or the file is on hugetlbfs or not this process's to write.
    """
    part = (ctypes.c_uint64 * 2)(offset_bytes, length_bytes)
    told = (ctypes.c_uint64 * 5)()  # cached, dirty, in write-back, evicted, recently evicted
    syscall("cachestat", _SYS_CACHESTAT, fd, ctypes.addressof(part), ctypes.addressof(told), 0)
    return told[0], told[3]


def swap_is_used() -> bool:
    """Whether anything at all is swapped out on this machine (sysinfo(2)).

    Raises:
        OSError: the kernel does not say.
    """
    told = (ctypes.c_ulong * 64)()
    check("sysinfo", _libc.sysinfo(ctypes.byref(told)))
    total, free = told[8], told[9]
    return total != free


def eventfd() -> int:
    """A new eventfd at zero, non-blocking and closed on exec (eventfd(2)).

    Raises:
        OSError: no descriptor or memory is left.
    """
    with named("eventfd"):
        return os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)


def eventfd_read(fd: int) -> int:
    """Take what an eventfd has counted and set it to zero; 0 if it was zero and does not block.

    Raises:
        OSError: not an eventfd.
    """
    with named("read of an eventfd"):
        try:
            return os.eventfd_read(fd)
        except BlockingIOError:
            return 0


def eventfd_write(fd: int, count: int = 1) -> None:
    """Signal an eventfd. One that is full and does not block stays as it is: its reader has been signalled.

    Raises:
        OSError: not an eventfd.
    """
    with named("write to an eventfd"):
        try:
            os.eventfd_write(fd, count)
        except BlockingIOError:
            return
