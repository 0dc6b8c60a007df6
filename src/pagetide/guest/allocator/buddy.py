"""The buddy allocator's own operations; the caller holds the zone lock.

Follows Linux's mm/page_alloc.c (6.12): `__rmqueue_smallest` and `expand`, `__free_one_page`. Allocating a block drops
its Reported mark; so do splitting and merging, unless KEEP_MARKS is set: then the halves of a reported block are
reported, and so is what two reported blocks merge into, since none of it was touched. Two divergences: a zone has one
free list an order, and not one a migratetype, unless it was made with them; and a double or a wrong free is refused
with an error instead of being undefined.

With KEEP_APART the mark is exact for every page: blocks of at least the reporting order that differ in it do not merge,
but when an allocation would fail otherwise (`join_apart`). So no page needs a mark of its own, and what is touched
again is never split out of what the host still holds. Unreported blocks are at their lists' heads, reported ones at
the tails; an allocation takes the smallest unreported block that serves, the last one freed first, and a reported one
only if there is none. When two blocks merge the tick since which the whole is free is the mean of theirs: pages times
age is what it was.
"""

from typing import Any

from pagetide.guest.allocator.frames import offer_block
from pagetide.guest.allocator.lists.by_type import take_of_type
from pagetide.guest.allocator.lists.free_list import (
    add_to_free_list,
    link,
    list_head,
    mark_reported,
    take_from_free_list,
    unlink,
)
from pagetide.guest.allocator.lists.migratetypes import heads_for
from pagetide.guest.allocator.lists.taking import pick, take_from
from pagetide.guest.allocator.zone_layout import (
    BUDDY,
    FRAME_TABLE,
    FREE_PAGES,
    KEEP_APART,
    KEEP_MARKS,
    MOVABLE,
    NEXT,
    NR_FREE,
    NR_PAGES,
    NR_REPORTED,
    ORDER_MASK,
    PAGEBLOCKS,
    PREVIOUS,
    RECORD_WORDS,
    REPORTED,
    REPORTING_ORDER,
    STATE,
    TAKEN_PAGES,
    TICK,
    TICK_MASK,
    TICK_SHIFT,
    TYPE_MASK,
    WMARK_MIN,
)
from pagetide.jit import inline_kernel, kernel
from pagetide.memory.frame_table import FRAME_ORDER
from pagetide.units import ORDER_MAX, ORDERS


@kernel
def take_block(words: Any, pages: Any, order: int, state: int) -> int:
    """Allocate a block and give it this state; -1 if there is none or it would break the min watermark.

    The state of what is allocated has the migratetype, for a zone that keeps to them.
    """
    if words[FREE_PAGES] - (1 << order) < words[WMARK_MIN]:
        return -1
    if words[PAGEBLOCKS] != 0:
        return take_of_type(words, pages, order, state)
    first = order
    if words[KEEP_MARKS] == KEEP_APART:
        words[TAKEN_PAGES] += 1 << order
        first = _first_unreported(words, pages, order)
    for current in range(first, ORDERS):
        if words[NR_FREE + current] == 0:
            continue
        pfn = pick(words, pages, list_head(words, current, MOVABLE), current, order)
        if pfn >= 0:
            return take_from(words, pages, pfn, current, order, state)
    return -1


@inline_kernel
def _first_unreported(words: Any, pages: Any, order: int) -> int:
    """The smallest order from this one on with an unreported block, which is then its list's first; else this one."""
    for current in range(order, ORDERS):
        if words[NR_FREE + current] > words[NR_REPORTED + current]:
            head = list_head(words, current, MOVABLE)
            pfn = int(pages[head * RECORD_WORDS + NEXT])
            while pages[pfn * RECORD_WORDS + STATE] & REPORTED:  # from a time when they were not kept apart
                following = int(pages[pfn * RECORD_WORDS + NEXT])
                unlink(pages, pfn)
                link(pages, int(pages[head * RECORD_WORDS + PREVIOUS]), pfn, head)
                pfn = following
            return current
    return order


@inline_kernel
def _is_buddy(words: Any, pages: Any, pfn: int, order: int) -> bool:
    return (  # type: ignore[no-any-return]
        pfn + (1 << order) <= words[NR_PAGES]
        and (pages[pfn * RECORD_WORDS + STATE] & (TYPE_MASK | ORDER_MASK)) == BUDDY | order
    )


