#!/bin/bash
# mincore(2) says "not in memory" of huge pages that are in memory (hugetlbfs).
#
# mincore(2) is documented to tell which pages are resident in memory, and for a shared file mapping it tells of the page
# cache, whoever filled it: a page of a memfd or tmpfs file that another process touched is told as resident. For a file on
# hugetlbfs it looks into the caller's own page table instead (mm/mincore.c, mincore_hugetlb): a huge page that another
# process touched, and that the file holds, is told as absent until the caller has touched it, too. So whoever maps a
# guest's memory in order to see what of it is resident (a back-end, a monitor) sees nothing at all, and SEEK_DATA does not
# help either: there everything is data. What does tell the truth is st_blocks, for the file as a whole.
#
# Seen with Linux 6.18 (x86-64), C library and Python 3 of Debian 12; needs root for one moment, to reserve 2 huge pages.
#   memfd:     another process touched page 0: st_blocks 4096, mincore 1 0
#   hugetlbfs: another process touched page 0: st_blocks 2097152, mincore 0 0
#   hugetlbfs: and now this one read it:       st_blocks 2097152, mincore 1 0
# Exits 0 if it is so here, 1 if the kernel behaves otherwise, 2 if it cannot be tried.
set -u
exec python3 - <<'PYTHON'
import ctypes, mmap, os, sys

HUGE, SYSCTL = 2 << 20, "/proc/sys/vm/nr_hugepages"
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]


def look(what, fd, address, page):
    told = ctypes.create_string_buffer(2 * page // mmap.PAGESIZE)
    assert libc.mincore(address, 2 * page, told) == 0
    seen = [told.raw[n * page // mmap.PAGESIZE] & 1 for n in range(2)]
    print(f"{what} st_blocks {os.fstat(fd).st_blocks * 512}, mincore {seen[0]} {seen[1]}")
    return seen


def other_touches(name, flags, page):
    fd = os.memfd_create("finding", flags)
    os.ftruncate(fd, 2 * page)
    address = libc.mmap(None, 2 * page, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
    assert address not in (None, ctypes.c_void_p(-1).value), "cannot be mapped"
    child = os.fork()
    if child == 0:
        mmap.mmap(fd, 2 * page)[0] = 1
        os._exit(0)
    os.waitpid(child, 0)
    return fd, address, look(f"{name} another process touched page 0:", fd, address, page)


try:
    before = open(SYSCTL).read()
    open(SYSCTL, "w").write(str(int(before) + 2))
except OSError as error:
    sys.exit(print("cannot reserve huge pages:", error) or 2)
try:
    _, _, small = other_touches("memfd:    ", 0, mmap.PAGESIZE)
    fd, address, huge = other_touches("hugetlbfs:", os.MFD_HUGETLB | os.MFD_HUGE_2MB, HUGE)
    ctypes.string_at(address, 1)
    after = look("hugetlbfs: and now this one read it:      ", fd, address, HUGE)
finally:
    open(SYSCTL, "w").write(before)
sys.exit(0 if (small, huge, after) == ([1, 0], [0, 0], [1, 0]) else 1)
PYTHON
