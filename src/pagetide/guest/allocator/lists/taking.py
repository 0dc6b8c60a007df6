"""Taking a block off a free list, whichever it is, and putting back what is left of it; the caller holds the zone lock.

Follows Linux's mm/page_alloc.c (6.12): `page_del_and_expand`.
"""

from typing import Any

from pagetide.guest.allocator.frames import claim_block
from pagetide.guest.allocator.lists.free_list import add_to_free_list, list_heads_of, mark_reported, take_from_free_list
from pagetide.guest.allocator.request import notify_free, record_hint
from pagetide.guest.allocator.zone_layout import (
    FRAME_TABLE,
    FREE_PAGES,
    KEEP_APART,
    KEEP_MARKS,
    NEXT,
    NOTIFY_SPLITS,
    PCP,
    RECORD_HINT_MAP,
    RECORD_WORDS,
    RECORDING,
    REPORTED,
    REPORTING_ORDER,
    STATE,
    TICK_SHIFT,
    TYPE_MASK,
)
from pagetide.jit import inline_kernel, kernel
from pagetide.memory.frame_table import FRAME_ORDER


@inline_kernel
def pick(words: Any, pages: Any, head: int, current: int, order: int) -> int:
    """The block to take from a list that is not empty; -1 if the host is taking all of them (`claim_block`)."""
    if current >= FRAME_ORDER and words[FRAME_TABLE] != 0:
        return claim_block(words, pages, head, current, order)
    return int(pages[head * RECORD_WORDS + NEXT])


@inline_kernel
def take_from(words: Any, pages: Any, pfn: int, current: int, order: int, state: int) -> int:
    """Allocate from a free block of the order `current`, as `pick` said; the first frame of what is allocated."""
    head = pfn & ~((1 << current) - 1)
    found = int(pages[head * RECORD_WORDS + STATE])
    take_from_free_list(words, pages, head, current)
    if pfn != head:
        current -= 1  # the lower half stays free: the host is taking it
        add_to_free_list(words, pages, list_heads_of(words, pfn), head, current, False, found >> TICK_SHIFT)
    if current > order:
        _split(words, pages, pfn, current, order, found)
    if state & TYPE_MASK == PCP and words[KEEP_MARKS] != 0:
        state |= found & REPORTED
    pages[pfn * RECORD_WORDS + STATE] = state | order
    words[FREE_PAGES] -= 1 << order
    return pfn


@kernel
def _split(words: Any, pages: Any, pfn: int, high: int, low: int, found: int) -> None:
    """Put the upper halves of a block back, down to the order wanted (`expand`); `found` was the block's STATE."""
    keep = bool(found & REPORTED) and words[KEEP_MARKS] != 0
    if found & REPORTED and not keep and words[NOTIFY_SPLITS]:
        notify_free(words, 0, pfn + (1 << (high - 1)), high - 1)
    heads = list_heads_of(words, pfn)
    hints = not keep and words[RECORDING] >= RECORD_HINT_MAP
    half = high
    while half > low:
        half -= 1
        tail = keep and words[KEEP_MARKS] == KEEP_APART
        add_to_free_list(words, pages, heads, pfn + (1 << half), half, tail, found >> TICK_SHIFT)
        if keep:
            mark_reported(words, pages, pfn + (1 << half), half)
        elif hints and half >= words[REPORTING_ORDER]:
            record_hint(words, 0, pfn + (1 << half), half)
