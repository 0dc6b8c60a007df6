"""Taking free blocks out of the allocator to report them, and putting them back.

Mechanism only: which list, how many and when is the design's. A batch is an int64 array of `pfn << 4 | order`.
Follows Linux's `page_reporting_cycle`, `__isolate_free_page` and `page_reporting_drain` (mm/page_reporting.c, 6.1).

What a design may set for its zone, beside Linux's watermark: a cap on isolated pages (IN_FLIGHT_MAX_PAGES), how long
a block must have been free (COOL_TICKS), and spare blocks that swap places with the isolated ones, so that the
allocator never misses a page (SPARES; Tsirkin's hinting buffer). A spare is a block of the reporting order, stored as
`pfn << 1 | reported`.
"""

from typing import Any

from pagetide.guest.allocator.buddy import return_block, take_block
from pagetide.guest.allocator.lists.free_list import list_head, rotate_to_front, take_from_free_list
from pagetide.guest.allocator.lists.migratetypes import make_movable, nr_migratetypes
from pagetide.guest.allocator.report_costs import hold_begins, hold_ends
from pagetide.guest.allocator.request import record_hint
from pagetide.guest.allocator.zone_layout import (
    BUDDY,
    COOL_TICKS,
    FREE_PAGES,
    IN_FLIGHT_MAX_PAGES,
    ISOLATED,
    ISOLATED_BLOCKS,
    ISOLATED_BLOCKS_MAX,
    ISOLATED_PAGES,
    LISTED_SHIFT,
    NEXT,
    NR_FREE,
    NR_REPORTED,
    NR_VCPUS,
    ORDER_MASK,
    PAGEBLOCKS,
    RECORD_WORDS,
    REPORTED,
    REPORTING_ORDER,
    SPARE,
    SPARES,
    SPARES_MAX,
    STATE,
    TICK,
    TICK_MASK,
    TICK_SHIFT,
    TYPE_MASK,
    VCPU_WORDS,
    WALKED_BLOCKS,
    WMARK_MIN,
    ZONE_LOCK,
    vcpu_base,
)
from pagetide.guest.allocator.zone_lock import lock, unlock
from pagetide.jit import kernel
from pagetide.units import PAGEBLOCK_ORDER

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

CAPPED = 5
"""Isolating the next block would break the cap on what is in flight, or there is no spare for it."""

TAKEN = 0
"""What `isolate_block` says when it isolated the block; otherwise it is WATERMARK or CAPPED."""

PASS_OVER_MAX = 1024
"""Reported blocks that a walk passes over under one hold of the zone lock: some ten microseconds."""

FILLED = 0
LEFT = 1
YOUNG = 2
BLOCKED = 3
STEPS_WORDS = 4
"""A walk's account: blocks that it isolated, blocks that it may still look at, blocks it met that were too young, and
whether it stopped at one that could not be isolated."""

_SPARES = vcpu_base(0)


@kernel
def isolate_block(words: Any, pages: Any, pfn: int, order: int) -> int:
    """Take a free block out of the allocator; TAKEN, WATERMARK or CAPPED. The caller holds the zone lock."""
    nr_pages = 1 << order
    cap_pages = words[IN_FLIGHT_MAX_PAGES]
    if cap_pages > 0 and words[ISOLATED_PAGES] + nr_pages > cap_pages:
        return CAPPED
    spares = 0
    if words[SPARES_MAX] > 0:
        spares = nr_pages >> words[REPORTING_ORDER]
        if words[SPARES] < spares:
            return CAPPED
    elif words[FREE_PAGES] - nr_pages < words[WMARK_MIN]:
        return WATERMARK
    take_from_free_list(words, pages, pfn, order)
    pages[pfn * RECORD_WORDS + STATE] = ISOLATED | order
    if order >= PAGEBLOCK_ORDER - 1 and words[PAGEBLOCKS] != 0:
        make_movable(words, pages, pfn, order)
    words[FREE_PAGES] -= nr_pages
    words[ISOLATED_PAGES] += nr_pages
    words[ISOLATED_BLOCKS] += 1
    words[ISOLATED_BLOCKS_MAX] = max(words[ISOLATED_BLOCKS_MAX], words[ISOLATED_BLOCKS])
    for _ in range(spares):
        _release_spare(words, pages)
    return TAKEN


@kernel
def _spares_base(words: Any) -> int:
    return _SPARES + words[NR_VCPUS] * VCPU_WORDS  # type: ignore[no-any-return]


@kernel
def _release_spare(words: Any, pages: Any) -> None:
    words[SPARES] -= 1
    spare = words[_spares_base(words) + words[SPARES]]
    _give_back(words, pages, spare >> 1, words[REPORTING_ORDER], bool(spare & 1))


@kernel
def _give_back(words: Any, pages: Any, pfn: int, order: int, reported: bool) -> None:
    merged = return_block(words, pages, pfn, order, True, reported)
    head = pfn & ~((1 << merged) - 1)
    if not pages[head * RECORD_WORDS + STATE] & REPORTED:
        record_hint(words, 0, head, merged)


