"""The guest's side of the frame table: what the allocator does as blocks leave and enter it.

The table is part of the arena, on memory pages of its own, of which a host maps nothing else: so the kernels need no
further array, and an allocator whose table is not kept pays for one load and branch. FRAME_TABLE says where it is.

The caller holds the zone lock, so a frame is freed and claimed by one vCPU at a time; the host takes no lock. A frame
is not IN_USE if and only if it lies in a free block of at least its order, and the table was open when it was freed.
"""

from typing import Any

from pagetide.atomics import atomic_store
from pagetide.guest.allocator.zone_layout import (
    BUDDY,
    FRAME_TABLE,
    NEXT,
    NR_PAGES,
    ORDER_MASK,
    RECORD_WORDS,
    STATE,
    TICK,
    TYPE_MASK,
    ZONE_LOCK,
)
from pagetide.guest.allocator.zone_lock import lock, unlock
from pagetide.jit import kernel
from pagetide.memory.frame_states import REFUSED, claim_frame, free_frame
from pagetide.memory.frame_table import (
    COOL_TICKS,
    FRAME_ORDER,
    FRAME_PAGES,
    FRAMES,
    GUEST_TICK,
    INSTALLS,
    OPEN,
    STATE_MASK,
    TAKEN,
)
from pagetide.units import ORDER_MAX


@kernel
def _claim(words: Any, pfn: int, order: int) -> bool:
    """Make the frames of a block IN_USE, all or none."""
    table = words[FRAME_TABLE]
    first = table + FRAMES + (pfn >> FRAME_ORDER)
    before = claim_frame(words, first)
    if before == REFUSED:
        return False
    installs = int(before & STATE_MASK == TAKEN)
    if order > FRAME_ORDER:  # two frames: the largest block has no more
        other = claim_frame(words, first + 1)
        if other == REFUSED:
            atomic_store(words, first, before)
            return False
        installs += int(other & STATE_MASK == TAKEN)
    words[table + INSTALLS] += installs
    return True


@kernel
def claim_block(words: Any, pages: Any, head: int, current: int, order: int) -> int:
    """Find a block to allocate from on a free list of at least the frames' order, and claim its frames.

    Blocks that the host is taking are passed over; there are no more of them than it takes at once.

    Args:
        words: the zone's words.
        pages: its page records.
        head: the list's head.
        current: the list's order.
        order: what is to be allocated.

    Returns:
        The first frame of the block that is claimed, or -1. It is the block's own first frame, or, when the host is
        taking the lower half of a largest block, the first frame of its upper half.
    """
    pfn = int(pages[head * RECORD_WORDS + NEXT])
    while pfn != head:
        if _claim(words, pfn, order):
            return pfn
        if order <= FRAME_ORDER < current and _claim(words, pfn + FRAME_PAGES, order):
            return pfn + FRAME_PAGES
        pfn = int(pages[pfn * RECORD_WORDS + NEXT])
    return -1


@kernel
def offer_block(words: Any, pfn: int, order: int) -> None:
    """The frames of a block that was freed are all free now: the host may take them."""
    table = words[FRAME_TABLE]
    if words[table + OPEN] == 0:
        return
    first = table + FRAMES + (pfn >> FRAME_ORDER)
    free_frame(words, first, words[TICK])
    if order > FRAME_ORDER:
        free_frame(words, first + 1, words[TICK])


@kernel
def open_table(words: Any, table: int, cool_ticks: int) -> None:
    """Begin to keep the table; what is free already is offered by `offer_free_frames`."""
    lock(words, ZONE_LOCK)
    words[table + OPEN] = 1
    words[table + COOL_TICKS] = cool_ticks
    words[table + GUEST_TICK] = words[TICK]
    words[FRAME_TABLE] = table
    unlock(words, ZONE_LOCK)


@kernel
def _is_free(pages: Any, frame: int) -> bool:
    for order in range(FRAME_ORDER, ORDER_MAX + 1):
        pfn = (frame << FRAME_ORDER) & ~((1 << order) - 1)
        if pages[pfn * RECORD_WORDS + STATE] & (TYPE_MASK | ORDER_MASK) == BUDDY | order:
            return True
    return False


@kernel
def offer_free_frames(words: Any, pages: Any, frame: int, frames: int) -> int:
    """Offer those of the next frames that are free; the frame at which to go on, -1 at the end."""
    lock(words, ZONE_LOCK)
    end = min(frame + frames, words[NR_PAGES] >> FRAME_ORDER)
    while frame < end:
        if _is_free(pages, frame):
            offer_block(words, frame << FRAME_ORDER, FRAME_ORDER)
        frame += 1
    unlock(words, ZONE_LOCK)
    return frame if frame < words[NR_PAGES] >> FRAME_ORDER else -1


@kernel
def close_table(words: Any) -> None:
    """Offer no more frames; those that are offered are withdrawn by `withdraw_frames`."""
    lock(words, ZONE_LOCK)
    if words[FRAME_TABLE] != 0:
        words[words[FRAME_TABLE] + OPEN] = 0
    unlock(words, ZONE_LOCK)


@kernel
def withdraw_frames(words: Any, frame: int, frames: int) -> int:
    """Withdraw the next frames; how many of them the host is discarding now, which stay as they are."""
    taking = 0
    lock(words, ZONE_LOCK)
    first = words[FRAME_TABLE] + FRAMES
    for index in range(first + frame, first + min(frame + frames, words[NR_PAGES] >> FRAME_ORDER)):
        if claim_frame(words, index) == REFUSED:
            taking += 1
    unlock(words, ZONE_LOCK)
    return taking


@kernel
def leave_table(words: Any) -> None:
    """Keep the table no longer; no frame is TAKING, and none is offered."""
    lock(words, ZONE_LOCK)
    words[FRAME_TABLE] = 0
    unlock(words, ZONE_LOCK)
