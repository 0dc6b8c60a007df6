"""The table that guest and host share in the `shared` design: an atomic word for each 2 MiB frame of guest memory.

HyperAlloc's idea (EuroSys '25) on LLFree's way of writing it down (USENIX ATC '23): the host takes free frames itself,
by atomic changes of their state, and the guest, when it allocates such a frame, *installs* it again. Nothing is
reported, nothing is waited for, nothing goes through a queue.

    IN_USE   some page of it is allocated, or it is no one's business now
    FREE     all of it is free, and the host may hold memory for it; since the tick in bits 8 to 31
    TAKING   the host is discarding it
    TAKEN    discarded, and still free

              guest frees                  host                 host, when done
    IN_USE --------------------> FREE ------------> TAKING --------------------> TAKEN
       ^                          |                                                |
       +------ guest allocates ---+------------------------ guest installs --------+

Every change is a compare-and-swap of one word with what a pure function makes of the old one (frame_states.py), so the
rules can be read and tested without threads. Two rules make it safe: who wants to touch a frame must have made it
IN_USE, and only a frame that was made TAKING is discarded. A guest does not wait for a TAKING frame: it takes another.

The table begins with two lines of eight words, one that the guest writes and one that the host writes; then come the
frames' words. It is a private interface: host and guest must agree on this file. What a guest writes in there can harm
only itself: the host discards nothing but frames of the guest's own memory, and checks nothing else. What the host
writes the guest has to trust, as it has to trust it with its memory.

This file imports nothing that compiles, so that a viewer starts fast.
"""

from pagetide.units import HUGE_PAGE_BYTES, PAGE_SHIFT, PAGE_SIZE_BYTES

FRAME_ORDER = 9
"""A frame is 2^9 pages, 2 MiB: a huge page of x86-64."""

FRAME_PAGES = 1 << FRAME_ORDER
FRAME_SHIFT = FRAME_ORDER + PAGE_SHIFT
assert 1 << FRAME_SHIFT == HUGE_PAGE_BYTES

# The guest's line.
OPEN = 0
"""Not 0 while the guest marks what it frees."""
GUEST_TICK = 1
"""The guest's clock, by which blocks cool."""
COOL_TICKS = 2
"""How long a frame must have been free before it is taken."""
INSTALLS = 3
"""Frames that were allocated after they had been taken."""

# The host's line.
BEGUN = 8
"""Batches that the host began to take, counted before the first frame is TAKING."""
ENDED = 9
"""Batches that it ended, counted after the last frame is TAKEN."""
TAKING_NOW = 10
"""Frames that are TAKING."""
TAKING_MAX = 11
"""Most of them at once so far."""

FRAMES = 16
"""Where the frames' words begin."""

IN_USE = 0
FREE = 1
TAKING = 2
TAKEN = 3
STATE_MASK = 0x3

TICK_SHIFT = 8
TICK_MASK = 0xFF_FFFF

_PAGE_WORDS = PAGE_SIZE_BYTES // 8


def table_words(nr_pages: int) -> int:
    """Length of the table of a guest with so many pages, in int64 words: whole pages of memory."""
    return -(-(FRAMES + (nr_pages >> FRAME_ORDER)) // _PAGE_WORDS) * _PAGE_WORDS