@kernel
def return_block(words: Any, pages: Any, pfn: int, order: int, tail: bool, reported: bool) -> int:
    """Put a block back, marked if it was reported, merging it with its free buddies; the order that it ends up as.

    A block whose next larger buddy is free goes to the list's tail, since it may soon merge (`buddy_merge_likely`).
    """
    if words[KEEP_MARKS] == KEEP_APART:
        return _return_apart(words, pages, pfn, order, reported, 0, words[REPORTING_ORDER])
    words[FREE_PAGES] += 1 << order
    pages[pfn * RECORD_WORDS + STATE] = 0
    first, freed_order = pfn, order
    while order < ORDER_MAX and _is_buddy(words, pages, pfn ^ (1 << order), order):
        buddy = pfn ^ (1 << order)
        reported = reported and words[KEEP_MARKS] != 0 and pages[buddy * RECORD_WORDS + STATE] & REPORTED != 0
        take_from_free_list(words, pages, buddy, order)
        pfn &= ~(1 << order)
        order += 1
    heads = words[NR_PAGES]
    if words[PAGEBLOCKS] != 0:
        heads = heads_for(words, pfn, order, first)
    if not tail and order < ORDER_MAX - 1:
        larger = pfn & ~(1 << order)
        tail = _is_buddy(words, pages, larger ^ (2 << order), order + 1)
    add_to_free_list(words, pages, heads, pfn, order, tail, words[TICK])
    if reported:
        mark_reported(words, pages, pfn, order)
    if order >= FRAME_ORDER and words[FRAME_TABLE] != 0:
        offer_block(words, first, freed_order)
    return order


@inline_kernel
def _return_apart(words: Any, pages: Any, pfn: int, order: int, reported: bool, age: int, apart_from: int) -> int:
    """The same with KEEP_APART: blocks of at least the order `apart_from` merge with their like alone."""
    words[FREE_PAGES] += 1 << order
    pages[pfn * RECORD_WORDS + STATE] = 0
    first = pfn
    while order < ORDER_MAX and _is_buddy(words, pages, pfn ^ (1 << order), order):
        buddy = pfn ^ (1 << order)
        found = int(pages[buddy * RECORD_WORDS + STATE])
        alike = reported == (found & REPORTED != 0)
        if not alike and order >= apart_from:
            break
        age = (age + ((words[TICK] - (found >> TICK_SHIFT)) & TICK_MASK)) >> 1
        reported = reported and alike
        take_from_free_list(words, pages, buddy, order)
        pfn &= ~(1 << order)
        order += 1
    heads = words[NR_PAGES]
    if words[PAGEBLOCKS] != 0:
        heads = heads_for(words, pfn, order, first)
    add_to_free_list(words, pages, heads, pfn, order, reported, (words[TICK] - age) & TICK_MASK)
    if reported:
        mark_reported(words, pages, pfn, order)
    return order


@kernel
def join_apart(words: Any, pages: Any, start: int, places: int) -> int:
    """Merge blocks that are kept apart by their marks alone, which drops the mark; the frame at which to go on."""
    pfn = start
    while pfn < words[NR_PAGES] and places > 0:
        places -= 1
        state = int(pages[pfn * RECORD_WORDS + STATE])
        order = state & ORDER_MASK
        if state & TYPE_MASK == BUDDY and order < ORDER_MAX and _is_buddy(words, pages, pfn ^ (1 << order), order):
            age = (words[TICK] - (state >> TICK_SHIFT)) & TICK_MASK
            take_from_free_list(words, pages, pfn, order)
            words[FREE_PAGES] -= 1 << order
            _return_apart(words, pages, pfn, order, state & REPORTED != 0, age, ORDERS)
        pfn += 1 << order  # within a block that is larger by now there is no state: the next place is the next frame
    return pfn


@kernel
def free_all(words: Any, pages: Any) -> None:
    """Put every frame of a new zone on a free list, in blocks as large as they can be, by position."""
    pfn = 0
    order = ORDER_MAX
    while pfn < words[NR_PAGES]:
        while pfn + (1 << order) > words[NR_PAGES]:
            order -= 1
        return_block(words, pages, pfn, order, True, False)
        pfn += 1 << order
