"""Finds the states of a guest's blocks for its page map (page_map.py), a piece at a time.

A block is asked about in one call (`presence.held_bytes`): some 15 µs where all of it is there, 0.4 µs where nothing;
without cachestat(2) ten times as long. So who wants a whole map asks for one piece after the other, the clock is asked
in between, and none takes much longer than `PIECE_NS`.

What is held as a whole is most of a large guest, and stays so until something of it is discarded, of which each punch
leaves a note. So such a block is asked about every `AGAIN_ROUNDS` maps only, for holes that others make; all are if the
file holds less than they should; and none the first time if the file holds all that it can.
"""

import os
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pagetide.host.memory.page_map import HELD, NEVER, PARTIAL, REFAULTED, RETURNED, UNKNOWN, MapPiece
from pagetide.host.memory.presence import ROOM_BYTES, held_bytes, mark_pages, marked_pages, room_after
from pagetide.jit import inline_kernel, kernel
from pagetide.units import HUGE_PAGE_BYTES, PAGE_SHIFT
from pagetide.virtio.vhost_user.payloads import MemoryRegion

PIECE_NS = 2_000_000
"""For about how long blocks are asked about for one piece."""

PIECE_BLOCKS_MAX = 4096
"""Most blocks in a piece."""

AGAIN_ROUNDS = 16
"""A block that was there as a whole is asked about in one of so many maps, others in each."""

_STEP_BLOCKS = 16
_SLOW_STEP_BLOCKS = 1
_BLOCK_PAGES = HUGE_PAGE_BYTES >> PAGE_SHIFT
_WAS_HELD = 1  # something of it was there at a look
_CAME_BACK = 2  # what was returned was found there again
_WHOLE = 4  # all of it was there at the last look
_BLOCK_BYTES = 512  # the unit of st_blocks, stat(3type)
_HELD, _PARTIAL, _REFAULTED = ord(HELD), ord(PARTIAL), ord(REFAULTED)
_RETURNED, _NEVER, _UNKNOWN = ord(RETURNED), ord(NEVER), ord(UNKNOWN)


class FileOfRegion(NamedTuple):
    """What the kernel is asked about.

    Attributes:
        fd: the memory file; -1 where the kernel does not say what of it is there.
        offset_bytes: where the region begins in it.
        marks_address: where a bit for each page says that it was returned, with room for the question behind them.
    """

    fd: int
    offset_bytes: int
    marks_address: int


