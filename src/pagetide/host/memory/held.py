"""How much of a guest's memory the host holds in RAM, and how much in swap.

`st_blocks` of a memory file counts both, and costs nothing. Only cachestat(2) tells them apart for a part of a file,
and it goes through every page that there is: some 4 ms a GiB, for which all other guests would wait. So it is asked
only where something is swapped out on this machine at all, and in steps: who wants to know asks until it is counted.
"""

import os
from collections.abc import Callable, Iterator, Sequence

import msgspec

from pagetide import linux
from pagetide.memory.residency import resident_bytes
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.virtio.vhost_user.payloads import MemoryRegion

STEP_NS = 10_000_000
"""For how long a step counts."""

_PIECE_BYTES = 256 << 20
_PART = "only a part of a file on hugetlbfs is shared, and the kernel counts whole files there"

_Regions = Sequence[tuple[MemoryRegion, int]]
_Part = tuple[int, int, int]  # descriptor, first byte, end


class Held(msgspec.Struct, frozen=True):
    """What the host holds of a guest's memory.

    Attributes:
        resident_bytes: in RAM; None where the kernel does not tell.
        swapped_bytes: in swap, some of which may be in RAM, too (the swap cache: on its way out, or read ahead); None
            where the kernel does not tell.
        counting: neither is known yet: ask again.
        why: why something is not known.
    """

    resident_bytes: int | None
    swapped_bytes: int | None
    counting: bool = False
    why: str | None = None


class _Unknown(Exception):  # noqa: N818  an answer, not an error
    """The kernel does not tell; the message says why."""


class HeldLook:
    """Finds out what is held, a step at a time; everything anew once an answer was given."""

    def __init__(self, clock_ns: Callable[[], int]) -> None:
        """Begin with nothing counted; the clock bounds the steps."""
        self._clock_ns = clock_ns
        self._of: list[tuple[MemoryRegion, int]] = []
        self._left: list[_Part] = []
        self._pages = (0, 0)

    def step(self, regions: _Regions) -> Held:
        """What is held of these regions, or as much nearer to that as a step comes."""
        try:
            if not self._left or self._of != list(regions):
                parts = _parts(regions)
                told = _told_at_once(parts)
                if told is not None:
                    return told
                self._of, self._left, self._pages = list(regions), list(_pieces(parts))[::-1], (0, 0)
            end_ns = self._clock_ns() + STEP_NS
            while self._left and self._clock_ns() < end_ns:
                self._count(*self._left.pop())
        except (OSError, _Unknown) as error:
            self._left = []
            return Held(None, None, why=str(error))
        if self._left:
            return Held(None, None, counting=True, why="still counting")
        return Held(self._pages[0] * PAGE_SIZE_BYTES, self._pages[1] * PAGE_SIZE_BYTES)

    def _count(self, fd: int, start: int, end: int) -> None:
        kind = linux.filesystem_type(fd)
        if kind == linux.HUGETLBFS_MAGIC:
            if not _is_whole(fd, start, end):
                raise _Unknown(_PART)
            cached, swapped = resident_bytes(fd) // PAGE_SIZE_BYTES, 0
        else:
            cached, swapped = linux.cachestat(fd, start, end - start)
        self._pages = (self._pages[0] + cached, self._pages[1] + swapped)


def _told_at_once(parts: Sequence[_Part]) -> Held | None:
    """The answer where `st_blocks` has it: nothing is swapped out, or can be, and files are shared whole."""
    kinds = {linux.filesystem_type(fd) for fd, _, _ in parts}
    if not kinds <= {linux.HUGETLBFS_MAGIC, linux.TMPFS_MAGIC}:
        raise _Unknown("its memory is a file on a disk: what is not in RAM is there, not in swap")
    if linux.TMPFS_MAGIC in kinds and linux.swap_is_used():
        return None
    if not all(_is_whole(*part) for part in parts):
        return Held(None, 0, why=_PART) if kinds == {linux.HUGETLBFS_MAGIC} else None
    return Held(sum(resident_bytes(fd) for fd, _, _ in parts), 0)


def _is_whole(fd: int, start: int, end: int) -> bool:
    return start == 0 and end >= os.fstat(fd).st_size


def _parts(regions: _Regions) -> list[_Part]:
    """The parts of files that are shared, each once."""
    of_file: dict[tuple[int, int], list[_Part]] = {}
    for region, fd in regions:
        status = os.fstat(fd)
        start = region.mmap_offset_bytes
        of_file.setdefault((status.st_dev, status.st_ino), []).append((fd, start, start + region.size_bytes))
    parts: list[_Part] = []
    for found in of_file.values():
        fd, start, end = min(found, key=lambda part: part[1])
        for _, next_start, next_end in sorted(found, key=lambda part: part[1]):
            if next_start > end:
                parts.append((fd, start, end))
                start, end = next_start, next_end
            end = max(end, next_end)
        parts.append((fd, start, end))
    return parts


def _pieces(parts: Sequence[_Part]) -> Iterator[_Part]:
    """The same in pieces that take a millisecond or so; a part on hugetlbfs, which takes none, stays whole."""
    for fd, start, end in parts:
        if linux.filesystem_type(fd) == linux.HUGETLBFS_MAGIC:
            yield fd, start, end
            continue
        for at in range(start, end, _PIECE_BYTES):
            yield fd, at, min(at + _PIECE_BYTES, end)
