#!/bin/bash
# PAGEMAP_SCAN says that it walked to the middle where it walked to the end, once it has found more than 512 regions.
#
# `walk_end` of the argument is documented as the address at which the walk ended (struct pm_scan_arg,
# include/uapi/linux/fs.h), and with room left in the vector a walk ends at `end`. So who wants everything goes on from
# `walk_end` until that is `end`. But the kernel collects 512 regions at a time; each time that room is full it notes where
# it stands, and goes on by itself; and when the last stretch then ends without filling it, the note stays
# (fs/proc/task_mmu.c, do_pagemap_scan: walk_end is set at the end only if it is still 0). All regions are in the vector, and
# `walk_end` is what follows the 512th, 1024th and so on: who goes on from there is told the rest twice, and counts it twice.
# With a vector of at most 512 all is well.
#
# Seen with Linux 6.18 (x86-64) and Python 3.11; nothing is installed: the kernel that runs is what is tested. The source
# has been so since 6.7, where the call came.
#   600 single pages of 1200 are touched, and asked for with room for N regions
#   N = 300: 300 regions, to page 599 of 1200, and walk_end is page 600
#   N = 512: 512 regions, to page 1023 of 1200, and walk_end is page 1024
#   N = 700: 600 regions, to page 1199 of 1200, and walk_end is page 1024
#   whoever goes on until walk_end is the end is told 688 pages with room for 700, and 600 with room for 512
# Exits 0 if it is so here, 1 if the kernel behaves otherwise, 2 if it is older than 6.7.
set -euo pipefail
echo "Linux $(uname -r), $(python3 --version)"
python3 - <<'PYTHON'
import ctypes, fcntl, mmap, struct, sys

PAGES, PAGE = 1200, mmap.PAGESIZE
PAGEMAP_SCAN, PRESENT = 0xC0606610, 1 << 3

memory = mmap.mmap(-1, PAGES * PAGE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for page in range(0, PAGES, 2):
    memory[page * PAGE] = 1
begin = ctypes.addressof(ctypes.c_char.from_buffer(memory))
end = begin + PAGES * PAGE
pagemap = open("/proc/self/pagemap", "rb", buffering=0)


def scan(start: int, room: int) -> tuple[int, int, int]:
    """Regions that were found, where the last one ended, and walk_end."""
    found = (ctypes.c_uint64 * (3 * room))()
    words = (96, 0, start, end, 0, ctypes.addressof(found), room, 0, 0, PRESENT, 0, PRESENT)
    asked = bytearray(struct.pack("12Q", *words))
    count = fcntl.ioctl(pagemap, PAGEMAP_SCAN, asked)
    return count, found[3 * count - 2] if count else start, struct.unpack_from("Q", asked, 32)[0]


def told_pages(room: int) -> int:
    """How many pages whoever goes on from walk_end is told in all; each region is a page here."""
    told, start = 0, begin
    while start < end:
        count, _, start = scan(start, room)
        told += count
    return told


try:
    scan(begin, 1)
except OSError as error:
    sys.exit(print("this kernel has no PAGEMAP_SCAN:", error) or 2)
print(f"{PAGES // 2} single pages of {PAGES} are touched, and asked for with room for N regions")
seen = []
for room in (300, 512, 700):
    count, last, walk_end = scan(begin, room)
    seen.append((count, (last - begin) // PAGE, (walk_end - begin) // PAGE))
    print(f"N = {room}: {count} regions, to page {seen[-1][1]} of {PAGES}, and walk_end is page {seen[-1][2]}")
twice, once = told_pages(700), told_pages(512)
print(f"whoever goes on until walk_end is the end is told {twice} pages with room for 700, and {once} with room for 512")
sys.exit((seen, twice, once) != ([(300, 599, 600), (512, 1023, 1024), (600, 1199, 1024)], 688, 600))
PYTHON
