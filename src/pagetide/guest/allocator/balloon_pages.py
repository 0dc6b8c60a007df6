"""The balloon's pages: order-0 pages that leave the allocator for the host, and come back.

A page that is in a batch has the state BALLOON, one that the host was told of HELD; BALLOON_PAGES counts both. A batch
is an int64 array of `pfn << 4 | order`, and the order is 0.

Linux's balloon pages are movable, and compaction sorts out what lies scattered. Our guest has none, so pages must not
get scattered in the first place; a guest was seen to have 50 MiB free and no block of 2 MiB. They are taken in runs,
as long as there are: one by one they would come from the smallest blocks, side by side with those of an application
that grows meanwhile. They come out by position, upwards from where the last ones did, round and round, and for a larger
block from a place where they leave one behind. Blocks of 2 MiB and more (Linux's pageblock_order) come out from above,
downwards, lest they and the small ones break up each other's place.

Pages that came back at once, because an allocation would have failed, are on a stack of UNTOLD ones until the host has
been told. All is under the zone lock.
"""

from typing import Any

from pagetide.guest.allocator.buddy import return_block, take_block
from pagetide.guest.allocator.report_costs import hold_begins, hold_ends
from pagetide.guest.allocator.zone_layout import (
    BALLOON,
    BALLOON_PAGES,
    BUDDY,
    HELD,
    NR_PAGES,
    ORDER_MASK,
    RECORD_WORDS,
    STATE,
    TYPE_MASK,
    ZONE_LOCK,
)
from pagetide.guest.allocator.zone_lock import lock, unlock
from pagetide.jit import kernel
from pagetide.units import PAGEBLOCK_ORDER

PFNS_ORDER = 8
"""log2 of the pages in a buffer of either queue (VIRTIO_BALLOON_ARRAY_PFNS_MAX is 256)."""

STEPS_A_HOLD = 4096
"""A search takes so many steps, a page or a larger block each, and then others may have the lock."""

HELD_PAGES = 0
UNTOLD_PAGES = 1
RELIEFS = 2
NEXT_PFN = 3
ABOVE_PFN = 4
COUNTS = 5
"""The counts array: pages held, pages on the stack, how often pages came back at once, whence the next ones come, and
below which page the search for the next whole pageblock begins, 0 being the end of memory."""


@kernel
def take_pages(words: Any, pages: Any, counts: Any, batch: Any) -> int:
    """Allocate pages into the batch, as many as there are without breaking the min watermark; how many.

    None while the host is still to be told of others, lest it hear of one that went back and forth in the wrong order.
    """
    taken, order = 0, PFNS_ORDER
    lock(words, ZONE_LOCK)
    since_ns = hold_begins(words)
    while taken < batch.shape[0] and order >= 0 and counts[UNTOLD_PAGES] == 0:
        pfn = -1
        if taken + (1 << order) <= batch.shape[0]:
            pfn = take_block(words, pages, order, BALLOON)
        if pfn < 0:
            order -= 1
            continue
        for page in range(pfn, pfn + (1 << order)):
            pages[page * RECORD_WORDS + STATE] = BALLOON
            batch[taken] = page << 4
            taken += 1
    words[BALLOON_PAGES] += taken
    hold_ends(words, since_ns)
    unlock(words, ZONE_LOCK)
    return taken


@kernel
def free_pages(words: Any, pages: Any, batch: Any, count: int) -> None:
    """Give the batch's first pages back to the allocator."""
    lock(words, ZONE_LOCK)
    since_ns = hold_begins(words)
    for index in range(count):
        return_block(words, pages, batch[index] >> 4, 0, False, False)
    words[BALLOON_PAGES] -= count
    hold_ends(words, since_ns)
    unlock(words, ZONE_LOCK)


@kernel
def hold_pages(words: Any, pages: Any, counts: Any, batch: Any, count: int) -> None:
    """The batch's first pages are in the balloon, and the host knows."""
    lock(words, ZONE_LOCK)
    since_ns = hold_begins(words)
    for index in range(count):
        pages[(batch[index] >> 4) * RECORD_WORDS + STATE] = HELD
    counts[HELD_PAGES] += count
    hold_ends(words, since_ns)
    unlock(words, ZONE_LOCK)


@kernel
def _pick(words: Any, pages: Any, counts: Any, batch: Any, start: int, most: int) -> int:
    """Take up to so many held pages, by position, into the batch from this index on; how many.

    It takes as many steps as one hold of the lock may have, and then there may be more.
    """
    pfn, picked = counts[NEXT_PFN], 0
    for _ in range(STEPS_A_HOLD):
        if picked >= most or counts[HELD_PAGES] == 0:
            break
        if pfn >= words[NR_PAGES]:
            pfn = 0
        state = int(pages[pfn * RECORD_WORDS + STATE])
        if state != HELD:
            pfn += 1 << (state & ORDER_MASK) if state & TYPE_MASK else 1
            continue
        pages[pfn * RECORD_WORDS + STATE] = BALLOON
        counts[HELD_PAGES] -= 1
        batch[start + picked] = pfn << 4
        picked += 1
        pfn += 1
    counts[NEXT_PFN] = pfn
    return picked


