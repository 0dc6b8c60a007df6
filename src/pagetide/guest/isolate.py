"""Taking free blocks out of the allocator to report them, and putting them back.

Mechanism only: which list, how many and when is the design's. A batch is an int64 array of `pfn << 4 | order`.
Follows Linux's `page_reporting_cycle`, `__isolate_free_page` and `page_reporting_drain` (mm/page_reporting.c, 6.1).
"""

from typing import Any

from pagetide.guest.buddy import mark_reported, return_block, rotate_to_front, take_from_free_list
from pagetide.guest.zone_layout import (
    FREE_PAGES,
    ISOLATED,
    ISOLATED_BLOCKS,
    ISOLATED_BLOCKS_MAX,
    ISOLATED_PAGES,
    NEXT,
    NR_FREE,
    NR_PAGES,
    NR_REPORTED,
    ORDER_MASK,
    RECORD_WORDS,
    REPORTED,
    STATE,
    WMARK_MIN,
    ZONE_LOCK,
)
from pagetide.guest.zone_lock import lock, unlock
from pagetide.jit import kernel

LIST_DONE = 0
"""Nothing unreported is left on the list, as far as the walk was to go."""

BATCH_FULL = 1
"""The batch is full and the list, rotated to it, begins with a further unreported block."""

BUDGET_SPENT = 2
"""There is a further unreported block, but the caller had said that none was to be taken."""

WATERMARK = 3
"""Isolating the next block would break the min watermark."""

PASSED_OVER = 4
"""The walk passed over as many reported blocks as it may under one hold of the lock; the list is rotated to go on."""

PASS_OVER_MAX = 1024
"""Reported blocks that a walk passes over under one hold of the zone lock: some ten microseconds."""


@kernel
def isolate_block(words: Any, pages: Any, pfn: int, order: int) -> bool:
    """Take a free block out of the allocator, unless that breaks the min watermark; the caller holds the zone lock."""
    if words[FREE_PAGES] - (1 << order) < words[WMARK_MIN]:
        return False
    take_from_free_list(words, pages, pfn, order)
    pages[pfn * RECORD_WORDS + STATE] = ISOLATED | order
    words[FREE_PAGES] -= 1 << order
    words[ISOLATED_PAGES] += 1 << order
    words[ISOLATED_BLOCKS] += 1
    words[ISOLATED_BLOCKS_MAX] = max(words[ISOLATED_BLOCKS_MAX], words[ISOLATED_BLOCKS])
    return True


@kernel
def walk_free_list(words: Any, pages: Any, order: int, batch: Any, filled: int, take: bool, steps: Any) -> int:
    """Walk one free list from its head and isolate the unreported blocks into the batch.

    Args:
        words: the zone's words.
        pages: its page records.
        order: whose list.
        batch: int64 array as long as the batch's capacity.
        filled: how many blocks are in it already, from lists walked before.
        take: False to stop at the first unreported block instead (Linux's budget is spent).
        steps: int64 array of two; the walk adds to [0] the blocks that it isolated and takes from [1] each block
            that it passed or isolated, ending as LIST_DONE at zero: so walks in turn go once round the list.

    Returns:
        Why it stopped, one of the constants above.
    """
    lock(words, ZONE_LOCK)
    head = words[NR_PAGES] + order
    outcome = LIST_DONE
    passed_over = 0
    pfn = int(pages[head * RECORD_WORDS + NEXT])
    while pfn != head and steps[1] > 0 and words[NR_FREE + order] > words[NR_REPORTED + order]:
        following = int(pages[pfn * RECORD_WORDS + NEXT])
        if pages[pfn * RECORD_WORDS + STATE] & REPORTED:
            passed_over += 1
            steps[1] -= 1
            if passed_over >= PASS_OVER_MAX:
                outcome = PASSED_OVER
                pfn = following
                break
        elif not take:
            outcome = BUDGET_SPENT
            break
        elif filled + steps[0] >= batch.shape[0]:
            outcome = BATCH_FULL
            break
        elif not isolate_block(words, pages, pfn, order):
            outcome = WATERMARK
            break
        else:
            batch[filled + steps[0]] = pfn << 4 | order
            steps[0] += 1
            steps[1] -= 1
        pfn = following
    if pfn != head:
        rotate_to_front(words, pages, pfn, order)
    unlock(words, ZONE_LOCK)
    return outcome


@kernel
def put_back(words: Any, pages: Any, batch: Any, count: int, reported: bool) -> None:
    """Return the batch's first blocks to the allocator, at their lists' tails.

    A block that did not merge is marked Reported, if it was; one that merged is not, since its buddy may not have been
    reported. What is put back asks for no further reporting.
    """
    lock(words, ZONE_LOCK)
    for index in range(count):
        pfn = batch[index] >> 4
        order = batch[index] & ORDER_MASK
        words[ISOLATED_PAGES] -= 1 << order
        words[ISOLATED_BLOCKS] -= 1
        merged = return_block(words, pages, pfn, order, True)
        if reported and merged == order:
            mark_reported(words, pages, pfn, order)
    unlock(words, ZONE_LOCK)
