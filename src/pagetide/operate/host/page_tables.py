"""What page tables hold of a mapping: PAGEMAP_SCAN (Documentation/admin-guide/mm/pagemap.rst, Linux 6.7).

smaps looks at each page besides, for how many map it. The tables alone take a quarter of that time; they are read a GiB
at a time, since the process's map of its memory is locked meanwhile. They know nothing of what is in swap of shared
memory, nor which pages are copies of a file's.
"""

import ctypes
import fcntl
import struct
from pathlib import Path
from typing import NamedTuple

from pagetide.units import GIB

_PRESENT, _ZERO, _HUGE = 1 << 3, 1 << 5, 1 << 6  # PAGE_IS_PRESENT, _PFNZERO, _HUGE of include/uapi/linux/fs.h
_SCAN, _SCAN_WORDS = 0xC0606610, 12  # struct pm_scan_arg
_QUERY, _QUERY_BYTES, _QUERY_PAGE = 0xC0686611, 104, 48  # PROCMAP_QUERY, struct procmap_query, its vma_page_size
_PIECE_BYTES = GIB
_FOUND_MAX = 1024


class Pages(NamedTuple):
    """What is there of a mapping.

    Attributes:
        there_bytes: in RAM, but for pages of zeros that all processes share.
        huge_bytes: as much of that is mapped by the 2 MiB.
    """

    there_bytes: int
    huge_bytes: int


def pages_of(pid: int, start: int, end: int) -> Pages:
    """What is there between two addresses of a process.

    Raises:
        OSError: the process has gone, may not be looked at, or the kernel does not tell that.
    """
    found = (ctypes.c_uint64 * (3 * _FOUND_MAX))()
    there = huge = 0
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as file:
        while start < end:
            piece_end = min(end, start + _PIECE_BYTES)
            words = (start, piece_end, 0, ctypes.addressof(found), _FOUND_MAX, 0, _ZERO, _PRESENT | _ZERO, 0, _HUGE)
            asked = bytearray(struct.pack(f"{_SCAN_WORDS}Q", 8 * _SCAN_WORDS, 0, *words))
            number = fcntl.ioctl(file, _SCAN, asked)
            for index in range(number):
                first, last, kinds = found[3 * index : 3 * index + 3]
                there += last - first
                huge += last - first if kinds & _HUGE else 0
            # Not `walk_end`, which is too small where there are more than 512: findings/pagemap_scan_walk_end.sh.
            start = piece_end if number < _FOUND_MAX else last
    return Pages(there, huge)


def page_bytes_at(pid: int, address: int) -> int:
    """The size of pages of the mapping at this address (PROCMAP_QUERY, Linux 6.11); those of hugetlbfs are larger.

    Raises:
        OSError: likewise.
    """
    asked = bytearray(struct.pack("3Q", _QUERY_BYTES, 0, address).ljust(_QUERY_BYTES, b"\0"))
    with Path(f"/proc/{pid}/maps").open("rb", buffering=0) as file:
        fcntl.ioctl(file, _QUERY, asked)
    size_bytes: int = struct.unpack_from("Q", asked, _QUERY_PAGE)[0]
    return size_bytes