@kernel
def pick_held(words: Any, pages: Any, counts: Any, batch: Any, most: int) -> int:
    """Take up to so many held pages into the batch; how many."""
    picked, more = 0, True
    while more:
        lock(words, ZONE_LOCK)
        since_ns = hold_begins(words)
        picked += _pick(words, pages, counts, batch, picked, most - picked)
        more = picked < most and counts[HELD_PAGES] > 0
        hold_ends(words, since_ns)
        unlock(words, ZONE_LOCK)
    return picked


@kernel
def _held_in(pages: Any, pfn: int, end: int) -> int:
    """How many pages the balloon holds from here to there, if all others are free; -1 if they are not."""
    held = 0
    while pfn < end:
        state = int(pages[pfn * RECORD_WORDS + STATE])
        if state == HELD:
            held += 1
            pfn += 1
        elif state & TYPE_MASK == BUDDY:
            pfn += 1 << (state & ORDER_MASK)
        else:
            return -1
    return held


@kernel
def _let_others(words: Any) -> None:
    """Give up the lock for a moment."""
    unlock(words, ZONE_LOCK)
    lock(words, ZONE_LOCK)


@kernel
def _nearly_free(words: Any, pages: Any, order: int, first: int, step: int) -> int:
    """The next block of this order that held pages alone keep from being free, round and round; -1 if none.

    The caller holds the lock, which others may have during a long search.
    """
    nr_blocks: int = words[NR_PAGES] >> order
    nr_a_hold = max(1, STEPS_A_HOLD >> order)
    for index in range(nr_blocks):
        if index % nr_a_hold == nr_a_hold - 1:
            _let_others(words)
        pfn = (first + step * index) % nr_blocks << order
        if _held_in(pages, pfn, pfn + (1 << order)) > 0:
            return pfn
    return -1


@kernel
def _let_go(words: Any, pages: Any, untold: Any, counts: Any, most: int) -> int:
    """Give up to so many held pages back to the allocator, the host still to be told, in one hold; how many."""
    start = counts[UNTOLD_PAGES]
    picked: int = _pick(words, pages, counts, untold, start, most)
    for index in range(start, start + picked):
        return_block(words, pages, untold[index] >> 4, 0, False, False)
    counts[UNTOLD_PAGES] += picked
    words[BALLOON_PAGES] -= picked
    return picked


@kernel
def deflate_now(words: Any, pages: Any, untold: Any, counts: Any, most: int, order: int) -> int:
    """Give up to so many held pages back to the allocator at once, the host still to be told; how many.

    If it can be, they are such that a block of this order can be allocated then.
    """
    block, whole = -1, order >= PAGEBLOCK_ORDER
    lock(words, ZONE_LOCK)
    if order > 0 and counts[HELD_PAGES] > 0:
        first = counts[ABOVE_PFN] - 1 if whole else counts[NEXT_PFN]
        block = _nearly_free(words, pages, order, first >> order, -1 if whole else 1)
    next_pfn = counts[NEXT_PFN]
    if block >= 0:
        counts[NEXT_PFN] = block
    if block >= 0 and whole:
        most = _held_in(pages, block, block + (1 << order))
        freed = _let_go(words, pages, untold, counts, most)
        counts[ABOVE_PFN], counts[NEXT_PFN] = block + (1 << order), next_pfn
    else:
        freed = _let_go(words, pages, untold, counts, most)
        while freed < most and counts[HELD_PAGES] > 0:
            _let_others(words)
            freed += _let_go(words, pages, untold, counts, most - freed)
    counts[RELIEFS] += int(freed > 0)
    unlock(words, ZONE_LOCK)
    return freed


@kernel
def pop_untold(words: Any, untold: Any, counts: Any, batch: Any) -> int:
    """Take pages that the host is to be told of off the stack, into the batch; how many."""
    lock(words, ZONE_LOCK)
    since_ns = hold_begins(words)
    popped: int = min(batch.shape[0], counts[UNTOLD_PAGES])
    counts[UNTOLD_PAGES] -= popped
    for index in range(popped):
        batch[index] = untold[counts[UNTOLD_PAGES] + index]
    hold_ends(words, since_ns)
    unlock(words, ZONE_LOCK)
    return popped


@kernel
def push_untold(words: Any, untold: Any, counts: Any, batch: Any, count: int) -> None:
    """Put the batch's first pages back on the stack: the host could not be told."""
    lock(words, ZONE_LOCK)
    since_ns = hold_begins(words)
    for index in range(count):
        untold[counts[UNTOLD_PAGES] + index] = batch[index]
    counts[UNTOLD_PAGES] += count
    hold_ends(words, since_ns)
    unlock(words, ZONE_LOCK)
