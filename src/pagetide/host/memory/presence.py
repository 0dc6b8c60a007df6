"""What of a stretch of a memory file there is: before a punch, to know what it returns, and after it, as its proof.

Before a punch cachestat(2) tells (Linux 6.5, mm/filemap.c): it counts the pages of a stretch, those in swap too,
without touching one of them. Of 2 MiB in small pages that takes a fifteenth of the time of the punch. `SEEK_HOLE` finds
the same and takes ten times as long, since it takes hold of each page on its way; an older kernel is asked so.

Large pieces are usually there as a whole, and then `st_blocks` is cheaper: what it falls by is what the punch returned,
or more where somebody touched another page of the file meanwhile. So where the piece before fell by all of its length,
the next large one is only weighed; one that falls by less counts for its fall, the least that it can have been, and the
next is counted again. A guest that is busy touching memory is never only weighed.

After a punch nearly all is gone, and one `SEEK_DATA` says so. Neither asks our own mapping: mincore(2) counts a page
that is on its way to swap as in RAM, and one that is there as gone.

The kernels need room at an address of their own, of `ROOM_BYTES`, at first zero.
"""

import errno as errors
import os

from pagetide.atomics import errno, load_i64, store_i64
from pagetide.jit import external, inline_kernel, int32, int64, kernel
from pagetide.memory.metadata import gone_metadata
from pagetide.units import PAGE_SHIFT, PAGE_SIZE_BYTES

_SYS_CACHESTAT = 451
_ANSWER_AT = 16  # after struct cachestat_range; struct cachestat has five words, uapi/linux/mman.h
_EVICTED_AT = _ANSWER_AT + 24
_QUIET_AT = 56  # not 0 after a large piece whose fall was all of it
_BEFORE_AT = 64  # what the file held before the piece
_STATX_AT = 72

_STATX_BYTES = 256
STATX_ROOM_BYTES = _STATX_BYTES + 8
"""Room that `allocated_bytes` needs."""

_AGAIN_AT = _STATX_AT + STATX_ROOM_BYTES  # pages that were returned and there again when they were returned anew

ROOM_BYTES = _AGAIN_AT + 8
"""Room that the others need."""

LARGE_BYTES = 1 << 20
"""Pieces of small pages from this size on are worth weighing; others are counted in less time than that takes."""

_UNCOUNTED = -2
_STX_BLOCKS_AT = 48  # struct statx, uapi/linux/stat.h
_STATX_BLOCKS = 0x400
_AT_EMPTY_PATH = 0x1000
_BLOCK_BYTES = 512
_ENXIO = errors.ENXIO
_SEEK_DATA = os.SEEK_DATA
_SEEK_HOLE = os.SEEK_HOLE

_lseek = external("lseek", int64, int32, int64, int32)
_statx = external("statx", int32, int32, int64, int32, int32, int64)
_syscall = external("syscall", int64, int64, int64, int64, int64, int64)


