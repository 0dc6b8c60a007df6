"""Finds the states of a guest's blocks for its page map (page_map.py), a piece at a time.

A block is asked about in one call (`presence.held_bytes`): some 15 µs where all of it is there, 0.4 µs where nothing;
without cachestat(2) ten times as long. So who wants a whole map asks for one piece after the other, the clock is asked
in between, and none takes much longer than `PIECE_NS`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pagetide.atomics import load_i64
from pagetide.host.memory.page_map import HELD, NEVER, PARTIAL, REFAULTED, RETURNED, UNKNOWN, MapPiece
from pagetide.host.memory.presence import held_bytes, page_bits, room_after
from pagetide.jit import kernel
from pagetide.units import HUGE_PAGE_BYTES, PAGE_SHIFT
from pagetide.virtio.vhost_user.payloads import MemoryRegion

PIECE_NS = 2_000_000
"""For about how long blocks are asked about for one piece."""

PIECE_BLOCKS_MAX = 4096
"""Most blocks in a piece."""

_STEP_BLOCKS = 16
_SLOW_STEP_BLOCKS = 1
_BLOCK_PAGES = HUGE_PAGE_BYTES >> PAGE_SHIFT
_WAS_HELD = 1  # something of it was there at a look
_CAME_BACK = 2  # what was returned was found there again
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

    def came_back(self, pages: npt.NDArray[np.int64]) -> None:
        """These pages of the region were returned, and are there again."""
        self._notes[(pages + self._before_pages) // _BLOCK_PAGES] |= _CAME_BACK

    def states(self, first: int, count: int, file: FileOfRegion) -> bytes:
        """The letters of these blocks, of as many as there are."""
        states = np.zeros(min(count, self.blocks - first), np.uint8)
        room = room_after(file.marks_address, self._pages << PAGE_SHIFT)
        _find_states(*file, room, self._before_pages, self._pages, self._notes, first, states)
        return states.tobytes()


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
    first: int,
    states: npt.NDArray[np.uint8],
) -> None:
    """The states of the blocks from `first` on; `before_pages` of the first block of all lie before the region."""
    for index in range(states.shape[0]):
        block = first + index
        start = max(0, block * _BLOCK_PAGES - before_pages)
        end = min(pages, (block + 1) * _BLOCK_PAGES - before_pages)
        marked = _marked_pages(marks, start, end)
        held: int = -1
        if fd >= 0:
            held = held_bytes(fd, offset_bytes + (start << PAGE_SHIFT), end - start << PAGE_SHIFT, room)
        note = int(notes[block])
        if held < 0:
            states[index] = _RETURNED if marked != 0 else _UNKNOWN
        elif held == 0:
            states[index] = _RETURNED if marked != 0 or note != 0 else _NEVER
            note = note & ~_CAME_BACK  # from now on only what comes after
        else:
            held = held >> PAGE_SHIFT
            if marked + held > end - start:  # some of it is both, and no look has come by yet
                note = note | _CAME_BACK
            note = note | _WAS_HELD
            whole = _HELD if held >= end - start else _PARTIAL
            states[index] = _REFAULTED if note & _CAME_BACK else whole
        notes[block] = note | (_WAS_HELD if marked != 0 else 0)


@kernel
def _marked_pages(marks: int, first: int, end: int) -> int:
    """How many of the pages `first … end` have their bit set in the words at an address."""
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