@kernel
def reserve_spares(words: Any, pages: Any, count: int) -> int:
    """Take blocks of the reporting order out of the allocator, as spares; how many there were. 0 gives them back."""
    lock(words, ZONE_LOCK)
    since_ns = hold_begins(words)
    while words[SPARES] > count:
        _release_spare(words, pages)
    while words[SPARES] < count:
        pfn = take_block(words, pages, words[REPORTING_ORDER], SPARE)
        if pfn < 0:
            break
        words[_spares_base(words) + words[SPARES]] = pfn << 1
        words[SPARES] += 1
    words[SPARES_MAX] = words[SPARES]
    hold_ends(words, since_ns)
    unlock(words, ZONE_LOCK)
    return words[SPARES]  # type: ignore[no-any-return]


@kernel
def is_young(words: Any, state: int) -> bool:
    """Whether a free block with this STATE has not been free for long enough."""
    cool = words[COOL_TICKS]
    return cool > 0 and (words[TICK] - (state >> TICK_SHIFT)) & TICK_MASK < cool  # type: ignore[no-any-return]


@kernel
def following_list(words: Any, listed: int) -> int:
    """The free list after this one: of the next migratetype, or of the next order (`page_reporting_process_zone`).

    A list is an order, and from LISTED_SHIFT on a migratetype; so without them it is an order and no more.
    """
    migratetype = (listed >> LISTED_SHIFT) + 1
    if migratetype < nr_migratetypes(words):
        return listed + (1 << LISTED_SHIFT)
    return (listed & ORDER_MASK) + 1


@kernel
def walk_free_list(
    words: Any, pages: Any, listed: int, batch: Any, filled: int, take: bool, rotate: bool, steps: Any
) -> int:
    """Walk one free list from its head and isolate the unreported blocks into the batch.

    Args:
        words: the zone's words.
        pages: its page records.
        listed: which list, as of `following_list`.
        batch: int64 array as long as the batch's capacity.
        filled: how many blocks are in it already, from lists walked before.
        take: False to stop at the first unreported block instead (Linux's budget is spent).
        rotate: whether to make the list begin where the walk stopped, so that the next one goes on there.
        steps: int64 array of STEPS_WORDS; the walk adds to FILLED and YOUNG, and takes from LEFT each block that it
            passed or isolated, ending as LIST_DONE at zero: so walks in turn go once round the list.

    Returns:
        Why it stopped, one of the constants above.
    """
    lock(words, ZONE_LOCK)
    since_ns = hold_begins(words)
    order = listed & ORDER_MASK
    head = list_head(words, order, listed >> LISTED_SHIFT)
    outcome = LIST_DONE
    passed_over = 0
    pfn = int(pages[head * RECORD_WORDS + NEXT])
    while pfn != head and steps[LEFT] > 0 and words[NR_FREE + order] > words[NR_REPORTED + order]:
        following = int(pages[pfn * RECORD_WORDS + NEXT])
        state = int(pages[pfn * RECORD_WORDS + STATE])
        if state & REPORTED or is_young(words, state):
            passed_over += 1
            steps[LEFT] -= 1
            if not state & REPORTED:
                steps[YOUNG] += 1
            if passed_over >= PASS_OVER_MAX:
                outcome = PASSED_OVER
                pfn = following
                break
        elif not take:
            outcome = BUDGET_SPENT
            break
        elif filled + steps[FILLED] >= batch.shape[0]:
            outcome = BATCH_FULL
            break
        else:
            outcome = isolate_block(words, pages, pfn, order)
            if outcome != TAKEN:
                steps[BLOCKED] = 1
                break
            batch[filled + steps[FILLED]] = pfn << 4 | order
            steps[FILLED] += 1
            steps[LEFT] -= 1
            if (
                following != head
                and pages[following * RECORD_WORDS + STATE] & (TYPE_MASK | ORDER_MASK) != BUDDY | order
            ):
                following = int(pages[head * RECORD_WORDS + NEXT])  # it merged with a spare
        pfn = following
    words[WALKED_BLOCKS] += passed_over
    if rotate and pfn != head:
        rotate_to_front(words, pages, pfn, order)
    hold_ends(words, since_ns)
    unlock(words, ZONE_LOCK)
    return outcome


@kernel
def put_back(words: Any, pages: Any, batch: Any, count: int, reported: bool) -> None:
    """Return the batch's first blocks to the allocator, at their lists' tails, marked Reported if they were.

    Without KEEP_MARKS a block that merged is not marked, since its buddy may not have been reported. What is put back
    asks for no further reporting, but what is not marked is recorded again. Blocks that spares were given for become
    the spares.
    """
    lock(words, ZONE_LOCK)
    since_ns = hold_begins(words)
    for index in range(count):
        pfn = batch[index] >> 4
        order = batch[index] & ORDER_MASK
        words[ISOLATED_PAGES] -= 1 << order
        words[ISOLATED_BLOCKS] -= 1
        if words[SPARES] < words[SPARES_MAX]:
            _become_spares(words, pages, pfn, order, reported)
            continue
        _give_back(words, pages, pfn, order, reported)
    hold_ends(words, since_ns)
    unlock(words, ZONE_LOCK)


@kernel
def _become_spares(words: Any, pages: Any, pfn: int, order: int, reported: bool) -> None:
    smallest = words[REPORTING_ORDER]
    pages[pfn * RECORD_WORDS + STATE] = 0
    for _ in range(1 << (order - smallest)):
        pages[pfn * RECORD_WORDS + STATE] = SPARE | smallest
        words[_spares_base(words) + words[SPARES]] = pfn << 1 | int(reported)
        words[SPARES] += 1
        pfn += 1 << smallest