@kernel
def gone_bytes(fd: int, offset_bytes: int, length_bytes: int) -> int:
    """How much of this stretch of the file is hole, by the kernel's word; -1 if the file cannot tell.

    Moves the file's own position, which nothing that is mapped uses. Of a negative descriptor by its metadata.
    """
    if fd < 0:
        return gone_metadata(-fd, offset_bytes, length_bytes)
    end = offset_bytes + length_bytes
    position = offset_bytes
    gone: int = 0
    for _ in range(length_bytes // PAGE_SIZE_BYTES + 1):
        data = _lseek(int(fd), int(position), _SEEK_DATA)
        if data < 0:
            # ENXIO: no data from here to the end of the file (lseek(2)).
            return gone + end - position if errno() == _ENXIO else -1
        if data >= end:
            return gone + end - position
        gone += data - position
        position = _lseek(int(fd), int(data), _SEEK_HOLE)
        if position < 0:
            return -1
        if position >= end:
            return gone
    return -1


@kernel
def allocated_bytes(fd: int, room: int) -> int:
    """Bytes that the file holds, by `st_blocks`; -1 if the kernel does not say. `room` has `STATX_ROOM_BYTES`."""
    empty_path = room + _STATX_BYTES
    if _statx(int(fd), int(empty_path), _AT_EMPTY_PATH, _STATX_BLOCKS, int(room)) != 0:
        return -1
    return load_i64(room + _STX_BLOCKS_AT) * _BLOCK_BYTES


@kernel
def room_after(marks: int, size_bytes: int) -> int:
    """Where the room is of a region that has marks: behind them; 0 for a region without."""
    return 0 if marks == 0 else marks + ((size_bytes >> PAGE_SHIFT) + 63 >> 6 << 3)


@kernel
def held_bytes(fd: int, offset_bytes: int, length_bytes: int, room: int) -> int:
    """How much of this stretch of the file the host holds, in RAM or in swap; -1 if the file cannot tell.

    Of a negative descriptor by its metadata; without room (0) by lseek(2).
    """
    if fd >= 0 and room != 0:
        store_i64(room, offset_bytes)
        store_i64(room + 8, length_bytes)
        if _syscall(_SYS_CACHESTAT, int(fd), int(room), int(room + _ANSWER_AT), 0) == 0:
            return (load_i64(room + _ANSWER_AT) + load_i64(room + _EVICTED_AT)) * PAGE_SIZE_BYTES
    gone = gone_bytes(fd, offset_bytes, length_bytes)
    return -1 if gone < 0 else length_bytes - gone


@kernel
def ask_before(fd: int, offset_bytes: int, length_bytes: int, room: int, weigh: int) -> int:
    """As `held_bytes`, before a punch of this stretch; or another negative number if it is only weighed.

    `weigh` is not 0 where a fall of `st_blocks` is cheaper than a count; it needs a file and room.
    """
    if weigh != 0:
        store_i64(room + _BEFORE_AT, allocated_bytes(fd, room + _STATX_AT))
        if load_i64(room + _QUIET_AT) != 0:
            return _UNCOUNTED
    return held_bytes(fd, offset_bytes, length_bytes, room)


@kernel
def returned_bytes(fd: int, length_bytes: int, room: int, weigh: int, held: int, gone: int) -> int:
    """What a punch returned.

    Args:
        fd: the file.
        length_bytes: how long the stretch is.
        room: as for `ask_before`.
        weigh: as for `ask_before`.
        held: what that answered.
        gone: what `gone_bytes` says since.
    """
    returned = max(0, held - (length_bytes - gone))
    if weigh != 0:
        fallen = load_i64(room + _BEFORE_AT) - allocated_bytes(fd, room + _STATX_AT)
        store_i64(room + _QUIET_AT, 1 if fallen == length_bytes else 0)
        if held == _UNCOUNTED:
            returned = max(0, min(fallen, gone))
    return returned


@inline_kernel
def page_bits(word: int, first: int, end: int) -> int:
    """Which bits of a word of marks are those of the pages `first … end`, some of which it has."""
    bits = -1 << max(first - (word << 6), 0)
    if end - (word << 6) < 64:
        bits &= ~(-1 << (end - (word << 6)))
    return bits


@kernel
def mark_pages(marks: int, first: int, end: int, value: int) -> None:
    """Set (`value` 1) or clear (0) the bits of the pages `first … end` in the words at an address, the lowest first."""
    for word in range(first >> 6, (end - 1 >> 6) + 1):
        bits = page_bits(word, first, end)
        address = marks + (word << 3)
        store_i64(address, load_i64(address) | bits if value != 0 else load_i64(address) & ~bits)


@kernel
def marked_pages(marks: int, first: int, end: int) -> int:
    """How many of the pages, or blocks, `first … end` have their bit set in the words at an address."""
    count: int = 0
    for word in range(first >> 6, (end - 1 >> 6) + 1):
        bits = page_bits(word, first, end) & load_i64(marks + (word << 3))
        # the sum of ever larger groups of bits (H. S. Warren, Hacker's Delight, 5-1); the sign bit goes with the masks
        bits = bits - (bits >> 1 & 0x5555555555555555)
        bits = (bits & 0x3333333333333333) + (bits >> 2 & 0x3333333333333333)
        bits = bits + (bits >> 4) & 0x0F0F0F0F0F0F0F0F
        bits += bits >> 8
        bits += bits >> 16
        count += bits + (bits >> 32) & 0x7F
    return count


@kernel
def mark_data(fd: int, offset_bytes: int, length_bytes: int, marks: int, first: int) -> int:
    """Set the bits of those pages of this stretch that are data; its first page is the page `first` of the marks.

    Returns:
        How many of them had theirs already.
    """
    again: int = 0
    if fd < 0:
        return again
    end = offset_bytes + length_bytes
    position = offset_bytes
    while position < end:
        data = _lseek(int(fd), int(position), _SEEK_DATA)
        if data < 0 or data >= end:
            return again
        position = min(_lseek(int(fd), int(data), _SEEK_HOLE), end)
        if position <= data:
            return again
        page = first + (data - offset_bytes >> PAGE_SHIFT)
        beyond = page + (position - data >> PAGE_SHIFT)
        again += marked_pages(marks, page, beyond)
        mark_pages(marks, page, beyond, 1)
    return again


@kernel
def note_again(room: int, pages: int) -> None:
    """So many pages were marked as returned, and there all the same when they were returned anew."""
    store_i64(room + _AGAIN_AT, load_i64(room + _AGAIN_AT) + pages)


@kernel
def take_again(room: int) -> int:
    """How many those were since this was asked last."""
    pages = load_i64(room + _AGAIN_AT)
    store_i64(room + _AGAIN_AT, 0)
    return pages
