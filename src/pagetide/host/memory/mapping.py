"""One region of a guest's memory, mapped, with what is known of its pages."""

import contextlib
import ctypes
import os
from typing import NamedTuple

import numpy as np

from pagetide import foreign_fds, linux
from pagetide.host.memory.block_states import BlockNotes, FileOfRegion
from pagetide.host.memory.file_window import FileWindow
from pagetide.host.memory.huge_pages import book_bytes, huge_page_bytes
from pagetide.host.memory.pieces import piece_bytes
from pagetide.host.memory.presence import ROOM_BYTES, room_after, take_again
from pagetide.units import PAGE_SIZE_BYTES
from pagetide.virtio.vhost_user.payloads import MemoryRegion

_ADDRESSES = 1 << 64

LOOK_PAGES = 1 << 14
"""How many pages are looked at in one piece."""


class GuestMemoryError(Exception):
    """Memory that the frontend named cannot be used, or is not there; the message says why."""


class Mapping(NamedTuple):
    """A region that is mapped.

    Attributes:
        shared: what the front-end said of it.
        fd: its file.
        window: where its bytes are in this process.
        marks_address: where a bit for each page says that it was returned, and not seen again since.
        piece_bytes: most that is discarded in one call.
        unit_bytes: the pages that can be given back.
        book_address: which parts of huge pages are out (huge_pages.py); 0 without any.
        notes: what is remembered of its blocks.
    """

    shared: MemoryRegion
    fd: int
    window: FileWindow
    marks_address: int
    piece_bytes: int
    unit_bytes: int
    book_address: int
    notes: BlockNotes

    @property
    def book_bytes(self) -> int:
        """Size of the book; 0 without one."""
        return book_bytes(self.shared[3], self.shared[1], self.unit_bytes) if self.book_address else 0

    @property
    def pages(self) -> int:
        """How many there are."""
        return self.shared.size_bytes // PAGE_SIZE_BYTES

    def close(self) -> None:
        """Unmap it and close its file."""
        self.window.close()
        linux.munmap(self.marks_address, _marked_bytes(self.shared.size_bytes, self.notes))
        foreign_fds.close(self.fd)

    def take_refaulted_pages(self, start: int) -> int:
        """Those of the piece that begins with this page, each once; -1 if nothing was returned there.

        With the first piece come those of all the region that were returned anew before they were looked for.
        """
        again = int(take_again(room_after(self.marks_address, self.shared.size_bytes))) if start == 0 else 0
        marks_bytes = _marks_bytes(self.shared.size_bytes)
        marks = np.ctypeslib.as_array((ctypes.c_uint8 * marks_bytes).from_address(self.marks_address))
        some = marks[start // 8 : (start + LOOK_PAGES) // 8]
        if not some.any():
            return again or -1
        pages = min(LOOK_PAGES, self.pages - start)
        told = linux.mincore(self.window.address + start * PAGE_SIZE_BYTES, pages * PAGE_SIZE_BYTES)
        resident = np.packbits(np.frombuffer(told, np.uint8) & 1, bitorder="little")
        back = some[: len(resident)] & resident
        some[: len(resident)] &= ~back
        found = np.flatnonzero(np.unpackbits(back, bitorder="little"))
        self.notes.came_back(found + start)
        return len(found) + again

    @property
    def is_told_at_once(self) -> bool:
        """Whether the kernel tells what of a block is there without going from page to page (presence.py)."""
        try:
            linux.cachestat(self.fd, self.shared.mmap_offset_bytes, PAGE_SIZE_BYTES)
        except OSError:
            return not self._is_told
        return True

    def block_states(self, first: int, count: int) -> bytes:
        """The states of so many of its blocks from one on (page_map.py); what is on hugetlbfs is not known."""
        fd = self.fd if self._is_told else -1
        return self.notes.states(first, count, FileOfRegion(fd, self.shared.mmap_offset_bytes, self.marks_address))

    @property
    def _is_told(self) -> bool:
        return self.unit_bytes == PAGE_SIZE_BYTES and linux.can_have_seals(self.fd)


def _marks_bytes(size_bytes: int) -> int:
    """Whole words of a bit a page."""
    return -(-size_bytes // PAGE_SIZE_BYTES // 64) * 8


def _marked_bytes(size_bytes: int, notes: BlockNotes) -> int:
    """A bit a page, room for questions, and a bit a block (block_states.py)."""
    return _marks_bytes(size_bytes) + ROOM_BYTES + -(-notes.blocks // 64) * 8


def map_region(shared: MemoryRegion, fd: int) -> Mapping:
    """Map a region. The descriptor is the mapping's from now on, and closed if there is none.

    Raises:
        GuestMemoryError: it is not within its file, not on page boundaries, or cannot be mapped.
    """
    try:
        _check(shared, fd)
        return _map(shared, fd)
    except OSError as error:
        foreign_fds.close(fd)
        raise GuestMemoryError(f"the memory region at {shared.gpa:#x} cannot be mapped: {error}") from error
    except GuestMemoryError:
        foreign_fds.close(fd)
        raise


def _check(shared: MemoryRegion, fd: int) -> None:
    if (shared.gpa | shared.size_bytes | shared.mmap_offset_bytes) % PAGE_SIZE_BYTES:
        raise GuestMemoryError(f"the memory region at {shared.gpa:#x} does not begin and end on page boundaries")
    if shared.size_bytes < 1 or shared.user_address + shared.size_bytes > _ADDRESSES:
        raise GuestMemoryError(f"the memory region at {shared.gpa:#x} is empty or wraps around")
    if shared.mmap_offset_bytes + shared.size_bytes > os.fstat(fd).st_size:
        raise GuestMemoryError(f"the memory region at {shared.gpa:#x} reaches beyond the end of its file")


def _map(shared: MemoryRegion, fd: int) -> Mapping:
    piece = piece_bytes(os.fstat(fd).st_blksize)
    unit = huge_page_bytes(fd)
    with contextlib.ExitStack() as undo:
        window = FileWindow(fd, shared.mmap_offset_bytes, shared.size_bytes)
        undo.callback(window.close)
        notes = BlockNotes(shared.gpa, shared.size_bytes)
        marks_address = _zeros(_marked_bytes(shared.size_bytes, notes))
        undo.callback(linux.munmap, marks_address, _marked_bytes(shared.size_bytes, notes))
        has_book = unit > PAGE_SIZE_BYTES
        book_address = _zeros(book_bytes(shared.mmap_offset_bytes, shared.size_bytes, unit)) if has_book else 0
        undo.pop_all()
    return Mapping(shared, fd, window, marks_address, piece, unit, book_address, notes)


def _zeros(size_bytes: int) -> int:
    flags = linux.MAP_PRIVATE | linux.MAP_ANONYMOUS | linux.MAP_NORESERVE
    return linux.mmap(0, size_bytes, linux.PROT_READ | linux.PROT_WRITE, flags)
