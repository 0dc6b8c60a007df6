"""The free lists: how a block gets onto one and off it; the caller holds the zone lock.

There is a list an order, and with migratetypes (migratetypes.py) one for each of them: a block is on that of its
pageblock's. What a zone counts it counts by order alone, as Linux's `struct free_area` does.
"""

from typing import Any

from pagetide.guest.allocator.candidates import map_clear, map_set
from pagetide.guest.allocator.zone_layout import (
    BUDDY,
    NEXT,
    NR_FREE,
    NR_PAGES,
    NR_REPORTED,
    PAGEBLOCKS,
    PREVIOUS,
    RECORD_UNREPORTED,
    RECORD_WORDS,
    RECORDING,
    REPORTED,
    REPORTED_PAGES,
    REPORTING_ORDER,
    STATE,
    TICK_SHIFT,
)
from pagetide.jit import inline_kernel, kernel
from pagetide.units import ORDERS, PAGEBLOCK_ORDER


@inline_kernel
def link(pages: Any, before: int, pfn: int, after: int) -> None:
    """Put a block between two others of a list, either of which may be its head."""
    pages[before * RECORD_WORDS + NEXT] = pfn
    pages[pfn * RECORD_WORDS + PREVIOUS] = before
    pages[pfn * RECORD_WORDS + NEXT] = after
    pages[after * RECORD_WORDS + PREVIOUS] = pfn


@inline_kernel
def unlink(pages: Any, pfn: int) -> None:
    """Take a block out of its list."""
    before = pages[pfn * RECORD_WORDS + PREVIOUS]
    after = pages[pfn * RECORD_WORDS + NEXT]
    pages[before * RECORD_WORDS + NEXT] = after
    pages[after * RECORD_WORDS + PREVIOUS] = before


@inline_kernel
def list_head(words: Any, order: int, migratetype: int) -> int:
    """The sentinel record of this free list."""
    return words[NR_PAGES] + order + ORDERS * migratetype  # type: ignore[no-any-return]


@inline_kernel
def list_heads_of(words: Any, pfn: int) -> int:
    """That of the list of order 0 on which a free block with this frame would belong; the other orders' follow."""
    heads = words[NR_PAGES]
    if words[PAGEBLOCKS] != 0:
        heads += ORDERS * words[words[PAGEBLOCKS] + (pfn >> PAGEBLOCK_ORDER)]
    return heads  # type: ignore[no-any-return]


@kernel
def rotate_to_front(words: Any, pages: Any, pfn: int, order: int) -> None:
    """Make this block the first of its free list, keeping the list's circular order (`list_rotate_to_front`)."""
    head = list_heads_of(words, pfn) + order
    if pages[head * RECORD_WORDS + NEXT] != pfn:
        unlink(pages, head)
        link(pages, int(pages[pfn * RECORD_WORDS + PREVIOUS]), head, pfn)


@kernel
def add_to_free_list(words: Any, pages: Any, heads: int, pfn: int, order: int, tail: bool, tick: int) -> None:
    """Put a block on one of these free lists, as `list_heads_of` has them, unmarked, free since this tick."""
    head = heads + order
    if tail:
        link(pages, int(pages[head * RECORD_WORDS + PREVIOUS]), pfn, head)
    else:
        link(pages, head, pfn, int(pages[head * RECORD_WORDS + NEXT]))
    pages[pfn * RECORD_WORDS + STATE] = tick << TICK_SHIFT | BUDDY | order
    words[NR_FREE + order] += 1
    if order >= words[REPORTING_ORDER] and words[RECORDING] == RECORD_UNREPORTED:
        map_set(words, pfn >> words[REPORTING_ORDER])


@kernel
def take_from_free_list(words: Any, pages: Any, pfn: int, order: int) -> None:
    """Take a block off its free list; its Reported mark goes."""
    unlink(pages, pfn)
    if pages[pfn * RECORD_WORDS + STATE] & REPORTED:
        words[NR_REPORTED + order] -= 1
        words[REPORTED_PAGES] -= 1 << order
    elif order >= words[REPORTING_ORDER] and words[RECORDING] == RECORD_UNREPORTED:
        map_clear(words, pfn >> words[REPORTING_ORDER])
    pages[pfn * RECORD_WORDS + STATE] = 0
    words[NR_FREE + order] -= 1


@kernel
def mark_reported(words: Any, pages: Any, pfn: int, order: int) -> None:
    """Set the Reported mark of a block on a free list."""
    pages[pfn * RECORD_WORDS + STATE] |= REPORTED
    words[NR_REPORTED + order] += 1
    words[REPORTED_PAGES] += 1 << order
    if order >= words[REPORTING_ORDER] and words[RECORDING] == RECORD_UNREPORTED:
        map_clear(words, pfn >> words[REPORTING_ORDER])
