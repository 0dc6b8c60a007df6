"""Which block an allocation takes in a zone that keeps to migratetypes; the caller holds the zone lock.

Follows Linux's mm/page_alloc.c (6.12): `__rmqueue`, `__rmqueue_smallest`, `__rmqueue_fallback` with
`find_suitable_fallback`, and `steal_suitable_fallback`. With KEEP_APART a type's own reported blocks go before another
type's unreported ones.
"""

from typing import Any

from pagetide.guest.allocator.lists.free_list import list_head
from pagetide.guest.allocator.lists.migratetypes import claim_pageblock, fallback, set_migratetype
from pagetide.guest.allocator.lists.taking import pick, take_from
from pagetide.guest.allocator.zone_layout import (
    KEEP_APART,
    KEEP_MARKS,
    MIGRATETYPE_SHIFT,
    MIGRATETYPES,
    MOVABLE,
    NEXT,
    RECORD_WORDS,
    REPORTED,
    STATE,
    TAKEN_PAGES,
)
from pagetide.jit import kernel
from pagetide.units import ORDER_MAX, ORDERS, PAGEBLOCK_ORDER


@kernel
def take_of_type(words: Any, pages: Any, order: int, state: int) -> int:
    """Allocate a block of the migratetype in this state: from its own lists, or else from others' (`__rmqueue`)."""
    migratetype = state >> MIGRATETYPE_SHIFT
    if words[KEEP_MARKS] == KEEP_APART:
        words[TAKEN_PAGES] += 1 << order
    pfn = _take_own(words, pages, order, state, migratetype)
    return pfn if pfn >= 0 else _fall_back(words, pages, order, state, migratetype)


@kernel
def _take_own(words: Any, pages: Any, order: int, state: int, migratetype: int) -> int:
    """Allocate the smallest block that serves of a type's own lists, or -1 (`__rmqueue_smallest`).

    With KEEP_APART the smallest that is not reported; whether there is one on a list is seen from its first block.
    """
    for is_choosy in range(int(words[KEEP_MARKS] == KEEP_APART), -1, -1):
        for current in range(order, ORDERS):
            head = list_head(words, current, migratetype)
            first = int(pages[head * RECORD_WORDS + NEXT])
            if first == head or (is_choosy and pages[first * RECORD_WORDS + STATE] & REPORTED):
                continue
            pfn = pick(words, pages, head, current, order)
            if pfn >= 0:
                return take_from(words, pages, pfn, current, order, state)
    return -1


@kernel
def _fall_back(words: Any, pages: Any, order: int, state: int, migratetype: int) -> int:
    """Allocate from another type's lists, or -1: the largest block that there is, so that it happens seldom.

    But for what is movable, and can be moved away again, the smallest one, unless it comes with enough of its pageblock
    (`__rmqueue_fallback`, `can_steal_fallback`).
    """
    smallest = order if migratetype != MOVABLE else max(order, PAGEBLOCK_ORDER >> 1)
    for current in range(ORDER_MAX, smallest - 1, -1):
        pfn = _take_others(words, pages, current, order, state, migratetype, True)
        if pfn >= 0:
            return pfn
    for current in range(order, smallest):
        pfn = _take_others(words, pages, current, order, state, migratetype, False)
        if pfn >= 0:
            return pfn
    return -1


@kernel
def _take_others(
    words: Any, pages: Any, current: int, order: int, state: int, migratetype: int, may_claim: bool
) -> int:
    """Allocate from another type's list of this order, and have its pageblock if that may be; -1 if there is none."""
    for turn in range(MIGRATETYPES - 1):
        head = list_head(words, current, fallback(migratetype, turn))
        if pages[head * RECORD_WORDS + NEXT] == head:
            continue
        pfn = pick(words, pages, head, current, order)
        if pfn < 0:
            continue
        if current >= PAGEBLOCK_ORDER:
            set_migratetype(words, pfn & ~((1 << current) - 1), current, migratetype)
        elif may_claim and claim_pageblock(words, pages, pfn, migratetype):
            return _take_own(words, pages, order, state, migratetype)
        return take_from(words, pages, pfn, current, order, state)
    return -1