class BlockNotes:
    """What is remembered of each block of one region.

    Attributes:
        blocks: how many there are.
    """

    blocks: int

    def __init__(self, gpa: int, size_bytes: int) -> None:
        """Remember nothing of a region at this guest-physical address."""
        self._before_pages = gpa % HUGE_PAGE_BYTES >> PAGE_SHIFT
        self._pages = size_bytes >> PAGE_SHIFT
        self.blocks = -(-(self._before_pages + self._pages) // _BLOCK_PAGES)
        self._notes: npt.NDArray[np.uint8] = np.zeros(self.blocks, np.uint8)
        self._round = 0

    def came_back(self, pages: npt.NDArray[np.int64]) -> None:
        """These pages of the region were returned, and are there again."""
        self._notes[(pages + self._before_pages) // _BLOCK_PAGES] |= _CAME_BACK

    def states(self, first: int, count: int, file: FileOfRegion) -> bytes:
        """The letters of these blocks, of as many as there are."""
        if first == 0:
            self._begin_round(file.fd, file.offset_bytes + (self._pages << PAGE_SHIFT))
        states = np.zeros(min(count, self.blocks - first), np.uint8)
        room = room_after(file.marks_address, self._pages << PAGE_SHIFT)
        _find_states(*file, room, self._before_pages, self._pages, self._notes, self._round, first, states)
        return states.tobytes()

    def _begin_round(self, fd: int, end_bytes: int) -> None:
        """Begin a map: see whether what was there as a whole can still be so, or all of it must.

        A file that was cut short of `end_bytes`, the region's end, has not all of it, however much it holds.
        """
        self._round += 1
        if fd >= 0:
            told = os.fstat(fd)
            held = told.st_blocks * _BLOCK_BYTES
            if held < self._whole_pages() << PAGE_SHIFT:
                self._notes &= ~np.uint8(_WHOLE)
            elif held >= told.st_size >= end_bytes:
                self._notes |= np.uint8(_WHOLE | _WAS_HELD)

    def _whole_pages(self) -> int:
        """How many pages the blocks have that were there as a whole; the first block and the last may be smaller."""
        whole = self._notes & _WHOLE != 0
        behind = self.blocks * _BLOCK_PAGES - self._before_pages - self._pages
        lacking = int(whole[0]) * self._before_pages + int(whole[-1]) * behind
        return int(np.count_nonzero(whole)) * _BLOCK_PAGES - lacking


class Mapped(Protocol):
    """A region as `look_at_blocks` needs it."""

    @property
    def shared(self) -> MemoryRegion:
        """Where it is in the guest."""

    @property
    def notes(self) -> BlockNotes:
        """What is remembered of its blocks."""

    @property
    def is_told_at_once(self) -> bool:
        """Whether the kernel tells what of a block is there without going from page to page."""

    def block_states(self, first: int, count: int) -> bytes:
        """The letters of some of them."""


def look_at_blocks(regions: Sequence[Mapped], first: int, clock_ns: Callable[[], int]) -> MapPiece:
    """The piece of a guest's map that begins with this block.

    Args:
        regions: its regions, by address.
        first: the number of the block.
        clock_ns: the time, which ends the piece.
    """
    end_ns = clock_ns() + PIECE_NS
    places, states, total = [], b"", 0
    for region in regions:
        places.append((region.shared.gpa, region.shared.size_bytes, total))
        at = first + len(states) - total
        most = 0
        while 0 <= at < region.notes.blocks and len(states) < PIECE_BLOCKS_MAX and (not states or clock_ns() < end_ns):
            most = most or (_STEP_BLOCKS if region.is_told_at_once else _SLOW_STEP_BLOCKS)
            step = region.block_states(at, min(most, PIECE_BLOCKS_MAX - len(states)))
            states += step
            at += len(step)
        total += region.notes.blocks
    return MapPiece(first, total, states.decode("ascii"), places)


@kernel
def _find_states(
    fd: int,
    offset_bytes: int,
    marks: int,
    room: int,
    before_pages: int,
    pages: int,
    notes: npt.NDArray[np.uint8],
    turn: int,
    first: int,
    states: npt.NDArray[np.uint8],
) -> None:
    """The states of the blocks from `first` on; `before_pages` of the first block of all lie before the region.

    In each turn other blocks are asked about that were there as a whole.
    """
    for index in range(states.shape[0]):
        block = first + index
        start = max(0, block * _BLOCK_PAGES - before_pages)
        end = min(pages, (block + 1) * _BLOCK_PAGES - before_pages)
        marked = marked_pages(marks, start, end)
        note = int(notes[block])
        discarded = marked if fd < 0 or marked != 0 else marked_pages(room + ROOM_BYTES, block, block + 1)
        if fd >= 0 and note & _WHOLE and discarded == 0 and (block + turn) % AGAIN_ROUNDS:
            states[index] = _REFAULTED if note & _CAME_BACK else _HELD
            continue
        note = note & ~_WHOLE
        if room != 0:
            mark_pages(room + ROOM_BYTES, block, block + 1, 0)
        held: int = -1
        if fd >= 0:
            held = held_bytes(fd, offset_bytes + (start << PAGE_SHIFT), end - start << PAGE_SHIFT, room)
        if held < 0:
            states[index] = _RETURNED if marked != 0 else _UNKNOWN
        elif held == 0:
            states[index] = _RETURNED if marked != 0 or note != 0 else _NEVER
            note = note & ~_CAME_BACK  # from now on only what comes after
        else:
            held = held >> PAGE_SHIFT
            if marked + held > end - start:  # some of it is both, and no look has come by yet
                note = note | _CAME_BACK
            note = note | _WAS_HELD | (_WHOLE if held >= end - start else 0)
            whole = _HELD if held >= end - start else _PARTIAL
            states[index] = _REFAULTED if note & _CAME_BACK else whole
        notes[block] = note | (_WAS_HELD if marked != 0 else 0)


@inline_kernel
def note_discarded(room: int, gpa: int, into_bytes: int, length_bytes: int) -> None:
    """Note that something was discarded of the blocks of this stretch, a bit each, behind the room of the region."""
    start = gpa % HUGE_PAGE_BYTES + into_bytes
    mark_pages(room + ROOM_BYTES, start // HUGE_PAGE_BYTES, (start + length_bytes - 1) // HUGE_PAGE_BYTES + 1, 1)
