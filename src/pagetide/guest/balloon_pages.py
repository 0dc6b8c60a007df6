"""The balloon's pages: order-0 pages that leave the allocator for the host, and come back.

The list is two stacks of page frame numbers, under the zone lock: HELD are in the balloon; UNTOLD came back to the
allocator at once, because an allocation would have failed, and the host is still to be told. A batch is an int64 array
of `pfn << 4 | order`, and the order is 0. A page that is in a batch or HELD has the state BALLOON, and is counted in
BALLOON_PAGES.
"""

from typing import Any

from pagetide.guest.buddy import return_block, take_block
from pagetide.guest.zone_layout import BALLOON, BALLOON_PAGES, ZONE_LOCK
from pagetide.guest.zone_lock import lock, unlock
from pagetide.jit import kernel

HELD = 0
UNTOLD = 1
RELIEFS = 2
COUNTS = 3
"""The counts array: how many pages are on each stack, and how often pages came back at once."""


@kernel
def take_pages(words: Any, pages: Any, counts: Any, batch: Any) -> int:
    """Allocate pages into the batch, as many as there are without breaking the min watermark; how many.

    None while the host is still to be told of others, lest it hear of one that went back and forth in the wrong order.
    """
    taken = 0
    lock(words, ZONE_LOCK)
    while taken < batch.shape[0] and counts[UNTOLD] == 0:
        pfn = take_block(words, pages, 0, BALLOON)
        if pfn < 0:
            break
        batch[taken] = pfn << 4
        taken += 1
    words[BALLOON_PAGES] += taken
    unlock(words, ZONE_LOCK)
    return taken


@kernel
def free_pages(words: Any, pages: Any, batch: Any, count: int) -> None:
    """Give the batch's first pages back to the allocator."""
    lock(words, ZONE_LOCK)
    for index in range(count):
        return_block(words, pages, batch[index] >> 4, 0, False, False)
    words[BALLOON_PAGES] -= count
    unlock(words, ZONE_LOCK)


@kernel
def push_pages(words: Any, stacks: Any, counts: Any, which: int, batch: Any, count: int) -> None:
    """Put the batch's first pages on a stack."""
    lock(words, ZONE_LOCK)
    top = counts[which]
    for index in range(count):
        stacks[which, top + index] = batch[index] >> 4
    counts[which] = top + count
    unlock(words, ZONE_LOCK)


@kernel
def pop_pages(words: Any, stacks: Any, counts: Any, which: int, batch: Any, most: int) -> int:
    """Take up to so many pages off a stack into the batch; how many."""
    lock(words, ZONE_LOCK)
    popped = min(most, counts[which])
    top = counts[which] - popped
    for index in range(popped):
        batch[index] = stacks[which, top + index] << 4
    counts[which] = top
    unlock(words, ZONE_LOCK)
    return popped  # type: ignore[no-any-return]


@kernel
def deflate_now(words: Any, pages: Any, stacks: Any, counts: Any, most: int) -> int:
    """Give up to so many held pages back to the allocator at once, the host still to be told; how many."""
    lock(words, ZONE_LOCK)
    freed = min(most, counts[HELD])
    for _ in range(freed):
        counts[HELD] -= 1
        pfn = stacks[HELD, counts[HELD]]
        return_block(words, pages, pfn, 0, False, False)
        stacks[UNTOLD, counts[UNTOLD]] = pfn
        counts[UNTOLD] += 1
    words[BALLOON_PAGES] -= freed
    counts[RELIEFS] += int(freed > 0)
    unlock(words, ZONE_LOCK)
    return freed  # type: ignore[no-any-return]
